//! What a worker shows of its webhook: its health, and how its attempts ended.

use super::destination::Destination;
use super::last_failure::LastFailure;
use crate::store::outbox::WebhookState;
use crate::sync::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// How a webhook fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookHealth {
    pub name: String,
    pub kind: String,
    /// What is remembered of it: failures, pause, whether and why it is switched off.
    pub state: WebhookState,
    /// Whether it has failed so often that only single probes are sent.
    pub breaker_open: bool,
    pub in_flight: usize,
    /// What went wrong the last time; `None` after a success.
    pub last_failure: Option<LastFailure>,
}

/// Attempts by webhook and by what became of the delivery.
#[derive(Default)]
pub(super) struct AttemptCounts(Mutex<BTreeMap<(String, &'static str), u64>>);

impl AttemptCounts {
    /// Webhook, what became of the delivery, and how often.
    pub(super) fn all(&self) -> Vec<(String, &'static str, u64)> {
        let counts = lock(&self.0);
        counts.iter().map(|((name, fate), count)| (name.clone(), *fate, *count)).collect()
    }

    pub(super) fn count(&self, webhook: &str, fate: &'static str) {
        *lock(&self.0).entry((webhook.to_owned(), fate)).or_default() += 1;
    }
}

/// What a worker shows of itself.
pub(super) struct WorkerStatus {
    name: String,
    shown: Mutex<Shown>,
    switched_off: Arc<watch::Sender<BTreeSet<String>>>,
    refused: Arc<watch::Sender<BTreeSet<String>>>,
}

#[derive(Default)]
struct Shown {
    destination: Option<Arc<Destination>>,
    state: WebhookState,
    breaker_open: bool,
    in_flight: usize,
    last_failure: Option<LastFailure>,
}

impl WorkerStatus {
    pub(super) fn new(
        name: String,
        switched_off: Arc<watch::Sender<BTreeSet<String>>>,
        refused: Arc<watch::Sender<BTreeSet<String>>>,
    ) -> Self {
        Self { name, shown: Mutex::default(), switched_off, refused }
    }

    /// Notes whether the receiver refuses the secrets.
    pub(super) fn set_refused(&self, refused: bool) {
        self.refused.send_if_modified(|names| {
            if refused {
                names.insert(self.name.clone());
                true
            } else {
                names.remove(&self.name)
            }
        });
    }

    pub(super) fn publish(&self, state: &WebhookState, breaker_open: bool, in_flight: usize) {
        {
            let mut shown = lock(&self.shown);
            shown.state.clone_from(state);
            shown.breaker_open = breaker_open;
            shown.in_flight = in_flight;
        }
        self.switched_off.send_if_modified(|names| {
            if state.disabled.is_some() { names.insert(self.name.clone()) } else { names.remove(&self.name) }
        });
    }

    pub(super) fn last_failure(&self) -> Option<LastFailure> {
        lock(&self.shown).last_failure.clone()
    }

    pub(super) fn set_last_failure(&self, failure: Option<LastFailure>) {
        lock(&self.shown).last_failure = failure;
    }

    pub(super) fn set_destination(&self, destination: Option<Arc<Destination>>) {
        lock(&self.shown).destination = destination;
    }

    pub(super) fn destination(&self) -> Option<Arc<Destination>> {
        lock(&self.shown).destination.clone()
    }

    pub(super) fn is_configured(&self) -> bool {
        lock(&self.shown).destination.is_some()
    }

    pub(super) fn health(&self, name: &str) -> Option<WebhookHealth> {
        let shown = lock(&self.shown);
        let destination = shown.destination.as_ref()?;
        Some(WebhookHealth {
            name: name.to_owned(),
            kind: destination.kind().to_owned(),
            state: shown.state.clone(),
            breaker_open: shown.breaker_open,
            in_flight: shown.in_flight,
            last_failure: shown.last_failure.clone(),
        })
    }
}
