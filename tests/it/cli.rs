//! The command line, driven as a person and a script drive it, against an API on a socket of the test's own.

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// What the API knows.
#[derive(Default)]
struct World {
    /// Tracked batches, oldest first.
    batches: Vec<Value>,
    /// Batches that exist at the provider and are not tracked.
    elsewhere: Vec<Value>,
    events: Vec<Value>,
    deliveries: Vec<Value>,
    /// The longest page that is given.
    page: usize,
    /// Requests that were answered: `METHOD path?query`, and the body.
    requests: Vec<(String, Value)>,
    /// Live streams that were begun.
    streams: u64,
    /// The tokens that were sent.
    tokens: Vec<String>,
    /// A body that breaks off after so many bytes.
    cut_backup: bool,
}

type Shared = Arc<(Mutex<World>, Condvar, tokio::sync::watch::Sender<u64>)>;

/// An API on a socket, which can be stopped and started again.
struct Daemon {
    home: TempDir,
    shared: Shared,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Daemon {
    fn start() -> Self {
        let world = World { page: 1000, ..World::default() };
        let shared = Arc::new((Mutex::new(world), Condvar::new(), tokio::sync::watch::Sender::new(0)));
        let mut daemon = Self { home: tempfile::tempdir().unwrap(), shared, runtime: None };
        daemon.up();
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("batchd.sock")
    }

    fn up(&mut self) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(self.socket()).unwrap() });
        let app = router(Arc::clone(&self.shared));
        runtime.handle().spawn(async move { axum::serve(listener, app).await });
        self.runtime = Some(runtime);
    }

    fn down(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(5));
        std::fs::remove_file(self.socket()).unwrap();
    }

    fn world<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        let done = work(&mut self.shared.0.lock().unwrap());
        self.shared.2.send_modify(|version| *version += 1);
        done
    }

    /// Blocks until the world is so.
    fn until(&self, what: impl Fn(&World) -> bool) {
        let world = self.shared.0.lock().unwrap();
        let (world, late) =
            self.shared.1.wait_timeout_while(world, Duration::from_mins(1), |world| !what(world)).unwrap();
        assert!(!late.timed_out(), "never came: {:#?}", world.requests);
    }

    /// `batchd`, talking to this API.
    fn batchd(&self, arguments: &[&str]) -> Command {
        let mut command = bare(&self.home, arguments);
        command.env("BATCHD_HOST", format!("unix://{}", self.socket().display()));
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        Run::of(self.batchd(arguments).output().unwrap())
    }

    /// Ends a batch, with its event.
    fn end(&self, id: &str, status: &str, outcome: &str) {
        self.world(|world| {
            let sequence = i64::try_from(world.events.len()).unwrap() + 1;
            let batch = world.batches.iter_mut().find(|batch| batch["id"] == id).unwrap();
            batch["status"] = status.into();
            batch["batchd"]["outcome"] = outcome.into();
            let event = event(sequence, &format!("batch.{status}"), batch);
            world.events.push(event);
        });
    }
}

/// A finished run.
#[derive(Debug)]
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{text:?} is not in {:?}", self.err);
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

/// A running `batchd` whose lines are read as they come; it is killed when it is dropped.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn finish(mut self) -> Run {
        let (mut out, mut err) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let status = self.child.wait().unwrap();
        Run { code: status.code().unwrap_or(-1), out, err }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `batchd` in an empty environment, with nobody to talk to.
fn bare(home: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_batchd"));
    command
        .args(arguments)
        .env_clear()
        .env("HOME", home.path())
        .env("XDG_RUNTIME_DIR", home.path().join("run"))
        .env("TZ", "UTC")
        .stdin(Stdio::null());
    command
}

fn alone(arguments: &[&str]) -> Run {
    let home = tempfile::tempdir().unwrap();
    Run::of(bare(&home, arguments).output().unwrap())
}

/// A batch in the contract's shape, created three hours, twelve minutes and a half ago.
fn batch(provider: &str, id: &str, status: &str) -> Value {
    let now = batchd::clock::Clock::system().now().as_second();
    json!({
        "id": id, "object": "batch", "endpoint": "/v1/responses", "input_file_id": "file-in",
        "completion_window": "24h", "status": status, "created_at": now - 11_550,
        "request_counts": {"total": 400, "completed": 120, "failed": 0},
        "batchd": {"provider": provider, "kind": provider, "provider_status": status, "outcome": null, "name": null,
            "labels": {}, "owner": null, "untracked_at": null, "last_error": null, "stalled": false, "lost": false}
    })
}

fn ended(id: &str, status: &str, outcome: &str) -> Value {
    let mut batch = batch("openai", id, status);
    batch["batchd"]["outcome"] = outcome.into();
    batch["request_counts"] = json!({"total": 400, "completed": 398, "failed": 2});
    batch
}

fn event(sequence: i64, kind: &str, batch: &Value) -> Value {
    json!({
        "id": format!("evt_{sequence}"), "object": "event", "type": kind, "sequence": sequence,
        "created_at": 1_795_000_000, "timestamp": "2026-11-18T11:06:40.000Z",
        "data": {"id": batch["id"], "provider": batch["batchd"]["provider"], "status": batch["status"],
            "outcome": batch["batchd"]["outcome"], "severity": "info", "batch": batch}
    })
}

// The API, as api.rs and `docs/contract.md#http-api` describe it.

type Pairs = Query<Vec<(String, String)>>;

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/batches", get(batches))
        .route("/v1/batches/track", post(track_many))
        .route("/v1/batches/{id}", get(one).put(track).delete(untrack))
        .route("/v1/batches/{id}/poll", post(one))
        .route("/v1/batches/{id}/events", get(events))
        .route("/v1/poll", post(|| async { Json(json!({"due": 7})) }))
        .route("/v1/events", get(events))
        .route("/v1/deliveries", get(deliveries))
        .route("/v1/deliveries/{id}/retry", post(retry))
        .route("/v1/deliveries/retry", post(|| async { Json(json!({"retried": 3})) }))
        .route("/v1/webhooks/{name}/test", post(test_webhook))
        .route("/v1/providers/check", post(check))
        .route("/v1/status", get(status))
        .route("/v1/reload", post(reload))
        .route("/v1/backup", get(backup))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&shared), log))
        .with_state(shared)
}

async fn log(
    State(shared): State<Shared>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let line = format!("{} {}", parts.method, parts.uri);
    let token = parts.headers.get("authorization").map(|token| token.to_str().unwrap().to_owned());
    {
        let mut world = shared.0.lock().unwrap();
        world.requests.push((line, serde_json::from_slice(&body).unwrap_or_default()));
        world.tokens.extend(token);
    }
    shared.1.notify_all();
    next.run(axum::extract::Request::from_parts(parts, Body::from(body))).await
}

fn refuse(status: u16, code: &str, message: &str) -> Response {
    let body =
        json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": code}});
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

fn missing() -> Response {
    refuse(404, "batch_not_found", "no such batch")
}

fn first<'a>(pairs: &'a Pairs, key: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// A page of `all` behind the entry that `after` names.
fn page(all: &[Value], pairs: &Pairs, most: usize, cursor: impl Fn(&Value) -> String) -> Response {
    let start = first(pairs, "after")
        .map_or(0, |after| all.iter().position(|entry| cursor(entry) == after).map_or(0, |place| place + 1));
    let limit = first(pairs, "limit").map_or(20, |limit| limit.parse::<usize>().unwrap()).min(most);
    let data: Vec<Value> = all[start..].iter().take(limit).cloned().collect();
    Json(json!({
        "object": "list", "first_id": data.first().map(&cursor), "last_id": data.last().map(&cursor),
        "has_more": start + data.len() < all.len(), "data": data,
    }))
    .into_response()
}

fn key(batch: &Value) -> String {
    format!("{}:{}", batch["batchd"]["provider"].as_str().unwrap(), batch["id"].as_str().unwrap())
}

async fn batches(State(shared): State<Shared>, pairs: Pairs) -> Response {
    let world = shared.0.lock().unwrap();
    let wanted = |batch: &&Value| {
        let over = !batch["batchd"]["outcome"].is_null();
        let statuses: Vec<&str> =
            pairs.iter().filter(|(name, _)| name == "status").map(|(_, value)| value.as_str()).collect();
        !(over && first(&pairs, "active") == Some("true"))
            && (statuses.is_empty() || statuses.contains(&batch["status"].as_str().unwrap()))
            && first(&pairs, "owner").is_none_or(|owner| batch["batchd"]["owner"] == owner)
    };
    let all: Vec<Value> = world.batches.iter().rev().filter(wanted).cloned().collect();
    page(&all, &pairs, world.page, key)
}

fn find<'a>(batches: &'a mut [Value], id: &str) -> Result<Option<&'a mut Value>, Box<Response>> {
    let mut found: Vec<&mut Value> =
        batches.iter_mut().filter(|batch| batch["id"] == id || key(batch) == id).collect();
    match found.len() {
        0 => Ok(None),
        1 => Ok(found.pop()),
        _ => Err(Box::new(refuse(409, "ambiguous_id", &format!("{id} is known at two providers")))),
    }
}

async fn one(State(shared): State<Shared>, Path(id): Path<String>, pairs: Pairs) -> Response {
    let mut world = shared.0.lock().unwrap();
    let world = &mut *world;
    let fetch = first(&pairs, "fetch") == Some("true");
    match find(&mut world.batches, &id) {
        Err(answer) => *answer,
        Ok(Some(batch)) => Json(batch.clone()).into_response(),
        Ok(None) if fetch => match find(&mut world.elsewhere, &id) {
            Ok(Some(batch)) => Json(batch.clone()).into_response(),
            _ => missing(),
        },
        Ok(None) => missing(),
    }
}

async fn track(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    let mut world = shared.0.lock().unwrap();
    if id == "batch_locked" {
        return refuse(502, "provider_refused", "openai refuses the key: 401");
    }
    if let Some(place) = world.elsewhere.iter().position(|batch| batch["id"] == id) {
        let batch = world.elsewhere.remove(place);
        world.batches.push(batch.clone());
        return (StatusCode::CREATED, Json(batch)).into_response();
    }
    match find(&mut world.batches, &id) {
        Ok(Some(batch)) => {
            batch["batchd"]["untracked_at"] = Value::Null;
            Json(batch.clone()).into_response()
        }
        _ => missing(),
    }
}

async fn untrack(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    let mut world = shared.0.lock().unwrap();
    match find(&mut world.batches, &id) {
        Ok(Some(batch)) => {
            batch["batchd"]["untracked_at"] = "2026-11-18T11:06:40Z".into();
            Json(batch.clone()).into_response()
        }
        _ => missing(),
    }
}

async fn track_many(Json(body): Json<Value>) -> Response {
    let items = body["items"].as_array().unwrap();
    let answers = items.iter().map(|item| {
        let id = item["id"].as_str().unwrap();
        let error = |code: &str, message: &str| {
            json!({"id": id, "provider": null, "status": null, "new": false,
                "error": {"message": message, "type": "invalid_request_error", "param": null, "code": code}})
        };
        match id {
            "batch_nowhere" => error("batch_not_found", "no such batch at openai"),
            "batch_locked" => error("provider_refused", "openai refuses the key"),
            "batch_down" => error("provider_failed", "openai does not answer"),
            _ => json!({"id": id, "provider": "openai", "status": "in_progress", "new": true, "error": null}),
        }
    });
    Json(json!({"object": "list", "data": answers.collect::<Vec<_>>(), "first_id": null, "last_id": null,
        "has_more": false}))
    .into_response()
}

async fn events(
    State(shared): State<Shared>,
    id: Option<Path<String>>,
    pairs: Pairs,
    headers: HeaderMap,
) -> Response {
    if headers.get("accept").is_some_and(|accept| accept == "text/event-stream") {
        let after = headers["last-event-id"].to_str().unwrap().parse::<i64>().unwrap();
        return stream(&shared, after);
    }
    let world = shared.0.lock().unwrap();
    let of = |event: &&Value| id.as_ref().is_none_or(|id| event["data"]["id"] == id.0);
    let behind = first(&pairs, "after").map_or(0, |after| after.parse::<i64>().unwrap());
    let all: Vec<Value> = world
        .events
        .iter()
        .filter(of)
        .filter(|event| event["sequence"].as_i64().unwrap() > behind)
        .cloned()
        .collect();
    page(&all, &Query(pairs.0.into_iter().filter(|(key, _)| key == "limit").collect()), world.page, |event| {
        event["sequence"].to_string()
    })
}

fn stream(shared: &Shared, after: i64) -> Response {
    shared.0.lock().unwrap().streams += 1;
    shared.1.notify_all();
    let changes = shared.2.subscribe();
    let events = futures_util::stream::unfold(
        (Arc::clone(shared), changes, after),
        |(shared, mut changes, after)| async move {
            loop {
                changes.borrow_and_update();
                let next = {
                    let world = shared.0.lock().unwrap();
                    world.events.iter().find(|event| event["sequence"].as_i64().unwrap() > after).cloned()
                };
                if let Some(event) = next {
                    let sequence = event["sequence"].as_i64().unwrap();
                    let told = Event::default().id(sequence.to_string()).data(event.to_string());
                    return Some((Ok::<_, std::convert::Infallible>(told), (shared, changes, sequence)));
                }
                changes.changed().await.ok()?;
            }
        },
    );
    Sse::new(events).into_response()
}

async fn deliveries(State(shared): State<Shared>, pairs: Pairs) -> Response {
    let world = shared.0.lock().unwrap();
    let wanted = |delivery: &&Value| first(&pairs, "state").is_none_or(|state| delivery["state"] == state);
    let all: Vec<Value> = world.deliveries.iter().filter(wanted).cloned().collect();
    page(&all, &pairs, world.page, |delivery| delivery["id"].as_str().unwrap().to_owned())
}

async fn retry(Path(id): Path<String>) -> Response {
    if id == "41" {
        Json(json!({"id": "41"})).into_response()
    } else {
        refuse(404, "not_found", "no such delivery")
    }
}

async fn test_webhook(Path(name): Path<String>, Json(body): Json<Value>) -> Response {
    let delivered = name == "good";
    assert_eq!(body["event"], "batch.failed");
    Json(
        json!({"delivered": delivered, "event_id": "evt_1", "http_status": if delivered { 200 } else { 500 },
        "error": if delivered { Value::Null } else { "500 Internal Server Error".into() },
        "excerpt": "hello\u{1b}[2J\nworld", "milliseconds": 12}),
    )
    .into_response()
}

async fn check(Json(body): Json<Value>) -> Response {
    let answer = |name: &str, ok: bool, refused: bool, error: Option<&str>| {
        json!({"name": name, "ok": ok, "refused": refused, "error": error,
            "hint": refused.then_some("set OPENAI_API_KEY to a valid key"), "milliseconds": 5})
    };
    let data = match body["name"].as_str() {
        Some("openai") => vec![answer("openai", false, true, Some("401: invalid key"))],
        Some("mistral") => vec![answer("mistral", false, false, Some("the host name does not resolve"))],
        _ => vec![answer("gemini", true, false, None)],
    };
    Json(json!({"object": "list", "data": data, "first_id": null, "last_id": null, "has_more": false}))
        .into_response()
}

async fn status(State(shared): State<Shared>) -> Json<Value> {
    let world = shared.0.lock().unwrap();
    Json(json!({
        "version": "0.1.0", "pid": 1, "started_at": "2026-11-18T07:00:00Z", "uptime_seconds": 14_800,
        "config_file": null, "state_dir": "/var/lib/batchd", "ready": true, "troubles": [],
        "batches": {"in_progress": world.batches.len()}, "active": world.batches.len(), "due": 0, "late_seconds": 0,
        "events": world.events.len(), "warnings": [], "reload_error": null, "orphans": {}, "providers": [],
        "webhooks": [], "jobs": []
    }))
}

async fn reload() -> Response {
    refuse(422, "config_refused", "config.toml:3:1: unknown key `pollin`\nconfig.toml:9:1: `url` is missing")
}

async fn backup(State(shared): State<Shared>) -> Response {
    let cut = shared.0.lock().unwrap().cut_backup;
    let chunks = (0..4).map(move |number| {
        if cut && number == 2 {
            Err(std::io::Error::other("cut"))
        } else {
            Ok(Bytes::from(vec![b'a' + number; 100_000]))
        }
    });
    Body::from_stream(futures_util::stream::iter(chunks)).into_response()
}

// Without a daemon.

#[test]
fn help_is_an_overview() {
    let run = alone(&["-h"]).code(0);
    assert_eq!(run.err, "");
    insta::assert_snapshot!(run.out);
    assert_eq!(alone(&["--help"]).code(0).out, run.out);
    let version = alone(&["--version"]).code(0);
    assert_eq!(version.out, format!("batchd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_makes_no_sense_exits_2() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["submit"],
        &["results"],
        &["cancel"],
        &["track"],
        &["track", ""],
        &["track", "x", "--label", "team"],
        &["track", "x", "--deadline", "soon"],
        &["track", "x", "--notify", "w", "--no-notify"],
        &["track", "x", "--offline"],
        &["list", "--status", "done"],
        &["list", "--limit", "many"],
        &["list", "--watch", "--json"],
        &["list", "--host", "ftp://x"],
        &["list", "--host", "unix://relative"],
        &["list", "--offline", "--host", "unix:///x"],
        &["events", "--after", "-1"],
        &["events", "--follow", "--offline"],
        &["wait", "x", "--timeout", "2"],
        &["poll"],
        &["poll", "x", "--all"],
        &["deliveries", "--state", "lost"],
        &["deliveries", "retry"],
        &["deliveries", "retry", "--webhook", "w"],
        &["sandbox", "--speed", "0"],
        &["completions", "tcsh"],
        &["--log-format", "xml", "list"],
        &["-q", "-v", "list"],
    ] {
        let run = alone(arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {run:?}");
        assert_eq!(run.out, "", "{arguments:?}");
    }
}

#[test]
fn g4_without_a_daemon_69_says_where_was_looked_and_what_to_do() {
    for arguments in [
        &["list"][..],
        &["track", "x"],
        &["untrack", "x"],
        &["get", "x"],
        &["show", "x"],
        &["events"],
        &["events", "--follow"],
        &["wait", "x"],
        &["poll", "x"],
        &["status"],
        &["webhooks"],
        &["deliveries"],
        &["providers"],
        &["reload"],
        &["backup", "/nowhere/x"],
    ] {
        let run = alone(arguments).code(69);
        assert!(run.err.starts_with("error: "), "{arguments:?}: {}", run.err);
        assert!(run.err.contains("run/batchd/batchd.sock: no such socket"), "{arguments:?}: {}", run.err);
        assert!(run.err.contains("\nhint: start it with `systemctl start batchd`"), "{}", run.err);
        assert_eq!(run.out, "", "{arguments:?}");
    }
    let home = tempfile::tempdir().unwrap();
    let dead = home.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let host = format!("unix://{}", dead.display());
    Run::of(bare(&home, &["list", "--host", &host]).output().unwrap()).code(69).says("connection refused");
    alone(&["list", "--host", "http://127.0.0.1:1"]).code(69).says("http://127.0.0.1:1");
}

#[test]
fn the_daemon_is_found_by_the_configurations_socket() {
    let mut daemon = Daemon::start();
    let config = daemon.home.path().join("config.toml");
    std::fs::write(&config, format!("[api]\nsocket = {:?}\n", daemon.socket())).unwrap();
    let config = config.to_str().unwrap();
    Run::of(bare(&daemon.home, &["status", "--config", config]).output().unwrap()).code(0);
    Run::of(bare(&daemon.home, &["status"]).env("BATCHD_CONFIG", config).output().unwrap()).code(0);
    daemon.down();
    Run::of(bare(&daemon.home, &["status", "--config", config]).output().unwrap())
        .code(69)
        .says("batchd.sock: no such socket");
}

#[test]
fn completions_and_manual_are_there() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(alone(&["completions", shell]).code(0).out.contains("untrack"), "{shell}");
    }
    let page = alone(&["man"]).code(0).out;
    assert!(page.contains(".TH batchd 1") && page.contains("EXIT STATUS"), "{page}");
}

#[test]
fn a_reader_that_has_gone_ends_it_quietly() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        world.batches = (0..500).map(|n| batch("openai", &format!("b{n}"), "in_progress")).collect();
    });
    for arguments in [&["man"][..], &["--help"], &["completions", "bash"], &["list"], &["list", "--json"]] {
        let mut child =
            daemon.batchd(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let run = Run::of(child.wait_with_output().unwrap()).code(0);
        assert_eq!(run.err, "", "{arguments:?}");
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = daemon.batchd(&["list"]).stdout(full).output().unwrap();
    Run::of(output).code(1).says("cannot write to standard output: no space left on device");
}

// The log.

/// What a run with a senseless `RUST_LOG` writes: a warning, as a record of the log.
fn logged(arguments: &[&str], journal: bool) -> String {
    use std::os::unix::fs::MetadataExt;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("log");
    let log = std::fs::File::create(&file).unwrap();
    let metadata = log.metadata().unwrap();
    let stream = format!("{}:{}", metadata.dev(), metadata.ino() + u64::from(!journal));
    let mut command = bare(&home, &[arguments, &["man"]].concat());
    command.env("RUST_LOG", "batchd=loud").env("JOURNAL_STREAM", stream);
    assert!(command.stdout(Stdio::null()).stderr(log).status().unwrap().success());
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn the_journal_gets_priorities_and_a_program_gets_json() {
    let plain = logged(&[], false);
    assert!(plain.contains("  WARN RUST_LOG makes no sense and is ignored error="), "{plain}");
    assert!(plain.starts_with("20"), "with the time: {plain}");
    let journal = logged(&[], true);
    assert!(journal.starts_with("<4>RUST_LOG makes no sense and is ignored error="), "{journal}");
    assert_eq!(logged(&["--log-format", "text"], true).split(' ').nth(2), Some("WARN"));
    let json: Value = serde_json::from_str(&logged(&["--log-format", "json"], false)).unwrap();
    assert_eq!(
        (&json["level"], &json["message"]),
        (&json!("warn"), &json!("RUST_LOG makes no sense and is ignored"))
    );
    for log in [plain, journal] {
        assert_eq!(log.lines().count(), 1, "{log}");
    }
}

// Reading.

#[test]
fn a_list_is_an_aligned_table() {
    let daemon = Daemon::start();
    let empty = daemon.run(&["list"]).code(0).says("`batchd track ID` watches one");
    assert_eq!(empty.out, "");
    daemon.world(|world| {
        let mut named = batch("anthropic", "msgbatch_2", "in_progress");
        named["batchd"]["name"] = "nightly evals\u{1b}[31m".into();
        named["request_counts"] = Value::Null;
        world.batches =
            vec![batch("openai", "batch_1", "in_progress"), named, ended("batch_3", "completed", "partial")];
    });
    insta::assert_snapshot!(daemon.run(&["list"]).code(0).out, @r"
    ID          NAME                     PROVIDER   STATUS       PROGRESS               ETA       AGE
    msgbatch_2  nightly evals\u{1b}[31m  anthropic  in_progress  –                      –    3 h 12 m
    batch_1                              openai     in_progress  ██░░░░░░ 120/400  30%  –    3 h 12 m
    ");
    let all = daemon.run(&["list", "--all"]).code(0).out;
    assert!(all.contains("completed") && all.contains("partial"), "{all}");
    let ends = daemon.run(&["list", "--status", "completed"]).code(0).out;
    assert!(ends.contains("batch_3") && !ends.contains("batch_1"), "{ends}");
    let mut narrow = daemon.batchd(&["list"]);
    let narrow = Run::of(narrow.env("COLUMNS", "60").output().unwrap()).code(0).out;
    assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
    assert!(!all.contains('\x1b'), "no colour where nobody looks");
}

#[test]
fn lists_are_whole_unless_limited_and_their_envelope_is_exact() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        world.page = 3;
        world.batches = (0..8).map(|n| batch("openai", &format!("batch_{n}"), "in_progress")).collect();
    });
    let list = daemon.run(&["list", "--json"]).code(0).json();
    let keys: Vec<&String> = list.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["object", "data", "first_id", "last_id", "has_more"]);
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"].as_array().unwrap().len(), 8);
    assert_eq!((&list["first_id"], &list["last_id"]), (&json!("openai:batch_7"), &json!("openai:batch_0")));
    assert_eq!(list["has_more"], false);
    let part = daemon.run(&["list", "--json", "--limit", "4"]).code(0).json();
    assert_eq!(part["data"].as_array().unwrap().len(), 4);
    assert_eq!((&part["last_id"], &part["has_more"]), (&json!("openai:batch_4"), &json!(true)));
    daemon.world(|world| world.batches.clear());
    assert_eq!(
        daemon.run(&["list", "--json"]).code(0).json(),
        json!({"object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false})
    );
}

#[test]
fn mine_are_those_of_this_user() {
    let daemon = Daemon::start();
    let me = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    daemon.world(|world| {
        let mut mine = batch("openai", "batch_mine", "in_progress");
        mine["batchd"]["owner"] = me.into();
        world.batches = vec![mine, batch("openai", "batch_theirs", "in_progress")];
    });
    let out = daemon.run(&["list", "--mine"]).code(0).out;
    assert!(out.contains("batch_mine") && !out.contains("batch_theirs"), "{out}");
}

#[test]
fn a_list_that_is_watched_comes_again_when_it_changes() {
    let daemon = Daemon::start();
    daemon.world(|world| world.batches = vec![batch("openai", "batch_1", "in_progress")]);
    let mut running = Running::start(daemon.batchd(&["list", "--watch"]));
    assert!(running.line().starts_with("ID"));
    assert!(running.line().contains("in_progress"));
    daemon.world(|world| world.batches.push(batch("openai", "batch_2", "validating")));
    daemon.world(|world| {
        let event = event(1, "batch.validating", &world.batches[1]);
        world.events.push(event);
    });
    assert_eq!(running.line(), "");
    assert!(running.line().starts_with("ID"));
    assert!(running.line().contains("batch_2"));
}

#[test]
fn a_batch_is_shown_on_a_page_and_as_it_is() {
    let daemon = Daemon::start();
    daemon.world(|world| world.batches = vec![batch("openai", "batch_1", "in_progress")]);
    let page = daemon.run(&["show", "openai:batch_1"]).code(0).out;
    assert!(page.starts_with("openai:batch_1\n  status      in_progress\n"), "{page}");
    let shown = daemon.run(&["show", "batch_1", "--json"]).code(0).json();
    assert_eq!(shown, daemon.world(|world| world.batches[0].clone()));
    assert!(daemon.world(|world| world.requests.last().unwrap().0.clone()).ends_with("?detail=true"));
    daemon.run(&["show", "batch_9"]).code(66).says("error: batch_9: no such batch\nhint: `batchd get`");
    daemon.world(|world| world.batches.push(batch("groq", "batch_1", "in_progress")));
    daemon.run(&["show", "batch_1"]).code(2).says("batch_1 is known at two providers");
}

#[test]
fn get_looks_at_what_is_not_tracked() {
    let daemon = Daemon::start();
    daemon.world(|world| world.elsewhere = vec![batch("gemini", "batches/x y", "in_progress")]);
    let got = daemon.run(&["get", "batches/x y", "--provider", "gemini", "--json"]).code(0).json();
    assert_eq!(got["id"], "batches/x y");
    let asked = daemon.world(|world| world.requests.last().unwrap().0.clone());
    assert_eq!(asked, "GET /v1/batches/batches%2Fx%20y?fetch=true&provider=gemini");
    daemon.run(&["get", "nope"]).code(66).says("error: nope: no such batch");
}

#[test]
fn the_event_log_is_read_whole_and_from_a_number() {
    let daemon = Daemon::start();
    daemon.run(&["events"]).code(0).says("no events yet");
    daemon.world(|world| {
        world.page = 2;
        let one = batch("openai", "batch_1", "in_progress");
        let two = ended("batch_2", "completed", "partial");
        world.batches = vec![one.clone(), two.clone()];
        world.events = vec![
            event(1, "batch.in_progress", &one),
            event(2, "batch.in_progress", &two),
            event(3, "batch.completed", &two),
        ];
    });
    insta::assert_snapshot!(daemon.run(&["events"]).code(0).out, @r"
     1  2026-11-18 11:06:40 UTC  batch.in_progress         openai:batch_1  120/400
     2  2026-11-18 11:06:40 UTC  batch.in_progress         openai:batch_2  partial, 398 of 400 succeeded, 2 failed
     3  2026-11-18 11:06:40 UTC  batch.completed           openai:batch_2  partial, 398 of 400 succeeded, 2 failed
    ");
    let log = daemon.run(&["events", "--json", "--after", "1"]).code(0).json();
    let numbers: Vec<i64> =
        log["data"].as_array().unwrap().iter().map(|event| event["sequence"].as_i64().unwrap()).collect();
    assert_eq!((numbers, &log["has_more"]), (vec![2, 3], &json!(false)));
    let of_one = daemon.run(&["events", "batch_2", "--json"]).code(0).json();
    assert_eq!(of_one["data"].as_array().unwrap().len(), 2);
}

#[test]
fn following_survives_a_restart_and_gives_each_event_once() {
    let mut daemon = Daemon::start();
    daemon.world(|world| world.batches = vec![batch("openai", "batch_1", "in_progress")]);
    let more = |daemon: &Daemon, sequence: i64| {
        daemon.world(|world| {
            let event = event(sequence, "batch.stalled", &world.batches[0]);
            world.events.push(event);
        });
    };
    more(&daemon, 1);
    let mut running = Running::start(daemon.batchd(&["events", "--follow", "--after", "0", "--json"]));
    let sequence = |line: &str| serde_json::from_str::<Value>(line).unwrap()["sequence"].as_i64();
    assert_eq!(sequence(&running.line()), Some(1));
    more(&daemon, 2);
    assert_eq!(sequence(&running.line()), Some(2));
    daemon.down();
    more(&daemon, 3);
    daemon.up();
    assert_eq!(sequence(&running.line()), Some(3));
    more(&daemon, 4);
    assert_eq!(sequence(&running.line()), Some(4));
}

#[test]
fn following_one_batch_joins_its_past_and_its_future() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        let (one, two) =
            (batch("openai", "batch_1", "in_progress"), batch("openai", "batch_2", "in_progress"));
        world.events = vec![event(1, "batch.in_progress", &one), event(2, "batch.in_progress", &two)];
        world.batches = vec![one, two];
    });
    let mut running = Running::start(daemon.batchd(&["events", "batch_2", "--follow", "--since", "1d"]));
    assert!(running.line().contains("batch.in_progress         openai:batch_2"));
    daemon.end("batch_1", "failed", "failed");
    daemon.end("batch_2", "cancelled", "cancelled");
    assert!(running.line().contains("batch.cancelled           openai:batch_2  cancelled"));
}

// Tracking.

#[test]
fn tracking_prints_a_line_a_batch_and_an_error_a_failure() {
    let daemon = Daemon::start();
    let run = daemon.run(&["track", "batch_1", "openai:batch_22"]).code(0);
    assert_eq!(run.out, "openai  batch_1   in_progress\nopenai  batch_22  in_progress\n");
    assert_eq!(run.err, "");
    let run = daemon
        .run(&["track", "batch_1", "batch_locked", "batch_nowhere", "batch_2"])
        .code(77)
        .says("error: batch_locked: openai refuses the key\nhint: ")
        .says("error: batch_nowhere: no such batch at openai\n")
        .says("2 of 4 are tracked\n");
    assert_eq!(run.out, "openai  batch_1  in_progress\nopenai  batch_2  in_progress\n");
    daemon.run(&["track", "batch_nowhere"]).code(66);
    daemon.run(&["track", "batch_down"]).code(1);
    let listing = daemon.run(&["track", "batch_1", "batch_nowhere", "--json"]).code(66).json();
    assert_eq!((&listing["object"], listing["data"].as_array().unwrap().len()), (&json!("list"), 2));
}

#[test]
fn what_is_said_of_a_batch_goes_with_it() {
    let daemon = Daemon::start();
    daemon
        .run(&[
            "track",
            "b",
            "--provider",
            "p",
            "--name",
            "n",
            "--label",
            "k=v=w",
            "--label",
            "e=",
            "--notify",
            "ops",
            "--deadline",
            "6h",
            "--no-check",
        ])
        .code(0);
    daemon.run(&["track", "b", "--no-notify"]).code(0);
    let bodies: Vec<Value> =
        daemon.world(|world| world.requests.iter().map(|(_, body)| body.clone()).collect());
    assert_eq!(
        bodies,
        [
            json!({"items": [{"id": "b", "provider": "p", "name": "n", "labels": {"e": "", "k": "v=w"},
                "notify": ["ops"], "deadline": "6h", "check": false}]}),
            json!({"items": [{"id": "b", "no_notify": true}]}),
        ]
    );
}

#[test]
fn a_hundred_thousand_ids_come_from_standard_input_at_once() {
    let daemon = Daemon::start();
    let lines = (0..100_000).map(|number| format!("batch_{number:032}"));
    let ids = ["# what to watch".to_owned(), String::new()].into_iter().chain(lines);
    let ids = ids.collect::<Vec<_>>().join("\n");
    let input = daemon.home.path().join("ids");
    std::fs::write(&input, ids).unwrap();
    let mut command = daemon.batchd(&["track", "-"]);
    let run = Run::of(command.stdin(std::fs::File::open(input).unwrap()).output().unwrap()).code(0);
    assert_eq!(run.out.lines().count(), 100_000);
    let sizes: Vec<usize> = daemon.world(|world| {
        world.requests.iter().map(|(_, body)| body["items"].as_array().unwrap().len()).collect()
    });
    assert_eq!(sizes, [100_000]);
}

#[test]
fn several_ids_stand_alone() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        world.batches =
            vec![batch("openai", "batch_1", "in_progress"), batch("openai", "batch_2", "in_progress")];
    });
    daemon
        .run(&["untrack", "batch_1", "batch_9", "batch_2"])
        .code(66)
        .says("batch_1: no longer watched\nerror: batch_9: no such batch\nbatch_2: no longer watched\n");
    let run = daemon.run(&["poll", "batch_9", "batch_2"]).code(66);
    assert_eq!(run.out, "openai  batch_2  in_progress\n");
    daemon.run(&["poll", "--all"]).code(0).says("7 batches are due now");
    daemon.run(&["untrack", "--purge", "batch_1"]).code(0);
    let asked = daemon.world(|world| world.requests.last().unwrap().0.clone());
    assert_eq!(asked, "DELETE /v1/batches/batch_1?purge=true");
}

// Waiting.

#[test]
fn waiting_exits_as_the_batch_ended() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        world.batches = vec![
            ended("good", "completed", "succeeded"),
            ended("part", "completed", "partial"),
            ended("none", "completed", "all_failed"),
            ended("bad", "failed", "failed"),
            ended("late", "expired", "expired_with_output"),
            ended("gone", "cancelled", "cancelled"),
            batch("openai", "live", "in_progress"),
        ];
    });
    let good = daemon.run(&["wait", "good"]).code(0);
    assert_eq!((good.out.as_str(), good.err.as_str()), ("openai  good  completed    succeeded\n", ""));
    daemon.run(&["wait", "part"]).code(0).says("warning: openai:part: 2 of 400 requests failed");
    daemon.run(&["wait", "part", "--strict"]).code(3);
    daemon.run(&["wait", "none"]).code(3);
    daemon.run(&["wait", "bad"]).code(3);
    daemon.run(&["wait", "late"]).code(4);
    daemon.run(&["wait", "gone"]).code(5);
    daemon.run(&["wait", "good", "gone", "late", "bad"]).code(3);
    daemon.run(&["wait", "gone", "late", "good"]).code(4);
    daemon.run(&["wait", "live", "--timeout", "1s"]).code(124).says("1 batch has not ended within 1 s");
    daemon.run(&["wait", "live", "late", "--timeout", "0s"]).code(4);
    let any = daemon.run(&["wait", "--any", "live", "gone", "bad"]).code(5);
    assert_eq!(any.out, "openai  gone  cancelled    cancelled\n");
    let json = daemon.run(&["wait", "good", "part", "--json"]).code(0).json();
    assert_eq!(json["data"][1]["batchd"]["outcome"], "partial");
}

#[test]
fn waiting_tracks_what_is_not_tracked() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        let mut untracked = batch("openai", "dropped", "in_progress");
        untracked["batchd"]["untracked_at"] = "2026-11-18T11:06:40Z".into();
        world.batches = vec![untracked];
        world.elsewhere = vec![ended("new", "failed", "failed")];
    });
    daemon.run(&["wait", "new"]).code(3);
    daemon.run(&["wait", "dropped", "--timeout", "0s"]).code(124);
    let tracked: Vec<String> = daemon.world(|world| {
        world.requests.iter().map(|(line, _)| line.clone()).filter(|line| line.starts_with("PUT")).collect()
    });
    assert_eq!(tracked, ["PUT /v1/batches/new", "PUT /v1/batches/dropped"]);
    daemon.run(&["wait", "nowhere"]).code(66).says("error: nowhere: no such batch");
    daemon.run(&["wait", "batch_locked"]).code(77).says("openai refuses the key");
    daemon.run(&["wait", "nowhere", "new"]).code(66);
}

#[test]
fn waiting_ends_with_the_event() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        world.batches = ["a", "b"].iter().map(|id| batch("openai", id, "in_progress")).collect();
    });
    let mut running = Running::start(daemon.batchd(&["wait", "a", "openai:b"]));
    daemon.until(|world| world.streams == 1);
    daemon.end("b", "expired", "expired");
    assert_eq!(running.line(), "openai  b  expired      expired");
    daemon.end("a", "completed", "succeeded");
    let run = running.finish().code(4);
    assert_eq!(run.out, "openai  a  completed    succeeded\n");
}

#[test]
fn waiting_survives_a_restart_of_the_daemon() {
    let mut daemon = Daemon::start();
    daemon.world(|world| world.batches = vec![batch("openai", "a", "in_progress")]);
    let running = Running::start(daemon.batchd(&["wait", "a"]));
    daemon.until(|world| world.streams == 1);
    daemon.down();
    daemon.end("a", "cancelled", "cancelled");
    daemon.up();
    let run = running.finish().code(5);
    assert_eq!(run.out, "openai  a  cancelled    cancelled\n");
    assert!(run.err.matches("waiting continues").count() <= 1, "{}", run.err);
}

#[test]
fn waiting_notices_what_is_untracked_meanwhile() {
    let mut daemon = Daemon::start();
    daemon.world(|world| world.batches = vec![batch("openai", "a", "in_progress")]);
    let running = Running::start(daemon.batchd(&["wait", "a"]));
    daemon.until(|world| world.streams == 1);
    daemon.run(&["untrack", "a"]).code(0);
    // A restart makes it look again at once.
    daemon.down();
    daemon.up();
    daemon.until(|world| world.streams >= 2);
    running.finish().code(1).says("error: a: it was untracked meanwhile");
}

// Looking after the daemon.

#[test]
fn a_backup_is_whole_and_private_or_not_there() {
    let daemon = Daemon::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("copy.db");
    let name = file.to_str().unwrap();
    let entries = || std::fs::read_dir(directory.path()).unwrap().count();

    daemon.run(&["backup", name]).code(0).says("390 KiB");
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!((bytes.len(), bytes[0], bytes[399_999]), (400_000, b'a', b'd'));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    std::fs::write(&file, "precious").unwrap();
    daemon.run(&["backup", name]).code(1).says("exists\nhint: --force replaces it");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    daemon.run(&["backup", "--force", name]).code(0);
    assert_eq!(std::fs::read(&file).unwrap().len(), 400_000);

    daemon.world(|world| world.cut_backup = true);
    daemon.run(&["backup", "--force", name]).code(69).says("connection to the daemon was lost");
    assert_eq!(std::fs::read(&file).unwrap().len(), 400_000);
    assert_eq!(entries(), 1, "nothing half-written is left");
    daemon.run(&["backup", "/nowhere/copy.db"]).code(1).says("no such file or directory");
}

#[test]
fn a_webhook_test_shows_the_answer() {
    let daemon = Daemon::start();
    let good = daemon.run(&["webhooks", "test", "good", "--event", "batch.failed"]).code(0);
    assert_eq!(good.out, "✓ good: delivered, HTTP 200, 12 ms\n    hello\\u{1b}[2J\n    world\n");
    let bad = daemon.run(&["webhooks", "test", "bad", "--event", "batch.failed"]).code(1);
    assert!(
        bad.out.starts_with("✗ bad: not delivered, HTTP 500, 12 ms: 500 Internal Server Error\n"),
        "{}",
        bad.out
    );
    let json = daemon.run(&["webhooks", "test", "bad", "--event", "batch.failed", "--json"]).code(1).json();
    assert_eq!(json["delivered"], false);
}

#[test]
fn providers_are_checked_one_line_each() {
    let daemon = Daemon::start();
    assert_eq!(daemon.run(&["providers", "check"]).code(0).out, "✓ gemini  ok (5 ms)\n");
    let refused = daemon.run(&["providers", "check", "openai"]).code(77).out;
    assert_eq!(refused, "✗ openai  401: invalid key (5 ms)\n          set OPENAI_API_KEY to a valid key\n");
    daemon.run(&["providers", "check", "mistral"]).code(1);
}

#[test]
fn a_refused_reload_says_why() {
    let daemon = Daemon::start();
    daemon
        .run(&["reload"])
        .code(78)
        .says("error: config.toml:3:1: unknown key `pollin`\nconfig.toml:9:1: `url` is missing\n");
}

#[test]
fn deliveries_are_listed_and_sent_again() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        let delivery = |id: &str, state: &str| {
            json!({"id": id, "object": "delivery", "event_id": "evt_1", "type": "batch.completed",
                "batch_id": "batch_1", "provider": "openai", "webhook": "ops", "state": state, "attempts": 2,
                "next_attempt_at": null, "last_error": "500"})
        };
        world.page = 1;
        world.deliveries = vec![delivery("42", "dead"), delivery("41", "delivered")];
    });
    let all = daemon.run(&["deliveries", "--json"]).code(0).json();
    assert_eq!(all["data"].as_array().unwrap().len(), 2);
    assert_eq!(all["data"][0]["state"], "dead");
    let dead = daemon.run(&["deliveries", "--state", "dead"]).code(0).out;
    assert!(dead.contains("42") && !dead.contains("41"), "{dead}");
    daemon.run(&["deliveries", "retry", "41"]).code(0).says("41: due now");
    daemon.run(&["deliveries", "retry", "7", "41"]).code(1).says("error: 7: no such delivery\n41: due now");
    daemon
        .run(&["deliveries", "retry", "--dead", "--webhook", "ops"])
        .code(0)
        .says("3 deliveries are due now");
    let asked = daemon.world(|world| world.requests.last().unwrap().clone());
    assert_eq!(asked, ("POST /v1/deliveries/retry".to_owned(), json!({"webhook": "ops"})));
}

#[test]
fn over_http_the_token_is_sent() {
    let daemon = Daemon::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let app = router(Arc::clone(&daemon.shared));
    daemon
        .runtime
        .as_ref()
        .unwrap()
        .handle()
        .spawn(async move { axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), app).await });
    let host = format!("http://{address}");
    let mut command = bare(&daemon.home, &["--host", &host, "status"]);
    Run::of(command.env("BATCHD_TOKEN", "t0ken").output().unwrap()).code(0);
    daemon.run(&["status"]).code(0);
    assert_eq!(daemon.world(|world| world.tokens.clone()), ["Bearer t0ken"]);
}

#[test]
fn the_status_is_one_screen() {
    let daemon = Daemon::start();
    insta::assert_snapshot!(daemon.run(&["status"]).code(0).out, @r"
    attention  nothing needs a person
    batchd     0.1.0, ready, up 4 h 6 m, since 2026-11-18 07:00:00 UTC, pid 1
    config     no file; keys come from the environment
    state      /var/lib/batchd
    batches    none yet
    polling    nothing due
    events     0
    owed       nothing
    providers  none
    webhooks   none
    ");
    let report: BTreeMap<String, Value> =
        serde_json::from_str(&daemon.run(&["status", "--json"]).code(0).out).unwrap();
    assert!(report.contains_key("uptime_seconds"));
}
