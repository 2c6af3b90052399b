//! How long the command line takes beside a log of a million events: `cargo bench --bench log`.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

#[expect(dead_code, reason = "other benches use more of it")]
mod harness;
#[path = "../tests/it/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

use harness::{is_asked_for, peak, resident, start};
use rusqlite::Connection;
use std::time::{Duration, Instant};
use world::{World, until};

/// How many batches have ended.
const BATCHES: u32 = 200_000;
/// How many events each of them has.
const EVENTS: u32 = 5;
const ROUNDS: usize = 20;

fn main() {
    if !is_asked_for() {
        return;
    }
    let world = World::new();
    world.configure("");
    let (daemon, _) = start(&world);
    for id in ["batch_model", "batch_live"] {
        world.provider.put(id, "in_progress", &serde_json::json!({}));
        world.ok(&["track", id]);
    }
    world.provider.complete("batch_model");
    until("its end is told", || {
        let told = world.json(&["deliveries", "--json"]);
        let told = told["data"].as_array().unwrap();
        let is_over = |delivery: &serde_json::Value| delivery["state"] == "delivered";
        (!told.is_empty() && told.iter().all(is_over)).then_some(())
    });
    daemon.terminate();
    let begun = Instant::now();
    multiply(&Connection::open(world.state().join("batchd.db")).unwrap());
    println!(
        "{} events of {BATCHES} batches, written in {:.0} s",
        BATCHES * EVENTS,
        begun.elapsed().as_secs_f64()
    );

    let (daemon, ready) = start(&world);
    println!("{:<40} {:>10} {:>10}   mark", "", "median", "slowest");
    println!("{:<40} {:>8.0} ms", "ready in", ready.as_secs_f64() * 1000.0);
    let started = resident(&daemon);
    let empty = World::new();
    empty.configure("");
    let (other, _) = start(&empty);
    say(&empty, "a command of a daemon without batches", &["list"], "");
    other.terminate();
    for arguments in [
        &["list"][..],
        &["list", "--all", "-n", "100"],
        &["events", "-n", "20"],
        &["show", "batch_copy_100000"],
        &["events", "batch_copy_100000"],
        &["status"],
        &["deliveries", "-n", "20"],
    ] {
        say(&world, &arguments.join(" "), arguments, "<= 50 ms");
    }
    println!("memory of the daemon: {started:.1} MiB just started, {:.1} MiB at most", peak(&daemon));
    daemon.terminate();
}

/// Prints how long a command takes, the start of its process included.
fn say(world: &World, what: &str, arguments: &[&str], mark: &str) {
    let mut took: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            world.ok(arguments);
            begun.elapsed()
        })
        .collect();
    took.sort();
    let millis = |duration: Duration| format!("{:.1} ms", duration.as_secs_f64() * 1000.0);
    let (median, slowest) = (millis(took[ROUNDS / 2]), millis(took[ROUNDS - 1]));
    println!("{what:<40} {median:>10} {slowest:>10}   {mark}");
}

/// Makes many batches of the one that has ended, each with events, transitions and deliveries of its own.
fn multiply(state: &Connection) {
    let columns = |table: &str, given: &[&str]| {
        let mut columns = state.prepare(&format!("SELECT name FROM pragma_table_info('{table}')")).unwrap();
        let names = columns.query_map([], |row| row.get::<_, String>(0)).unwrap();
        names
            .map(Result::unwrap)
            .filter(|name| !given.contains(&name.as_str()))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let batches = columns("batches", &["pk", "id", "status_since"]);
    let transitions = columns("transitions", &["pk", "batch"]);
    let events = columns("events", &["sequence", "id", "batch", "batch_id", "recorded_at"]);
    let deliveries = columns("deliveries", &["pk", "sequence", "recorded_at"]);
    let attempts = columns("attempts", &["pk", "delivery"]);
    let model = "(SELECT pk FROM batches WHERE id = 'batch_model')";
    state
        .execute_batch(&format!(
            "PRAGMA synchronous = OFF;
             PRAGMA foreign_keys = OFF;
             BEGIN;
             CREATE TEMP TABLE number (n INTEGER PRIMARY KEY);
             INSERT INTO number
               WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {BATCHES})
               SELECT n FROM counted;
             INSERT INTO batches (pk, id, status_since, {batches})
               SELECT 100 + n, 'batch_copy_' || n, status_since - 1000 * ({BATCHES} - n), {batches}
               FROM number, batches WHERE pk = {model};
             INSERT INTO transitions (batch, {transitions})
               SELECT 100 + n, {transitions} FROM number, transitions WHERE batch = {model};
             CREATE TEMP TABLE told AS
               SELECT * FROM events WHERE batch = {model} ORDER BY sequence DESC LIMIT 1;
             CREATE TEMP TABLE sent AS
               SELECT * FROM deliveries WHERE sequence = (SELECT sequence FROM told) ORDER BY pk LIMIT 1;
             INSERT INTO events (sequence, id, batch, batch_id, recorded_at, {events})
               SELECT 1000 + {EVENTS} * number.n + each.n, 'evt_copy_' || number.n || '_' || each.n, 100 + number.n,
                 'batch_copy_' || number.n, recorded_at - 1000 * ({BATCHES} - number.n), {events}
               FROM number, told, (SELECT n FROM number WHERE n <= {EVENTS}) AS each ORDER BY 1;
             INSERT INTO deliveries (pk, sequence, recorded_at, {deliveries})
               SELECT 1000 + {EVENTS} * n, 1000 + {EVENTS} * n + 1, recorded_at - 1000 * ({BATCHES} - n), {deliveries}
               FROM number, sent;
             INSERT INTO attempts (delivery, {attempts})
               SELECT 1000 + {EVENTS} * n, {attempts}
               FROM number, attempts WHERE delivery IN (SELECT pk FROM sent);
             COMMIT;"
        ))
        .unwrap();
}
