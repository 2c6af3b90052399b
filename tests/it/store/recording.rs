//! Batches and events: registered once, recorded once, shown as they are.

use super::stage::{Stage, on_both};
use super::*;
use batchd::domain::event::Draft;
use batchd::domain::time::{earlier, later};
use batchd::domain::tracked::Eta;
use batchd::store::StoreError;
use batchd::store::batches::BatchFilter;
use batchd::store::events::EventFilter;
use batchd::store::jobs::JobRun;
use batchd::store::providers::ProviderState;
use batchd::store::touch::Touch;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use std::time::Duration;

on_both! {
    one_that_is_refused_takes_none_along,
    every_field_is_read_back_as_it_was_stored,
    tracking_again_changes_what_is_given_and_nothing_else,
    the_same_batch_twice_in_one_call_is_one,
    untracked_is_not_polled_until_it_is_tracked_again,
    a_lost_batch_that_is_tracked_again_is_looked_for_at_once_and_kept_as_long_as_one_lost_now,
    a_first_look_is_stored_with_the_batch,
    recording_leaves_alone_what_users_changed_meanwhile,
    each_event_is_recorded_once_ever,
    j5_a_batch_that_flaps_is_told_once_a_status,
    events_that_are_about_no_batch,
    an_event_about_no_batch_stays_for_as_long_as_it_is_owed,
    lists_are_newest_first_filtered_and_paged,
    events_are_read_on_from_a_number_and_by_batch,
    pruning_takes_what_is_over_and_leaves_what_is_owed,
    a_batch_that_is_gone_is_no_error,
    a_row_that_cannot_be_read_is_damage,
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn ending_at(at: Timestamp) -> Eta {
    Eta { at, earliest: earlier(at, Duration::from_secs(9)), latest: later(at, Duration::from_secs(90)) }
}

async fn every_field_is_read_back_as_it_was_stored(stage: Stage) {
    let store = stage.open().await;
    let mut full = look(&unseen("batch_1"), Status::Finalizing, seconds(5)).tracked;
    full.name = Some("a name \u{202e} 'quoted'\n".to_owned());
    full.labels = labels(&[("team", "evals"), ("a \"b\"", "")]);
    full.owner = Some("ada".to_owned());
    full.notify.also.insert("ops".to_owned());
    full.notify.nobody = true;
    full.origin = Origin::Baseline;
    full.console_url = Some("https://example.com/1".to_owned());
    full.missing = Some(batchd::domain::tracked::Missing { since: seconds(7), count: 2 });
    full.batch.metadata = Some(labels(&[("k", "v")]));
    full.batch.request_counts = Some(RequestCounts { total: u64::MAX, completed: 1, failed: 0 });
    full.failures = 3;
    full.settled = true;
    full.eta = Some(ending_at(seconds(300)));
    full.trail.mark(seconds(8), 1);
    full.warned.insert("unknown status word `odd`".to_owned());
    for (number, at) in [
        &mut full.lost_since,
        &mut full.stalled_since,
        &mut full.deadline,
        &mut full.held_since,
        &mut full.results_expire_at,
        &mut full.progress_at,
        &mut full.last_polled_at,
        &mut full.next_poll_at,
    ]
    .into_iter()
    .enumerate()
    {
        *at = Some(seconds(100 + i64::try_from(number).unwrap()));
    }
    let item = Registration { tracked: full.clone(), first_look: None, user_fields: UserFields::default() };
    let registered = store.register(vec![item], routes(&[])).await.unwrap().remove(0);
    assert!(registered.new);
    assert_eq!(registered.tracked, full);
    assert_eq!(store.load(registered.pk).await.unwrap(), Some(full.clone()));
    assert_eq!(store.get(full.key.clone()).await.unwrap(), Some((registered.pk, full.clone())));

    // What is finer than a millisecond is not kept, and not claimed to be.
    let mut fine = unseen("batch_2");
    fine.tracked_at = Timestamp::constant(1_795_000_000, 123_456_789);
    let item = Registration { tracked: fine, first_look: None, user_fields: UserFields::default() };
    let registered = store.register(vec![item], routes(&[])).await.unwrap().remove(0);
    assert_eq!(Some(registered.tracked), store.load(registered.pk).await.unwrap());
}

async fn tracking_again_changes_what_is_given_and_nothing_else(stage: Stage) {
    let store = stage.open().await;
    let pk = track(&store, "batch_1").await;
    see(&store, pk, Status::InProgress, 10, &["pipeline"]).await;
    let before = store.load(pk).await.unwrap().unwrap();

    let mut other = registration("batch_1");
    other.tracked.name = Some("ignored".to_owned());
    other.first_look = Some(look(&other.tracked, Status::Failed, seconds(20)));
    let again = store.register(vec![other.clone()], routes(&["pipeline"])).await.unwrap().remove(0);
    assert_eq!((again.pk, again.new, &again.tracked), (pk, false, &before));
    assert_eq!(store.last_sequence().await.unwrap(), 1);

    other.user_fields = UserFields {
        name: Some("nightly".to_owned()),
        labels: labels(&[("team", "evals")]),
        notify_also: BTreeSet::from(["ops".to_owned()]),
        notify_nobody: None,
        deadline: Some(seconds(3600)),
    };
    store.register(vec![other.clone()], routes(&[])).await.unwrap();
    other.user_fields =
        UserFields { labels: labels(&[("run", "7"), ("team", "core")]), ..UserFields::default() };
    other.user_fields.notify_nobody = Some(true);
    let given = store.register(vec![other], routes(&[])).await.unwrap().remove(0).tracked;
    assert_eq!(given.name.as_deref(), Some("nightly"));
    assert_eq!(given.labels, labels(&[("run", "7"), ("team", "core")]));
    assert!(given.notify.nobody && given.notify.also.contains("ops"));
    assert_eq!(given.deadline, Some(seconds(3600)));
    assert_eq!(given.batch, before.batch);
    assert_eq!(store.load(pk).await.unwrap(), Some(given));
}

async fn the_same_batch_twice_in_one_call_is_one(stage: Stage) {
    let store = stage.open().await;
    let mut second = registration("batch_1");
    second.user_fields.name = Some("given".to_owned());
    let items = vec![registration("batch_1"), registration("batch_2"), second];
    let done = store.register(items, routes(&[])).await.unwrap();
    assert_eq!(done.iter().map(|one| one.new).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(done[0].pk, done[2].pk);
    assert_eq!(done[2].tracked.name.as_deref(), Some("given"));
}

async fn untracked_is_not_polled_until_it_is_tracked_again(stage: Stage) {
    let store = stage.open().await;
    let pk = track(&store, "batch_1").await;
    let before = store.load(pk).await.unwrap().unwrap();
    store.untrack(pk, seconds(5)).await.unwrap();
    store.untrack(pk, seconds(6)).await.unwrap();
    // A look that was under way is recorded; it does not make it due again.
    store.record(pk, look(&before, Status::InProgress, seconds(7)), routes(&["pipeline"])).await.unwrap();
    store.touch(pk, Touch { last_polled_at: seconds(8), next_poll_at: seconds(9), eta: None });
    let untracked = store.load(pk).await.unwrap().unwrap();
    assert_eq!(untracked.untracked_at, Some(seconds(5)));
    assert_eq!((untracked.next_poll_at, untracked.batch.status), (None, Status::InProgress));
    assert!(store.schedule().await.unwrap().is_empty());
    assert!(
        store.list(BatchFilter { active_only: true, ..BatchFilter::default() }).await.unwrap().0.is_empty()
    );

    let again = store.register(vec![registration("batch_1")], routes(&[])).await.unwrap().remove(0);
    assert!(!again.new);
    assert_eq!((again.tracked.untracked_at, again.tracked.next_poll_at), (None, Some(EPOCH)));
    assert_eq!(store.schedule().await.unwrap()[0].next_poll_at, EPOCH);
}

async fn a_lost_batch_that_is_tracked_again_is_looked_for_at_once_and_kept_as_long_as_one_lost_now(
    stage: Stage,
) {
    let store = stage.open().await;
    let pk = track(&store, "batch_1").await;
    let before = store.load(pk).await.unwrap().unwrap();
    let long_ago = EPOCH.checked_sub(jiff::SignedDuration::from_hours(24 * 365)).unwrap();
    let mut lost = before.clone();
    (lost.lost_since, lost.next_poll_at) = (Some(long_ago), None);
    store.record(pk, Step::quiet(lost.clone()), routes(&[])).await.unwrap();
    assert!(store.schedule().await.unwrap().is_empty());

    let again = store.register(vec![registration("batch_1")], routes(&[])).await.unwrap().remove(0);
    assert_eq!((again.tracked.lost_since, again.tracked.next_poll_at), (Some(EPOCH), Some(EPOCH)));
    // A check that began before does not put the time back.
    lost.next_poll_at = Some(seconds(60));
    store.record(pk, Step::quiet(lost), routes(&[])).await.unwrap();
    let stored = store.load(pk).await.unwrap().unwrap();
    assert_eq!(stored.lost_since, Some(EPOCH));
    assert!(stored.next_poll_at.is_some());
}

async fn a_first_look_is_stored_with_the_batch(stage: Stage) {
    let store = stage.open().await;
    let mut item = registration("batch_1");
    item.first_look = Some(look(&item.tracked, Status::Completed, seconds(1)));
    let registered = store.register(vec![item], routes(&["pipeline"])).await.unwrap().remove(0);
    assert_eq!(registered.tracked.batch.status, Status::Completed);
    let transitions = store.transitions(registered.pk).await.unwrap();
    assert_eq!(transitions.len(), 1);
    assert_eq!((transitions[0].from, transitions[0].to), (None, Status::Completed));
    let events = store.events(EventFilter::default()).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].kind, EventType::Batch(Status::Completed));
    assert_eq!(store.due("pipeline".to_owned(), EPOCH, 9).await.unwrap().len(), 1);
}

async fn recording_leaves_alone_what_users_changed_meanwhile(stage: Stage) {
    let store = stage.open().await;
    let pk = track(&store, "batch_1").await;
    let mut step = look(&store.load(pk).await.unwrap().unwrap(), Status::InProgress, seconds(1));
    step.tracked.name = Some("the provider's".to_owned());

    let mut given = registration("batch_1");
    given.user_fields.labels = labels(&[("team", "evals")]);
    given.user_fields.deadline = Some(seconds(60));
    given.user_fields.notify_also = BTreeSet::from(["quiet".to_owned()]);
    store.register(vec![given.clone()], routes(&[])).await.unwrap();

    let quiet = Route { on_request: true, ..route("quiet") };
    let picky = Route { labels: labels(&[("team", "evals")]), ..route("picky") };
    let deaf = Route { labels: labels(&[("team", "core")]), ..route("deaf") };
    store.record(pk, step.clone(), Arc::new(Routes(vec![quiet, picky, deaf]))).await.unwrap();
    let stored = store.load(pk).await.unwrap().unwrap();
    assert_eq!(stored.labels, labels(&[("team", "evals")]));
    assert_eq!(stored.deadline, Some(seconds(60)));
    assert_eq!(stored.name.as_deref(), Some("the provider's"), "filled, since there was none");
    let backlogs: Vec<_> = store.backlogs().await.unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(backlogs, ["picky", "quiet"], "chosen by what the user gave meanwhile");

    given.user_fields = UserFields { name: Some("mine".to_owned()), ..UserFields::default() };
    store.register(vec![given], routes(&[])).await.unwrap();
    store.record(pk, step, routes(&[])).await.unwrap();
    assert_eq!(store.load(pk).await.unwrap().unwrap().name.as_deref(), Some("mine"));
}

async fn each_event_is_recorded_once_ever(stage: Stage) {
    let store = stage.open().await;
    let mut newest = store.watch_events();
    let pk = track(&store, "batch_1").await;
    let before = store.load(pk).await.unwrap().unwrap();
    let step = look(&before, Status::Completed, seconds(60));
    let first = store.record(pk, step.clone(), routes(&["pipeline", "ops"])).await.unwrap();
    let second = store.record(pk, step.clone(), routes(&["pipeline", "ops"])).await.unwrap();
    assert_eq!((first, second), (1, 0));
    assert_eq!(*newest.borrow_and_update(), 1);
    assert_eq!(store.transitions(pk).await.unwrap().len(), 1);
    let events = store.events(EventFilter::default()).await.unwrap();
    assert_eq!(events.len(), 1);
    let body = step.events[0].draft_of_check(&step.tracked, None).body(1);
    assert_eq!(events[0].body, body, "frozen as the log numbered it");
    assert_eq!(store.recorded_by_type(), [(EventType::Batch(Status::Completed), 1)]);

    // An older look that arrives late does not bring it back to life.
    assert_eq!(
        store.record(pk, look(&before, Status::InProgress, seconds(50)), routes(&[])).await.unwrap(),
        0
    );
    assert_eq!(store.load(pk).await.unwrap().unwrap().batch.status, Status::Completed);

    // Pruned, found again, and still told once; only purging forgets.
    assert_eq!(prune(&store, seconds(3600)).await, 0, "its webhooks are still owed it");
    for webhook in ["pipeline", "ops"] {
        let due = store.due(webhook.to_owned(), EPOCH, 9).await.unwrap();
        super::delivering::deliver(&store, due[0].pk, batchd::store::outbox::Next::Delivered).await;
    }
    assert_eq!(prune(&store, seconds(60)).await, 0);
    assert_eq!(prune(&store, seconds(61)).await, 1);
    assert!(store.load(pk).await.unwrap().is_none());
    assert!(store.events(EventFilter::default()).await.unwrap().is_empty());
    let pk = track(&store, "batch_1").await;
    assert_eq!(store.record(pk, step.clone(), routes(&["pipeline"])).await.unwrap(), 0);
    assert_eq!(store.last_sequence().await.unwrap(), 1);
    store.purge(pk).await.unwrap();
    let pk = track(&store, "batch_1").await;
    assert_eq!(store.record(pk, step, routes(&["pipeline"])).await.unwrap(), 1);
    assert_eq!(store.last_sequence().await.unwrap(), 2, "a number is never used twice");
    assert_eq!(store.record(pk + 1, look(&before, Status::Failed, EPOCH), routes(&[])).await.unwrap(), 0);
}

async fn j5_a_batch_that_flaps_is_told_once_a_status(stage: Stage) {
    let store = stage.open().await;
    let pk = track(&store, "batch_1").await;
    for round in 0..100 {
        let status = if round % 2 == 0 { Status::InProgress } else { Status::Finalizing };
        see(&store, pk, status, round, &["pipeline"]).await;
    }
    assert_eq!(store.events(EventFilter::default()).await.unwrap().len(), 2);
    assert_eq!(store.transitions(pk).await.unwrap().len(), 100);
    drop(store);
    stage.assert_sound();
}

async fn events_that_are_about_no_batch(stage: Stage) {
    let store = stage.open().await;
    let draft =
        |kind, since| Draft::about_provider(kind, "openai", "no answer", seconds(since), seconds(since));
    let silent = draft(EventType::ProviderUnreachable, 1);
    assert!(store.record_event(silent.clone(), routes(&["ops"])).await.unwrap());
    assert!(!store.record_event(silent.clone(), routes(&["ops"])).await.unwrap());
    let silence = ProviderState {
        silent_since: Some(seconds(1)),
        silence_told: true,
        last_error: Some("refused".to_owned()),
        last_success_at: Some(EPOCH),
        refused_since: None,
        held_until: Some(seconds(9)),
    };
    let recovered = draft(EventType::ProviderRecovered, 2);
    let events = vec![silent, recovered];
    store.set_provider_state("openai".to_owned(), silence.clone(), events, routes(&["ops"])).await.unwrap();
    assert_eq!(store.provider_states().await.unwrap(), [("openai".to_owned(), silence)]);
    let kinds: Vec<_> =
        store.events(EventFilter::default()).await.unwrap().into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventType::ProviderUnreachable, EventType::ProviderRecovered]);
    assert_eq!(store.due("ops".to_owned(), EPOCH, 9).await.unwrap().len(), 2);

    let run = JobRun { name: "prune".to_owned(), started_at: EPOCH, finished_at: seconds(1), error: None };
    store.set_job_run(run.clone()).await.unwrap();
    let run = JobRun { error: Some("full".to_owned()), ..run };
    store.set_job_run(run.clone()).await.unwrap();
    assert_eq!(store.job_runs().await.unwrap(), [run]);

    for due in store.due("ops".to_owned(), EPOCH, 9).await.unwrap() {
        super::delivering::deliver(&store, due.pk, batchd::store::outbox::Next::Dead).await;
    }
    // What tells of trouble that lasts stays until that is over.
    prune(&store, seconds(3600)).await;
    assert_eq!(store.events(EventFilter::default()).await.unwrap().len(), 1);
    let well = ProviderState::default();
    store.set_provider_state("openai".to_owned(), well, Vec::new(), routes(&[])).await.unwrap();
    prune(&store, seconds(3600)).await;
    assert!(store.events(EventFilter::default()).await.unwrap().is_empty());
}

async fn an_event_about_no_batch_stays_for_as_long_as_it_is_owed(stage: Stage) {
    let store = stage.open().await;
    store.align_webhooks(vec!["ops".to_owned()], EPOCH).await.unwrap();
    let well = Draft::about_provider(EventType::ProviderRecovered, "openai", "well", seconds(1), seconds(1));
    assert!(store.record_event(well, routes(&["ops"])).await.unwrap());
    prune(&store, seconds(3600)).await;
    let owed = store.due("ops".to_owned(), EPOCH, 9).await.unwrap();
    assert_eq!(owed.len(), 1, "what is owed was deleted");
    super::delivering::deliver(&store, owed[0].pk, batchd::store::outbox::Next::Delivered).await;
    prune(&store, seconds(3600)).await;
    assert!(store.events(EventFilter::default()).await.unwrap().is_empty());
}

async fn lists_are_newest_first_filtered_and_paged(stage: Stage) {
    let store = stage.open().await;
    let mut pks = Vec::new();
    for number in 0..10 {
        let mut item = registration(&format!("batch_{number}"));
        item.tracked.labels = labels(&[("parity", if number % 2 == 0 { "even" } else { "odd" })]);
        item.tracked.labels.insert(format!("n\".{number}"), "x".to_owned());
        item.tracked.owner = (number < 3).then(|| "ada".to_owned());
        item.tracked.key.provider = if number == 9 { "mistral".to_owned() } else { "openai".to_owned() };
        pks.push(store.register(vec![item], routes(&[])).await.unwrap()[0].pk);
    }
    for pk in &pks[..4] {
        see(&store, *pk, Status::Completed, 1, &[]).await;
    }
    let list = |filter: BatchFilter| {
        let (store, pks) = (store.clone(), pks.clone());
        async move {
            let (found, more) = store.list(filter).await.unwrap();
            let numbers: Vec<_> =
                found.iter().map(|(pk, _)| pks.iter().position(|known| known == pk).unwrap()).collect();
            (numbers, more)
        }
    };
    let all = BatchFilter::default;
    assert_eq!(list(all()).await, ((0..10).rev().collect(), false));
    assert_eq!(list(BatchFilter { limit: Some(3), ..all() }).await, (vec![9, 8, 7], true));
    assert_eq!(
        list(BatchFilter { limit: Some(3), after: Some(pks[3]), ..all() }).await,
        (vec![2, 1, 0], false)
    );
    assert_eq!(list(BatchFilter { limit: Some(0), ..all() }).await, (vec![], true));
    assert_eq!(list(BatchFilter { active_only: true, ..all() }).await.0, [9, 8, 7, 6, 5, 4]);
    assert_eq!(
        list(BatchFilter { statuses: vec![Status::Completed, Status::Failed], ..all() }).await.0,
        [3, 2, 1, 0]
    );
    assert_eq!(list(BatchFilter { provider: Some("mistral".to_owned()), ..all() }).await.0, [9]);
    assert_eq!(list(BatchFilter { owner: Some("ada".to_owned()), ..all() }).await.0, [2, 1, 0]);
    let even = labels(&[("parity", "even"), ("n\".4", "x")]);
    assert_eq!(list(BatchFilter { labels: even, ..all() }).await.0, [4]);
    assert_eq!(list(BatchFilter { labels: labels(&[("parity", "x")]), ..all() }).await.0, [] as [usize; 0]);
    let both =
        BatchFilter { active_only: true, labels: labels(&[("parity", "odd")]), limit: Some(2), ..all() };
    assert_eq!(list(both).await, (vec![9, 7], true));

    let counts = store.counts().await.unwrap();
    let expected = [
        ("mistral", Status::Validating, 1),
        ("openai", Status::Completed, 4),
        ("openai", Status::Validating, 5),
    ];
    assert_eq!(counts, expected.map(|(name, status, count)| (name.to_owned(), status, count)));
    assert_eq!(store.schedule().await.unwrap().len(), 6);

    let mut same_id = registration("batch_0");
    "anthropic".clone_into(&mut same_id.tracked.key.provider);
    store.register(vec![same_id], routes(&[])).await.unwrap();
    let found = store.find("batch_0".to_owned()).await.unwrap();
    let providers: Vec<_> = found.iter().map(|(_, tracked)| tracked.key.provider.as_str()).collect();
    assert_eq!(providers, ["anthropic", "openai"]);
}

async fn events_are_read_on_from_a_number_and_by_batch(stage: Stage) {
    let store = stage.open().await;
    let (one, two) = (track(&store, "batch_1").await, track(&store, "batch_2").await);
    for (at, status) in [(1, Status::InProgress), (2, Status::Finalizing), (3, Status::Completed)] {
        see(&store, one, status, at, &[]).await;
        see(&store, two, status, at, &[]).await;
    }
    let read = |filter: EventFilter| {
        let store = store.clone();
        async move {
            store.events(filter).await.unwrap().into_iter().map(|event| event.sequence).collect::<Vec<_>>()
        }
    };
    assert_eq!(read(EventFilter { after: 2, limit: Some(3), ..EventFilter::default() }).await, [3, 4, 5]);
    assert_eq!(read(EventFilter { batch: Some(key("batch_2")), ..EventFilter::default() }).await, [2, 4, 6]);
    assert_eq!(
        read(EventFilter { after: 2, limit: Some(1), batch: Some(key("batch_2")), ..EventFilter::default() })
            .await,
        [4]
    );
    assert_eq!(
        read(EventFilter { batch: Some(key("nobody")), ..EventFilter::default() }).await,
        [] as [i64; 0]
    );
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_look_costs_no_commit_and_is_shown_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), still()).unwrap();
    let pk = track(&store, "batch_1").await;
    let other = track(&store, "batch_2").await;
    let before = store.commit_stats().count;
    let touch = |at| Touch {
        last_polled_at: seconds(at),
        next_poll_at: seconds(at + 60),
        eta: Some(ending_at(seconds(999))),
    };
    store.touch(pk, touch(1));
    store.touch(pk, touch(2));
    let shown = store.load(pk).await.unwrap().unwrap();
    assert_eq!(shown.last_polled_at, Some(seconds(2)));
    assert_eq!((shown.next_poll_at, shown.eta), (Some(seconds(62)), Some(ending_at(seconds(999)))));
    assert_eq!(store.get(key("batch_1")).await.unwrap().unwrap().1, shown);
    assert_eq!(store.list(BatchFilter::default()).await.unwrap().0[1].1, shown);
    let schedule: BTreeMap<_, _> =
        store.schedule().await.unwrap().into_iter().map(|entry| (entry.pk, entry.next_poll_at)).collect();
    assert_eq!(schedule, BTreeMap::from([(pk, seconds(62)), (other, EPOCH)]));
    assert_eq!(store.commit_stats().count, before);
    let stored = "SELECT count(*) FROM checks WHERE last_polled_at IS NOT NULL";
    assert_eq!(number(&raw(dir.path()), stored), 0);

    // It rides on the next commit …
    see(&store, other, Status::InProgress, 3, &[]).await;
    assert_eq!(store.commit_stats().count, before + 1);
    assert_eq!(number(&raw(dir.path()), stored), 2);
    assert_eq!(store.load(pk).await.unwrap().unwrap(), shown);
    // … or is written after 30 s …
    store.touch(pk, touch(4));
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(store.commit_stats().count, before + 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(store.commit_stats().count, before + 2);
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(store.commit_stats().count, before + 2, "once");
    // … or at the end.
    store.touch(pk, touch(5));
    store.touch(999, touch(5));
    store.close().await.unwrap();
    let store = Store::open(dir.path(), still()).unwrap();
    assert_eq!(store.load(pk).await.unwrap().unwrap().last_polled_at, Some(seconds(5)));

    // A look that found news is never overwritten by an older one that did not.
    store.touch(pk, touch(6));
    see(&store, pk, Status::Completed, 7, &[]).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let ended = store.load(pk).await.unwrap().unwrap();
    assert_eq!((ended.last_polled_at, ended.next_poll_at), (Some(seconds(7)), None));
}

/// The row of a batch is not written again for a check that shows nothing, and its place on the schedule goes and comes
/// with its being watched.
#[tokio::test(start_paused = true)]
async fn a_batch_has_a_place_on_the_schedule_exactly_while_it_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), still()).unwrap();
    let pk = track(&store, "batch_1").await;
    see(&store, pk, Status::InProgress, 1, &[]).await;
    let places = || number(&raw(dir.path()), "SELECT count(*) FROM checks");
    let rows = || dump(dir.path()).into_iter().filter(|row| row.starts_with("batches ")).collect::<Vec<_>>();
    let before = rows();
    store.touch(pk, Touch { last_polled_at: seconds(8), next_poll_at: seconds(9), eta: None });
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!((rows(), places()), (before, 1));
    let shown = store.load(pk).await.unwrap().unwrap();
    assert_eq!((shown.last_polled_at, shown.next_poll_at), (Some(seconds(8)), Some(seconds(9))));

    store.untrack(pk, seconds(10)).await.unwrap();
    let untracked = store.load(pk).await.unwrap().unwrap();
    assert_eq!((untracked.last_polled_at, untracked.next_poll_at), (Some(seconds(8)), None));
    assert_eq!(places(), 0);
    track(&store, "batch_1").await;
    assert_eq!(places(), 1);
    see(&store, pk, Status::Completed, 11, &[]).await;
    let ended = store.load(pk).await.unwrap().unwrap();
    assert_eq!((ended.last_polled_at, ended.next_poll_at), (Some(seconds(11)), None));
    assert_eq!(places(), 0);
    track(&store, "batch_2").await;
    store.purge(pk + 1).await.unwrap();
    assert_eq!(places(), 0);
    store.close().await.unwrap();
    assert_sound(dir.path());
}

#[tokio::test(start_paused = true)]
async fn touches_of_many_batches_are_written_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), still()).unwrap();
    let items = (0..11_000).map(|number| registration(&format!("batch_{number}"))).collect();
    let registered = store.register(items, routes(&[])).await.unwrap();
    let before = store.commit_stats().count;
    for one in &registered {
        store.touch(one.pk, Touch { last_polled_at: seconds(1), next_poll_at: seconds(2), eta: None });
    }
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(store.commit_stats().count, before + 3);
    assert_eq!(number(&raw(dir.path()), "SELECT count(*) FROM checks WHERE last_polled_at IS NULL"), 0);
}

async fn pruning_takes_what_is_over_and_leaves_what_is_owed(stage: Stage) {
    let store = stage.open().await;
    store.align_webhooks(vec!["pipeline".to_owned()], EPOCH).await.unwrap();
    // 100 ended, 10 of them owed to a webhook, 1 to one that is gone; 1 untracked, 1 lost, 2 alive.
    for number in 0..100 {
        let pk = track(&store, &format!("ended_{number}")).await;
        let webhooks: &[&str] = match number {
            0..10 => &["pipeline"],
            10 => &["gone"],
            _ => &[],
        };
        see(&store, pk, Status::Completed, 1, webhooks).await;
    }
    let untracked = track(&store, "untracked").await;
    store.untrack(untracked, seconds(1)).await.unwrap();
    let lost = track(&store, "lost").await;
    let mut step = look(&store.load(lost).await.unwrap().unwrap(), Status::InProgress, seconds(1));
    step.tracked.lost_since = Some(seconds(1));
    store.record(lost, step, routes(&[])).await.unwrap();
    track(&store, "alive").await;
    let running = track(&store, "running").await;
    see(&store, running, Status::InProgress, 1, &["pipeline"]).await;
    store.align_webhooks(vec!["pipeline".to_owned()], EPOCH).await.unwrap();
    let held = store.deliveries(batchd::store::outbox::DeliveryFilter {
        state: Some(batchd::store::outbox::DeliveryState::Held),
        ..Default::default()
    });
    assert_eq!(held.await.unwrap().0.len(), 1);

    assert_eq!(prune(&store, seconds(1)).await, 0);
    assert_eq!(prune(&store, seconds(2)).await, 92);
    assert_eq!(prune(&store, seconds(2)).await, 0);
    let (left, _) = store.list(BatchFilter::default()).await.unwrap();
    assert_eq!(left.len(), 12);
    assert_eq!(store.backlogs().await.unwrap()[0].1.counts[0].1, 11);
    let fences = stage.number("SELECT count(*) FROM fences");
    assert_eq!(fences, 102, "the ids outlive the events");
    drop(store);
    let orphans = "SELECT count(*) FROM transitions WHERE batch NOT IN (SELECT pk FROM batches)";
    assert_eq!(stage.number(orphans), 0);
    stage.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn pruning_gives_the_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), still()).unwrap();
    let items = (0..5000)
        .map(|number| {
            let mut item = registration(&format!("batch_{number}"));
            item.first_look = Some(look(&item.tracked, Status::Completed, seconds(1)));
            item
        })
        .collect();
    store.register(items, routes(&[])).await.unwrap();
    store.checkpoint().await.unwrap();
    let size = || std::fs::metadata(dir.path().join("batchd.db")).unwrap().len();
    let before = size();
    assert_eq!(prune(&store, seconds(2)).await, 5000);
    store.checkpoint().await.unwrap();
    assert!(size() * 4 < before, "{} of {before} bytes are left", size());
}

async fn a_batch_that_is_gone_is_no_error(stage: Stage) {
    let store = stage.open().await;
    store.purge(7).await.unwrap();
    store.untrack(7, EPOCH).await.unwrap();
    assert_eq!(store.load(7).await.unwrap(), None);
    assert_eq!(store.get(key("nobody")).await.unwrap(), None);
    assert!(store.transitions(7).await.unwrap().is_empty());
}

async fn one_that_is_refused_takes_none_along(stage: Stage) {
    let store = stage.open().await;
    let run = |name: &str, at: i64| JobRun {
        name: name.to_owned(),
        started_at: seconds(at),
        finished_at: seconds(at),
        error: None,
    };
    store.set_job_run(run("first", 1)).await.unwrap();
    // A record that cannot be: the table has a rule against it.
    stage.execute(if stage.is_on_server() {
        "ALTER TABLE jobs ADD CHECK (name <> 'bad')"
    } else {
        "CREATE TRIGGER bad BEFORE INSERT ON jobs WHEN new.name = 'bad' BEGIN SELECT raise(ABORT, 'bad'); END"
    });
    let jobs = (0..20).map(|number| {
        store.set_job_run(run(&if number == 7 { "bad".to_owned() } else { format!("job_{number}") }, number))
    });
    let done = futures_util::future::join_all(jobs).await;
    for (number, done) in done.into_iter().enumerate() {
        assert_eq!(done.is_err(), number == 7, "{number}: {done:?}");
    }
    assert_eq!(stage.number("SELECT count(*) FROM jobs"), 20);
}

async fn a_row_that_cannot_be_read_is_damage(stage: Stage) {
    let store = stage.open().await;
    let pk = track(&store, "batch_1").await;
    stage.execute("UPDATE batches SET batch = '{}'");
    let error = store.load(pk).await.unwrap_err();
    assert!(matches!(&error, StoreError::Damaged(what) if what.contains("batch")), "{error}");
}

/// What may happen to one of a few batches.
#[derive(Clone, Debug)]
enum Happening {
    Track(u8),
    TrackSeen(u8, Status),
    Give(u8, u8),
    See(u8, Status, u8),
    Touch(u8, u8),
    Untrack(u8),
    Purge(u8),
    Hold(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    let status = prop::sample::select(Status::ALL.to_vec());
    prop_oneof![
        (0_u8..4).prop_map(Happening::Track),
        (0_u8..4, status.clone()).prop_map(|(batch, status)| Happening::TrackSeen(batch, status)),
        (0_u8..4, 0_u8..3).prop_map(|(batch, value)| Happening::Give(batch, value)),
        (0_u8..4, status, 0_u8..20).prop_map(|(batch, status, at)| Happening::See(batch, status, at)),
        (0_u8..4, 0_u8..20).prop_map(|(batch, at)| Happening::Touch(batch, at)),
        (0_u8..4).prop_map(Happening::Untrack),
        (0_u8..4).prop_map(Happening::Purge),
        any::<bool>().prop_map(Happening::Hold),
    ]
}

/// A store that knows the few batches, so that each one's row has its number.
async fn knowing(dir: &Path) -> Store {
    with_the_few(Store::open(dir, still()).unwrap()).await
}

async fn with_the_few(store: Store) -> Store {
    let items = (0..4).map(|number| registration(&format!("batch_{number}"))).collect();
    store.register(items, routes(&[])).await.unwrap();
    store
}

/// Does it, as an operation of its own.
async fn happen(store: Store, happening: Happening) {
    let id = |batch: u8| format!("batch_{batch}");
    let pk = |batch: u8| Pk::from(batch) + 1;
    match happening {
        Happening::Track(batch) => {
            track(&store, &id(batch)).await;
        }
        Happening::TrackSeen(batch, status) => {
            let mut item = registration(&id(batch));
            item.first_look = Some(look(&item.tracked, status, seconds(2)));
            store.register(vec![item], routes(&["pipeline", "ops"])).await.unwrap();
        }
        Happening::Give(batch, value) => {
            let mut item = registration(&id(batch));
            item.user_fields.labels = labels(&[("value", &value.to_string())]);
            store.register(vec![item], routes(&[])).await.unwrap();
        }
        Happening::See(batch, status, at) => {
            let step = look(&unseen(&id(batch)), status, seconds(at.into()));
            store.record(pk(batch), step, routes(&["pipeline"])).await.unwrap();
        }
        Happening::Touch(batch, at) => store.touch(
            pk(batch),
            Touch { last_polled_at: seconds(at.into()), next_poll_at: seconds(at.into()), eta: None },
        ),
        Happening::Untrack(batch) => store.untrack(pk(batch), EPOCH).await.unwrap(),
        Happening::Purge(batch) => store.purge(pk(batch)).await.unwrap(),
        Happening::Hold(off) => {
            let state = batchd::store::outbox::WebhookState {
                disabled: off.then(|| "by hand".to_owned()),
                ..Default::default()
            };
            store.set_webhook_state("pipeline".to_owned(), state, EPOCH).await.unwrap();
        }
    }
}

/// Some lists of what may happen, always the same.
fn some_happenings(count: usize) -> Vec<Vec<Happening>> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let lists = prop::collection::vec(happening(), 20..40);
    (0..count).map(|_| lists.new_tree(&mut runner).unwrap().current()).collect()
}

/// The property below, where the state is on a server: of few lists, as each takes a database.
#[tokio::test(flavor = "multi_thread")]
async fn grouped_operations_are_as_if_each_were_alone_on_a_server() {
    for happenings in some_happenings(4) {
        let (Some(alone), Some(grouped)) = (Stage::server(), Stage::server()) else { return };
        let chosen: Vec<Happening> =
            happenings.into_iter().filter(|happening| !matches!(happening, Happening::Touch(..))).collect();
        let one_by_one = with_the_few(alone.open().await).await;
        for happening in chosen.iter().cloned() {
            happen(one_by_one.clone(), happening).await;
        }
        one_by_one.close().await.unwrap();
        let together = with_the_few(grouped.open().await).await;
        for chunk in chosen.chunks(7) {
            let all = chunk.iter().cloned().map(|happening| happen(together.clone(), happening));
            futures_util::future::join_all(all).await;
        }
        together.close().await.unwrap();
        assert_eq!(alone.dump(&TABLES), grouped.dump(&TABLES));
        grouped.assert_sound();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_is_sound_on_a_server() {
    for (at, happenings) in some_happenings(6).into_iter().enumerate() {
        let Some(stage) = Stage::server() else { return };
        let mut store = with_the_few(stage.open().await).await;
        for (number, happening) in happenings.into_iter().enumerate() {
            if number == 3 * at {
                drop(store);
                store = stage.open().await;
            }
            happen(store.clone(), happening).await;
        }
        drop(store);
        stage.assert_sound();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is committed together gives the state that it gives one by one.
    #[test]
    fn grouped_operations_are_as_if_each_were_alone(
        happenings in prop::collection::vec(happening(), 1..40),
        chunk in 2_usize..20,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        // Touches are times only, and which commit takes them along is free.
        let quiet = |happening: &Happening| !matches!(happening, Happening::Touch(..));
        let (alone, grouped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let commits = runtime.block_on(async {
            let one_by_one = knowing(alone.path()).await;
            for happening in happenings.iter().filter(|happening| quiet(happening)).cloned() {
                happen(one_by_one.clone(), happening).await;
            }
            one_by_one.close().await.unwrap();
            let together = knowing(grouped.path()).await;
            let chosen: Vec<_> = happenings.iter().filter(|happening| quiet(happening)).cloned().collect();
            for chunk in chosen.chunks(chunk) {
                let all = chunk.iter().cloned().map(|happening| happen(together.clone(), happening));
                futures_util::future::join_all(all).await;
            }
            let commits = together.commit_stats().count;
            together.close().await.unwrap();
            (commits, 1 + chosen.len().div_ceil(chunk) as u64)
        });
        prop_assert_eq!(dump(alone.path()), dump(grouped.path()));
        prop_assert!(commits.0 <= commits.1, "{} commits for {} groups", commits.0, commits.1);
        assert_sound(grouped.path());
    }

    /// Whatever happens, in whatever order, with touches and crashes in between, the state is sound.
    #[test]
    fn every_state_is_sound(happenings in prop::collection::vec(happening(), 1..40), crash_after in 0_usize..40) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let mut store = knowing(dir.path()).await;
            for (number, happening) in happenings.into_iter().enumerate() {
                if number == crash_after {
                    drop(store);
                    store = Store::open(dir.path(), still()).unwrap();
                }
                happen(store.clone(), happening).await;
            }
        });
        assert_sound(dir.path());
    }
}
