//! What the routes share: what they work with, and the form of their answers.

use super::access::Peer;
use super::api_error::ApiError;
use super::results;
use super::service::Service;
use super::sessions::Sessions;
use super::wrong_tokens::WrongTokens;
use axum::Json;
use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What every route works with.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) service: Service,
    pub(super) stopping: CancellationToken,
    /// Leave for one more live stream of the event log.
    pub(super) listeners: Arc<Semaphore>,
    /// Where requests come in.
    pub(super) door: Door,
    /// Who has the dashboard open.
    pub(super) sessions: Arc<Sessions>,
    /// Who has given wrong tokens to the dashboard.
    pub(super) wrong_tokens: Arc<WrongTokens>,
}

/// Where a request has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Socket,
    Tcp,
}

/// What a provider has a say in is saved, not shown.
pub(super) const AS_A_FILE: HeaderValue = HeaderValue::from_static("attachment");

/// What a route gives.
pub(super) type Answer<T> = Result<T, ApiError>;

/// The user who asks, where the socket tells.
pub(super) fn owner(extensions: &Extensions) -> Option<String> {
    extensions.get::<ConnectInfo<Peer>>().and_then(|ConnectInfo(peer)| peer.user.clone())
}

/// Where somebody has connected from, over TCP.
pub(super) fn address(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<ConnectInfo<Peer>>().and_then(|ConnectInfo(peer)| peer.address)
}

/// Results, line by line.
pub(super) fn stream_of_lines(shared: &Shared, found: results::Found, headers: &HeaderMap) -> Response {
    let wished = headers.get(header::TE).and_then(|wish| wish.to_str().ok()).unwrap_or_default();
    let trailers = wished.split(',').any(|wish| wish.trim().eq_ignore_ascii_case("trailers"));
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    (
        [kind, (header::CONTENT_DISPOSITION, AS_A_FILE), results::announced()],
        results::body(shared.service.clone(), found, trailers, shared.stopping.clone()),
    )
        .into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let (retry_after, should_retry) = (self.retry_after, self.should_retry());
        let mut response = (status, Json(self.into_body())).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(should_retry) = should_retry {
            // What the SDKs of OpenAI's make heed before the status.
            let word = if should_retry { "true" } else { "false" };
            response.headers_mut().insert("x-should-retry", HeaderValue::from_static(word));
        }
        response
    }
}
