//! Discovery on request: what the providers' lists have, and tracking what has not ended.

use super::api::{DiscoverAnswer, DiscoverError, DiscoverRequest, ErrorCode, Listing};
use super::api_error::ApiError;
use super::live::Live;
use super::resolve::no_such_provider;
use super::service::Service;
use crate::domain::shape;
use crate::domain::sighting::Sighting;
use crate::domain::since;
use crate::domain::status::Status;
use crate::domain::time::earlier;
use crate::domain::tracked::BatchKey;
use crate::engine::ProviderError;
use crate::http::failure::{Failure, Verdict};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

impl Service {
    /// What the providers' lists have, newest first; with `track`, what of it has not ended is tracked.
    ///
    /// A provider whose list cannot be had keeps no other from giving its own.
    pub async fn discover(
        &self,
        request: DiscoverRequest,
        owner: Option<String>,
    ) -> Result<DiscoverAnswer, ApiError> {
        let live = self.live()?;
        let config = live.config();
        let names: Vec<&String> = match &request.provider {
            Some(name) => match config.providers.get_key_value(name) {
                Some((name, _)) => vec![name],
                None => return Err(no_such_provider(name, &config)),
            },
            None => config.providers.keys().collect(),
        };
        let since = match request.since.as_deref() {
            Some(text) => since::parse(text, self.clock.now())
                .map_err(|error| ApiError::invalid(error.to_string()).param("since"))?,
            None => earlier(self.clock.now(), DEFAULT_SINCE),
        };
        let rounds =
            names.iter().map(|name| self.discover_at(live, name, since, request.track, owner.as_deref()));
        let mut found = Vec::new();
        let mut answer = DiscoverAnswer {
            batches: Listing::whole(Vec::new(), |_| String::new()),
            tracked: 0,
            errors: Vec::new(),
        };
        for (name, round) in names.iter().zip(join_all(rounds).await) {
            match round {
                Ok((batches, tracked)) => {
                    found.extend(batches);
                    answer.tracked += tracked;
                }
                Err(refusal) => answer
                    .errors
                    .push(DiscoverError { provider: (*name).clone(), error: refusal.into_object() }),
            }
        }
        found.sort_by_key(|batch| std::cmp::Reverse(batch["created_at"].as_i64()));
        answer.batches = Listing::whole(found, |batch| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            format!("{}:{}", text(&batch["batchd"]["provider"]), text(&batch["id"]))
        });
        Ok(answer)
    }

    async fn discover_at(
        &self,
        live: &Live,
        provider: &str,
        since: Timestamp,
        track: bool,
        owner: Option<&str>,
    ) -> Result<(Vec<Value>, u64), ApiError> {
        // Whoever asks by hand is told to come again rather than left to wait for hours.
        if let Some(until) = live.engine.held_until(provider) {
            return Err(ApiError::new(
                ErrorCode::ProviderFailed,
                format!("provider `{provider}` asked for a pause until {until}"),
            ));
        }
        let refusal = |error| listing_refusal(error, provider);
        let listed = live.engine.listed(provider, since).await.map_err(refusal)?;
        let ids = listed.iter().map(|entry| entry.id.clone()).collect();
        let mut tracked = 0;
        if track {
            let known: BTreeSet<String> = self
                .store
                .providers_of(ids)
                .await?
                .into_iter()
                .filter(|(_, providers)| providers.iter().any(|name| name == provider))
                .map(|(id, _)| id)
                .collect();
            let lives = |entry: &&Sighting| !entry.status.is_some_and(Status::is_terminal);
            let new: Vec<Sighting> =
                listed.iter().filter(lives).filter(|entry| !known.contains(&entry.id)).cloned().collect();
            let registered = live.engine.track_listed(provider, &new, owner).await.map_err(refusal)?;
            tracked = registered.iter().filter(|batch| batch.new).count() as u64;
        }
        let mut batches = Vec::with_capacity(listed.len());
        for entry in &listed {
            let key = BatchKey { provider: provider.to_owned(), id: entry.id.clone() };
            batches.push(match self.store.get(key.clone()).await? {
                // As the list shows it, with what is known besides; nothing of it is stored.
                Some((_, known)) => {
                    let next_poll_at = known.next_poll_at;
                    let mut seen = live.engine.first_step(&known, entry).map_err(refusal)?.tracked;
                    seen.next_poll_at = next_poll_at;
                    shape::batch(&seen)
                }
                None => self.untracked_shape(live, &key, entry)?,
            });
        }
        Ok((batches, tracked))
    }
}

/// What kept a provider's list from coming.
fn listing_refusal(error: ProviderError, provider: &str) -> ApiError {
    match &error {
        ProviderError::Provider { failure, .. } if failure.verdict() == Verdict::Missing => ApiError::new(
            ErrorCode::NotSupported,
            format!("provider `{provider}` has no list of batches: {failure}"),
        )
        .hint("track its batches by id: `batchd track ID`"),
        ProviderError::Provider { failure, .. }
            if failure.verdict() == Verdict::Again && !matches!(failure, Failure::Unsupported(_)) =>
        {
            ApiError::new(
                ErrorCode::ProviderFailed,
                format!("provider `{provider}` did not give its list: {failure}"),
            )
        }
        _ => ApiError::from_provider(error, "a list"),
    }
}

/// How far back lists are read by default.
const DEFAULT_SINCE: Duration = Duration::from_hours(7 * 24);
