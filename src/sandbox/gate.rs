//! What every request passes: whose API it means, the faults that wait for it, its key, the journal, and errors in
//! the vendor's shape.

use super::Sandbox;
use super::refusal::Refusal;
use super::vendor::Vendor;
use super::{chance, files, gemini_files, wire};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, Uri, header};

/// Passes `request` on, or refuses it.
pub async fn gate(State(sandbox): State<Sandbox>, mut request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let uri = request.uri().clone();
    let vendor = Vendor::of(&uri, request.headers());
    let store = sandbox.store();
    let request_id = format!("req_{}", chance::hex(&mut store.chance(store.serial()), 24));

    let strike = vendor.and_then(|_| sandbox.control().strike(&method, uri.path()));
    let mut response = match strike.map(|strike| (strike.delay, strike.answer)) {
        Some((delay, answer)) => {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            match answer {
                Some((refusal, headers, body)) => {
                    let mut response = match body {
                        Some(body) => (refusal.status, body).into_response(),
                        None => refusal.into_response(),
                    };
                    response.headers_mut().extend(headers);
                    Some(response)
                }
                None => None,
            }
        }
        None => None,
    };
    if let (None, Some(vendor)) = (&response, vendor)
        && let Err(refusal) = vendor.admit(&uri, request.headers())
        && !files::is_signed(&sandbox, &uri)
        && !gemini_files::is_open(&sandbox, &uri)
    {
        response = Some(refusal.into_response());
    }
    let response = match response {
        Some(response) => response,
        None => {
            if vendor == Some(Vendor::Gemini) {
                *request.uri_mut() = beta(&uri);
            }
            next.run(request).await
        }
    };
    let response = dress(response, vendor, &request_id);

    let status = response.status();
    tracing::debug!(%method, path = uri.path(), status = status.as_u16(), "the sandbox answered");
    if !uri.path().starts_with("/sandbox/") {
        sandbox.control().note(wire::rfc3339(store.now()), vendor, &method, &uri, status);
    }
    response
}

/// No such route.
pub async fn unknown(uri: Uri) -> Refusal {
    Refusal::not_found(format!("Invalid URL ({})", uri.path()))
}

/// No such method here.
pub async fn not_allowed() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
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
    let rest = uri.path_and_query().map(|rest| rest.as_str()).and_then(|rest| rest.strip_prefix("/v1/"));
    rest.and_then(|rest| format!("/v1beta/{rest}").parse().ok()).unwrap_or_else(|| uri.clone())
}
