//! The batches of one provider, tracked or not, in the one shape: read through the adapter of every kind.

use super::access::Access;
use super::api::{ErrorCode, Listing};
use super::api_error::ApiError;
use super::passthrough::{account, refused};
use super::query::{NOTHING, Query};
use super::resolve::judged;
use super::respond::{Answer, Shared};
use super::routes::Route;
use crate::domain::shape;
use crate::domain::tracked::BatchKey;
use crate::domain::walk::{Onward, Walk};
use crate::http::failure::Failure;
use crate::provider::PageRequest;
use axum::extract::{Path, State};
use axum::{Json, routing};
use http::Method;
use serde_json::Value;

/// How many pages of a provider's list are read for one page of ours.
const MAX_PAGES: usize = 10;

/// The routes of one provider's batches; they are created in `creation`.
pub(super) fn of_providers() -> Vec<Route> {
    let (many, one) = ("/providers/{name}/v1/batches", "/providers/{name}/v1/batches/{*batch}");
    vec![
        Route::new(Method::GET, many, Access::Costs, routing::get(batches)).query(&["after", "limit"]),
        Route::new(Method::GET, one, Access::Costs, routing::get(batch)).query(NOTHING),
        Route::new(Method::POST, one, Access::Changes, routing::post(cancel)).query(NOTHING),
    ]
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
    let batch = shared.service.fetch(Some(&name), judged(&id)?).await?;
    // Its files are found by the tracked batch that names them, so an end that shows here is recorded before it is told.
    if let (Some(id), Some(file)) = (batch["id"].as_str(), batch["output_file_id"].as_str())
        && !batch["batchd"]["tracked_at"].is_null()
        && shared.service.store.find_by_file(file.to_owned()).await?.is_empty()
        && let Err(error) = shared.service.poll(&format!("{name}:{id}")).await
    {
        tracing::debug!(provider = name, batch = id, "cannot record what a check has shown: {error}");
    }
    Ok(Json(batch))
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
