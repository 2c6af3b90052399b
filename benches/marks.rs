//! The marks that the README quotes, measured on the release binary: `cargo bench --bench marks`.
//!
//! Prints a line a mark. The figures depend on the machine: compare those of one run with each other.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

#[path = "../tests/it/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

use serde_json::json;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};
use world::{Daemon, World, until};

fn main() {
    // `cargo test --benches` runs this too, and wants nothing of it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("{:<58} {:>12}   mark", "what", "measured");
    idle();
    registration_and_start(10_000);
    registration_and_start(100_000);
    latency();
    submission();
}

fn say(what: &str, measured: &str, mark: &str) {
    println!("{what:<58} {measured:>12}   {mark}");
}

/// Memory and processor time of a daemon that has nothing to do.
fn idle() {
    const WATCHED: Duration = Duration::from_secs(30);
    let world = World::new();
    let daemon = quiet_daemon(&world);
    // Until what happens at the start is over.
    std::thread::sleep(Duration::from_secs(5));
    let before = processor_seconds(&daemon);
    std::thread::sleep(WATCHED);
    let share = (processor_seconds(&daemon) - before) / WATCHED.as_secs_f64() * 100.0;
    say("idle daemon: resident memory", &format!("{:.1} MiB", resident(&daemon)), "< 20 MiB");
    say("idle daemon: of one core", &format!("{share:.3} %"), "< 0.1 %");
    daemon.terminate();
}

/// Registration of many ids from stdin, and the start with them.
fn registration_and_start(count: usize) {
    let world = World::new();
    // Polls of so many would be measured too: they come once in a while.
    world.configure("");
    let text = std::fs::read_to_string(world.config()).unwrap();
    let rare = text.replace(
        "min_interval = \"1s\"\nmax_interval = \"1s\"",
        "min_interval = \"1h\"\nmax_interval = \"2h\"",
    );
    std::fs::write(world.config(), rare).unwrap();
    let daemon = quiet_daemon(&world);
    let begun = Instant::now();
    let mut child = world
        .command()
        .args(["track", "-", "--no-check"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut ids = String::new();
    for number in 0..count {
        let _ = writeln!(ids, "batch_{number:032x}");
    }
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(ids.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    let mark = if count == 100_000 { "< 10 s" } else { "" };
    say(
        &format!("track {count} ids from stdin, --no-check"),
        &format!("{:.2} s", begun.elapsed().as_secs_f64()),
        mark,
    );
    daemon.terminate();

    let begun = Instant::now();
    let daemon = quiet_daemon(&world);
    until("it is ready", || is_ready(&world).then_some(()));
    say(
        &format!("start with {count} tracked batches, to READY"),
        &format!("{:.2} s", begun.elapsed().as_secs_f64()),
        "< 1 s",
    );
    say(
        &format!("memory with {count} tracked batches, just started"),
        &format!("{:.1} MiB", resident(&daemon)),
        "",
    );
    daemon.terminate();
}

/// From the provider's answer that shows the end to the webhook's arrival.
fn latency() {
    const ROUNDS: usize = 41;
    let world = World::new();
    let daemon = quiet_daemon(&world);
    let mut taken = Vec::new();
    for round in 0..ROUNDS {
        let id = format!("batch_{round}");
        world.provider.put(&id, "in_progress", &json!({}));
        world.ok(&["track", &id]);
        world.provider.complete(&id);
        let answered = until("the end is answered", || world.provider.answered_end(&id));
        let arrived = until("the webhook arrives", || world.receiver.arrived("/hooks", round));
        taken.push(arrived.saturating_duration_since(answered));
    }
    taken.sort();
    let millis = |duration: Duration| format!("{:.1} ms", duration.as_secs_f64() * 1000.0);
    say("answer that shows the end to webhook's arrival, median", &millis(taken[ROUNDS / 2]), "< 50 ms");
    say("the same, slowest of 41", &millis(taken[ROUNDS - 1]), "");
    daemon.terminate();
}

/// A file of 199 MB on its way to a simulated provider, beside `curl` that uploads the same bytes to it.
fn submission() {
    use batchd::sandbox::{Sandbox, SandboxOptions};
    const BYTES: usize = 199_000_000;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let stopping = tokio_util::sync::CancellationToken::new();
    let options = SandboxOptions { memory: 2 << 30, ..SandboxOptions::default() };
    let served = runtime.spawn({
        let stopping = stopping.clone();
        async move { Sandbox::new(&options).serve(listener, stopping).await }
    });
    let world = World::new();
    world.configure(&format!(
        "[providers.sandbox]\nkind = \"openai\"\napi_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"{address}/v1\"\n"
    ));
    let file = world.directory.path().join("requests.jsonl");
    let words = "lorem ipsum dolor sit amet consectetur ".repeat(120);
    let mut text = String::new();
    for number in 0.. {
        if text.len() >= BYTES {
            break;
        }
        let body = json!({"model": "m", "messages": [{"role": "user", "content": words}]});
        let line = json!({"custom_id": format!("r{number}"), "method": "POST", "url": "/v1/chat/completions", "body": body});
        let _ = writeln!(text, "{line}");
    }
    std::fs::write(&file, &text).unwrap();
    drop(text);
    let daemon = quiet_daemon(&world);
    let mut taken = [Duration::MAX; 2];
    for _ in 0..3 {
        let begun = Instant::now();
        let form = format!("file=@{}", file.display());
        let curl = std::process::Command::new("curl")
            .args(["-s", "-f", "-H", "authorization: Bearer k", "-F", "purpose=batch", "-F", &form])
            .arg(format!("{address}/v1/files"))
            .stdout(Stdio::null())
            .status();
        assert!(curl.unwrap().success());
        taken[0] = taken[0].min(begun.elapsed());
        let begun = Instant::now();
        world.ok(&["submit", file.to_str().unwrap(), "--provider", "sandbox"]);
        taken[1] = taken[1].min(begun.elapsed());
    }
    say("upload of 199 MB by curl, best of 3", &format!("{:.2} s", taken[0].as_secs_f64()), "");
    say("submit of the same file, batch created, best of 3", &format!("{:.2} s", taken[1].as_secs_f64()), "");
    say("the daemon's most memory while submitting", &format!("{:.1} MiB", peak(&daemon)), "< 60 MiB");
    daemon.terminate();
    stopping.cancel();
    runtime.block_on(served).unwrap().unwrap();
}

/// A daemon that logs as little as a service would.
fn quiet_daemon(world: &World) -> Daemon {
    world.daemon_as(&["-q", "run"])
}

/// Whether `/readyz` says so; waits for the answer.
fn is_ready(world: &World) -> bool {
    let mut stream = std::os::unix::net::UnixStream::connect(world.socket()).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: batchd\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}

fn processor_seconds(daemon: &Daemon) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u32 = fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap();
    // Linux counts processor time for /proc in hundredths of a second.
    f64::from(ticks) / 100.0
}

fn resident(daemon: &Daemon) -> f64 {
    memory(daemon, "VmRSS:")
}

/// The most that was ever resident.
fn peak(daemon: &Daemon) -> f64 {
    memory(daemon, "VmHWM:")
}

/// A line of `/proc/PID/status`, in MiB.
fn memory(daemon: &Daemon, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
