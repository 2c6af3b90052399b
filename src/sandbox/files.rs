//! `/v1/files`, which answers what both OpenAI's and Mistral's SDK accept (`docs/providers/openai.md` and `docs/providers/mistral.md`).

use super::Sandbox;
use super::batch;
use super::chance;
use super::memory::{Content, Gathered};
use super::refusal::Refusal;
use super::store::{Cabinet, File, Source};
use super::vendor::Vendor;
use super::wire::{self, Answer, Base, Params};
use axum::Router;
use axum::body::Body;
use axum::extract::multipart::{Multipart, MultipartRejection};
use axum::extract::{Path, State};
use axum::routing::get;
use http::{HeaderMap, Uri};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

pub fn routes() -> Router<Sandbox> {
    Router::new()
        .route("/v1/files", get(list).post(upload))
        .route("/v1/files/{id}", get(retrieve).delete(delete))
        .route("/v1/files/{id}/content", get(content))
        .route("/v1/files/{id}/url", get(signed_url))
}

/// Whether `path` with `query` is an address that [`signed_url`] gave out, which needs no key.
pub fn is_signed(sandbox: &Sandbox, uri: &Uri) -> bool {
    let id = uri.path().strip_prefix("/v1/files/").and_then(|rest| rest.strip_suffix("/content"));
    let params = Params::read(uri.query().unwrap_or_default());
    id.zip(params.get("signature")).is_some_and(|(id, signature)| sandbox.store().signature(id) == signature)
}

async fn upload(
    State(sandbox): State<Sandbox>,
    uri: Uri,
    headers: HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Answer {
    let form =
        form.map_err(|_| Refusal::invalid("The body must be multipart/form-data with a field `file`."))?;
    let form = Form::read(&sandbox, form).await?;
    let content = form.content.ok_or_else(|| {
        Refusal::wrong("file", "Missing required parameter: 'file'.").coded("missing_required_parameter")
    })?;
    let store = sandbox.store();
    let serial = store.serial();
    let mut chance = store.chance(serial);
    let id = if Vendor::of(&uri, &headers) == Some(Vendor::Mistral) {
        chance::uuid(&mut chance)
    } else {
        format!("file-{}", chance::alphanumeric(&mut chance, 22))
    };
    let now = store.now();
    let file = store.upload(
        Cabinet::Shared,
        File {
            id,
            serial,
            name: form.name,
            purpose: form.purpose,
            mime: form.mime,
            source: Source::Upload(Arc::new(content), now),
        },
    );
    Ok(wire::answer(&view(&file, now)))
}

async fn retrieve(State(sandbox): State<Sandbox>, Path(id): Path<String>) -> Answer {
    let file = find(&sandbox, &id)?;
    Ok(wire::answer(&view(&file, sandbox.store().now())))
}

async fn delete(State(sandbox): State<Sandbox>, Path(id): Path<String>) -> Answer {
    find(&sandbox, &id)?;
    sandbox.store().state().files.remove(&id);
    Ok(wire::answer(&json!({"id": id, "object": "file", "deleted": true})))
}

async fn content(State(sandbox): State<Sandbox>, Path(id): Path<String>) -> Answer {
    let file = find(&sandbox, &id)?;
    Ok(wire::file("application/octet-stream", download(&file, sandbox.store().now())))
}

async fn signed_url(State(sandbox): State<Sandbox>, base: Base, Path(id): Path<String>) -> Answer {
    find(&sandbox, &id)?;
    let signature = sandbox.store().signature(&id);
    Ok(wire::answer(&json!({"url": format!("{}/v1/files/{id}/content?signature={signature}", base.0)})))
}

/// The bytes of a file that is there.
pub fn download(file: &File, now: Timestamp) -> Body {
    match &file.source {
        Source::Upload(content, _) => Body::from((***content).clone()),
        Source::Result(batch, part) => batch::stream(batch, *part, batch.at(now)),
    }
}

async fn list(State(sandbox): State<Sandbox>, params: Params) -> Answer {
    let store = sandbox.store();
    let limit = params.number("limit", 10_000, 1, 10_000)?;
    let now = store.now();
    let mut files: Vec<(Timestamp, Arc<File>)> = store
        .state()
        .files
        .newest()
        .filter_map(|(_, file)| Some((file.created_at(now)?, file.clone())))
        .filter(|(_, file)| wanted(file, &params))
        .collect();
    // Newest first; what a batch left is as old as the batch's end.
    files.sort_by_key(|(created, file)| std::cmp::Reverse((*created, file.serial)));
    if params.get("order") == Some("asc") {
        files.reverse();
    }
    let (from, size) = if params.get("page").or_else(|| params.get("page_size")).is_some() {
        let size = params.number("page_size", 100, 1, 1000)?;
        (params.number("page", 0, 0, usize::MAX)?.saturating_mul(size), size)
    } else if let Some(after) = params.get("after") {
        let place = files.iter().position(|(_, file)| file.id == after);
        let place = place.ok_or_else(|| Refusal::wrong("after", format!("No such File object: {after}")))?;
        (place + 1, limit)
    } else {
        (0, limit)
    };
    let page: Vec<_> = files.iter().skip(from).take(size).map(|(_, file)| file).collect();
    Ok(wire::answer(&json!({
        "object": "list",
        "data": page.iter().map(|file| view(file, now)).collect::<Vec<_>>(),
        "first_id": page.first().map(|file| &file.id),
        "last_id": page.last().map(|file| &file.id),
        "has_more": files.len() > from.saturating_add(size),
        "total": files.len(),
    })))
}

/// Whether a list with `params` shows `file`.
fn wanted(file: &File, params: &Params) -> bool {
    let among = |name: &str, value: &str| {
        let mut values = params.all(name).filter(|value| !value.is_empty()).peekable();
        values.peek().is_none() || values.any(|wanted| wanted == value)
    };
    among("purpose", &file.purpose)
        && among("sample_type", sample_type(file))
        && among("source", origin(file))
        && params.get("search").is_none_or(|text| file.name.contains(text))
}

fn find(sandbox: &Sandbox, id: &str) -> Result<Arc<File>, Refusal> {
    sandbox.store().file(Cabinet::Shared, id).ok_or_else(|| Refusal {
        param: Some("id".to_owned()),
        ..Refusal::not_found(format!("No such File object: {id}"))
    })
}

/// One object for both SDKs: OpenAI's `FileObject` and Mistral's `FileSchema`.
fn view(file: &File, now: Timestamp) -> Value {
    json!({
        "id": file.id,
        "object": "file",
        "bytes": file.size(now),
        "created_at": file.created_at(now).unwrap_or(now).as_second(),
        "expires_at": null,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": null,
        "sample_type": sample_type(file),
        "source": origin(file),
        "num_lines": null,
        "mimetype": file.mime,
        "signature": null,
        "visibility": "workspace",
        "deleted": false,
    })
}

fn sample_type(file: &File) -> &'static str {
    match &file.source {
        Source::Upload(..) => "batch_request",
        Source::Result(_, batch::Part::Output) => "batch_result",
        Source::Result(_, batch::Part::Error) => "batch_error",
    }
}

fn origin(file: &File) -> &'static str {
    match &file.source {
        Source::Upload(..) => "upload",
        Source::Result(..) => "mistral",
    }
}

/// What an upload's form says.
struct Form {
    content: Option<Content>,
    name: String,
    purpose: String,
    mime: String,
}

impl Form {
    async fn read(sandbox: &Sandbox, mut fields: Multipart) -> Result<Self, Refusal> {
        let broken = |_| Refusal::invalid("the multipart body broke off or is not well formed");
        let mut form = Self {
            content: None,
            name: "file.jsonl".to_owned(),
            purpose: "batch".to_owned(),
            mime: "application/octet-stream".to_owned(),
        };
        while let Some(mut field) = fields.next_field().await.map_err(broken)? {
            let name = field.name().unwrap_or_default().to_owned();
            if name == "file" {
                form.name = field.file_name().unwrap_or(&form.name).to_owned();
                form.mime = field.content_type().unwrap_or(&form.mime).to_owned();
            }
            let mut value = Gathered::new(&sandbox.store().memory)?;
            while let Some(chunk) = field.chunk().await.map_err(broken)? {
                value.add(&chunk)?;
            }
            let value = value.finish();
            match name.as_str() {
                "file" => form.content = Some(value),
                "purpose" => form.purpose = String::from_utf8_lossy(&value).into_owned(),
                // How long it is kept and who sees it: here files stay until they are deleted.
                _ => {}
            }
        }
        Ok(form)
    }
}
