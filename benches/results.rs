//! Results of one gigabyte on their way from a provider to a file, beside curl with the same bytes:
//! `cargo bench --bench results`.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

#[expect(dead_code, reason = "other benches use more of it")]
mod harness;
#[path = "../tests/it/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use harness::{best, is_asked_for, peak, quiet_daemon};
use serde_json::json;
use std::process::Command;
use std::time::Duration;
use world::World;

const ROUNDS: usize = 3;
/// Lines of a piece that is sent over and over: some 64 KiB.
const LINES: usize = 128;
const BYTES: usize = 1 << 30;

fn main() {
    if !is_asked_for() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let piece = piece();
    let pieces = BYTES / piece.len();
    let content = move || {
        let pieces = std::iter::repeat_n(piece.clone(), pieces).map(Ok::<_, std::io::Error>);
        let length = (header::CONTENT_LENGTH, (pieces.len() * piece.len()).to_string());
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        async move { ([length], body).into_response() }
    };
    let app = Router::new()
        .route("/v1/batches/{id}", get(async || batch().into_response()))
        .route("/v1/files/{id}/content", get(content));
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });

    let mut world = World::new();
    world.provider_address = address;
    world.configure("");
    let daemon = quiet_daemon(&world);
    let output = world.directory.path().join("results.jsonl").display().to_string();
    let from = format!("http://{address}/v1/files/file-1/content");

    println!("{:<58} {:>10}", "", "best of 3");
    let fetched = best(ROUNDS, || {
        let done = Command::new("curl").args(["-s", "-f", "-o", &output, &from]).status().unwrap();
        assert!(done.success());
    });
    say("curl fetches the file (1 GiB)", fetched);
    let results = |format: &str| {
        let arguments = ["results", "batch_1", "--format", format, "-o", &output, "--force"];
        best(ROUNDS, || drop(world.ok(&arguments)))
    };
    let raw = results("raw");
    say("batchd results --format raw, with its sha256", raw);
    let peak_of_raw = peak(&daemon);
    let normalised = results("openai");
    say("batchd results, every line read and written anew", normalised);
    println!(
        "batchd results --format raw has {:.2} of the speed of curl; mark: at least 0.5, under 60 MiB",
        fetched.as_secs_f64() / raw.as_secs_f64()
    );
    println!("the daemon's most memory: {peak_of_raw:.1} MiB raw, {:.1} MiB after both", peak(&daemon));
    daemon.terminate();
}

fn batch() -> String {
    json!({
        "id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-in",
        "completion_window": "24h", "status": "completed", "created_at": 1_795_000_000, "output_file_id": "file-1",
    })
    .to_string()
}

fn piece() -> Bytes {
    let words = "lorem ipsum ".repeat(20);
    let choice =
        json!({"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"});
    let body = json!({"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice],
        "usage": {"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49}});
    let response = json!({"status_code": 200, "request_id": "r", "body": body});
    let line =
        json!({"id": "q", "custom_id": "row-1", "response": response, "error": null}).to_string() + "\n";
    line.repeat(LINES).into()
}

fn say(what: &str, taken: Duration) {
    println!("{what:<58} {:>8.2} s", taken.as_secs_f64());
}
