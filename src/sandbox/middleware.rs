//! What every request passes: whose API it means, the faults that wait for it, its key, the journal, and errors in
//! the vendor's shape.

use super::Sandbox;
use super::refusal::Refusal;
use super::vendor::{Vendor, key_in_query};
use super::{files, gemini_files, wire};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};

/// Passes `request` on, or refuses it.
pub async fn handle(State(sandbox): State<Sandbox>, mut request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let uri = request.uri().clone();
    let vendor = Vendor::of(&uri, request.headers());
    let store = sandbox.store();
    let request_id = store.request_id();

    let early = match vendor {
        Some(vendor) => struck(&sandbox, &method, uri.path())
            .await
            .or_else(|| refused(&sandbox, vendor, &uri, request.headers())),
        None => None,
    };
    let response = if let Some(response) = early {
        response
    } else {
        if vendor == Some(Vendor::Gemini) {
            *request.uri_mut() = beta(&uri);
        }
        next.run(request).await
    };
    let response = dress(response, vendor, &request_id);

    let status = response.status();
    tracing::debug!(%method, path = uri.path(), status = status.as_u16(), "the sandbox answered");
    if !uri.path().starts_with("/sandbox/") {
        sandbox.control().note(wire::rfc3339(store.now()), vendor, &method, &uri, status);
    }
    response
}

pub async fn unknown(uri: Uri) -> Refusal {
    Refusal::not_found(format!("Invalid URL ({})", uri.path()))
}

/// No such method here.
pub async fn not_allowed() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

/// What a fault that waits for this request makes of it: a delay, an answer, or both.
async fn struck(sandbox: &Sandbox, method: &Method, path: &str) -> Option<Response> {
    let strike = sandbox.control().strike(method, path)?;
    if !strike.delay.is_zero() {
        tokio::time::sleep(strike.delay).await;
    }
    let (refusal, headers, body) = strike.answer?;
    let mut response = match body {
        Some(body) => (refusal.status, body).into_response(),
        None => refusal.into_response(),
    };
    response.headers_mut().extend(headers);
    Some(response)
}

/// The answer to a request without a key, unless its address stands for one.
fn refused(sandbox: &Sandbox, vendor: Vendor, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
    let refusal = admit(vendor, uri, headers).err()?;
    let granted = files::is_signed(sandbox, uri) || gemini_files::is_open(sandbox, uri);
    (!granted).then(|| refusal.into_response())
}

/// Whether there is a key at all; any will do. The key is read nowhere else.
fn admit(vendor: Vendor, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let filled = |name: &str| headers.get(name).is_some_and(|value| !value.is_empty());
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .is_some_and(|(scheme, key)| scheme.eq_ignore_ascii_case("bearer") && !key.trim().is_empty());
    let admitted = match vendor {
        Vendor::OpenAi | Vendor::Mistral => bearer,
        Vendor::Anthropic => bearer || filled("x-api-key"),
        Vendor::Gemini => bearer || filled("x-goog-api-key") || key_in_query(uri),
    };
    match vendor {
        _ if admitted => Ok(()),
        Vendor::OpenAi => Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "You didn't provide an API key. The sandbox takes any, in an Authorization header: Bearer KEY.",
        )
        .coded("invalid_api_key")),
        Vendor::Anthropic => {
            Err(Refusal::new(StatusCode::UNAUTHORIZED, "x-api-key header is required; the sandbox takes any"))
        }
        Vendor::Gemini => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "Method doesn't allow unregistered callers. The sandbox takes any key, in x-goog-api-key.",
        )),
        Vendor::Mistral => Err(Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized")),
    }
}

/// Writes a refusal's body in the vendor's shape, and the request's id.
fn dress(mut response: Response, vendor: Option<Vendor>, request_id: &str) -> Response {
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        let body = refusal.body(vendor.unwrap_or(Vendor::OpenAi), request_id);
        let headers = std::mem::take(response.headers_mut());
        response = (refusal.status, wire::answer(&body)).into_response();
        for (name, value) in &headers {
            if *name != header::CONTENT_LENGTH {
                response.headers_mut().insert(name, value.clone());
            }
        }
    }
    let name = if vendor == Some(Vendor::Anthropic) { "request-id" } else { "x-request-id" };
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(wire::name(name), value);
    }
    response
}

/// The address that Google's clients ask under `/v1` when they do not use the beta.
fn beta(uri: &Uri) -> Uri {
    let rest = uri.path_and_query().map(PathAndQuery::as_str).and_then(|rest| rest.strip_prefix("/v1/"));
    rest.and_then(|rest| format!("/v1beta/{rest}").parse().ok()).unwrap_or_else(|| uri.clone())
}
