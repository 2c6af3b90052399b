//! The OpenAI-shaped surface beside the tracked batches: files by their id, and the files and batches of one provider.
//!
//! Below `/providers/{name}/v1` a service with OpenAI's interface is passed what it knows itself (uploads, files,
//! creations); batches are read through the adapter of every kind, so they have the one shape.

use super::access::Access;
use super::api::{ErrorCode, Listing, TrackItem};
use super::api_error::ApiError;
use super::query::{NOTHING, Query};
use super::resolve::{judged, no_such_provider};
use super::respond::{AS_A_FILE, Answer, Shared, stream_of_lines};
use super::results::Found;
use super::routes::Route;
use crate::domain::shape;
use crate::domain::tracked::BatchKey;
use crate::domain::walk::{Onward, Walk};
use crate::engine::Account;
use crate::engine::results::{Format, Wanted};
use crate::http::call::{BodyLimit, Incoming, Outgoing};
use crate::http::failure::Failure;
use crate::provider::PageRequest;
use crate::provider::bounds::bounded;
use crate::provider::request::segment;
use crate::provider::salvage;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, routing};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;
use std::sync::Arc;

/// The longest answer to an upload or a creation, in bytes: it waits for nobody's turn, and no slow client holds one.
const MAX_ANSWER: usize = crate::http::memory::SMALL;
/// The longest body of a creation, in bytes.
const MAX_CREATION: usize = 1024 * 1024;

/// How many pages of a provider's list are read for one page of ours.
const MAX_PAGES: usize = 10;

/// The routes of one provider's own API.
pub(super) fn of_providers() -> Vec<Route> {
    let (files, file) = ("/providers/{name}/v1/files", "/providers/{name}/v1/files/{*file}");
    let (many, one) = ("/providers/{name}/v1/batches", "/providers/{name}/v1/batches/{*batch}");
    vec![
        Route::new(Method::GET, files, Access::Costs, routing::get(pass_files)),
        Route::new(Method::POST, files, Access::Changes, routing::post(pass_files)),
        Route::new(Method::GET, file, Access::Costs, routing::get(one_file)),
        Route::new(Method::DELETE, file, Access::Changes, routing::delete(pass_file)),
        Route::new(Method::GET, many, Access::Costs, routing::get(batches)).query(&["after", "limit"]),
        Route::new(Method::POST, many, Access::Changes, routing::post(create)).query(NOTHING),
        Route::new(Method::GET, one, Access::Costs, routing::get(batch)).query(NOTHING),
        Route::new(Method::POST, one, Access::Changes, routing::post(cancel)).query(NOTHING),
    ]
}

/// `GET /v1/files/{id}/content`: a file that a tracked batch names, or the results that stand for one.
pub(super) async fn file_content(
    State(shared): State<Shared>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Answer<Response> {
    let file = content_of(judged(&path)?)?;
    if let Some(key) = results_of(file) {
        return all_results(&shared, &key, &headers).await;
    }
    let live = shared.service.live()?;
    let mut named = shared.service.store.find_by_file(file.to_owned()).await?;
    named.dedup_by(|(_, a), (_, b)| a.key.provider == b.key.provider);
    match named.as_slice() {
        [] => Err(ApiError::new(ErrorCode::NotFound, format!("no tracked batch names a file `{file}`"))
            .hint("/providers/NAME/v1/files/ID/content gives any file of a provider")),
        [(_, tracked)] => {
            let provider = &tracked.key.provider;
            let account =
                live.engine.account(provider).map_err(|error| ApiError::from_provider(error, file))?;
            file_of(&account, provider, file).await
        }
        several => {
            let at: Vec<&str> = several.iter().map(|(_, tracked)| tracked.key.provider.as_str()).collect();
            Err(ApiError::new(
                ErrorCode::AmbiguousId,
                format!("`{file}` is a file at several providers: {}", at.join(", ")),
            )
            .hint("use /providers/NAME/v1/files for one provider's"))
        }
    }
}

/// The file of `FILE/content`.
fn content_of(path: &str) -> Result<&str, ApiError> {
    path.strip_suffix("/content").filter(|file| !file.is_empty()).ok_or_else(|| {
        ApiError::new(
            ErrorCode::NotFound,
            "only the content of a file is available here: /v1/files/ID/content",
        )
    })
}

/// The batch of `results:PROVIDER:ID`.
fn results_of(file: &str) -> Option<BatchKey> {
    let (provider, id) = file.strip_prefix("results:")?.split_once(':')?;
    Some(BatchKey { provider: provider.to_owned(), id: id.to_owned() })
}

async fn all_results(shared: &Shared, key: &BatchKey, headers: &HeaderMap) -> Answer<Response> {
    let provider = Some(key.provider.as_str());
    let found: Found = shared.service.results(provider, &key.id, Wanted::Everything, Format::OpenAi).await?;
    Ok(stream_of_lines(shared, found, headers))
}

/// A provider's file, streamed as it comes.
async fn file_of(account: &Account, provider: &str, file: &str) -> Answer<Response> {
    let refusal = |failure: Failure| ApiError::from_results(provider, &failure, file);
    let call = account.adapter.file_content(file).map_err(refusal)?;
    let incoming = account.open(call).await.map_err(refusal)?;
    if incoming.status.is_success() {
        return Ok(passed_on(incoming));
    }
    let answer = incoming.into_answer(MAX_ANSWER).await;
    Err(refusal(crate::provider::answer::refusal(&answer)))
}

async fn pass_files(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Answer<Response> {
    let account = account(&shared, &name)?;
    pass(&account, "/files", request).await
}

async fn pass_file(
    State(shared): State<Shared>,
    Path((name, file)): Path<(String, String)>,
    request: Request,
) -> Answer<Response> {
    let account = account(&shared, &name)?;
    let path = format!("/files/{}", encoded(judged(&file)?)?);
    pass(&account, &path, request).await
}

async fn one_file(
    State(shared): State<Shared>,
    Path((name, file)): Path<(String, String)>,
    request: Request,
) -> Answer<Response> {
    let account = account(&shared, &name)?;
    judged(&file)?;
    let Ok(id) = content_of(&file) else {
        let path = format!("/files/{}", encoded(&file)?);
        return pass(&account, &path, request).await;
    };
    match results_of(id) {
        Some(key) if key.provider == name => all_results(&shared, &key, request.headers()).await,
        Some(_) => Err(ApiError::new(ErrorCode::NotFound, format!("`{id}` is not of provider `{name}`"))),
        None => file_of(&account, &name, id).await,
    }
}

/// `POST /providers/{name}/v1/batches`: what is created here is tracked.
async fn create(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Answer<Response> {
    let account = account(&shared, &name)?;
    let refusal = |failure: Failure| refused(&name, &failure);
    let mut call = account.adapter.pass(&Method::POST, "/batches", None).map_err(refusal)?;
    let kind = request.headers().get(CONTENT_TYPE).cloned();
    let body = axum::body::to_bytes(request.into_body(), MAX_CREATION)
        .await
        .map_err(|_| ApiError::invalid(format!("the body is longer than {MAX_CREATION} bytes")))?;
    call.request.headers_mut().extend(kind.map(|kind| (CONTENT_TYPE, kind)));
    *call.request.body_mut() = body;
    call.body_limit = BodyLimit::Whole(MAX_ANSWER);
    let answer = account.send(call).await.map_err(refusal)?;
    if !answer.status.is_success() {
        return Ok(passed_on(answer.into()));
    }
    // An answer that was understood names the batch; the rest is as for every batch that is tracked by hand.
    let object = salvage::value(&bounded(&answer.body, None)).unwrap_or_default();
    let id = ["id", "batch_id"].iter().find_map(|key| object.get(*key)?.as_str());
    let id = id.or_else(|| object.pointer("/job/id")?.as_str()).map(str::to_owned);
    let Some(id) = id else {
        tracing::warn!(
            provider = name,
            "a batch was created, but the answer has no id, so it is not tracked"
        );
        return Ok(passed_on(answer.into()));
    };
    let item = TrackItem { id: id.clone(), provider: Some(name.clone()), ..TrackItem::default() };
    match shared.service.track(TrackItem { check: Some(true), ..item.clone() }, None).await {
        Ok((batch, _)) => return Ok(Json(batch).into_response()),
        Err(refusal) => {
            tracing::debug!(provider = name, batch = id, "a created batch cannot be checked yet: {refusal}");
        }
    }
    // It exists, whatever the first check says.
    shared.service.track(TrackItem { check: Some(false), ..item }, None).await?;
    Ok(passed_on(answer.into()))
}

/// `GET /providers/{name}/v1/batches`: a page of what the provider has, in the one shape.
async fn batches(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    query: Query,
) -> Answer<Json<Listing<Value>>> {
    let account = account(&shared, &name)?;
    let live = shared.service.live()?;
    let refusal = |failure: Failure| refused(&name, &failure);
    let limit = query.number("limit")?.unwrap_or(20).clamp(1, 100);
    let after = query.text("after");
    // A client continues after an id; a provider after whatever it likes. Where the id does not tell, the pages do.
    let mut cursor = after.as_deref().and_then(|after| live.cursors.get(&name, after));
    let mut passing = after.filter(|_| cursor.is_none());
    let mut walk = Walk::default();
    for _ in 0..MAX_PAGES {
        let page = PageRequest { cursor: cursor.clone(), limit, ..PageRequest::default() };
        let call = account.adapter.list(&page).map_err(refusal)?;
        let answer = account.send(call).await.map_err(refusal)?;
        let mut page = account.read(&answer, |adapter| adapter.listed(&page, &answer)).map_err(refusal)?;
        let ids = page.sightings.iter().map(|sighting| sighting.id.as_str());
        let goes_on = walk.note(ids, page.next.as_deref()) == Onward::Read;
        if let (Some(last), Some(next)) = (page.sightings.last(), &page.next) {
            live.cursors.put(&name, &last.id, next);
        }
        if let Some(after) = &passing {
            let Some(at) = page.sightings.iter().position(|sighting| sighting.id == *after) else {
                match page.next.filter(|_| goes_on) {
                    Some(next) => {
                        cursor = Some(next);
                        continue;
                    }
                    None => {
                        return Err(ApiError::invalid(format!("provider `{name}` lists no batch `{after}`"))
                            .param("after"));
                    }
                }
            };
            page.sightings.drain(..=at);
            passing = None;
            if page.sightings.is_empty() && page.next.is_some() && goes_on {
                cursor = page.next;
                continue;
            }
        }
        let shapes: Result<Vec<Value>, ApiError> = page
            .sightings
            .iter()
            .map(|sighting| {
                let key = BatchKey { provider: name.clone(), id: sighting.id.clone() };
                Ok(shape::batch(&shared.service.untracked(live, &key, sighting)?))
            })
            .collect();
        let data = shapes?;
        let id = |batch: Option<&Value>| Some(batch?["id"].as_str()?.to_owned());
        return Ok(Json(Listing {
            object: "list".to_owned(),
            first_id: id(data.first()),
            last_id: id(data.last()),
            has_more: page.next.is_some() && !data.is_empty(),
            data,
        }));
    }
    let message = format!("batch `{}` is not on the first {MAX_PAGES} pages", passing.unwrap_or_default());
    Err(ApiError::invalid(format!("provider `{name}`: {message} of the list"))
        .param("after")
        .hint("begin at the newest without `after`, and go on with the `last_id` of each page"))
}

async fn batch(
    State(shared): State<Shared>,
    Path((name, id)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    account(&shared, &name)?;
    Ok(Json(shared.service.fetch(Some(&name), judged(&id)?).await?))
}

async fn cancel(
    State(shared): State<Shared>,
    Path((name, path)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    account(&shared, &name)?;
    let id = judged(&path)?.strip_suffix("/cancel").filter(|id| !id.is_empty()).ok_or_else(|| {
        ApiError::new(ErrorCode::NotFound, "only POST /providers/NAME/v1/batches/ID/cancel is available here")
    })?;
    Ok(Json(shared.service.cancel(Some(&name), id).await?))
}

fn account(shared: &Shared, name: &str) -> Result<Arc<Account>, ApiError> {
    let live = shared.service.live()?;
    live.engine.account(name).map_err(|_| {
        let mut refusal = no_such_provider(name, &live.config());
        refusal.code = ErrorCode::NotFound;
        refusal
    })
}

/// Every segment of `path` as one that stays one.
fn encoded(path: &str) -> Result<String, ApiError> {
    let segments: Result<Vec<String>, Failure> = path.split('/').map(segment).collect();
    Ok(segments.map_err(|failure| ApiError::invalid(failure.to_string()))?.join("/"))
}

fn refused(provider: &str, failure: &Failure) -> ApiError {
    match failure {
        Failure::Unsupported(what) => {
            let submit = format!("`batchd submit FILE --provider {provider}` uploads and creates there");
            ApiError::new(ErrorCode::NotSupported, format!("provider `{provider}`: {what}; {submit}"))
        }
        _ => ApiError::from_results(provider, failure, "batches"),
    }
}

/// The request as it came, at the provider; both bodies stream.
async fn pass(account: &Account, path: &str, request: Request) -> Answer<Response> {
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
fn passed_on(incoming: Incoming) -> Response {
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
    fn results_that_stand_for_a_file_are_known_by_their_name() {
        let key = results_of("results:gem:batches/a:b").unwrap();
        assert_eq!((key.provider.as_str(), key.id.as_str()), ("gem", "batches/a:b"));
        assert_eq!(results_of("file-1"), None);
        assert_eq!(content_of("files/x/content").unwrap(), "files/x");
        assert!(content_of("/content").is_err() && content_of("x").is_err());
    }

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
