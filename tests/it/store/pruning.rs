//! What pruning deletes when clocks are wrong, and what it tells; the rule itself is tested in `domain::retention`.

use super::stage::{Stage, on_both};
use super::*;
use batchd::store::events::EventFilter;
use batchd::store::providers::ProviderState;
use std::time::Duration;

on_both! {
    clocks_between_1970_and_2262_panic_nothing,
    the_end_of_an_episode_is_told_however_long_it_lasted,
}

const DAY: Duration = Duration::from_hours(24);
const RETAIN: Duration = Duration::from_hours(24 * 90);

/// So many batches that have ended.
async fn ended(store: &Store, count: usize) {
    let items = (0..count).map(|number| registration(&format!("batch_{number}"))).collect();
    let registered = store.register(items, routes(&[])).await.unwrap();
    let now = store.load(registered[0].pk).await.unwrap().unwrap().tracked_at;
    let records = registered.iter().map(|registered| {
        store.record(registered.pk, look(&registered.tracked, Status::Completed, now), routes(&[]))
    });
    futures_util::future::try_join_all(records).await.unwrap();
}

async fn left(store: &Store) -> i64 {
    store.counts().await.unwrap().iter().map(|(.., count)| i64::try_from(*count).unwrap()).sum()
}

async fn held(store: &Store) -> usize {
    let events = store.events(EventFilter::default()).await.unwrap();
    events.iter().filter(|event| event.kind == EventType::PruningHeld).count()
}

/// Runs on for `length`, noting it every quarter of a day.
async fn run(store: &Store, length: Duration) {
    let mut ran = Duration::ZERO;
    while ran < length {
        tokio::time::advance(DAY / 4).await;
        ran += DAY / 4;
        store.reckon().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_months_ahead_for_a_while_deletes_nothing_and_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let clock = still();
    let store = Store::open(dir.path(), clock.clone()).unwrap();
    store.reckon().await.unwrap();
    ended(&store, 10).await;
    run(&store, DAY).await;
    clock.set_forward(DAY * 91);
    for _ in 0..3 {
        assert_eq!(store.prune_expired(RETAIN, routes(&["ops"])).await.unwrap(), 0);
        tokio::time::advance(Duration::from_secs(20)).await;
    }
    assert_eq!((left(&store).await, held(&store).await, store.held_back()), (10, 1, 10));
    // Over a restart too.
    store.close().await.unwrap();
    let store = Store::open(dir.path(), clock.clone()).unwrap();
    assert_eq!(store.prune_expired(RETAIN, routes(&["ops"])).await.unwrap(), 0);
    clock.set_back(DAY * 91);
    assert_eq!(store.prune_expired(RETAIN, routes(&["ops"])).await.unwrap(), 0);
    assert_eq!((left(&store).await, held(&store).await, store.held_back()), (10, 1, 0));
    run(&store, DAY * 90).await;
    assert_eq!(store.prune_expired(RETAIN, routes(&["ops"])).await.unwrap(), 10, "in time they go");
    assert_eq!(held(&store).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_in_1970_and_is_committed_when_the_clock_is_right_is_not_old() {
    let dir = tempfile::tempdir().unwrap();
    let clock = still();
    let store = Store::open(dir.path(), clock.clone()).unwrap();
    store.reckon().await.unwrap();
    let batch = store.register(vec![registration("batch_1")], routes(&[])).await.unwrap().remove(0);
    run(&store, DAY).await;
    let decades = DAY * 365 * 50;
    clock.set_back(decades);
    let end = look(&batch.tracked, Status::Completed, clock.now());
    {
        let mut recorded = std::pin::pin!(store.record(batch.pk, end, routes(&[])));
        assert!(futures_util::poll!(&mut recorded).is_pending(), "it waits for its commit");
        clock.set_forward(decades);
        recorded.await.unwrap();
    }
    // Killed right then, and no more seen of that clock.
    drop(store);
    let store = Store::open(dir.path(), clock).unwrap();
    run(&store, DAY * 3).await;
    assert_eq!(store.prune_expired(RETAIN, routes(&[])).await.unwrap(), 0);
    run(&store, DAY * 90).await;
    assert_eq!(store.prune_expired(RETAIN, routes(&[])).await.unwrap(), 1, "in time it goes");
}

#[tokio::test(start_paused = true)]
async fn an_hour_deletes_a_thousand_or_a_tenth_and_the_rest_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), still()).unwrap();
    store.reckon().await.unwrap();
    ended(&store, 1200).await;
    run(&store, DAY * 91).await;
    assert_eq!(store.prune_expired(RETAIN, routes(&[])).await.unwrap(), 1000);
    assert_eq!(store.prune_expired(RETAIN, routes(&[])).await.unwrap(), 0, "within the hour");
    assert_eq!((held(&store).await, store.held_back()), (1, 200));
    drop(store);
    let store = Store::open(dir.path(), still()).unwrap();
    assert_eq!(left(&store).await, 200);
}

async fn the_end_of_an_episode_is_told_however_long_it_lasted(stage: Stage) {
    let store = stage.open().await;
    let draft = |kind, after| {
        batchd::domain::event::Draft::about_provider(kind, "openai", "no answer", EPOCH, seconds(after))
    };
    let silence =
        |silent_since| ProviderState { silent_since, silence_told: true, ..ProviderState::default() };
    let told = vec![draft(EventType::ProviderUnreachable, 1)];
    store
        .set_provider_state("openai".to_owned(), silence(Some(EPOCH)), told, routes(&["ops"]))
        .await
        .unwrap();
    let due = store.due("ops".to_owned(), seconds(10), 9).await.unwrap();
    stage.execute("UPDATE deliveries SET state = 'delivered'");
    assert_eq!(due.len(), 1);
    prune(&store, seconds(1_000_000)).await;
    // A webhook that wants no such events but was told of the beginning.
    let mut deaf = route("ops");
    deaf.events.clear();
    let over = vec![draft(EventType::ProviderRecovered, 5)];
    store
        .set_provider_state("openai".to_owned(), silence(None), over, Arc::new(Routes(vec![deaf])))
        .await
        .unwrap();
    assert_eq!(store.due("ops".to_owned(), seconds(10), 9).await.unwrap().len(), 1);
    stage.execute("UPDATE deliveries SET state = 'delivered'");
    prune(&store, seconds(1_000_000)).await;
    assert!(store.events(EventFilter::default()).await.unwrap().is_empty(), "it is over");
}

async fn clocks_between_1970_and_2262_panic_nothing(stage: Stage) {
    for at in [0, 1, 86_400, 4_102_444_800, 9_214_646_400] {
        let store = stage.open_at(Timestamp::from_second(at).unwrap()).await;
        ended(&store, 3).await;
        store.reckon().await.unwrap();
        store.prune_expired(RETAIN, routes(&["ops"])).await.unwrap();
        store.expired(Duration::from_secs(1)).await.unwrap();
        store.healthy().await.unwrap();
        store.close().await.unwrap();
        stage.open().await.close().await.unwrap();
    }
}
