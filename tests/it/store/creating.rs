//! What leads to batches besides registering them: creations that are under way, what waits for quota, discovery; and what
//! ended batches cost.

use super::stage::{Stage, on_both};
use super::*;
use batchd::domain::batch::Usage;
use batchd::domain::cost::{Rates, Usd};
use batchd::domain::prices::{ImportedPrices, Prices};
use batchd::domain::tracked::{Lineage, WaitingFor};
use batchd::store::creations::Asked;
use batchd::store::discovery::Discovered;
use batchd::store::queue::Queued;
use batchd::store::submissions::Submission;

on_both! {
    a_creation_is_open_until_its_batch_is_known_or_there_is_none,
    what_is_asked_for_again_is_the_same,
    what_waits_for_quota_waits_in_its_line_and_becomes_a_batch,
    what_discovery_has_found_or_passed_over_is_not_new_again,
    what_ended_costs_what_it_cost_when_it_ended,
}

fn submission(marker: &str, lineage: Lineage) -> Submission {
    Submission {
        marker: marker.to_owned(),
        provider: "openai".to_owned(),
        endpoint: "/v1/responses".to_owned(),
        model: Some("gpt-5".to_owned()),
        requests: 4,
        file_name: "in.jsonl".to_owned(),
        uploaded_file: None,
        input_file: Some("file-in".to_owned()),
        lineage,
        metadata: BTreeMap::from([("a".to_owned(), "it's \"ö\"".to_owned())]),
        user_fields: UserFields { name: Some("nightly".to_owned()), ..UserFields::default() },
        owner: Some("ann".to_owned()),
        begun_at: EPOCH,
        lost_at: None,
        candidates: Vec::new(),
        trouble: None,
    }
}

fn asked(key: Option<&str>, request: &str) -> Asked {
    Asked { key: key.map(str::to_owned), request: request.to_owned() }
}

async fn a_creation_is_open_until_its_batch_is_known_or_there_is_none(stage: Stage) {
    let store = stage.open().await;
    for marker in ["bd-1", "bd-2", "bd-3"] {
        assert!(store.open_submission(submission(marker, Lineage::default()), None).await.unwrap());
    }
    assert_eq!(store.submissions().await.unwrap()[0], submission("bd-1", Lineage::default()));
    store.lose_submission("bd-2".to_owned(), seconds(5)).await.unwrap();
    store.lose_submission("bd-2".to_owned(), seconds(9)).await.unwrap();
    let candidates = vec!["batch_8".to_owned(), "batch_9".to_owned()];
    store.doubt_submission("bd-2".to_owned(), candidates.clone(), Some("which?".to_owned())).await.unwrap();
    let lost = Submission {
        lost_at: Some(seconds(5)),
        candidates,
        trouble: Some("which?".to_owned()),
        ..submission("bd-2", Lineage::default())
    };
    assert_eq!(store.submissions().await.unwrap()[1], lost);
    let mine = store.submissions_not_awaited_elsewhere().await.unwrap();
    // This daemon waits for the answers of the others.
    let expected = if stage.is_on_server() { 1 } else { 3 };
    assert_eq!(mine.len(), expected);

    let made =
        store.complete_submission("bd-1".to_owned(), registration("batch_1"), routes(&[])).await.unwrap();
    assert!(made.new);
    store.drop_submission("bd-3".to_owned()).await.unwrap();
    // A person tracks one of those that it may be.
    track(&store, "batch_9").await;
    assert_eq!(store.submissions().await.unwrap(), []);
    // What was found before it was registered here is not registered twice.
    store.open_submission(submission("bd-4", Lineage::default()), None).await.unwrap();
    let again =
        store.complete_submission("bd-4".to_owned(), registration("batch_1"), routes(&[])).await.unwrap();
    assert_eq!((again.new, again.pk), (false, made.pk));
    drop(store);
    stage.assert_sound();
}

async fn what_is_asked_for_again_is_the_same(stage: Stage) {
    let store = stage.open().await;
    let first = asked(Some("k'1"), "r1");
    store.open_submission(submission("bd-1", Lineage::default()), Some(first.clone())).await.unwrap();
    let before = store.asked_before(first.clone(), EPOCH).await.unwrap().unwrap();
    assert_eq!((before.marker.as_str(), before.batch), ("bd-1", None));
    store.complete_submission("bd-1".to_owned(), registration("batch_1"), routes(&[])).await.unwrap();
    let before = store.asked_before(asked(Some("k'1"), "other"), seconds(3600)).await.unwrap().unwrap();
    assert_eq!((before.request.as_str(), before.batch), ("r1", Some(key("batch_1"))));
    assert!(store.asked_before(asked(None, "r1"), seconds(60)).await.unwrap().is_some());
    assert!(store.asked_before(asked(None, "r1"), seconds(3600)).await.unwrap().is_none());
    assert!(store.asked_before(first.clone(), seconds(90_000)).await.unwrap().is_none());
    store.forget_asked("k'".to_owned()).await.unwrap();
    assert!(store.asked_before(first, EPOCH).await.unwrap().is_none());
    // What created nothing is created by whoever asks again.
    let third = asked(Some("k2"), "r2");
    store.open_submission(submission("bd-2", Lineage::default()), Some(third.clone())).await.unwrap();
    store.drop_submission("bd-2".to_owned()).await.unwrap();
    assert!(store.asked_before(third, EPOCH).await.unwrap().is_none());
}

fn waiting(reason: &str) -> WaitingFor {
    WaitingFor { reason: reason.to_owned(), limit: Some(5), usage: None, since: EPOCH, tried_at: None }
}

async fn queue(store: &Store, id: &str, model: &str) -> Pk {
    let queued = Queued {
        submission: id.to_owned(),
        provider: "openai".to_owned(),
        model: model.to_owned(),
        request: "{\"a\": \"\\u0001\"}".to_owned(),
        is_being_created: false,
    };
    let mut tracked = unseen(id);
    tracked.next_poll_at = None;
    tracked.waiting_for = Some(waiting("quota"));
    store.enqueue(queued, tracked, Some(asked(None, id)), routes(&[])).await.unwrap().pk
}

async fn what_waits_for_quota_waits_in_its_line_and_becomes_a_batch(stage: Stage) {
    let store = stage.open().await;
    let first = queue(&store, "sub_1", "gpt-5").await;
    queue(&store, "sub_2", "gpt-5").await;
    let other = queue(&store, "sub_3", "").await;
    let heads = |heads: Vec<Queued>| -> Vec<(String, bool)> {
        heads.into_iter().map(|head| (head.submission, head.is_being_created)).collect()
    };
    let of = |pairs: &[(&str, bool)]| -> Vec<(String, bool)> {
        pairs.iter().map(|(id, asked)| ((*id).to_owned(), *asked)).collect()
    };
    assert_eq!(heads(store.heads_of_queue().await.unwrap()), of(&[("sub_1", false), ("sub_3", false)]));
    assert!(store.is_queued("openai".to_owned(), "gpt-5".to_owned()).await.unwrap());
    assert!(!store.is_queued("openai".to_owned(), "gpt-4".to_owned()).await.unwrap());
    store.note_wait("openai".to_owned(), "sub_1".to_owned(), waiting("still")).await.unwrap();
    let shown = store.load(first).await.unwrap().unwrap();
    assert_eq!((shown.waiting_for, shown.next_poll_at), (Some(waiting("still")), None));

    let lineage = Lineage { submission: Some("sub_1".to_owned()), ..Lineage::default() };
    assert!(store.open_submission(submission("bd-1", lineage.clone()), None).await.unwrap());
    assert_eq!(heads(store.heads_of_queue().await.unwrap())[0], ("sub_1".to_owned(), true));
    let again = store.open_submission(submission("bd-9", lineage.clone()), None).await.unwrap();
    assert!(!again, "another daemon is creating it");
    let cancelled = |pk: Pk, id: &str| {
        let mut step = look(&unseen(id), Status::Cancelled, seconds(1));
        step.tracked.settled = true;
        store.end_wait(pk, step, routes(&["pipeline"]))
    };
    assert!(!cancelled(first, "sub_1").await.unwrap(), "it is being created");
    let mut item = registration("batch_1");
    item.tracked.lineage = lineage.clone();
    store.complete_submission("bd-1".to_owned(), item, routes(&[])).await.unwrap();
    let found = store.get(key("sub_1")).await.unwrap().unwrap().1;
    assert_eq!(found.key, key("batch_1"), "it is the batch now");
    assert!(
        !store.open_submission(submission("bd-2", lineage), None).await.unwrap(),
        "it does not wait any more"
    );
    assert!(cancelled(other, "sub_3").await.unwrap());
    assert_eq!(heads(store.heads_of_queue().await.unwrap()), of(&[("sub_2", false)]));
    assert_eq!(store.load(other).await.unwrap().unwrap().batch.status, Status::Cancelled);
    drop(store);
    stage.assert_sound();
}

async fn what_discovery_has_found_or_passed_over_is_not_new_again(stage: Stage) {
    let store = stage.open().await;
    let provider = || "openai".to_owned();
    let searched = store.searched(provider()).await.unwrap();
    assert_eq!((searched.began_at, searched.round_at), (None, None));
    let page = |new: &[&str], old: &[(&str, Option<i64>)], read_to: Option<i64>, last: bool| Discovered {
        new: new.iter().map(|id| registration(id)).collect(),
        old_news: old.iter().map(|(id, at)| ((*id).to_owned(), *at)).collect(),
        began_at: EPOCH,
        read_to: read_to.map(seconds),
        last,
        forget_before: seconds(-50),
    };
    let found = store.discovered(
        provider(),
        page(&["batch_1"], &[("old", Some(EPOCH.as_second() - 10))], None, false),
        routes(&[]),
    );
    assert_eq!(found.await.unwrap().len(), 1);
    let searched = store.searched(provider()).await.unwrap();
    assert_eq!((searched.began_at, searched.round_at), (Some(EPOCH), None));
    let long_ago = Some(EPOCH.as_second() - 100);
    store
        .discovered(
            provider(),
            page(&[], &[("older", long_ago), ("timeless", None)], Some(-5), true),
            routes(&[]),
        )
        .await
        .unwrap();
    assert_eq!(store.searched(provider()).await.unwrap().round_at, Some(seconds(-5)));
    store.discovered(provider(), page(&[], &[], None, true), routes(&[])).await.unwrap();
    assert_eq!(
        store.searched(provider()).await.unwrap().round_at,
        Some(seconds(-5)),
        "it did not say how far"
    );
    let ids = ["batch_1", "old", "older", "timeless", "new"].map(str::to_owned).to_vec();
    let unknown = store.unknown_of(provider(), ids).await.unwrap();
    assert_eq!(unknown, BTreeSet::from(["older".to_owned(), "new".to_owned()]));
    // What a user has deleted is not found again.
    let pk = store.get(key("batch_1")).await.unwrap().unwrap().0;
    store.purge(pk).await.unwrap();
    assert!(store.unknown_of(provider(), vec!["batch_1".to_owned()]).await.unwrap().is_empty());
}

async fn what_ended_costs_what_it_cost_when_it_ended(stage: Stage) {
    let store = stage.open().await;
    let price = |text: &str| Usd::price(text).unwrap();
    let rates = |input: &str| Rates {
        input: price(input),
        output: price("2"),
        cached_input: None,
        cache_write: None,
        cache_write_1h: None,
        max_input: None,
    };
    let prices = |input: &str| {
        Arc::new(Prices::of(&BTreeMap::from([("gpt-5".to_owned(), rates(input))]), ImportedPrices::default()))
    };
    let ended = async |id: &str| {
        let pk = track(&store, id).await;
        let before = store.load(pk).await.unwrap().unwrap();
        let mut step = look(&before, Status::Completed, seconds(1));
        step.tracked.batch.model = Some("gpt-5".to_owned());
        step.tracked.batch.usage = Some(Usage {
            input_tokens: 1_000_000,
            output_tokens: 500_000,
            total_tokens: 1_500_000,
            ..Usage::default()
        });
        store.record(pk, step, routes(&[])).await.unwrap();
    };
    ended("batch_1").await;
    assert_eq!(store.unpriced().await.unwrap(), BTreeMap::from([("openai/gpt-5".to_owned(), 1)]));
    store.set_prices(prices("1"));
    assert_eq!(store.price_ended(prices("1")).await.unwrap(), 1);
    assert_eq!(store.price_ended(prices("9")).await.unwrap(), 0, "it has a cost");
    store.set_prices(prices("3"));
    ended("batch_2").await;
    let month = store.spent_in_month(EPOCH).await.unwrap();
    assert_eq!(month.spending.len(), 1);
    assert_eq!(month.spending[0].amount.shown(), price("6").shown());
    assert_eq!(store.spent_ever().await.unwrap()[0].amount.shown(), price("6").shown());
    let past = EPOCH - jiff::SignedDuration::from_hours(24 * 60);
    assert!(store.spent_in_month(past).await.unwrap().spending.is_empty());
    assert!(store.unpriced().await.unwrap().is_empty());
    // Figures of the dashboard are of the same.
    assert_eq!(store.ends_by_day(seconds(-1)).await.unwrap().iter().map(|day| day.count).sum::<u64>(), 2);
    assert!(store.newest_durations(5).await.unwrap().len() <= 2);
    assert!(store.delivered_since(EPOCH).await.unwrap().is_empty());
}
