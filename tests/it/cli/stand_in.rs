//! An API on a socket of the test's own, in the place of a daemon.

use super::program::{Run, bare};
use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// What the API knows.
#[derive(Default)]
pub struct World {
    /// Tracked batches, oldest first.
    pub batches: Vec<Value>,
    /// Batches that exist at the provider and are not tracked.
    pub elsewhere: Vec<Value>,
    pub events: Vec<Value>,
    pub deliveries: Vec<Value>,
    /// The longest page that is given.
    pub page: usize,
    /// Requests that were answered: `METHOD path?query`, and the body.
    pub requests: Vec<(String, Value)>,
    /// Live streams that were begun.
    pub streams: u64,
    /// The tokens that were sent.
    pub tokens: Vec<String>,
    /// A body that breaks off after so many bytes.
    pub cut_backup: bool,
}

pub type Shared = Arc<(Mutex<World>, Condvar, tokio::sync::watch::Sender<u64>)>;

/// An API on a socket, which can be stopped and started again.
pub struct Daemon {
    pub home: TempDir,
    pub shared: Shared,
    pub runtime: Option<tokio::runtime::Runtime>,
}

impl Daemon {
    pub fn start() -> Self {
        let world = World { page: 1000, ..World::default() };
        let shared = Arc::new((Mutex::new(world), Condvar::new(), tokio::sync::watch::Sender::new(0)));
        let mut daemon = Self { home: tempfile::tempdir().unwrap(), shared, runtime: None };
        daemon.up();
        daemon
    }

    pub fn socket(&self) -> PathBuf {
        self.home.path().join("batchd.sock")
    }

    pub fn up(&mut self) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(self.socket()).unwrap() });
        let app = router(Arc::clone(&self.shared));
        runtime.handle().spawn(async move { axum::serve(listener, app).await });
        self.runtime = Some(runtime);
    }

    pub fn down(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(5));
        std::fs::remove_file(self.socket()).unwrap();
    }

    pub fn world<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        let done = work(&mut self.shared.0.lock().unwrap());
        self.shared.2.send_modify(|version| *version += 1);
        done
    }

    /// Blocks until the world is so.
    pub fn until(&self, what: impl Fn(&World) -> bool) {
        let world = self.shared.0.lock().unwrap();
        let (world, late) =
            self.shared.1.wait_timeout_while(world, Duration::from_mins(1), |world| !what(world)).unwrap();
        assert!(!late.timed_out(), "never came: {:#?}", world.requests);
    }

    /// `batchd`, talking to this API.
    pub fn batchd(&self, arguments: &[&str]) -> Command {
        let mut command = bare(&self.home, arguments);
        command.env("BATCHD_HOST", format!("unix://{}", self.socket().display()));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        Run::of(self.batchd(arguments).output().unwrap())
    }

    /// Ends a batch, with its event.
    pub fn end(&self, id: &str, status: &str, outcome: &str) {
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

/// A batch in the contract's shape, created three hours, twelve minutes and a half ago.
pub fn batch(provider: &str, id: &str, status: &str) -> Value {
    let now = batchd::clock::Clock::system().now().as_second();
    json!({
        "id": id, "object": "batch", "endpoint": "/v1/responses", "input_file_id": "file-in",
        "completion_window": "24h", "status": status, "created_at": now - 11_550,
        "request_counts": {"total": 400, "completed": 120, "failed": 0},
        "batchd": {"provider": provider, "kind": provider, "provider_status": status, "outcome": null, "name": null,
            "labels": {}, "owner": null, "untracked_at": null, "last_error": null, "stalled": false, "lost": false}
    })
}

pub fn ended(id: &str, status: &str, outcome: &str) -> Value {
    let mut batch = batch("openai", id, status);
    batch["batchd"]["outcome"] = outcome.into();
    batch["request_counts"] = json!({"total": 400, "completed": 398, "failed": 2});
    batch
}

pub fn event(sequence: i64, kind: &str, batch: &Value) -> Value {
    json!({
        "id": format!("evt_{sequence}"), "object": "event", "type": kind, "sequence": sequence,
        "created_at": 1_795_000_000, "timestamp": "2026-11-18T11:06:40.000Z",
        "data": {"id": batch["id"], "provider": batch["batchd"]["provider"], "status": batch["status"],
            "outcome": batch["batchd"]["outcome"], "severity": "info", "batch": batch}
    })
}

// The API, as api.rs and `docs/contract.md#http-api` describe it.

type Pairs = Query<Vec<(String, String)>>;

pub fn router(shared: Shared) -> Router {
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
