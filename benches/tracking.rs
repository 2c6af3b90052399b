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

use harness::{Pager, configure, is_asked_for, processor_seconds, quiet_daemon, resident, start, track};
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
    let memory: Vec<(usize, f64)> =
        [1_000, 10_000, 100_000].into_iter().map(|count| (count, row(count))).collect();
    let ((few, small), (many, large)) = (memory[0], memory[2]);
    println!(
        "\nMemory grows by {:.0} bytes a batch, from {few} to {many}.",
        (large - small) * 1024.0 * 1024.0 / (many - few) as f64
    );
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
    println!("Nothing tracked: {:.1} MiB, {share:.3} % of one core.\n", resident(&daemon));
    daemon.terminate();
}

/// Measures one size; gives the memory.
fn row(count: usize) -> f64 {
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
    memory
}
