//! OpenAI's Batch API (`docs/providers/openai.md` and `docs/providers/openai.md#lines`).

use super::Sandbox;
use super::answer::Task;
use super::batch::{Asked, Batch, Ended, Fate, Part, Reason};
use super::input::{Form, Problem};
use super::life::Moment;
use super::refusal::Refusal;
use super::store::{Cabinet, Source};
use super::vendor::Vendor;
use super::wire::{self, Answer, Params};
use crate::domain::status::Status;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The routes; files are in `files.rs`.
pub fn routes() -> Router<Sandbox> {
    Router::new()
        .route("/v1/batches", get(list).post(create))
        .route("/v1/batches/{id}", get(retrieve))
        .route("/v1/batches/{id}/cancel", post(cancel))
}

async fn create(State(sandbox): State<Sandbox>, body: Body) -> Answer {
    let body = wire::json(&sandbox, body).await?;
    let store = sandbox.store();
    let text = |name: &str| {
        body[name].as_str().map(str::to_owned).ok_or_else(|| {
            Refusal::wrong(name, format!("Missing required parameter: '{name}'."))
                .coded("missing_required_parameter")
        })
    };
    let (file_id, endpoint, window) = (text("input_file_id")?, text("endpoint")?, text("completion_window")?);
    let task = Task::of_openai(&endpoint).ok_or_else(|| {
        invalid_value("endpoint", format!("`{endpoint}` is not an endpoint of the Batch API."))
    })?;
    if window != "24h" {
        return Err(invalid_value("completion_window", "`completion_window` must be 24h.".to_owned()));
    }
    let metadata = metadata(&body["metadata"])?;
    let file = store
        .file(Cabinet::Shared, &file_id)
        .ok_or_else(|| Refusal::wrong("input_file_id", format!("No such File object: {file_id}")))?;
    let Source::Upload(content, _) = &file.source else {
        return Err(Refusal::wrong(
            "input_file_id",
            "The input file must have been uploaded with purpose batch.",
        ));
    };
    if file.purpose != "batch" {
        let message = format!("The input file's purpose is `{}`; it must be `batch`.", file.purpose);
        return Err(Refusal::wrong("input_file_id", message));
    }
    let mut input = store.read(content.clone(), Form::OpenAi { task, endpoint: endpoint.clone() }).await?;
    if input.requests.len() > MOST_REQUESTS {
        input.problems.insert(
            0,
            Problem {
                code: "too_many_tasks",
                message: format!(
                    "A batch may have {MOST_REQUESTS} requests; the file has {}.",
                    input.count()
                ),
                param: None,
                line: None,
            },
        );
    }
    let asked = Asked {
        endpoint,
        model: input.model.clone(),
        input_files: vec![file_id],
        metadata,
        name: None,
        window_hours: 24,
    };
    let batch = store.open(Vendor::OpenAi, asked, input, result_line)?;
    Ok(wire::answer(&view(&batch, store.now())))
}

async fn retrieve(State(sandbox): State<Sandbox>, Path(id): Path<String>) -> Answer {
    let batch = find(&sandbox, &id)?;
    Ok(wire::answer(&view(&batch, sandbox.store().now())))
}

async fn cancel(State(sandbox): State<Sandbox>, Path(id): Path<String>) -> Answer {
    let batch = find(&sandbox, &id)?;
    let now = sandbox.store().now();
    let status = batch.at(now).status;
    if status.is_terminal() {
        let message = format!("Cannot cancel a batch with status '{status}'.");
        return Err(Refusal::new(StatusCode::CONFLICT, message));
    }
    batch.cancel(now);
    Ok(wire::answer(&view(&batch, now)))
}

async fn list(State(sandbox): State<Sandbox>, params: Params) -> Answer {
    let store = sandbox.store();
    let limit = params.number("limit", 20, 1, 100)?;
    let now = store.now();
    let (page, more) = {
        let mut state = store.state();
        let batches = state.batches(Vendor::OpenAi);
        let from = match params.get("after") {
            Some(after) => batches
                .serial(after)
                .ok_or_else(|| Refusal::wrong("after", format!("No batch found with id '{after}'.")))?,
            None => u64::MAX,
        };
        let mut older = batches.before(from).map(|(_, batch)| batch.clone());
        let page: Vec<_> = older.by_ref().take(limit).collect();
        (page, older.next().is_some())
    };
    let data: Vec<_> = page.iter().map(|batch| view(batch, now)).collect();
    Ok(wire::answer(&json!({
        "object": "list",
        "data": data,
        "first_id": page.first().map(|batch| &batch.id),
        "last_id": page.last().map(|batch| &batch.id),
        "has_more": more,
    })))
}

fn find(sandbox: &Sandbox, id: &str) -> Result<Arc<Batch>, Refusal> {
    sandbox
        .store()
        .batch(Vendor::OpenAi, id)
        .ok_or_else(|| Refusal::not_found(format!("No batch found with id '{id}'.")))
}

/// The Batch object at `now`.
fn view(batch: &Batch, now: Timestamp) -> Value {
    let moment = batch.at(now);
    let file = |part, id: &String| batch.leaves(part, &moment).then(|| id.clone());
    let second = |at: Option<Timestamp>| at.map(Timestamp::as_second);
    let checked = moment.in_progress_at.is_some();
    let failed = moment.status == Status::Failed;
    json!({
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.asked.endpoint,
        "model": batch.asked.model,
        "errors": failed.then(|| errors(batch)),
        "input_file_id": batch.asked.input_files.first(),
        "completion_window": "24h",
        "status": moment.status,
        "output_file_id": file(Part::Output, &batch.output_file),
        "error_file_id": file(Part::Error, &batch.error_file),
        "created_at": batch.created_at.as_second(),
        "in_progress_at": second(moment.in_progress_at),
        "expires_at": moment.expires_at.as_second(),
        "finalizing_at": second(moment.finalizing_at),
        "completed_at": second(moment.ended_as(Status::Completed)),
        "failed_at": second(moment.ended_as(Status::Failed)),
        "expired_at": second(moment.ended_as(Status::Expired)),
        "cancelling_at": second(moment.cancelling_at),
        "cancelled_at": second(moment.ended_as(Status::Cancelled)),
        "request_counts": {
            "total": if checked { moment.total } else { 0 },
            "completed": moment.succeeded(),
            "failed": moment.errored,
        },
        "usage": (moment.status.is_terminal() && !failed).then(|| usage(batch, &moment)),
        "metadata": batch.asked.metadata,
    })
}

fn errors(batch: &Batch) -> Value {
    let problem = |problem: &Problem| {
        json!({
            "code": problem.code, "message": problem.message, "param": problem.param, "line": problem.line,
        })
    };
    let mut data: Vec<_> = batch.input.problems.iter().map(problem).collect();
    if data.is_empty() {
        let model = batch.asked.model.as_deref().unwrap_or("sandbox");
        data.push(json!({
            "code": "model_not_found",
            "message": format!("The provided model '{model}' is not supported by the Batch API."),
            "param": "body.model",
            "line": 1,
        }));
    }
    json!({"object": "list", "data": data})
}

fn usage(batch: &Batch, moment: &Moment) -> Value {
    let (input, output) = batch.tokens(moment);
    json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input + output,
    })
}

/// A line of the output or error file.
fn result_line(ended: &Ended<'_>) -> Value {
    let mut chance = ended.chance();
    let id = format!("batch_req_{}", super::chance::hex(&mut chance, 32));
    let request_id = super::chance::hex(&mut chance, 32);
    let response =
        |status: u16, body: Value| json!({"status_code": status, "request_id": request_id, "body": body});
    let (response, error) = match ended.fate {
        Fate::Succeeded => (response(200, ended.answer()), Value::Null),
        Fate::Errored => {
            let Reason { param, message } = ended.reason();
            let (status, kind) = match param {
                Some(_) => (400, "invalid_request_error"),
                None => (500, "server_error"),
            };
            let body = json!({"error": {"message": message, "type": kind, "param": param, "code": null}});
            (response(status, body), Value::Null)
        }
        Fate::Expired => (
            Value::Null,
            json!({
                "code": "batch_expired",
                "message": "This request could not be executed before the completion window expired.",
            }),
        ),
        Fate::Cancelled => (
            Value::Null,
            json!({
                "code": "batch_cancelled",
                "message": "This request was not executed because the batch was cancelled.",
            }),
        ),
    };
    json!({"id": id, "custom_id": ended.line["custom_id"], "response": response, "error": error})
}

/// A batch's notes: at most 16 texts, keys up to 64 and values up to 512 characters.
fn metadata(value: &Value) -> Result<Option<Map<String, Value>>, Refusal> {
    let bad = |message: String| Refusal::wrong("metadata", message);
    let map = match value {
        Value::Null => return Ok(None),
        Value::Object(map) => map,
        _ => return Err(bad("`metadata` must be an object.".to_owned())),
    };
    if map.len() > 16 {
        return Err(bad(format!("`metadata` may have 16 pairs, not {}.", map.len())));
    }
    for (key, value) in map {
        if key.chars().count() > 64 {
            return Err(bad(format!("The metadata key `{key}` is longer than 64 characters.")));
        }
        match value.as_str() {
            None => return Err(bad(format!("The metadata value of `{key}` must be a text."))),
            Some(text) if text.chars().count() > 512 => {
                return Err(bad(format!("The metadata value of `{key}` is longer than 512 characters.")));
            }
            Some(_) => {}
        }
    }
    Ok(Some(map.clone()))
}

fn invalid_value(param: &str, message: String) -> Refusal {
    Refusal::wrong(param, message).coded("invalid_value")
}

const MOST_REQUESTS: usize = 50_000;
