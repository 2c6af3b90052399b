//! Files by their id: what clients uploaded here, what tracked batches name, and the files of one provider.
//!
//! A service with OpenAI's interface is passed what is asked of its own files. At any other what is uploaded stays here,
//! and is sent when a batch is created from it.

use super::access::Access;
use super::api::{ErrorCode, Listing};
use super::api_error::ApiError;
use super::passthrough::{MAX_ANSWER, account, encoded, is_passed_on, pass, passed_on};
use super::query::{NOTHING, OF_FILES, Query};
use super::resolve::judged;
use super::respond::{AS_A_FILE, Answer, Shared, owner, stream_of_lines};
use super::results::Found;
use super::routes::Route;
use super::upload::{self, OWN_PREFIX};
use crate::domain::batch::Batch;
use crate::domain::tracked::{BatchKey, Tracked};
use crate::engine::Account;
use crate::engine::results::{Format, Wanted};
use crate::http::failure::Failure;
use crate::provider::salvage;
use crate::store::files::{Deletion, FilePage, StoredFile};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, routing};
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};

/// The routes of files, those kept here and those of one provider.
pub(super) fn routes() -> Vec<Route> {
    let (all, file) = ("/v1/files", "/v1/files/{*file}");
    let (of_one, file_of_one) = ("/providers/{name}/v1/files", "/providers/{name}/v1/files/{*file}");
    // What is uploaded streams to the disk, within a bound of its own.
    let unbounded = DefaultBodyLimit::disable;
    vec![
        Route::new(Method::GET, all, Access::Costs, routing::get(list)).query(OF_FILES),
        Route::new(Method::POST, all, Access::Changes, routing::post(keep).layer(unbounded())).query(NOTHING),
        Route::new(Method::GET, file, Access::Costs, routing::get(read)).query(NOTHING),
        Route::new(Method::DELETE, file, Access::Changes, routing::delete(delete)).query(NOTHING),
        Route::new(Method::GET, of_one, Access::Costs, routing::get(list_at)),
        Route::new(Method::POST, of_one, Access::Changes, routing::post(keep_at).layer(unbounded())),
        Route::new(Method::GET, file_of_one, Access::Costs, routing::get(read_at)),
        Route::new(Method::DELETE, file_of_one, Access::Changes, routing::delete(delete_at)),
    ]
}

/// `POST /v1/files`.
async fn keep(State(shared): State<Shared>, request: Request) -> Answer<Json<Value>> {
    take_in(&shared, request).await
}

/// `POST /providers/{name}/v1/files`.
async fn keep_at(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    query: Query,
    request: Request,
) -> Answer<Response> {
    let account = account(&shared, &name)?;
    if is_passed_on(&account) {
        return pass(&account, "/files", request).await;
    }
    query.only(NOTHING)?;
    Ok(take_in(&shared, request).await?.into_response())
}

async fn take_in(shared: &Shared, request: Request) -> Answer<Json<Value>> {
    let live = shared.service.live()?;
    let id = upload::new_id(&live.parts.rng);
    let (settings, now) = (live.config(), shared.service.clock.now());
    let owner = owner(request.extensions());
    let file = upload::take_in(&shared.service.store, &settings.files, id, owner, now, request).await?;
    tracing::info!(file = file.id, bytes = file.bytes, "keeping the uploaded file {}", file.id);
    Ok(Json(shown(&file)))
}

/// `GET /v1/files`.
async fn list(State(shared): State<Shared>, query: Query) -> Answer<Json<Listing<Value>>> {
    query.only(OF_FILES)?;
    let limit = query.number("limit")?.unwrap_or(MAX_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::invalid(format!("the limit is from 1 to {MAX_PAGE}")).param("limit"));
    }
    let ascending = match query.text("order").as_deref() {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => return Err(ApiError::invalid("the order is `asc` or `desc`").param("order")),
    };
    let after = query.text("after");
    let page = FilePage { after: after.clone(), ascending, limit };
    let files = shared.service.store.files(page, shared.service.clock.now()).await?;
    let Some((mut files, mut has_more)) = files else {
        return Err(no_such_file(&after.unwrap_or_default()).param("after"));
    };
    // There are no others.
    if query.text("purpose").is_some_and(|purpose| purpose != PURPOSE) {
        files.clear();
        has_more = false;
    }
    Ok(Json(Listing {
        object: "list".to_owned(),
        data: files.iter().map(shown).collect(),
        first_id: files.first().map(|file| file.id.clone()),
        last_id: files.last().map(|file| file.id.clone()),
        has_more,
    }))
}

/// `GET /providers/{name}/v1/files`.
async fn list_at(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    query: Query,
    request: Request,
) -> Answer<Response> {
    let account = account(&shared, &name)?;
    if is_passed_on(&account) {
        return pass(&account, "/files", request).await;
    }
    Ok(list(State(shared), query).await?.into_response())
}

/// `GET /v1/files/{id}` and `GET /v1/files/{id}/content`.
async fn read(
    State(shared): State<Shared>,
    Path(path): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Answer<Response> {
    query.only(NOTHING)?;
    let path = judged(&path)?;
    if let Some(file) = content_of(path) {
        if is_own(file) {
            return own_content(&shared, file).await;
        }
        if let Some(key) = results_of(file) {
            return results_in_openai_s_form(&shared, &key, Wanted::Everything, &headers).await;
        }
        let tracked = named(&shared, file).await?;
        return content_of_batch(&shared, file, &tracked, &headers).await;
    }
    if is_own(path) {
        return Ok(Json(own(&shared, path).await?.1).into_response());
    }
    let tracked = match results_of(path) {
        Some(key) => shared.service.store.get(key).await?.map(|(_, tracked)| tracked),
        None => Some(named(&shared, path).await?),
    };
    let tracked = tracked.ok_or_else(|| no_such_file(path))?;
    Ok(Json(provider_file(&shared, path, &tracked).await?).into_response())
}

/// The same of one provider's files.
async fn read_at(
    State(shared): State<Shared>,
    Path((name, path)): Path<(String, String)>,
    query: Query,
    request: Request,
) -> Answer<Response> {
    let account = account(&shared, &name)?;
    let path = judged(&path)?;
    let id = content_of(path).unwrap_or(path);
    if is_own(id) {
        return read(State(shared), Path(path.to_owned()), query, request.headers().clone()).await;
    }
    if let Some(key) = results_of(id) {
        if key.provider != name {
            return Err(no_such_file(id).hint(format!("it is not of provider `{name}`")));
        }
        return read(State(shared), Path(path.to_owned()), query, request.headers().clone()).await;
    }
    if is_passed_on(&account) {
        if id != path {
            return provider_content(&account, id).await;
        }
        return pass(&account, &format!("/files/{}", encoded(path)?), request).await;
    }
    let mut known = shared.service.store.find_by_file(id.to_owned()).await?.into_iter();
    match known.find(|(_, tracked)| tracked.key.provider == name) {
        Some((_, tracked)) if id != path => content_of_batch(&shared, id, &tracked, request.headers()).await,
        Some((_, tracked)) => Ok(Json(provider_file(&shared, id, &tracked).await?).into_response()),
        None if id != path => provider_content(&account, id).await,
        None => Err(no_such_file(id)),
    }
}

/// `DELETE /v1/files/{id}`.
async fn delete(State(shared): State<Shared>, Path(path): Path<String>, query: Query) -> Answer<Json<Value>> {
    query.only(NOTHING)?;
    let file = judged(&path)?;
    if !is_own(file) {
        if results_of(file).is_none() {
            named(&shared, file).await?;
        }
        return Err(ApiError::new(
            ErrorCode::Forbidden,
            format!("`{file}` is a file of its provider's, kept there"),
        )
        .param("id")
        .hint(
            "DELETE /providers/NAME/v1/files/ID has the provider delete one, where it has OpenAI's interface",
        ));
    }
    let deletion = shared.service.store.delete_file(file.to_owned(), shared.service.clock.now()).await?;
    match deletion {
        Deletion::Deleted => Ok(Json(json!({"id": file, "object": "file", "deleted": true}))),
        Deletion::Absent => Err(no_such_file(file)),
        Deletion::InUse => Err(ApiError::new(
            ErrorCode::FileInUse,
            format!("a batch that was created from `{file}` still runs"),
        )
        .param("id")
        .hint("delete it once the batch has ended; it goes by itself `files.retain` after its last use")),
    }
}

/// `DELETE /providers/{name}/v1/files/{id}`.
async fn delete_at(
    State(shared): State<Shared>,
    Path((name, path)): Path<(String, String)>,
    query: Query,
    request: Request,
) -> Answer<Response> {
    let account = account(&shared, &name)?;
    let file = judged(&path)?;
    if is_own(file) || !is_passed_on(&account) {
        return Ok(delete(State(shared), Path(path), query).await?.into_response());
    }
    pass(&account, &format!("/files/{}", encoded(file)?), request).await
}

/// Whether `id` is one that was given out here.
pub(super) fn is_own(id: &str) -> bool {
    let digits = id.strip_prefix(OWN_PREFIX);
    digits.is_some_and(|digits| {
        digits.len() == 24 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The error for a file that is not there.
pub(super) fn no_such_file(id: &str) -> ApiError {
    let refusal = if is_own(id) {
        ApiError::new(ErrorCode::FileNotFound, format!("no such file: `{id}` was deleted, or has expired"))
            .hint("upload it again")
    } else {
        ApiError::new(ErrorCode::FileNotFound, format!("no such file: `{id}`"))
            .hint("it was not uploaded here, and no tracked batch names it")
            .hint("/providers/NAME/v1/files/ID gives any file of a provider")
    };
    refusal.param("id")
}

/// The error for a file whose content is not there. `is_shared`: other daemons have the same state.
pub(super) fn content_is_missing(id: &str, is_shared: bool) -> ApiError {
    let why = if is_shared {
        "another daemon keeps it, in a directory that this one does not have (`files.dir`), or the state was restored \
         without it"
    } else {
        "backups hold no contents of files, and this state was restored"
    };
    let missing = ApiError::new(ErrorCode::FileMissing, format!("the content of `{id}` is not here: {why}"));
    let missing = if is_shared { missing.hint("ask the daemon that took it") } else { missing };
    missing.param("id").hint("upload the file again")
}

/// A file that was uploaded here, and how it is shown.
async fn own(shared: &Shared, id: &str) -> Answer<(StoredFile, Value)> {
    let store = &shared.service.store;
    let file =
        store.file(id.to_owned(), shared.service.clock.now()).await?.ok_or_else(|| no_such_file(id))?;
    let mut object = shown(&file);
    if store.file_content(id, file.bytes).await?.is_none() {
        object["status"] = "error".into();
        object["status_details"] = content_is_missing(id, store.server().is_some()).message.into();
    }
    Ok((file, object))
}

async fn own_content(shared: &Shared, id: &str) -> Answer<Response> {
    let (store, now) = (&shared.service.store, shared.service.clock.now());
    let file = store.file(id.to_owned(), now).await?.ok_or_else(|| no_such_file(id))?;
    let missing = || content_is_missing(id, store.server().is_some());
    let content = store.file_content(id, file.bytes).await?.ok_or_else(missing)?;
    store.use_file(id.to_owned(), now).await?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/jsonl")),
        (CONTENT_LENGTH, HeaderValue::from(content.length())),
        (CONTENT_DISPOSITION, AS_A_FILE),
    ];
    Ok((headers, Body::from_stream(content.pieces())).into_response())
}

/// The one tracked batch that names the provider's `file`.
async fn named(shared: &Shared, file: &str) -> Answer<Tracked> {
    let mut named = shared.service.store.find_by_file(file.to_owned()).await?;
    named.dedup_by(|(_, a), (_, b)| a.key.provider == b.key.provider);
    if named.len() > 1 {
        let at: Vec<&str> = named.iter().map(|(_, tracked)| tracked.key.provider.as_str()).collect();
        return Err(ApiError::new(
            ErrorCode::AmbiguousId,
            format!("`{file}` is a file at several providers: {}", at.join(", ")),
        )
        .param("id")
        .hint("use /providers/NAME/v1/files for one provider's"));
    }
    named.pop().map(|(_, tracked)| tracked).ok_or_else(|| no_such_file(file))
}

/// The file object of what a tracked batch names: as its provider tells it, where that can be asked, and what follows from
/// the batch where not.
async fn provider_file(shared: &Shared, id: &str, tracked: &Tracked) -> Answer<Value> {
    let mut object = shown_of(id, tracked);
    let account = account(shared, &tracked.key.provider);
    let told = match account {
        Ok(account) if results_of(id).is_none() && is_passed_on(&account) => told_of(&account, id).await?,
        _ => None,
    };
    for (key, value) in told.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let fits = match key.as_str() {
            "bytes" | "created_at" => value.is_u64(),
            "expires_at" => value.is_u64() || value.is_null(),
            "filename" => value.is_string(),
            _ => false,
        };
        if fits {
            object[key] = value.clone();
        }
    }
    Ok(object)
}

/// What the provider tells of its file; `None`: nothing that can be read.
async fn told_of(account: &Account, id: &str) -> Answer<Option<Value>> {
    let name = account.config.name.as_str();
    let refusal = |failure: Failure| ApiError::from_results(name, &failure, id);
    let path = format!("/files/{}", encoded(id)?);
    let call = account.adapter.pass(&Method::GET, &path, None).map_err(refusal)?;
    let answer = account.open(call).await.map_err(refusal)?.into_answer(MAX_ANSWER).await;
    if !answer.status.is_success() {
        return Err(refusal(crate::provider::answer::refusal(&answer)));
    }
    let object = salvage::value(&answer.body);
    Ok(object.map(|whole| whole.get("data").filter(|data| data.is_object()).cloned().unwrap_or(whole)))
}

/// A file of results that a tracked batch names: the provider's own where that has OpenAI's interface, else the results
/// in OpenAI's form, which is what clients of that API read.
async fn content_of_batch(
    shared: &Shared,
    file: &str,
    tracked: &Tracked,
    headers: &HeaderMap,
) -> Answer<Response> {
    let account = account(shared, &tracked.key.provider)?;
    if is_passed_on(&account) || !tracked.batch.status.is_terminal() {
        return provider_content(&account, file).await;
    }
    let Batch { output_file_id, error_file_id, .. } = &tracked.batch;
    let wanted = match (output_file_id, error_file_id) {
        (Some(output), Some(_)) if output == file => Wanted::Output,
        (_, Some(errors)) if errors == file => Wanted::Failures,
        _ => Wanted::Everything,
    };
    results_in_openai_s_form(shared, &tracked.key, wanted, headers).await
}

/// A provider's file, streamed as it comes.
async fn provider_content(account: &Account, file: &str) -> Answer<Response> {
    let name = account.config.name.as_str();
    let refusal = |failure: Failure| ApiError::from_results(name, &failure, file);
    let call = account.adapter.file_content(file).map_err(refusal)?;
    let incoming = account.open(call).await.map_err(refusal)?;
    if incoming.status.is_success() {
        return Ok(passed_on(incoming));
    }
    let answer = incoming.into_answer(MAX_ANSWER).await;
    Err(refusal(crate::provider::answer::refusal(&answer)))
}

async fn results_in_openai_s_form(
    shared: &Shared,
    key: &BatchKey,
    wanted: Wanted,
    headers: &HeaderMap,
) -> Answer<Response> {
    let found: Found = shared.service.results(Some(&key.provider), &key.id, wanted, Format::OpenAi).await?;
    Ok(stream_of_lines(shared, found, headers))
}

/// OpenAI's File object of what was uploaded here.
fn shown(file: &StoredFile) -> Value {
    json!({
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at.as_second(),
        "expires_at": file.expires_at.map(jiff::Timestamp::as_second),
        "filename": file.name,
        "purpose": PURPOSE,
        "status": "processed",
        "status_details": null,
        "batchd": {"sha256": file.sha256, "owner": file.owner},
    })
}

/// The same of what a tracked batch names.
fn shown_of(id: &str, tracked: &Tracked) -> Value {
    let Batch { error_file_id, created_at, .. } = &tracked.batch;
    let is_errors = error_file_id.as_deref() == Some(id);
    let bytes = tracked.results.as_ref().filter(|_| results_of(id).is_some()).map_or(0, |saved| saved.bytes);
    let ending = if is_errors { "error" } else { "output" };
    json!({
        "id": id,
        "object": "file",
        "bytes": bytes,
        "created_at": tracked.batch.ended_at().unwrap_or(*created_at),
        "expires_at": tracked.results_expire_at.map(jiff::Timestamp::as_second),
        "filename": format!("{}_{ending}.jsonl", tracked.key.id.replace('/', "_")),
        "purpose": "batch_output",
        "status": "processed",
        "status_details": null,
    })
}

/// The file of `FILE/content`.
fn content_of(path: &str) -> Option<&str> {
    path.strip_suffix("/content").filter(|file| !file.is_empty())
}

/// The batch of `results:PROVIDER:ID`.
fn results_of(file: &str) -> Option<BatchKey> {
    let (provider, id) = file.strip_prefix("results:")?.split_once(':')?;
    Some(BatchKey { provider: provider.to_owned(), id: id.to_owned() })
}

/// What files are uploaded for.
const PURPOSE: &str = "batch";
/// The most files on a page, and as many as are given if nothing is said, as at OpenAI.
const MAX_PAGE: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_stand_for_a_file_are_known_by_their_name() {
        let key = results_of("results:gem:batches/a:b").unwrap();
        assert_eq!((key.provider.as_str(), key.id.as_str()), ("gem", "batches/a:b"));
        assert_eq!(results_of("file-1"), None);
        assert_eq!(content_of("files/x/content"), Some("files/x"));
        assert_eq!((content_of("/content"), content_of("x")), (None, None));
    }

    #[test]
    fn ids_that_were_given_out_here_are_known_by_their_form() {
        assert!(is_own("file-bd0123456789abcdef01234567"));
        for other in
            ["file-bd", "file-bd0123456789abcdef0123456", "file-bd0123456789abcdef0123456G", "file-abc"]
        {
            assert!(!is_own(other), "{other}");
        }
    }
}
