//! The receiver of the hunt: one path a webhook, each with manners of its own, and an account of every delivery.

use crate::patience::now;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;
use standardwebhooks::Webhook;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Clone)]
pub struct Receiver(Arc<Mutex<Mail>>);

struct Mail {
    rng: fastrand::Rng,
    /// Whether everything is accepted at once.
    calm: bool,
    books: Received,
    /// Webhooks whose messages are taken and not answered before this much time.
    slowed: BTreeMap<String, Duration>,
}

/// What has arrived.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub attempts: u64,
    /// How often each webhook has accepted each event.
    pub accepted: BTreeMap<String, BTreeMap<String, u32>>,
    /// The fingerprint of each event's bytes, and that of what they say.
    pub events: BTreeMap<String, (u64, u64)>,
    /// When the last request of each webhook came.
    pub last: BTreeMap<String, Instant>,
    /// What should not have come.
    pub wrong: Vec<String>,
}

/// Whose messages are signed with this.
pub const SIGNING: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

impl Receiver {
    pub fn new(seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let books = Received::default();
        Self(Arc::new(Mutex::new(Mail { rng, calm: false, books, slowed: BTreeMap::new() })))
    }

    pub fn serve(&self) -> Router {
        Router::new().route("/{webhook}", post(receive)).with_state(self.clone())
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on everything is accepted at once.
    pub fn calm(&self) {
        let mut mail = self.mail();
        mail.calm = true;
        mail.slowed.clear();
    }

    /// From now on this webhook's messages are answered after so long.
    pub fn slow_down(&self, webhook: &str, by: Duration) {
        self.mail().slowed.insert(webhook.to_owned(), by);
    }

    pub fn received(&self) -> Received {
        self.mail().books.clone()
    }

    /// How many events this webhook has accepted.
    pub fn accepted(&self, webhook: &str) -> usize {
        self.mail().books.accepted.get(webhook).map_or(0, BTreeMap::len)
    }

    /// When the last request of this webhook came.
    pub fn last(&self, webhook: &str) -> Option<Instant> {
        self.mail().books.last.get(webhook).copied()
    }
}

impl Received {
    fn note(&mut self, webhook: &str, id: &str, body: &Bytes) {
        self.attempts += 1;
        self.last.insert(webhook.to_owned(), now());
        let told: Value = serde_json::from_slice(body).unwrap_or_default();
        if told["id"] != id {
            self.wrong.push(format!("{webhook} got {told} under the id {id}"));
        }
        let bytes = fingerprint(body);
        let first = self.events.entry(id.to_owned()).or_insert_with(|| (bytes, meaning(&told)));
        if first.0 != bytes {
            self.wrong.push(format!("{webhook} got {id} with other bytes than before"));
        }
    }
}

/// The fingerprint of what a message says, however it is written.
pub fn meaning(told: &Value) -> u64 {
    fingerprint(told.to_string().as_bytes())
}

fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// How one attempt is answered, and after how many milliseconds.
fn manners(webhook: &str, rng: &mut fastrand::Rng) -> (u64, u16) {
    match (webhook, rng.u32(..100)) {
        ("slow", _) => (rng.u64(5..60), 200),
        ("flaky", 0..6) => (0, 500),
        ("flaky", 6..9) => (rng.u64(..100), 503),
        _ => (0, 200),
    }
}

async fn receive(
    State(receiver): State<Receiver>,
    Path(webhook): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or("").to_owned();
    let is_signed = Webhook::new(SIGNING).unwrap().verify(&body, &headers).is_ok();
    let (wait, status) = {
        let mut mail = receiver.mail();
        mail.books.note(&webhook, &id, &body);
        if !is_signed {
            mail.books.wrong.push(format!("{webhook} got {id} without a good signature"));
        }
        let calm = mail.calm;
        let (wait, status) = manners(&webhook, &mut mail.rng);
        let slowed = mail.slowed.get(&webhook).copied();
        (slowed.unwrap_or(Duration::from_millis(wait)), if calm { 200 } else { status })
    };
    tokio::time::sleep(wait).await;
    if status == 200 {
        let accepted = &mut receiver.mail().books.accepted;
        *accepted.entry(webhook).or_default().entry(id).or_default() += 1;
    }
    StatusCode::from_u16(status).unwrap().into_response()
}
