//! Creating batches as clients of OpenAI's API do: from a file that was uploaded, here or at a provider
//! (`docs/contract.md#creating-batches`).

use super::access::Access;
use super::api::{ErrorCode, TrackItem};
use super::api_error::ApiError;
use super::creating::same_request;
use super::files::{content_is_missing, is_own, no_such_file};
use super::passthrough::{account, is_passed_on, passed_on};
use super::query::{NOTHING, waits_for_quota};
use super::resolve::no_such_provider;
use super::respond::{Answer, Shared, owner};
use super::routes::Route;
use super::submit::{SubmitOptions, refusal};
use super::upload::EXPIRY;
use crate::config::Config;
use crate::domain::shape;
use crate::domain::tracked::{BatchKey, Lineage};
use crate::engine::passed_on::{Answered, PassedOn};
use crate::provider::input_checker::Overrides;
use crate::provider::model_prefix::{ModelPrefix, prefix_of};
use crate::store::creations::Asked;
use crate::store::files::StoredFile;
use crate::store::spool::Spooled;
use crate::tasks::in_place;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, routing};
use futures_util::StreamExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// The routes that create batches.
pub(super) fn routes() -> Vec<Route> {
    let (anywhere, at_one) = ("/v1/batches", "/providers/{name}/v1/batches");
    vec![
        Route::new(Method::POST, anywhere, Access::Changes, routing::post(create)).query(NOTHING),
        Route::new(Method::POST, at_one, Access::Changes, routing::post(create_at)).query(NOTHING),
    ]
}

/// `POST /v1/batches`.
async fn create(State(shared): State<Shared>, request: Request) -> Answer<Response> {
    Creation::read(&shared, None, request).await?.answer().await
}

/// `POST /providers/{name}/v1/batches`.
async fn create_at(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Answer<Response> {
    account(&shared, &name)?;
    Creation::read(&shared, Some(name), request).await?.answer().await
}

/// A batch that is asked for.
struct Creation<'a> {
    shared: &'a Shared,
    /// The provider that the path names.
    at: Option<String>,
    headers: HeaderMap,
    owner: Option<String>,
    body: Bytes,
    object: Map<String, Value>,
    input_file: String,
}

/// What may stand in the body where the batch is created from a file that is kept here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    endpoint: Option<String>,
    completion_window: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    output_expires_after: Option<ExpiresAfter>,
    model: Option<String>,
    name: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    notify: Option<BTreeSet<String>>,
    no_notify: Option<bool>,
    deadline: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpiresAfter {
    anchor: String,
    seconds: u64,
}

/// The keys of [`Wanted`], and those that are read before.
const KEYS: [&str; 12] = [
    "input_file_id",
    "provider",
    "endpoint",
    "completion_window",
    "metadata",
    "output_expires_after",
    "model",
    "name",
    "labels",
    "notify",
    "no_notify",
    "deadline",
];

impl<'a> Creation<'a> {
    async fn read(shared: &'a Shared, at: Option<String>, request: Request) -> Result<Self, ApiError> {
        let owner = owner(request.extensions());
        let headers = request.headers().clone();
        let body = axum::body::to_bytes(request.into_body(), MAX_BODY).await.map_err(|error| {
            ApiError::invalid(format!("the body cannot be read, or is longer than {MAX_BODY} bytes: {error}"))
        })?;
        let object: Map<String, Value> = serde_json::from_slice(&body)
            .map_err(|error| ApiError::invalid(format!("invalid body: {error}")).param("body"))?;
        let input_file = match object.get("input_file_id") {
            Some(Value::String(id)) if !id.is_empty() => id.clone(),
            _ => {
                let what = "`input_file_id` is the id of an uploaded file, and there must be one";
                return Err(ApiError::invalid(what).param("input_file_id"));
            }
        };
        Ok(Self { shared, at, headers, owner, body, object, input_file })
    }

    /// Creates the batch, unless it was created already because the client asked before.
    async fn answer(self) -> Answer<Response> {
        let live = self.shared.service.live()?;
        let asked = self.asked()?;
        let is_retry = asked.key.is_none() && self.is_retry();
        let _turn = live.creating.begin(&asked, is_retry, &self.shared.stopping).await?;
        if (asked.key.is_some() || is_retry)
            && let Some(batch) = self.before(&asked).await?
        {
            return Ok(shown(batch));
        }
        if is_own(&self.input_file) {
            return self.create_from_own(asked).await;
        }
        self.create_at_provider(asked).await
    }

    /// What tells this creation from another: the key, and all that decides what is created.
    fn asked(&self) -> Result<Asked, ApiError> {
        let key = match self.headers.get("idempotency-key").map(HeaderValue::as_bytes) {
            None | Some(b"") => None,
            Some(key) if key.len() <= MAX_KEY => Some(String::from_utf8_lossy(key).into_owned()),
            Some(_) => {
                let what = format!("an Idempotency-Key has at most {MAX_KEY} bytes");
                return Err(ApiError::invalid(what).param("Idempotency-Key"));
            }
        };
        let mut digest = Sha256::new();
        for part in [self.at.as_deref().unwrap_or_default(), self.named_by_header()?.unwrap_or_default()] {
            digest.update(part);
            digest.update([0]);
        }
        digest.update(sorted(&Value::Object(self.object.clone())).to_string());
        Ok(Asked { key, request: data_encoding::HEXLOWER.encode(&digest.finalize()) })
    }

    /// Whether the client's SDK says that it sends this again.
    fn is_retry(&self) -> bool {
        let count = self.headers.get("x-stainless-retry-count").and_then(|count| count.to_str().ok());
        count.and_then(|count| count.trim().parse::<u32>().ok()).is_some_and(|count| count > 0)
    }

    /// The batch that was created when the client asked before, if it did. Where it is not known yet whether there is one,
    /// that is waited for.
    async fn before(&self, asked: &Asked) -> Result<Option<Value>, ApiError> {
        let service = &self.shared.service;
        let begun = Instant::now();
        loop {
            let before = service.store.asked_before(asked.clone(), service.clock.now()).await?;
            let Some(before) = before else { return Ok(None) };
            same_request(asked, &before.request)?;
            if let Some(key) = before.batch {
                return self.known(&key).await.map(Some);
            }
            if begun.elapsed() >= SETTLED_WITHIN || self.shared.stopping.is_cancelled() {
                return Err(ApiError {
                    retry_after: Some(RETRY_AFTER),
                    ..ApiError::new(
                        ErrorCode::CreationInProgress,
                        "this batch was asked for before, and it is not known yet whether the provider created it",
                    )
                }
                .hint("ask again; batchd searches the provider's list for it and never creates it twice"));
            }
            tokio::select! {
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
                () = self.shared.stopping.cancelled() => {}
            }
        }
    }

    /// A batch that was created before, as it is now.
    async fn known(&self, key: &BatchKey) -> Result<Value, ApiError> {
        let service = &self.shared.service;
        match service.store.get(key.clone()).await? {
            Some((_, tracked)) => Ok(service.shown(&tracked)),
            // Its history was deleted here.
            None => service.fetch(Some(&key.provider), &key.id).await,
        }
    }

    /// Creates it from a file that is kept here.
    async fn create_from_own(self, asked: Asked) -> Answer<Response> {
        let service = &self.shared.service;
        let (store, now, id) = (&service.store, service.clock.now(), self.input_file.clone());
        let of_input = |refusal: ApiError| refusal.param("input_file_id");
        let file = store.file(id.clone(), now).await?.ok_or_else(|| of_input(no_such_file(&id)))?;
        let content = store.file_content(&id, file.bytes).await?;
        let content = content.ok_or_else(|| of_input(content_is_missing(&id, store.server().is_some())))?;
        let wait = self.waits()?;
        let options = self.options(file, &content, asked).await?;
        let options = SubmitOptions { wait_for_quota: wait, ..options };
        store.use_file(id, now).await?;
        let submitted = service.submit_uploaded(options, self.owner.clone(), &content).await;
        let (registered, warnings) = submitted.map_err(asked_too_much)?;
        let mut batch = shape::batch(&registered.tracked);
        if !warnings.is_empty() {
            batch["batchd"]["warnings"] = warnings.into();
        }
        Ok(shown(batch))
    }

    /// What is to be submitted.
    async fn options(
        &self,
        file: StoredFile,
        content: &Spooled,
        asked: Asked,
    ) -> Result<SubmitOptions, ApiError> {
        if let Some(key) = self.object.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(ApiError::invalid(format!("unknown key `{key}`")).param(key));
        }
        let wanted: Wanted = serde_json::from_value(Value::Object(self.object.clone()))
            .map_err(|error| ApiError::invalid(format!("invalid body: {error}")).param("body"))?;
        let output_expires_after = match &wanted.output_expires_after {
            None => None,
            Some(ExpiresAfter { anchor, .. }) if anchor != "created_at" => {
                return Err(ApiError::invalid("the anchor is `created_at`").param("output_expires_after"));
            }
            Some(ExpiresAfter { seconds, .. }) if !EXPIRY.contains(seconds) => {
                let (least, most) = (EXPIRY.start(), EXPIRY.end());
                let what = format!("the output expires after {least} to {most} seconds");
                return Err(ApiError::invalid(what).param("output_expires_after"));
            }
            Some(ExpiresAfter { seconds, .. }) => Some(*seconds),
        };
        let (provider, model_prefix) = self.choose(wanted.model.as_deref(), content).await?;
        Ok(SubmitOptions {
            provider: Some(provider),
            overrides: Overrides { endpoint: wanted.endpoint, model: wanted.model, model_prefix },
            completion_window: wanted.completion_window,
            metadata: wanted.metadata.unwrap_or_default(),
            output_expires_after,
            params: Map::new(),
            file_name: Some(file.name),
            uploaded_file: Some(file.id),
            asked: Some(asked),
            wait_for_quota: false,
            split: false,
            options: TrackItem {
                name: wanted.name,
                labels: wanted.labels.unwrap_or_default(),
                notify: wanted.notify.unwrap_or_default(),
                no_notify: wanted.no_notify.unwrap_or_default(),
                deadline: wanted.deadline,
                ..TrackItem::default()
            },
        })
    }

    /// The provider, and what is taken off the models.
    async fn choose(
        &self,
        model: Option<&str>,
        content: &Spooled,
    ) -> Result<(String, Option<String>), ApiError> {
        let live = self.shared.service.live()?;
        let config = live.config();
        if let Some(name) = self.named(&config)? {
            // Where all models are one company's, no model's own name begins with the provider's.
            let account = account(self.shared, &name)?;
            let prefix = account.adapter.models_of().map(|_| name.clone());
            return Ok((name, prefix));
        }
        let prefix = match model {
            Some(model) => prefix_of(model).map(str::to_owned),
            None => shared_prefix(content).await?,
        };
        if let Some(name) = prefix.as_ref().filter(|name| config.providers.contains_key(*name)) {
            return Ok((name.clone(), Some(name.clone())));
        }
        let able = self.able(&config);
        if let [only] = able.as_slice() {
            return Ok((only.clone(), None));
        }
        Err(undecided(&able, prefix.as_deref()))
    }

    /// The provider that the request names.
    fn named(&self, config: &Config) -> Result<Option<String>, ApiError> {
        if let Some(name) = &self.at {
            return Ok(Some(name.clone()));
        }
        let (name, param) = match self.object.get("provider") {
            None | Some(Value::Null) => (self.named_by_header()?, "x-batchd-provider"),
            Some(Value::String(name)) => (Some(name.as_str()), "provider"),
            Some(_) => return Err(ApiError::invalid("the provider's name is a text").param("provider")),
        };
        match name {
            None => Ok(None),
            Some(name) if config.providers.contains_key(name) => Ok(Some(name.to_owned())),
            Some(name) => Err(no_such_provider(name, config).param(param)),
        }
    }

    fn named_by_header(&self) -> Result<Option<&str>, ApiError> {
        let Some(name) = self.headers.get("x-batchd-provider") else { return Ok(None) };
        let name = name.to_str().map_err(|_| {
            ApiError::invalid("the name of the provider is no text").param("x-batchd-provider")
        })?;
        Ok(Some(name.trim()).filter(|name| !name.is_empty()))
    }

    /// The configured providers that batches can be created at.
    fn able(&self, config: &Config) -> Vec<String> {
        let can_submit = |name: &&String| {
            account(self.shared, name).is_ok_and(|account| {
                let adapter = account.adapter.as_ref();
                adapter.intake(adapter.default_endpoint()).is_ok()
            })
        };
        config.providers.keys().filter(can_submit).cloned().collect()
    }

    /// Creates it from a file of the provider's own: the request is passed on.
    async fn create_at_provider(mut self, asked: Asked) -> Answer<Response> {
        let config = self.shared.service.live()?.config();
        let unknown = |id: &str| no_such_file(id).param("input_file_id");
        let provider = match self.named(&config)? {
            Some(name) => name,
            None => match self.able(&config).as_slice() {
                [only] => only.clone(),
                _ => {
                    return Err(unknown(&self.input_file)
                        .hint("name the provider whose file it is, if it was uploaded there"));
                }
            },
        };
        let account = account(self.shared, &provider)?;
        if !is_passed_on(&account) {
            return Err(unknown(&self.input_file));
        }
        let body = if self.object.remove("provider").is_some() {
            Value::Object(self.object.clone()).to_string()
        } else {
            String::from_utf8_lossy(&self.body).into_owned()
        };
        let kind = self.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let text = |key: &str| self.object.get(key).and_then(Value::as_str).map(str::to_owned);
        let metadata = self.object.get("metadata").cloned();
        let creation = PassedOn {
            provider: provider.clone(),
            body,
            content_type: kind.unwrap_or("application/json").to_owned(),
            input_file: self.input_file.clone(),
            endpoint: text("endpoint"),
            metadata: metadata.and_then(|entries| serde_json::from_value(entries).ok()).unwrap_or_default(),
            owner: self.owner.clone(),
            lineage: Lineage::default(),
            asked: Some(asked),
            answered: Answered::default(),
        };
        let answered = creation.answered.clone();
        let engine = &self.shared.service.live()?.engine;
        let created = if self.waits()? {
            Box::pin(engine.pass_on_or_wait(creation)).await
        } else {
            Box::pin(engine.pass_on(creation)).await
        };
        match created {
            Ok(registered) => Ok(shown(shape::batch(&registered.tracked))),
            Err(error) => match answered.take() {
                Some(answer) => Ok(passed_on(answer.into())),
                None => Err(refusal(error, &provider, &self.input_file)),
            },
        }
    }

    /// Whether it waits if the provider takes no more for now.
    fn waits(&self) -> Result<bool, ApiError> {
        let word = self.headers.get("x-batchd-wait").map(|word| word.to_str().unwrap_or_default());
        waits_for_quota(word, "x-batchd-wait")
    }
}

/// A batch as the answer; one that waits to be created is accepted, and no more.
fn shown(batch: Value) -> Response {
    let waits = !batch["batchd"]["waiting_for"].is_null();
    (if waits { StatusCode::ACCEPTED } else { StatusCode::OK }, Json(batch)).into_response()
}

/// What the provider does not have is a fault of the request here: clients of OpenAI's API ask again after any 5xx.
fn asked_too_much(error: ApiError) -> ApiError {
    match error.code {
        ErrorCode::NotSupported => ApiError { code: ErrorCode::InvalidRequest, ..error },
        _ => error,
    }
}

/// The error for a request that does not tell which provider is meant.
fn undecided(able: &[String], prefix: Option<&str>) -> ApiError {
    if able.is_empty() {
        return ApiError::invalid("no configured provider can create batches").param("provider");
    }
    let names = able.join(", ");
    let prefix = prefix
        .map(|prefix| format!(" (the models begin with `{prefix}/`, and no provider has that name)"))
        .unwrap_or_default();
    let message = format!(
        "several providers can create this batch, and the request does not say which{prefix}: {names}"
    );
    ApiError::invalid(message).param("provider").hint(
        "name one by `provider` in the body, the header x-batchd-provider, or models such as `NAME/MODEL`",
    )
}

/// The prefix that the models of all requests share.
async fn shared_prefix(content: &Spooled) -> Result<Option<String>, ApiError> {
    let mut reader = ModelPrefix::default();
    let mut pieces = content.pieces();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(crate::store::StoreError::from)?;
        if !in_place(piece.len(), || reader.push(&piece)) {
            return Ok(None);
        }
    }
    Ok(reader.finish())
}

/// `value` with the keys of all objects in one order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let entries: BTreeMap<&String, Value> =
                object.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(entries.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(values) => values.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// The longest body, in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// The longest key, in bytes.
const MAX_KEY: usize = 255;
/// For how long it is waited until it is known what became of a creation whose answer was lost.
const SETTLED_WITHIN: Duration = Duration::from_secs(45);
/// Between two checks whether it is known.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// When a client is to ask again.
const RETRY_AFTER: Duration = Duration::from_secs(10);
