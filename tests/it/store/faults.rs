//! Faults: killed processes, a full disk, foreign locks, a log that lost its end.

use super::*;
use batchd::store::batches::BatchFilter;
use batchd::store::events::EventFilter;
use batchd::store::outbox::DeliveryFilter;
use batchd::store::{OpenError, StoreError};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// Set for the process that [`child`] starts: the state that it works on.
const CHILD: &str = "BATCHD_TEST_STORE_CHILD";

/// Does nothing by itself: [`child`] starts this binary again with only this test, to have a process to kill.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "how the parent hears what was acknowledged")]
async fn a_process_that_records_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let store = Store::open(Path::new(&dir), Clock::system()).unwrap();
    for number in 0.. {
        let id = format!("batch_{}_{number}", std::process::id());
        record_one(&store, &id).await;
        println!("\nacknowledged {id}");
        std::io::stdout().flush().unwrap();
    }
}

/// A batch that ends, and whose delivery is on its way.
async fn record_one(store: &Store, id: &str) {
    let pk = track(store, id).await;
    let before = store.load(pk).await.unwrap().unwrap();
    store.record(pk, look(&before, Status::Completed, seconds(1)), routes(&["pipeline"])).await.unwrap();
    let due = store.due("pipeline".to_owned(), Clock::system().now(), 1).await.unwrap();
    store.begin_attempts(due.into_iter().map(|due| due.pk).collect(), EPOCH).await.unwrap();
}

/// Starts a process that records, and waits until it has acknowledged `count` batches.
fn child(dir: &Path, count: usize) -> (Child, Vec<String>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["store::faults::a_process_that_records_until_it_is_killed", "--exact", "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let acknowledged: Vec<String> = lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("acknowledged ").map(str::to_owned))
        .take(count)
        .collect();
    assert_eq!(acknowledged.len(), count, "the process ended by itself");
    (child, acknowledged)
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_survives_being_killed_and_the_next_takes_over_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for round in 1..=6 {
        let (child, acknowledged) = child(dir.path(), round * 3);
        let error = Store::open(dir.path(), Clock::system()).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, OpenError::Locked { .. }) && text.contains(&format!("process {}", child.id())),
            "{text}"
        );
        kill(child);
        all.extend(acknowledged);

        let store = Store::open(dir.path(), Clock::system()).unwrap();
        for id in &all {
            let found = store.get(key(id)).await.unwrap();
            assert!(found.is_some_and(|(_, batch)| batch.batch.status == Status::Completed), "{id} was lost");
        }
        let inflight = number(&raw(dir.path()), "SELECT count(*) FROM deliveries WHERE state = 'inflight'");
        assert_eq!(inflight, 0);
        drop(store);
        assert_sound(dir.path());
    }
    let connection = raw(dir.path());
    assert_eq!(
        number(&connection, "SELECT count(*) FROM events"),
        number(&connection, "SELECT count(*) FROM deliveries")
    );
}

#[tokio::test]
async fn a_log_that_lost_its_end_loses_its_end_only() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing is on its way any more: a process that is killed may leave a commit that nobody was told of.
    let recording = Store::open(dir.path(), Clock::system()).unwrap();
    for number in 0..8 {
        record_one(&recording, &format!("batch_{number}")).await;
    }
    let log = fs::read(dir.path().join("batchd.db-wal")).unwrap();
    let mut seen = Vec::new();
    for cut in [0, 1, 4120 * 2 + 5, 4120 * 9, log.len() / 2, log.len() - 10, log.len()] {
        let copy = tempfile::tempdir().unwrap();
        for name in ["batchd.db", "batchd.lock"] {
            fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        fs::write(copy.path().join("batchd.db-wal"), &log[..log.len() - cut]).unwrap();
        if cut > 0 {
            // The lock file knows what was acknowledged; whoever deletes it goes on with what is left.
            let error = Store::open(copy.path(), Clock::system()).unwrap_err();
            assert!(
                matches!(&error, OpenError::Damaged { what, .. } if what.contains("batchd.lock")),
                "{error}"
            );
            let error = Store::open_offline(copy.path()).unwrap_err();
            assert!(matches!(error, OpenError::Damaged { .. }), "{cut}: {error}");
            fs::remove_file(copy.path().join("batchd.lock")).unwrap();
        }
        let store = Store::open(copy.path(), Clock::system()).unwrap();
        let (left, _) = store.list(BatchFilter::default()).await.unwrap();
        seen.push(left.len());
        // Seen again, the same is told under the same id, or known already.
        for (pk, tracked) in left {
            store
                .record(pk, look(&tracked, Status::Completed, seconds(9)), routes(&["pipeline"]))
                .await
                .unwrap();
        }
        drop(store);
        assert_sound(copy.path());
    }
    assert!(seen.is_sorted_by(|longer, shorter| longer >= shorter), "{seen:?}");
    assert!(seen[0] >= 8 && seen[4] < seen[0], "{seen:?}");
}

#[tokio::test]
async fn g3_a_lock_file_deleted_under_a_daemon_is_noticed_and_ruins_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    let pk = track(&store, "batch_1").await;
    fs::remove_file(dir.path().join("batchd.lock")).unwrap();
    let (child, acknowledged) = child(dir.path(), 3);
    let error = store.healthy().await.unwrap_err();
    assert!(error.to_string().contains("batchd.lock"), "{error}");
    see(&store, pk, Status::Completed, 1, &["pipeline"]).await;
    kill(child);
    drop(store);
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    for id in acknowledged {
        assert!(store.get(key(&id)).await.unwrap().is_some());
    }
    drop(store);
    assert_sound(dir.path());
}

#[tokio::test]
async fn d11_a_deleted_log_is_refused_until_somebody_takes_the_loss() {
    let dir = tempfile::tempdir().unwrap();
    let (child, _) = child(dir.path(), 3);
    kill(child);
    fs::remove_file(dir.path().join("batchd.db-wal")).unwrap();
    let error = Store::open(dir.path(), Clock::system()).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged { what, .. } if what.contains("it is gone")), "{error}");
    fs::remove_file(dir.path().join("batchd.lock")).unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    track(&store, "batch_1").await;
    drop(store);
    assert_sound(dir.path());
}

#[tokio::test(start_paused = true)]
async fn d1_d2_on_a_full_disk_nothing_is_half_written_and_it_goes_on_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), still()).unwrap();
    let mut pks = Vec::new();
    for number in 0..40 {
        pks.push(track(&store, &format!("batch_{number}")).await);
    }
    store.limit_growth(Some(4)).await.unwrap();
    let mut results = Vec::new();
    for pk in &pks {
        let before = store.load(*pk).await.unwrap().unwrap();
        let step = look(&before, Status::Completed, seconds(1));
        results.push(store.record(*pk, step, routes(&["pipeline", "ops"])).await);
    }
    let full = results.iter().filter(|result| matches!(result, Err(StoreError::Full))).count();
    assert!(full > 0 && full < 40, "{full} of 40");
    let written = store.events(EventFilter::default()).await.unwrap().len();
    assert_eq!(written, 40 - full, "what failed left nothing");
    assert_sound(dir.path());
    let touch =
        batchd::store::touch::Touch { last_polled_at: seconds(2), next_poll_at: seconds(3), eta: None };
    store.touch(pks[0], touch);

    store.limit_growth(None).await.unwrap();
    for pk in &pks {
        see(&store, *pk, Status::Completed, 3, &["pipeline", "ops"]).await;
    }
    store.healthy().await.unwrap();
    assert_eq!(store.events(EventFilter::default()).await.unwrap().len(), 40);
    assert_eq!(store.deliveries(DeliveryFilter::default()).await.unwrap().0.len(), 80);
    drop(store);
    assert_sound(dir.path());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_fails_alone_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), still()).unwrap();
    store.limit_growth(Some(0)).await.unwrap();
    let big = (0..200).map(|number| registration(&format!("big_{number}"))).collect();
    let (big, small) = tokio::join!(store.register(big, routes(&[])), store.untrack(1, EPOCH));
    assert_eq!(big.map(|all| all.len()), Err(StoreError::Full));
    assert_eq!(small, Ok(()), "its neighbour in the same transaction");
    assert_eq!(dump(dir.path()), [] as [String; 0]);
    store.limit_growth(None).await.unwrap();
    track(&store, "batch_1").await;
}

#[tokio::test(start_paused = true)]
async fn d4_pruning_a_full_disk_gives_up_the_ballast() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), still()).unwrap();
    let pk = track(&store, "batch_1").await;
    let ballast = dir.path().join("ballast");
    assert_eq!(fs::metadata(&ballast).unwrap().len(), 4 << 20);
    store.limit_growth(Some(0)).await.unwrap();
    // Purging needs no new page here; what needs one fails, with the ballast and without.
    store.purge(pk).await.unwrap();
    assert!(ballast.exists());
    prune(&store, seconds(1)).await;
    assert!(ballast.exists());
    fs::remove_file(&ballast).unwrap();
    store.healthy().await.unwrap();
    assert!(ballast.exists(), "set aside again when there is space");
}

#[tokio::test(flavor = "multi_thread")]
async fn d20_a_copy_made_while_writing_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    let writing = async {
        for number in 0..150 {
            let pk = track(&store, &format!("batch_{number}")).await;
            see(&store, pk, Status::Completed, 1, &["pipeline"]).await;
        }
    };
    let copying = async {
        let mut copies = Vec::new();
        for _ in 0..5 {
            copies.push(store.copy_aside().await.unwrap());
        }
        copies
    };
    let ((), copies) = tokio::join!(writing, copying);
    for copy in copies {
        let restored = tempfile::tempdir().unwrap();
        fs::copy(&copy, restored.path().join("batchd.db")).unwrap();
        assert_sound(restored.path());
        let again = Store::open(restored.path(), Clock::system()).unwrap();
        let count = again.list(BatchFilter::default()).await.unwrap().0.len();
        track(&again, "batch_new").await;
        assert!(count <= 150);
    }
}

#[tokio::test]
async fn d19_a_directory_without_leave_to_write_is_named() {
    use std::os::unix::fs::PermissionsExt;
    // Whoever runs the tests as root may write everywhere.
    if nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: run as somebody else than root, who may write everywhere");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let error = Store::open(dir.path(), Clock::system()).unwrap_err();
    assert!(matches!(error, OpenError::Unwritable { .. }), "{error}");
}
