//! What the benches share: a provider that pages quickly, and what a process has used.

pub mod plot;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::world::{Daemon, World, until};

/// An OpenAI-shaped service with many batches, whose answers cost it next to nothing: they are formed beforehand.
#[derive(Clone)]
pub struct Pager(Arc<Shared>);

struct Shared {
    live: Vec<String>,
    done: Vec<String>,
    /// So many of the oldest have ended.
    ended: AtomicUsize,
    pages: AtomicU64,
    shown: AtomicU64,
    retrieved: AtomicU64,
    /// How long an answer takes.
    takes: Duration,
    /// When each batch's end was first answered.
    answered: Mutex<Vec<Option<Instant>>>,
}

/// What a provider has been asked so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    pub pages: u64,
    pub retrieved: u64,
    /// Batches that were in the answers to both.
    pub shown: u64,
}

impl Asked {
    pub fn since(self, before: Self) -> Self {
        Self {
            pages: self.pages - before.pages,
            retrieved: self.retrieved - before.retrieved,
            shown: self.shown - before.shown,
        }
    }

    pub fn requests(self) -> u64 {
        self.pages + self.retrieved
    }
}

pub fn id(number: usize) -> String {
    format!("batch_{number:032x}")
}

pub fn number(id: &str) -> Option<usize> {
    usize::from_str_radix(id.strip_prefix("batch_")?, 16).ok()
}

impl Pager {
    /// Serves `count` batches, the newest first in its list, on a thread of its own.
    pub fn start(count: usize) -> (Self, SocketAddr) {
        Self::slow(count, Duration::ZERO)
    }

    /// The same; each answer takes so long.
    pub fn slow(count: usize, takes: Duration) -> (Self, SocketAddr) {
        let item = |number: usize, done: bool| {
            let created_at = 1_795_000_000 + number;
            let (status, completed, output, completed_at) = if done {
                ("completed", 4, "\"file-out\"", "1795200000")
            } else {
                ("in_progress", 1, "null", "null")
            };
            format!(
                r#"{{"id":"{}","object":"batch","endpoint":"/v1/chat/completions","model":"gpt-4.1-mini","errors":null,"input_file_id":"file-in","completion_window":"24h","status":"{status}","output_file_id":{output},"error_file_id":null,"created_at":{created_at},"in_progress_at":{created_at},"expires_at":1799000000,"finalizing_at":null,"completed_at":{completed_at},"failed_at":null,"expired_at":null,"cancelling_at":null,"cancelled_at":null,"request_counts":{{"total":4,"completed":{completed},"failed":0}},"metadata":{{"job":"nightly"}}}}"#,
                id(number)
            )
        };
        let shared = Shared {
            live: (0..count).map(|number| item(number, false)).collect(),
            done: (0..count).map(|number| item(number, true)).collect(),
            ended: AtomicUsize::new(0),
            pages: AtomicU64::new(0),
            shown: AtomicU64::new(0),
            retrieved: AtomicU64::new(0),
            takes,
            answered: Mutex::new(vec![None; count]),
        };
        let pager = Self(Arc::new(shared));
        let app = Router::new()
            .route("/v1/batches/{id}", get(retrieve))
            .route("/v1/batches", get(list))
            .with_state(pager.clone());
        let (told, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                axum::serve(listener, app).await.unwrap();
            });
        });
        (pager, address.recv().unwrap())
    }

    pub fn asked(&self) -> Asked {
        Asked {
            pages: self.0.pages.load(Ordering::Relaxed),
            retrieved: self.0.retrieved.load(Ordering::Relaxed),
            shown: self.0.shown.load(Ordering::Relaxed),
        }
    }

    /// Every batch completes now.
    pub fn end_all(&self) {
        self.end_oldest(usize::MAX);
    }

    /// The oldest, so many in all, have completed.
    pub fn end_oldest(&self, count: usize) {
        self.0.ended.store(count, Ordering::Relaxed);
    }

    /// When each batch's end was first answered.
    pub fn answered(&self) -> Vec<Option<Instant>> {
        self.0.answered.lock().unwrap().clone()
    }

    fn item(&self, number: usize, now: Instant) -> Option<&str> {
        let ended = number < self.0.ended.load(Ordering::Relaxed);
        if ended && let Some(answered) = self.0.answered.lock().unwrap().get_mut(number) {
            answered.get_or_insert(now);
        }
        let items = if ended { &self.0.done } else { &self.0.live };
        items.get(number).map(String::as_str)
    }
}

async fn list(State(pager): State<Pager>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    tokio::time::sleep(pager.0.takes).await;
    let limit: usize = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(20);
    // The newest has the highest number.
    let newest = query.get("after").and_then(|after| number(after)).unwrap_or(pager.0.live.len());
    let now = Instant::now();
    let numbers = (newest.saturating_sub(limit)..newest).rev();
    let items: Vec<&str> = numbers.filter_map(|number| pager.item(number, now)).collect();
    pager.0.pages.fetch_add(1, Ordering::Relaxed);
    pager.0.shown.fetch_add(items.len() as u64, Ordering::Relaxed);
    let more = newest > limit;
    let body = format!(r#"{{"object":"list","data":[{}],"has_more":{more}}}"#, items.join(","));
    ([("content-type", "application/json")], body).into_response()
}

async fn retrieve(State(pager): State<Pager>, Path(id): Path<String>) -> Response {
    tokio::time::sleep(pager.0.takes).await;
    pager.0.retrieved.fetch_add(1, Ordering::Relaxed);
    pager.0.shown.fetch_add(1, Ordering::Relaxed);
    match number(&id).and_then(|number| pager.item(number, Instant::now())) {
        Some(item) => ([("content-type", "application/json")], item.to_owned()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Points the world's configuration at `provider`, with these bounds of the polling interval.
pub fn configure(world: &World, provider: SocketAddr, min: &str, max: &str) {
    world.configure("");
    let text = std::fs::read_to_string(world.config()).unwrap();
    let text = text
        .replace(&format!("http://{}/v1", world.provider_address), &format!("http://{provider}/v1"))
        .replace(
            "min_interval = \"1s\"\nmax_interval = \"1s\"",
            &format!("min_interval = \"{min}\"\nmax_interval = \"{max}\""),
        );
    std::fs::write(world.config(), text).unwrap();
}

/// A daemon that logs as little as a service would.
pub fn quiet_daemon(world: &World) -> Daemon {
    world.daemon_as(&["-q", "run"])
}

/// Registers batches 0 to `count` through the command line; how long that took.
pub fn track(world: &World, count: usize) -> Duration {
    let begun = Instant::now();
    let mut child = world
        .command()
        .args(["track", "-", "--no-check"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ids: String = (0..count).map(|number| id(number) + "\n").collect();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(ids.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    begun.elapsed()
}

/// Starts a daemon; how long it took until it said that it is ready.
pub fn start(world: &World) -> (Daemon, Duration) {
    let begun = Instant::now();
    let daemon = quiet_daemon(world);
    until("it is ready", || is_ready(world).then_some(()));
    (daemon, begun.elapsed())
}

/// Whether `/readyz` says so; waits for the answer.
fn is_ready(world: &World) -> bool {
    let mut stream = std::os::unix::net::UnixStream::connect(world.socket()).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: batchd\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}

/// Processor time that it has used, in seconds.
pub fn processor_seconds(daemon: &Daemon) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u32 = fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap();
    // Linux counts processor time for /proc in hundredths of a second.
    f64::from(ticks) / 100.0
}

/// Memory that it holds, in MiB.
pub fn resident(daemon: &Daemon) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// Whether this is a real run: `cargo test --benches` starts benches too, and wants nothing of them.
pub fn is_asked_for() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Memory that it holds as the kernel sums it up, in MiB: its share of what others have too, and what is only its own.
pub fn shares(daemon: &Daemon) -> (f64, f64) {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", daemon.pid())).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    };
    (field("Pss:"), field("Anonymous:"))
}

/// The shortest of several goes.
pub fn best(goes: usize, mut work: impl FnMut()) -> Duration {
    let once = |_| {
        let begun = Instant::now();
        work();
        begun.elapsed()
    };
    (0..goes).map(once).min().unwrap()
}

/// The most that was ever resident of a daemon, in MiB.
pub fn peak(daemon: &Daemon) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
