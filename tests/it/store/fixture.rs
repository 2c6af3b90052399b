//! A database of every released schema, kept for ever: each must open with all that it held.

use super::*;
use batchd::domain::event::Draft;
use batchd::store::batches::BatchFilter;
use batchd::store::events::EventFilter;
use batchd::store::jobs::JobRun;
use batchd::store::outbox::{AttemptEnd, DeliveryFilter, DeliveryState, Next, WebhookState};
use batchd::store::providers::ProviderState;
use std::path::PathBuf;
use std::time::Duration;

fn fixture(schema: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/store/v{schema}.db"))
}

/// Fills a state with some of everything. Never changed: the fixtures hold it.
pub async fn fill(store: &Store) {
    let mut named = registration("batch_completed");
    named.tracked.name = Some("nightly".to_owned());
    named.tracked.labels = BTreeMap::from([("team".to_owned(), "evals".to_owned())]);
    named.tracked.owner = Some("ada".to_owned());
    store
        .register(vec![named, registration("batch_running"), registration("batch_unseen")], routes(&[]))
        .await
        .unwrap();
    see(store, 1, Status::InProgress, 10, &["pipeline"]).await;
    see(store, 1, Status::Completed, 20, &["pipeline", "ops"]).await;
    see(store, 2, Status::InProgress, 30, &["pipeline"]).await;
    let silent =
        Draft::about_provider(EventType::ProviderUnreachable, "openai", "no answer", seconds(5), seconds(40));
    let state =
        ProviderState { silent_since: Some(seconds(5)), silence_told: true, ..ProviderState::default() };
    store.set_provider_state("openai".to_owned(), state, vec![silent], routes(&["ops"])).await.unwrap();
    for (pk, next) in [
        (1, Next::Delivered),
        (2, Next::Again { at: seconds(65), wait: Duration::from_secs(5), counts: true, plain: true }),
        (3, Next::Dead),
    ] {
        let attempt = store.begin_attempts(vec![pk], seconds(50)).await.unwrap()[0].unwrap();
        let end = AttemptEnd {
            at: seconds(60),
            outcome: "timeout".to_owned(),
            http_status: Some(504),
            error: Some("no answer in 15 s".to_owned()),
            excerpt: None,
            next,
        };
        store
            .finish_attempt(attempt, end, WebhookState { failures: 1, ..WebhookState::default() })
            .await
            .unwrap();
    }
    store.begin_attempts(vec![4], seconds(70)).await.unwrap();
    let run = JobRun { name: "prune".to_owned(), started_at: EPOCH, finished_at: seconds(1), error: None };
    store.set_job_run(run).await.unwrap();
}

/// A batch, when it was checked, will be, and is expected to end, in Unix milliseconds.
type Place = (Pk, Option<i64>, Option<i64>, Option<i64>);

/// Gives the batch that runs an expected end, and reads when each was checked, will be, and is expected to end.
fn places_before(dir: &Path, schema: u32) -> Vec<Place> {
    let connection = raw(dir);
    connection.execute_batch("UPDATE batches SET eta = next_poll_at + 5000 WHERE pk = 2").unwrap();
    if schema > 1 {
        let bounds = "UPDATE batches SET eta_earliest = eta - 1, eta_latest = eta + 1 WHERE pk = 2";
        connection.execute_batch(bounds).unwrap();
    }
    let mut query =
        connection.prepare("SELECT pk, last_polled_at, next_poll_at, eta FROM batches ORDER BY pk").unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    query.query_map([], row).unwrap().map(Result::unwrap).collect()
}

/// Opens a copy of the database of `schema`, and looks at what [`fill`] left there.
async fn assert_opens(schema: u32) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(fixture(schema), dir.path().join("batchd.db")).unwrap();
    let places = places_before(dir.path(), schema);
    let store = Store::open(dir.path(), Clock::simulated(seconds(100))).unwrap();
    assert_eq!(store.schedule().await.unwrap().len(), 2, "the one that has ended is not on the schedule");
    for (pk, last_polled_at, next_poll_at, eta) in places {
        let tracked = store.load(pk).await.unwrap().unwrap();
        let ms = |at: Option<Timestamp>| at.map(Timestamp::as_millisecond);
        assert_eq!((ms(tracked.last_polled_at), ms(tracked.next_poll_at)), (last_polled_at, next_poll_at));
        let known = eta.filter(|_| schema > 1);
        assert_eq!(tracked.eta.map(|eta| eta.at.as_millisecond()), known, "without bounds it is none");
    }
    let (batches, _) = store.list(BatchFilter::default()).await.unwrap();
    let seen: Vec<_> =
        batches.iter().map(|(pk, batch)| (*pk, batch.key.id.as_str(), batch.batch.status)).collect();
    assert_eq!(
        seen,
        [
            (3, "batch_unseen", Status::Validating),
            (2, "batch_running", Status::InProgress),
            (1, "batch_completed", Status::Completed),
        ]
    );
    let completed = &batches[2].1;
    assert_eq!((completed.name.as_deref(), completed.owner.as_deref()), (Some("nightly"), Some("ada")));
    assert_eq!(completed.labels["team"], "evals");
    assert_eq!(store.transitions(1).await.unwrap().len(), 2);
    let events = store.events(EventFilter::default()).await.unwrap();
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3, 4]);
    // Its ids hold: nothing of it is told again.
    assert_eq!(see(&store, 1, Status::Completed, 200, &["pipeline"]).await, 0);
    let mut deliveries = store.deliveries(DeliveryFilter::default()).await.unwrap().0;
    deliveries.reverse();
    let states: Vec<_> = deliveries.iter().map(|delivery| delivery.state).collect();
    let (pending, delivered, dead) = (DeliveryState::Pending, DeliveryState::Delivered, DeliveryState::Dead);
    assert_eq!(states, [delivered, pending, dead, pending, pending]);
    let due = store.due("pipeline".to_owned(), seconds(100), 9).await.unwrap();
    assert_eq!((due[0].pk, due[0].attempts, due[0].plain), (2, 1, true));
    assert_eq!(store.attempts(4).await.unwrap()[0].outcome.as_deref(), Some("unknown_crash"));
    assert_eq!(store.job_runs().await.unwrap().len(), 1);
    assert_eq!(store.provider_states().await.unwrap()[0].1.silent_since, Some(seconds(5)));
    assert_eq!(store.webhook_states().await.unwrap().len(), 2);
    store.close().await.unwrap();
    assert_sound(dir.path());
}

/// The newest schema that has a fixture.
const NEWEST: u32 = 5;

#[tokio::test(start_paused = true)]
async fn d16_the_state_of_schema_1_opens() {
    assert_opens(1).await;
}

#[tokio::test(start_paused = true)]
async fn the_state_of_schema_2_opens() {
    assert_opens(2).await;
}

#[tokio::test(start_paused = true)]
async fn the_state_of_schema_3_opens() {
    assert_opens(3).await;
}

/// There was no release with schema 4.
#[tokio::test(start_paused = true)]
async fn the_state_of_schema_5_opens() {
    // Each was made once, by the binary that had this schema: `BATCHD_MAKE_FIXTURE=1 cargo test --test it fixture`.
    if std::env::var_os("BATCHD_MAKE_FIXTURE").is_some() && !fixture(NEWEST).exists() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), still()).unwrap();
        fill(&store).await;
        std::fs::copy(store.copy_aside().await.unwrap(), fixture(NEWEST)).unwrap();
    }
    assert_opens(NEWEST).await;
}

/// Today's binary must still fill a state as the fixtures hold it, or they prove nothing of it.
#[tokio::test(start_paused = true)]
async fn the_fixture_holds_what_is_written_today() {
    let (today, then) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(today.path(), still()).unwrap();
    fill(&store).await;
    drop(store);
    std::fs::copy(fixture(NEWEST), then.path().join("batchd.db")).unwrap();
    // Both as a start of today leaves them.
    for dir in [today.path(), then.path()] {
        Store::open(dir, still()).unwrap().close().await.unwrap();
    }
    // What an event says is frozen as it was worded at its time; the rest is as it would be written now.
    let rows = |dir: &Path| {
        dump_as(dir, then.path())
            .into_iter()
            .map(|row| if row.starts_with("events ") { "events".to_owned() } else { row })
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(today.path()), rows(then.path()));
}
