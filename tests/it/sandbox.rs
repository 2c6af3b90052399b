//! The simulated services, route by route and ending by ending, on paused time.

use axum::Router;
use axum::body::{Body, to_bytes};
use batchd::clock::Clock;
use batchd::sandbox::{Sandbox, SandboxOptions, Speed};
use http::{HeaderMap, Method, Request, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

/// A caller without a socket, whose time stands still unless it says otherwise.
struct Caller {
    router: Router,
    headers: HeaderMap,
}

struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.body).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The JSON of an answer that must be good.
    fn good(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }
}

impl Caller {
    fn with(options: &SandboxOptions, headers: &[(&'static str, &str)]) -> Self {
        let router = Sandbox::new(options).router();
        Self { router, headers: HeaderMap::new() }.like(headers)
    }

    fn new(headers: &[(&'static str, &str)]) -> Self {
        Self::with(&options(), headers)
    }

    /// Another caller of the same services.
    fn like(&self, headers: &[(&'static str, &str)]) -> Self {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .chain([("host".parse().unwrap(), "sandbox.test:9399".parse().unwrap())])
            .collect();
        Self { router: self.router.clone(), headers }
    }

    fn openai() -> Self {
        Self::new(OPENAI)
    }

    async fn send(&self, request: Request<Body>) -> Answered {
        let (mut parts, body) = request.into_parts();
        for (name, value) in &self.headers {
            parts.headers.entry(name).or_insert(value.clone());
        }
        let response = self.router.clone().call(Request::from_parts(parts, body)).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Answered { status: parts.status, headers: parts.headers, body }
    }

    async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> Answered {
        self.send(Request::builder().method(method).uri(path).body(body.into()).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answered {
        self.call(Method::GET, path, Body::empty()).await
    }

    async fn delete(&self, path: &str) -> Answered {
        self.call(Method::DELETE, path, Body::empty()).await
    }

    async fn post(&self, path: &str, body: Value) -> Answered {
        self.call(Method::POST, path, body.to_string()).await
    }

    /// Uploads `content` to `/v1/files` and gives its File object.
    async fn upload(&self, content: &str) -> Value {
        let body = format!(
            "--edge\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
             --edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\
             Content-Type: application/jsonl\r\n\r\n{content}\r\n--edge--\r\n"
        );
        let request = Request::post("/v1/files")
            .header("content-type", "multipart/form-data; boundary=edge")
            .body(body.into())
            .unwrap();
        self.send(request).await.good()
    }

    /// An OpenAI batch of `requests` chat completions.
    async fn batch(&self, requests: usize, model: &str, metadata: Value) -> Value {
        let file = self.upload(&chat_lines(requests, model)).await;
        let body = json!({
            "input_file_id": file["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": metadata,
        });
        self.post("/v1/batches", body).await.good()
    }
}

const OPENAI: &[(&str, &str)] = &[("authorization", "Bearer any")];
const ANTHROPIC: &[(&str, &str)] = &[("x-api-key", "any"), ("anthropic-version", "2023-06-01")];
const GEMINI: &[(&str, &str)] = &[("x-goog-api-key", "any")];

fn options() -> SandboxOptions {
    SandboxOptions {
        speed: Speed::new(1.0).unwrap(),
        seed: 7,
        clock: Clock::simulated(Timestamp::from_second(1_800_000_000).unwrap()),
        ..SandboxOptions::default()
    }
}

/// Each of `lines` as JSON on a line of its own.
fn jsonl(lines: impl IntoIterator<Item = Value>) -> String {
    lines.into_iter().flat_map(|line| [line.to_string(), "\n".to_owned()]).collect()
}

fn chat_lines(requests: usize, model: &str) -> String {
    jsonl((0..requests).map(|index| {
        json!({
            "custom_id": format!("row-{index}"),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": [{"role": "user", "content": format!("say {index}")}]},
        })
    }))
}

fn messages(requests: usize, model: &str) -> Value {
    let request = |index| {
        json!({
            "custom_id": format!("row-{index}"),
            "params": {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]},
        })
    };
    json!({"requests": (0..requests).map(request).collect::<Vec<_>>()})
}

async fn wait(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

/// Longer than any batch lives.
async fn wait_for_the_end() {
    wait(3600).await;
}

fn ids(lines: &[Value]) -> BTreeSet<String> {
    lines.iter().map(|line| line["custom_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_openai_batch_goes_through_its_stages() {
    let caller = Caller::openai();
    let batch = caller.batch(20, "gpt-x", json!({"job": "n1"})).await;
    let id = batch["id"].as_str().unwrap();
    assert_eq!(id.len(), "batch_".len() + 32);
    assert_eq!(batch["status"], "validating");
    assert_eq!(batch["created_at"], 1_800_000_000);
    assert_eq!(batch["expires_at"], 1_800_086_400);
    assert_eq!(batch["request_counts"], json!({"total": 0, "completed": 0, "failed": 0}));
    assert_eq!((&batch["metadata"], &batch["model"]), (&json!({"job": "n1"}), &json!("gpt-x")));
    for absent in ["errors", "output_file_id", "error_file_id", "usage", "completed_at", "in_progress_at"] {
        assert_eq!(batch.get(absent), Some(&Value::Null), "{absent}");
    }

    let mut seen = vec!["validating".to_owned()];
    let mut done = 0;
    let end = loop {
        wait(5).await;
        let batch = caller.get(&format!("/v1/batches/{id}")).await.good();
        let status = batch["status"].as_str().unwrap().to_owned();
        let completed = batch["request_counts"]["completed"].as_u64().unwrap();
        assert!(completed >= done);
        done = completed;
        if seen.last() != Some(&status) {
            seen.push(status.clone());
        }
        if status == "completed" {
            break batch;
        }
        assert_eq!(batch["output_file_id"], Value::Null);
    };
    assert_eq!(seen, ["validating", "in_progress", "finalizing", "completed"]);
    assert_eq!(end["request_counts"], json!({"total": 20, "completed": 20, "failed": 0}));
    assert_eq!(end["error_file_id"], Value::Null);
    let stamps: Vec<i64> = ["created_at", "in_progress_at", "finalizing_at", "completed_at"]
        .iter()
        .map(|name| end[name].as_i64().unwrap())
        .collect();
    assert!(stamps.is_sorted(), "{stamps:?}");

    let file = end["output_file_id"].as_str().unwrap();
    let content = caller.get(&format!("/v1/files/{file}/content")).await;
    let lines = content.lines();
    assert_eq!(ids(&lines).len(), 20);
    assert_ne!(lines[0]["custom_id"], "row-0");
    for line in &lines {
        let row = line["custom_id"].as_str().unwrap().replace("row-", "Sandbox answer to: say ");
        assert_eq!(line["response"]["status_code"], 200);
        assert_eq!(line["response"]["body"]["choices"][0]["message"]["content"], row.as_str());
        assert_eq!(line["error"], Value::Null);
    }
    let told: u64 =
        lines.iter().map(|line| line["response"]["body"]["usage"]["total_tokens"].as_u64().unwrap()).sum();
    assert_eq!(end["usage"]["total_tokens"], told);
    let info = caller.get(&format!("/v1/files/{file}")).await.good();
    assert_eq!(info["bytes"], content.body.len());
    assert_eq!((&info["purpose"], &info["created_at"]), (&json!("batch_output"), &end["completed_at"]));
}

#[tokio::test(start_paused = true)]
async fn every_ending_of_an_openai_batch() {
    let caller = Caller::openai();
    // (asked for, by the model's name?, status, completed of 10, lines of errors)
    let cases = [
        ("succeeded", false, "completed", 10..=10, 0..=0),
        ("partial", false, "completed", 1..=9, 1..=9),
        ("partial", true, "completed", 1..=9, 1..=9),
        ("all_failed", false, "completed", 0..=0, 10..=10),
        ("all-failed", true, "completed", 0..=0, 10..=10),
        ("failed", true, "failed", 0..=0, 0..=0),
        ("expired", false, "expired", 6..=6, 4..=4),
        ("expired-empty", true, "expired", 0..=0, 10..=10),
        ("cancelled", false, "cancelled", 5..=5, 5..=5),
    ];
    for (word, named, status, completed, errors) in cases {
        let model = if named { format!("sandbox-{word}") } else { "gpt-x".to_owned() };
        let metadata = if named { Value::Null } else { json!({"sandbox_outcome": word}) };
        let batch = caller.batch(10, &model, metadata).await;
        wait_for_the_end().await;
        let end = caller.get(&format!("/v1/batches/{}", batch["id"].as_str().unwrap())).await.good();
        assert_eq!(end["status"], status, "{word}");
        assert!(completed.contains(&end["request_counts"]["completed"].as_u64().unwrap()), "{word}: {end}");
        assert!(end[format!("{status}_at")].is_i64(), "{word}: {end}");
        for (field, lines) in [("output_file_id", completed), ("error_file_id", errors)] {
            match end[field].as_str() {
                None => assert!(lines.contains(&0), "{word}: no {field}"),
                Some(file) => {
                    let content = caller.get(&format!("/v1/files/{file}/content")).await.lines();
                    assert!(lines.contains(&(content.len() as u64)), "{word}: {} in {field}", content.len());
                    let refused = |line: &Value| {
                        line["error"]["code"].as_str().map(str::to_owned).or_else(|| {
                            line["response"]["body"]["error"]["message"].as_str().map(str::to_owned)
                        })
                    };
                    for line in &content {
                        let expected = match (field, status) {
                            ("output_file_id", _) => None,
                            (_, "expired") => Some("batch_expired".to_owned()),
                            (_, "cancelled") => Some("batch_cancelled".to_owned()),
                            _ => Some("The sandbox was asked to let this request fail.".to_owned()),
                        };
                        assert_eq!(refused(line), expected, "{word}: {line}");
                    }
                }
            }
        }
        if status == "expired" {
            assert_eq!(end["expires_at"], end["expired_at"]);
        }
        assert_eq!(end["errors"].is_object(), status == "failed", "{word}: {end}");
    }
    let refused = caller.batch_refused(json!({"sandbox_outcome": "nonsense"})).await;
    assert!(refused.contains("all_failed"), "{refused}");
    assert!(caller.batch_refused(json!({"sandbox_duration": "soon"})).await.contains("duration"));
}

impl Caller {
    async fn batch_refused(&self, metadata: Value) -> String {
        let file = self.upload(&chat_lines(1, "m")).await;
        let body = json!({
            "input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h",
            "metadata": metadata,
        });
        let answer = self.post("/v1/batches", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.json()["error"]["param"], "metadata");
        answer.json()["error"]["message"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn an_openai_batch_is_cancelled_and_keeps_what_was_done() {
    let caller = Caller::openai();
    let batch = caller.batch(100, "gpt-x", json!({"sandbox_duration": "100s"})).await;
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    wait(70).await;
    let cancelling = caller.post(&format!("{path}/cancel"), Value::Null).await.good();
    assert_eq!(cancelling["status"], "cancelling");
    assert_eq!(cancelling["cancelling_at"], 1_800_000_070);
    wait(5).await;
    let again = caller.post(&format!("{path}/cancel"), Value::Null).await.good();
    assert_eq!(again["cancelling_at"], 1_800_000_070);
    wait(5).await;
    let end = caller.get(&path).await.good();
    assert_eq!((&end["status"], &end["cancelled_at"]), (&json!("cancelled"), &json!(1_800_000_080)));
    let done = end["request_counts"]["completed"].as_u64().unwrap();
    assert!((55..=65).contains(&done), "{end}");
    let content = |field: &str| format!("/v1/files/{}/content", end[field].as_str().unwrap());
    let output = caller.get(&content("output_file_id")).await.lines();
    let errors = caller.get(&content("error_file_id")).await.lines();
    assert_eq!(output.len() as u64, done);
    assert_eq!(errors.len() as u64, 100 - done);
    assert!(ids(&output).is_disjoint(&ids(&errors)));
    let late = caller.post(&format!("{path}/cancel"), Value::Null).await;
    assert_eq!(late.status, StatusCode::CONFLICT);
}

#[tokio::test(start_paused = true)]
async fn bad_lines_fail_an_openai_batch_and_bad_requests_only_themselves() {
    let caller = Caller::openai();
    let create = async |content: &str| {
        let file = caller.upload(content).await;
        let body = json!({
            "input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h",
        });
        let id = caller.post("/v1/batches", body).await.good()["id"].as_str().unwrap().to_owned();
        wait_for_the_end().await;
        caller.get(&format!("/v1/batches/{id}")).await.good()
    };
    let end = create(&format!("{}not json\n", chat_lines(1, "m"))).await;
    assert_eq!(end["status"], "failed");
    assert_eq!(end["errors"]["data"][0]["code"], "invalid_json_line");
    assert_eq!(end["errors"]["data"][0]["line"], 2);
    assert_eq!(end["request_counts"]["total"], 0);
    assert_eq!(create("").await["errors"]["data"][0]["code"], "empty_batch");

    let odd = r#"{"custom_id":"odd","method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}"#;
    let end = create(&format!("{}{odd}\n", chat_lines(2, "m"))).await;
    assert_eq!(end["request_counts"], json!({"total": 3, "completed": 2, "failed": 1}));
    let errors = format!("/v1/files/{}/content", end["error_file_id"].as_str().unwrap());
    let lines = caller.get(&errors).await.lines();
    assert_eq!((lines.len(), &lines[0]["custom_id"]), (1, &json!("odd")));
    assert_eq!(lines[0]["response"]["status_code"], 400);
    assert_eq!(lines[0]["response"]["body"]["error"]["param"], "messages");
}

#[tokio::test(start_paused = true)]
async fn openai_lists_page_from_the_newest() {
    let caller = Caller::openai();
    let mut all = Vec::new();
    for _ in 0..5 {
        all.insert(0, caller.batch(1, "m", Value::Null).await["id"].clone());
    }
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let page = caller.get(&format!("/v1/batches?limit=2&after={after}")).await.good();
        let data = page["data"].as_array().unwrap();
        assert_eq!((&page["first_id"], &page["last_id"]), (&data[0]["id"], &data[data.len() - 1]["id"]));
        found.extend(data.iter().map(|batch| batch["id"].clone()));
        if page["has_more"] == false {
            break;
        }
        page["last_id"].as_str().unwrap().clone_into(&mut after);
    }
    assert_eq!(found, all);
    for bad in ["limit=0", "limit=101", "limit=x", "after=batch_none"] {
        assert_eq!(caller.get(&format!("/v1/batches?{bad}")).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_openai_refuses() {
    let caller = Caller::openai();
    let refused = async |body: Value| {
        let answer = caller.post("/v1/batches", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        let error = answer.json()["error"].clone();
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].is_string() && error.get("code").is_some());
        error["param"].clone()
    };
    let file = caller.upload(&chat_lines(1, "m")).await;
    assert_eq!(file["id"].as_str().unwrap().len(), "file-".len() + 22);
    let good = json!({
        "input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h",
    });
    for (field, value) in [
        ("input_file_id", Value::Null),
        ("input_file_id", json!("file-none")),
        ("endpoint", json!("/v1/other")),
        ("completion_window", json!("1h")),
        ("metadata", json!({"n": 1})),
        ("metadata", json!({"long": "x".repeat(513)})),
    ] {
        let mut body = good.clone();
        body[field] = value;
        assert_eq!(refused(body).await, field);
    }
    let missing = caller.get("/v1/batches/batch_none").await;
    assert_eq!(
        (missing.status, &missing.json()["error"]["type"]),
        (StatusCode::NOT_FOUND, &json!("invalid_request_error"))
    );
    assert!(missing.headers.contains_key("x-request-id"));
    let broken = caller.call(Method::POST, "/v1/batches", "{").await;
    assert_eq!(broken.status, StatusCode::BAD_REQUEST);
    assert!(broken.json()["error"]["message"].as_str().unwrap().contains("JSON"));
    assert_eq!(caller.get("/v1/nothing").await.status, StatusCode::NOT_FOUND);
    assert_eq!(caller.delete("/v1/batches").await.status, StatusCode::METHOD_NOT_ALLOWED);
    let not_a_form = caller.post("/v1/files", json!({})).await;
    assert_eq!(not_a_form.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn files_are_listed_fetched_signed_and_deleted() {
    let caller = Caller::openai();
    let text = chat_lines(2, "m");
    let file = caller.upload(&text).await;
    assert_eq!(
        (&file["filename"], &file["bytes"], &file["purpose"]),
        (&json!("in.jsonl"), &json!(text.len()), &json!("batch"))
    );
    // What only Mistral's SDK asks for.
    assert_eq!((&file["sample_type"], &file["source"]), (&json!("batch_request"), &json!("upload")));
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    assert_eq!(caller.get(&format!("{path}/content")).await.body, text.as_bytes());

    let url = caller.get(&format!("{path}/url?expiry=24")).await.good()["url"].as_str().unwrap().to_owned();
    let signed = url.strip_prefix("http://sandbox.test:9399").unwrap();
    let anyone = caller.like(&[]);
    assert_eq!(anyone.get(signed).await.body, text.as_bytes());
    assert_eq!(anyone.get(&format!("{path}/content?signature=0")).await.status, StatusCode::UNAUTHORIZED);

    caller.batch(1, "m", Value::Null).await;
    let listed = async |query: &str| caller.get(&format!("/v1/files?{query}")).await.good();
    assert_eq!(listed("").await["data"].as_array().unwrap().len(), 2);
    wait_for_the_end().await;
    let all = listed("").await;
    assert_eq!(all["data"].as_array().unwrap().len(), 3);
    assert_eq!(all["data"][0]["purpose"], "batch_output");
    assert_eq!(listed("purpose=batch_output").await["data"].as_array().unwrap().len(), 1);
    assert_eq!(listed("order=asc&limit=1").await["data"][0]["id"], file["id"]);
    let after = all["data"][1]["id"].as_str().unwrap().to_owned();
    assert_eq!(listed(&format!("after={after}")).await["data"][0]["id"], file["id"]);
    let page = listed("page=1&page_size=2&sample_type=batch_request&sample_type=batch_result").await;
    assert_eq!((&page["total"], &page["data"][0]["id"]), (&json!(3), &file["id"]));

    assert_eq!(
        caller.delete(&path).await.good(),
        json!({"id": file["id"], "object": "file", "deleted": true})
    );
    let gone = caller.get(&format!("{path}/content")).await;
    assert_eq!((gone.status, &gone.json()["error"]["param"]), (StatusCode::NOT_FOUND, &json!("id")));
}

#[tokio::test(start_paused = true)]
async fn every_openai_endpoint_answers_in_its_shape() {
    let caller = Caller::openai();
    for (endpoint, body, pointer) in [
        ("/v1/responses", json!({"model": "m", "input": "hi"}), "/output/0/content/0/text"),
        ("/v1/embeddings", json!({"model": "m", "input": ["a"]}), "/data/0/embedding/7"),
        ("/v1/completions", json!({"model": "m", "prompt": "hi"}), "/choices/0/text"),
        ("/v1/moderations", json!({"model": "m", "input": "hi"}), "/results/0/flagged"),
        ("/v1/images/generations", json!({"model": "m", "prompt": "hi"}), "/data/0/b64_json"),
        ("/v1/videos", json!({"model": "m", "prompt": "hi"}), "/seconds"),
    ] {
        let line = json!({"custom_id": "a", "method": "POST", "url": endpoint, "body": body});
        let file = caller.upload(&line.to_string()).await;
        let asked = json!({"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h"});
        let id = caller.post("/v1/batches", asked).await.good()["id"].as_str().unwrap().to_owned();
        wait_for_the_end().await;
        let end = caller.get(&format!("/v1/batches/{id}")).await.good();
        let output = format!("/v1/files/{}/content", end["output_file_id"].as_str().unwrap());
        let lines = caller.get(&output).await.lines();
        assert!(lines[0]["response"]["body"].pointer(pointer).is_some(), "{endpoint}: {}", lines[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_anthropic_batch_from_creation_to_deletion() {
    let caller = Caller::new(ANTHROPIC);
    let batch = caller.post("/v1/messages/batches", messages(10, "claude-partial")).await.good();
    let id = batch["id"].as_str().unwrap();
    assert!(id.starts_with("msgbatch_01"));
    assert_eq!(batch["processing_status"], "in_progress");
    assert_eq!(batch["created_at"], "2027-01-15T08:00:00.000000Z");
    assert_eq!(batch["expires_at"], "2027-01-16T08:00:00.000000Z");
    assert_eq!(batch["results_url"], Value::Null);
    let path = format!("/v1/messages/batches/{id}");
    wait(120).await;
    let live = caller.get(&path).await.good();
    assert_eq!(
        live["request_counts"],
        json!({"processing": 10, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0})
    );
    assert_eq!(caller.get(&format!("{path}/results")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(caller.delete(&path).await.status, StatusCode::BAD_REQUEST);
    wait_for_the_end().await;
    let end = caller.get(&path).await.good();
    assert_eq!(end["processing_status"], "ended");
    let counts = &end["request_counts"];
    let (succeeded, errored) = (counts["succeeded"].as_u64().unwrap(), counts["errored"].as_u64().unwrap());
    assert!(succeeded > 0 && errored > 0 && succeeded + errored == 10, "{counts}");
    assert_eq!(end["results_url"], format!("http://sandbox.test:9399{path}/results"));
    let lines = caller.get(&format!("{path}/results")).await.lines();
    let of = |kind: &str| lines.iter().filter(|line| line["result"]["type"] == kind).count() as u64;
    assert_eq!((of("succeeded"), of("errored")), (succeeded, errored));
    assert_eq!(ids(&lines).len(), 10);
    let good = lines.iter().find(|line| line["result"]["type"] == "succeeded").unwrap();
    assert_eq!(good["result"]["message"]["content"][0]["text"], "Sandbox answer to: hi");
    let bad = lines.iter().find(|line| line["result"]["type"] == "errored").unwrap();
    assert_eq!(bad["result"]["error"]["error"]["type"], "api_error");
    assert_eq!(caller.delete(&path).await.good(), json!({"id": id, "type": "message_batch_deleted"}));
    let gone = caller.get(&path).await;
    assert_eq!(
        (gone.status, &gone.json()["error"]["type"]),
        (StatusCode::NOT_FOUND, &json!("not_found_error"))
    );
}

#[tokio::test(start_paused = true)]
async fn every_ending_of_an_anthropic_batch() {
    let caller = Caller::new(ANTHROPIC);
    for (word, counts) in [
        ("claude", [10, 0, 0, 0]),
        ("claude-all-failed", [0, 10, 0, 0]),
        ("claude-failed", [0, 10, 0, 0]),
        ("claude-expired", [6, 0, 0, 4]),
        ("claude-expired-empty", [0, 0, 0, 10]),
        ("claude-cancelled", [5, 0, 5, 0]),
    ] {
        let id = caller.post("/v1/messages/batches", messages(10, word)).await.good()["id"].clone();
        wait_for_the_end().await;
        let path = format!("/v1/messages/batches/{}", id.as_str().unwrap());
        let end = caller.get(&path).await.good();
        let names = ["succeeded", "errored", "canceled", "expired"];
        assert_eq!(names.map(|name| end["request_counts"][name].as_i64().unwrap()), counts, "{word}");
        let lines = caller.get(&format!("{path}/results")).await.lines();
        for (name, count) in names.iter().zip(counts) {
            let found = lines.iter().filter(|line| line["result"]["type"] == *name).count();
            assert_eq!(i64::try_from(found).unwrap(), count, "{word}: {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_anthropic_batch_is_cancelled_and_lists_page_both_ways() {
    let caller = Caller::new(ANTHROPIC);
    let mut all = Vec::new();
    for _ in 0..5 {
        let batch = caller.post("/v1/messages/batches", messages(2, "claude")).await.good();
        all.insert(0, batch["id"].as_str().unwrap().to_owned());
    }
    wait(60).await;
    let path = format!("/v1/messages/batches/{}", all[0]);
    let canceling = caller.post(&format!("{path}/cancel"), Value::Null).await.good();
    assert_eq!(canceling["processing_status"], "canceling");
    assert_eq!(canceling["cancel_initiated_at"], "2027-01-15T08:01:00.000000Z");
    wait(11).await;
    let end = caller.get(&path).await.good();
    assert_eq!((&end["processing_status"], &end["request_counts"]["canceled"]), (&json!("ended"), &json!(2)));
    assert_eq!(caller.post(&format!("{path}/cancel"), Value::Null).await.status, StatusCode::BAD_REQUEST);

    let page = async |query: String| {
        let page = caller.get(&format!("/v1/messages/batches?{query}")).await.good();
        let ids: Vec<_> = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|batch| batch["id"].as_str().unwrap().to_owned())
            .collect();
        (ids, page["has_more"].as_bool().unwrap())
    };
    assert_eq!(page("limit=2".to_owned()).await, (all[..2].to_vec(), true));
    assert_eq!(page(format!("limit=2&after_id={}", all[1])).await, (all[2..4].to_vec(), true));
    assert_eq!(page(format!("limit=2&after_id={}", all[3])).await, (all[4..].to_vec(), false));
    assert_eq!(page(format!("limit=2&before_id={}", all[3])).await, (all[1..3].to_vec(), true));
    assert_eq!(page(format!("before_id={}", all[1])).await, (all[..1].to_vec(), false));
}

#[tokio::test(start_paused = true)]
async fn what_anthropic_refuses() {
    let caller = Caller::new(ANTHROPIC);
    let refused = async |body: Value| {
        let answer = caller.post("/v1/messages/batches", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        let body = answer.json();
        assert_eq!(
            (&body["type"], &body["error"]["type"]),
            (&json!("error"), &json!("invalid_request_error"))
        );
        body["error"]["message"].as_str().unwrap().to_owned()
    };
    assert!(refused(json!({"requests": []})).await.contains("requests"));
    let mut twice = messages(2, "claude");
    twice["requests"][1]["custom_id"] = "row-0".into();
    assert!(refused(twice).await.contains("requests.1: The custom_id `row-0` is not unique"));
    let mut odd = messages(1, "claude");
    odd["requests"][0]["custom_id"] = "not allowed".into();
    assert!(refused(odd).await.contains("must match"));

    // A request that no model would take is judged when its turn comes.
    let mut body = messages(2, "claude");
    body["requests"][1]["params"]["max_tokens"] = Value::Null;
    let id = caller.post("/v1/messages/batches", body).await.good()["id"].as_str().unwrap().to_owned();
    wait_for_the_end().await;
    let lines = caller.get(&format!("/v1/messages/batches/{id}/results")).await.lines();
    let bad = lines.iter().find(|line| line["custom_id"] == "row-1").unwrap();
    assert_eq!(
        bad["result"]["error"]["error"],
        json!({"type": "invalid_request_error", "message": "max_tokens: field required"})
    );

    let without = caller.like(&[("x-api-key", "any")]).get("/v1/messages/batches").await;
    assert_eq!(without.status, StatusCode::BAD_REQUEST);
    assert!(without.json()["error"]["message"].as_str().unwrap().starts_with("anthropic-version"));
}

#[tokio::test(start_paused = true)]
async fn a_gemini_batch_from_an_uploaded_file() {
    let caller = Caller::new(GEMINI);
    let text = jsonl((0..6).map(
        |index| json!({"key": format!("k{index}"), "request": {"contents": [{"parts": [{"text": "hi"}]}]}}),
    ));
    let start = Request::post("/upload/v1beta/files")
        .header("x-goog-upload-protocol", "resumable")
        .header("x-goog-upload-command", "start")
        .header("x-goog-upload-header-content-type", "application/jsonl")
        .body(json!({"file": {"display_name": "in.jsonl"}}).to_string().into())
        .unwrap();
    let started = caller.send(start).await;
    assert_eq!(started.headers["x-goog-upload-status"], "active");
    let url = started.headers["x-goog-upload-url"].to_str().unwrap();
    let path = url.strip_prefix("http://sandbox.test:9399").unwrap().to_owned();
    let send = async |command: &str, offset: usize, bytes: &str| {
        let request = Request::post(&path)
            .header("x-goog-upload-command", command)
            .header("x-goog-upload-offset", offset)
            .body(bytes.to_owned().into())
            .unwrap();
        caller.send(request).await
    };
    assert_eq!(send("upload", 0, &text[..10]).await.headers["x-goog-upload-status"], "active");
    assert_eq!(send("upload", 4, "").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(send("query", 0, "").await.headers["x-goog-upload-size-received"], "10");
    let last = send("upload, finalize", 10, &text[10..]).await;
    assert_eq!(last.headers["x-goog-upload-status"], "final");
    let file = last.json()["file"].clone();
    let name = file["name"].as_str().unwrap();
    assert_eq!((&file["sizeBytes"], &file["source"]), (&json!(text.len().to_string()), &json!("UPLOADED")));
    assert_eq!(caller.get(&format!("/v1beta/{name}")).await.good(), file);

    let asked = json!({"batch": {"displayName": "nightly partial", "inputConfig": {"fileName": name}}});
    let created = caller.post("/v1beta/models/gemini-x:batchGenerateContent", asked).await.good();
    let id = created["name"].as_str().unwrap();
    assert_eq!(id.len(), "batches/".len() + 36);
    assert_eq!(created["metadata"]["state"], "BATCH_STATE_PENDING");
    assert_eq!(created["metadata"]["batchStats"], json!({"requestCount": "6", "pendingRequestCount": "6"}));
    assert_eq!(created["metadata"]["model"], "models/gemini-x");
    assert_eq!(created.get("done"), None);
    wait(60).await;
    let running = caller.get(&format!("/v1beta/{id}")).await.good();
    assert_eq!(running["metadata"]["state"], "BATCH_STATE_RUNNING");
    wait_for_the_end().await;
    let end = caller.get(&format!("/v1beta/{id}")).await.good();
    assert_eq!((&end["metadata"]["state"], &end["done"]), (&json!("BATCH_STATE_SUCCEEDED"), &json!(true)));
    let stats = &end["metadata"]["batchStats"];
    let count = |name: &str| stats[name].as_str().unwrap().parse::<usize>().unwrap();
    assert_eq!(count("successfulRequestCount") + count("failedRequestCount"), 6);
    let results = end["response"]["responsesFile"].as_str().unwrap();
    assert_eq!(end["metadata"]["output"]["responsesFile"], results);
    for path in [
        format!("/v1beta/{results}:download?alt=media"),
        format!("/download/v1beta/{results}:download?alt=media"),
    ] {
        let lines = caller.get(&path).await.lines();
        let keys: BTreeSet<_> = lines.iter().map(|line| line["key"].as_str().unwrap()).collect();
        assert_eq!(keys.len(), 6);
        let failed = lines.iter().filter(|line| line["error"]["code"] == 13).count();
        assert_eq!(failed, count("failedRequestCount"));
        let good = lines.iter().find(|line| line.get("response").is_some()).unwrap();
        assert_eq!(good["response"]["candidates"][0]["content"]["parts"][0]["text"], "Sandbox answer to: hi");
    }
    let info = caller.get(&format!("/v1beta/{results}")).await.good();
    assert_eq!(info["source"], "GENERATED");
    assert_eq!(
        caller.get(&format!("/v1beta/{name}:download?alt=media")).await.status,
        StatusCode::BAD_REQUEST
    );
    let files = caller.get("/v1beta/files?pageSize=1").await.good();
    assert_eq!(files["files"][0]["name"], results);
    let next = files["nextPageToken"].as_str().unwrap();
    let files = caller.get(&format!("/v1beta/files?pageToken={next}")).await.good();
    assert_eq!(files["files"][0]["name"], name);

    let masked =
        caller.get(&format!("/v1beta/{id}?fields=name,metadata(state,batchStats),done")).await.good();
    assert_eq!(
        masked,
        json!({"name": id, "metadata": {"batchStats": stats, "state": "BATCH_STATE_SUCCEEDED"}, "done": true})
    );
    assert_eq!(caller.get(&format!("/v1beta/{id}?fields=a(")).await.status, StatusCode::BAD_REQUEST);

    assert_eq!(caller.delete(&format!("/v1beta/{name}")).await.good(), json!({}));
    let gone = caller.get(&format!("/v1beta/{name}")).await;
    assert_eq!(
        (gone.status, &gone.json()["error"]["status"]),
        (StatusCode::FORBIDDEN, &json!("PERMISSION_DENIED"))
    );
    assert_eq!(caller.delete(&format!("/v1beta/{id}")).await.good(), json!({}));
    let gone = caller.get(&format!("/v1beta/{id}")).await;
    assert_eq!((gone.status, &gone.json()["error"]["status"]), (StatusCode::NOT_FOUND, &json!("NOT_FOUND")));
}

fn inline(requests: usize, name: &str) -> Value {
    let request = |index| {
        json!({
            "request": {"contents": [{"parts": [{"text": format!("say {index}")}], "role": "user"}]},
            "metadata": {"key": format!("k{index}")},
        })
    };
    let requests: Vec<_> = (0..requests).map(request).collect();
    json!({"batch": {"display_name": name, "input_config": {"requests": {"requests": requests}}}})
}

#[tokio::test(start_paused = true)]
async fn gemini_inline_results_come_in_request_order_and_not_in_lists() {
    let caller = Caller::new(GEMINI);
    let created = caller.post("/v1beta/models/gemini-x:batchGenerateContent", inline(9, "job")).await.good();
    let path = format!("/v1beta/{}", created["name"].as_str().unwrap());
    wait_for_the_end().await;
    let end = caller.get(&path).await.good();
    let results = end["response"]["inlinedResponses"]["inlinedResponses"].as_array().unwrap();
    assert_eq!(results.len(), 9);
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result["metadata"]["key"], format!("k{index}"));
        assert_eq!(
            result["response"]["candidates"][0]["content"]["parts"][0]["text"],
            format!("Sandbox answer to: say {index}")
        );
    }
    let list = caller.get("/v1beta/batches").await.good();
    assert_eq!(list["operations"][0]["metadata"]["state"], "BATCH_STATE_SUCCEEDED");
    assert!(!list.to_string().contains("inlinedResponses"));

    let request = json!({"request": {"content": {"parts": [{"text": "a"}]}, "output_dimensionality": 3}});
    let embed = json!({"batch": {"inputConfig": {"requests": {"requests": [request]}}}});
    let created = caller.post("/v1beta/models/embed-x:asyncBatchEmbedContent", embed).await.good();
    wait_for_the_end().await;
    let end = caller.get(&format!("/v1beta/{}", created["name"].as_str().unwrap())).await.good();
    let results = &end["metadata"]["output"]["inlinedEmbedContentResponses"]["inlinedResponses"];
    assert_eq!(results[0]["response"]["embedding"]["values"].as_array().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn every_ending_of_a_gemini_batch() {
    let caller = Caller::new(GEMINI);
    for (word, state, succeeded, error) in [
        ("all-failed", "SUCCEEDED", Value::Null, Value::Null),
        ("failed", "FAILED", Value::Null, json!(3)),
        ("expired", "EXPIRED", Value::Null, json!(4)),
        ("cancelled", "CANCELLED", json!("5"), json!(1)),
    ] {
        let created =
            caller.post(&format!("/v1/models/gemini-{word}:batchGenerateContent"), inline(10, "job")).await;
        let path = format!("/v1/{}", created.good()["name"].as_str().unwrap());
        wait_for_the_end().await;
        let end = caller.get(&path).await.good();
        assert_eq!(end["metadata"]["state"], format!("BATCH_STATE_{state}"), "{word}");
        assert_eq!(end["metadata"]["batchStats"]["successfulRequestCount"], succeeded, "{word}");
        assert_eq!(end["error"]["code"], error, "{word}");
        assert_eq!(end["done"], true);
        assert!(end["metadata"]["endTime"].is_string());
        let output = &end["metadata"]["output"]["inlinedResponses"]["inlinedResponses"];
        let kept =
            output.as_array().map_or(0, |all| all.iter().filter(|one| one.get("response").is_some()).count());
        assert_eq!(kept.to_string(), succeeded.as_str().unwrap_or("0"), "{word}");
    }
    // Cancelling is done at once, and after the end it does nothing.
    let created = caller.post("/v1beta/models/gemini-x:batchGenerateContent", inline(2, "job")).await.good();
    let path = format!("/v1beta/{}", created["name"].as_str().unwrap());
    wait(60).await;
    assert_eq!(caller.post(&format!("{path}:cancel"), json!({})).await.good(), json!({}));
    assert_eq!(caller.get(&path).await.good()["metadata"]["state"], "BATCH_STATE_CANCELLED");
    assert_eq!(caller.post(&format!("{path}:cancel"), json!({})).await.good(), json!({}));
    for (path, body) in [
        ("/v1beta/models/gemini-x:batchGenerateContent", json!({"batch": {}})),
        (
            "/v1beta/models/gemini-x:batchGenerateContent",
            json!({"batch": {"inputConfig": {"requests": {"requests": []}}}}),
        ),
    ] {
        let answer = caller.post(path, body).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["status"]),
            (StatusCode::BAD_REQUEST, &json!("INVALID_ARGUMENT"))
        );
    }
    let unknown = caller.post("/v1beta/models/gemini-x:generateContent", json!({})).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let pages = caller.get("/v1beta/batches?pageSize=3").await.good();
    let next = pages["nextPageToken"].as_str().unwrap().to_owned();
    let rest = caller.get(&format!("/v1beta/batches?pageSize=3&pageToken={next}")).await.good();
    assert_eq!((rest["operations"].as_array().unwrap().len(), rest.get("nextPageToken")), (2, None));
}

async fn job(caller: &Caller, requests: usize, model: &str, metadata: Value) -> Value {
    let requests: Vec<_> = (0..requests)
        .map(|index| json!({"custom_id": format!("row-{index}"), "body": {"messages": [{"role": "user", "content": "hi"}]}}))
        .collect();
    let body = json!({"endpoint": "/v1/chat/completions", "model": model, "requests": requests, "metadata": metadata});
    caller.post("/v1/batch/jobs", body).await.good()
}

#[tokio::test(start_paused = true)]
async fn a_mistral_job_from_files() {
    let caller =
        Caller::new(&[("authorization", "Bearer any"), ("user-agent", "speakeasy-sdk/python mistralai")]);
    let line = |id: &str| json!({"custom_id": id, "body": {"messages": [{"role": "user", "content": "hi"}]}});
    let first = caller.upload(&format!("{}\n{}", line("a"), line("b"))).await;
    let second = caller.upload(&line("c").to_string()).await;
    assert_eq!(first["id"].as_str().unwrap().len(), 36);
    let asked = json!({
        "endpoint": "/v1/chat/completions", "model": "mistral-x", "input_files": [first["id"], second["id"]],
        "metadata": {"job": "n1"}, "timeout_hours": 48,
    });
    let created = caller.post("/v1/batch/jobs", asked).await.good();
    assert_eq!((&created["status"], &created["total_requests"]), (&json!("QUEUED"), &json!(3)));
    assert_eq!(created["input_files"], json!([first["id"], second["id"]]));
    let path = format!("/v1/batch/jobs/{}", created["id"].as_str().unwrap());
    wait(60).await;
    let running = caller.get(&path).await.good();
    assert_eq!((&running["status"], running["started_at"].is_i64()), (&json!("RUNNING"), true));
    assert_eq!(caller.delete(&path).await.status, StatusCode::BAD_REQUEST);
    wait_for_the_end().await;
    let end = caller.get(&path).await.good();
    assert_eq!(
        (&end["status"], &end["succeeded_requests"], &end["errors"]),
        (&json!("SUCCESS"), &json!(3), &json!([]))
    );
    assert_eq!((&end["error_file"], &end["outputs"]), (&Value::Null, &Value::Null));
    let output =
        caller.get(&format!("/v1/files/{}/content", end["output_file"].as_str().unwrap())).await.lines();
    assert_eq!(ids(&output).len(), 3);
    assert_eq!(output[0]["response"]["body"]["choices"][0]["message"]["content"], "Sandbox answer to: hi");
    let inline = caller.get(&format!("{path}?inline=true")).await.good();
    assert_eq!(inline["outputs"], json!(output));
    let gone = caller.delete(&path).await.good();
    assert_eq!(gone, json!({"id": created["id"], "object": "batch", "deleted": true}));
    let missing = caller.get(&path).await;
    assert_eq!((missing.status, missing.json()["message"].is_string()), (StatusCode::NOT_FOUND, true));
}

#[tokio::test(start_paused = true)]
async fn every_ending_of_a_mistral_job_and_lists_by_it() {
    let caller = Caller::openai();
    let cases = [
        ("succeeded", "SUCCESS", [10, 10, 0]),
        ("all_failed", "SUCCESS", [10, 0, 10]),
        ("failed", "FAILED", [0, 0, 0]),
        ("expired", "TIMEOUT_EXCEEDED", [6, 6, 0]),
        ("cancelled", "CANCELLED", [5, 5, 0]),
    ];
    let mut jobs = Vec::new();
    for (word, ..) in cases {
        let created = job(&caller, 10, "mistral-x", json!({"sandbox_outcome": word, "job": word})).await;
        jobs.push(created["id"].as_str().unwrap().to_owned());
    }
    let live = job(&caller, 2, "mistral-partial-duration-2h", Value::Null).await;
    wait_for_the_end().await;
    for ((word, status, counts), id) in cases.iter().zip(&jobs) {
        let end = caller.get(&format!("/v1/batch/jobs/{id}")).await.good();
        assert_eq!(end["status"], *status, "{word}");
        let names = ["completed_requests", "succeeded_requests", "failed_requests"];
        assert_eq!(names.map(|name| end[name].as_i64().unwrap()), *counts, "{word}");
        assert_eq!(end["output_file"].is_string(), counts[1] > 0, "{word}");
        assert_eq!(end["error_file"].is_string(), counts[2] > 0, "{word}");
        if *word == "all_failed" {
            assert_eq!(
                end["errors"],
                json!([{"message": "The sandbox was asked to let this request fail.", "count": 10}])
            );
            let errors = caller
                .get(&format!("/v1/files/{}/content", end["error_file"].as_str().unwrap()))
                .await
                .lines();
            assert!(
                errors.iter().all(|line| line["response"]["status_code"] == 500 && line["error"].is_string())
            );
        }
        assert_eq!(end["errors"] != json!([]), matches!(*word, "all_failed" | "failed"), "{word}");
    }
    let list = async |query: &str| {
        let list = caller.get(&format!("/v1/batch/jobs?{query}")).await.good();
        let ids: Vec<_> = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["id"].as_str().unwrap().to_owned())
            .collect();
        (ids, list["total"].as_u64().unwrap())
    };
    let live = live["id"].as_str().unwrap().to_owned();
    assert_eq!(list("status=QUEUED&status=RUNNING").await, (vec![live.clone()], 1));
    assert_eq!(list("status=FAILED").await, (vec![jobs[2].clone()], 1));
    assert_eq!(list("page=1&page_size=2").await, (vec![jobs[3].clone(), jobs[2].clone()], 6));
    assert_eq!(list("order_by=created&page_size=1").await.0, [jobs[0].clone()]);
    assert_eq!(list("job=expired").await.0, [jobs[3].clone()]);
    assert_eq!(list("metadata=%7B%22job%22%3A%22failed%22%7D").await.0, [jobs[2].clone()]);
    assert_eq!(list("model=mistral-partial-duration-2h").await.0, std::slice::from_ref(&live));
    assert_eq!(list("created_after=2027-01-15T08:00:00Z").await.1, 0);
    assert_eq!(list("created_after=2027-01-15T07:59:59Z&created_by_me=false").await.1, 6);

    let cancelling = caller.post(&format!("/v1/batch/jobs/{live}/cancel"), Value::Null).await.good();
    assert_eq!(cancelling["status"], "CANCELLATION_REQUESTED");
    wait(11).await;
    assert_eq!(caller.get(&format!("/v1/batch/jobs/{live}")).await.good()["status"], "CANCELLED");
    let late = caller.post(&format!("/v1/batch/jobs/{live}/cancel"), Value::Null).await;
    assert_eq!(late.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn what_mistral_refuses() {
    let caller = Caller::openai();
    let good =
        json!({"endpoint": "/v1/chat/completions", "model": "m", "requests": [{"body": {"messages": [1]}}]});
    assert_eq!(caller.post("/v1/batch/jobs", good.clone()).await.good()["total_requests"], 1);
    for (field, value) in [
        ("endpoint", json!("/v1/other")),
        ("endpoint", Value::Null),
        ("timeout_hours", json!(200)),
        ("requests", Value::Null),
        ("input_files", json!([1])),
        ("model", Value::Null),
        ("metadata", json!("x")),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let answer = caller.post("/v1/batch/jobs", body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{field}");
        let detail = &answer.json()["detail"][0];
        assert!(detail["msg"].is_string() && detail["loc"][0] == "body", "{field}: {detail}");
    }
    let mut body = good;
    body["requests"] = Value::Null;
    body["input_files"] = json!(["no-such-file"]);
    assert_eq!(caller.post("/v1/batch/jobs", body).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn without_a_key_each_vendor_says_so_in_its_way() {
    let caller = Caller::new(&[("anthropic-version", "2023-06-01")]);
    let refused = async |path: &str| {
        let answer = caller.get(path).await;
        (answer.status.as_u16(), answer.json())
    };
    let (status, body) = refused("/v1/batches").await;
    assert_eq!((status, &body["error"]["code"]), (401, &json!("invalid_api_key")));
    let (status, body) = refused("/v1/messages/batches").await;
    assert_eq!((status, &body["error"]["type"]), (401, &json!("authentication_error")));
    let (status, body) = refused("/v1beta/batches").await;
    assert_eq!((status, &body["error"]["status"]), (403, &json!("PERMISSION_DENIED")));
    let (status, body) = refused("/v1/batch/jobs").await;
    assert_eq!((status, &body["detail"]), (401, &json!("Unauthorized")));
    assert_eq!(caller.like(&[("authorization", "Bearer ")]).get("/v1/batches").await.status, 401);
    assert_eq!(caller.get("/v1beta/batches?key=any").await.status, 200);
    assert_eq!(caller.get("/").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn faults_come_as_asked_and_the_journal_tells() {
    let caller = Caller::openai();
    let anyone = caller.like(&[]);
    let fault = json!({"match": "/v1/batches", "method": "GET", "status": 503, "times": 2, "retry_after": 3});
    anyone.post("/sandbox/faults", fault).await.good();
    for _ in 0..2 {
        let answer = caller.get("/v1/batches").await;
        assert_eq!((answer.status.as_u16(), answer.headers["retry-after"].to_str().unwrap()), (503, "3"));
        assert_eq!(answer.json()["error"]["type"], "server_error");
    }
    assert_eq!(caller.get("/v1/batches").await.status, 200);

    let anthropic = caller.like(ANTHROPIC);
    anyone
        .post("/sandbox/faults", json!({"match": "batches", "status": 529, "retry_after_ms": 50}))
        .await
        .good();
    let answer = anthropic.get("/v1/messages/batches").await;
    assert_eq!((answer.status.as_u16(), answer.headers["retry-after-ms"].to_str().unwrap()), (529, "50"));
    assert_eq!(answer.json()["error"]["type"], "overloaded_error");

    anyone.post("/sandbox/faults", json!({"match": "batches", "status": 502, "body": "<html>"})).await.good();
    assert_eq!(caller.get("/v1/batches").await.body, b"<html>");
    anyone.post("/sandbox/faults", json!({"match": "batches", "delay": "30s"})).await.good();
    let before = tokio::time::Instant::now();
    assert_eq!(caller.get("/v1/batches").await.status, 200);
    assert_eq!(before.elapsed(), Duration::from_secs(30));

    anyone.post("/sandbox/faults", json!({"match": "batches", "status": 500, "times": 9})).await.good();
    assert_eq!(anyone.get("/sandbox/faults").await.good()["data"][0]["times"], 9);
    anyone.delete("/sandbox/faults").await.good();
    assert_eq!(caller.get("/v1/batches").await.status, 200);
    assert_eq!(anyone.post("/sandbox/faults", json!({"match": "x"})).await.status, 400);

    let journal = anyone.get("/sandbox/requests").await.good();
    let told: Vec<_> =
        journal["data"].as_array().unwrap().iter().map(|entry| entry["status"].as_u64().unwrap()).collect();
    assert_eq!(told, [503, 503, 200, 529, 502, 200, 200]);
    assert_eq!((&journal["total"], &journal["data"][3]["vendor"]), (&json!(7), &json!("anthropic")));
    assert!(!journal.to_string().contains("any\""));
    anyone.delete("/sandbox/requests").await.good();
    assert_eq!(anyone.get("/sandbox/requests").await.good()["total"], 0);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_refused_in_the_vendors_words() {
    let small = SandboxOptions { batches: 2, memory: 64 * 1024, ..options() };
    let caller = Caller::with(&small, OPENAI);
    let file = caller.upload(&chat_lines(1, "m")).await;
    let asked = json!({
        "input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h",
    });
    for _ in 0..2 {
        caller.post("/v1/batches", asked.clone()).await.good();
    }
    let full = caller.post("/v1/batches", asked).await;
    assert_eq!(full.status, StatusCode::BAD_REQUEST);
    assert!(full.json()["error"]["message"].as_str().unwrap().contains("at most 2 batches"));
    let full = caller.like(GEMINI).post("/v1beta/models/m:batchGenerateContent", inline(1, "job")).await;
    assert_eq!(full.json()["error"]["status"], "FAILED_PRECONDITION");

    let large = messages(1000, "claude");
    let full = caller.like(ANTHROPIC).post("/v1/messages/batches", large).await;
    assert_eq!((full.status.as_u16(), &full.json()["error"]["type"]), (413, &json!("request_too_large")));
    // What was refused is not kept: there is room for what fits.
    caller.upload(&chat_lines(100, "m")).await;
}

#[tokio::test(start_paused = true)]
async fn the_speed_divides_every_duration_and_a_seed_repeats_itself() {
    let end = async |speed: f64| {
        let options = SandboxOptions { speed: Speed::new(speed).unwrap(), ..options() };
        let caller = Caller::with(&options, OPENAI);
        let batch = caller.batch(50, "m-partial", Value::Null).await;
        let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
        let window = batch["expires_at"].as_i64().unwrap() - batch["created_at"].as_i64().unwrap();
        wait_for_the_end().await;
        let end = caller.get(&path).await.good();
        let life = end["completed_at"].as_i64().unwrap() - end["created_at"].as_i64().unwrap();
        (end["id"].clone(), end["request_counts"].clone(), window, life)
    };
    let (slow, fast) = (end(1.0).await, end(10.0).await);
    assert_eq!((&slow.0, &slow.1), (&fast.0, &fast.1));
    assert_eq!((slow.2, fast.2), (86_400, 8640));
    assert!((slow.3 / 10 - fast.3).abs() <= 1, "{} and {}", slow.3, fast.3);
}

#[tokio::test]
async fn it_serves_on_a_socket_until_it_is_told_to_stop() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let sandbox = Sandbox::new(&SandboxOptions::default());
    let stop = shutdown.clone();
    let (served, ()) = tokio::join!(sandbox.serve(listener, shutdown), async move {
        let client = client();
        let index = client.get(format!("http://{address}/")).send().await.unwrap().text().await.unwrap();
        assert!(index.contains(&format!("http://{address}/v1beta")), "{index}");
        let request = client.get(format!("http://{address}/v1/batches")).bearer_auth("any");
        assert_eq!(request.send().await.unwrap().status(), 200);
        stop.cancel();
    });
    served.unwrap();
    assert!(TcpListener::bind(address).await.is_ok());
}

#[expect(clippy::disallowed_methods, reason = "a caller from outside, not one of batchd's own clients")]
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}
