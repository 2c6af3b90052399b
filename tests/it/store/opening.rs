//! Opening: one daemon, sound files, and clear words where it must be refused.

use super::*;
use batchd::store::batches::BatchFilter;
use batchd::store::{OpenError, StoreError};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The error of opening, and what it says; the database must be what it was.
fn refused(dir: &Path) -> (OpenError, String) {
    let file = dir.join("batchd.db");
    let before = fs::read(&file).ok();
    let error = Store::open(dir, Clock::system()).unwrap_err();
    assert_eq!(fs::read(&file).ok(), before, "a file that is refused is not touched");
    let text = error.to_string();
    (error, text)
}

async fn made(dir: &Path) {
    let store = Store::open(dir, Clock::system()).unwrap();
    track(&store, "batch_1").await;
    store.close().await.unwrap();
}

/// The number of the newest schema: each step is a file.
fn newest_schema() -> i64 {
    let steps = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/schema");
    fs::read_dir(steps).unwrap().count().try_into().unwrap()
}

#[tokio::test]
async fn files_are_private_and_the_database_is_as_it_must_be() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("state");
    let store = Store::open(&dir, Clock::system()).unwrap();
    track(&store, "batch_1").await;
    assert!(store.was_checked());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    names.sort();
    assert_eq!(names, ["ballast", "batchd.db", "batchd.db-shm", "batchd.db-wal", "batchd.lock"]);
    store.close().await.unwrap();
    assert_eq!(fs::metadata(dir.join("batchd.db-wal")).unwrap().len(), 0, "closing empties the log");

    let connection = raw(&dir);
    let text = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(number(&connection, "PRAGMA application_id"), 0x4254_4348);
    assert_eq!(text("PRAGMA journal_mode"), "wal");
    assert_eq!(number(&connection, "PRAGMA auto_vacuum"), 2);
    assert_eq!(number(&connection, "PRAGMA user_version"), newest_schema());
    let loose =
        "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND strict = 0
                 AND name NOT LIKE 'sqlite_%'";
    assert_eq!(number(&connection, loose), 0);
}

#[tokio::test]
async fn a_second_daemon_is_told_who_holds_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    let (error, text) = refused(dir.path());
    assert!(matches!(error, OpenError::Locked { .. }));
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    // The first goes on, and closing it lets another one in, though clones of it are still there.
    track(&store, "batch_1").await;
    store.close().await.unwrap();
    let second = Store::open(dir.path(), Clock::system()).unwrap();
    assert_eq!(second.find("batch_1".to_owned()).await.unwrap().len(), 1);
    assert_eq!(store.find("batch_1".to_owned()).await.unwrap_err(), StoreError::Closed);
    assert_eq!(store.purge(1).await.unwrap_err(), StoreError::Closed);
    assert_eq!(store.close().await.unwrap_err(), StoreError::Closed);
}

#[tokio::test]
async fn what_was_dropped_without_closing_is_there_and_can_be_opened_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let store = Store::open(dir.path(), Clock::system()).unwrap();
        assert_eq!(store.list(BatchFilter::default()).await.unwrap().0.len(), round);
        track(&store, &format!("batch_{round}")).await;
    }
    assert_sound(dir.path());
}

#[tokio::test]
async fn d8_garbage_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for garbage in ["not a database", &"garbage".repeat(10_000), "SQLite format 3"] {
        fs::write(dir.path().join("batchd.db"), garbage).unwrap();
        let (error, text) = refused(dir.path());
        assert!(matches!(error, OpenError::Damaged { .. }));
        assert!(text.contains("not a database") && text.contains("copy the newest backup"), "{text}");
    }
    let mut almost = b"SQLite format 3\0".to_vec();
    almost.resize(8192, 0x5A);
    fs::write(dir.path().join("batchd.db"), almost).unwrap();
    assert!(matches!(refused(dir.path()).0, OpenError::Damaged { .. }));
}

#[tokio::test]
async fn d9_an_emptied_or_deleted_database_is_not_a_fresh_start() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path()).await;
    let file = dir.path().join("batchd.db");
    fs::write(&file, "").unwrap();
    let (error, text) = refused(dir.path());
    assert!(matches!(error, OpenError::Damaged { .. }) && text.contains("empty or gone"), "{text}");
    fs::remove_file(&file).unwrap();
    assert!(matches!(refused(dir.path()).0, OpenError::Damaged { .. }));
    assert!(matches!(Store::open_offline(dir.path()), Err(OpenError::Damaged { .. })));
    // Whoever really wants a fresh start deletes the lock file too.
    fs::remove_file(dir.path().join("batchd.lock")).unwrap();
    Store::open(dir.path(), Clock::system()).unwrap();
}

#[tokio::test]
async fn d15_a_newer_schema_is_refused_even_if_only_the_log_tells_of_it() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path()).await;
    raw(dir.path()).pragma_update(None, "user_version", 99).unwrap();
    let (error, text) = refused(dir.path());
    assert!(matches!(error, OpenError::Newer { found: 99, known, .. } if known == newest_schema()), "{text}");
    assert!(text.contains("run the newer batchd"), "{text}");

    let dir = tempfile::tempdir().unwrap();
    made(dir.path()).await;
    let newer = raw(dir.path());
    newer.pragma_update(None, "user_version", 99).unwrap();
    let copy = tempfile::tempdir().unwrap();
    for name in ["batchd.db", "batchd.db-wal", "batchd.lock"] {
        fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    assert!(matches!(refused(copy.path()).0, OpenError::Newer { found: 99, .. }));
    assert!(matches!(Store::open_offline(copy.path()), Err(OpenError::Newer { .. })));
}

#[tokio::test]
async fn the_database_of_another_program_is_refused() {
    for prepare in [
        "PRAGMA application_id = 252006673; CREATE TABLE theirs (x);",
        "CREATE TABLE theirs (x);",
        "CREATE TABLE theirs (x); PRAGMA user_version = 1;",
    ] {
        let dir = tempfile::tempdir().unwrap();
        raw(dir.path()).execute_batch(prepare).unwrap();
        let (error, text) = refused(dir.path());
        assert!(matches!(error, OpenError::Damaged { .. }) && text.contains("another program"), "{text}");
    }
}

#[tokio::test]
async fn d10_a_destroyed_page_is_found_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    let items = (0..500).map(|number| registration(&format!("batch_{number}"))).collect();
    store.register(items, routes(&[])).await.unwrap();
    store.check_whole().await.unwrap();
    store.close().await.unwrap();
    let file = dir.path().join("batchd.db");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0x5A);
    fs::write(&file, bytes).unwrap();
    let (error, text) = refused(dir.path());
    assert!(matches!(error, OpenError::Damaged { .. }) && text.contains("nothing was changed"), "{text}");
    // The daemon of a large state finds it later.
    let offline = Store::open_offline(dir.path()).unwrap();
    assert!(matches!(offline.check_whole().await, Err(StoreError::Damaged(_))));
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_or_is_none_is_named() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    for dir in [file.clone(), file.join("below")] {
        let error = Store::open(&dir, Clock::system()).unwrap_err();
        assert!(matches!(error, OpenError::Unwritable { .. }));
        assert!(error.to_string().contains(&dir.display().to_string()));
    }
    fs::create_dir(root.path().join("batchd.db")).unwrap();
    assert!(matches!(refused(root.path()).0, OpenError::Damaged { .. }));
}

#[tokio::test]
async fn without_a_daemon_the_state_can_be_read_and_not_written() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Store::open_offline(dir.path()), Err(OpenError::Absent { .. })));
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "reading makes nothing");
    let nowhere = dir.path().join("nowhere");
    assert!(matches!(Store::open_offline(&nowhere), Err(OpenError::Absent { .. })));

    // Beside a running daemon, seeing what it commits …
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    let offline = Store::open_offline(dir.path()).unwrap();
    let pk = track(&store, "batch_1").await;
    assert_eq!(offline.load(pk).await.unwrap(), store.load(pk).await.unwrap());
    assert_eq!(offline.purge(pk).await.unwrap_err(), StoreError::ReadOnly);
    offline.touch(pk, batchd::store::touch::Touch { last_polled_at: EPOCH, next_poll_at: EPOCH, eta: None });
    offline.healthy().await.unwrap();
    assert!(offline.due("pipeline".to_owned(), EPOCH, 10).await.unwrap().is_empty());
    // … and without one.
    store.close().await.unwrap();
    assert_eq!(offline.find("batch_1".to_owned()).await.unwrap().len(), 1);
    offline.close().await.unwrap();
    assert_eq!(offline.load(pk).await.unwrap_err(), StoreError::Closed);
    let offline = Store::open_offline(dir.path()).unwrap();
    assert_eq!(offline.load(pk).await.unwrap().unwrap().key, key("batch_1"));
    let copy = offline.copy_aside().await.unwrap();
    assert!(copy.exists());
}

#[tokio::test]
async fn d12_files_replaced_while_in_use_are_noticed() {
    for name in ["batchd.db", "batchd.db-wal", "batchd.lock"] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Clock::system()).unwrap();
        store.healthy().await.unwrap();
        let file = dir.path().join(name);
        fs::rename(&file, dir.path().join("aside")).unwrap();
        let error = store.healthy().await.unwrap_err();
        assert!(matches!(&error, StoreError::Damaged(what) if what.contains(name)), "{error}");
        fs::copy(dir.path().join("aside"), &file).unwrap();
        assert!(store.healthy().await.is_err(), "a copy is not the file");
    }
}

#[tokio::test]
async fn a_restored_backup_is_not_mixed_with_the_log_of_what_it_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    let pk = track(&store, "batch_1").await;
    let backup = dir.path().join("backup");
    fs::rename(store.copy_aside().await.unwrap(), &backup).unwrap();
    see(&store, pk, Status::Completed, 60, &["pipeline"]).await;
    track(&store, "batch_2").await;
    drop(store);
    assert!(fs::metadata(dir.path().join("batchd.db-wal")).unwrap().len() > 0, "it ended uncleanly");

    fs::copy(&backup, dir.path().join("batchd.db")).unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    let (found, _) = store.list(BatchFilter::default()).await.unwrap();
    assert_eq!(found.len(), 1, "the state of the backup, nothing of the log");
    assert!(dir.path().join("batchd.db-wal.stale").exists());
    // What is seen again has the same id.
    let again = see(&store, pk, Status::Completed, 90, &["pipeline"]).await;
    assert_eq!(again, 1);
    drop(store);
    assert_sound(dir.path());

    // So it is with a plain copy of a file that was closed.
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    store.close().await.unwrap();
    fs::copy(dir.path().join("batchd.db"), &backup).unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    track(&store, "batch_3").await;
    drop(store);
    fs::copy(&backup, dir.path().join("batchd.db")).unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    assert!(store.find("batch_3".to_owned()).await.unwrap().is_empty());
    drop(store);
    // Without a replacement the log is read.
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    track(&store, "batch_4").await;
    drop(store);
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    assert_eq!(store.find("batch_4".to_owned()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a8_unfinished_copies_are_removed_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Clock::system()).unwrap();
    let copy = store.copy_aside().await.unwrap();
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    drop(store);
    assert!(copy.exists());
    let _store = Store::open(dir.path(), Clock::system()).unwrap();
    assert!(!copy.exists());
}
