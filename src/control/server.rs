//! The HTTP API: routes, and who may use them from where.

use super::access::{self, Access, AccessPolicy, Peer, Trust};
use super::api::{
    CheckRequest, ErrorCode, Listing, RetryAnswer, RetryDead, TestRequest, TrackItem, TrackMany,
};
use super::api_error::ApiError;
use super::connections::{self, Bounds};
use super::creation;
use super::dashboard;
use super::files;
use super::leftover::Leftover;
use super::metrics::as_prometheus_text;
use super::openai;
use super::openapi;
use super::outliving;
use super::query::{
    self, Declared, NOTHING, OF_BATCHES, OF_DELIVERIES, OF_EVENTS, OF_RESULTS, OF_SUBMISSIONS, Query,
};
use super::resolve;
use super::respond::{Answer, Door, Shared, stream_of_lines};
use super::resubmit;
use super::routes::{Route, Table};
use super::service::Service;
use super::sessions::Sessions;
use super::stream;
use super::wrong_tokens::WrongTokens;
use crate::http::descriptors;
use axum::body::{Body, Bytes};
use axum::extract::{
    DefaultBodyLimit, Extension, FromRequestParts, MatchedPath, Path, RawPathParams, Request, State,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing;
use axum::{Json, Router};
use futures_util::{StreamExt as _, TryStreamExt as _};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// A hundred thousand ids with their options fit.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// What services send is a few hundred bytes.
const MAX_HOOK: usize = 64 * 1024;

/// Serves the socket until `stopping`.
pub async fn serve_socket(service: Service, listener: UnixListener, stopping: CancellationToken) {
    let app = socket_router(service, stopping.clone());
    connections::serve(listener, app, Peer::of_socket, socket_bounds(), stopping).await;
}

/// What the socket serves.
pub fn socket_router(service: Service, stopping: CancellationToken) -> Router {
    router(service, AccessPolicy::Socket, socket_bounds(), stopping)
}

/// Serves TCP until `stopping`.
pub async fn serve_tcp(
    service: Service,
    listener: TcpListener,
    rules: access::TcpRules,
    stopping: CancellationToken,
) {
    let bounds = tcp_bounds();
    let app = router(service, AccessPolicy::Tcp(Arc::new(rules)), bounds, stopping.clone());
    connections::serve(listener, app, Peer::of_tcp, bounds, stopping).await;
}

/// Whoever may open the socket may do everything; the bounds are for accidents. A pager that shows results is read
/// from in a person's time.
fn socket_bounds() -> Bounds {
    Bounds {
        connections: (descriptors::limit() / 4).clamp(8, 1024),
        head: HEAD_TIMEOUT,
        body: Duration::from_mins(1),
        answer: Duration::from_mins(10),
    }
}

/// Fewer than the socket's, which stays open to whoever mends what is wrong.
fn tcp_bounds() -> Bounds {
    let socket = socket_bounds();
    Bounds {
        connections: (socket.connections * 3 / 4).min(512),
        body: STALL_TIMEOUT,
        answer: STALL_TIMEOUT,
        ..socket
    }
}

/// For the head of a request; and how long a connection without one is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// For a body that does not go on, and for an answer that is not read on.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Every route, and what it takes to be answered over TCP.
fn routes() -> Vec<Route> {
    use Access::{Anyone, Changes, Copies, Costs, Open, Reads, ReadsUnlessFetched};
    let get = |path: &str, access, handler| Route::new(Method::GET, path, access, handler);
    let post = |path: &str, access, handler| Route::new(Method::POST, path, access, handler);
    let mut routes = vec![
        get("/v1/batches", Reads, routing::get(list)).query(OF_BATCHES),
        post("/v1/batches/track", Changes, routing::post(track_many)).query(NOTHING),
        post("/v1/discover", Changes, routing::post(discover)).query(NOTHING),
        post("/v1/submit", Changes, routing::post(submit)).query(OF_SUBMISSIONS),
        post("/v1/poll", Changes, routing::post(poll_all)).query(NOTHING),
        get("/v1/events", Reads, routing::get(events)).query(OF_EVENTS),
        get("/v1/deliveries", Reads, routing::get(deliveries)).query(OF_DELIVERIES),
        post("/v1/deliveries/retry", Changes, routing::post(retry_dead)).query(NOTHING),
        post("/v1/deliveries/{id}/retry", Changes, routing::post(retry)).query(NOTHING),
        get("/v1/webhooks", Reads, routing::get(webhooks)).query(NOTHING),
        post("/v1/webhooks/{name}/test", Changes, routing::post(test_webhook)).query(NOTHING),
        post("/v1/webhooks/{name}/disable", Changes, routing::post(disable_webhook)).query(NOTHING),
        post("/v1/webhooks/{name}/enable", Changes, routing::post(enable_webhook)).query(NOTHING),
        get("/v1/providers", Reads, routing::get(providers)).query(NOTHING),
        post("/v1/providers/check", Changes, routing::post(check_providers)).query(NOTHING),
        get("/v1/status", Reads, routing::get(status)).query(NOTHING),
        get("/v1/config", Copies, routing::get(config)).query(NOTHING),
        post("/v1/reload", Changes, routing::post(reload)).query(NOTHING),
        get("/v1/backup", Copies, routing::get(backup)).query(NOTHING),
        post("/hooks/{provider}", Anyone, routing::post(hook).layer(DefaultBodyLimit::max(MAX_HOOK))),
        get("/healthz", Anyone, routing::get(healthz)),
        get("/readyz", Anyone, routing::get(readyz)),
        get("/metrics", Open, routing::get(metrics)),
        get("/openapi.json", Open, routing::get(openapi)),
    ];
    // The second way is for ids with a slash in them, such as Gemini's, that nobody encoded.
    for batch_path in ["/v1/batches/{id}", "/v1/batches/{id}/{rest}"] {
        let below = |operation: &str| format!("{batch_path}/{operation}");
        routes.extend([
            Route::new(Method::PUT, batch_path, Changes, routing::put(track)).query(NOTHING),
            get(batch_path, ReadsUnlessFetched, routing::get(batch)).query(&["provider", "fetch", "detail"]),
            Route::new(Method::DELETE, batch_path, Changes, routing::delete(untrack)).query(&["purge"]),
            get(&below("events"), Reads, routing::get(batch_events)).query(OF_EVENTS),
            post(&below("poll"), Changes, routing::post(poll)).query(NOTHING),
            post(&below("cancel"), Changes, routing::post(cancel)).query(NOTHING),
            get(&below("results"), Costs, routing::get(results)).query(OF_RESULTS),
        ]);
    }
    routes.extend(files::routes());
    routes.extend(creation::routes());
    routes.extend(resubmit::routes());
    routes.extend(openai::of_providers());
    routes
}

fn router(service: Service, policy: AccessPolicy, bounds: Bounds, stopping: CancellationToken) -> Router {
    // Whoever only listens leaves room for whoever asks.
    let listeners = Arc::new(Semaphore::new((bounds.connections / 2).max(1)));
    let door = match policy {
        AccessPolicy::Socket => Door::Socket,
        AccessPolicy::Tcp(_) => Door::Tcp,
    };
    let sessions = Arc::new(Sessions::new());
    let wrong_tokens = Arc::new(WrongTokens::new());
    let shared = Shared {
        service: service.clone(),
        stopping: stopping.clone(),
        listeners,
        door,
        sessions,
        wrong_tokens,
    };
    let (router, table) = Table::of(routes().into_iter().chain(dashboard::routes()).collect());
    let table = Arc::new(table);
    let public = service.clone();
    let app = router
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let (policy, table) = (policy.clone(), table.clone());
            let service = service.clone();
            let stopping = stopping.clone();
            async move {
                let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
                let (access, parameters) = table.demands(request.method(), matched);
                let (mut request, leftover) = Leftover::watch(request);
                let (tokens, public) = (service.tokens(), service.public_url());
                let trust = policy.trust(&request, &tokens);
                request.extensions_mut().insert(trust);
                let admitted = policy.admit(&request, access, &tokens, public.as_ref()).and_then(|()| {
                    let Some(parameters) = parameters else { return Ok(()) };
                    request.extensions_mut().insert(Declared(parameters));
                    query::judge(request.uri().query().unwrap_or_default(), parameters)
                });
                let response = match admitted {
                    Ok(()) => in_our_words(outliving::answer(service.tasks(), request, next).await).await,
                    Err(refusal) => {
                        drop(request);
                        refusal.into_response()
                    }
                };
                harmless(leftover.before(response, &stopping).await)
            }
        }))
        .with_state(shared);
    below_public_path(app, public)
}

/// The same with every path also behind that of `api.public_url`: a proxy may leave it there or take it away.
fn below_public_path(app: Router, service: Service) -> Router {
    let app = TowerToHyperService::new(app);
    Router::new().fallback(move |mut request: Request| {
        if let Some(public) = service.public_url()
            && let Some(uri) = without_prefix(request.uri(), &public.path)
        {
            *request.uri_mut() = uri;
        }
        app.call(request)
    })
}

/// `uri` without `prefix` before its path, if that is there.
fn without_prefix(uri: &Uri, prefix: &str) -> Option<Uri> {
    let rest = uri.path().strip_prefix(prefix).filter(|_| !prefix.is_empty())?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    let slash = if rest.is_empty() { "/" } else { "" };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{slash}{rest}{query}").parse().ok();
    Uri::from_parts(parts).ok()
}

/// An answer that no browser takes for a page or a script of this origin, whatever a provider has put into it.
fn harmless(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = HeaderValue::from_static("default-src 'none'; sandbox");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
    response
}

/// What the server's own machinery refuses (a body that is too long, a path that is not UTF-8) it says in plain text;
/// here it gets the shape that every other error has.
async fn in_our_words(response: Response) -> Response {
    const MAX_TEXT: usize = 4096;
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !response.status().is_client_error() || !kind.is_some_and(|kind| kind.starts_with("text/plain")) {
        return response;
    }
    let status = response.status();
    let text = axum::body::to_bytes(response.into_body(), MAX_TEXT).await.unwrap_or_default();
    let refusal = ApiError::invalid(String::from_utf8_lossy(&text).trim().to_ascii_lowercase());
    (status, Json(refusal.into_body())).into_response()
}

/// What stands for a batch in a path, an id, a name or an address: one segment, or several with the slashes between them.
struct BatchId(String);

impl FromRequestParts<Shared> for BatchId {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Response> {
        let segments = RawPathParams::from_request_parts(parts, shared)
            .await
            .map_err(|_| ApiError::invalid("the id in the path is not text").param("id").into_response())?;
        let segments: Vec<&str> = segments.iter().map(|(_, segment)| segment).collect();
        let id = segments.join("/");
        match resolve::judged_text(&id) {
            Ok(_) => Ok(Self(id)),
            Err(refusal) => Err(refusal.into_response()),
        }
    }
}

async fn list(State(shared): State<Shared>, query: Query) -> Answer<Json<Listing<Value>>> {
    Ok(Json(shared.service.list(query.batches()?).await?))
}

async fn track(
    State(shared): State<Shared>,
    BatchId(id): BatchId,
    peer: Option<Extension<axum::extract::ConnectInfo<Peer>>>,
    body: Bytes,
) -> Answer<(StatusCode, Json<Value>)> {
    let mut item: TrackItem = if body.is_empty() { TrackItem::default() } else { read(&body)? };
    if !item.id.is_empty() && item.id != id {
        return Err(ApiError::invalid("the path and the body name different batches").param("id"));
    }
    item.id = id;
    let (batch, new) = shared.service.track(item, owner(peer)).await?;
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(batch)))
}

async fn track_many(
    State(shared): State<Shared>,
    peer: Option<Extension<axum::extract::ConnectInfo<Peer>>>,
    body: Bytes,
) -> Answer<Json<Listing<super::api::TrackAnswer>>> {
    let TrackMany { items } = read(&body)?;
    Ok(Json(Listing::whole(shared.service.track_many(items, owner(peer)).await?, |answer| answer.id.clone())))
}

fn owner(peer: Option<Extension<axum::extract::ConnectInfo<Peer>>>) -> Option<String> {
    peer.and_then(|Extension(axum::extract::ConnectInfo(peer))| peer.user)
}

async fn batch(State(shared): State<Shared>, BatchId(id): BatchId, query: Query) -> Answer<Json<Value>> {
    let provider = query.text("provider");
    Ok(Json(if query.flag("fetch")? {
        shared.service.fetch(provider.as_deref(), &id).await?
    } else if query.flag("detail")? {
        shared.service.detail(&id).await?
    } else {
        shared.service.batch(&id).await?
    }))
}

async fn untrack(State(shared): State<Shared>, BatchId(id): BatchId, query: Query) -> Answer<Json<Value>> {
    Ok(Json(shared.service.untrack(&id, query.flag("purge")?).await?))
}

async fn poll(State(shared): State<Shared>, BatchId(id): BatchId) -> Answer<Json<Value>> {
    Ok(Json(shared.service.poll(&id).await?))
}

async fn cancel(State(shared): State<Shared>, BatchId(id): BatchId) -> Answer<Json<Value>> {
    Ok(Json(shared.service.cancel(None, &id).await?))
}

async fn results(
    State(shared): State<Shared>,
    BatchId(id): BatchId,
    headers: HeaderMap,
    query: Query,
) -> Answer<Response> {
    let (wanted, format) = query.results()?;
    let provider = query.text("provider");
    let found = if query.flag("merged")? {
        shared.service.merged_results(provider.as_deref(), &id, wanted, format).await?
    } else {
        shared.service.results(provider.as_deref(), &id, wanted, format).await?
    };
    Ok(stream_of_lines(&shared, found, &headers))
}

async fn discover(
    State(shared): State<Shared>,
    peer: Option<Extension<axum::extract::ConnectInfo<Peer>>>,
    body: Bytes,
) -> Answer<Json<super::api::DiscoverAnswer>> {
    let request = if body.is_empty() { super::api::DiscoverRequest::default() } else { read(&body)? };
    Ok(Json(shared.service.discover(request, owner(peer)).await?))
}

/// The body streams, and no bound but the provider's is on it.
async fn submit(
    State(shared): State<Shared>,
    peer: Option<Extension<axum::extract::ConnectInfo<Peer>>>,
    headers: HeaderMap,
    query: Query,
    body: Body,
) -> Answer<Response> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let file = body.into_data_stream().map_err(|error| reason(&error));
    let lines = shared.service.submit(query.submit(), owner(peer), file.boxed(), length).await?;
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(([kind], Body::from_stream(lines)).into_response())
}

/// The innermost reason of an error.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}

async fn poll_all(State(shared): State<Shared>) -> Answer<Json<super::api::PollAnswer>> {
    Ok(Json(shared.service.poll_all()?))
}

async fn events(State(shared): State<Shared>, headers: HeaderMap, query: Query) -> Answer<Response> {
    event_log(shared, None, &headers, &query).await
}

async fn batch_events(
    State(shared): State<Shared>,
    BatchId(id): BatchId,
    headers: HeaderMap,
    query: Query,
) -> Answer<Response> {
    event_log(shared, Some(id), &headers, &query).await
}

async fn event_log(
    shared: Shared,
    batch: Option<String>,
    headers: &HeaderMap,
    query: &Query,
) -> Answer<Response> {
    let resumed = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let after = resumed.or(query.number("after")?).unwrap_or(0);
    if accepts(headers, "text/event-stream") {
        return stream::events(&shared, batch.as_deref(), after).await;
    }
    let listing = shared.service.events(batch.as_deref(), after, query.events()?).await?;
    Ok(Json(listing).into_response())
}

async fn deliveries(
    State(shared): State<Shared>,
    query: Query,
) -> Answer<Json<Listing<super::api::DeliveryView>>> {
    Ok(Json(shared.service.deliveries(query.deliveries()?).await?))
}

async fn retry(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Answer<Json<super::api::DeliveryView>> {
    Ok(Json(shared.service.retry(&id).await?))
}

async fn retry_dead(State(shared): State<Shared>, body: Bytes) -> Answer<Json<RetryAnswer>> {
    let RetryDead { webhook } = if body.is_empty() { RetryDead::default() } else { read(&body)? };
    Ok(Json(RetryAnswer { retried: shared.service.retry_dead(webhook).await? }))
}

async fn webhooks(State(shared): State<Shared>) -> Answer<Json<Listing<super::api::WebhookReport>>> {
    Ok(Json(Listing::whole(shared.service.webhooks().await?, |report| report.name.clone())))
}

async fn test_webhook(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<Json<super::api::TestAnswer>> {
    let TestRequest { event } = if body.is_empty() { TestRequest::default() } else { read(&body)? };
    Ok(Json(shared.service.test_webhook(&name, event.as_deref()).await?))
}

async fn disable_webhook(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Answer<Json<super::api::WebhookReport>> {
    Ok(Json(shared.service.switch_webhook(&name, false).await?))
}

async fn enable_webhook(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Answer<Json<super::api::WebhookReport>> {
    Ok(Json(shared.service.switch_webhook(&name, true).await?))
}

async fn providers(State(shared): State<Shared>) -> Answer<Json<Listing<super::api::ProviderReport>>> {
    Ok(Json(Listing::whole(shared.service.providers()?, |report| report.name.clone())))
}

async fn check_providers(
    State(shared): State<Shared>,
    body: Bytes,
) -> Answer<Json<Listing<super::api::CheckAnswer>>> {
    let CheckRequest { name } = if body.is_empty() { CheckRequest::default() } else { read(&body)? };
    Ok(Json(Listing::whole(shared.service.check_providers(name.as_deref()).await?, |answer| {
        answer.name.clone()
    })))
}

async fn status(State(shared): State<Shared>) -> Answer<Json<super::api::StatusReport>> {
    Ok(Json(shared.service.status().await?))
}

async fn config(State(shared): State<Shared>) -> Answer<Json<super::api::ConfigReport>> {
    Ok(Json(shared.service.config()?))
}

async fn reload(State(shared): State<Shared>) -> Answer<Json<super::api::ReloadAnswer>> {
    Ok(Json(shared.service.reload().await?))
}

async fn backup(State(shared): State<Shared>) -> Answer<Response> {
    let (length, body) = stream::backup(&shared.service, shared.stopping).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.sqlite3")),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

async fn hook(
    State(shared): State<Shared>,
    Path(provider): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Value>> {
    shared.service.hook(&provider, &headers, &body).await?;
    Ok(Json(json!({"received": true})))
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let troubles = shared.service.not_ready().await;
    if troubles.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", troubles.join("\n"))).into_response()
}

async fn metrics(
    State(shared): State<Shared>,
    Extension(trust): Extension<Trust>,
    headers: HeaderMap,
) -> Answer<Response> {
    let text = shared.service.metrics(trust == Trust::Known).await?;
    let (kind, text) = if accepts(&headers, "application/openmetrics-text") {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", text)
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", as_prometheus_text(&text))
    };
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response())
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], openapi::document())
        .into_response()
}

/// Whether the request names this type among those that it accepts.
fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|value| value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains(kind)))
}

async fn nothing_here(request: Request) -> ApiError {
    let path = request.uri().path();
    ApiError::new(ErrorCode::NotFound, format!("there is nothing at {path}"))
}

async fn wrong_method(request: Request) -> Response {
    let (path, method) = (request.uri().path(), request.method());
    let refusal = ApiError::invalid(format!("{path} does not take {method}"));
    (StatusCode::METHOD_NOT_ALLOWED, Json(refusal.into_body())).into_response()
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Answer<T> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("invalid body: {error}")).param("body"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openapi_document_has_every_route_and_no_other() {
        let (_, table) = Table::of(routes());
        let differences = openapi::differences(table.entries());
        assert!(differences.is_empty(), "\n{}\n", differences.join("\n"));
    }

    #[test]
    fn every_route_says_what_it_takes() {
        let (_, table) = Table::of(routes());
        let said: Vec<String> =
            table.entries().map(|(path, method, access, _)| format!("{access:?} {method} {path}")).collect();
        for (path, method, access, parameters) in table.entries() {
            assert!(
                parameters.is_some() || !path.starts_with("/v1/"),
                "{method} {path} does not say which query parameters it takes: add `.query(…)` to its row"
            );
            let changes = !matches!(method, "GET");
            assert_eq!(changes && access != Access::Anyone, access == Access::Changes, "{method} {path}");
            let asks = path.starts_with("/providers/")
                || path.starts_with("/v1/files")
                || path.ends_with("/results");
            assert!(!asks || matches!(access, Access::Costs | Access::Changes), "{method} {path}");
        }
        insta::assert_snapshot!(said.join("\n"));
    }
}
