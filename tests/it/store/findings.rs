//! Who is told of the end of what, of results that will go, and of digests.

use super::stage::{Stage, on_both};
use super::*;
use batchd::domain::digest::Digest;
use batchd::domain::event::{Draft, Occurrence};
use batchd::store::events::EventFilter;
use batchd::store::jobs::JobRun;
use batchd::store::outbox::DeliveryFilter;
use batchd::store::providers::ProviderState;

on_both! {
    who_was_told_that_a_batch_is_late_is_told_of_its_good_end_and_nobody_else,
    who_was_told_that_a_provider_is_in_trouble_is_told_that_it_is_well_again,
    results_that_will_go_are_told_once_whatever_happens_in_between,
    results_that_are_gone_are_no_news,
    what_a_digest_tells_is_found_page_by_page,
}

/// A webhook that hears of warnings and worse, and one of errors only.
fn by_severity() -> Arc<Routes> {
    let pager = Route { severity: Severity::Warning, ..route("pager") };
    let alarm = Route { severity: Severity::Error, ..route("alarm") };
    Arc::new(Routes(vec![pager, alarm]))
}

/// What each webhook is owed, oldest first: its name and the type of the event.
async fn owed(store: &Store) -> Vec<(String, String)> {
    let mut deliveries = store.deliveries(DeliveryFilter::default()).await.unwrap().0;
    deliveries.reverse();
    deliveries.into_iter().map(|delivery| (delivery.webhook, delivery.kind.to_string())).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(webhook, kind)| ((*webhook).to_owned(), (*kind).to_owned())).collect()
}

async fn who_was_told_that_a_batch_is_late_is_told_of_its_good_end_and_nobody_else(stage: Stage) {
    let store = stage.open().await;
    let (late, fine) = (track(&store, "batch_late").await, track(&store, "batch_fine").await);
    let before = store.load(late).await.unwrap().unwrap();
    let mut step = look(&before, Status::InProgress, seconds(10));
    step.events.push(Occurrence::finding(EventType::BatchOverdue, seconds(5), seconds(10)));
    store.record(late, step, by_severity()).await.unwrap();
    for pk in [late, fine] {
        let before = store.load(pk).await.unwrap().unwrap();
        store.record(pk, look(&before, Status::Completed, seconds(20)), by_severity()).await.unwrap();
    }
    assert_eq!(owed(&store).await, pairs(&[("pager", "batch.overdue"), ("pager", "batch.completed")]));
}

async fn who_was_told_that_a_provider_is_in_trouble_is_told_that_it_is_well_again(stage: Stage) {
    let store = stage.open().await;
    let about = |kind, at| Draft::about_provider(kind, "openai", "words", seconds(at), seconds(at));
    let note = async |draft: Draft, routes: Arc<Routes>| {
        let before = ProviderState::default();
        store.set_provider_state("openai".to_owned(), before, vec![draft], routes).await.unwrap();
    };
    note(about(EventType::ProviderUnauthorized, 1), by_severity()).await;
    let expected = [("pager", "provider.unauthorized"), ("alarm", "provider.unauthorized")];
    assert_eq!(owed(&store).await, pairs(&expected));
    note(about(EventType::ProviderRecovered, 2), by_severity()).await;
    let expected = [
        ("pager", "provider.unauthorized"),
        ("alarm", "provider.unauthorized"),
        ("pager", "provider.recovered"),
        ("alarm", "provider.recovered"),
    ];
    assert_eq!(owed(&store).await, pairs(&expected));
    // The episode is over: the next one counts for itself, and so does another provider's.
    let only = Arc::new(Routes(vec![Route { severity: Severity::Warning, ..route("pager") }]));
    note(about(EventType::ProviderUnreachable, 3), only).await;
    note(about(EventType::ProviderRecovered, 4), by_severity()).await;
    let other =
        Draft::about_provider(EventType::ProviderRecovered, "mistral", "words", seconds(5), seconds(5));
    note(other, by_severity()).await;
    assert_eq!(
        owed(&store).await[4..],
        pairs(&[("pager", "provider.unreachable"), ("pager", "provider.recovered")])
    );
}

const DAY: i64 = 86_400;

/// Registers a batch that has completed, with results that are kept for so many days.
async fn ended(store: &Store, id: &str, days: i64, notify_nobody: bool) -> Pk {
    let mut tracked = unseen(id);
    tracked.notify.nobody = notify_nobody;
    let mut step = look(&tracked, Status::Completed, EPOCH);
    step.tracked.batch.completed_at = Some(EPOCH.as_second());
    step.tracked.results_expire_at = Some(seconds(days * DAY));
    step.tracked.settled = true;
    let item = Registration { tracked, first_look: Some(step), user_fields: UserFields::default() };
    store.register(vec![item], routes(&[])).await.unwrap()[0].pk
}

async fn results_that_will_go_are_told_once_whatever_happens_in_between(stage: Stage) {
    let store = stage.open().await;
    for number in 0..250 {
        ended(&store, &format!("batch_{number}"), 30, false).await;
    }
    ended(&store, "batch_soon", 10, false).await;
    let gone = ended(&store, "batch_untracked", 30, false).await;
    store.untrack(gone, EPOCH).await.unwrap();
    ended(&store, "batch_silent", 30, true).await;
    let told = async |store: &Store, days: i64| {
        store.tell_expiring(seconds(days * DAY), routes(&["ops"])).await.unwrap()
    };
    assert_eq!(told(&store, 8).await, 0);
    assert_eq!(told(&store, 9).await, 1);
    assert_eq!(told(&store, 9).await, 0);
    // Nothing of it is kept in memory.
    store.close().await.unwrap();
    let store = stage.open().await;
    assert_eq!(told(&store, 28).await, 251, "all of them, the silent one in the log alone");
    assert_eq!(told(&store, 29).await, 0);
    assert_eq!(owed(&store).await.len(), 251);
    let events = store.events(EventFilter { batch: Some(key("batch_soon")), ..EventFilter::default() });
    let kinds: Vec<String> = events.await.unwrap().iter().map(|event| event.kind.to_string()).collect();
    assert_eq!(kinds, ["batch.completed", "batch.results_expiring"]);
    // Another look at an ended batch begins no new episode.
    let (pk, before) = store.get(key("batch_7")).await.unwrap().unwrap();
    store.record(pk, look(&before, Status::Completed, seconds(29 * DAY)), routes(&["ops"])).await.unwrap();
    assert_eq!(told(&store, 29).await, 0);
    let waiting = "SELECT count(*) FROM batches WHERE results_warn_at IS NOT NULL";
    assert_eq!(stage.number(waiting), 0);
    stage.assert_sound();
}

async fn results_that_are_gone_are_no_news(stage: Stage) {
    let store = stage.open().await;
    ended(&store, "batch_1", 10, false).await;
    assert_eq!(store.tell_expiring(seconds(11 * DAY), routes(&["ops"])).await.unwrap(), 0);
    assert_eq!(owed(&store).await, []);
}

async fn what_a_digest_tells_is_found_page_by_page(stage: Stage) {
    let store = stage.open().await;
    for number in 0..1100 {
        ended(&store, &format!("batch_{number}"), 30, false).await;
    }
    let (running, late) = (track(&store, "batch_running").await, track(&store, "batch_late").await);
    see(&store, running, Status::InProgress, 10, &[]).await;
    let user_fields = UserFields { deadline: Some(seconds(60)), ..UserFields::default() };
    let item = Registration { tracked: unseen("batch_late"), first_look: None, user_fields };
    store.register(vec![item], routes(&[])).await.unwrap();
    see(&store, late, Status::InProgress, 10, &[]).await;

    let (since, now) = (seconds(-10), seconds(100));
    let (mut after, mut found, mut pages) = (None, BTreeSet::new(), 0);
    loop {
        let page = store.ended_between(since, now, after).await.unwrap();
        let Some((pk, last)) = page.last() else { break };
        after = Some((last.status_since, *pk));
        pages += 1;
        found.extend(page.into_iter().map(|(pk, _)| pk));
    }
    assert_eq!((found.len(), pages), (1100, 3));
    assert_eq!(store.ended_between(EPOCH, now, None).await.unwrap().len(), 0, "the beginning is not in it");
    let (live, count) = store.running(1).await.unwrap();
    assert_eq!((live.len(), count), (1, 2));
    let (stuck, count) = store.stuck(now, 9).await.unwrap();
    assert_eq!((stuck[0].key.id.as_str(), count), ("batch_late", 1));
    assert_eq!(store.stuck(seconds(59), 9).await.unwrap().1, 0);

    // Recorded once, with its turn, however often it is tried.
    for _ in 0..2 {
        let run = JobRun { name: "digest x".to_owned(), started_at: now, finished_at: now, error: None };
        let draft = Digest::new(since, now).draft("x", seconds(90));
        store.record_digest(draft, run, routes(&["ops"])).await.unwrap();
    }
    assert_eq!(owed(&store).await, pairs(&[("ops", "batchd.digest")]));
    assert_eq!(store.job_runs().await.unwrap()[0].name, "digest x");
}
