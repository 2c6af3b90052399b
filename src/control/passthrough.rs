//! Requests of OpenAI's API that are sent on to a provider as they come, and its answers as they are given back.

use super::api::ErrorCode;
use super::api_error::ApiError;
use super::resolve::no_such_provider;
use super::respond::{AS_A_FILE, Answer, Shared};
use crate::engine::Account;
use crate::http::call::{BodyLimit, Incoming, Outgoing};
use crate::http::failure::Failure;
use crate::provider::bounds::bounded;
use crate::provider::request::segment;
use crate::provider::salvage;
use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;
use std::sync::Arc;

/// The longest answer to an upload or a creation, in bytes: it waits for nobody's turn, and no slow client holds one.
pub(super) const MAX_ANSWER: usize = crate::http::memory::SMALL;

pub(super) fn account(shared: &Shared, name: &str) -> Result<Arc<Account>, ApiError> {
    let live = shared.service.live()?;
    live.engine.account(name).map_err(|_| {
        let mut refusal = no_such_provider(name, &live.config());
        refusal.code = ErrorCode::NotFound;
        refusal
    })
}

/// Whether it has OpenAI's interface for files and creations, so that requests are passed on as they come.
pub(super) fn is_passed_on(account: &Account) -> bool {
    account.adapter.pass(&Method::GET, "/files", None).is_ok()
}

/// Every segment of `path` as one that stays one.
pub(super) fn encoded(path: &str) -> Result<String, ApiError> {
    let segments: Result<Vec<String>, Failure> = path.split('/').map(segment).collect();
    Ok(segments.map_err(|failure| ApiError::invalid(failure.to_string()))?.join("/"))
}

pub(super) fn refused(provider: &str, failure: &Failure) -> ApiError {
    match failure {
        Failure::Unsupported(what) => {
            let submit = format!("`batchd submit FILE --provider {provider}` uploads and creates there");
            ApiError::new(ErrorCode::NotSupported, format!("provider `{provider}`: {what}; {submit}"))
        }
        _ => ApiError::from_results(provider, failure, "batches"),
    }
}

/// The request as it came, at the provider; both bodies stream.
pub(super) async fn pass(account: &Account, path: &str, request: Request) -> Answer<Response> {
    let name = account.config.name.as_str();
    let refusal = |failure: Failure| refused(name, &failure);
    let (parts, body) = request.into_parts();
    let mut call = account.adapter.pass(&parts.method, path, parts.uri.query()).map_err(refusal)?;
    if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
        call.request.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    call.body_limit = BodyLimit::Whole(MAX_ANSWER);
    if parts.method != Method::POST {
        return Ok(passed_on(account.open(call).await.map_err(refusal)?));
    }
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let Some(length) = length else {
        return Err(ApiError::new(ErrorCode::InvalidRequest, "an upload needs a Content-Length header"));
    };
    let pieces = body.into_data_stream().map(|piece| piece.map_err(std::io::Error::other)).boxed();
    let answer = account.upload(call, Outgoing { length, pieces }).await.map_err(refusal)?;
    if let Some(file) = unwrapped(&answer) {
        return Ok(Json(file).into_response());
    }
    Ok(passed_on(answer.into()))
}

/// The file that an answer has in an envelope of its own, where OpenAI's clients expect it bare.
fn unwrapped(answer: &crate::http::call::Answer) -> Option<Value> {
    let whole = salvage::value(&bounded(&answer.body, None))?;
    let file = whole.get("data").filter(|data| answer.status.is_success() && data["id"].is_string())?;
    whole.get("id").is_none().then(|| file.clone())
}

/// What a provider's body is said to be: one of the kinds that nobody shows or runs, whatever the provider calls it.
fn kind(headers: &HeaderMap) -> &'static str {
    let said = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => "application/json",
        "application/jsonl"
        | "application/x-jsonl"
        | "application/jsonlines"
        | "application/x-jsonlines"
        | "application/x-ndjson"
        | "application/ndjson"
        | "text/jsonl" => "application/jsonl",
        _ => "application/octet-stream",
    }
}

/// A provider's answer as our own: its status, its body, and of its headers what describes that.
pub(super) fn passed_on(incoming: Incoming) -> Response {
    // A redirect would lead a client and its credentials elsewhere.
    let elsewhere = incoming.status.is_redirection() || incoming.status.is_informational();
    let status = if elsewhere { StatusCode::BAD_GATEWAY } else { incoming.status };
    let mut headers = HeaderMap::new();
    for name in [CONTENT_LENGTH, RETRY_AFTER, HeaderName::from_static("x-request-id")] {
        if let Some(value) = incoming.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind(&incoming.headers)));
    headers.insert(CONTENT_DISPOSITION, AS_A_FILE);
    let pieces = incoming.pieces.map(|piece: Result<Bytes, Failure>| {
        piece.map_err(|failure| {
            tracing::warn!("an answer that is passed on broke off: {failure}");
            std::io::Error::other(failure)
        })
    });
    (status, headers, Body::from_stream(pieces)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_sends_is_no_page_of_ours() {
        for (said, kind) in [
            ("text/html", "application/octet-stream"),
            ("image/svg+xml", "application/octet-stream"),
            ("application/json; charset=utf-8", "application/json"),
            ("Application/X-NDJSON", "application/jsonl"),
            ("application/json, text/html", "application/octet-stream"),
            ("", "application/octet-stream"),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [
                ("content-type", said),
                ("content-length", "2"),
                ("set-cookie", "a=b"),
                ("location", "https://evil.example"),
                ("access-control-allow-origin", "*"),
                ("service-worker-allowed", "/"),
                ("clear-site-data", "*"),
                ("link", "<x>; rel=preload"),
                ("refresh", "0"),
                ("content-encoding", "br"),
                ("content-disposition", "inline"),
                ("x-request-id", "req_1"),
            ] {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
            }
            let status = StatusCode::OK;
            let pieces = futures_util::stream::iter([Ok(Bytes::from_static(b"{}"))]).boxed();
            let response = passed_on(Incoming { status, headers, pieces });
            let mut names: Vec<&str> = response.headers().keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["content-disposition", "content-length", "content-type", "x-request-id"]);
            assert_eq!(response.headers()[CONTENT_TYPE], kind, "{said}");
            assert_eq!(response.headers()[CONTENT_DISPOSITION], "attachment");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_files() {
        assert_eq!(encoded("files/a b").unwrap(), "files/a%20b");
        for bad in ["..", "a/../b", "a//b", "."] {
            assert!(encoded(bad).is_err(), "{bad}");
        }
    }
}
