//! What services' own webhooks come in by: the secret and the reader of each provider, and the messages seen lately.

use crate::config::Config;
use crate::config::secret::{self, SecretSource};
use crate::domain::time::later;
use crate::http::scrub::Scrubber;
use crate::provider::{self, hook::Hook};
use crate::sync::{self, lock};
use crate::webhook::signature::{SigningKey, TOLERANCE};
use jiff::Timestamp;
use secrecy::SecretString;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, RwLock};

/// The hooks of all providers, and what came in lately.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    inbound: RwLock<BTreeMap<String, Arc<InboundHook>>>,
    seen: Mutex<Seen>,
    /// Providers whose last message was refused: the log says so once.
    refused: Mutex<BTreeSet<String>>,
}

/// The hook of one provider.
#[derive(Debug)]
pub(super) struct InboundHook {
    pub(super) hook: Hook,
    pub(super) key: SigningKey,
    /// What `key` was made from.
    pub(super) secret: SecretString,
    /// Takes the provider's own secrets out of what it says.
    pub(super) known: Arc<Scrubber>,
}

/// The messages that came in lately: a second one of the same id does nothing.
///
/// Forgotten at a restart, and once a message is too old to be accepted anyway: a repeat only causes one more check.
#[derive(Debug, Default)]
struct Seen {
    until: BTreeMap<(String, String), Timestamp>,
    by_time: BTreeSet<(Timestamp, (String, String))>,
}

impl Hooks {
    /// Replaces what was open before.
    pub(super) fn set_inbound(&self, inbound: BTreeMap<String, InboundHook>) {
        let inbound = inbound.into_iter().map(|(name, hook)| (name, Arc::new(hook))).collect();
        *sync::write(&self.inbound) = inbound;
        lock(&self.refused).clear();
    }

    pub(super) fn of(&self, provider: &str) -> Option<Arc<InboundHook>> {
        sync::read(&self.inbound).get(provider).cloned()
    }

    /// Notes that a message was refused; `true` if the one before was not.
    pub(super) fn refused(&self, provider: &str) -> bool {
        lock(&self.refused).insert(provider.to_owned())
    }

    pub(super) fn accepted(&self, provider: &str) {
        lock(&self.refused).remove(provider);
    }

    /// Notes a message, as provider and id, that came in at `now`; `false` if it had come in before.
    pub(super) fn note(&self, message: (String, String), now: Timestamp) -> bool {
        lock(&self.seen).note(message, now)
    }

    /// The message could not be handled: when it is sent again, it counts.
    pub(super) fn forget(&self, message: &(String, String)) {
        lock(&self.seen).forget(message);
    }
}

impl Seen {
    /// Notes a message that came in at `now`; `false` if it had come in before.
    fn note(&mut self, message: (String, String), now: Timestamp) -> bool {
        while let Some((until, _)) = self.by_time.first()
            && (*until < now || self.by_time.len() >= MAX_SEEN)
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

    fn forget(&mut self, message: &(String, String)) {
        if let Some(until) = self.until.remove(message) {
            self.by_time.remove(&(until, message.clone()));
        }
    }
}

/// The hooks that a configuration opens: of each provider with a `webhook_secret` whose kind sends webhooks.
pub(super) fn inbound(
    config: &Config,
    resolve: &mut impl FnMut(String, &SecretSource) -> Option<SecretString>,
) -> BTreeMap<String, InboundHook> {
    let mut inbound = BTreeMap::new();
    for provider in config.providers.values() {
        let hook = provider::registry::kind(&provider.kind).and_then(|kind| kind.hook);
        let Some((hook, source)) = hook.zip(provider.webhook_secret.as_ref()) else { continue };
        let secret = resolve(format!("providers.{}.webhook_secret", provider.name), source);
        if let Some((secret, key)) =
            secret.and_then(|secret| secret::hook_key(&secret).map(|key| (secret, key)))
        {
            let key = SigningKey::of_service(key);
            inbound.insert(provider.name.clone(), InboundHook { hook, key, secret, known: Arc::default() });
        }
    }
    inbound
}

/// If more come in within ten minutes, the oldest are forgotten.
const MAX_SEEN: usize = 10_000;

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
        for number in 0..MAX_SEEN + 10 {
            assert!(seen.note(message(number), NOW));
        }
        assert!(seen.until.len() <= MAX_SEEN && seen.until.len() == seen.by_time.len());
        assert!(!seen.note(message(MAX_SEEN + 9), NOW));
    }
}
