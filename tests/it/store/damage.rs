//! What becomes of a database and a log that somebody else cuts, overwrites, replaces or deletes under the store.

use super::*;
use batchd::failpoint;
use batchd::store::StoreError;
use batchd::store::batches::BatchFilter;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::rc::Rc;
use std::time::Duration;

fn is_damaged<T: std::fmt::Debug>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Damaged(_)))
}

/// Overwrites a part of a file in place.
fn overwrite(path: &Path, at: u64, length: usize, byte: u8) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(&vec![byte; length], at).unwrap();
}

fn cut(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// A store with some batches, of which the first are in the database and the last in the log.
async fn filled(dir: &Path) -> Store {
    let store = Store::open(dir, Clock::system()).unwrap();
    let items = (0..300).map(|number| registration(&format!("batch_{number}"))).collect();
    store.register(items, routes(&[])).await.unwrap();
    store.checkpoint().await.unwrap();
    for number in 300..310 {
        track(&store, &format!("batch_{number}")).await;
    }
    store
}

type Fault = fn(&Path, &Path);

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_to_the_files_nothing_is_acknowledged_after_it() {
    let faults: [(&str, Fault); 12] = [
        ("the log is cut by a byte", |_, log| cut(log, fs::metadata(log).unwrap().len() - 1)),
        ("the log is cut in the middle", |_, log| cut(log, fs::metadata(log).unwrap().len() / 2)),
        ("the log is emptied", |_, log| cut(log, 0)),
        ("the log is zeroed", |_, log| overwrite(log, 0, fs::read(log).unwrap().len(), 0)),
        ("the end of the log is zeroed", |_, log| {
            overwrite(log, fs::metadata(log).unwrap().len() - 4120, 4120, 0);
        }),
        ("a frame in the middle is overwritten", |_, log| overwrite(log, 32 + 4120 * 3 + 200, 50, 0x5A)),
        ("the log is deleted", |_, log| fs::remove_file(log).unwrap()),
        ("the log is replaced by a copy", |_, log| {
            let bytes = fs::read(log).unwrap();
            fs::remove_file(log).unwrap();
            fs::write(log, bytes).unwrap();
        }),
        ("pages of the database are overwritten", |file, _| overwrite(file, 4096 * 4, 4096 * 12, 0x5A)),
        ("the database is cut", |file, _| cut(file, 4096 * 5)),
        ("the database is deleted", |file, _| fs::remove_file(file).unwrap()),
        ("the database is replaced by a copy", |file, _| {
            fs::copy(file, file.with_extension("copy")).unwrap();
            fs::rename(file.with_extension("copy"), file).unwrap();
        }),
    ];
    for (what, fault) in faults {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("batchd.db"), dir.path().join("batchd.db-wal"));
        let store = filled(dir.path()).await;
        fault(&file, &log);
        let after = fs::read(&file).ok();
        let written = store.register(vec![registration("batch_late")], routes(&[])).await;
        assert!(is_damaged(&written), "{what}: {written:?}");
        assert!(is_damaged(&store.healthy().await), "{what}");
        tokio::time::timeout(Duration::from_secs(5), store.is_damaged()).await.unwrap();
        assert!(is_damaged(&store.checkpoint().await), "{what}");
        assert!(store.close().await.is_err(), "{what}");
        assert_eq!(fs::read(&file).ok(), after, "{what}: damage is never written over");
    }
}

/// On one thread, so that the fault is done right before the commit, when the files have been checked already.
#[tokio::test]
async fn what_is_done_to_the_log_during_a_commit_is_noticed_before_anybody_is_answered() {
    let faults: [(&str, Fault); 4] = [
        ("the log is emptied", |_, log| cut(log, 0)),
        ("the log is deleted", |_, log| fs::remove_file(log).unwrap()),
        ("the beginning of the log is overwritten", |_, log| overwrite(log, 16, 8, 0x5A)),
        ("the end of the log is zeroed", |_, log| {
            overwrite(log, fs::metadata(log).unwrap().len() - 4120, 4120, 0);
        }),
    ];
    for (what, fault) in faults {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("batchd.db"), dir.path().join("batchd.db-wal"));
        let store = filled(dir.path()).await;
        failpoint::watch(Some(Rc::new(move |place| {
            if place == "store.commit" {
                fault(&file, &log);
            }
            false
        })));
        let written = store.register(vec![registration("batch_late")], routes(&[])).await;
        failpoint::watch(None);
        assert!(is_damaged(&written), "{what}: {written:?}");
        assert!(is_damaged(&store.register(vec![registration("batch_later")], routes(&[])).await), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_writes_after_is_noticed_by_the_check_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    store.check_files().await.unwrap();
    overwrite(&dir.path().join("batchd.db"), 4096 * 3, 4096 * 12, 0);
    // While the writer is at work it checks the files itself.
    let noticed = async {
        while !is_damaged(&store.check_files().await) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), noticed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_read_is_damage_whoever_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    store.close().await.unwrap();
    raw(dir.path())
        .execute_batch("PRAGMA ignore_check_constraints = ON; UPDATE batches SET batch = '[]' WHERE pk = 7")
        .unwrap();
    let offline = Store::open_offline(dir.path()).unwrap();
    assert!(is_damaged(&offline.load(7).await));
    assert!(is_damaged(&offline.list(BatchFilter::default()).await));
    tokio::time::timeout(Duration::from_secs(5), offline.is_damaged()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_that_writes_and_leaves_all_whole_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let file = dir.path().join("batchd.db");
    let sql = "UPDATE batches SET name = 'theirs' WHERE pk = 1; PRAGMA wal_checkpoint(PASSIVE)";
    let Some(output) = older_sqlite::run(&file, sql) else { return };
    assert!(output.status.success(), "{output:?}");
    for number in 0..3 {
        track(&store, &format!("batch_more_{number}")).await;
    }
    store.healthy().await.unwrap();
    store.close().await.unwrap();
    assert_sound(dir.path());
}

#[tokio::test]
async fn a_log_that_another_program_has_put_into_the_database_is_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()).await);
    assert!(fs::metadata(dir.path().join("batchd.db-wal")).unwrap().len() > 0);
    // SQLite's own way of closing.
    drop(raw(dir.path()));
    number(&raw(dir.path()), "SELECT count(*) FROM batches");
    assert!(!dir.path().join("batchd.db-wal").exists());
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    assert_eq!(store.find("batch_309".to_owned()).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_of_a_commit_is_small_beside_its_sync() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let clock = Clock::system();
    let begun = clock.steady();
    for _ in 0..2000 {
        store.check_files().await.unwrap();
    }
    let each = clock.steady().saturating_sub(begun) / 2000;
    eprintln!("a check of the files: {each:?}");
    assert!(each < Duration::from_millis(1), "{each:?}");
}

#[tokio::test]
async fn a_database_that_is_a_link_is_refused_and_a_linked_directory_is_not() {
    let root = tempfile::tempdir().unwrap();
    let (dir, elsewhere) = (root.path().join("state"), root.path().join("elsewhere"));
    for name in ["batchd.db", "batchd.db-wal", "batchd.db-shm", "batchd.lock"] {
        for hard in [false, true] {
            let _ = fs::remove_dir_all(&dir);
            let _ = fs::remove_dir_all(&elsewhere);
            fs::create_dir(&elsewhere).unwrap();
            let store = Store::open(&dir, Clock::system()).unwrap();
            track(&store, "batch_1").await;
            drop(store);
            let (here, there) = (dir.join(name), elsewhere.join(name));
            if hard {
                fs::hard_link(&here, &there).unwrap();
            } else {
                fs::rename(&here, &there).unwrap();
                symlink(&there, &here).unwrap();
            }
            for error in
                [Store::open(&dir, Clock::system()).unwrap_err(), Store::open_offline(&dir).unwrap_err()]
            {
                let text = error.to_string();
                assert!(matches!(error, batchd::store::OpenError::Unwritable { .. }), "{name}: {text}");
                assert!(text.contains(&format!("{name} ")) && text.contains("[state] dir"), "{text}");
            }
        }
    }
    let _ = fs::remove_dir_all(&dir);
    symlink(&elsewhere, &dir).unwrap();
    for entry in fs::read_dir(&elsewhere).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let store = Store::open(&dir, Clock::system()).unwrap();
    track(&store, "batch_1").await;
    store.close().await.unwrap();
}
