//! The same work by a plain asyncio loop over the official SDK: `cargo bench --bench loop`.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::print_stdout, reason = "it prints what it measured")]
#![expect(clippy::cast_precision_loss, reason = "counts of requests")]

#[expect(dead_code, reason = "other benches use more of it")]
mod harness;
#[path = "../tests/it/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

use harness::{Pager, configure, is_asked_for, processor_seconds, quiet_daemon, resident, track};
use std::process::Command;
use std::time::Duration;
use world::{KEY, World, until};

const BATCHES: usize = 10_000;
/// The loop's round takes long; a part of it tells the whole, as every look costs the same.
const SAMPLE: usize = 2_000;

fn main() {
    if !is_asked_for() {
        return;
    }
    println!(
        "{BATCHES} batches at one provider on loopback, each looked at every 5 s: processor time that one round costs.\n\
         The loop is what one writes by hand: asyncio, the official openai SDK, 16 retrievals at a time.\n\
         Mark: batchd at most a twentieth of the loop.\n"
    );
    let (pager, address) = Pager::start(BATCHES);
    let world = World::new();
    configure(&world, address, "5s", "5s");
    let daemon = quiet_daemon(&world);
    track(&world, BATCHES);
    until("every batch has been looked at", || (pager.asked().shown >= BATCHES as u64).then_some(()));
    let (asked, processor) = (pager.asked(), processor_seconds(&daemon));
    std::thread::sleep(Duration::from_secs(30));
    let (asked, processor) = (pager.asked().since(asked), processor_seconds(&daemon) - processor);
    let ours = processor / (asked.shown as f64 / BATCHES as f64);
    let memory = resident(&daemon);
    daemon.terminate();
    println!("{:<10} {:>10.2} s a round {:>8.1} MiB", "batchd", ours, memory);

    let Ok(python) = std::env::var("BATCHD_SDK_PYTHON") else {
        println!(
            "the loop: skipped; set BATCHD_SDK_PYTHON to a Python with the package openai (tests/sdk/requirements.txt)"
        );
        return;
    };
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/loop.py"))
        .args([format!("http://{address}/v1"), KEY.to_owned(), SAMPLE.to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    let mut words = told.split_whitespace();
    let mut next = || words.next().unwrap().parse::<f64>().unwrap();
    let (seconds, elapsed, memory) = (next(), next(), next());
    let whole = BATCHES as f64 / SAMPLE as f64;
    println!(
        "{:<10} {:>10.2} s a round {memory:>8.1} MiB   (measured on {SAMPLE} batches; a round of all takes {:.0} s)",
        "the loop",
        seconds * whole,
        elapsed * whole
    );
    println!("\nThe loop costs {:.0} times as much.", seconds * whole / ours);
}
