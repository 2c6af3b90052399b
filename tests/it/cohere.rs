//! Cohere from a file of OpenAI's requests to results, with the real binary and a stand-in that keeps datasets: what is
//! uploaded, the Avro files that fastavro wrote, and files that end too early.

use crate::world::{World, until};
use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;

const CHAT: &[u8] = include_bytes!("../fixtures/avro/chat_deflate.avro");
const EMBED: &[u8] = include_bytes!("../fixtures/avro/embed_deflate.avro");
/// The ids of the records of both.
const IDS: [&str; 7] = ["row-1", "row-2", "row-3", "row-4", "1", "2", "3"];

#[derive(Clone)]
struct Service(Arc<Mutex<Kept>>);

struct Kept {
    address: SocketAddr,
    /// The files that were uploaded, by the names of their datasets, as lines.
    datasets: BTreeMap<String, String>,
    batches: Vec<Value>,
    /// How often each dataset was asked for.
    checks: BTreeMap<String, usize>,
    /// Whether the first part of the output ends in its middle.
    is_cut: bool,
}

async fn serve(State(service): State<Service>, Path(path): Path<String>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let is_signed = path.starts_with("signed/");
    assert_eq!(head.headers.contains_key("authorization"), !is_signed, "{path}");
    let mut kept = service.0.lock().unwrap();
    let steps: Vec<&str> = path.split('/').collect();
    match (head.method.as_str(), steps.as_slice()) {
        ("POST", ["v1", "datasets"]) => {
            let query: BTreeMap<String, String> =
                url::form_urlencoded::parse(head.uri.query().unwrap().as_bytes()).into_owned().collect();
            assert_eq!(
                (query["type"].as_str(), query["keep_original_file"].as_str()),
                ("batch-chat-v2-input", "true")
            );
            let text = String::from_utf8(body.to_vec()).unwrap();
            assert!(text.contains("name=\"data\"; filename=\"bd-"), "{text}");
            let (_, content) = text.split_once("\r\n\r\n").unwrap();
            let (content, _) = content.rsplit_once("\r\n--").unwrap();
            let id = format!("{}-x7", query["name"]);
            kept.datasets.insert(id.clone(), content.to_owned());
            json!({"id": id}).to_string().into_response()
        }
        ("GET", ["v1", "datasets", id]) => {
            let checks = kept.checks.entry((*id).to_owned()).or_default();
            *checks += 1;
            let status = if *checks == 1 { "processing" } else { "validated" };
            let url = |path: &str| format!("http://{}/signed/{path}", kept.address);
            let parts = if id.starts_with("out-") {
                json!([{"index": 1, "url": url("embed")}, {"index": 0, "url": url("chat")}])
            } else {
                json!([{"index": 0, "url": url("avro"), "original_url": url(&format!("original/{id}"))}])
            };
            let parts = if status == "validated" { parts } else { json!([]) };
            json!({"dataset": {"id": id, "validation_status": status, "dataset_parts": parts}})
                .to_string()
                .into_response()
        }
        ("POST", ["v2", "batches"]) => {
            let asked: Value = serde_json::from_slice(&body).unwrap();
            assert!(kept.datasets.contains_key(asked["input_dataset_id"].as_str().unwrap()), "{asked}");
            let batch = json!({
                "id": format!("b-{}", kept.batches.len() + 1), "name": asked["name"], "model": asked["model"],
                "status": "BATCH_STATUS_QUEUED", "created_at": "2026-11-18T11:06:40.123456Z",
                "updated_at": "2026-11-18T11:06:40.123456Z", "input_dataset_id": asked["input_dataset_id"],
                "output_dataset_id": null, "input_tokens": "0", "output_tokens": "0", "num_records": 7,
                "num_successful_records": 0, "num_failed_records": 0, "status_reason": "",
            });
            kept.batches.push(batch.clone());
            json!({"batch": batch}).to_string().into_response()
        }
        ("GET", ["v2", "batches"]) => {
            json!({"batches": kept.batches, "next_page_token": ""}).to_string().into_response()
        }
        ("GET", ["v2", "batches", id]) => match kept.batches.iter().find(|batch| batch["id"] == *id) {
            Some(batch) => json!({"batch": batch}).to_string().into_response(),
            None => (StatusCode::NOT_FOUND, json!({"message": "not found"}).to_string()).into_response(),
        },
        ("GET", ["signed", "chat"]) if kept.is_cut => CHAT[..CHAT.len() - 100].into_response(),
        ("GET", ["signed", "chat"]) => CHAT.into_response(),
        ("GET", ["signed", "embed"]) => Bytes::from_static(EMBED).into_response(),
        ("GET", ["signed", "original", id]) => kept.datasets[*id].clone().into_response(),
        other => panic!("{other:?}"),
    }
}

struct Setting {
    world: World,
    service: Service,
    _runtime: Runtime,
}

impl Setting {
    fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let service = Service(Arc::new(Mutex::new(Kept {
            address,
            datasets: BTreeMap::new(),
            batches: Vec::new(),
            checks: BTreeMap::new(),
            is_cut: false,
        })));
        let app = Router::new().route("/{*path}", axum::routing::any(serve)).with_state(service.clone());
        runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let world = World::new();
        world.configure(&format!(
            "[providers.cohere]\napi_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"http://{address}\"\n"
        ));
        let line = |id: &&str| {
            let body = json!({"model": "command-a-03-2025", "max_completion_tokens": 9, "top_p": 0.5,
                "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": id}]});
            json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body})
                .to_string()
        };
        let lines: Vec<String> = IDS.iter().map(line).collect();
        std::fs::write(world.directory.path().join("in.jsonl"), lines.join("\n") + "\n").unwrap();
        Self { world, service, _runtime: runtime }
    }

    /// Submits the file; the batch ends before it is looked for.
    fn ended(&self) -> String {
        let input = self.world.directory.path().join("in.jsonl");
        let arguments = ["submit", input.to_str().unwrap(), "--provider", "cohere", "--name", "nightly"];
        let id = self.world.ok(&arguments).trim().to_owned();
        let mut kept = self.service.0.lock().unwrap();
        let batch = kept.batches.iter_mut().find(|batch| batch["id"] == id.as_str()).unwrap();
        batch["status"] = "BATCH_STATUS_COMPLETED".into();
        batch["output_dataset_id"] = "out-x7".into();
        batch["num_successful_records"] = 6.into();
        batch["num_failed_records"] = 1.into();
        kept.checks.insert("out-x7".to_owned(), 1);
        drop(kept);
        self.world.ok(&["poll", &id]);
        until("the end is seen", || {
            (self.world.json(&["show", &id, "--json"])["status"] == "completed").then_some(())
        });
        id
    }
}

fn read(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_file_becomes_a_dataset_and_avro_files_become_lines() {
    let setting = Setting::new();
    let world = &setting.world;
    let _daemon = world.daemon();
    let id = setting.ended();
    assert_eq!(id, "b-1");
    let (dataset, sent) = setting
        .service
        .0
        .lock()
        .unwrap()
        .datasets
        .first_key_value()
        .map(|(id, sent)| (id.clone(), sent.clone()))
        .unwrap();
    let text = |text: &str| json!([{"type": "text", "text": text}]);
    let of = |id: &str| {
        json!({"custom_id": id, "body": {
            "messages": [{"role": "system", "content": text("be brief")}, {"role": "user", "content": text(id)}],
            "max_tokens": 9, "p": 0.5,
        }})
    };
    assert_eq!(read(&sent), IDS.map(of));
    let shown = world.json(&["show", &id, "--json"]);
    assert_eq!((&shown["input_file_id"], &shown["endpoint"]), (&json!(dataset), &json!("/v2/chat")));
    assert_eq!(
        (&shown["batchd"]["name"], &shown["batchd"]["outcome"]),
        (&json!("nightly"), &json!("partial"))
    );
    assert_eq!(shown["output_file_id"], json!("results:cohere:b-1"));

    let lines = read(&world.ok(&["results", &id]));
    let ids: Vec<&str> = lines.iter().map(|line| line["custom_id"].as_str().unwrap()).collect();
    assert_eq!(ids, IDS, "the parts in their order");
    let body = |place: usize| &lines[place]["response"]["body"];
    assert_eq!(body(0)["choices"][0]["message"]["content"], json!("Grüße, \"Welt\" 🌳\n"));
    assert_eq!(body(0)["usage"]["total_tokens"], json!(10));
    assert_eq!(lines[1]["error"]["message"], json!("invalid request: model not found"));
    assert_eq!(body(2)["choices"][0]["finish_reason"], json!("tool_calls"));
    assert_eq!(body(3)["choices"][0]["finish_reason"], json!("length"));
    assert_eq!(body(4)["data"][0]["embedding"], json!([-0.097_440_25, 0.5, 0.0]));
    let raw = read(&world.ok(&["results", &id, "--format", "raw"]));
    assert_eq!(raw.len(), 7);
    assert_eq!(raw[0]["body"]["message"]["content"][0]["thinking"], json!("The user greets."));

    // What failed is submitted again from the lines that Cohere has kept: nothing is kept here.
    let again = world.ok(&["resubmit", &id]);
    assert_eq!(again.trim(), "b-2");
    let kept = setting.service.0.lock().unwrap();
    let sent = kept.datasets.iter().find(|(id, _)| **id != dataset).unwrap().1;
    assert_eq!(read(sent), [of("row-2")]);
}

#[test]
fn an_avro_file_that_ends_early_is_no_whole_result() {
    let setting = Setting::new();
    let world = &setting.world;
    let _daemon = world.daemon();
    let id = setting.ended();
    setting.service.0.lock().unwrap().is_cut = true;
    let path = world.directory.path().join("out.jsonl");
    let output = world.batchd(&["results", &id, "-o", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("end in the middle of record"), "{told}");
    assert!(!path.exists());
    setting.service.0.lock().unwrap().is_cut = false;
    world.ok(&["results", &id, "-o", path.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 7);
}
