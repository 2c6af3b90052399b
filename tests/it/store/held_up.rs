//! Another program is in the way: it holds the database's lock, or reads for long.

use super::*;
use crate::transport::{in_a_process_with, inside};
use batchd::store::StoreError;
use batchd::store::batches::BatchFilter;
use std::fs;
use std::sync::Mutex;

#[tokio::test(flavor = "multi_thread")]
async fn d5_a_lock_held_for_a_while_by_another_program_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    let other = raw(dir.path());
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let writing = {
        let store = store.clone();
        async move { track(&store, "batch_1").await }
    };
    let (begun, release) = tokio::sync::oneshot::channel();
    let releasing = async move {
        release.await.unwrap();
        other.execute_batch("COMMIT").unwrap();
    };
    let queued = async move { begun.send(()).unwrap() };
    // The write is in the writer's hands before the lock goes.
    let (pk, (), ()) = tokio::join!(writing, queued, releasing);
    assert!(store.load(pk).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_d7_a_lock_that_another_program_keeps_fails_what_would_write_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    let known = track(&store, "batch_known").await;
    let other = raw(dir.path());
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let refused = store.register(vec![registration("batch_refused")], routes(&[])).await;
    assert_eq!(refused.map(|all| all.len()), Err(StoreError::Busy));
    assert!(store.healthy().await.is_err(), "it is not ready");
    assert!(store.load(known).await.unwrap().is_some(), "what is there can be read");

    other.execute_batch("ROLLBACK").unwrap();
    store.healthy().await.unwrap();
    track(&store, "batch_refused").await;
    assert_eq!(store.list(BatchFilter::default()).await.unwrap().0.len(), 2);
    store.close().await.unwrap();
    assert_sound(dir.path());
}

#[tokio::test(start_paused = true)]
async fn d18_a_reader_that_stays_makes_the_log_long_which_is_said_and_ends_with_it() {
    const NAME: &str =
        "store::held_up::d18_a_reader_that_stays_makes_the_log_long_which_is_said_and_ends_with_it";
    // Whether a line is wanted is remembered for the whole process: other tests would have their say in it.
    if !inside(NAME) {
        return in_a_process_with(NAME, &[]);
    }
    let dir = tempfile::tempdir().unwrap();
    let log = || fs::metadata(dir.path().join("batchd.db-wal")).map_or(0, |log| log.len());
    let written: Arc<Mutex<Vec<u8>>> = Arc::default();
    let store = Store::open(dir.path(), still()).unwrap();
    let reader = raw(dir.path());
    reader.execute_batch("BEGIN; SELECT count(*) FROM batches").unwrap();
    for number in 0..70 {
        let mut large = registration(&format!("batch_{number}"));
        large.tracked.batch.metadata = Some(BTreeMap::from([("note".to_owned(), "x".repeat(1 << 20))]));
        store.register(vec![large], routes(&[])).await.unwrap();
    }
    assert!(log() > 64 << 20, "{}", log());
    let said = told_by(&written, store.checkpoint()).await;
    assert!(said.contains("the database's log is long"), "{said}");
    assert!(log() > 64 << 20, "what is being read stays");

    reader.execute_batch("COMMIT").unwrap();
    let said = told_by(&written, store.checkpoint()).await;
    assert_eq!((log(), said.as_str()), (0, ""));
    store.close().await.unwrap();
}

/// What is logged at the level of a warning while `work` runs on this thread.
async fn told_by(
    written: &Arc<Mutex<Vec<u8>>>,
    work: impl Future<Output = Result<(), StoreError>>,
) -> String {
    written.lock().unwrap().clear();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer({
            let written = Arc::clone(written);
            move || Lines(Arc::clone(&written))
        })
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    work.await.unwrap();
    drop(guard);
    String::from_utf8(written.lock().unwrap().clone()).unwrap()
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
