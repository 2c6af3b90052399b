//! From the provider's answer that shows an end to the webhook's arrival: `cargo bench --bench latency`.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

#[expect(dead_code, reason = "other benches use more of it")]
mod harness;
#[path = "../tests/it/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

use harness::{Pager, configure, is_asked_for, number, quiet_daemon, resident, track};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use world::{World, until};

const ROUNDS: usize = 41;
const BURST: usize = 10_000;

fn main() {
    if !is_asked_for() {
        return;
    }
    println!(
        "Everything on loopback. The floor is what no daemon that loses nothing can do without: one commit that is \
         synced,\nand one POST of the same length by a bare client, measured in this run. Marks: idle at most three \
         times the floor at\nthe median; {BURST} ends told within 30 s.\n"
    );
    println!("{:<58} {:>10} {:>10} {:>10}", "", "median", "p90", "slowest");
    let floor = floor();
    let idle = idle();
    println!("idle, in floors: {:.1}", idle.as_secs_f64() / floor.as_secs_f64());
    burst();
}

/// Prints a line and gives the median.
fn say(what: &str, mut taken: Vec<Duration>) -> Duration {
    taken.sort_unstable();
    let at = |share: usize| taken[(taken.len() - 1) * share / 100];
    let millis = |duration: Duration| format!("{:.1} ms", duration.as_secs_f64() * 1e3);
    println!("{what:<58} {:>10} {:>10} {:>10}", millis(at(50)), millis(at(90)), millis(at(100)));
    at(50)
}

/// A commit of a row with a body, and a POST of it on a new connection, until it has arrived.
fn floor() -> Duration {
    let world = World::new();
    let database = rusqlite::Connection::open(world.directory.path().join("floor.db")).unwrap();
    database
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE events (body TEXT)",
        )
        .unwrap();
    let body = "x".repeat(2048);
    let taken = (0..ROUNDS)
        .map(|round| {
            let begun = Instant::now();
            database.execute("INSERT INTO events VALUES (?1)", [&body]).unwrap();
            post(world.receiver_address, "/floor", &body);
            world.receiver.arrived("/floor", round).unwrap().saturating_duration_since(begun)
        })
        .collect();
    say("the floor: a synced commit and a bare POST", taken)
}

fn post(address: SocketAddr, path: &str, body: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
}

/// One batch after the other ends while nothing else happens.
fn idle() -> Duration {
    let world = World::new();
    let daemon = quiet_daemon(&world);
    let taken = (0..ROUNDS)
        .map(|round| {
            let id = format!("batch_{round}");
            world.provider.put(&id, "in_progress", &json!({}));
            world.ok(&["track", &id]);
            world.provider.complete(&id);
            let answered = until("the end is answered", || world.provider.answered_end(&id));
            let arrived = until("the webhook arrives", || world.receiver.arrived("/hooks", round));
            arrived.saturating_duration_since(answered)
        })
        .collect();
    daemon.terminate();
    say("answer to arrival, idle", taken)
}

/// Everything ends at once.
fn burst() {
    let world = World::new();
    let (pager, address) = Pager::start(BURST);
    configure(&world, address, "5s", "5s");
    let daemon = quiet_daemon(&world);
    track(&world, BURST);
    until("every batch has been looked at", || (pager.asked().shown >= 2 * BURST as u64).then_some(()));
    let ended = Instant::now();
    pager.end_all();
    let mut most = 0_f64;
    let received = loop {
        std::thread::sleep(Duration::from_millis(500));
        most = most.max(resident(&daemon));
        let received = world.receiver.received("/hooks");
        if received.len() >= BURST || ended.elapsed() > Duration::from_secs(90) {
            break received;
        }
    };
    let answered = pager.answered();
    let taken: Vec<Duration> = received
        .iter()
        .filter_map(|received| {
            let body: Value = received.json();
            let answered = answered[number(body["data"]["id"].as_str()?)?]?;
            Some(received.at.saturating_duration_since(answered))
        })
        .collect();
    let last = received.iter().map(|received| received.at).max().unwrap();
    say(&format!("answer to arrival, {BURST} at once"), taken);
    println!(
        "{} of {BURST} ends told within {:.1} s of the end (polled every 5 s), with at most {most:.1} MiB",
        received.len(),
        last.saturating_duration_since(ended).as_secs_f64()
    );
    daemon.terminate();
}
