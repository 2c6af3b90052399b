//! Several daemons on one PostgreSQL server, beside one with a file: `cargo bench --bench cluster`.
//!
//! Prints a line a figure. Everything is on loopback: the receivers and the provider run in this process, the daemons in
//! ones of their own, the server is a throw-away one.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::print_stdout, reason = "it prints what it measured")]
#![expect(clippy::cast_precision_loss, reason = "counts of batches and bytes")]

#[path = "../tests/it/support/cluster.rs"]
mod cluster;
#[expect(dead_code, reason = "other benches use more of it")]
mod harness;
#[path = "../tests/it/support/postgres.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
#[expect(clippy::print_stderr, reason = "it says where nothing can be measured")]
mod postgres;
#[path = "../tests/it/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

use batchd::clock::Clock;
use batchd::domain::ownership::Scope;
use batchd::domain::time::later;
use batchd::store::{Connector, Shared, Store};
use harness::{Pager, id, is_asked_for, number, processor_seconds, resident};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use postgres::{Postgres, query};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use world::{Daemon, World, until, until_within};

fn main() {
    if !is_asked_for() {
        return;
    }
    let Some(postgres) = Postgres::own(&["shared_buffers = 256MB", "max_wal_size = 4GB"]) else { return };
    println!("{:<76} {:>12}   mark", "what", "measured");
    let measured: [(&str, Measure); 8] = [
        ("registering", registering),
        ("burst", burst),
        ("steady", steady),
        ("quiet", quiet),
        ("touches", touches),
        ("large", large),
        ("accounts", accounts),
        ("import", import),
    ];
    let asked = std::env::var("BATCHD_BENCH_MARKS").unwrap_or_default();
    for (name, measure) in measured {
        if asked.is_empty() || asked.split(',').any(|asked| asked == name) {
            measure(&postgres);
        }
    }
}

/// One of the measurements.
type Measure = fn(&Postgres);

fn say(what: &str, measured: &str, mark: &str) {
    println!("{what:<76} {measured:>12}   {mark}");
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn seconds_of(processor: f64) -> String {
    format!("{processor:.2} s")
}

/// Processor time that a server's processes have used, those that have ended too.
fn processor_of_server(postgres: &Postgres) -> f64 {
    let mut ticks = 0.0;
    let mut family = vec![postgres.keeper()];
    let stat = |pid: u32| -> Option<Vec<u64>> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields = text.rsplit(')').next()?.split_whitespace().skip(1);
        Some(fields.map(|field| field.parse().unwrap_or_default()).collect())
    };
    let all: Vec<u32> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    while let Some(pid) = family.pop() {
        let Some(fields) = stat(pid) else { continue };
        // Its own time, and that of its children that have ended.
        ticks += fields[10..14].iter().sum::<u64>() as f64;
        family.extend(
            all.iter()
                .filter(|child| stat(**child).is_some_and(|fields| fields.first() == Some(&u64::from(pid)))),
        );
    }
    ticks / 100.0
}

fn share(taken: &[Duration], percent: usize) -> Duration {
    taken[(taken.len() - 1) * percent / 100]
}

/// What came: by path and batch, when first. It costs the machine as little as it can.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<BTreeMap<(String, String), Instant>>>);

impl Receiver {
    fn start() -> (Self, SocketAddr) {
        let receiver = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let receiver = serving.clone();
                std::thread::spawn(move || receiver.serve(&stream.unwrap()));
            }
        });
        (receiver, address)
    }

    fn serve(&self, stream: &TcpStream) -> Option<()> {
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream);
        loop {
            let (mut line, mut path, mut length) = (String::new(), String::new(), 0);
            loop {
                line.clear();
                reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
                let text = line.trim_end();
                if text.is_empty() {
                    break;
                }
                if let Some(rest) = text.strip_prefix("POST ") {
                    rest.split(' ').next()?.clone_into(&mut path);
                } else if let Some((name, value)) = text.split_once(':')
                    && name.eq_ignore_ascii_case("content-length")
                {
                    length = value.trim().parse().ok()?;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            let now = Instant::now();
            let body: Value = serde_json::from_slice(&body).ok()?;
            let batch = body["data"]["id"].as_str().unwrap_or_default().to_owned();
            self.0.lock().unwrap().entry((path, batch)).or_insert(now);
            (&mut &*stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
        }
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn at(&self, path: &str, batch: &str) -> Option<Instant> {
        self.0.lock().unwrap().get(&(path.to_owned(), batch.to_owned())).copied()
    }

    fn all(&self) -> BTreeMap<(String, String), Instant> {
        self.0.lock().unwrap().clone()
    }
}

/// Daemons with one state, by their names.
struct Daemons {
    world: World,
    /// `None`: the state is in a file, and there is one daemon.
    url: Option<String>,
    /// How many `begin` has started.
    running: BTreeMap<String, Daemon>,
    /// What stands in the configuration after `[state]` and `[api]`.
    configured: String,
}

impl Daemons {
    fn new(postgres: Option<&Postgres>, configured: String) -> Self {
        let url = postgres.map(Postgres::database);
        Self { world: World::new(), url, running: BTreeMap::new(), configured }
    }

    fn path(&self, name: &str, what: &str) -> PathBuf {
        self.world.directory.path().join(format!("{name}.{what}"))
    }

    fn command(&self, name: &str) -> Command {
        let shared = match &self.url {
            Some(_) => format!("url = {{ env = \"TEST_URL\" }}\nname = \"{name}\"\n"),
            None => String::new(),
        };
        let text = format!(
            "[state]\ndir = \"{}\"\n{shared}[api]\nsocket = \"{}\"\n{}",
            self.path(name, "state").display(),
            self.path(name, "sock").display(),
            self.configured
        );
        std::fs::write(self.path(name, "toml"), text).unwrap();
        let mut command = self.world.command();
        command.env("BATCHD_CONFIG", self.path(name, "toml"));
        if let Some(url) = &self.url {
            command.env("TEST_URL", url);
        }
        command
    }

    fn begin(&mut self, names: &[&str]) {
        for name in names {
            let daemon = Daemon::start(self.command(name).args(["-q", "run"]));
            self.running.insert((*name).to_owned(), daemon);
        }
        for name in names {
            until_within(Duration::from_mins(2), "the daemon is ready", || {
                let daemon = &self.running[*name];
                assert!(!daemon.is_over(), "the daemon ended: {}", daemon.log());
                self.is_ready(name).then_some(())
            });
        }
    }

    fn is_ready(&self, name: &str) -> bool {
        let Ok(mut stream) = std::os::unix::net::UnixStream::connect(self.path(name, "sock")) else {
            return false;
        };
        let mut answer = String::new();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: batchd\r\nconnection: close\r\n\r\n").is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }

    fn ok(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.command(name).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What each daemon does, as the first one tells.
    fn scopes(&self) -> BTreeMap<String, Vec<String>> {
        let Some(first) = self.running.keys().next() else { return BTreeMap::new() };
        let status: Value = serde_json::from_str(&self.ok(first, &["status", "--json"])).unwrap();
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let scopes = |member: &Value| {
            let scopes = member["scopes"].as_array().cloned().unwrap_or_default();
            scopes.iter().map(|scope| scope.as_str().unwrap().to_owned()).collect()
        };
        members.iter().map(|member| (member["name"].as_str().unwrap().to_owned(), scopes(member))).collect()
    }

    /// Who has this scope.
    fn owner(&self, scope: &str) -> Option<String> {
        let has = |(name, scopes): (String, Vec<String>)| scopes.iter().any(|of| of == scope).then_some(name);
        self.scopes().into_iter().find_map(has)
    }

    /// Waits until each daemon of several has its share.
    fn until_shared_out(&self, scopes: usize) {
        if self.url.is_none() {
            return;
        }
        let most = scopes.div_ceil(self.running.len());
        until_within(Duration::from_mins(4), "the work is shared out", || {
            let held: Vec<usize> = self.scopes().values().map(Vec::len).collect();
            (held.iter().sum::<usize>() == scopes && held.iter().all(|held| *held <= most)).then_some(())
        });
    }

    /// Registers batches 0 to `count` at a daemon; how long that took.
    fn track(&self, name: &str, count: usize) -> Duration {
        let begun = Instant::now();
        let mut command = self.command(name);
        command.args(["track", "-", "--no-check"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let ids: String = (0..count).map(|number| id(number) + "\n").collect();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(ids.as_bytes()).unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success());
        begun.elapsed()
    }

    /// Processor time that all of them have used, and the server if there is one: what the machine is busy with besides
    /// does not count.
    fn processor(&self, on: Option<&Postgres>) -> f64 {
        self.running.values().map(processor_seconds).sum::<f64>() + on.map_or(0.0, processor_of_server)
    }
}

/// One account whose batches are due so often, and two webhooks.
fn configuration(provider: SocketAddr, receiver: SocketAddr, interval: &str) -> String {
    let mut text = format!(
        "[polling]\nmin_interval = \"{interval}\"\nmax_interval = \"{interval}\"\n\
         [providers.openai]\napi_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"http://{provider}/v1\"\n"
    );
    for name in ["one", "two"] {
        let _ = write!(
            text,
            "[webhooks.{name}]\nurl = \"http://{receiver}/{name}\"\nsecret = {{ env = \"TEST_SIGNING\" }}\n"
        );
    }
    text
}

/// `keeper`, one account, two webhooks.
const SCOPES: usize = 4;

/// With a file, and with two daemons on the server: what is measured is called so.
fn both(postgres: &Postgres) -> [(&'static str, Option<&Postgres>, &'static [&'static str]); 2] {
    [("a file", None, &["a"]), ("a server, 2 daemons", Some(postgres), &["a", "b"])]
}

fn registering(postgres: &Postgres) {
    const COUNT: usize = 10_000;
    for (what, on, names) in both(postgres) {
        let (_pager, provider) = Pager::start(1);
        let (_receiver, receiver) = Receiver::start();
        let mut daemons = Daemons::new(on, configuration(provider, receiver, "1h"));
        daemons.begin(names);
        let before = daemons.processor(on);
        let took = daemons.track("a", COUNT);
        say(
            &format!("{COUNT} batches registered, {what}"),
            &format!("{:.0}/s", COUNT as f64 / took.as_secs_f64()),
            if on.is_some() { ">= 3000/s" } else { "" },
        );
        say("    processor of daemons and server", &seconds_of(daemons.processor(on) - before), "");
        let took = daemons.track("a", COUNT);
        say("    the same once more", &format!("{:.0}/s", COUNT as f64 / took.as_secs_f64()), "");
    }
}

/// Ten thousand batches that end at once, told to two webhooks.
fn burst(postgres: &Postgres) {
    const COUNT: usize = 10_000;
    for (what, on, names) in both(postgres) {
        let (pager, provider) = Pager::start(COUNT);
        let (received, address) = Receiver::start();
        let mut daemons = Daemons::new(on, configuration(provider, address, "5s"));
        daemons.begin(names);
        daemons.until_shared_out(SCOPES);
        daemons.track("a", COUNT);
        until_within(Duration::from_mins(2), "every batch has been checked", || {
            (pager.asked().shown >= 2 * COUNT as u64).then_some(())
        });
        let before = daemons.processor(on);
        pager.end_all();
        let first = until_within(Duration::from_mins(1), "an end is answered", || {
            pager.answered().into_iter().flatten().min()
        });
        let patience = Instant::now();
        while received.count() < 2 * COUNT && patience.elapsed() < Duration::from_mins(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let all = received.all();
        let last = all.values().max().copied().unwrap_or(first);
        say(
            &format!("{COUNT} ends at once, 2 webhooks, {what}: first answer to last arrival"),
            &seconds(last.saturating_duration_since(first)),
            if on.is_some() { "<= 20 s" } else { "" },
        );
        say("    arrived", &all.len().to_string(), "20000");
        say("    processor of daemons and server", &seconds_of(daemons.processor(on) - before), "");
    }
}

/// A thousand batches end each second for a minute.
fn steady(postgres: &Postgres) {
    const A_SECOND: usize = 1000;
    let minute: usize = std::env::var("BATCHD_BENCH_SECONDS").map_or(60, |text| text.parse().unwrap());
    for (what, on, names) in both(postgres) {
        let count = A_SECOND * minute;
        let (pager, provider) = Pager::start(count);
        let (received, address) = Receiver::start();
        let mut daemons = Daemons::new(on, configuration(provider, address, "5s"));
        daemons.begin(names);
        daemons.until_shared_out(SCOPES);
        daemons.track("a", count);
        until_within(Duration::from_mins(5), "every batch has been checked", || {
            (pager.asked().shown >= 2 * count as u64).then_some(())
        });
        let begun = Instant::now();
        for tenth in 1..=minute * 10 {
            pager.end_oldest(tenth * A_SECOND / 10);
            let next = begun + Duration::from_millis(100) * u32::try_from(tenth).unwrap();
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let patience = Instant::now();
        while received.count() < 2 * count && patience.elapsed() < Duration::from_mins(4) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let answered = pager.answered();
        let all = received.all();
        let mut taken: Vec<Duration> = all
            .iter()
            .filter_map(|((_, batch), at)| Some(at.saturating_duration_since(answered[number(batch)?]?)))
            .collect();
        taken.sort_unstable();
        say(
            &format!("{A_SECOND} endings/s for {minute} s, 2 webhooks, {what}: answer to arrival, p99"),
            &seconds(share(&taken, 99)),
            if on.is_some() { "<= 3 s" } else { "" },
        );
        say("    median", &seconds(share(&taken, 50)), "");
        say("    slowest", &seconds(share(&taken, 100)), "");
        say("    arrived", &format!("{}", all.len()), &format!("{}", 2 * count));
    }
}

/// One batch ends after the other while nothing else happens.
fn quiet(postgres: &Postgres) {
    const ROUNDS: usize = 21;
    for (what, on, names) in both(postgres) {
        let (received, address) = Receiver::start();
        let mut daemons = Daemons::new(on, String::new());
        daemons.configured = configuration(daemons.world.provider_address, address, "1s");
        daemons.begin(names);
        daemons.until_shared_out(SCOPES);
        let owner = daemons.owner("account:openai");
        let mut taken: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
        for round in 0..ROUNDS {
            let batch = format!("batch_{round}");
            daemons.world.provider.put(&batch, "in_progress", &json!({}));
            daemons.ok("a", &["track", &batch]);
            daemons.world.provider.complete(&batch);
            let answered = until("the end is answered", || daemons.world.provider.answered_end(&batch));
            for name in ["one", "two"] {
                let arrived = until("the webhook arrives", || received.at(&format!("/{name}"), &batch));
                let elsewhere = owner != daemons.owner(&format!("webhook:{name}"));
                taken
                    .entry(if elsewhere { "owned elsewhere" } else { "owned here" })
                    .or_default()
                    .push(arrived.saturating_duration_since(answered));
            }
        }
        for (whose, mut taken) in taken {
            taken.sort_unstable();
            say(
                &format!("a quiet ending, {what}: answer to a webhook {whose}, median"),
                &millis(share(&taken, 50)),
                if whose == "owned elsewhere" { "<= 20 ms" } else { "" },
            );
            say("    slowest", &millis(share(&taken, 100)), "");
        }
    }
}

/// Checks that showed nothing new, written down by a store in this process.
fn touches(postgres: &Postgres) {
    const COUNT: i64 = 100_000;
    let url = postgres.database();
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let open = |name: &str| {
        let connector = Connector::new(url.parse().unwrap(), None);
        let shared = Shared { connector, name: name.to_owned(), lease: Duration::from_secs(10) };
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        async move { Store::open_shared(&dir, shared, Clock::system()).await.unwrap() }
    };
    runtime.block_on(async {
        let store = open("first").await;
        store.declare(BTreeMap::from([(Scope::Keeper, 1)])).await.unwrap();
        store.close().await.unwrap();
    });
    fill(&url, COUNT);
    let wal = || -> f64 {
        query(&url, "SELECT pg_current_wal_lsn() - '0/0'").unwrap()[0][0].as_ref().unwrap().parse().unwrap()
    };
    let (took, written) = runtime.block_on(async {
        let store = open("second").await;
        let now = Timestamp::now();
        let next = |pk: i64| later(now, Duration::from_millis((pk * 37 % 60_000).unsigned_abs()));
        store.touch_times(now, (1..=COUNT).map(|pk| (pk, next(pk))));
        let (before, begun) = (wal(), Instant::now());
        store.close().await.unwrap();
        (begun.elapsed(), wal() - before)
    });
    say(
        &format!("{COUNT} checks without news written down, a server"),
        &format!("{:.0}/s", COUNT as f64 / took.as_secs_f64()),
        ">= 20000/s",
    );
    say("    log of the server, a check", &format!("{:.0} bytes", written / COUNT as f64), "<= 400");
}

/// So many watched batches of `openai`, numbered from 1.
fn fill(url: &str, count: i64) {
    let batch = r#"{"id":"x","endpoint":"/v1/responses","status":"in_progress","created_at":1795000000}"#;
    query(
        url,
        &format!(
            "INSERT INTO batches (provider, id, kind, status, batch, labels, notify, origin, tracked_at, status_since,
               failures, missing_count, settled, warned)
             SELECT 'openai', 'batch_' || n, 'openai', 'in_progress', '{batch}', '{{}}', '{{}}', 'hand', 1795000000000,
               1795000000000, 0, 0, 0, '[]' FROM generate_series(1, {count}) AS n;
             INSERT INTO checks (batch, provider, next_poll_at) SELECT pk, 'openai', 1795000000000 FROM batches;
             ANALYZE"
        ),
    )
    .unwrap();
}

/// Many batches in one account of three daemons, and the death of the one that polls them.
fn large(postgres: &Postgres) {
    let count: usize = std::env::var("BATCHD_BENCH_BATCHES").map_or(100_000, |text| text.parse().unwrap());
    let (pager, provider) = Pager::start(count);
    let (_received, receiver) = Receiver::start();
    let mut daemons = Daemons::new(Some(postgres), configuration(provider, receiver, "10s"));
    daemons.begin(&["a", "b", "c"]);
    daemons.until_shared_out(SCOPES);
    let took = daemons.track("a", count);
    say(
        &format!("{count} batches in one account, 3 daemons: registered"),
        &format!("{:.0}/s", count as f64 / took.as_secs_f64()),
        ">= 3000/s",
    );
    until_within(Duration::from_mins(10), "every batch has been checked twice", || {
        (pager.asked().shown >= 2 * count as u64).then_some(())
    });
    let owner = daemons.owner("account:openai").unwrap();
    let (own, others): (Vec<_>, Vec<_>) = daemons.running.iter().partition(|(name, _)| **name == owner);
    let most = |of: &[(&String, &Daemon)]| of.iter().map(|(_, daemon)| resident(daemon)).fold(0.0, f64::max);
    let mark = if count >= 1_000_000 { ("<= 400 MiB", "<= 60 MiB") } else { ("", "<= 60 MiB") };
    say("    memory of the daemon that polls them", &format!("{:.0} MiB", most(&own)), mark.0);
    say("    memory of the others, at most", &format!("{:.0} MiB", most(&others)), mark.1);
    daemons.running.remove(&owner).unwrap().kill();
    let killed = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    let before = pager.asked().requests();
    until_within(Duration::from_mins(2), "another daemon asks", || {
        (pager.asked().requests() > before).then_some(())
    });
    say(
        "    killed: from then to the first check by another (a lease is 10 s)",
        &seconds(killed.elapsed()),
        "<= 18 s",
    );
}

/// A hundred accounts among three daemons.
fn accounts(postgres: &Postgres) {
    const ACCOUNTS: usize = 100;
    let all: usize = std::env::var("BATCHD_BENCH_BATCHES").map_or(100_000, |text| text.parse().unwrap());
    let (_pager, provider) = Pager::start(all / ACCOUNTS);
    let (_received, receiver) = Receiver::start();
    let mut configured = configuration(provider, receiver, "10s");
    let one = format!("api_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"http://{provider}/v1\"\n");
    for number in 0..ACCOUNTS {
        let _ = write!(configured, "[providers.account-{number}]\nkind = \"openai\"\n{one}");
    }
    let mut daemons = Daemons::new(Some(postgres), configured);
    let begun = Instant::now();
    daemons.begin(&["a", "b", "c"]);
    say(&format!("{ACCOUNTS} accounts, 3 daemons: all ready"), &seconds(begun.elapsed()), "<= 30 s");
    daemons.until_shared_out(SCOPES + ACCOUNTS);
    say("    the work is shared out", &seconds(begun.elapsed()), "");
    let held: Vec<usize> = daemons.scopes().values().map(Vec::len).collect();
    let differ = held.iter().max().unwrap() - held.iter().min().unwrap();
    say("    parts of it that one daemon has more than another", &differ.to_string(), "<= 1");
    for number in 0..ACCOUNTS {
        let mut child = daemons
            .command("a")
            .args(["track", "-", "--no-check", "--provider", &format!("account-{number}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ids: String = (0..all / ACCOUNTS).map(|number| id(number) + "\n").collect();
        child.stdin.take().unwrap().write_all(ids.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
    std::thread::sleep(Duration::from_secs(30));
    let most = daemons.running.values().map(resident).fold(0.0, f64::max);
    let mark = if all >= 1_000_000 { "<= 450 MiB" } else { "" };
    say(&format!("    {all} batches: memory of a daemon, at most"), &format!("{most:.0} MiB"), mark);
    for daemon in daemons.running.values() {
        daemon.signal(Signal::SIGTERM);
    }
}

/// A state in a file that becomes one on the server.
fn import(postgres: &Postgres) {
    const BATCHES: usize = 100_000;
    const EVENTS: usize = 1_000_000;
    let (_received, receiver) = Receiver::start();
    let mut daemons = Daemons::new(None, configuration(receiver, receiver, "1h"));
    daemons.begin(&["a"]);
    daemons.track("a", 1);
    daemons.running.remove("a").unwrap().terminate();
    let state = daemons.path("a", "state");
    fill_file(&state, BATCHES, EVENTS);
    daemons.url = Some(postgres.database());
    let begun = Instant::now();
    daemons.ok("b", &["state", "import", state.to_str().unwrap()]);
    say(
        &format!("{BATCHES} batches and {EVENTS} events imported from a file"),
        &seconds(begun.elapsed()),
        "<= 60 s",
    );
}

/// Copies of the batch that is there, and events about them.
fn fill_file(state: &Path, batches: usize, events: usize) {
    let filler = rusqlite::Connection::open(state.join("batchd.db")).unwrap();
    let columns: Vec<String> = {
        let mut query = filler
            .prepare("SELECT name FROM pragma_table_info('batches') WHERE name NOT IN ('pk', 'id')")
            .unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let columns = columns.join(", ");
    filler
        .execute_batch(&format!(
            "PRAGMA synchronous = OFF;
             BEGIN;
             WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {batches})
             INSERT INTO batches (id, {columns})
               SELECT printf('batch_x%031x', n), {columns} FROM number, batches WHERE batches.pk = 1;
             WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {events})
             INSERT INTO events (sequence, id, type, batch, provider, batch_id, recorded_at, body)
               SELECT n, 'evt_' || n, 'batch.completed', 1 + n % {batches}, 'openai', 'batch_x', 1795000000000 + n,
                 '{{\"id\":\"evt_' || n || '\",\"sequence\":' || n || ',\"padding\":\"' || hex(zeroblob(300)) || '\"}}'
               FROM number;
             COMMIT;
             PRAGMA wal_checkpoint(TRUNCATE);"
        ))
        .unwrap();
}
