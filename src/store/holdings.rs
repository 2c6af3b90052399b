//! Which parts of the work are this daemon's, where several share the state.

use crate::clock::Clock;
use crate::domain::ownership::Scope;
use crate::sync::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// What this daemon does. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Holdings(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    /// `None`: it is alone, and everything is its.
    shared: Option<Shared>,
    held: watch::Sender<Held>,
}

/// What is this daemon's, each scope with the number of the term for which it is.
#[derive(Debug, Default)]
struct Held {
    terms: BTreeMap<Scope, u64>,
    /// Of the newest term.
    number: u64,
}

#[derive(Debug)]
struct Shared {
    /// How long nothing may be heard of the state before nothing more is begun.
    patience: Duration,
    /// When the newest commit that was answered had been sent, by the clock that nobody sets.
    answered: Mutex<Option<Duration>>,
}

impl Holdings {
    /// Of a daemon that shares its state with nobody.
    pub(super) fn everything(clock: Clock) -> Self {
        Self(Arc::new(Inner { clock, shared: None, held: watch::Sender::default() }))
    }

    /// Of one that is given up by the others after `lease` without a sign of life; nothing is its yet.
    pub(super) fn nothing_yet(clock: Clock, lease: Duration) -> Self {
        let shared = Shared { patience: lease.mul_f64(0.8), answered: Mutex::default() };
        Self(Arc::new(Inner { clock, shared: Some(shared), held: watch::Sender::default() }))
    }

    /// Whether the state is this daemon's alone.
    pub fn is_alone(&self) -> bool {
        self.0.shared.is_none()
    }

    /// Whether `scope` is this daemon's, and it may begin something there: not while the state cannot be reached, as
    /// others may have taken over by then.
    pub fn holds(&self, scope: &Scope) -> bool {
        self.term(scope).is_some()
    }

    /// The same; which time it is that the scope is this daemon's. Whoever remembers another number missed that the scope
    /// was lost and gained meanwhile, and what others have done in it.
    pub fn term(&self, scope: &Scope) -> Option<u64> {
        if self.is_alone() {
            return Some(0);
        }
        self.0.held.borrow().terms.get(scope).copied().filter(|_| self.is_heard())
    }

    /// Whether the state has answered lately.
    pub(super) fn is_heard(&self) -> bool {
        let Some(shared) = &self.0.shared else { return true };
        let steady = self.0.clock.steady();
        lock(&shared.answered).is_some_and(|at| steady.saturating_sub(at) < shared.patience)
    }

    /// Waits for a moment, or until a scope is gained or lost.
    pub async fn wait(&self) {
        let mut changes = self.0.held.subscribe();
        tokio::select! {
            biased;
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOKED_AGAIN_AFTER) => {}
        }
    }

    /// A commit that was sent at `sent` was answered.
    pub(super) fn answered(&self, sent: Duration) {
        if let Some(shared) = &self.0.shared {
            let mut answered = lock(&shared.answered);
            *answered = (*answered).max(Some(sent));
        }
    }

    /// The clock that nobody sets.
    pub(super) fn steady(&self) -> Duration {
        self.0.clock.steady()
    }

    /// These are this daemon's from now on, and no others.
    pub(super) fn set(&self, held: BTreeSet<Scope>) {
        self.0.held.send_if_modified(|before| {
            let changed = !before.terms.keys().eq(&held);
            before.terms.retain(|scope, _| held.contains(scope));
            for scope in held {
                let number = &mut before.number;
                before.terms.entry(scope).or_insert_with(|| {
                    *number += 1;
                    *number
                });
            }
            changed
        });
    }

    pub(super) fn held(&self) -> BTreeSet<Scope> {
        self.0.held.borrow().terms.keys().cloned().collect()
    }
}

/// Who waits for a scope sees after this that the state is heard of again.
const LOOKED_AGAIN_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_that_was_lost_and_gained_between_two_looks_is_of_another_term() {
        let holdings = Holdings::nothing_yet(Clock::system(), Duration::from_secs(10));
        let scope = Scope::Account("one".to_owned());
        let held = BTreeSet::from([scope.clone(), Scope::Keeper]);
        holdings.set(held.clone());
        assert_eq!(holdings.term(&scope), None, "nothing was heard of the state yet");
        holdings.answered(holdings.steady());
        let first = holdings.term(&scope);
        assert!(first.is_some());
        holdings.set(held.clone());
        assert_eq!(holdings.term(&scope), first, "nothing has changed");
        holdings.set(BTreeSet::from([Scope::Keeper]));
        assert_eq!(holdings.term(&scope), None);
        holdings.set(held);
        assert!(holdings.term(&scope).is_some() && holdings.term(&scope) != first);
        assert_eq!(holdings.held().len(), 2);
    }
}
