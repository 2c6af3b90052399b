//! What it costs to keep an eye on many batches: `cargo bench --bench tracking`.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::print_stdout, reason = "it prints what it measured")]
#![expect(clippy::cast_precision_loss, reason = "counts of requests")]

#[expect(dead_code, reason = "other benches use more of it")]
mod harness;
#[path = "../tests/it/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

use harness::plot::{self, Line};
use harness::{
    Pager, configure, is_asked_for, processor_seconds, quiet_daemon, resident, shares, start, track,
};
use std::time::{Duration, Instant};
use world::World;

/// How long the first round may take before the measurement goes on without its end.
const FIRST_ROUND: Duration = Duration::from_mins(1);
/// How long each size is watched.
const WATCHED: Duration = Duration::from_secs(15);

fn main() {
    if !is_asked_for() {
        return;
    }
    println!(
        "Batches at one OpenAI-shaped provider on loopback, all of them due every 5 s. A round is one check of each of \
         them.\nPages of 100. Marks: 20 requests a round for 1,000 and 150 for 10,000; 64 MiB and ready within 1 s for \
         100,000.\n"
    );
    idle();
    println!(
        "{:>8} {:>10} {:>9} {:>10} {:>10} {:>12} {:>12} {:>12} {:>10} {:>10} {:>14}",
        "batches",
        "registered",
        "first",
        "of it",
        "requests",
        "of them",
        "processor",
        "per batch",
        "memory",
        "ready",
        "memory"
    );
    println!(
        "{:>8} {:>10} {:>9} {:>10} {:>10} {:>12} {:>12} {:>12} {:>10} {:>10} {:>14}",
        "",
        "in",
        "round",
        "a batch",
        "a round",
        "retrievals",
        "a round",
        "and check",
        "watching",
        "in",
        "just started"
    );
    let rows: Vec<Row> = counts().into_iter().map(row).collect();
    if let [first, .., last] = rows.as_slice() {
        println!(
            "\nMemory grows by {:.0} bytes a batch, from {} to {}.",
            (last.memory - first.memory) * 1024.0 * 1024.0 / (last.count - first.count) as f64,
            first.count,
            last.count
        );
    }
    plot_rows(&rows);
    rounds_of_slow_pages();
}

/// How many batches are measured: those of `BATCHD_BENCH_BATCHES`, such as `1000000`, else three sizes.
fn counts() -> Vec<usize> {
    let given = std::env::var("BATCHD_BENCH_BATCHES").ok();
    let counts = given.map(|text| text.split(',').map(|count| count.trim().parse().unwrap()).collect());
    counts.unwrap_or_else(|| vec![1_000, 10_000, 100_000])
}

/// What was measured of one size.
struct Row {
    count: usize,
    /// MiB.
    memory: f64,
    just_started: f64,
    /// Microseconds of processor for one check of one batch.
    check: f64,
}

fn plot_rows(rows: &[Row]) {
    let line = |what: &str, of: &dyn Fn(&Row) -> f64| Line {
        what: what.to_owned(),
        points: rows.iter().map(|row| (row.count as f64, of(row))).collect(),
    };
    let memory = [line("watching", &|row| row.memory), line("just started", &|row| row.just_started)];
    plot::lines("memory", "Memory by number of batches, MiB", "batches", &memory, None);
    let processor = [line("a batch and check", &|row| row.check)];
    plot::lines("processor", "Processor of an unchanged check, µs", "batches", &processor, Some(3.0));
}

/// A long list whose every page takes 400 ms.
fn rounds_of_slow_pages() {
    const COUNT: usize = 10_000;
    let world = World::new();
    let (pager, address) = Pager::slow(COUNT, Duration::from_millis(400));
    configure(&world, address, "15s", "15s");
    let daemon = quiet_daemon(&world);
    track(&world, COUNT);
    let begun = Instant::now();
    while pager.asked().shown < 2 * COUNT as u64 && begun.elapsed() < 3 * FIRST_ROUND {
        std::thread::sleep(Duration::from_millis(200));
    }
    // From one pause to the next is one round.
    let pause = || {
        let mut before = pager.asked();
        loop {
            std::thread::sleep(Duration::from_millis(1500));
            let now = pager.asked();
            if now.requests() == before.requests() {
                return now;
            }
            before = now;
        }
    };
    let before = pause();
    while pager.asked().requests() == before.requests() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let begun = Instant::now();
    let mut last = (Instant::now(), pager.asked().requests());
    while last.0.elapsed() < Duration::from_millis(1500) {
        let requests = pager.asked().requests();
        if requests != last.1 {
            last = (Instant::now(), requests);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let (took, requests) = (last.0 - begun, pager.asked().since(before).requests());
    println!(
        "\n{COUNT} batches, pages of 100 at 400 ms each, every 15 s: a round takes {:.1} s and {requests} requests; marks: 8 s, \
         130",
        took.as_secs_f64()
    );
    daemon.terminate();
}

/// A daemon that has nothing to do.
fn idle() {
    let world = World::new();
    let daemon = quiet_daemon(&world);
    // Until what happens at the start is over.
    std::thread::sleep(Duration::from_secs(3));
    let before = processor_seconds(&daemon);
    std::thread::sleep(Duration::from_secs(8));
    let share = (processor_seconds(&daemon) - before) / 8.0 * 100.0;
    let (shared, own) = shares(&daemon);
    println!(
        "Nothing tracked: {:.1} MiB resident, {shared:.1} MiB with shares of what others map too, {own:.1} MiB its own; \
         {share:.3} % of one core.\n",
        resident(&daemon)
    );
    daemon.terminate();
}

/// Measures one size.
fn row(count: usize) -> Row {
    let world = World::new();
    let (pager, address) = Pager::start(count);
    configure(&world, address, "5s", "5s");
    let daemon = quiet_daemon(&world);
    let registered = track(&world, count);
    // What is new is news, and each of it a row of the log: that round is not like those that follow.
    let (begun, before) = (Instant::now(), processor_seconds(&daemon));
    while pager.asked().shown < count as u64 && begun.elapsed() < FIRST_ROUND {
        std::thread::sleep(Duration::from_millis(200));
    }
    let first_round = begun.elapsed();
    let first = (processor_seconds(&daemon) - before) / count as f64;
    // What has shown nothing new twice is not read the third time: it is that which lasts.
    while pager.asked().shown < 3 * count as u64 && begun.elapsed() < FIRST_ROUND {
        std::thread::sleep(Duration::from_millis(200));
    }
    let (asked, processor) = (pager.asked(), processor_seconds(&daemon));
    std::thread::sleep(WATCHED);
    let (asked, processor) = (pager.asked().since(asked), processor_seconds(&daemon) - processor);
    let rounds = asked.shown as f64 / count as f64;
    let memory = resident(&daemon);
    daemon.terminate();
    let (daemon, ready) = start(&world);
    let started = resident(&daemon);
    daemon.terminate();
    println!(
        "{count:>8} {:>8.2} s {:>7.1} s {:>7.0} µs {:>10.1} {:>12.1} {:>9.0} ms {:>9.0} µs {memory:>6.1} MiB {:>8.2} s {started:>10.1} MiB",
        registered.as_secs_f64(),
        first_round.as_secs_f64(),
        first * 1e6,
        asked.requests() as f64 / rounds,
        asked.retrieved as f64 / rounds,
        processor / rounds * 1e3,
        processor / asked.shown as f64 * 1e6,
        ready.as_secs_f64(),
    );
    Row { count, memory, just_started: started, check: processor / asked.shown as f64 * 1e6 }
}
