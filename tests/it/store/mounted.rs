//! File systems that are really full or read-only: mounted for one test, in a namespace of its own that nobody else sees.

use super::*;
use batchd::store::batches::BatchFilter;
use batchd::store::outbox::{AttemptEnd, Next, WebhookState};
use batchd::store::{OpenError, StoreError};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// In the process that [`mounted`] starts: where the file system is.
const DISK: &str = "BATCHD_TEST_DISK";

/// Where a file system with these options is mounted, in a process that runs this `test` again; `None`: this is not that
/// process, and its judgement has been passed on, or nothing can be mounted here, which is said.
fn mounted(test: &str, options: &str) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os(DISK) {
        return Some(disk.into());
    }
    let place = tempfile::tempdir().unwrap();
    let apart = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-Urm", "sh", "-c", script]).arg(place.path()).arg(std::env::current_exe().unwrap());
        command
    };
    let mount = format!("mount -t tmpfs -o {options},mode=0777 none \"$0\"");
    if !apart(&mount).output().is_ok_and(|tried| tried.status.success()) {
        eprintln!("skipped: nothing can be mounted here (`unshare -Urm` is not allowed)");
        return None;
    }
    let mut command = apart(&format!("{mount} && exec \"$@\""));
    let output = command
        .args(["--exact", &format!("store::mounted::{test}"), "--nocapture"])
        .env(DISK, place.path())
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    None
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_really_full() {
    let Some(disk) = mounted("a_disk_that_is_really_full", "size=24m") else { return };
    let dir = tempfile::tempdir_in(&disk).unwrap();
    let store = Store::open(dir.path(), still()).unwrap();
    for number in 0..20 {
        let pk = track(&store, &format!("batch_{number}")).await;
        let webhooks: &[&str] = if number < 10 { &["pipeline"] } else { &[] };
        see(&store, pk, Status::Completed, 1, webhooks).await;
    }
    let delivery = store.due("pipeline".to_owned(), EPOCH, 1).await.unwrap()[0].pk;
    let attempt = store.begin_attempts(vec![delivery], EPOCH).await.unwrap()[0].unwrap();
    let filler = dir.path().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);

    let mut failed = 0;
    for number in 0..200 {
        match store.register(vec![registration(&format!("more_{number}"))], routes(&[])).await {
            Ok(registered) => assert!(store.load(registered[0].pk).await.unwrap().is_some()),
            Err(StoreError::Full) => failed += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(failed > 100, "{failed} of 200");
    assert_eq!(store.healthy().await, Err(StoreError::Full), "it tells until it is over");
    assert_eq!(store.checkpoint().await, Err(StoreError::Full));
    let end = || AttemptEnd {
        at: EPOCH,
        outcome: "delivered".to_owned(),
        http_status: Some(200),
        error: None,
        excerpt: None,
        next: Next::Delivered,
    };
    assert_eq!(store.finish_attempt(attempt, end(), WebhookState::default()).await, Err(StoreError::Full));
    assert_eq!(store.list(BatchFilter::default()).await.unwrap().0.len(), 220 - failed, "reading goes on");

    // The ballast makes the room to delete in, and a little more.
    let ballast = dir.path().join("ballast");
    assert!(ballast.exists());
    assert_eq!(prune(&store, seconds(2)).await, 10);
    assert!(!ballast.exists());
    store.finish_attempt(attempt, end(), WebhookState::default()).await.unwrap();
    store.healthy().await.unwrap();
    store.checkpoint().await.unwrap();
    fs::remove_file(&filler).unwrap();
    store.healthy().await.unwrap();
    assert!(ballast.exists(), "set aside again");
    store.close().await.unwrap();
    assert_sound(dir.path());
}

#[tokio::test]
async fn d13_a_read_only_file_system_is_refused_at_the_start_and_can_be_read() {
    let Some(disk) =
        mounted("d13_a_read_only_file_system_is_refused_at_the_start_and_can_be_read", "size=24m")
    else {
        return;
    };
    let store = Store::open(&disk, Clock::system()).unwrap();
    track(&store, "batch_1").await;
    store.close().await.unwrap();
    drop(store);
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk).status().unwrap();
    assert!(remounted.success());
    let before = fs::read(disk.join("batchd.db")).unwrap();
    let refused = Store::open(&disk, Clock::system()).unwrap_err();
    assert!(
        matches!(&refused, OpenError::Unwritable { what, .. } if what.to_ascii_lowercase().contains("read-only")),
        "{refused}"
    );
    let offline = Store::open_offline(&disk).unwrap();
    assert_eq!(offline.list(BatchFilter::default()).await.unwrap().0.len(), 1);
    assert_eq!(fs::read(disk.join("batchd.db")).unwrap(), before);
}
