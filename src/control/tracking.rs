//! The operations on batches that a running daemon does: track, untrack, check, poll.

use super::api::{ErrorCode, PollAnswer, TrackAnswer, TrackItem};
use super::api_error::ApiError;
use super::live::Live;
use super::resolve::{self, MAX_TEXT, candidates, is_an_id, no_such_provider};
use super::service::Service;
use crate::config::Config;
use crate::domain::duration;
use crate::domain::outcome::Outcome;
use crate::domain::shape;
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use crate::domain::time::later;
use crate::domain::tracked::{BatchKey, Origin, Tracked, is_submission};
use crate::domain::user_fields::UserFields;
use crate::store::recording::{Registered, Registration};
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

/// Up to this many at once, batches are checked before they are registered, unless the caller says otherwise.
const MAX_CHECKED: usize = 100;
/// Checks for one request that run at the same time.
const MAX_CONCURRENT_CHECKS: usize = 16;

/// One batch to track, its id understood and its options judged.
struct Wanted {
    key: BatchKey,
    known: bool,
    user_fields: UserFields,
    check: bool,
}

impl Service {
    /// Registers one batch; the flag says whether it was new.
    pub async fn track(&self, item: TrackItem, owner: Option<String>) -> Result<(Value, bool), ApiError> {
        let mut registered = self.register(vec![item], owner).await?;
        match registered.pop() {
            Some(Ok(one)) => Ok((shape::batch(&one.tracked), one.new)),
            Some(Err(refusal)) => Err(refusal),
            None => Err(ApiError::new(ErrorCode::Internal, "nothing was registered")),
        }
    }

    /// Registers many in one transaction, each by itself: an answer an item, in their order.
    pub async fn track_many(
        &self,
        items: Vec<TrackItem>,
        owner: Option<String>,
    ) -> Result<Vec<TrackAnswer>, ApiError> {
        let ids: Vec<String> = items.iter().map(|item| item.id.clone()).collect();
        let registered = self.register(items, owner).await?;
        Ok(ids
            .into_iter()
            .zip(registered)
            .map(|(id, one)| match one {
                Ok(Registered { tracked, new, .. }) => TrackAnswer {
                    id: tracked.key.id,
                    provider: Some(tracked.key.provider),
                    status: Some(tracked.batch.status),
                    new,
                    error: None,
                },
                Err(refusal) => TrackAnswer {
                    id,
                    provider: None,
                    status: None,
                    new: false,
                    error: Some(refusal.into_object()),
                },
            })
            .collect())
    }

    async fn register(
        &self,
        items: Vec<TrackItem>,
        owner: Option<String>,
    ) -> Result<Vec<Result<Registered, ApiError>>, ApiError> {
        let live = self.live()?;
        let config = live.config();
        let now = self.clock.now();
        let check = items.len() <= MAX_CHECKED;
        let known = self
            .store
            .providers_of(items.iter().flat_map(|item| possible_ids(live, &item.id)).collect())
            .await?;

        let wanted: Vec<Result<Wanted, ApiError>> =
            items.into_iter().map(|item| understand(item, live, &config, &known, check, now)).collect();
        let mut checked = stream::iter(wanted)
            .map(|wanted| async {
                let wanted = wanted?;
                self.prepare(live, wanted, owner.clone(), now).await
            })
            .buffered(MAX_CONCURRENT_CHECKS);
        let mut registrations = Vec::new();
        let mut answers = Vec::new();
        while let Some(prepared) = checked.next().await {
            answers.push(match prepared {
                Ok(registration) => {
                    registrations.push(registration);
                    Ok(())
                }
                Err(refusal) => Err(refusal),
            });
        }
        drop(checked);

        let registered = self.store.register(registrations, live.routes()).await?;
        live.engine.log_ends(&registered);
        for one in registered.iter().filter(|one| one.new) {
            let key = &one.tracked.key;
            tracing::info!(provider = key.provider, batch = key.id, status = %one.tracked.batch.status, "tracking {key}");
        }
        let mut registered = registered.into_iter();
        Ok(answers
            .into_iter()
            .map(|answer| {
                answer.and_then(|()| {
                    registered
                        .next()
                        .ok_or_else(|| ApiError::new(ErrorCode::Internal, "a batch was not registered"))
                })
            })
            .collect())
    }

    async fn prepare(
        &self,
        live: &Live,
        wanted: Wanted,
        owner: Option<String>,
        now: Timestamp,
    ) -> Result<Registration, ApiError> {
        let Wanted { key, known, user_fields, check } = wanted;
        let unseen = live.engine.unseen(&key, Origin::Hand, now);
        let mut tracked = unseen.map_err(|error| ApiError::from_provider(error, &key.id))?;
        tracked.owner = owner;
        user_fields.apply(&mut tracked);
        let first_look = if check && !known {
            let sighting = live.engine.retrieve(&key.provider, &key.id).await.map_err(|error| {
                let refusal = ApiError::from_provider(error, &key.id);
                if refusal.code == ErrorCode::ProviderFailed {
                    refusal.hint("--no-check tracks it without asking the provider first")
                } else {
                    refusal
                }
            })?;
            let refusal = |error| ApiError::from_provider(error, &key.id);
            Some(live.engine.first_step(&tracked, &sighting).map_err(refusal)?)
        } else {
            None
        };
        Ok(Registration { tracked, first_look, user_fields })
    }

    /// Checks any batch of a configured provider once, tracked or not; changes nothing.
    pub async fn fetch(&self, provider: Option<&str>, text: &str) -> Result<Value, ApiError> {
        let live = self.live()?;
        let key = self.understand_key(live, provider, text).await?;
        // Its provider knows nothing of a submission, whether it waits or has come to nothing.
        if is_submission(&key.id)
            && let Some((_, tracked)) = self.store.get(key.clone()).await?
        {
            return Ok(self.shown(&tracked));
        }
        let refusal = |error| ApiError::from_provider(error, &key.id);
        let sighting = live.engine.retrieve(&key.provider, &key.id).await.map_err(refusal)?;
        let Some((_, before)) = self.store.get(key.clone()).await? else {
            return self.untracked_shape(live, &key, &sighting);
        };
        let next_poll_at = before.next_poll_at;
        let mut seen = live.engine.first_step(&before, &sighting).map_err(refusal)?.tracked;
        // Nothing is changed, so nothing is planned either.
        seen.next_poll_at = next_poll_at;
        Ok(shape::batch(&seen))
    }

    /// Asks the provider to cancel a batch, tracked or not, and gives it as it then is.
    pub async fn cancel(&self, provider: Option<&str>, text: &str) -> Result<Value, ApiError> {
        let live = self.live()?;
        let key = self.understand_key(live, provider, text).await?;
        let tracked = self.store.get(key.clone()).await?;
        if let Some((_, tracked)) = &tracked
            && let Some(outcome) = tracked.outcome()
        {
            return Err(already_ended(&key, tracked.batch.status, outcome));
        }
        if let Some((pk, waiting)) = tracked.as_ref().filter(|(_, tracked)| tracked.waiting_for.is_some()) {
            return self.cancel_waiting(*pk, waiting).await;
        }
        let refusal = |error| ApiError::from_provider(error, &key.id);
        let seen = match live.engine.cancel(&key.provider, &key.id).await {
            Ok(seen) => seen,
            Err(error) => {
                // Services say in many ways that it is too late; what the batch has become says it in one.
                let ended = self.fetch(Some(&key.provider), &key.id).await.ok().and_then(|batch| {
                    let outcome =
                        serde_json::from_value::<Outcome>(batch["batchd"]["outcome"].clone()).ok()?;
                    Some((batch["status"].as_str()?.parse::<Status>().ok()?, outcome))
                });
                let Some((status, outcome)) = ended else { return Err(refusal(error)) };
                if let Some((pk, _)) = tracked {
                    // Its end is news; what the check brings is told by the events.
                    let _ = live.engine.poll_now(&key.provider, pk).await;
                }
                return Err(already_ended(&key, status, outcome));
            }
        };
        tracing::info!(provider = key.provider, batch = key.id, "asked to cancel {key}");
        match (tracked, seen) {
            (Some((pk, _)), _) => {
                // What has become of it is observed like everything else; the cancellation is asked for already.
                if let Err(error) = live.engine.poll_now(&key.provider, pk).await {
                    tracing::warn!(
                        provider = key.provider,
                        batch = key.id,
                        "cannot check the cancelled batch: {error}"
                    );
                }
                self.batch(&key.to_string()).await
            }
            (None, Some(sighting)) => self.untracked_shape(live, &key, &sighting),
            (None, None) => {
                let sighting = live.engine.retrieve(&key.provider, &key.id).await.map_err(refusal)?;
                self.untracked_shape(live, &key, &sighting)
            }
        }
    }

    /// The batch that `text` means, tracked or not.
    pub(super) async fn understand_key(
        &self,
        live: &Live,
        provider: Option<&str>,
        text: &str,
    ) -> Result<BatchKey, ApiError> {
        let item =
            TrackItem { id: text.to_owned(), provider: provider.map(str::to_owned), ..TrackItem::default() };
        let known = self.store.providers_of(possible_ids(live, text)).await?;
        // What has the whole shape of an id is no beginning of another one.
        if known.is_empty()
            && !resolve::is_claimed(text.split_once(':').map_or(text, |(_, id)| id))
            && let Some((_, tracked)) = self.called(text).await?
            && provider.is_none_or(|provider| provider == tracked.key.provider)
        {
            return Ok(tracked.key);
        }
        let key = understand(item, live, &live.config(), &known, false, self.clock.now())?.key;
        if !is_submission(&key.id) {
            return Ok(key);
        }
        // It may have become a batch with an id of its own.
        Ok(self.store.get(key.clone()).await?.map_or(key, |(_, tracked)| tracked.key))
    }

    /// A batch that is not tracked, as `sighting` shows it.
    pub(super) fn untracked_shape(
        &self,
        live: &Live,
        key: &BatchKey,
        sighting: &Sighting,
    ) -> Result<Value, ApiError> {
        let mut batch = shape::batch(&self.untracked(live, key, sighting)?);
        batch["batchd"]["tracked_at"] = Value::Null;
        Ok(batch)
    }

    /// What `sighting` makes of a batch that is not tracked.
    pub(super) fn untracked(
        &self,
        live: &Live,
        key: &BatchKey,
        sighting: &Sighting,
    ) -> Result<Tracked, ApiError> {
        let refusal = |error| ApiError::from_provider(error, &key.id);
        let unseen = live.engine.unseen(key, Origin::Hand, self.clock.now()).map_err(refusal)?;
        let seen = live.engine.first_step(&unseen, sighting).map_err(refusal)?.tracked;
        Ok(Tracked { next_poll_at: None, ..seen })
    }

    /// Polls a tracked batch now, and gives it as it then is.
    pub async fn poll(&self, text: &str) -> Result<Value, ApiError> {
        let live = self.live()?;
        let (pk, tracked) = self.find(text).await?;
        let key = tracked.key;
        if is_submission(&key.id) {
            live.engine.try_queue(&key.provider);
            return self.batch(&key.to_string()).await;
        }
        live.engine
            .poll_now(&key.provider, pk)
            .await
            .map_err(|error| ApiError::from_provider(error, &key.id))?;
        self.batch(&key.to_string()).await
    }

    /// Makes every active batch due now.
    pub fn poll_all(&self) -> Result<PollAnswer, ApiError> {
        Ok(PollAnswer { due: self.live()?.engine.poll_all() })
    }

    /// Stops watching a batch; with `purge` its history goes too. Gives the batch as it was last.
    pub async fn untrack(&self, text: &str, purge: bool) -> Result<Value, ApiError> {
        self.live()?;
        let (pk, tracked) = self.find(text).await?;
        if tracked.waiting_for.is_some() {
            // What nobody is to hear of is not to be created either.
            self.cancel_waiting(pk, &tracked).await?;
        }
        if purge {
            self.store.purge(pk).await?;
            return Ok(shape::batch(&Tracked { next_poll_at: None, ..tracked }));
        }
        self.store.untrack(pk, self.clock.now()).await?;
        self.batch(&tracked.key.to_string()).await
    }
}

/// The error for a batch that cannot be cancelled any more.
fn already_ended(key: &BatchKey, status: Status, outcome: Outcome) -> ApiError {
    let how = match outcome.as_str() {
        outcome if outcome == status.as_str() => outcome.to_owned(),
        outcome => format!("{status}, {outcome}"),
    };
    let message = format!("batch `{}` has ended ({how}); there is nothing to cancel", key.id);
    ApiError::new(ErrorCode::AlreadyEnded, message)
}

/// What `text` may be the id of: itself, what stands behind a provider's name, and how some provider writes either.
fn possible_ids(live: &Live, text: &str) -> Vec<String> {
    let text = text.trim();
    let behind = text.split_once(':').map(|(_, id)| id);
    [text]
        .into_iter()
        .chain(behind)
        .flat_map(|id| std::iter::once(id.to_owned()).chain(live.engine.other_forms(id)))
        .collect()
}

fn understand(
    item: TrackItem,
    live: &Live,
    config: &Config,
    known: &BTreeMap<String, Vec<String>>,
    check: bool,
    now: Timestamp,
) -> Result<Wanted, ApiError> {
    let text = item.id.trim();
    let mut key = match &item.provider {
        Some(name) if !config.providers.contains_key(name) => {
            return Err(no_such_provider(name, config));
        }
        // `--provider openai openai:batch_1` says it twice; two different names contradict each other.
        Some(name) => match resolve::split(text, |prefix| config.providers.contains_key(prefix)) {
            (Some(other), _) if other != name => {
                return Err(ApiError::invalid(format!("`{text}` names provider `{other}`, not `{name}`"))
                    .param("provider"));
            }
            (_, id) => BatchKey { provider: name.clone(), id: id.to_owned() },
        },
        None => match resolve::split(text, |prefix| config.providers.contains_key(prefix)) {
            (Some(provider), id) => BatchKey { provider: provider.to_owned(), id: id.to_owned() },
            (None, id) => {
                let forms = std::iter::once(id.to_owned()).chain(live.engine.other_forms(id));
                let at: Vec<String> = forms.filter_map(|form| known.get(&form)).flatten().cloned().collect();
                match resolve::known(id, &at)? {
                    Some(key) => key,
                    None => resolve::place(id, &candidates(config))?,
                }
            }
        },
    };
    if !is_submission(&key.id) {
        key.id = live.engine.canonical_id(&key.provider, &key.id);
    }
    if !is_an_id(&key.id) {
        return Err(ApiError::invalid(format!(
            "`{}` is not the id of a batch",
            key.id.chars().take(80).collect::<String>().escape_debug()
        ))
        .param("id"));
    }
    resolve::judged(&key.id)?;
    let known = known.get(&key.id).is_some_and(|providers| providers.contains(&key.provider));
    Ok(Wanted {
        known,
        check: item.check.unwrap_or(check),
        user_fields: user_fields(item, config, now)?,
        key,
    })
}

/// What is said of a batch besides its id, if it may be.
pub(super) fn user_fields(item: TrackItem, config: &Config, now: Timestamp) -> Result<UserFields, ApiError> {
    if let Some(name) = item.notify.iter().find(|name| !config.webhooks.contains_key(*name)) {
        let known: Vec<&str> = config.webhooks.keys().map(String::as_str).collect();
        return Err(ApiError::new(ErrorCode::UnknownWebhook, format!("no webhook `{name}` is configured"))
            .param("notify")
            .hint(if known.is_empty() {
                "no webhooks are configured".to_owned()
            } else {
                format!("configured: {}", known.join(", "))
            }));
    }
    let texts = item.labels.iter().flat_map(|(key, value)| [key, value]).chain(&item.name);
    if texts.into_iter().any(|text| text.len() > MAX_TEXT) || item.labels.len() > 64 {
        return Err(ApiError::invalid("a name or label is too long, or there are too many labels")
            .hint(format!("at most {MAX_TEXT} bytes each, at most 64 labels")));
    }
    if item.labels.keys().any(String::is_empty) {
        return Err(ApiError::invalid("a label has no name").param("labels"));
    }
    let deadline = item
        .deadline
        .as_deref()
        .map(|text| {
            duration::parse(text).map_err(|error| ApiError::invalid(error.to_string()).param("deadline"))
        })
        .transpose()?
        .map(|after| later(now, after));
    Ok(UserFields {
        name: item.name,
        labels: item.labels,
        notify_also: item.notify,
        notify_nobody: item.no_notify.then_some(true),
        deadline,
    })
}
