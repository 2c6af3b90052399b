//! The batches of Google's Gemini Developer API (`docs/providers/gemini.md` and `docs/providers/gemini.md#lines`).

use super::Sandbox;
use super::answer::Task;
use super::batch::{Asked, Batch, Ended, Fate, Part, Reason};
use super::gemini_files;
use super::input::Form;
use super::life::Moment;
use super::memory::{Content, Gathered};
use super::refusal::Refusal;
use super::store::{Cabinet, Source};
use super::vendor::Vendor;
use super::wire::{self, Answer, Params, either, masked, page_token};
use crate::domain::status::Status;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The routes; files are in `gemini_files.rs`. The middleware has already written `/v1` of Google's clients as `/v1beta`.
pub fn routes() -> Router<Sandbox> {
    Router::new()
        .route("/v1beta/models/{call}", post(create))
        .route("/v1beta/batches", get(list))
        .route("/v1beta/batches/{call}", get(retrieve).post(cancel).delete(delete))
}

async fn create(
    State(sandbox): State<Sandbox>,
    Path(call): Path<String>,
    params: Params,
    body: Body,
) -> Answer {
    let (model, task) = match call.rsplit_once(':') {
        Some((model, "batchGenerateContent")) => (model, Task::Content),
        Some((model, "asyncBatchEmbedContent")) => (model, Task::ContentEmbedding),
        _ => return Err(Refusal::not_found(format!("models/{call} is not a method of the sandbox"))),
    };
    let body = wire::json(&sandbox, body).await?;
    let batch = &body["batch"];
    let name = either(batch, "displayName", "display_name").as_str().map(str::to_owned);
    let config = either(batch, "inputConfig", "input_config");
    let file = either(config, "fileName", "file_name").as_str();
    let requests = config["requests"]["requests"].as_array().filter(|requests| !requests.is_empty());
    let content = match (file, requests) {
        (Some(file), None) => uploaded(&sandbox, file)?,
        (None, Some(requests)) => {
            let mut lines = Gathered::new(&sandbox.store().memory)?;
            for request in requests {
                lines.add(request.to_string().as_bytes())?;
                lines.add(b"\n")?;
            }
            Arc::new(lines.finish())
        }
        _ => return Err(Refusal::invalid("batch.input_config must have either file_name or requests")),
    };
    let store = sandbox.store();
    let input = store.read(content, Form::Gemini { task }).await?;
    let asked = Asked {
        endpoint: call.clone(),
        model: Some(model.to_owned()),
        input_files: file.map(str::to_owned).into_iter().collect(),
        metadata: None,
        name,
        window_hours: 48,
    };
    let batch = store.open(Vendor::Gemini, asked, input, result_line)?;
    masked(&params, view(&batch, store.now(), true))
}

/// The content of an uploaded file.
fn uploaded(sandbox: &Sandbox, name: &str) -> Result<Arc<Content>, Refusal> {
    let file =
        sandbox.store().file(Cabinet::Gemini, name).ok_or_else(|| gemini_files::no_permission(name))?;
    match &file.source {
        Source::Upload(content, _) => Ok(content.clone()),
        Source::Result(..) => Err(Refusal::invalid(format!("{name} is not an uploaded file"))),
    }
}

async fn retrieve(State(sandbox): State<Sandbox>, Path(id): Path<String>, params: Params) -> Answer {
    let batch = find(&sandbox, &id)?;
    masked(&params, view(&batch, sandbox.store().now(), true))
}

async fn cancel(State(sandbox): State<Sandbox>, Path(call): Path<String>) -> Answer {
    let id = call
        .strip_suffix(":cancel")
        .ok_or_else(|| Refusal::not_found(format!("batches/{call} is not a method of the sandbox")))?;
    let batch = find(&sandbox, id)?;
    // On a batch that has ended this has no effect, and is no error.
    batch.cancel(sandbox.store().now());
    Ok(wire::answer(&json!({})))
}

async fn delete(State(sandbox): State<Sandbox>, Path(id): Path<String>) -> Answer {
    let batch = find(&sandbox, &id)?;
    sandbox.store().state().batches(Vendor::Gemini).remove(&batch.id);
    Ok(wire::answer(&json!({})))
}

async fn list(State(sandbox): State<Sandbox>, params: Params) -> Answer {
    let store = sandbox.store();
    let size = params.number("pageSize", 50, 1, 1000)?;
    let from = page_token(&params)?;
    let now = store.now();
    let (page, more) = {
        let mut state = store.state();
        let mut older =
            state.batches(Vendor::Gemini).before(from).map(|(serial, batch)| (serial, batch.clone()));
        let page: Vec<_> = older.by_ref().take(size).collect();
        (page, older.next().is_some())
    };
    let operations: Vec<_> = page.iter().map(|(_, batch)| view(batch, now, false)).collect();
    let mut answer = Map::new();
    if !operations.is_empty() {
        answer.insert("operations".to_owned(), operations.into());
    }
    if let Some((serial, _)) = page.last().filter(|_| more) {
        answer.insert("nextPageToken".to_owned(), serial.to_string().into());
    }
    masked(&params, Value::Object(answer))
}

fn find(sandbox: &Sandbox, id: &str) -> Result<Arc<Batch>, Refusal> {
    sandbox
        .store()
        .batch(Vendor::Gemini, &format!("batches/{id}"))
        .ok_or_else(|| Refusal::not_found("Requested entity was not found."))
}

/// The Operation at `now`; a list leaves out inline results.
fn view(batch: &Batch, now: Timestamp, with_inline: bool) -> Value {
    let moment = batch.at(now);
    let ended = moment.status.is_terminal();
    let embeds = batch.input.form.task() == Task::ContentEmbedding;
    let kind = if embeds { "EmbedContentBatch" } else { "GenerateContentBatch" };
    let output = batch.leaves(Part::Output, &moment).then(|| output(batch, &moment, embeds, with_inline));

    let mut metadata = Map::new();
    let mut put = |name: &str, value: Value| metadata.insert(name.to_owned(), value);
    put("@type", format!("{TYPES}{kind}").into());
    put("model", format!("models/{}", batch.asked.model.as_deref().unwrap_or_default()).into());
    if let Some(name) = &batch.asked.name {
        put("displayName", name.clone().into());
    }
    if let Some(file) = batch.asked.input_files.first() {
        put("inputConfig", json!({"fileName": file}));
    }
    if let Some(output) = output.clone().flatten() {
        put("output", output);
    }
    put("createTime", wire::rfc3339(batch.created_at).into());
    if let Some(at) = moment.ended_at {
        put("endTime", wire::rfc3339(at).into());
    }
    put("updateTime", wire::rfc3339(moment.updated_at).into());
    put("batchStats", stats(&moment));
    put("state", state(moment.status).into());
    put("name", batch.id.clone().into());

    let mut operation = json!({"name": batch.id, "metadata": metadata});
    if ended {
        operation["done"] = true.into();
        if let Some(error) = error(batch, &moment) {
            operation["error"] = error;
        } else {
            let mut response = output.flatten().unwrap_or_else(|| json!({}));
            response["@type"] = format!("{TYPES}{kind}Output").into();
            operation["response"] = response;
        }
    }
    operation
}

/// Where the results are: in a file, or, of requests that came inline, here; `None` for those in a list.
fn output(batch: &Batch, moment: &Moment, embeds: bool, with_inline: bool) -> Option<Value> {
    if !batch.asked.input_files.is_empty() {
        return Some(json!({"responsesFile": batch.output_file}));
    }
    if !with_inline {
        return None;
    }
    let responses: Vec<_> = batch.in_input_order(moment).iter().map(inlined).collect();
    let field = if embeds { "inlinedEmbedContentResponses" } else { "inlinedResponses" };
    Some(json!({field: {"inlinedResponses": responses}}))
}

/// Google's counts are texts, and zero ones are left out.
fn stats(moment: &Moment) -> Value {
    let counts = [
        ("requestCount", moment.total),
        ("successfulRequestCount", moment.succeeded()),
        ("failedRequestCount", moment.errored),
        ("pendingRequestCount", if moment.status.is_terminal() { 0 } else { moment.remaining() }),
    ];
    let shown = counts.into_iter().filter(|(_, count)| *count > 0);
    Value::Object(shown.map(|(name, count)| (name.to_owned(), count.to_string().into())).collect())
}

fn state(status: Status) -> &'static str {
    match status {
        Status::Validating => "BATCH_STATE_PENDING",
        Status::InProgress | Status::Finalizing | Status::Cancelling => "BATCH_STATE_RUNNING",
        Status::Completed => "BATCH_STATE_SUCCEEDED",
        Status::Failed => "BATCH_STATE_FAILED",
        Status::Expired => "BATCH_STATE_EXPIRED",
        Status::Cancelled => "BATCH_STATE_CANCELLED",
    }
}

/// Why the operation has no response.
fn error(batch: &Batch, moment: &Moment) -> Option<Value> {
    let (code, message) = match moment.status {
        Status::Failed => {
            let message = batch.input.problems.first().map_or_else(
                || "The sandbox was asked to let this batch fail.".to_owned(),
                |problem| match problem.line {
                    Some(line) => format!("Invalid input in line {line}: {}", problem.message),
                    None => problem.message.clone(),
                },
            );
            (3, message)
        }
        Status::Expired => (4, format!("{} was running or pending for too long and expired.", batch.id)),
        Status::Cancelled => (1, format!("{} was cancelled.", batch.id)),
        _ => return None,
    };
    Some(json!({"code": code, "message": message}))
}

/// A line of the results file.
fn result_line(ended: &Ended<'_>) -> Value {
    let mut line = Map::new();
    if let Some(key) = ended.line.get("key") {
        line.insert("key".to_owned(), key.clone());
    }
    let (field, value) = outcome(ended);
    line.insert(field.to_owned(), value);
    Value::Object(line)
}

/// An inline result.
fn inlined(ended: &Ended<'_>) -> Value {
    let (field, value) = outcome(ended);
    let mut result = json!({field: value});
    if let Some(metadata) = ended.line.get("metadata") {
        result["metadata"] = metadata.clone();
    }
    result
}

fn outcome(ended: &Ended<'_>) -> (&'static str, Value) {
    let (code, message) = match ended.fate {
        Fate::Succeeded => return ("response", ended.answer()),
        Fate::Errored => {
            let Reason { param, message } = ended.reason();
            (if param.is_some() { 3 } else { 13 }, message)
        }
        Fate::Expired => (4, "The batch expired before this request was processed.".to_owned()),
        Fate::Cancelled => (1, "The batch was cancelled before this request was processed.".to_owned()),
    };
    ("error", json!({"code": code, "message": message}))
}

/// How Google names the types in an operation.
const TYPES: &str = "type.googleapis.com/google.ai.generativelanguage.v1main.";
