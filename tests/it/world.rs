//! A world around the real binary: a provider, a receiver, and a daemon in a directory of its own.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::ops::Bound;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Secrets that must never show; every test world is full of them.
pub const KEY: &str = "sk-test-Zx81QqSecretKey";
pub const SIGNING: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
pub const PATH_SECRET: &str = "T0SECRET0PATH";
pub const TOKEN: &str = "api-token-8d7f6e5c";

/// How long a condition may take to come true before the test gives up on it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives something.
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, condition)
}

/// The same for what takes long.
pub fn until_within<T>(patience: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < patience, "waited in vain: {what}");
        #[expect(clippy::disallowed_methods, reason = "between two looks at a condition")]
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "real processes live in real time")]
    Instant::now()
}

/// An OpenAI-shaped provider whose batches are what the test says.
#[derive(Clone, Default)]
pub struct Provider(Arc<Mutex<ProviderState>>);

#[derive(Default)]
struct ProviderState {
    batches: BTreeMap<String, Value>,
    /// What to answer instead to every request: status and body.
    fault: Option<(u16, String)>,
    /// When each batch's end was first answered.
    ended: BTreeMap<String, Instant>,
    /// When it was asked last.
    asked: Option<Instant>,
}

impl Provider {
    /// Puts a batch there, or changes it.
    pub fn put(&self, id: &str, status: &str, more: &Value) {
        let mut batch = json!({
            "id": id, "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-in",
            "completion_window": "24h", "status": status, "created_at": 1_795_000_000,
            "request_counts": {"total": 4, "completed": 0, "failed": 0},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            batch[key] = value.clone();
        }
        self.0.lock().unwrap().batches.insert(id.to_owned(), batch);
    }

    /// A batch that completed well.
    pub fn complete(&self, id: &str) {
        self.put(
            id,
            "completed",
            &json!({
                "request_counts": {"total": 4, "completed": 4, "failed": 0},
                "output_file_id": "file-out", "completed_at": 1_795_000_100,
            }),
        );
    }

    /// Answers everything like this; `None`: like a provider again.
    pub fn fault(&self, fault: Option<(u16, &str)>) {
        self.0.lock().unwrap().fault = fault.map(|(status, body)| (status, body.to_owned()));
    }

    /// For how long nobody has asked it; `None`: nobody ever has.
    pub fn left_alone(&self) -> Option<Duration> {
        self.0.lock().unwrap().asked.map(|at| at.elapsed())
    }

    /// When the provider first told that the batch has completed.
    pub fn answered_end(&self, id: &str) -> Option<Instant> {
        self.0.lock().unwrap().ended.get(id).copied()
    }
}

async fn retrieve(
    State(provider): State<Provider>,
    UrlPath(id): UrlPath<String>,
    headers: HeaderMap,
) -> Response {
    let mut state = provider.0.lock().unwrap();
    state.asked = Some(now());
    if let Some((status, body)) = &state.fault {
        return (StatusCode::from_u16(*status).unwrap(), body.clone()).into_response();
    }
    if let Some(refusal) = refusal(&headers) {
        return refusal;
    }
    if let Some(batch) = state.batches.get(&id).cloned() {
        if batch["status"] == "completed" {
            state.ended.entry(id).or_insert_with(now);
        }
        batch.to_string().into_response()
    } else {
        let body = json!({"error": {"message": format!("No batch found with id '{id}'.")}});
        (StatusCode::NOT_FOUND, body.to_string()).into_response()
    }
}

/// What is answered to another key.
fn refusal(headers: &HeaderMap) -> Option<Response> {
    if headers.get("authorization").is_some_and(|value| value == &format!("Bearer {KEY}")) {
        return None;
    }
    let body = json!({"error": {"message": "Incorrect API key provided", "type": "invalid_request_error"}});
    Some((StatusCode::UNAUTHORIZED, body.to_string()).into_response())
}

/// A page of the list, as long as it is asked for.
async fn list(
    State(provider): State<Provider>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Some(refusal) = refusal(&headers) {
        return refusal;
    }
    let mut state = provider.0.lock().unwrap();
    state.asked = Some(now());
    if let Some((status, body)) = &state.fault {
        return (StatusCode::from_u16(*status).unwrap(), body.clone()).into_response();
    }
    let limit = query.get("limit").map_or(20, |limit| limit.parse().unwrap());
    let after = query.get("after").map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = state.batches.range::<String, _>((after, Bound::Unbounded)).map(|(_, batch)| batch);
    let data: Vec<&Value> = rest.by_ref().take(limit).collect();
    json!({"object": "list", "data": data, "has_more": rest.next().is_some()}).to_string().into_response()
}

/// A request that a receiver got.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: http::Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn id(&self) -> &str {
        self.headers["webhook-id"].to_str().unwrap()
    }
}

/// A receiver of webhooks whose answer is what the test says.
#[derive(Clone)]
pub struct Receiver(Arc<Mutex<ReceiverState>>);

struct ReceiverState {
    received: Vec<Received>,
    answer: (u16, &'static str),
    hang: bool,
}

impl Receiver {
    /// What has arrived below `path`.
    pub fn received(&self, path: &str) -> Vec<Received> {
        let state = self.0.lock().unwrap();
        state.received.iter().filter(|received| received.path.starts_with(path)).cloned().collect()
    }

    /// Waits for `count` requests below `path`.
    pub fn wait_for(&self, path: &str, count: usize) -> Vec<Received> {
        until(&format!("{count} webhooks at {path}"), || {
            let received = self.received(path);
            (received.len() >= count).then_some(received)
        })
    }

    /// When the request with this number (from 0) below `path` arrived.
    pub fn arrived(&self, path: &str, number: usize) -> Option<Instant> {
        self.received(path).get(number).map(|received| received.at)
    }

    /// Answers like this from now on.
    pub fn answer(&self, status: u16, body: &'static str) {
        self.0.lock().unwrap().answer = (status, body);
    }

    /// Takes requests and never answers them.
    pub fn hang(&self, hang: bool) {
        self.0.lock().unwrap().hang = hang;
    }
}

async fn receive(
    State(receiver): State<Receiver>,
    method: http::Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let at = now();
    let (answer, hang) = {
        let mut state = receiver.0.lock().unwrap();
        state.received.push(Received { method, path: uri.path().to_owned(), headers, body, at });
        (state.answer, state.hang)
    };
    if hang {
        std::future::pending::<()>().await;
    }
    (StatusCode::from_u16(answer.0).unwrap(), answer.1).into_response()
}

/// A directory with a configuration, a provider and a receiver that live as long as it does.
pub struct World {
    pub directory: tempfile::TempDir,
    pub provider: Provider,
    pub receiver: Receiver,
    pub provider_address: SocketAddr,
    pub receiver_address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    /// A world with one provider `openai`, a generic webhook `pipeline` and a Slack webhook `ops`.
    pub fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let provider = Provider::default();
        let receiver = Receiver(Arc::new(Mutex::new(ReceiverState {
            received: Vec::new(),
            answer: (200, "ok"),
            hang: false,
        })));
        let serve = |app: Router| {
            let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
            let address = listener.local_addr().unwrap();
            runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
            address
        };
        let provider_address = serve(
            Router::new()
                .route("/v1/batches/{id}", get(retrieve))
                .route("/v1/batches", get(list))
                .with_state(provider.clone()),
        );
        let receiver_address = serve(Router::new().fallback(any(receive)).with_state(receiver.clone()));
        let world = Self {
            directory: tempfile::tempdir().unwrap(),
            provider,
            receiver,
            provider_address,
            receiver_address,
            _runtime: runtime,
        };
        world.configure("");
        world
    }

    /// Writes the configuration, with `more` at its end.
    pub fn configure(&self, more: &str) {
        let (provider, receiver) = (self.provider_address, self.receiver_address);
        let text = format!(
            r#"
[state]
dir = "{state}"

[api]
socket = "{socket}"

[polling]
min_interval = "1s"
max_interval = "1s"

[providers.openai]
api_key = {{ env = "TEST_KEY" }}
base_url = "http://{provider}/v1"

[webhooks.pipeline]
url = "http://{receiver}/hooks/{PATH_SECRET}"
secret = {{ env = "TEST_SIGNING" }}
retry = ["1s", "1s", "1s", "1s", "1s", "1s"]

[webhooks.ops]
kind = "slack"
url = {{ env = "TEST_SLACK" }}
{more}
"#,
            state = self.state().display(),
            socket = self.socket().display(),
        );
        std::fs::write(self.config(), text).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("config.toml")
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("batchd.sock")
    }

    /// The binary, with nothing of the environment but what this world gives it.
    pub fn command(&self) -> Command {
        let binary = std::env::var_os("BATCHD_BENCH_BINARY");
        let mut command = Command::new(binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_batchd").into()));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.directory.path())
            .env("BATCHD_CONFIG", self.config())
            .env("TEST_KEY", KEY)
            .env("TEST_SIGNING", SIGNING)
            .env("TEST_TOKEN", TOKEN)
            .env("TEST_SLACK", format!("http://{}/slack/{PATH_SECRET}", self.receiver_address))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn batchd(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// The same, which must succeed; gives its stdout.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.batchd(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// Starts the daemon and waits until it answers.
    pub fn daemon(&self) -> Daemon {
        self.daemon_as(&["-vv", "run"])
    }

    /// The same, with these arguments.
    pub fn daemon_as(&self, arguments: &[&str]) -> Daemon {
        let daemon = Daemon::start(self.command().args(arguments));
        until("the daemon answers", || {
            assert!(!daemon.is_over(), "the daemon ended: {}", daemon.log());
            std::os::unix::net::UnixStream::connect(self.socket()).ok()
        });
        daemon
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Mutex<Child>,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    /// Starts one by a command of its own.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let sink = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = sink.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child: Mutex::new(child), log }
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn is_over(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub fn end(&self) -> ExitStatus {
        until("the daemon ends", || self.child.lock().unwrap().try_wait().unwrap())
    }

    /// Ends it as nothing can prepare for.
    pub fn kill(self) {
        self.signal(Signal::SIGKILL);
        self.end();
    }

    /// Ends it in the ordinary way.
    pub fn terminate(self) {
        self.signal(Signal::SIGTERM);
        let status = self.end();
        assert!(status.success(), "{status:?}: {}", self.log());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}
