//! What changes state runs to its end, whatever becomes of its client; a configuration is taken whole or not at all.

use crate::world::{World, until};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use batchd::rng::Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A provider that thinks before it answers, and on which batches are created.
#[derive(Clone, Default)]
struct Service(Arc<Mutex<Batches>>);

#[derive(Default)]
struct Batches {
    ended: bool,
    created: BTreeMap<String, Value>,
}

impl Service {
    /// A batch as it is now.
    fn shape(&self, id: &str) -> Value {
        let ended = self.0.lock().unwrap().ended;
        let mut batch = json!({
            "id": id, "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-in",
            "completion_window": "24h", "status": if ended { "completed" } else { "in_progress" },
            "created_at": batchd::clock::Clock::system().now().as_second() - 5,
            "request_counts": {"total": 1, "completed": i32::from(ended), "failed": 0},
        });
        if ended {
            batch["output_file_id"] = "file-out".into();
        }
        batch
    }

    fn add(&self, id: &str) {
        let shape = self.shape(id);
        self.0.lock().unwrap().created.insert(id.to_owned(), shape);
    }
}

/// Long enough for a client to go meanwhile.
const THOUGHT: Duration = Duration::from_millis(30);

async fn think() {
    tokio::time::sleep(THOUGHT).await;
}

async fn retrieve(State(service): State<Service>, Path(id): Path<String>) -> Response {
    think().await;
    Json(service.shape(&id)).into_response()
}

async fn create(State(service): State<Service>) -> Response {
    let number = service.0.lock().unwrap().created.len();
    let id = format!("batch_created{number}");
    // It exists from the moment that the provider has the request.
    service.add(&id);
    think().await;
    Json(service.shape(&id)).into_response()
}

async fn list(State(service): State<Service>) -> Response {
    think().await;
    let ids: Vec<String> = service.0.lock().unwrap().created.keys().cloned().collect();
    let data: Vec<Value> = ids.iter().map(|id| service.shape(id)).collect();
    Json(json!({"object": "list", "data": data, "has_more": false})).into_response()
}

fn serve(runtime: &tokio::runtime::Runtime, service: Service) -> SocketAddr {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new()
        .route("/v1/batches", get(list).post(create))
        .route("/v1/batches/{id}", get(retrieve))
        .with_state(service);
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

fn slow(address: SocketAddr) -> String {
    format!(
        "[providers.slow]\nkind = \"openai\"\napi_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"http://{address}/v1\"\n"
    )
}

/// Sends these bytes, and hangs up after a while whatever comes.
fn hang_up(world: &World, request: &[u8], after: Duration) {
    let mut stream = UnixStream::connect(world.socket()).unwrap();
    stream.write_all(request).unwrap();
    stream.set_read_timeout(Some(after.max(Duration::from_micros(1)))).unwrap();
    let _ = stream.read(&mut [0; 1]);
}

fn request(method: &str, path: &str, body: &Value) -> Vec<u8> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    format!(
        "{method} {path} HTTP/1.1\r\nhost: batchd\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The whole answer: status and body.
fn exchange(world: &World, request: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(world.socket()).unwrap();
    let text = String::from_utf8(request.to_vec()).unwrap().replacen("\r\n", "\r\nconnection: close\r\n", 1);
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn tracked(world: &World, more: &[&str]) -> Vec<String> {
    let arguments = [&["list", "--json", "--limit", "1000"], more].concat();
    let listed = world.json(&arguments);
    listed["data"].as_array().unwrap().iter().map(|batch| batch["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_a_client_began_is_finished_although_it_hangs_up() {
    const ROUNDS: u64 = 15;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let service = Service::default();
    let address = serve(&runtime, service.clone());
    let world = World::new();
    world.configure(&slow(address));
    let daemon = world.daemon();
    let rng = Rng::seeded(7);
    let seed = |what: &str| {
        let at = jiff::Timestamp::from_second(1_795_000_000).unwrap();
        Duration::from_secs_f64(0.09 * rng.jitter_of(what, at))
    };
    for round in 0..ROUNDS {
        service.add(&format!("batch_listed{round}"));
        let requests = [
            request("PUT", &format!("/v1/batches/slow:batch_put{round}"), &Value::Null),
            request(
                "POST",
                "/v1/batches/track",
                &json!({"items": [{"id": format!("slow:batch_many{round}")}]}),
            ),
            request("POST", "/v1/discover", &json!({"provider": "slow", "track": true})),
            request("POST", "/providers/slow/v1/batches", &json!({"input_file_id": "file-in"})),
            request("POST", "/v1/reload", &Value::Null),
        ];
        for (number, request) in requests.iter().enumerate() {
            hang_up(&world, request, seed(&format!("{round} {number}")));
        }
    }
    // What was created at the provider is tracked, and what is listed as active is checked.
    let created: Vec<String> = service.0.lock().unwrap().created.keys().cloned().collect();
    let created = created.into_iter().filter(|id| id.starts_with("batch_created"));
    let created: Vec<String> = created.collect();
    // Of a client that goes at once the server may never see the request.
    assert!(created.len() as u64 > ROUNDS / 2, "most creations reached the provider: {created:?}");
    until("all that was created is tracked", || {
        let all = tracked(&world, &[]);
        created.iter().all(|id| all.contains(id)).then_some(())
    });
    let hung_up = batchd::clock::Clock::system().now();
    until("everything that is active is checked from now on too", || {
        let batches = world.json(&["list", "--json", "--limit", "1000"]);
        let checked = |batch: &Value| {
            let at = batch["batchd"]["last_polled_at"].as_str();
            at.is_some_and(|at| at.parse::<jiff::Timestamp>().unwrap() > hung_up)
        };
        batches["data"].as_array().unwrap().iter().all(checked).then_some(())
    });
    // Every webhook has its worker, and every account its poller: the ends arrive.
    service.0.lock().unwrap().ended = true;
    let all = tracked(&world, &[]);
    assert!(all.len() as u64 >= ROUNDS, "{all:?}");
    until("all ends are seen", || tracked(&world, &[]).is_empty().then_some(()));
    world.receiver.wait_for("/hooks", all.len());
    let metrics = exchange(&world, &request("GET", "/metrics", &Value::Null)).1;
    let repaired = metrics.lines().find(|line| line.starts_with("batchd_schedule_repaired_total{")).unwrap();
    assert!(repaired.ends_with(" 0"), "nothing had to be repaired: {repaired}");
    assert_eq!(exchange(&world, &request("GET", "/readyz", &Value::Null)).0, 200);
    daemon.terminate();
}

#[test]
fn nothing_is_done_of_half_a_request() {
    let world = World::new();
    world.provider.put("batch_half", "in_progress", &json!({}));
    let daemon = world.daemon();
    let body = json!({"items": [{"id": "batch_half", "check": false}]}).to_string();
    let head = "POST /v1/batches/track HTTP/1.1\r\nhost: batchd\r\ncontent-type: application/json\r\n";
    // Whole JSON each, but not the whole body.
    let halves = [
        format!("{head}content-length: {}\r\n\r\n{body}", body.len() + 1),
        format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len()),
    ];
    for half in &halves {
        for wait in [0, 1, 5, 20] {
            hang_up(&world, half.as_bytes(), Duration::from_millis(wait));
        }
    }
    // Whatever was begun has ended by the time that the daemon has.
    daemon.terminate();
    let daemon = world.daemon();
    assert_eq!(tracked(&world, &["--all"]), Vec::<String>::new());
    let whole = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    assert_eq!(exchange(&world, whole.as_bytes()).0, 200);
    assert_eq!(tracked(&world, &["--all"]), ["batch_half"]);
    daemon.terminate();
}

#[test]
fn a_reload_that_the_state_refuses_changes_nothing() {
    let world = World::new();
    let daemon = world.daemon();
    world.ok(&["status"]);
    let old = std::fs::read_to_string(world.config()).unwrap();
    let new = old
        .replace("[api]", "[api]\ntoken = { env = \"TEST_TOKEN\" }")
        .replace("[webhooks.ops]", "[webhooks.other]")
        + &format!(
            "[providers.second]\nkind = \"openai\"\napi_key = {{ env = \"TEST_KEY\" }}\n\
             webhook_secret = {{ env = \"TEST_SIGNING\" }}\nbase_url = \"http://{}/v1\"\n",
            world.provider_address
        );
    let names = |command: &str| {
        let listed = world.json(&[command, "--json"]);
        let data = listed["data"].as_array().unwrap().iter();
        let mut names: Vec<String> = data.map(|entry| entry["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let hook = || exchange(&world, &request("POST", "/hooks/second", &json!({}))).0;
    let database = world.state().join("batchd.db");
    let fault = |sql: &str| {
        let connection = rusqlite::Connection::open(&database).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection.execute_batch(sql).unwrap();
    };
    for (broken, mended) in [
        ("ALTER TABLE providers RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO providers"),
        (
            "ALTER TABLE checks RENAME COLUMN created_at TO elsewhere",
            "ALTER TABLE checks RENAME COLUMN elsewhere TO created_at",
        ),
        (
            "CREATE TRIGGER fault BEFORE UPDATE OF configured ON webhooks BEGIN SELECT RAISE(ABORT, 'no'); END",
            "DROP TRIGGER fault",
        ),
    ] {
        std::fs::write(world.config(), &new).unwrap();
        fault(broken);
        let refused = world.batchd(&["reload"]);
        assert!(!refused.status.success(), "{broken}: {refused:?}");
        fault(mended);
        assert!(!daemon.is_over(), "{broken}: {}", daemon.log());
        assert_eq!(names("providers"), ["openai"], "{broken}");
        assert_eq!(names("webhooks"), ["ops", "pipeline"], "{broken}");
        assert_eq!(hook(), 404, "{broken}");
        let shown = world.ok(&["config", "show"]);
        assert!(!shown.contains("second") && !shown.contains("other"), "{broken}: {shown}");
        // It works as before: what ends is told to the old webhooks.
        let id = format!("batch_{}", broken.len());
        let before = world.receiver.received("/slack").len();
        world.provider.complete(&id);
        world.ok(&["track", &format!("openai:{id}")]);
        world.receiver.wait_for("/slack", before + 1);
    }
    world.ok(&["reload"]);
    assert_eq!(names("providers"), ["openai", "second"]);
    assert_eq!(names("webhooks"), ["other", "pipeline"]);
    assert_eq!(hook(), 400, "it is open, and wants a signature");
    daemon.terminate();
}
