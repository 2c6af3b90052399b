//! What it costs to write down checks that showed nothing new: `cargo bench --bench checks`.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::print_stdout, reason = "it prints what it measured")]
#![expect(clippy::cast_precision_loss, reason = "counts of bytes and ticks")]

use batchd::clock::Clock;
use batchd::domain::time::later;
use batchd::store::Store;
use jiff::Timestamp;
use rusqlite::Connection;
use std::path::Path;
use std::time::{Duration, Instant};

const BATCHES: i64 = 100_000;
/// As many as each transaction wrote when the times stood in the batch's own row.
const AT_ONCE: i64 = 1000;

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!(
        "{BATCHES} batches, one check of each written down: processor, and bytes written to log and database, a check.\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("batchd.db");
    // A state from before `checks`, with so many copies of its batch that runs.
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store/v3.db");
    std::fs::copy(fixture, &file).unwrap();
    let connection = Connection::open(&file).unwrap();
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    fill(&connection);
    let from: i64 = connection.query_row("SELECT max(pk) FROM batches", [], |row| row.get(0)).unwrap();
    let from = from - BATCHES;
    measure("in the batch's own row", || {
        for first in (from..from + BATCHES).step_by(usize::try_from(AT_ONCE).unwrap()) {
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            let mut update = connection
                .prepare_cached(
                    "UPDATE batches SET last_polled_at = ?2, eta = NULL, eta_earliest = NULL, eta_latest = NULL,
                       next_poll_at = CASE WHEN untracked_at IS NULL THEN ?3 END
                     WHERE pk = ?1",
                )
                .unwrap();
            for pk in first + 1..=first + AT_ONCE {
                update
                    .execute((pk, 1_795_000_060_000_i64, 1_795_000_900_000_i64 + pk * 37 % 60_000))
                    .unwrap();
            }
            drop(update);
            connection.execute_batch("COMMIT").unwrap();
        }
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    });
    drop(connection);

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let begun = Instant::now();
        let store = Store::open(dir.path(), Clock::system()).unwrap();
        println!("the migration took {:.1} s", begun.elapsed().as_secs_f64());
        let now = Timestamp::now();
        let next = |pk: i64| later(now, Duration::from_millis((pk * 37 % 60_000).unsigned_abs()));
        let touched = store.clone();
        let (written, ticks, begun) = (bytes_written(), processor_ticks(), Instant::now());
        touched.touch_times(now, (from + 1..=from + BATCHES).map(|pk| (pk, next(pk))));
        let noted = processor_ticks() - ticks;
        store.close().await.unwrap();
        report("in `checks`", written, ticks, begun);
        println!("(of the processor's time {:.2} µs to note them in memory)", noted * 1e4 / BATCHES as f64);
    });
}

fn fill(connection: &Connection) {
    let columns: Vec<String> = {
        let mut query = connection
            .prepare("SELECT name FROM pragma_table_info('batches') WHERE name NOT IN ('pk', 'id', 'next_poll_at', 'batch')")
            .unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let columns = columns.join(", ");
    connection
        .execute_batch(&format!(
            "BEGIN;
             WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {BATCHES})
             INSERT INTO batches (id, next_poll_at, batch, {columns})
             SELECT printf('batch_%032x', n), 1795000000000 + n * 53 % 900000,
               json_set(batch, '$.id', printf('batch_%032x', n), '$.metadata', json_object('job', 'nightly')), {columns}
             FROM number, batches WHERE batches.pk = 2;
             COMMIT;
             PRAGMA wal_checkpoint(TRUNCATE);"
        ))
        .unwrap();
}

fn measure(what: &str, work: impl FnOnce()) {
    let (written, ticks, begun) = (bytes_written(), processor_ticks(), Instant::now());
    work();
    report(what, written, ticks, begun);
}

fn report(what: &str, written: u64, ticks: f64, begun: Instant) {
    let each = |all: f64| all / BATCHES as f64;
    println!(
        "{what:>24}: {:>6.2} µs of processor, {:>6.0} bytes, {:.1} s in all",
        each((processor_ticks() - ticks) * 1e4),
        each((bytes_written() - written) as f64),
        begun.elapsed().as_secs_f64()
    );
}

/// What this process has written so far, wherever to.
fn bytes_written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

/// Processor time of this process, in hundredths of a second.
fn processor_ticks() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
}
