//! Submits the demo's batches, as anybody would: a file of requests for each.

use crate::control::api::TrackItem;
use crate::control::service::Service;
use crate::control::submit::SubmitOptions;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};

pub(super) struct Planned {
    pub provider: &'static str,
    pub name: &'static str,
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

/// Submits one, which tracks it, and gives its id.
pub(super) async fn submit(service: &Service, planned: &Planned) -> Result<String, String> {
    let request = SubmitOptions {
        provider: Some(planned.provider.to_owned()),
        file_name: Some(planned.name.to_owned()),
        options: TrackItem { name: Some(planned.name.to_owned()), ..TrackItem::default() },
        ..SubmitOptions::default()
    };
    let lines: Vec<_> = (1..=planned.requests).map(|number| Ok(line(planned, number))).collect();
    let answer = service.submit(Ok(request), None, stream::iter(lines).boxed(), None).await;
    let mut answer = answer.map_err(|refusal| refusal.message)?;
    let mut last = Bytes::new();
    while let Some(Ok(line)) = answer.next().await {
        last = line;
    }
    let batch: Value = serde_json::from_slice(&last).unwrap_or_default();
    let id = batch["id"].as_str().map(str::to_owned);
    id.ok_or_else(|| batch["error"]["message"].as_str().unwrap_or("the answer has no end").to_owned())
}

/// A request in OpenAI's form, whatever the provider.
fn line(planned: &Planned, number: usize) -> Bytes {
    let line = json!({
        "custom_id": format!("request-{number}"),
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": format!("demo-{}", planned.outcome),
            "max_tokens": 64,
            "messages": [{ "role": "user", "content": format!("Question {number}") }],
        },
    });
    format!("{line}\n").into()
}
