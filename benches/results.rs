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
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use harness::plot::{self, Bar};
use harness::{best, is_asked_for, peak, processor_seconds, quiet_daemon};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use world::World;

const ROUNDS: usize = 3;
/// Lines of a piece that is sent over and over: some 64 KiB.
const LINES: usize = 128;
const BYTES: usize = 1 << 30;
/// Of results that are translated.
const TRANSLATED: usize = BYTES / 4;

fn main() {
    if !is_asked_for() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let told = |batch: Value| get(async move || batch.to_string());
    let app = Router::new()
        .route("/v1/batches/{id}", told(openai_batch()))
        .route("/v1/files/{id}/content", get(async || content(&openai_line(), BYTES)))
        .route("/v1/messages/batches/{id}", told(anthropic_batch()))
        .route("/v1/messages/batches/{id}/results", get(async || content(&anthropic_line(), TRANSLATED)))
        .route("/v1beta/batches/{id}", told(gemini_batch()))
        .route("/v1beta/files/{id}", get(async || content(&gemini_line(), TRANSLATED)));
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });

    let mut world = World::new();
    world.provider_address = address;
    world.configure("");
    let mut text = std::fs::read_to_string(world.config()).unwrap();
    for (name, path) in [("anthropic", ""), ("gemini", "/v1beta")] {
        let provider = format!(
            "\n[providers.{name}]\napi_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"http://{address}{path}\"\n"
        );
        text.push_str(&provider);
    }
    std::fs::write(world.config(), text).unwrap();
    let daemon = quiet_daemon(&world);
    let output = world.directory.path().join("results.jsonl").display().to_string();
    let from = format!("http://{address}/v1/files/file-1/content");

    println!("{:<58} {:>10} {:>12}", "", "best of 3", "");
    let fetched = best(ROUNDS, || {
        let done = Command::new("curl").args(["-s", "-f", "-o", &output, &from]).status().unwrap();
        assert!(done.success());
    });
    let mut bars = vec![say("curl fetches the file (1 GiB)", BYTES, fetched)];
    let mut results = |what: &str, bytes: usize, id: &str, format: &str| {
        let arguments = ["results", id, "--format", format, "-o", &output, "--force"];
        let (before, mut rounds) = (processor_seconds(&daemon), 0.0);
        let taken = best(ROUNDS, || {
            rounds += 1.0;
            drop(world.ok(&arguments));
        });
        let processor = (processor_seconds(&daemon) - before) / rounds;
        bars.push(say(what, bytes, taken));
        println!("{:<58} {processor:>8.2} s", "  of it processor of the daemon");
        taken
    };
    let raw = results("batchd results --format raw, with its sha256", BYTES, "openai:batch_1", "raw");
    let peak_of_raw = peak(&daemon);
    let given = results("batchd results, OpenAI's lines, each checked", BYTES, "openai:batch_1", "openai");
    results(
        "batchd results, translated from Anthropic's",
        TRANSLATED,
        "anthropic:msgbatch_01ExAmPlE",
        "openai",
    );
    results("batchd results, translated from Gemini's", TRANSLATED, "gemini:batches/x", "openai");
    for (what, taken) in [("--format raw", raw), ("OpenAI's lines", given)] {
        let share = fetched.as_secs_f64() / taken.as_secs_f64();
        println!("batchd results, {what}: {share:.2} of the speed of curl; mark: at least 0.5, under 60 MiB");
    }
    println!("translated: at least 150 MiB/s is the mark");
    println!("the daemon's most memory: {peak_of_raw:.1} MiB raw, {:.1} MiB after all", peak(&daemon));
    plot::bars("results", "Results on their way to a file", "MiB/s", &bars);
    daemon.terminate();
}

/// `bytes` of this line, over and over.
fn content(line: &Value, bytes: usize) -> Response {
    let piece = Bytes::from((line.to_string() + "\n").repeat(LINES));
    let count = bytes / piece.len();
    let length = (header::CONTENT_LENGTH, (count * piece.len()).to_string());
    let pieces = std::iter::repeat_n(piece, count).map(Ok::<_, std::io::Error>);
    ([length], Body::from_stream(futures_util::stream::iter(pieces))).into_response()
}

fn openai_batch() -> Value {
    json!({
        "id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-in",
        "completion_window": "24h", "status": "completed", "created_at": 1_795_000_000, "output_file_id": "file-1",
    })
}

fn openai_line() -> Value {
    let words = "lorem ipsum ".repeat(20);
    let choice =
        json!({"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"});
    let body = json!({"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice],
        "usage": {"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49}});
    let response = json!({"status_code": 200, "request_id": "r", "body": body});
    json!({"id": "q", "custom_id": "row-1", "response": response, "error": null})
}

fn anthropic_batch() -> Value {
    json!({
        "id": "msgbatch_01ExAmPlE", "type": "message_batch", "processing_status": "ended",
        "request_counts": {"processing": 0, "succeeded": 1, "errored": 0, "canceled": 0, "expired": 0},
        "created_at": "2026-11-20T08:00:00Z", "expires_at": "2026-11-21T08:00:00Z", "ended_at": "2026-11-20T08:41:09Z",
        "cancel_initiated_at": null, "archived_at": null,
        "results_url": "https://api.anthropic.com/v1/messages/batches/msgbatch_01ExAmPlE/results",
    })
}

fn anthropic_line() -> Value {
    let content = json!([{"type": "text", "text": "lorem ipsum ".repeat(20)}]);
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": content,
        "stop_reason": "end_turn", "stop_sequence": null, "usage": {"input_tokens": 9, "output_tokens": 40}});
    json!({"custom_id": "row-1", "result": {"type": "succeeded", "message": message}})
}

fn gemini_batch() -> Value {
    json!({
        "name": "batches/x", "done": true, "response": {"responsesFile": "files/out"},
        "metadata": {"model": "models/gemini-x", "createTime": "2026-11-20T10:00:00Z", "endTime": "2026-11-20T10:20:00Z",
            "state": "BATCH_STATE_SUCCEEDED", "output": {"responsesFile": "files/out"}},
    })
}

fn gemini_line() -> Value {
    let content = json!({"role": "model", "parts": [{"text": "lorem ipsum ".repeat(20)}]});
    let usage = json!({"promptTokenCount": 9, "candidatesTokenCount": 40, "totalTokenCount": 49});
    let response = json!({"candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
        "usageMetadata": usage, "modelVersion": "gemini-x", "responseId": "r"});
    json!({"key": "row-1", "response": response})
}

/// Prints a row; gives its bar.
fn say(what: &str, bytes: usize, taken: Duration) -> Bar {
    #[expect(clippy::cast_precision_loss, reason = "a few gigabytes")]
    let speed = bytes as f64 / 1_048_576.0 / taken.as_secs_f64();
    println!("{what:<58} {:>8.2} s {speed:>6.0} MiB/s", taken.as_secs_f64());
    Bar { what: what.to_owned(), value: speed, mark: None }
}
