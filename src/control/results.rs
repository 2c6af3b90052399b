//! The results of a batch over the API: which batch, whether it has any, and the stream of them.

use super::api::{ErrorCode, trailer};
use super::api_error::ApiError;
use super::service::Service;
use crate::domain::batch::Usage;
use crate::domain::tracked::{BatchKey, Tracked};
use crate::engine::ProviderError;
use crate::engine::results::{Format, Results, Wanted};
use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use std::io;
use tokio_util::sync::CancellationToken;

/// Results that have been found, and whose they are.
pub struct Found {
    pub key: BatchKey,
    /// `None`: the batch has no such results.
    pub results: Option<Results>,
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
        match live.engine.results(&key.provider, &tracked.batch, wanted, format).await {
            Ok(results) => Ok(Found { key, results }),
            Err(error) => match self.copy(&key, &tracked, wanted, format).await {
                Some(results) => {
                    tracing::info!(
                        provider = key.provider,
                        batch = key.id,
                        "serving the downloaded copy of the results: {error}"
                    );
                    Ok(Found { key, results: Some(results) })
                }
                None => Err(refusal(error, &key)),
            },
        }
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
        live.engine.saved_results(&key.provider, &tracked.batch, wanted, &saved.path).await.ok()?.ok()
    }

    /// Keeps the tokens that the results of a batch tell, if nothing else has told them.
    async fn keep_usage(&self, key: BatchKey, usage: Usage) {
        if let Err(error) = self.store.set_usage(key, usage).await {
            tracing::warn!(%error, "cannot store the token counts of the results");
        }
    }

    /// The batch, if it has ended: as it is known, or as a check shows it.
    async fn ended(&self, key: &BatchKey) -> Result<Tracked, ApiError> {
        let live = self.live()?;
        let known = self.store.get(key.clone()).await?.map(|(_, tracked)| tracked);
        if let Some(tracked) = known.filter(|tracked| tracked.batch.status.is_terminal() && tracked.settled) {
            return Ok(tracked);
        }
        // It may have ended since, or its files may have come after its end.
        let seen = live.engine.retrieve(&key.provider, &key.id).await;
        let sighting = seen.map_err(|error| ApiError::from_provider(error, &key.id))?;
        let tracked = self.untracked(live, key, &sighting)?;
        let status = tracked.batch.status;
        if status.is_terminal() {
            return Ok(tracked);
        }
        Err(ApiError::new(
            ErrorCode::NotEnded,
            format!("batch `{}` is {status}: it has no results yet", key.id),
        )
        .hint(format!("`batchd wait {}` returns when it has ended", key.id)))
    }
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
    let names = [trailer::ERROR, trailer::LINES, trailer::FAILED].join(", ");
    (http::header::TRAILER, HeaderValue::try_from(names).unwrap_or(HeaderValue::from_static("")))
}

fn frames(
    service: Service,
    found: Found,
    trailers: bool,
    stopping: CancellationToken,
) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static {
    enum Stage {
        Going(Option<Box<Results>>),
        Over,
    }
    let Found { key, results } = found;
    stream::unfold(Stage::Going(results.map(Box::new)), move |stage| {
        let (service, key, stopping) = (service.clone(), key.clone(), stopping.clone());
        async move {
            let Stage::Going(mut results) = stage else { return None };
            let piece = match &mut results {
                Some(results) => tokio::select! {
                    piece = results.next() => piece,
                    () = stopping.cancelled() => {
                        let refusal = ApiError::new(ErrorCode::Unavailable, "the daemon is stopping");
                        return Some((behind(trailers, &refusal), Stage::Over));
                    }
                },
                None => None,
            };
            match piece {
                Some(Ok(bytes)) => Some((Ok(Frame::data(bytes)), Stage::Going(results))),
                Some(Err(failure)) => {
                    let (provider, batch) = (&key.provider, &key.id);
                    tracing::warn!(
                        provider,
                        batch,
                        "the results of {key} could not be fetched completely: {failure}"
                    );
                    let refusal = ApiError::from_results(provider, &failure, batch);
                    Some((behind(trailers, &refusal), Stage::Over))
                }
                None => {
                    let summary = results.as_ref().map(|results| results.summary()).unwrap_or_default();
                    if let Some(usage) = summary.usage {
                        service.keep_usage(key, usage).await;
                    }
                    let mut fields = HeaderMap::new();
                    fields.insert(trailer::LINES, summary.lines.into());
                    if let Some(failed) = summary.failed {
                        fields.insert(trailer::FAILED, failed.into());
                    }
                    Some((Ok(Frame::trailers(fields)), Stage::Over))
                }
            }
        }
    })
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
