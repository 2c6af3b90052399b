//! The `sqlite3` that a distribution ships reads the state, checks it, and loads what it dumps.

use super::*;
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs `sql` on `file`; `None`: there is no `sqlite3` here, which is said.
pub(super) fn run(file: &Path, sql: &str) -> Option<Output> {
    let child = Command::new("sqlite3")
        .args(["-batch", "-bail"])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: there is no sqlite3 on PATH (`apt-get install sqlite3`)");
        return None;
    };
    let mut input = child.stdin.take().unwrap();
    let sql = sql.to_owned();
    let writing = std::thread::spawn(move || input.write_all(sql.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    Some(output)
}

const TABLES: [&str; 10] = [
    "batches",
    "checks",
    "transitions",
    "events",
    "fences",
    "deliveries",
    "attempts",
    "webhooks",
    "providers",
    "jobs",
];

#[tokio::test(start_paused = true)]
async fn the_state_of_every_schema_passes_its_check_and_its_dump_loads_whole() {
    for schema in [1, 2, 3, 5] {
        let dir = tempfile::tempdir().unwrap();
        let fixture = format!("{}/tests/fixtures/store/v{schema}.db", env!("CARGO_MANIFEST_DIR"));
        fs::copy(fixture, dir.path().join("batchd.db")).unwrap();
        let store = Store::open(dir.path(), still()).unwrap();
        for number in 0..100 {
            track(&store, &format!("batch_of_today_{number}")).await;
        }
        store.reckon().await.unwrap();
        let copy = store.copy_aside().await.unwrap();
        let backup = dir.path().join("backup.db");
        fs::rename(copy, &backup).unwrap();
        store.close().await.unwrap();
        for file in [dir.path().join("batchd.db"), backup] {
            let Some(checked) = run(&file, "PRAGMA integrity_check;") else { return };
            assert_eq!(String::from_utf8_lossy(&checked.stdout), "ok\n", "schema {schema}: {checked:?}");
            let dumped = run(&file, ".dump").unwrap();
            assert!(dumped.status.success() && dumped.stderr.is_empty(), "{dumped:?}");
            let loaded = file.with_extension("loaded");
            let dump = String::from_utf8(dumped.stdout).unwrap();
            let loading = run(&loaded, &dump).unwrap();
            assert!(loading.status.success() && loading.stderr.is_empty(), "schema {schema}: {loading:?}");
            for table in TABLES {
                let count = format!("SELECT count(*) FROM {table}");
                let rows = |file: &Path| number(&Connection::open(file).unwrap(), &count);
                assert_eq!(rows(&loaded), rows(&file), "schema {schema}: {table}");
            }
        }
    }
}
