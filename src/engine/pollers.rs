//! The pollers of all accounts: those in force, and those of a configuration that is being prepared.

use super::poller::Poller;
use crate::store::rescheduled::Rescheduled;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Pollers by the names of their accounts.
pub(super) type ByName = BTreeMap<String, Arc<Poller>>;

#[derive(Default)]
pub(super) struct Pollers {
    pub(super) in_force: ByName,
    /// What is committed while these are prepared is told to them too, so that they miss nothing of it.
    pub(super) coming: ByName,
}

impl Pollers {
    /// What a commit has changed on the schedule, for those whom it concerns.
    pub(super) fn told(&self, changes: &[Rescheduled]) {
        let mut by_provider: BTreeMap<&str, Vec<&Rescheduled>> = BTreeMap::new();
        for change in changes {
            by_provider.entry(&change.provider).or_default().push(change);
        }
        for (provider, changes) in by_provider {
            for poller in
                [&self.in_force, &self.coming].into_iter().filter_map(|pollers| pollers.get(provider))
            {
                poller.told(&changes);
            }
        }
    }
}
