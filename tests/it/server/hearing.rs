//! Stores that share a state on a real server, in one process: what each hears of the others.

use crate::support::postgres::Postgres;
use crate::world::{now, until};
use batchd::clock::Clock;
use batchd::domain::ownership::Scope;
use batchd::store::jobs::{BACKUP, JobRun};
use batchd::store::{Connector, Shared, Store};
use futures_util::future::join_all;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

async fn opened(url: &str, dir: &Path, name: &str, lease: Duration) -> Store {
    let shared =
        Shared { connector: Connector::new(url.parse().unwrap(), None), name: name.to_owned(), lease };
    let store = Store::open_shared(dir, shared, Clock::system()).await.unwrap();
    store.declare([(Scope::Keeper, 1)].into()).await.unwrap();
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_without_a_pause_hears_of_the_others() {
    let Some(postgres) = Postgres::shared() else { return };
    let url = postgres.database();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let busy = opened(&url, one.path(), "busy", Duration::from_secs(10)).await;
    let (over, written) = (AtomicBool::new(false), Notify::new());
    let at = Clock::system().now();
    let run = JobRun { name: BACKUP.to_owned(), started_at: at, finished_at: at, error: None };
    let writing = join_all((0..64).map(|_| async {
        while !over.load(Ordering::Relaxed) {
            busy.set_job_run(run.clone()).await.unwrap();
            written.notify_one();
        }
    }));
    let listening = async {
        // There is something to write at any time once each has written.
        for _ in 0..256 {
            written.notified().await;
        }
        let other = opened(&url, two.path(), "other", Duration::from_secs(10)).await;
        let joined = now();
        while busy.members().len() < 2 && joined.elapsed() < Duration::from_secs(20) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        over.store(true, Ordering::Relaxed);
        other.close().await.unwrap();
        joined.elapsed()
    };
    let (_, heard) = tokio::join!(writing, listening);
    assert!(heard < Duration::from_secs(5), "it hears of the other one after {heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_nothing_to_do_shows_that_it_lives_however_short_the_lease_is() {
    let Some(postgres) = Postgres::shared() else { return };
    let url = postgres.database();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lease = Duration::from_secs(2);
    let stores = [opened(&url, one.path(), "one", lease).await, opened(&url, two.path(), "two", lease).await];
    until("both are there", || stores.iter().all(|store| store.members().len() == 2).then_some(()));
    let (mut silent, mut asked) = (0, 0);
    let begun = now();
    while begun.elapsed() < 5 * lease {
        for store in &stores {
            asked += 1;
            silent += u32::from(store.unreachable().is_some());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        silent * 10 < asked,
        "of {asked} times that it was asked the server was {silent} times not heard of"
    );
}
