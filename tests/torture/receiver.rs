//! The receiver of the torture: one path a webhook, each with manners of its own, and every delivery kept.

use crate::patience::now;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Clone)]
pub struct Receiver(Arc<Mutex<Mail>>);

struct Mail {
    rng: fastrand::Rng,
    /// Whether everything is accepted at once.
    calm: bool,
    received: Vec<Received>,
}

/// One attempt, as the receiver saw it.
#[derive(Clone, Debug)]
pub struct Received {
    pub webhook: String,
    /// The event's id, from the header.
    pub id: String,
    pub body: Bytes,
    pub began: Instant,
    /// What was answered and when; `None`: nothing.
    pub answered: Option<(u16, Instant)>,
}

impl Receiver {
    pub fn new(seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self(Arc::new(Mutex::new(Mail { rng, calm: false, received: Vec::new() })))
    }

    pub fn serve(&self) -> Router {
        Router::new().route("/{webhook}", post(receive)).with_state(self.clone())
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on everything is accepted at once.
    pub fn calm(&self) {
        self.mail().calm = true;
    }

    pub fn received(&self) -> Vec<Received> {
        self.mail().received.clone()
    }
}

/// How one attempt is answered, and after how many milliseconds.
fn manners(webhook: &str, rng: &mut fastrand::Rng) -> (u64, u16) {
    match (webhook, rng.u32(..100)) {
        // Takes everything and never answers.
        ("mute", _) => (3_600_000, 200),
        ("slow", _) => (rng.u64(50..700), 200),
        ("flaky", 0..15) => (0, 500),
        ("flaky", 15..20) => (rng.u64(..200), 503),
        ("flaky", 20..22) => (0, 429),
        ("flaky", 22..40) => (rng.u64(..200), 200),
        _ => (0, 200),
    }
}

async fn receive(
    State(receiver): State<Receiver>,
    Path(webhook): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (number, (wait, status)) = {
        let mut mail = receiver.mail();
        let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or("").to_owned();
        let calm = mail.calm;
        let manners = manners(&webhook, &mut mail.rng);
        mail.received.push(Received { webhook, id, body, began: now(), answered: None });
        (mail.received.len() - 1, if calm { (0, 200) } else { manners })
    };
    tokio::time::sleep(Duration::from_millis(wait)).await;
    receiver.mail().received[number].answered = Some((status, now()));
    let pause = (status == 429).then_some([("retry-after", "1")]);
    (StatusCode::from_u16(status).unwrap(), pause.into_iter().next().unwrap_or([("x-pause", "none")]), "")
        .into_response()
}
