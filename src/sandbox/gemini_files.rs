//! The files of Google's Gemini Developer API: resumable uploads, and downloads of results (`docs/providers/gemini.md`).

use super::Sandbox;
use super::chance;
use super::files;
use super::memory::Gathered;
use super::refusal::Refusal;
use super::store::{Cabinet, File, Source};
use super::wire::{self, Answer, Base, Params, either, masked, page_token};
use crate::sync::lock;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use http::{HeaderMap, StatusCode, Uri};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Uploads that have begun and not ended, by their id, which sorts by age and cannot be guessed. The oldest are
/// forgotten when there are too many.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<BTreeMap<String, Upload>>);

#[derive(Debug)]
struct Upload {
    name: String,
    display_name: String,
    mime: String,
    gathered: Gathered,
}

/// Whether `uri` is an address that [`start`] gave out: the bytes come there without a key.
pub fn is_open(sandbox: &Sandbox, uri: &Uri) -> bool {
    let params = Params::read(uri.query().unwrap_or_default());
    uri.path().starts_with("/upload/")
        && params.get("upload_id").is_some_and(|id| sandbox.uploads().received(id).is_ok())
}

pub fn routes() -> Router<Sandbox> {
    Router::new()
        .route("/upload/v1beta/files", post(upload))
        .route("/upload/v1/files", post(upload))
        .route("/v1beta/files", get(list))
        .route("/v1beta/files/{call}", get(retrieve).delete(delete))
        .route("/download/v1beta/files/{call}", get(retrieve))
        .route("/download/v1/files/{call}", get(retrieve))
}

/// Google does not tell a missing file from a foreign one.
pub fn no_permission(name: &str) -> Refusal {
    let id = name.trim_start_matches("files/");
    Refusal::new(
        StatusCode::FORBIDDEN,
        format!("You do not have permission to access the File {id} or it may not exist."),
    )
}

async fn upload(
    State(sandbox): State<Sandbox>,
    base: Base,
    headers: HeaderMap,
    uri: Uri,
    params: Params,
    body: Body,
) -> Answer {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let commands: Vec<&str> = header("x-goog-upload-command").split(',').map(str::trim).collect();
    if commands == ["start"] {
        return start(&sandbox, &base, uri.path(), header("x-goog-upload-header-content-type"), body).await;
    }
    let id = params
        .get("upload_id")
        .ok_or_else(|| Refusal::invalid("X-Goog-Upload-Command: start must come first; no upload_id"))?;
    let uploads = sandbox.uploads();
    if commands == ["query"] {
        let received = uploads.received(id)?;
        return Ok(status("active", [("x-goog-upload-size-received", received.to_string())], &json!({})));
    }
    if commands == ["cancel"] {
        uploads.take(id)?;
        return Ok(status("cancelled", [], &json!({})));
    }
    if commands.iter().any(|command| !["upload", "finalize"].contains(command)) {
        return Err(Refusal::invalid(
            "X-Goog-Upload-Command must be start, upload, finalize, query or cancel",
        ));
    }
    let mut upload = uploads.take(id)?;
    let offset = header("x-goog-upload-offset");
    if commands.contains(&"upload") && offset.parse() != Ok(upload.gathered.len()) {
        let received = upload.gathered.len();
        uploads.put(id, upload);
        return Err(Refusal::invalid(format!(
            "X-Goog-Upload-Offset is `{offset}`, {received} bytes are here"
        )));
    }
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let Ok(chunk) = chunk else {
            // The client asks how much is here and goes on from there.
            uploads.put(id, upload);
            return Err(Refusal::invalid("the upload broke off"));
        };
        upload.gathered.add(&chunk)?;
    }
    if !commands.contains(&"finalize") {
        uploads.put(id, upload);
        return Ok(status("active", [], &json!({})));
    }
    let store = sandbox.store();
    let now = store.now();
    let file = store.upload(
        Cabinet::Gemini,
        File {
            id: upload.name,
            serial: store.serial(),
            name: upload.display_name,
            purpose: String::new(),
            mime: upload.mime,
            source: Source::Upload(Arc::new(upload.gathered.finish()), now),
        },
    );
    Ok(status("final", [], &json!({"file": view(&file, &base, now)})))
}

/// Begins an upload: the answer says where the bytes go.
async fn start(sandbox: &Sandbox, base: &Base, path: &str, mime: &str, body: Body) -> Answer {
    let body = wire::json(sandbox, body).await?;
    let store = sandbox.store();
    let serial = store.serial();
    let name = match body["file"]["name"].as_str() {
        Some(name) => {
            let word = name.trim_start_matches("files/");
            let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if !(1..=40).contains(&word.len()) || !word.bytes().all(good) {
                return Err(Refusal::invalid(format!(
                    "`{name}` is not a name of a file: files/ and up to 40 of a-z 0-9 -"
                )));
            }
            if store.file(Cabinet::Gemini, &format!("files/{word}")).is_some() {
                return Err(Refusal::new(
                    StatusCode::CONFLICT,
                    format!("The file files/{word} exists already"),
                ));
            }
            format!("files/{word}")
        }
        None => format!("files/{}", chance::lowercase(&mut store.chance(serial), 12)),
    };
    let display_name =
        either(&body["file"], "displayName", "display_name").as_str().unwrap_or_default().to_owned();
    let mime = if mime.is_empty() { "application/octet-stream" } else { mime }.to_owned();
    let gathered = Gathered::new(&store.memory)?;
    let id = format!("{serial:016x}{}", store.signature(&name));
    sandbox.uploads().put(&id, Upload { name, display_name, mime, gathered });
    let url = format!("{}{path}?upload_id={id}&upload_protocol=resumable", base.0);
    Ok(status("active", [("x-goog-upload-url", url)], &json!({})))
}

/// An answer of the upload protocol.
fn status<const N: usize>(
    word: &'static str,
    headers: [(&'static str, String); N],
    body: &Value,
) -> Response {
    let headers = headers.map(|(name, value)| (wire::name(name), value));
    ([(wire::name("x-goog-upload-status"), word)], headers, wire::answer(body)).into_response()
}

async fn retrieve(
    State(sandbox): State<Sandbox>,
    Path(call): Path<String>,
    base: Base,
    params: Params,
) -> Answer {
    let now = sandbox.store().now();
    let (id, is_download) = call.strip_suffix(":download").map_or((call.as_str(), false), |id| (id, true));
    let file = find(&sandbox, id)?;
    if !is_download && params.get("alt") != Some("media") {
        return masked(&params, view(&file, &base, now));
    }
    match file.source {
        Source::Upload(..) => Err(Refusal::invalid("Only generated files can be downloaded.")),
        Source::Result(..) => Ok(wire::file("application/octet-stream", files::download(&file, now))),
    }
}

async fn delete(State(sandbox): State<Sandbox>, Path(id): Path<String>) -> Answer {
    let file = find(&sandbox, &id)?;
    sandbox.store().state().gemini_files.remove(&file.id);
    Ok(wire::answer(&json!({})))
}

async fn list(State(sandbox): State<Sandbox>, base: Base, params: Params) -> Answer {
    let store = sandbox.store();
    let size = params.number("pageSize", 10, 1, 100)?;
    let from = page_token(&params)?;
    let now = store.now();
    let (page, more) = {
        let state = store.state();
        let mut older = state
            .gemini_files
            .before(from)
            .filter(|(_, file)| file.created_at(now).is_some())
            .map(|(serial, file)| (serial, file.clone()));
        let page: Vec<_> = older.by_ref().take(size).collect();
        (page, older.next().is_some())
    };
    let mut answer = Map::new();
    let shown: Vec<_> = page.iter().map(|(_, file)| view(file, &base, now)).collect();
    if !shown.is_empty() {
        answer.insert("files".to_owned(), shown.into());
    }
    if let Some((serial, _)) = page.last().filter(|_| more) {
        answer.insert("nextPageToken".to_owned(), serial.to_string().into());
    }
    masked(&params, Value::Object(answer))
}

fn find(sandbox: &Sandbox, id: &str) -> Result<Arc<File>, Refusal> {
    let name = format!("files/{id}");
    sandbox.store().file(Cabinet::Gemini, &name).ok_or_else(|| no_permission(&name))
}

/// The File at `now`.
fn view(file: &File, base: &Base, now: Timestamp) -> Value {
    let created = file.created_at(now).unwrap_or(now);
    let mut view = json!({
        "name": file.id,
        "mimeType": file.mime,
        "sizeBytes": file.size(now).to_string(),
        "createTime": wire::rfc3339(created),
        "updateTime": wire::rfc3339(created),
        "expirationTime": wire::rfc3339(crate::domain::time::later(created, KEPT)),
        "uri": format!("{}/v1beta/{}", base.0, file.id),
        "state": "ACTIVE",
    });
    if !file.name.is_empty() {
        view["displayName"] = file.name.clone().into();
    }
    match &file.source {
        Source::Upload(content, _) => {
            view["source"] = "UPLOADED".into();
            view["sha256Hash"] = STANDARD.encode(Sha256::digest(&***content)).into();
        }
        Source::Result(..) => {
            view["source"] = "GENERATED".into();
            view["downloadUri"] = format!("{}/v1beta/{}:download?alt=media", base.0, file.id).into();
        }
    }
    view
}

impl Uploads {
    fn put(&self, id: &str, upload: Upload) {
        let mut open = lock(&self.0);
        open.insert(id.to_owned(), upload);
        while open.len() > MOST_UPLOADS {
            open.pop_first();
        }
    }

    fn take(&self, id: &str) -> Result<Upload, Refusal> {
        let taken = lock(&self.0).remove(id);
        taken.ok_or_else(|| Refusal::not_found("no such upload; start it again"))
    }

    fn received(&self, id: &str) -> Result<usize, Refusal> {
        let open = lock(&self.0);
        open.get(id)
            .map(|upload| upload.gathered.len())
            .ok_or_else(|| Refusal::not_found("no such upload; start it again"))
    }
}

/// Uploads that may be open at once.
const MOST_UPLOADS: usize = 256;
/// How long the service says that it keeps a file; the sandbox keeps it until it is deleted.
const KEPT: Duration = Duration::from_hours(48);
