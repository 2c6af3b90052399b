//! The demo's receiver: what a user's own endpoint would be, with a first refusal to show a retry.

use crate::clock::Clock;
use crate::rng::Rng;
use crate::webhook::signature::{self, SigningKey};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(super) struct Receipt {
    pub body: Value,
    pub verified: bool,
    pub answered: u16,
}

impl Receipt {
    /// Whether it counts.
    pub(super) fn accepted(&self) -> bool {
        self.verified && self.answered == 200
    }
}

/// Takes webhooks, checks each and tells of it.
pub(super) struct Receiver {
    secret: String,
    told: mpsc::UnboundedSender<Receipt>,
    /// The first webhook is refused.
    refused: AtomicBool,
}

impl Receiver {
    pub(super) fn new(rng: &Rng, told: mpsc::UnboundedSender<Receipt>) -> Self {
        let key: Vec<u8> = (0..4).flat_map(|_| rng.bits().to_be_bytes()).collect();
        Self { secret: format!("whsec_{}", STANDARD.encode(key)), told, refused: AtomicBool::new(false) }
    }

    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    pub(super) async fn serve(self, listener: TcpListener, stopping: CancellationToken) {
        let app = Router::new().route("/hooks", post(receive)).with_state(Arc::new(self));
        if let Err(error) =
            axum::serve(listener, app).with_graceful_shutdown(stopping.cancelled_owned()).await
        {
            tracing::error!(%error, "the receiver stopped");
        }
    }
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let now = Clock::system().now();
    let verified = SigningKey::parse(&receiver.secret)
        .is_ok_and(|key| signature::verify(&[key], &headers, &body, now).is_ok());
    let answer = if !verified {
        StatusCode::UNAUTHORIZED
    } else if receiver.refused.swap(true, Ordering::Relaxed) {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = serde_json::from_slice(&body).unwrap_or_default();
    // The demo may be over already.
    let _ = receiver.told.send(Receipt { body, verified, answered: answer.as_u16() });
    answer
}
