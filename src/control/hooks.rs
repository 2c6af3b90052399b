//! The services' own webhooks: checked, read for the id of a batch, and never believed (`docs/contract.md#inbound-webhooks`).

use super::api::ErrorCode;
use super::api_error::ApiError;
use super::service::Service;
use super::tracking::is_an_id;
use crate::config::Config;
use crate::config::secret::{self, SecretSource};
use crate::domain::time::later;
use crate::domain::tracked::{BatchKey, Origin};
use crate::provider::{self, hook::Hook};
use crate::store::batches::{Registration, UserFields};
use crate::webhook::signature::{self, BadSignature, SigningKey, TOLERANCE};
use http::HeaderMap;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Every provider's way in, and what came in lately.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    inbound: RwLock<BTreeMap<String, Arc<InboundHook>>>,
    seen: Mutex<Seen>,
    /// The providers of which it has been said that their messages are refused, so that it is said once.
    refused: Mutex<BTreeSet<String>>,
}

/// One provider's way in.
#[derive(Debug)]
pub(super) struct InboundHook {
    hook: Hook,
    key: SigningKey,
}

/// The messages that came in lately: a second one of the same id does nothing.
///
/// Forgotten at a restart, and once a message's age alone refuses it: a repeat can do no more than have a batch looked
/// at once more.
#[derive(Debug, Default)]
struct Seen {
    until: BTreeMap<(String, String), Timestamp>,
    by_time: BTreeSet<(Timestamp, (String, String))>,
}

impl Hooks {
    /// Takes other inbound in place of those before.
    pub(super) fn set_inbound(&self, inbound: BTreeMap<String, InboundHook>) {
        let inbound = inbound.into_iter().map(|(name, hook_of)| (name, Arc::new(hook_of))).collect();
        *self.inbound.write().unwrap_or_else(PoisonError::into_inner) = inbound;
        lock(&self.refused).clear();
    }

    fn hook_of(&self, provider: &str) -> Option<Arc<InboundHook>> {
        self.inbound.read().unwrap_or_else(PoisonError::into_inner).get(provider).cloned()
    }
}

impl Seen {
    /// Notes a message that came in at `now`; `false` if it had come in before.
    fn note(&mut self, message: (String, String), now: Timestamp) -> bool {
        while let Some((until, _)) = self.by_time.first()
            && (*until < now || self.by_time.len() >= MOST_SEEN)
            && let Some((_, old)) = self.by_time.pop_first()
        {
            self.until.remove(&old);
        }
        if self.until.contains_key(&message) {
            return false;
        }
        // It may be dated as far ahead as it may be old.
        let until = later(now, TOLERANCE * 2);
        self.by_time.insert((until, message.clone()));
        self.until.insert(message, until);
        true
    }

    /// It came to nothing: the next one like it counts.
    fn forget(&mut self, message: &(String, String)) {
        if let Some(until) = self.until.remove(message) {
            self.by_time.remove(&(until, message.clone()));
        }
    }
}

impl Service {
    /// Takes a message that a service has sent: the batch that it names is looked at, and tracked if it is not yet.
    pub async fn hook(&self, provider: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), ApiError> {
        let live = self.live()?;
        let hook_of = live.hooks.hook_of(provider).ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, format!("no webhooks of `{provider}` are taken here"))
                .hint("set `webhook_secret` in the provider's table, then `batchd reload`")
        })?;
        let now = self.clock.now();
        if let Err(problem) = signature::verify(std::slice::from_ref(&hook_of.key), headers, body, now) {
            if lock(&live.hooks.refused).insert(provider.to_owned()) {
                tracing::warn!(provider, "a message to /hooks/{provider} is refused: {problem}");
            }
            return Err(refusal(problem));
        }
        lock(&live.hooks.refused).remove(provider);
        let id = headers.get(signature::ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
        let message = (provider.to_owned(), id.to_owned());
        if !lock(&live.hooks.seen).note(message.clone(), now) {
            tracing::debug!(provider, message = id, "came in before: nothing more to do");
            return Ok(());
        }
        let done = self.follow_hint(provider, hook_of.hook, body).await;
        if done.is_err() {
            lock(&live.hooks.seen).forget(&message);
        }
        done
    }

    async fn follow_hint(&self, provider: &str, hook: Hook, body: &[u8]) -> Result<(), ApiError> {
        let live = self.live()?;
        let payload: Map<String, Value> = serde_json::from_slice(body)
            .map_err(|_| ApiError::invalid("the message is not a JSON object").param("body"))?;
        let Some(id) = (hook.batch_id)(&payload) else {
            tracing::debug!(provider, "a message that is not about a batch");
            return Ok(());
        };
        let key =
            BatchKey { provider: provider.to_owned(), id: live.engine.canonical_id(provider, id.trim()) };
        if !is_an_id(&key.id) {
            return Err(ApiError::invalid("the message names no batch").param("body"));
        }
        if let Some((pk, _)) = self.store.get(key.clone()).await? {
            tracing::debug!(provider, batch = key.id, "its service has news of it: due now");
            live.engine.nudge(provider, pk);
            return Ok(());
        }
        // Due at once; what the service says of it is not looked at.
        let unseen = live.engine.unseen(&key, Origin::Found, self.clock.now());
        let tracked = unseen.map_err(|error| ApiError::from_look(error, &key.id))?;
        let registration = Registration { tracked, first_look: None, user_fields: UserFields::default() };
        let registered = self.store.register(vec![registration], live.routes()).await?;
        live.engine.adopt(&registered);
        tracing::info!(provider, batch = key.id, "tracking {key}, which its service has named");
        Ok(())
    }
}

/// The ways in that a configuration opens: those of providers with a `webhook_secret` whose kind sends webhooks.
pub(super) fn inbound(
    config: &Config,
    resolve: &mut impl FnMut(String, &SecretSource) -> Option<SecretString>,
) -> BTreeMap<String, InboundHook> {
    let mut inbound = BTreeMap::new();
    for provider in config.providers.values() {
        let hook = provider::registry::kind(&provider.kind).and_then(|kind| kind.hook);
        let Some((hook, source)) = hook.zip(provider.webhook_secret.as_ref()) else { continue };
        let secret = resolve(format!("providers.{}.webhook_secret", provider.name), source);
        if let Some(key) = secret.as_ref().and_then(secret::hook_key) {
            inbound.insert(provider.name.clone(), InboundHook { hook, key: SigningKey::of_service(key) });
        }
    }
    inbound
}

fn refusal(problem: BadSignature) -> ApiError {
    match problem {
        BadSignature::Missing(_) | BadSignature::Timestamp => ApiError::invalid(problem.to_string()),
        BadSignature::Age | BadSignature::Mismatch => {
            ApiError::new(ErrorCode::Unauthorized, problem.to_string())
                .hint("is `webhook_secret` the one of this very endpoint, and are both clocks right?")
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves the value whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whoever sends more within ten minutes has the oldest forgotten.
const MOST_SEEN: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn message(number: usize) -> (String, String) {
        ("openai".to_owned(), format!("msg_{number}"))
    }

    #[test]
    fn a_message_counts_once_as_long_as_its_age_does_not_refuse_it() {
        let mut seen = Seen::default();
        assert!(seen.note(message(1), NOW));
        assert!(!seen.note(message(1), NOW));
        assert!(seen.note(message(2), NOW));
        assert!(seen.note(("azure".to_owned(), "msg_1".to_owned()), NOW), "each provider has its own ids");
        assert!(!seen.note(message(1), later(NOW, TOLERANCE * 2)));
        assert!(seen.note(message(1), later(NOW, TOLERANCE * 2 + Duration::from_secs(1))));
        assert_eq!(seen.until.len(), 1);
        seen.forget(&message(1));
        assert!(seen.note(message(1), NOW), "what came to nothing may come again");
        assert_eq!(seen.until.len(), seen.by_time.len());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::default();
        for number in 0..MOST_SEEN + 10 {
            assert!(seen.note(message(number), NOW));
        }
        assert!(seen.until.len() <= MOST_SEEN && seen.until.len() == seen.by_time.len());
        assert!(!seen.note(message(MOST_SEEN + 9), NOW));
    }
}
