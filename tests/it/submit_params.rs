//! What the user adds to a creation in the provider's own words, from the command line and over HTTP to the provider.

use crate::creating::{exchange, request};
use crate::world::{World, until};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::Uri;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// The bodies of creations.
type Created = Arc<Mutex<Vec<Value>>>;

async fn service(State(created): State<Created>, uri: Uri, body: Bytes) -> String {
    if uri.path().ends_with("/files") {
        return json!({"id": "file-1", "object": "file", "status": "processed"}).to_string();
    }
    let mut created = created.lock().unwrap();
    created.push(serde_json::from_slice(&body).unwrap_or(Value::Null));
    let number = created.len();
    json!({
        "id": format!("msgbatch_{number}"), "object": "batch", "status": "validating",
        "processing_status": "in_progress", "created_at": 1_795_000_000, "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1", "completion_window": "24h",
    })
    .to_string()
}

#[test]
fn they_reach_the_creation_from_the_command_line_and_over_http() {
    let world = World::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let created = Created::default();
    let app = Router::new().fallback(service).with_state(created.clone());
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
    world.configure(&format!(
        "\n[providers.own]\nkind = \"openai-compatible\"\nbase_url = \"http://{address}/v1\"\n\
         [providers.claude]\nkind = \"anthropic\"\napi_key = \"sk-x\"\nbase_url = \"http://{address}\"\n"
    ));
    let daemon = world.daemon();
    until("the daemon answers", || std::os::unix::net::UnixStream::connect(world.socket()).ok());
    let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": "m-1", "messages": [{"role": "user", "content": "hi"}]}});
    let file = world.state().parent().unwrap().join("in.jsonl");
    std::fs::write(&file, format!("{line}\n")).unwrap();
    let path = file.to_str().unwrap();
    let last = || created.lock().unwrap().last().cloned().unwrap();

    let given =
        ["--param", "priority=-2", "--param", "metadata={\"team\":\"evals\"}", "--param", "tag=\"word\""];
    world.ok(&[&["submit", path, "--provider", "own", "--output-expires-after", "7d"], &given[..]].concat());
    let body = last();
    assert_eq!((&body["priority"], &body["tag"]), (&json!(-2), &json!("word")));
    assert_eq!(body["output_expires_after"], json!({"anchor": "created_at", "seconds": 604_800}));
    // The mark by which the batch is found again stays.
    assert!(body["metadata"]["batchd_id"].is_string() && body["metadata"]["team"] == "evals", "{body}");

    world.ok(&["submit", path, "--provider", "claude", "--param", "service={\"tier\":\"batch\"}"]);
    let body = last();
    assert_eq!(
        (&body["service"], body["requests"].as_array().unwrap().len()),
        (&json!({"tier": "batch"}), 1)
    );

    let over_http = |query: &str| {
        let path = format!("/v1/submit?provider=own&file_name=in.jsonl&{query}");
        let answer = exchange(&world, &request("POST", &path, &[], format!("{line}\n").as_bytes())).unwrap();
        (answer.status, answer.body)
    };
    let (status, told) =
        over_http("param=priority%3D3&param=a%3D%7B%22b%22%3Atrue%7D&output_expires_after=2d");
    assert_eq!(status, 200, "{told}");
    let body = last();
    assert_eq!((&body["priority"], &body["a"]), (&json!(3), &json!({"b": true})));
    assert_eq!(body["output_expires_after"]["seconds"], 172_800);

    // Nothing is sent where it cannot be meant.
    let before = created.lock().unwrap().len();
    let output = world.batchd(&["submit", path, "--provider", "claude", "--output-expires-after", "7d"]);
    assert!(!output.status.success());
    let (status, told) = over_http("params=priority%3D3");
    assert!(status == 400 && told.contains("did you mean `param`"), "{told}");
    assert_eq!(created.lock().unwrap().len(), before);
    daemon.terminate();
}
