//! The provider of the hunt: OpenAI's shape, trouble from a seed, and a memory of when it was asked and what it told.

use crate::patience::now;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// All accounts, each at `/NAME/v1`.
#[derive(Clone)]
pub struct Provider(Arc<Mutex<Books>>);

struct Books {
    rng: fastrand::Rng,
    /// Whether every request is answered as it should be.
    calm: bool,
    made: u64,
    accounts: BTreeMap<String, Account>,
}

#[derive(Default)]
struct Account {
    jobs: BTreeMap<String, Job>,
    asked: Vec<Instant>,
    /// The next request is answered with 429 and this many seconds to wait.
    refuse_next: Option<u64>,
}

/// A batch, and what was told of it.
#[derive(Clone, Debug)]
pub struct Job {
    begun: Instant,
    /// When it ends; `None`: it goes on for ever, and every time that it was told of is kept.
    pub life: Option<Duration>,
    pub end: &'static str,
    pub told: Vec<Instant>,
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

    fn tell(&mut self, id: &str) -> Value {
        let status = self.status();
        if self.life.is_none() {
            self.told.push(now());
        }
        let age = i64::try_from(self.begun.elapsed().as_secs()).unwrap();
        let is_complete = status == "completed";
        let mut shown = json!({
            "id": id, "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-in",
            "completion_window": "24h", "status": status, "created_at": unix_now() - age,
            "request_counts": {"total": 3, "completed": if is_complete { 3 } else { 0 }, "failed": 0},
            "output_file_id": is_complete.then(|| format!("out-{id}")),
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
        Self(Arc::new(Mutex::new(Books { rng, calm: false, made: 0, accounts: BTreeMap::new() })))
    }

    pub fn serve(&self) -> Router {
        Router::new()
            .route("/{account}/v1/batches", get(list))
            .route("/{account}/v1/batches/{id}", get(retrieve))
            .layer(middleware::from_fn_with_state(self.clone(), receive))
            .with_state(self.clone())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a batch; `life`: `None` for one without an end.
    pub fn make(&self, account: &str, life: Option<Duration>) -> String {
        let mut books = self.books();
        books.made += 1;
        let (number, mark) = (books.made, books.rng.u32(..));
        let id = format!("batch_{number:08}{mark:08x}");
        let end = match books.rng.u32(..10) {
            0 => "failed",
            1 => "expired",
            2 => "cancelled",
            _ => "completed",
        };
        let job = Job { begun: now(), life, end, told: Vec::new() };
        books.accounts.entry(account.to_owned()).or_default().jobs.insert(id.clone(), job);
        id
    }

    /// From now on nothing goes wrong.
    pub fn calm(&self) {
        self.books().calm = true;
    }

    /// Every batch by its id, of all accounts.
    pub fn jobs(&self) -> BTreeMap<String, Job> {
        let books = self.books();
        books.accounts.values().flat_map(|account| account.jobs.clone()).collect()
    }

    /// When a batch without an end was told of.
    pub fn told(&self, account: &str, id: &str) -> Vec<Instant> {
        self.books().accounts[account].jobs[id].told.clone()
    }

    /// When requests of this account came.
    pub fn asked(&self, account: &str) -> Vec<Instant> {
        self.books().accounts.get(account).map(|account| account.asked.clone()).unwrap_or_default()
    }

    /// The next request of this account is answered with 429 and `Retry-After` of so many seconds.
    pub fn refuse_next(&self, account: &str, seconds: u64) {
        self.books().accounts.entry(account.to_owned()).or_default().refuse_next = Some(seconds);
    }
}

fn unix_now() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "a provider of its own has a clock of its own")]
    let now = std::time::SystemTime::now();
    i64::try_from(now.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// What goes wrong with a request.
enum Trouble {
    Refuses(u64),
    Fails,
    Limits,
    Dawdles,
    Loses,
}

/// Notes each request, and lets some of them go wrong.
async fn receive(State(provider): State<Provider>, request: Request, next: Next) -> Response {
    let account = request.uri().path().split('/').nth(1).unwrap_or_default().to_owned();
    let trouble = {
        let mut books = provider.books();
        let draw = if books.calm { 100 } else { books.rng.u32(..100) };
        let account = books.accounts.entry(account).or_default();
        account.asked.push(now());
        match (account.refuse_next.take(), draw) {
            (Some(seconds), _) => Some(Trouble::Refuses(seconds)),
            (_, 0..2) => Some(Trouble::Fails),
            (_, 2) => Some(Trouble::Limits),
            (_, 3..8) => Some(Trouble::Dawdles),
            (_, 8..10) => Some(Trouble::Loses),
            _ => None,
        }
    };
    let slower =
        |header: (&'static str, String)| (StatusCode::TOO_MANY_REQUESTS, [header], "slower").into_response();
    match trouble {
        None => next.run(request).await,
        Some(Trouble::Refuses(seconds)) => slower(("retry-after", seconds.to_string())),
        Some(Trouble::Fails) => (StatusCode::INTERNAL_SERVER_ERROR, "no").into_response(),
        Some(Trouble::Limits) => slower(("retry-after-ms", "150".to_owned())),
        Some(Trouble::Dawdles) => {
            let response = next.run(request).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            response
        }
        Some(Trouble::Loses) => {
            let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("lost"))]);
            ([("content-type", "application/json")], Body::from_stream(broken)).into_response()
        }
    }
}

async fn retrieve(State(provider): State<Provider>, Path((account, id)): Path<(String, String)>) -> Response {
    let mut books = provider.books();
    let job = books.accounts.get_mut(&account).and_then(|account| account.jobs.get_mut(&id));
    match job {
        Some(job) => job.tell(&id).to_string().into_response(),
        None => (StatusCode::NOT_FOUND, r#"{"error":{"message":"no such batch"}}"#).into_response(),
    }
}

/// A page, the newest first.
async fn list(
    State(provider): State<Provider>,
    Path(account): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(20_usize).min(100);
    let mut books = provider.books();
    let jobs = &mut books.accounts.entry(account).or_default().jobs;
    let mut older: Box<dyn Iterator<Item = (&String, &mut Job)>> = match query.get("after") {
        Some(after) => Box::new(jobs.range_mut(..after.clone()).rev()),
        None => Box::new(jobs.iter_mut().rev()),
    };
    let data: Vec<Value> = older.by_ref().take(limit).map(|(id, job)| job.tell(id)).collect();
    let has_more = older.next().is_some();
    json!({"object": "list", "data": data, "has_more": has_more}).to_string().into_response()
}
