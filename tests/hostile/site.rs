//! Where a case takes place: a daemon with a healthy provider and a healthy webhook, beside which the bad peer stands.

use crate::client::{Reply, ask};
use crate::patience::{now, within};
use crate::peer::{Asked, Peer, answer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The key of every account; it must never show.
pub const KEY: &str = "sk-hostile-Kd83Secret0Key7";
/// The token of the API over TCP.
pub const TOKEN: &str = "hostile-token-5c1f";

pub struct Site {
    directory: tempfile::TempDir,
    daemon: Mutex<Child>,
    /// `id` to status, at the healthy provider.
    batches: Arc<Mutex<BTreeMap<String, &'static str>>>,
    /// What answers for both the healthy provider and the healthy webhook.
    healthy: Peer,
    tcp: SocketAddr,
    rounds: AtomicU32,
}

/// What a case changes about a site.
#[derive(Default)]
pub struct Terms<'a> {
    /// The `base_url` of the provider `bad`.
    pub provider: Option<&'a str>,
    /// The address of the webhook `foe`, which gets every event.
    pub receiver: Option<&'a str>,
    /// Further tables of the configuration.
    pub more: &'a str,
    /// How many files the daemon may have open.
    pub files: Option<u32>,
}

impl Site {
    /// With a provider `bad` at this peer.
    pub fn against_provider(peer: &Peer) -> Self {
        Self::new(&Terms { provider: Some(&format!("{}/v1", peer.url())), ..Terms::default() })
    }

    /// With a webhook `foe` at this peer.
    pub fn against_receiver(peer: &Peer) -> Self {
        Self::new(&Terms { receiver: Some(&peer.url()), ..Terms::default() })
    }

    pub fn new(terms: &Terms<'_>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let batches: Arc<Mutex<BTreeMap<String, &'static str>>> = Arc::default();
        let known = Arc::clone(&batches);
        let healthy = Peer::start(move |stream, asked| {
            let _ = stream.write_all(&healthy(&known.lock().unwrap(), asked));
        });
        // A port that was free a moment ago.
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = config(directory.path(), &healthy, tcp, terms);
        std::fs::write(directory.path().join("config.toml"), config).unwrap();
        let mut command = match terms.files {
            None => Command::new(env!("CARGO_BIN_EXE_batchd")),
            Some(files) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]);
                shell.arg(env!("CARGO_BIN_EXE_batchd"));
                shell
            }
        };
        let log = std::fs::File::create(directory.path().join("daemon.log")).unwrap();
        environment(&mut command, directory.path()).args(["-v", "run"]).stdout(Stdio::null()).stderr(log);
        let site = Self {
            daemon: Mutex::new(command.spawn().unwrap()),
            directory,
            batches,
            healthy,
            tcp,
            rounds: AtomicU32::new(0),
        };
        let ready = within(Duration::from_secs(20), || {
            site.assert_alive();
            TcpStream::connect(tcp).ok()?;
            site.get("/readyz").filter(Reply::is_success)
        });
        assert!(ready.is_some(), "the daemon does not become ready: {}", site.log());
        site
    }

    pub fn tcp(&self) -> SocketAddr {
        self.tcp
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("batchd.sock")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// Runs a command to its end.
    pub fn batchd(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_batchd"));
        environment(&mut command, self.directory.path()).args(arguments).output().unwrap()
    }

    pub fn ask(&self, method: &str, path: &str, body: &Value, limit: Duration) -> Option<Reply> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        ask(&self.socket(), method, path, body.as_bytes(), limit)
    }

    pub fn get(&self, path: &str) -> Option<Reply> {
        self.ask("GET", path, &Value::Null, Duration::from_secs(10))
    }

    pub fn json(&self, path: &str) -> Value {
        self.get(path).map(|reply| reply.json()).unwrap_or_default()
    }

    /// Registers batches at `provider` without asking it.
    pub fn track(&self, provider: &str, ids: &[&str]) {
        let items: Vec<Value> =
            ids.iter().map(|id| json!({"id": id, "provider": provider, "check": false})).collect();
        let reply = self.ask("POST", "/v1/batches/track", &json!({"items": items}), Duration::from_secs(10));
        assert!(reply.as_ref().is_some_and(Reply::is_success), "{reply:?}");
    }

    /// Waits until `condition` gives something.
    pub fn until<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        within(Duration::from_secs(15), condition)
            .unwrap_or_else(|| panic!("waited in vain: {what}\n{}", self.log()))
    }

    /// Puts a batch at the healthy provider.
    pub fn put(&self, id: &str, status: &'static str) {
        self.batches.lock().unwrap().insert(id.to_owned(), status);
    }

    /// What the healthy webhook got about this batch.
    pub fn told(&self, id: &str) -> Vec<Value> {
        let asked = self.healthy.asked();
        let hooks = asked.iter().filter(|asked| asked.path == "/hook");
        let told = hooks.filter_map(|hook| serde_json::from_slice::<Value>(&hook.body).ok());
        told.filter(|event| event["data"]["id"] == id).collect()
    }

    fn assert_alive(&self) {
        let over = self.daemon.lock().unwrap().try_wait().unwrap();
        assert!(over.is_none(), "the daemon is dead: {over:?}\n{}", self.log());
    }

    /// What every case holds: the daemon lives, answers its socket, keeps its memory, and serves the healthy ones.
    pub fn endures(&self) {
        self.assert_alive();
        let begun = now();
        let status = self.get("/v1/status");
        let took = begun.elapsed();
        assert!(status.as_ref().is_some_and(Reply::is_success), "no status: {status:?}\n{}", self.log());
        assert!(took < ANSWERS_WITHIN, "the status took {took:?}");
        let ready = self.get("/readyz").unwrap();
        assert!(ready.is_success(), "not ready: {}", String::from_utf8_lossy(&ready.body));
        let id = format!("batch_healthy_{}", self.rounds.fetch_add(1, Ordering::SeqCst));
        self.put(&id, "completed");
        let begun = now();
        self.track("good", &[&id]);
        self.until("the healthy webhook is told of the healthy provider's batch", || {
            (!self.told(&id).is_empty()).then_some(())
        });
        let took = begun.elapsed();
        assert!(took < HEALTHY_WITHIN, "the healthy ones waited for {took:?}");
        let peak = self.peak();
        assert!(peak < MEMORY, "{peak} MiB were used\n{}", self.log());
        let log = self.log();
        assert!(!log.contains("panicked"), "{log}");
        assert!(!log.contains(KEY) && !log.contains(TOKEN), "the log holds a secret: {log}");
    }

    /// The most memory that was used so far, in MiB.
    pub fn peak(&self) -> u64 {
        let pid = self.daemon.lock().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
    }

    /// Tells the daemon to stop; it must, in time and with 0.
    pub fn stops(&self) {
        let mut daemon = self.daemon.lock().unwrap();
        let _ = kill(Pid::from_raw(i32::try_from(daemon.id()).unwrap()), Signal::SIGTERM);
        let over = within(Duration::from_secs(14), || daemon.try_wait().unwrap());
        assert!(over.is_some_and(|status| status.success()), "{over:?}\n{}", self.log());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Ok(daemon) = self.daemon.get_mut() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// What the healthy provider and the healthy webhook answer.
fn healthy(batches: &BTreeMap<String, &'static str>, asked: &Asked) -> Vec<u8> {
    let path = asked.path.split('?').next().unwrap_or("");
    if path == "/hook" {
        return answer(200, "", "{}");
    }
    if path == "/v1/batches" {
        let data: Vec<Value> = batches.iter().map(|(id, status)| batch(id, status)).collect();
        return answer(200, "", &json!({"object": "list", "data": data, "has_more": false}).to_string());
    }
    let id = path.rsplit('/').next().unwrap_or("");
    match batches.get(id) {
        Some(status) => answer(200, "", &batch(id, status).to_string()),
        None => answer(404, "", r#"{"error":{"message":"no such batch"}}"#),
    }
}

/// A batch in OpenAI's form.
pub fn batch(id: &str, status: &str) -> Value {
    let done = if status == "completed" { 4 } else { 0 };
    json!({
        "id": id, "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-in",
        "completion_window": "24h", "status": status, "created_at": 1_795_000_000,
        "request_counts": {"total": 4, "completed": done, "failed": 0},
        "output_file_id": (done > 0).then_some("file-out"),
    })
}

fn config(directory: &Path, healthy: &Peer, tcp: SocketAddr, terms: &Terms<'_>) -> String {
    let directory = directory.display();
    let healthy = healthy.url();
    let mut text = format!(
        r#"
[state]
dir = "{directory}/state"
[api]
socket = "{directory}/batchd.sock"
listen = "{tcp}"
token = {{ env = "TEST_TOKEN" }}
[polling]
min_interval = "100ms"
max_interval = "300ms"
timeout = "800ms"
[providers.good]
kind = "openai-compatible"
api_key = {{ env = "TEST_KEY" }}
base_url = "{healthy}/v1"
[webhooks.good]
url = "{healthy}/hook"
"#
    );
    if let Some(url) = terms.provider {
        let head =
            "[providers.bad]\nkind = \"openai-compatible\"\napi_key = { env = \"TEST_KEY\" }\nbase_url = ";
        text = text + head + "\"" + url + "\"\n";
    }
    if let Some(url) = terms.receiver {
        let retry = vec!["\"100ms\""; 30].join(", ");
        text = text + "[webhooks.foe]\nurl = \"" + url + "\"\ntimeout = \"1s\"\nretry = [" + &retry + "]\n";
    }
    text + terms.more
}

fn environment<'a>(command: &'a mut Command, home: &Path) -> &'a mut Command {
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home)
        .env("BATCHD_CONFIG", home.join("config.toml"))
        .env("TEST_KEY", KEY)
        .env("TEST_TOKEN", TOKEN)
        .stdin(Stdio::null())
}

/// A debug build, all of whose cases run at once on few cores, is several times slower than what users have.
const SLOWER: u64 = if cfg!(debug_assertions) { 4 } else { 1 };
/// For the status.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2 * SLOWER);
/// For a healthy batch's end to be told by a healthy webhook.
const HEALTHY_WITHIN: Duration = Duration::from_secs(5 * SLOWER);
/// The most memory that a case may use, in MiB.
const MEMORY: u64 = 300;
