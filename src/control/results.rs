//! The results of a batch over the API: which batch, whether it has any, and the stream of them.

use super::api::{ErrorCode, trailer};
use super::api_error::ApiError;
use super::service::Service;
use crate::domain::cost::Told;
use crate::domain::outcome::Outcome;
use crate::domain::status::Status;
use crate::domain::tracked::{BatchKey, Tracked};
use crate::engine::ProviderError;
use crate::engine::merged::{Merged, family};
use crate::engine::results::{Format, Results, Shortage, Summary, Unfinished, Wanted};
use crate::http::memory;
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use std::io;
use tokio_util::sync::CancellationToken;

/// Results that have been found, and whose they are.
pub struct Found {
    pub key: BatchKey,
    /// How the batch ended.
    pub outcome: Option<Outcome>,
    /// `None`: the batch has no such results.
    pub results: Option<Source>,
}

/// Where results come from.
pub enum Source {
    /// One batch.
    One(Box<Results>),
    /// A batch and those that repeat its requests.
    Merged(Box<Merged>),
}

impl From<Results> for Source {
    fn from(results: Results) -> Self {
        Self::One(Box::new(results))
    }
}

impl Source {
    async fn next(&mut self) -> Option<Result<Bytes, Unfinished>> {
        match self {
            Self::One(results) => results.next().await,
            Self::Merged(merged) => merged.next().await,
        }
    }

    fn make_room(&mut self) {
        match self {
            Self::One(results) => results.make_room(),
            Self::Merged(merged) => merged.make_room(),
        }
    }

    fn summary(&self) -> Summary {
        match self {
            Self::One(results) => results.summary(),
            Self::Merged(merged) => merged.summary(),
        }
    }

    /// What it comes to, where that is known by the lines alone.
    fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::One(_) => None,
            Self::Merged(merged) => merged.outcome(),
        }
    }
}

impl Service {
    /// Opens the results of a batch that has ended, tracked or not.
    pub async fn results(
        &self,
        provider: Option<&str>,
        text: &str,
        wanted: Wanted,
        format: Format,
    ) -> Result<Found, ApiError> {
        let live = self.live()?;
        let key = self.understand_key(live, provider, text).await?;
        let tracked = self.ended(&key).await?;
        let outcome = tracked.outcome();
        let batch = &tracked.batch;
        if batch.status == Status::Failed && !batch.has_output() && batch.error_file_id.is_none() {
            return Err(without_results(&tracked));
        }
        let error = match live.engine.results(&key.provider, batch, wanted, format).await {
            Ok(Some(results)) => match results.shortage() {
                None => return Ok(Found { key, outcome, results: Some(results.into()) }),
                Some(shortage) => incomplete(shortage, &key.id),
            },
            Ok(None) if batch.status == Status::Completed => {
                return Ok(Found { key, outcome, results: None });
            }
            Ok(None) => return Err(without_results(&tracked)),
            Err(error) => refusal(error, &key),
        };
        let Some(copy) = self.copy(&key, &tracked, wanted, format).await else { return Err(error) };
        let (provider, batch) = (&key.provider, &key.id);
        tracing::info!(provider, batch, "giving the copy of the results: {}", error.message);
        Ok(Found { key, outcome, results: Some(copy.into()) })
    }

    /// Opens the results of a batch and of those that repeat its requests, as those of one.
    pub(super) async fn merged_results(
        &self,
        provider: Option<&str>,
        text: &str,
        wanted: Wanted,
        format: Format,
    ) -> Result<Found, ApiError> {
        if format != Format::OpenAi {
            let what = "merged results are in OpenAI's form; leave out --format raw";
            return Err(ApiError::invalid(what).param("format"));
        }
        let live = self.live()?;
        let key = self.understand_key(live, provider, text).await?;
        let all = match self.store.get(key.clone()).await? {
            Some((_, tracked)) => family(&self.store, &tracked).await?,
            None => vec![self.ended(&key).await?],
        };
        let mut ended = Vec::with_capacity(all.len());
        for one in all {
            ended.push(self.ended(&one.key).await?);
        }
        let outcome = ended.first().and_then(Tracked::outcome);
        let has_some = |tracked: &Tracked| {
            let batch = &tracked.batch;
            batch.status == Status::Completed || batch.has_output() || batch.error_file_id.is_some()
        };
        let newest = ended.first().cloned();
        ended.retain(has_some);
        if let (Some(newest), true) = (newest, ended.is_empty()) {
            return Err(without_results(&newest));
        }
        let merged = live.engine.merged_results(ended, wanted == Wanted::Failures);
        Ok(Found { key, outcome, results: Some(Source::Merged(Box::new(merged))) })
    }

    /// The copy of the results that was downloaded, if there is one and the wanted form is its own.
    async fn copy(
        &self,
        key: &BatchKey,
        tracked: &Tracked,
        wanted: Wanted,
        format: Format,
    ) -> Option<Results> {
        let saved = tracked.results.as_ref().filter(|_| format == Format::OpenAi)?;
        let live = self.live().ok()?;
        live.engine.saved_results(&key.provider, &tracked.batch, wanted, saved).await.ok()?.ok()
    }

    /// Keeps the tokens that the results of a batch tell, if nothing else has told them.
    async fn keep_usage(&self, key: BatchKey, told: Told) {
        if let Err(error) = self.store.set_usage(key, told).await {
            tracing::warn!(%error, "cannot store the token counts of the results");
        }
    }

    /// The batch, if it has ended: as it is known, or as a check shows it.
    pub(super) async fn ended(&self, key: &BatchKey) -> Result<Tracked, ApiError> {
        let live = self.live()?;
        let known = self.store.get(key.clone()).await?.map(|(_, tracked)| tracked);
        let known = match known {
            Some(tracked) if tracked.batch.status.is_terminal() && tracked.settled => return Ok(tracked),
            Some(waiting) if waiting.waiting_for.is_some() => return Err(not_ended(&waiting)),
            known => known.filter(|tracked| tracked.batch.status.is_terminal()),
        };
        // It may have ended since, or its files may have come after its end.
        let sighting = match (live.engine.retrieve(&key.provider, &key.id).await, &known) {
            (Ok(sighting), _) => sighting,
            (Err(_), Some(known)) => return Ok(known.clone()),
            (Err(error), None) => return Err(ApiError::from_provider(error, &key.id)),
        };
        let mut tracked = match known {
            Some(known) => {
                let step = live.engine.first_step(&known, &sighting);
                step.map_err(|error| ApiError::from_provider(error, &key.id))?.tracked
            }
            None => self.untracked(live, key, &sighting)?,
        };
        let told = sighting.status.filter(|status| status.is_terminal() && !sighting.revocable);
        if let (Some(told), Some(_)) = (told, tracked.held_since) {
            // Shown as live only because its files are not named yet: whoever fetches results waits for them.
            tracked.batch.status = told;
        }
        if tracked.batch.status.is_terminal() { Ok(tracked) } else { Err(not_ended(&tracked)) }
    }
}

fn not_ended(tracked: &Tracked) -> ApiError {
    let (id, status) = (&tracked.key.id, tracked.batch.status);
    let message = match &tracked.waiting_for {
        Some(waiting) => format!("batch `{id}` waits to be created: {}", waiting.reason),
        None => format!("batch `{id}` is {status}: it has no results yet"),
    };
    ApiError::new(ErrorCode::NotEnded, message).hint(format!("`batchd wait {id}` returns when it has ended"))
}

/// Why a batch that has ended has no results.
fn without_results(tracked: &Tracked) -> ApiError {
    let (batch, id) = (&tracked.batch, &tracked.key.id);
    let refusal = match batch.status {
        Status::Expired => {
            ApiError::new(ErrorCode::BatchExpired, format!("batch `{id}` expired without any results"))
        }
        Status::Cancelled => ApiError::new(
            ErrorCode::BatchCancelled,
            format!("batch `{id}` was cancelled without any results"),
        ),
        _ => {
            let errors = batch.errors.as_ref().map_or(&[][..], |errors| &errors.data);
            let why = match errors {
                [] => "its provider does not tell why".to_owned(),
                [error] => error.to_string(),
                [error, more @ ..] => format!("{error} (and {} more)", more.len()),
            };
            let refusal = ApiError::new(ErrorCode::BatchFailed, format!("batch `{id}` failed: {why}"));
            return if errors.len() > 1 {
                refusal.hint(format!("`batchd show {id}` lists all {} errors", errors.len()))
            } else {
                refusal
            };
        }
    };
    if batch.error_file_id.is_some() {
        return refusal.hint(format!("`batchd results --errors {id}` gives the requests that failed"));
    }
    refusal
}

/// Results that are fewer than there should be.
pub(super) fn incomplete(shortage: &Shortage, id: &str) -> ApiError {
    ApiError::new(
        ErrorCode::ResultsIncomplete,
        format!("the results of `{id}` are not complete: {shortage}"),
    )
    .hint("they were fetched twice; they can be fetched again at any time, as some services are late with them")
}

/// What kept the results of `key` from coming.
fn refusal(error: ProviderError, key: &BatchKey) -> ApiError {
    match error {
        ProviderError::Provider { provider, failure } => ApiError::from_results(&provider, &failure, &key.id),
        other => ApiError::from_provider(other, &key.id),
    }
}

/// The results as the body of an answer.
///
/// `trailers`: the client reads what stands behind a body, so a failure is told there; to others the connection breaks.
pub(super) fn body(service: Service, found: Found, trailers: bool, stopping: CancellationToken) -> Body {
    Body::new(StreamBody::new(frames(service, found, trailers, stopping)))
}

/// The header that announces what stands behind the body.
pub(super) fn announced() -> (HeaderName, HeaderValue) {
    let names = [
        trailer::ERROR,
        trailer::LINES,
        trailer::FAILED,
        trailer::UNREADABLE,
        trailer::WITHOUT_ID,
        trailer::OUTCOME,
    ]
    .join(", ");
    (http::header::TRAILER, HeaderValue::try_from(names).unwrap_or(HeaderValue::from_static("")))
}

fn frames(
    service: Service,
    found: Found,
    trailers: bool,
    stopping: CancellationToken,
) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static {
    enum Stage {
        Going(Option<Source>),
        /// A long piece waits on disk for its reader, who may be slow.
        Spooled(BoxStream<'static, io::Result<Bytes>>, Source),
        Over,
    }
    let Found { key, outcome, results } = found;
    stream::unfold(Stage::Going(results), move |stage| {
        let (service, key, stopping) = (service.clone(), key.clone(), stopping.clone());
        async move {
            let mut results = match stage {
                Stage::Going(results) => results,
                Stage::Spooled(mut pieces, results) => match pieces.next().await {
                    Some(Ok(piece)) => {
                        return Some((Ok(Frame::data(piece)), Stage::Spooled(pieces, results)));
                    }
                    Some(Err(error)) => return Some((Err(error), Stage::Over)),
                    None => Some(results),
                },
                Stage::Over => return None,
            };
            let piece = match &mut results {
                Some(results) => tokio::select! {
                    biased;
                    () = stopping.cancelled() => {
                        let refusal = ApiError::new(ErrorCode::Unavailable, "the daemon is stopping");
                        return Some((behind(trailers, &refusal), Stage::Over));
                    }
                    piece = results.next() => piece,
                },
                None => None,
            };
            match piece {
                Some(Ok(bytes)) if bytes.len() > memory::SMALL => {
                    let spooled = match service.store.set_aside(bytes).await {
                        Ok(spooled) => spooled,
                        Err(error) => return Some((behind(trailers, &error.into()), Stage::Over)),
                    };
                    let mut results = results?;
                    results.make_room();
                    Some((Ok(Frame::data(Bytes::new())), Stage::Spooled(spooled.pieces(), results)))
                }
                Some(Ok(bytes)) => Some((Ok(Frame::data(bytes)), Stage::Going(results))),
                Some(Err(unfinished)) => {
                    let (provider, batch) = (&key.provider, &key.id);
                    tracing::warn!(
                        provider,
                        batch,
                        "the results of {key} could not be fetched completely: {unfinished}"
                    );
                    let refusal = match unfinished {
                        Unfinished::Failed(failure) => ApiError::from_results(provider, &failure, batch),
                        Unfinished::Short(shortage) => incomplete(&shortage, batch),
                    };
                    Some((behind(trailers, &refusal), Stage::Over))
                }
                None => {
                    let summary = results.as_ref().map(Source::summary).unwrap_or_default();
                    log_flaws(&key, &summary);
                    let outcome = results.as_ref().and_then(Source::outcome).or(outcome);
                    let trailers = told(&summary, outcome);
                    if let Some(told) = summary.told {
                        service.keep_usage(key, told).await;
                    }
                    Some((Ok(Frame::trailers(trailers)), Stage::Over))
                }
            }
        }
    })
}

/// What stands behind the body of results that are complete.
fn told(summary: &Summary, outcome: Option<Outcome>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert(trailer::LINES, summary.lines.into());
    if let Some(failed) = summary.failed {
        fields.insert(trailer::FAILED, failed.into());
    }
    fields.insert(trailer::UNREADABLE, summary.unreadable.into());
    fields.insert(trailer::WITHOUT_ID, summary.without_id.into());
    if let Some(outcome) = outcome {
        fields.insert(trailer::OUTCOME, HeaderValue::from_static(outcome.as_str()));
    }
    fields
}

/// Says in the log what was wrong with lines that were given all the same.
fn log_flaws(key: &BatchKey, summary: &Summary) {
    let (provider, batch) = (&key.provider, &key.id);
    if summary.unreadable > 0 {
        tracing::warn!(
            provider,
            batch,
            lines = summary.unreadable,
            "some lines of the results of {key} cannot be read"
        );
    }
    if summary.without_id > 0 {
        tracing::warn!(
            provider,
            batch,
            lines = summary.without_id,
            "some lines of the results of {key} do not say which request they answer"
        );
    }
}

/// A failure behind the body, or in its place.
fn behind(trailers: bool, refusal: &ApiError) -> io::Result<Frame<Bytes>> {
    if !trailers {
        return Err(io::Error::other(refusal.message.clone()));
    }
    // A header's value is ASCII here: what is not is escaped, as JSON can.
    let text = serde_json::to_string(&refusal.clone().into_object()).unwrap_or_default();
    let mut ascii = String::new();
    for c in text.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            let mut units = [0; 2];
            ascii.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    let mut fields = HeaderMap::new();
    fields.insert(trailer::ERROR, HeaderValue::try_from(ascii).unwrap_or(HeaderValue::from_static("{}")));
    Ok(Frame::trailers(fields))
}
