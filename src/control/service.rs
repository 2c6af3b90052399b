//! The operations that only read: the same behind the API of a running daemon and behind `--offline`.

use super::api::{AttemptView, DeliveryView, ErrorCode, Listing};
use super::api_error::ApiError;
use super::live::Live;
use super::resolve::{self, candidates, no_such_provider};
use super::tokens::Tokens;
use crate::clock::Clock;
use crate::config::PublicUrl;
use crate::domain::event::EventType;
use crate::domain::shape;
use crate::domain::since;
use crate::domain::status::Status;
use crate::domain::tracked::{BatchKey, Tracked};
use crate::store::batches::{BatchFilter, BatchOrder};
use crate::store::events::{EventFilter, LoggedEvent};
use crate::store::lookup::Called;
use crate::store::outbox::{Attempt, Delivery, DeliveryFilter, DeliveryState, Trigger};
use crate::store::{Pk, Store};
use crate::tasks::Tasks;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What batchd can do, whoever asks. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) live: Option<Arc<Live>>,
    /// Leave to copy the state: one at a time.
    pub(super) backups: Arc<Semaphore>,
}

/// Which batches a list shows.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Only those still watched.
    pub active: bool,
    /// Only these statuses; empty: all.
    pub statuses: Vec<Status>,
    /// Only this provider's.
    pub provider: Option<String>,
    /// Only those with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only this user's.
    pub owner: Option<String>,
    /// Only of this model; `*` stands for any letters.
    pub model: Option<String>,
    /// Only with this text in id, name, model or labels.
    pub search: Option<String>,
    /// Only created since: so long ago, or an instant.
    pub since: Option<String>,
    /// Only what comes after this batch in the list.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// Which events a list shows.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// Only recorded since: so long ago, or an instant.
    pub since: Option<String>,
    /// Only these types; empty: all.
    pub types: Vec<EventType>,
    /// Only the newest so many; the list begins with the oldest of them all the same.
    pub newest: Option<u64>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// Which deliveries a list shows.
#[derive(Clone, Debug, Default)]
pub struct DeliveryQuery {
    /// Only in this state.
    pub state: Option<String>,
    /// Only to this webhook.
    pub webhook: Option<String>,
    /// Only those whose last attempt was answered with this code.
    pub code: Option<u16>,
    /// Only what comes after this one.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// How many entries a page has unless the request says otherwise.
const DEFAULT_PAGE: u32 = 100;
/// How many entries a page has at most.
const MAX_PAGE: u32 = 1000;

impl Service {
    /// Over the state of a stopped (or another) daemon: reading works, nothing else.
    pub fn offline(store: Store, clock: Clock) -> Self {
        Self { store, clock, live: None, backups: Arc::new(Semaphore::new(1)) }
    }

    pub fn running(live: Arc<Live>) -> Self {
        let (store, clock) = (live.parts.store.clone(), live.parts.clock.clone());
        Self { live: Some(live), ..Self::offline(store, clock) }
    }

    pub(super) fn tokens(&self) -> Tokens {
        self.live.as_ref().map_or_else(Tokens::default, |live| live.tokens_in_force())
    }

    /// Where people reach the dashboard, if they reach one.
    pub(super) fn public_url(&self) -> Option<PublicUrl> {
        self.live.as_ref().and_then(|live| live.config().api.public_url.clone())
    }

    /// Where what must not break off runs; `None`: there is no daemon.
    pub(super) fn tasks(&self) -> Option<Tasks> {
        self.live.as_ref().map(|live| live.tasks().clone())
    }

    /// The tracked batch that `text` means: an id or `PROVIDER:ID`, else a name, the beginning of an id, or the address of
    /// its page (`docs/contract.md#ids`).
    pub async fn find(&self, text: &str) -> Result<(Pk, Tracked), ApiError> {
        self.find_at(None, text).await
    }

    /// The same, with the provider given apart.
    pub(super) async fn find_at(
        &self,
        provider: Option<&str>,
        text: &str,
    ) -> Result<(Pk, Tracked), ApiError> {
        let absent = || self.absent(provider, text);
        if let Some(provider) = provider {
            let key = BatchKey { provider: provider.to_owned(), id: text.to_owned() };
            return self.store.get(key).await?.ok_or_else(absent);
        }
        // `PROVIDER:ID` first: an id of that form is found below.
        if let Some((prefix, id)) = text.split_once(':') {
            let key = BatchKey { provider: prefix.to_owned(), id: id.to_owned() };
            if let Some(found) = self.store.get(key).await? {
                return Ok(found);
            }
        }
        let mut found = self.store.find(text.to_owned()).await?;
        if found.is_empty()
            && let Some(live) = &self.live
        {
            for form in live.engine.other_forms(text) {
                found.extend(self.store.find(form).await?);
            }
            if let Some((provider, id)) = text.split_once(':') {
                let id = live.engine.canonical_id(provider, id);
                found.extend(self.store.get(BatchKey { provider: provider.to_owned(), id }).await?);
            }
            found.dedup_by_key(|(pk, _)| *pk);
        }
        let providers: Vec<String> = found.iter().map(|(_, tracked)| tracked.key.provider.clone()).collect();
        resolve::known(text, &providers)?;
        match found.pop() {
            Some(found) => Ok(found),
            None => self.called(text).await?.ok_or_else(absent),
        }
    }

    /// The tracked batch that `text` means without being its id: its name, the beginning of its id, or the address of its
    /// page at the provider; each also behind `PROVIDER:`.
    pub(super) async fn called(&self, text: &str) -> Result<Option<(Pk, Tracked)>, ApiError> {
        let about = |(_, tracked): &(Pk, Tracked)| format!("{} ({})", tracked.key, tracked.batch.status);
        let limit = u32::try_from(resolve::MAX_CANDIDATES).unwrap_or(u32::MAX).saturating_add(1);
        if resolve::is_address(text) {
            let mut found = self.store.find_by_page(resolve::forms_of_address(text)).await?;
            for id in resolve::ids_in(text) {
                if !found.is_empty() {
                    break;
                }
                found = self.store.find(id).await?;
            }
            return resolve::only(text, found, about);
        }
        let forms = |id: &str| match &self.live {
            Some(live) => live.engine.other_forms(id),
            None => BTreeSet::new(),
        };
        let whole = Called {
            provider: None,
            name: text.to_owned(),
            beginnings: resolve::beginnings(text, forms(text)),
            limit,
        };
        let mut found = self.store.called(whole).await?;
        if let Some((provider, id)) = text.split_once(':').filter(|(_, id)| !id.is_empty()) {
            let behind = Called {
                provider: Some(provider.to_owned()),
                name: id.to_owned(),
                beginnings: resolve::beginnings(id, forms(id)),
                limit,
            };
            found.extend(self.store.called(behind).await?);
            found.dedup_by_key(|(pk, _)| *pk);
        }
        resolve::only(text, found, about)
    }

    /// The error for a batch that is not tracked. It advises to track it only where that could work.
    fn absent(&self, provider: Option<&str>, text: &str) -> ApiError {
        let refusal = ApiError::new(ErrorCode::BatchNotFound, format!("no batch `{text}` is tracked"));
        let all = "`batchd list --all` shows all tracked batches";
        let Some(live) = &self.live else { return refusal.hint(all) };
        let config = live.config();
        let known = |name: &str| config.providers.contains_key(name);
        let placed = match provider {
            Some(name) if known(name) => Ok(()),
            Some(name) => Err(vec![format!("no provider `{name}` is configured")]),
            None => match resolve::split(text, known) {
                (Some(_), _) => Ok(()),
                // Where only one provider is configured every id is its; but a prefix was meant to name one.
                (None, id) => match id.split_once(':').filter(|_| !resolve::is_claimed(id)) {
                    Some((prefix, _)) => Err(vec![format!("no provider `{prefix}` is configured")]),
                    None => resolve::place(id, &candidates(&config)).map(|_| ()).map_err(|error| error.hints),
                },
            },
        };
        match placed {
            // What no id looks like may be a mistyped name; `track` would ask a provider for it in vain.
            Ok(()) if text.contains(char::is_whitespace) || resolve::is_address(text) => refusal.hint(all),
            Ok(()) => refusal.hint(format!("`batchd track {text}` tracks it; {all}")),
            Err(hints) => hints.into_iter().fold(refusal, ApiError::hint).hint(all),
        }
    }

    /// One tracked batch in the contract's shape.
    pub async fn batch(&self, text: &str) -> Result<Value, ApiError> {
        Ok(self.shown(&self.find(text).await?.1))
    }

    /// A batch as it is shown: one whose provider has left the configuration says so, and plans nothing.
    pub(super) fn shown(&self, tracked: &Tracked) -> Value {
        let mut batch = shape::batch(tracked);
        if let Some(live) = &self.live
            && tracked.is_active()
            && !live.config().providers.contains_key(&tracked.key.provider)
        {
            let added = &mut batch["batchd"];
            added["next_poll_at"] = Value::Null;
            added["eta"] = Value::Null;
            added["eta_interval"] = Value::Null;
            added["last_error"] =
                format!("provider `{}` is not in the configuration: not polled", tracked.key.provider).into();
        }
        batch
    }

    /// One tracked batch with its transitions, deliveries and schedule under `batchd`.
    pub async fn detail(&self, text: &str) -> Result<Value, ApiError> {
        let (pk, tracked) = self.find(text).await?;
        let transitions = self.store.transitions(pk).await?;
        let filter = DeliveryFilter { batch: Some(tracked.key.clone()), ..DeliveryFilter::default() };
        let mut deliveries = Vec::new();
        for delivery in self.store.deliveries(filter).await?.0.into_iter().rev() {
            let log = self.store.attempts(delivery.pk).await?;
            deliveries.push(delivery_view(delivery, Some(log)));
        }
        let mut batch = self.shown(&tracked);
        let added = &mut batch["batchd"];
        added["transitions"] = transitions
            .iter()
            .map(|transition| {
                json!({
                    "from": transition.from,
                    "to": transition.to,
                    "provider_status": transition.provider_status,
                    "occurred_at": shape::time(transition.occurred_at),
                    "observed_at": transition.observed_at.to_string(),
                })
            })
            .collect();
        added["deliveries"] = json!(deliveries);
        let reasons = match &self.live {
            Some(live) => live.engine.explain(&tracked).reasons,
            None => vec!["read from the state directory; only the daemon knows the schedule".to_owned()],
        };
        added["schedule"] = json!({
            "next_poll_at": added["next_poll_at"].clone(),
            "last_polled_at": shape::time(tracked.last_polled_at),
            "failures": tracked.failures,
            "reasons": reasons,
        });
        Ok(batch)
    }

    /// Tracked batches, newest first.
    pub async fn list(&self, query: ListQuery) -> Result<Listing<Value>, ApiError> {
        let after = match &query.after {
            Some(cursor) => Some(self.find(cursor).await?.0),
            None => None,
        };
        let named = query.provider.clone();
        let filter = BatchFilter {
            active_only: query.active,
            stuck_only: false,
            statuses: query.statuses,
            provider: query.provider,
            labels: query.labels,
            owner: query.owner,
            model: query.model,
            search: query.search,
            created_since: self.since(query.since.as_deref())?.map(Timestamp::as_second),
            after,
            order: BatchOrder::Registered,
            offset: 0,
            limit: Some(query.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE)),
        };
        let (found, has_more) = self.store.list(filter).await?;
        if let (true, Some(name), Some(live)) = (found.is_empty(), named, &self.live) {
            // A typo is not an empty list; a provider that has left the configuration may still have batches.
            let config = live.config();
            let known = config.providers.contains_key(&name)
                || self.store.counts().await?.iter().any(|(provider, ..)| *provider == name);
            if !known {
                return Err(no_such_provider(&name, &config));
            }
        }
        Ok(Listing {
            object: "list".to_owned(),
            first_id: self.cursor(found.first()).await?,
            last_id: self.cursor(found.last()).await?,
            data: found.iter().map(|(_, tracked)| self.shown(tracked)).collect(),
            has_more,
        })
    }

    /// The instant that `since` means now.
    pub(super) fn since(&self, since: Option<&str>) -> Result<Option<Timestamp>, ApiError> {
        let parse = |text| since::parse(text, self.clock.now());
        since.map(parse).transpose().map_err(|error| ApiError::invalid(error.to_string()).param("since"))
    }

    /// The id, unless two providers have it: then `PROVIDER:ID`.
    async fn cursor(&self, entry: Option<&(Pk, Tracked)>) -> Result<Option<String>, ApiError> {
        let Some((_, tracked)) = entry else { return Ok(None) };
        let key = &tracked.key;
        let twice = self.store.find(key.id.clone()).await?.len() > 1;
        Ok(Some(if twice { key.to_string() } else { key.id.clone() }))
    }

    /// Events, oldest first, in the shape of the webhook body; of one batch, or all.
    pub async fn events(
        &self,
        batch: Option<&str>,
        after: i64,
        query: EventQuery,
    ) -> Result<Listing<Value>, ApiError> {
        let batch = match batch {
            Some(text) => Some(self.find(text).await?.1.key),
            None => None,
        };
        let last = self.store.last_sequence().await?;
        if after > last {
            return Err(beyond_end(after, last));
        }
        let limit = query.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
        let since = self.since(query.since.as_deref())?;
        let mut filter = EventFilter { after, batch, since, types: query.types, limit: Some(limit + 1) };
        if let Some(newest) = query.newest {
            filter.after = self.store.before_the_newest(filter.clone(), newest).await?;
        }
        let mut events = self.store.events(filter).await?;
        let has_more = events.len() > limit as usize;
        events.truncate(limit as usize);
        let cursor = |event: Option<&LoggedEvent>| event.map(|event| event.sequence.to_string());
        Ok(Listing {
            object: "list".to_owned(),
            first_id: cursor(events.first()),
            last_id: cursor(events.last()),
            data: events.iter().map(event_shape).collect(),
            has_more,
        })
    }

    /// Deliveries, newest first.
    pub async fn deliveries(&self, query: DeliveryQuery) -> Result<Listing<DeliveryView>, ApiError> {
        let state = query
            .state
            .map(|word| {
                DeliveryState::from_word(&word).ok_or_else(|| {
                    ApiError::invalid(format!(
                        "`{word}` is not a state of a delivery; one of pending, inflight, delivered, dead, held"
                    ))
                    .param("state")
                })
            })
            .transpose()?;
        let after = query.after.map(|id| delivery_number(&id)).transpose()?;
        let filter = DeliveryFilter {
            state,
            webhook: query.webhook,
            batch: None,
            code: query.code,
            after,
            limit: Some(query.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE)),
        };
        let (found, has_more) = self.store.deliveries(filter).await?;
        let data: Vec<DeliveryView> =
            found.into_iter().map(|delivery| delivery_view(delivery, None)).collect();
        Ok(Listing {
            object: "list".to_owned(),
            first_id: data.first().map(|delivery| delivery.id.clone()),
            last_id: data.last().map(|delivery| delivery.id.clone()),
            data,
            has_more,
        })
    }

    /// What keeps an operation from being done without a daemon.
    pub(super) fn live(&self) -> Result<&Arc<Live>, ApiError> {
        self.live.as_ref().ok_or_else(|| {
            ApiError::new(ErrorCode::Unavailable, "this needs the daemon").hint("leave out --offline")
        })
    }
}

/// The error of a reader who knows of more events than there are.
fn beyond_end(after: i64, last: i64) -> ApiError {
    let message = format!(
        "there is no event {after}: the log ends with {last}, and the next ones get the numbers from {} on again",
        last.saturating_add(1)
    );
    ApiError::new(ErrorCode::BeyondEnd, message)
        .param("after")
        .hint(format!("a backup was restored, most likely; read on with --after {last}"))
}

/// An event as its body has it.
pub fn event_shape(event: &LoggedEvent) -> Value {
    // The body was written by batchd; if it is damaged, its text still shows.
    serde_json::from_str(&event.body).unwrap_or_else(|_| Value::String(event.body.clone()))
}

/// The number of a delivery, as people write it.
pub(super) fn delivery_number(text: &str) -> Result<Pk, ApiError> {
    text.trim_start_matches('#').parse().map_err(|_| {
        ApiError::invalid(format!("`{text}` is not the id of a delivery; it is a number"))
            .hint("`batchd deliveries` lists them")
    })
}

/// A delivery as it is shown, with its attempts where they are wanted.
pub(super) fn delivery_view(delivery: Delivery, log: Option<Vec<Attempt>>) -> DeliveryView {
    DeliveryView {
        id: delivery.pk.to_string(),
        object: "delivery".to_owned(),
        event_id: delivery.event_id,
        kind: delivery.kind.to_string(),
        batch_id: delivery.batch_id,
        provider: delivery.provider,
        webhook: delivery.webhook,
        state: delivery.state.as_str().to_owned(),
        attempts: delivery.attempts,
        created_at: Some(delivery.created_at.to_string()),
        last_attempt_at: delivery.last_attempt_at.map(|at| at.to_string()),
        delivered_at: delivery.delivered_at.map(|at| at.to_string()),
        last_status_code: delivery.last_status_code,
        next_attempt_at: delivery.next_attempt_at.map(|at| at.to_string()),
        last_error: delivery.last_error,
        log: log.map(|attempts| attempts.into_iter().map(attempt_view).collect()),
    }
}

fn attempt_view(attempt: Attempt) -> AttemptView {
    AttemptView {
        number: attempt.number,
        started_at: attempt.started_at.to_string(),
        finished_at: attempt.finished_at.map(|at| at.to_string()),
        trigger: match attempt.trigger {
            Trigger::Schedule => "schedule",
            Trigger::Manual => "manual",
            Trigger::Startup => "startup",
        }
        .to_owned(),
        outcome: attempt.outcome,
        http_status: attempt.http_status,
        error: attempt.error,
        excerpt: attempt.excerpt,
    }
}
