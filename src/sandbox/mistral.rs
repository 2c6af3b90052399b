//! Mistral's batch jobs (`docs/providers/mistral.md` and `docs/providers/mistral.md#lines`).

use super::Sandbox;
use super::answer::Task;
use super::batch::{Asked, Batch, Ended, Fate, Part, Reason};
use super::input::Form;
use super::life::Moment;
use super::memory::{Content, Gathered};
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
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The routes; files are in `files.rs`.
pub fn routes() -> Router<Sandbox> {
    Router::new()
        .route("/v1/batch/jobs", get(list).post(create))
        .route("/v1/batch/jobs/{id}", get(retrieve).delete(delete))
        .route("/v1/batch/jobs/{id}/cancel", post(cancel))
}

async fn create(State(sandbox): State<Sandbox>, body: Body) -> Answer {
    let body = wire::json(&sandbox, body).await?;
    let store = sandbox.store();
    let endpoint = body["endpoint"].as_str().ok_or_else(|| unprocessable("endpoint", "Field required"))?;
    let task = Task::of_mistral(endpoint)
        .ok_or_else(|| unprocessable("endpoint", "Input should be an endpoint that batch jobs take"))?;
    let metadata = match &body["metadata"] {
        Value::Null => None,
        Value::Object(map) => Some(map.clone()),
        _ => return Err(unprocessable("metadata", "Input should be a dictionary")),
    };
    let window_hours = match &body["timeout_hours"] {
        Value::Null => 24,
        hours => hours
            .as_u64()
            .filter(|hours| (1..=168).contains(hours))
            .ok_or_else(|| unprocessable("timeout_hours", "Input should be from 1 to 168"))?,
    };
    let input_files: Vec<String> = match &body["input_files"] {
        Value::Null => Vec::new(),
        Value::Array(ids) => ids
            .iter()
            .map(|id| id.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| unprocessable("input_files", "Input should be a list of ids"))?,
        _ => return Err(unprocessable("input_files", "Input should be a list")),
    };
    let inline = body["requests"].as_array().filter(|requests| !requests.is_empty());
    let content = match inline {
        Some(_) if !input_files.is_empty() => {
            return Err(unprocessable("requests", "Only one of input_files and requests may be given"));
        }
        Some(requests) if requests.len() > MOST_INLINE => {
            return Err(unprocessable("requests", "List should have at most 10000 items"));
        }
        Some(requests) => {
            let mut lines = Gathered::new(&store.memory)?;
            for request in requests {
                lines.add(request.to_string().as_bytes())?;
                lines.add(b"\n")?;
            }
            Arc::new(lines.finish())
        }
        None if input_files.is_empty() => {
            return Err(unprocessable("input_files", "One of input_files and requests is required"));
        }
        None => gather(&sandbox, &input_files)?,
    };
    let input = store.read(content, Form::Mistral { task, inline: inline.is_some() }).await?;
    let model = body["model"].as_str().map(str::to_owned).or_else(|| input.model.clone());
    let agent = body["agent_id"].as_str();
    if model.is_none() && agent.is_none() {
        return Err(unprocessable("model", "A model is required, for the job or in each request"));
    }
    let asked = Asked {
        endpoint: endpoint.to_owned(),
        model,
        input_files,
        metadata,
        name: agent.map(str::to_owned),
        window_hours,
    };
    let batch = store.open(Vendor::Mistral, asked, input, result_line)?;
    Ok(wire::answer(&view(&batch, store.now(), false)))
}

/// The content of the job's files, one after the other.
fn gather(sandbox: &Sandbox, ids: &[String]) -> Result<Arc<Content>, Refusal> {
    let store = sandbox.store();
    let mut contents = Vec::new();
    for id in ids {
        let file = store
            .file(Cabinet::Shared, id)
            .ok_or_else(|| Refusal::not_found(format!("File {id} was not found")))?;
        match &file.source {
            Source::Upload(content, _) => contents.push(content.clone()),
            Source::Result(..) => {
                return Err(unprocessable("input_files", "Input files must have been uploaded"));
            }
        }
    }
    if let [content] = contents.as_slice() {
        return Ok(content.clone());
    }
    let mut lines = Gathered::new(&store.memory)?;
    for content in contents {
        lines.add(&content)?;
        lines.add(b"\n")?;
    }
    Ok(Arc::new(lines.finish()))
}

async fn retrieve(State(sandbox): State<Sandbox>, params: Params, Path(id): Path<String>) -> Answer {
    let batch = find(&sandbox, &id)?;
    let inline = params.get("inline").is_some_and(|inline| inline.eq_ignore_ascii_case("true"));
    Ok(wire::answer(&view(&batch, sandbox.store().now(), inline)))
}

async fn cancel(State(sandbox): State<Sandbox>, Path(id): Path<String>) -> Answer {
    let batch = find(&sandbox, &id)?;
    let now = sandbox.store().now();
    let moment = batch.at(now);
    if moment.status.is_terminal() {
        return Err(Refusal::invalid(format!("Job {id} is {} and cannot be cancelled", word(moment.status))));
    }
    batch.cancel(now);
    Ok(wire::answer(&view(&batch, now, false)))
}

async fn delete(State(sandbox): State<Sandbox>, Path(id): Path<String>) -> Answer {
    let batch = find(&sandbox, &id)?;
    let store = sandbox.store();
    if !batch.at(store.now()).status.is_terminal() {
        return Err(Refusal::invalid(format!("Job {id} is still running; cancel it first")));
    }
    store.state().batches(Vendor::Mistral).remove(&id);
    Ok(wire::answer(&json!({"id": id, "object": "batch", "deleted": true})))
}

async fn list(State(sandbox): State<Sandbox>, params: Params) -> Answer {
    let store = sandbox.store();
    let page = params.number("page", 0, 0, usize::MAX)?;
    let size = params.number("page_size", 100, 1, 1000)?;
    let created_after = params
        .get("created_after")
        .map(|text| {
            text.parse::<Timestamp>()
                .map_err(|_| unprocessable("created_after", "Input should be a valid datetime"))
        })
        .transpose()?;
    let wanted = notes(&params)?;
    let statuses: Vec<&str> = params.all("status").collect();
    let now = store.now();
    let mut batches: Vec<_> =
        store.state().batches(Vendor::Mistral).newest().map(|(_, batch)| batch.clone()).collect();
    batches.retain(|batch| {
        (statuses.is_empty() || statuses.contains(&word(batch.at(now).status)))
            && created_after.is_none_or(|after| batch.created_at > after)
            && params.get("model").is_none_or(|model| batch.asked.model.as_deref() == Some(model))
            && params.get("agent_id").is_none_or(|agent| batch.asked.name.as_deref() == Some(agent))
            && wanted.iter().all(|(key, value)| {
                batch.asked.metadata.as_ref().and_then(|notes| notes.get(key)?.as_str()) == Some(value)
            })
    });
    if params.get("order_by") == Some("created") {
        batches.reverse();
    }
    let data: Vec<_> = batches
        .iter()
        .skip(page.saturating_mul(size))
        .take(size)
        .map(|batch| view(batch, now, false))
        .collect();
    Ok(wire::answer(&json!({"object": "list", "data": data, "total": batches.len()})))
}

/// The notes that a list asks for: `metadata` as JSON, or, as Mistral's SDK sends them, each as a parameter.
fn notes(params: &Params) -> Result<BTreeMap<String, String>, Refusal> {
    let mut wanted: BTreeMap<String, String> = params
        .iter()
        .filter(|(name, _)| !LIST_PARAMS.contains(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if let Some(text) = params.get("metadata") {
        let more: BTreeMap<String, String> = serde_json::from_str(text)
            .map_err(|_| unprocessable("metadata", "Input should be a JSON object of texts"))?;
        wanted.extend(more);
    }
    Ok(wanted)
}

fn find(sandbox: &Sandbox, id: &str) -> Result<Arc<Batch>, Refusal> {
    sandbox
        .store()
        .batch(Vendor::Mistral, id)
        .ok_or_else(|| Refusal::not_found(format!("Job {id} was not found")))
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Validating => "QUEUED",
        Status::InProgress | Status::Finalizing => "RUNNING",
        Status::Completed => "SUCCESS",
        Status::Failed => "FAILED",
        Status::Expired => "TIMEOUT_EXCEEDED",
        Status::Cancelling => "CANCELLATION_REQUESTED",
        Status::Cancelled => "CANCELLED",
    }
}

/// The `BatchJob` at `now`, with its results if they are wanted inline.
fn view(batch: &Batch, now: Timestamp, inline: bool) -> Value {
    let moment = batch.at(now);
    let file = |part, id: &String| batch.leaves(part, &moment).then(|| id.clone());
    let outputs = (inline && moment.status.is_terminal()).then(|| {
        batch.lines(Part::Output, moment).chain(batch.lines(Part::Error, moment)).collect::<Vec<_>>()
    });
    json!({
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.asked.endpoint,
        "input_files": batch.asked.input_files,
        "model": batch.asked.model,
        "agent_id": batch.asked.name,
        "metadata": batch.asked.metadata,
        "status": word(moment.status),
        "errors": errors(batch, &moment),
        "output_file": file(Part::Output, &batch.output_file),
        "error_file": file(Part::Error, &batch.error_file),
        "outputs": outputs,
        "created_at": batch.created_at.as_second(),
        "started_at": moment.in_progress_at.map(Timestamp::as_second),
        "completed_at": moment.ended_at.map(Timestamp::as_second),
        "total_requests": moment.total,
        "completed_requests": moment.done,
        "succeeded_requests": moment.succeeded(),
        "failed_requests": moment.errored,
    })
}

/// Why the job or some of its requests failed, each message once.
fn errors(batch: &Batch, moment: &Moment) -> Value {
    let mut messages: BTreeMap<String, usize> = BTreeMap::new();
    let mut add = |message: String| *messages.entry(message).or_default() += 1;
    if moment.status == Status::Failed {
        if batch.input.problems.is_empty() {
            add("The sandbox was asked to let this job fail.".to_owned());
        }
        for problem in &batch.input.problems {
            add(problem.message.clone());
        }
    } else if moment.status.is_terminal() {
        batch.reasons(moment).for_each(|reason| add(reason.message));
    }
    messages.into_iter().map(|(message, count)| json!({"message": message, "count": count})).collect()
}

/// A line of the output or error file.
fn result_line(ended: &Ended<'_>) -> Value {
    let id = format!("batch-{}-{}", ended.index, super::chance::uuid(&mut ended.chance()));
    let (status, body) = if ended.fate == Fate::Succeeded {
        (200, ended.answer())
    } else {
        let Reason { param, message } = ended.reason();
        let (status, kind) =
            if param.is_some() { (422, "invalid_request_error") } else { (500, "internal_server_error") };
        let body = json!({
            "object": "error", "message": message, "type": kind, "param": param, "code": null,
        });
        (status, body)
    };
    let error = if status == 200 { Value::Null } else { body["message"].clone() };
    json!({
        "id": id,
        "custom_id": ended.line["custom_id"],
        "response": {"status_code": status, "body": body},
        "error": error,
    })
}

fn unprocessable(param: &str, message: &str) -> Refusal {
    Refusal { status: StatusCode::UNPROCESSABLE_ENTITY, ..Refusal::wrong(param, message) }
}

/// Requests in the call that creates a job.
const MOST_INLINE: usize = 10_000;
/// What a list's parameters mean; another one is a note that the jobs must have.
const LIST_PARAMS: [&str; 9] = [
    "page",
    "page_size",
    "model",
    "agent_id",
    "metadata",
    "created_after",
    "created_by_me",
    "status",
    "order_by",
];
