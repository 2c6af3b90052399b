//! What ended batches took: kept with their end, once each, and no more than is of use.

use super::stage::{Stage, on_both};
use super::*;
use batchd::domain::batch::Batch;
use batchd::domain::hazard::Span;
use batchd::domain::history::{self, Class};
use batchd::store::history::History;

on_both! {
    an_end_is_learnt_from_with_it_and_survives_a_crash,
    those_that_still_run_are_told_too,
    the_newest_of_a_class_are_kept,
}

fn provider() -> String {
    "openai".to_owned()
}

/// A batch of four requests that took `took` seconds.
fn done(id: &str, took: i64) -> Batch {
    let mut batch = Batch::unseen(id, "/v1/responses", EPOCH.as_second());
    batch.status = Status::Completed;
    batch.request_counts = Some(RequestCounts { total: 4, completed: 4, failed: 0 });
    batch.completed_at = Some(EPOCH.as_second() + took);
    batch
}

fn class() -> Class {
    Class::exactly("openai", &done("batch_1", 1), history::Stage::Work)
}

async fn known(store: &Store, after: i64) -> History {
    store.history(provider(), seconds(after)).await.unwrap()
}

fn took(spans: &[Span]) -> Vec<(f64, bool)> {
    spans.iter().map(|span| (span.seconds, span.ended)).collect()
}

async fn an_end_is_learnt_from_with_it_and_survives_a_crash(stage: Stage) {
    let store = stage.open().await;
    let pk = track(&store, "batch_1").await;
    track(&store, "batch_2").await;
    see(&store, pk, Status::InProgress, 10, &[]).await;
    assert_eq!(known(&store, 50).await.spans(&class()), []);
    see(&store, pk, Status::Completed, 100, &[]).await;
    drop(store);
    let store = stage.open().await;
    assert_eq!(took(&known(&store, 200).await.spans(&class())), [(100.0, true)]);
    // Seen again, or told of by a list, it teaches nothing more.
    see(&store, pk, Status::Completed, 300, &[]).await;
    store.learn(provider(), vec![done("batch_1", 100), done("batch_9", 700)], true).await.unwrap();
    assert_eq!(took(&known(&store, 400).await.spans(&class())), [(700.0, true), (100.0, true)]);
    assert!(store.has_learnt(provider()).await.unwrap());
    assert!(!store.has_learnt("other".to_owned()).await.unwrap());
    store.purge(pk).await.unwrap();
    assert_eq!(took(&known(&store, 400).await.spans(&class())), [(700.0, true)]);
    store.close().await.unwrap();
    stage.assert_sound();
}

async fn those_that_still_run_are_told_too(stage: Stage) {
    let store = stage.open().await;
    for number in 1..=3 {
        let pk = track(&store, &format!("batch_{number}")).await;
        see(&store, pk, Status::InProgress, 10, &[]).await;
    }
    assert_eq!(known(&store, 50).await.spans(&class()), [], "there is no end to compare them with");
    see(&store, 1, Status::Completed, 100, &[]).await;
    let spans = known(&store, 250).await.spans(&class());
    assert_eq!(took(&spans), [(100.0, true), (250.0, false), (250.0, false)]);
    let coarser = class().coarser().unwrap();
    assert_eq!(known(&store, 250).await.spans(&coarser).len(), 3);
    store.untrack(2, seconds(260)).await.unwrap();
    assert_eq!(known(&store, 300).await.spans(&class()).len(), 2);
}

async fn the_newest_of_a_class_are_kept(stage: Stage) {
    let store = stage.open().await;
    let batches = (0..700).map(|number| done(&format!("batch_{number}"), 1000 + number)).collect();
    store.learn(provider(), batches, false).await.unwrap();
    let mut other = done("batch_x", 9);
    other.request_counts = None;
    store.learn(provider(), vec![other], false).await.unwrap();
    assert_eq!(stage.number("SELECT count(*) FROM durations"), 501);
    let spans = known(&store, 9999).await.spans(&class());
    assert_eq!((spans.len(), spans[0].seconds, spans[499].seconds), (500, 1699.0, 1200.0));
}

#[tokio::test(start_paused = true)]
async fn a_state_of_the_schema_before_teaches_at_its_first_start() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store/v1.db");
    std::fs::copy(fixture, dir.path().join("batchd.db")).unwrap();
    let store = Store::open(dir.path(), still()).unwrap();
    assert_eq!(took(&known(&store, 30).await.spans(&class())), [(20.0, true), (30.0, false)]);
    store.close().await.unwrap();
    // Once: what is forgotten since is not learnt again.
    raw(dir.path()).execute("DELETE FROM durations", []).unwrap();
    let store = Store::open(dir.path(), still()).unwrap();
    assert_eq!(known(&store, 30).await.spans(&class()), []);
}
