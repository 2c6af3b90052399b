//! Anthropic's Message Batches (`docs/providers/anthropic.md` and `docs/providers/anthropic.md#lines`).

use super::Sandbox;
use super::batch::{self, Asked, Batch, Ended, Fate, Part, Reason};
use super::input::Form;
use super::memory::Gathered;
use super::refusal::Refusal;
use super::vendor::Vendor;
use super::wire::{self, Answer, Base, Params};
use crate::domain::status::Status;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// The routes; each needs the header `anthropic-version`.
pub fn routes() -> Router<Sandbox> {
    Router::new()
        .route("/v1/messages/batches", get(list).post(create))
        .route("/v1/messages/batches/{id}", get(retrieve).delete(delete))
        .route("/v1/messages/batches/{id}/cancel", post(cancel))
        .route("/v1/messages/batches/{id}/results", get(results))
        .route_layer(middleware::from_fn(versioned))
}

async fn versioned(request: Request, next: Next) -> Response {
    if request.headers().contains_key("anthropic-version") {
        next.run(request).await
    } else {
        Refusal::invalid("anthropic-version: header is required").into_response()
    }
}

async fn create(State(sandbox): State<Sandbox>, base: Base, body: Body) -> Answer {
    let body = wire::json(&sandbox, body).await?;
    let store = sandbox.store();
    let requests = body["requests"].as_array().filter(|requests| !requests.is_empty()).ok_or_else(|| {
        Refusal::wrong("requests", "requests: a list with at least one request is required")
    })?;
    if requests.len() > MOST_REQUESTS {
        let message = format!("requests: at most {MOST_REQUESTS} requests, not {}", requests.len());
        return Err(Refusal::wrong("requests", message));
    }
    let mut lines = Gathered::new(&store.memory)?;
    for request in requests {
        lines.add(request.to_string().as_bytes())?;
        lines.add(b"\n")?;
    }
    let input = store.read(Arc::new(lines.finish()), Form::Anthropic).await?;
    if let Some(problem) = input.problems.first() {
        let index = problem.line.unwrap_or(1) - 1;
        return Err(Refusal::wrong("requests", format!("requests.{index}: {}", problem.message)));
    }
    let asked = Asked { endpoint: "/v1/messages".to_owned(), window_hours: 24, ..Asked::default() };
    let batch = store.open(Vendor::Anthropic, asked, input, result_line)?;
    Ok(wire::answer(&view(&batch, &base, store.now())))
}

async fn retrieve(State(sandbox): State<Sandbox>, base: Base, Path(id): Path<String>) -> Answer {
    let batch = find(&sandbox, &id)?;
    Ok(wire::answer(&view(&batch, &base, sandbox.store().now())))
}

async fn cancel(State(sandbox): State<Sandbox>, base: Base, Path(id): Path<String>) -> Answer {
    let batch = find(&sandbox, &id)?;
    let now = sandbox.store().now();
    if batch.at(now).status.is_terminal() {
        return Err(Refusal::invalid(format!("Batch {id} has ended and cannot be canceled.")));
    }
    batch.cancel(now);
    Ok(wire::answer(&view(&batch, &base, now)))
}

async fn delete(State(sandbox): State<Sandbox>, Path(id): Path<String>) -> Answer {
    let batch = find(&sandbox, &id)?;
    let store = sandbox.store();
    if !batch.at(store.now()).status.is_terminal() {
        return Err(Refusal::invalid(format!("Batch {id} is still being processed; cancel it first.")));
    }
    store.state().batches(Vendor::Anthropic).remove(&id);
    Ok(wire::answer(&json!({"id": id, "type": "message_batch_deleted"})))
}

async fn results(State(sandbox): State<Sandbox>, Path(id): Path<String>) -> Answer {
    let batch = find(&sandbox, &id)?;
    let moment = batch.at(sandbox.store().now());
    if !moment.status.is_terminal() {
        return Err(Refusal::not_found(format!("Batch {id} has no results yet; it has not ended.")));
    }
    Ok(wire::file("application/x-jsonl", batch::stream(&batch, Part::Output, moment)))
}

async fn list(State(sandbox): State<Sandbox>, base: Base, params: Params) -> Answer {
    let store = sandbox.store();
    let limit = params.number("limit", 20, 1, 1000)?;
    let now = store.now();
    let (page, more) = {
        let mut state = store.state();
        let batches = state.batches(Vendor::Anthropic);
        let cursor = |name: &str| {
            params
                .get(name)
                .map(|id| {
                    batches.serial(id).ok_or_else(|| Refusal::wrong(name, format!("{name}: no batch `{id}`")))
                })
                .transpose()
        };
        match (cursor("after_id")?, cursor("before_id")?) {
            (Some(_), Some(_)) => {
                return Err(Refusal::wrong("after_id", "only one of after_id and before_id may be given"));
            }
            (None, Some(before)) => {
                let mut newer = batches.after(before).map(|(_, batch)| batch.clone());
                let mut page: Vec<_> = newer.by_ref().take(limit).collect();
                page.reverse();
                (page, newer.next().is_some())
            }
            (after, None) => {
                let mut older = batches.before(after.unwrap_or(u64::MAX)).map(|(_, batch)| batch.clone());
                (older.by_ref().take(limit).collect(), older.next().is_some())
            }
        }
    };
    let data: Vec<_> = page.iter().map(|batch| view(batch, &base, now)).collect();
    Ok(wire::answer(&json!({
        "data": data,
        "has_more": more,
        "first_id": page.first().map(|batch| &batch.id),
        "last_id": page.last().map(|batch| &batch.id),
    })))
}

fn find(sandbox: &Sandbox, id: &str) -> Result<Arc<Batch>, Refusal> {
    sandbox
        .store()
        .batch(Vendor::Anthropic, id)
        .ok_or_else(|| Refusal::not_found(format!("Message batch {id} was not found.")))
}

/// The `MessageBatch` at `now`. While it lives every request counts as processing.
fn view(batch: &Batch, base: &Base, now: Timestamp) -> Value {
    let moment = batch.at(now);
    let ended = moment.status.is_terminal();
    let unreached = |status| if moment.status == status { moment.remaining() } else { 0 };
    json!({
        "id": batch.id,
        "type": "message_batch",
        "processing_status": match moment.status {
            Status::Cancelling => "canceling",
            _ if ended => "ended",
            _ => "in_progress",
        },
        "request_counts": {
            "processing": if ended { 0 } else { moment.total },
            "succeeded": if ended { moment.succeeded() } else { 0 },
            "errored": if ended { moment.errored } else { 0 },
            "canceled": unreached(Status::Cancelled),
            "expired": unreached(Status::Expired),
        },
        "created_at": wire::rfc3339(batch.created_at),
        "expires_at": wire::rfc3339(moment.expires_at),
        "ended_at": moment.ended_at.map(wire::rfc3339),
        "cancel_initiated_at": moment.cancelling_at.map(wire::rfc3339),
        "archived_at": null,
        "results_url": ended.then(|| format!("{}/v1/messages/batches/{}/results", base.0, batch.id)),
    })
}

fn result_line(ended: &Ended<'_>) -> Value {
    let result = match ended.fate {
        Fate::Succeeded => json!({"type": "succeeded", "message": ended.answer()}),
        Fate::Errored => {
            let Reason { param, message } = ended.reason();
            let kind = if param.is_some() { "invalid_request_error" } else { "api_error" };
            let request_id = format!("req_01{}", super::chance::alphanumeric(&mut ended.chance(), 22));
            json!({
                "type": "errored",
                "error": {
                    "type": "error",
                    "error": {"type": kind, "message": message},
                    "request_id": request_id,
                },
            })
        }
        Fate::Expired => json!({"type": "expired"}),
        Fate::Cancelled => json!({"type": "canceled"}),
    };
    json!({"custom_id": ended.line["custom_id"], "result": result})
}

const MOST_REQUESTS: usize = 100_000;
