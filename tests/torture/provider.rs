//! The provider of the torture: OpenAI's shape, trouble from a seed, and a memory of all that it was asked.

use crate::patience::now;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Multipart, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Both accounts of the torture, at `/one/v1` and `/two/v1`.
#[derive(Clone)]
pub struct Provider(Arc<Mutex<Books>>);

struct Books {
    rng: fastrand::Rng,
    /// Whether every request is answered as it should be.
    calm: bool,
    jobs: BTreeMap<String, Job>,
    /// How many lines each uploaded file has.
    files: BTreeMap<String, u64>,
}

/// A batch, and what was told of it.
#[derive(Clone, Debug)]
pub struct Job {
    pub account: String,
    begun: Instant,
    /// When it ends; `None`: it goes on for ever.
    pub life: Option<Duration>,
    end: &'static str,
    requests: u64,
    pub metadata: BTreeMap<String, String>,
    /// When its state was last answered.
    pub told_at: Option<Instant>,
    /// Whether an answer has said that it is over.
    pub told_end: bool,
}

impl Job {
    fn status(&self) -> &'static str {
        let Some(life) = self.life else { return "in_progress" };
        match self.begun.elapsed().as_secs_f64() / life.as_secs_f64() {
            ..0.2 => "validating",
            ..0.8 => "in_progress",
            ..1.0 => "finalizing",
            _ => self.end,
        }
    }

    pub fn is_over(&self) -> bool {
        self.life.is_some_and(|life| self.begun.elapsed() >= life)
    }

    fn tell(&mut self, id: &str) -> Value {
        let status = self.status();
        self.told_at = Some(now());
        self.told_end |= self.is_over();
        let since_begin = i64::try_from(self.begun.elapsed().as_secs()).unwrap();
        let done = if status == "completed" { self.requests } else { 0 };
        let output = (status == "completed").then(|| format!("out-{id}"));
        let mut shown = json!({
            "id": id, "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-in",
            "completion_window": "24h", "status": status, "created_at": unix_now() - since_begin,
            "request_counts": {"total": self.requests, "completed": done, "failed": 0},
            "output_file_id": output, "metadata": self.metadata,
        });
        if status == "failed" {
            shown["errors"] = json!({"object": "list", "data": [{"code": "bad_input", "message": "no"}]});
        }
        shown
    }
}

impl Provider {
    pub fn new(seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self(Arc::new(Mutex::new(Books { rng, calm: false, jobs: BTreeMap::new(), files: BTreeMap::new() })))
    }

    pub fn serve(&self) -> Router {
        Router::new()
            .route("/{account}/v1/files", post(upload))
            .route("/{account}/v1/files/{file}/content", get(content))
            .route("/{account}/v1/batches", get(list).post(create))
            .route("/{account}/v1/batches/{id}", get(retrieve))
            .route("/{account}/v1/batches/{id}/cancel", post(cancel))
            .layer(DefaultBodyLimit::disable())
            .layer(middleware::from_fn_with_state(self.clone(), trouble))
            .with_state(self.clone())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a batch that somebody else has created; `life`: `None` for one without an end.
    pub fn make(&self, account: &str, life: Option<Duration>) -> String {
        self.books().make(account, life, BTreeMap::new(), 3)
    }

    /// From now on nothing goes wrong.
    pub fn calm(&self) {
        self.books().calm = true;
    }

    /// Every batch by its id.
    pub fn jobs(&self) -> BTreeMap<String, Job> {
        self.books().jobs.clone()
    }

    /// Where the batch is, if it is anywhere.
    pub fn account_of(&self, id: &str) -> Option<String> {
        self.books().jobs.get(id).map(|job| job.account.clone())
    }

    /// Any batch whose end was told.
    pub fn any_ended(&self, pick: usize) -> Option<String> {
        let books = self.books();
        let ended: Vec<&String> =
            books.jobs.iter().filter(|(_, job)| job.told_end).map(|(id, _)| id).collect();
        ended.get(pick.checked_rem(ended.len())?).map(|id| (*id).clone())
    }
}

impl Books {
    fn make(
        &mut self,
        account: &str,
        life: Option<Duration>,
        metadata: BTreeMap<String, String>,
        requests: u64,
    ) -> String {
        let id = format!("batch_{:06}{:010x}", self.jobs.len(), self.rng.u64(..1 << 40));
        let end = match self.rng.u32(..10) {
            0 => "failed",
            1 => "expired",
            2 => "cancelled",
            _ => "completed",
        };
        let account = account.to_owned();
        let job =
            Job { account, begun: now(), life, end, requests, metadata, told_at: None, told_end: false };
        self.jobs.insert(id.clone(), job);
        id
    }
}

fn unix_now() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "a provider of its own has a clock of its own")]
    let now = std::time::SystemTime::now();
    i64::try_from(now.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// What goes wrong with a request.
enum Trouble {
    Fails,
    Limits,
    Dawdles,
    /// It is done, and the answer does not arrive.
    Loses,
}

async fn trouble(State(provider): State<Provider>, request: Request, next: Next) -> Response {
    let draw = {
        let mut books = provider.books();
        let creates = request.method() == http::Method::POST;
        match (books.calm, books.rng.u32(..100)) {
            (true, _) => None,
            (_, 0..3) => Some(Trouble::Fails),
            (_, 3..4) => Some(Trouble::Limits),
            (_, 4..10) => Some(Trouble::Dawdles),
            (_, 10..12) => Some(Trouble::Loses),
            (_, 12..24) if creates => Some(Trouble::Loses),
            _ => None,
        }
    };
    match draw {
        None => next.run(request).await,
        Some(Trouble::Fails) => (StatusCode::INTERNAL_SERVER_ERROR, "no").into_response(),
        Some(Trouble::Limits) => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after-ms", "150")], "slower").into_response()
        }
        Some(Trouble::Dawdles) => {
            let response = next.run(request).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            response
        }
        Some(Trouble::Loses) => {
            drop(next.run(request).await);
            let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("lost"))]);
            ([("content-type", "application/json")], Body::from_stream(broken)).into_response()
        }
    }
}

async fn upload(State(provider): State<Provider>, mut form: Multipart) -> Response {
    let mut lines = 0;
    loop {
        match form.next_field().await {
            Ok(Some(field)) if field.name() == Some("file") => {
                let Ok(bytes) = field.bytes().await else { return StatusCode::BAD_REQUEST.into_response() };
                lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() as u64;
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => return StatusCode::BAD_REQUEST.into_response(),
        }
    }
    let mut books = provider.books();
    let id = format!("file-{:08}", books.files.len());
    books.files.insert(id.clone(), lines);
    let file = json!({"id": id, "object": "file", "purpose": "batch", "bytes": 1, "created_at": unix_now(),
        "filename": "in.jsonl", "status": "processed"});
    file.to_string().into_response()
}

async fn create(State(provider): State<Provider>, Path(account): Path<String>, body: Bytes) -> Response {
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let metadata = asked["metadata"].as_object().into_iter().flatten();
    let metadata =
        metadata.map(|(key, value)| (key.clone(), value.as_str().unwrap_or("").to_owned())).collect();
    let mut books = provider.books();
    let Some(requests) = asked["input_file_id"].as_str().and_then(|file| books.files.get(file).copied())
    else {
        return (StatusCode::BAD_REQUEST, r#"{"error":{"message":"no such file"}}"#).into_response();
    };
    let life = Duration::from_millis(books.rng.u64(500..4000));
    let id = books.make(&account, Some(life), metadata, requests);
    let job = books.jobs.get_mut(&id).unwrap();
    job.tell(&id).to_string().into_response()
}

async fn retrieve(State(provider): State<Provider>, Path((account, id)): Path<(String, String)>) -> Response {
    let mut books = provider.books();
    match books.jobs.get_mut(&id).filter(|job| job.account == account) {
        Some(job) => job.tell(&id).to_string().into_response(),
        None => (StatusCode::NOT_FOUND, r#"{"error":{"message":"no such batch"}}"#).into_response(),
    }
}

async fn cancel(state: State<Provider>, path: Path<(String, String)>) -> Response {
    {
        let mut books = state.0.books();
        if let Some(job) = books.jobs.get_mut(&path.1).filter(|job| job.life.is_some() && !job.is_over()) {
            job.end = "cancelled";
        }
    }
    retrieve(state, path).await
}

/// A page, the newest first.
async fn list(
    State(provider): State<Provider>,
    Path(account): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(20_usize).min(100);
    let mut books = provider.books();
    let mut of_account = books.jobs.iter_mut().rev().filter(|(_, job)| job.account == account);
    if let Some(after) = query.get("after") {
        of_account.find(|(id, _)| *id == after);
    }
    let data: Vec<Value> = of_account.by_ref().take(limit).map(|(id, job)| job.tell(id)).collect();
    let has_more = of_account.next().is_some();
    json!({"object": "list", "data": data, "has_more": has_more}).to_string().into_response()
}

async fn content(State(provider): State<Provider>, Path((_, file)): Path<(String, String)>) -> Response {
    let id = file.strip_prefix("out-").unwrap_or("");
    let requests = provider.books().jobs.get(id).map(|job| job.requests);
    let Some(requests) = requests else { return StatusCode::NOT_FOUND.into_response() };
    let mut lines = String::new();
    for number in 0..requests {
        let _ = writeln!(
            lines,
            r#"{{"id":"r{number}","custom_id":"c{number}","response":{{"status_code":200,"request_id":"q","body":{{"id":"x","object":"chat.completion","choices":[]}}}},"error":null}}"#
        );
    }
    lines.into_response()
}
