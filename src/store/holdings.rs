//! Which parts of the work are this daemon's, where several share the state.

use crate::clock::Clock;
use crate::domain::ownership::Scope;
use crate::sync::lock;
use std::collections::BTreeSet;
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
    held: watch::Sender<BTreeSet<Scope>>,
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
        self.is_alone() || self.is_heard() && self.0.held.borrow().contains(scope)
    }

    /// Whether the state has answered lately.
    pub(super) fn is_heard(&self) -> bool {
        let Some(shared) = &self.0.shared else { return true };
        let steady = self.0.clock.steady();
        lock(&shared.answered).is_some_and(|at| steady.saturating_sub(at) < shared.patience)
    }

    /// Wakes whenever a scope was gained or lost.
    pub fn changes(&self) -> watch::Receiver<BTreeSet<Scope>> {
        self.0.held.subscribe()
    }

    /// Waits for a moment, or until a scope is gained or lost.
    pub async fn wait(&self) {
        let mut changes = self.changes();
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
            let changed = *before != held;
            *before = held;
            changed
        });
    }

    pub(super) fn held(&self) -> BTreeSet<Scope> {
        self.0.held.borrow().clone()
    }
}

/// Who waits for a scope sees after this that the state is heard of again.
const LOOKED_AGAIN_AFTER: Duration = Duration::from_secs(1);
