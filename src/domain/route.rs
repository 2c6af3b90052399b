//! Which webhooks an event goes to.

use super::event::{Draft, EventType};
use super::outcome::Severity;
use super::tracked::{Notify, Tracked};
use std::collections::{BTreeMap, BTreeSet};

/// What one webhook wants to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The webhook's name.
    pub webhook: String,
    /// Types of events.
    pub events: BTreeSet<EventType>,
    /// Nothing below this.
    pub severity: Severity,
    /// Only these providers; empty: all.
    pub providers: BTreeSet<String>,
    /// Only batches that carry all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only batches that name it.
    pub on_request: bool,
    /// It is switched off (by a person or by its own 410): what it is owed is held.
    pub disabled: bool,
}

/// The routes in force: one a configured webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(pub Vec<Route>);

impl Route {
    /// Whether this webhook is owed `draft`; `about` is the batch that it is about, if any.
    ///
    /// A webhook that the batch names gets its events whatever providers and labels the webhook otherwise asks for.
    pub fn wants(&self, draft: &Draft, about: Option<&Tracked>) -> bool {
        let none = Notify::default();
        let notify = about.map_or(&none, |tracked| &tracked.notify);
        if notify.nobody || !self.events.contains(&draft.kind) || draft.severity < self.severity {
            return false;
        }
        if notify.also.contains(&self.webhook) {
            return true;
        }
        if self.on_request {
            return false;
        }
        let provider = draft
            .provider
            .as_ref()
            .is_none_or(|provider| self.providers.is_empty() || self.providers.contains(provider));
        let labels = self.labels.is_empty()
            || about.is_some_and(|tracked| {
                self.labels.iter().all(|(key, value)| tracked.labels.get(key) == Some(value))
            });
        provider && labels
    }
}
