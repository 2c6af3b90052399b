//! What delivery must hold under load, measured on the release binary: `cargo bench --bench delivery`.
//!
//! Prints a line a figure. Everything is on loopback: the receivers and the provider run in this process, the daemon in
//! one of its own.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::print_stdout, reason = "it prints what it measured")]
#![expect(clippy::cast_precision_loss, reason = "counts of deliveries")]

#[path = "../tests/it/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::routing::post;
use batchd::clock::Clock;
use batchd::store::Store;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use world::{Daemon, World, until};

fn main() {
    // `cargo test --benches` runs this too, and wants nothing of it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("{:<74} {:>12}   mark", "what", "measured");
    let parts: [(&str, fn()); 4] = [
        ("isolation", isolation),
        ("endings", endings_at_once),
        ("webhooks", many_webhooks),
        ("due", due_query),
    ];
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, part) in parts {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            part();
        }
    }
}

fn say(what: &str, measured: &str, mark: &str) {
    println!("{what:<74} {measured:>12}   {mark}");
}

/// What came to the receivers: by path and event, how long after it was observed it first came.
#[derive(Clone, Default)]
struct Receivers(Arc<Mutex<BTreeMap<(String, String), Duration>>>);

impl Receivers {
    /// Serves `/hang` (never answers), `/slow` (after two seconds) and everything else (at once).
    fn serve(&self, runtime: &tokio::runtime::Runtime) -> SocketAddr {
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(post(receive)).with_state(self.clone());
        runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        address
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

async fn receive(State(receivers): State<Receivers>, uri: Uri, body: Bytes) -> &'static str {
    let now = Timestamp::now();
    let event: Value = serde_json::from_slice(&body).unwrap();
    let observed: Timestamp = event["timestamp"].as_str().unwrap().parse().unwrap();
    let took = Duration::try_from(now.duration_since(observed)).unwrap_or_default();
    let key = (uri.path().to_owned(), event["id"].as_str().unwrap().to_owned());
    receivers.0.lock().unwrap().entry(key).or_insert(took);
    match uri.path() {
        "/hang" => std::future::pending().await,
        "/slow" => tokio::time::sleep(Duration::from_secs(2)).await,
        _ => {}
    }
    "ok"
}

/// A world whose batches are looked at only when somebody asks, with these webhooks.
fn world(webhooks: &str) -> World {
    let world = World::new();
    world.configure("");
    let text = std::fs::read_to_string(world.config()).unwrap();
    let (before, _) = text.split_once("[webhooks.pipeline]").unwrap();
    let before = before.replace(
        "min_interval = \"1s\"\nmax_interval = \"1s\"",
        "min_interval = \"1h\"\nmax_interval = \"2h\"",
    );
    std::fs::write(world.config(), format!("{before}\n{webhooks}")).unwrap();
    world
}

fn webhook(name: &str, address: &str, path: &str) -> String {
    format!("[webhooks.{name}]\nurl = \"http://{address}{path}\"\nsecret = {{ env = \"TEST_SIGNING\" }}\n\n")
}

fn track(world: &World, ids: &[String]) {
    let mut child = world
        .command()
        .args(["track", "-", "--no-check"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(ids.join("\n").as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

/// One webhook that hangs, one that is slow, one that refuses, and 97 that are well, at ten events a second.
fn isolation() {
    const WELL: usize = 97;
    const SECONDS: usize = 100;
    const A_SECOND: usize = 10;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let receivers = Receivers::default();
    let address = receivers.serve(&runtime).to_string();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut webhooks = webhook("hang", &address, "/hang");
    webhooks += &webhook("slow", &address, "/slow");
    webhooks += &webhook("refusing", &nobody, "/");
    for number in 0..WELL {
        webhooks += &webhook(&format!("well-{number}"), &address, &format!("/well/{number}"));
    }
    let world = world(&webhooks);
    let daemon = world.daemon_as(&["-q", "run"]);
    let ids: Vec<String> = (0..SECONDS * A_SECOND).map(|number| format!("batch_{number:032x}")).collect();
    track(&world, &ids);
    let begun = Instant::now();
    for (second, ids) in ids.chunks(A_SECOND).enumerate() {
        for id in ids {
            world.provider.complete(id);
        }
        let mut arguments = vec!["poll"];
        arguments.extend(ids.iter().map(String::as_str));
        world.ok(&arguments);
        let next = begun + Duration::from_secs(second as u64 + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let expected = WELL * SECONDS * A_SECOND;
    let well = || {
        let all = receivers.0.lock().unwrap();
        all.iter()
            .filter(|((path, _), _)| path.starts_with("/well"))
            .map(|(_, took)| *took)
            .collect::<Vec<_>>()
    };
    until("every event has come to every healthy webhook", || (well().len() == expected).then_some(()));
    let mut took = well();
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    say(
        "97 healthy of 100 webhooks, 10 events/s for 100 s: first attempts",
        &took.len().to_string(),
        "97000",
    );
    say("    from observed to arrived, median", &millis(at(50)), "");
    say("    p99", &millis(at(99)), "< 1000 ms");
    say("    slowest", &millis(at(100)), "");
    say("    memory of the daemon, at most", &format!("{:.1} MiB", peak(&daemon)), "");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.end();
}

/// Ten thousand batches that end at once, told to one healthy webhook.
fn endings_at_once() {
    const COUNT: usize = 10_000;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let receivers = Receivers::default();
    let address = receivers.serve(&runtime).to_string();
    let world = world(&webhook("well", &address, "/well"));
    let daemon = world.daemon_as(&["-q", "run"]);
    let ids: Vec<String> = (0..COUNT).map(|number| format!("batch_{number:032x}")).collect();
    track(&world, &ids);
    for id in &ids {
        world.provider.complete(id);
    }
    let begun = Instant::now();
    world.ok(&["poll", "--all"]);
    let patience = Duration::from_mins(5);
    while receivers.count() < COUNT && begun.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(receivers.count(), COUNT, "of {COUNT} that were to come");
    let mut name = String::new();
    let _ = write!(name, "{COUNT} endings at once to one webhook: from the poll to the last arrival");
    say(&name, &format!("{:.1} s", begun.elapsed().as_secs_f64()), "< 30 s");
    say("    memory of the daemon, at most", &format!("{:.1} MiB", peak(&daemon)), "< 80 MiB");
    let ids: BTreeSet<String> = receivers.0.lock().unwrap().keys().map(|(_, id)| id.clone()).collect();
    assert_eq!(ids.len(), COUNT);
    daemon.terminate();
}

/// A thousand webhooks, all of them well, each told of a thousand batches that end at once.
fn many_webhooks() {
    const BATCHES: usize = 1000;
    let count = std::env::var("BATCHD_BENCH_WEBHOOKS").map_or(1000, |count| count.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let arrived = Arrived(Arc::new((0..count).map(|_| Mutex::default()).collect()));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let app = Router::new().route("/well/{number}", post(arrive)).with_state(arrived.clone());
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let names = 0..count;
    let webhooks: String = names
        .map(|number| webhook(&format!("well-{number}"), &address, &format!("/well/{number}")))
        .collect();
    let world = world(&webhooks);
    let daemon = world.daemon_as(&["-q", "run"]);
    let idle = resident(&daemon);
    let ids: Vec<String> = (0..BATCHES).map(|number| format!("batch_{number:032x}")).collect();
    track(&world, &ids);
    for id in &ids {
        world.provider.complete(id);
    }
    let begun = Instant::now();
    world.ok(&["poll", "--all"]);
    let expected = count * BATCHES;
    let patience = Duration::from_mins(30);
    while arrived.count() < expected && begun.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(arrived.count(), expected, "of those that were to come");
    let took = begun.elapsed().as_secs_f64();
    let each = expected as f64 / took;
    say(
        &format!("{count} healthy webhooks x {BATCHES} events: deliveries a second"),
        &format!("{each:.0}"),
        ">= 2000",
    );
    say("    memory of the daemon, before", &format!("{idle:.1} MiB"), "");
    say("    memory of the daemon, at most", &format!("{:.1} MiB", peak(&daemon)), "< 128 MiB");
    daemon.terminate();
}

/// Which events have come to which webhook.
#[derive(Clone)]
struct Arrived(Arc<Vec<Mutex<BTreeSet<u64>>>>);

impl Arrived {
    fn count(&self) -> usize {
        self.0.iter().map(|events| events.lock().unwrap().len()).sum()
    }
}

async fn arrive(
    State(arrived): State<Arrived>,
    Path(number): Path<usize>,
    headers: HeaderMap,
    _body: Bytes,
) -> &'static str {
    let mut id = DefaultHasher::new();
    headers["webhook-id"].hash(&mut id);
    arrived.0[number].lock().unwrap().insert(id.finish());
    "ok"
}

/// What is due, asked of a state with a million deliveries that are done and a few that are not.
fn due_query() {
    const DELIVERED: usize = 1_000_000;
    const ASKED: usize = 2000;
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    drop(runtime.block_on(async { Store::open(dir.path(), Clock::system()).unwrap() }));
    // Let go of the state before it is written by hand.
    let filler = rusqlite::Connection::open(dir.path().join("batchd.db")).unwrap();
    filler
        .execute_batch(&format!(
            "PRAGMA synchronous = OFF;
             BEGIN;
             INSERT INTO events (sequence, id, type, recorded_at, body)
               WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {DELIVERED} + 20)
               SELECT n, 'evt_' || n, 'batch.completed', n, '{{\"id\":\"evt_' || n || '\"}}' FROM number;
             INSERT INTO deliveries (sequence, webhook, state, attempts, due_at, recorded_at)
               SELECT sequence, 'pipeline', iif(sequence <= {DELIVERED}, 'delivered', 'pending'), 1, sequence, sequence
               FROM events;
             COMMIT;"
        ))
        .unwrap();
    drop(filler);
    let (due, next) = runtime.block_on(async {
        let store = Store::open(dir.path(), Clock::system()).unwrap();
        let now = Timestamp::now();
        let (mut due, mut next) = (Vec::new(), Vec::new());
        for _ in 0..ASKED {
            let begun = Instant::now();
            assert_eq!(store.due("pipeline".to_owned(), now, 4).await.unwrap().len(), 4);
            due.push(begun.elapsed());
            let begun = Instant::now();
            assert!(store.next_due("pipeline".to_owned(), now).await.unwrap().is_some());
            next.push(begun.elapsed());
        }
        (due, next)
    });
    for (what, mut took) in [("what is due", due), ("when something is due next", next)] {
        took.sort();
        let millis =
            |share: usize| format!("{:.3} ms", took[(ASKED - 1) * share / 100].as_secs_f64() * 1000.0);
        say(&format!("{what}, beside 1,000,000 delivered: median"), &millis(50), "< 1 ms");
        say("    p99", &millis(99), "");
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1000.0)
}

/// The most memory that the process has had resident, in MiB.
fn peak(daemon: &Daemon) -> f64 {
    memory(daemon, "VmHWM:")
}

/// What it has resident, in MiB.
fn resident(daemon: &Daemon) -> f64 {
    memory(daemon, "VmRSS:")
}

fn memory(daemon: &Daemon, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
