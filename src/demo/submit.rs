//! Creates the demo's batches at the simulated providers, over the API of each.

use crate::http::call::{BodyLimit, Call};
use crate::http::transport::{ReqwestTransport, Transport};
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::Duration;

/// A batch of the demo.
pub(super) struct Planned {
    /// At which provider.
    pub provider: &'static str,
    /// What to call it.
    pub name: &'static str,
    /// How many requests it has.
    pub requests: usize,
    /// How the simulation is to end it.
    outcome: &'static str,
}

const fn planned(
    provider: &'static str,
    name: &'static str,
    requests: usize,
    outcome: &'static str,
) -> Planned {
    Planned { provider, name, requests, outcome }
}

/// What the demo submits.
pub(super) const PLAN: [Planned; 8] = [
    planned("openai", "nightly-evals", 48, "succeeded"),
    planned("openai", "relabel-tickets", 30, "partial"),
    planned("openai", "broken-input", 5, "failed"),
    planned("anthropic", "summaries", 24, "succeeded"),
    planned("anthropic", "translations", 16, "expired"),
    planned("gemini", "captions", 20, "succeeded"),
    planned("mistral", "ocr-cleanup", 12, "all-failed"),
    planned("mistral", "moderation", 36, "cancelled"),
];

/// Creates batches at the simulated providers.
pub(super) struct Submitter {
    transport: ReqwestTransport,
    base: String,
}

impl Submitter {
    pub(super) fn new(transport: ReqwestTransport, base: &str) -> Self {
        Self { transport, base: base.to_owned() }
    }

    /// Creates a batch and gives its id.
    pub(super) async fn create(&self, planned: &Planned) -> Result<String, String> {
        let model = format!("demo-{}", planned.outcome);
        match planned.provider {
            "openai" => self.openai(planned, &model).await,
            "anthropic" => self.anthropic(planned, &model).await,
            "gemini" => self.gemini(planned, &model).await,
            _ => self.mistral(planned, &model).await,
        }
    }

    async fn openai(&self, planned: &Planned, model: &str) -> Result<String, String> {
        let lines = lines(planned, |number| {
            json!({
                "custom_id": format!("request-{number}"),
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": { "model": model, "messages": question(number) },
            })
        });
        let file = self.upload("/v1/files", &lines).await?;
        let batch = json!({
            "input_file_id": file,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": { "demo": planned.name },
        });
        text(&self.post("/v1/batches", &batch).await?, "id")
    }

    async fn anthropic(&self, planned: &Planned, model: &str) -> Result<String, String> {
        let requests: Vec<Value> = (1..=planned.requests)
            .map(|number| {
                json!({
                    "custom_id": format!("request-{number}"),
                    "params": { "model": model, "max_tokens": 64, "messages": question(number) },
                })
            })
            .collect();
        text(&self.post("/v1/messages/batches", &json!({ "requests": requests })).await?, "id")
    }

    async fn gemini(&self, planned: &Planned, model: &str) -> Result<String, String> {
        let requests: Vec<Value> = (1..=planned.requests)
            .map(|number| {
                json!({
                    "request": { "contents": [{ "role": "user", "parts": [{ "text": format!("Question {number}") }] }] },
                    "metadata": { "key": format!("request-{number}") },
                })
            })
            .collect();
        let batch = json!({
            "batch": {
                "displayName": planned.name,
                "inputConfig": { "requests": { "requests": requests } },
            },
        });
        text(&self.post(&format!("/v1beta/models/{model}:batchGenerateContent"), &batch).await?, "name")
    }

    async fn mistral(&self, planned: &Planned, model: &str) -> Result<String, String> {
        let lines = lines(
            planned,
            |number| json!({ "custom_id": format!("request-{number}"), "body": { "max_tokens": 64, "messages": question(number) } }),
        );
        let file = self.upload("/v1/files", &lines).await?;
        let job = json!({
            "input_files": [file],
            "model": model,
            "endpoint": "/v1/chat/completions",
            "metadata": { "demo": planned.name },
        });
        text(&self.post("/v1/batch/jobs", &job).await?, "id")
    }

    async fn upload(&self, path: &str, content: &str) -> Result<String, String> {
        const BOUNDARY: &str = "batchd-demo-boundary";
        let body = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
             --{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"requests.jsonl\"\r\n\
             content-type: application/jsonl\r\n\r\n{content}\r\n--{BOUNDARY}--\r\n"
        );
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        text(&self.send(path, &kind, body.into()).await?, "id")
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.send(path, "application/json", body.to_string().into()).await
    }

    async fn send(&self, path: &str, kind: &str, body: Bytes) -> Result<Value, String> {
        let mut request = http::Request::post(format!("{}{path}", self.base)).header("content-type", kind);
        // Each simulated provider looks at its own vendor's headers.
        request = if path.starts_with("/v1/messages") {
            request.header("x-api-key", "sk-demo").header("anthropic-version", "2023-06-01")
        } else if path.starts_with("/v1beta") {
            request.header("x-goog-api-key", "sk-demo")
        } else {
            request.header("authorization", "Bearer sk-demo")
        };
        let request = request.body(body).map_err(|error| error.to_string())?;
        let call =
            Call { request, timeout: Duration::from_secs(5), body_limit: BodyLimit::Whole(1024 * 1024) };
        let answer = self.transport.send(call).await.map_err(|failure| format!("the sandbox: {failure}"))?;
        if !answer.status.is_success() {
            return Err(format!(
                "the sandbox answers {}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            ));
        }
        serde_json::from_slice(&answer.body).map_err(|error| format!("the sandbox's answer: {error}"))
    }
}

fn lines(planned: &Planned, line: impl Fn(usize) -> Value) -> String {
    let mut text = String::new();
    for number in 1..=planned.requests {
        text.push_str(&line(number).to_string());
        text.push('\n');
    }
    text
}

fn question(number: usize) -> Value {
    json!([{ "role": "user", "content": format!("Question {number}") }])
}

fn text(answer: &Value, field: &str) -> Result<String, String> {
    answer[field].as_str().map(str::to_owned).ok_or_else(|| format!("the sandbox's answer has no `{field}`"))
}
