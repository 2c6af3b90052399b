//! Which parts of the work are this daemon's, where several share the state.

use crate::clock::Clock;
use crate::domain::ownership::Scope;
use crate::sync::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// Each with a number that it has for as long as it is held.
    held: watch::Sender<BTreeMap<Scope, u64>>,
    tenures: AtomicU64,
    /// How often the others had given up this daemon, or the state had lost something.
    begun: AtomicU64,
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
        Self::new(clock, None)
    }

    /// Of one that is given up by the others after `lease` without a sign of life; nothing is its yet.
    pub(super) fn nothing_yet(clock: Clock, lease: Duration) -> Self {
        let shared = Shared { patience: lease.mul_f64(0.8), answered: Mutex::default() };
        Self::new(clock, Some(shared))
    }

    fn new(clock: Clock, shared: Option<Shared>) -> Self {
        let (held, tenures, begun) = Default::default();
        Self(Arc::new(Inner { clock, shared, held, tenures, begun }))
    }

    /// Whether the state is this daemon's alone.
    pub fn is_alone(&self) -> bool {
        self.0.shared.is_none()
    }

    /// Whether `scope` is this daemon's, and it may begin something there: not while the state cannot be reached, as
    /// others may have taken over by then.
    pub fn holds(&self, scope: &Scope) -> bool {
        self.tenure(scope).is_some()
    }

    /// The same, with a number that is another once the scope was not this daemon's in between: what was known of it is to
    /// be read anew then.
    pub fn tenure(&self, scope: &Scope) -> Option<u64> {
        if self.is_alone() {
            return Some(0);
        }
        self.is_heard().then(|| self.0.held.borrow().get(scope).copied()).flatten()
    }

    /// Whether the state has answered lately.
    pub(super) fn is_heard(&self) -> bool {
        let Some(shared) = &self.0.shared else { return true };
        self.silence().is_some_and(|silence| silence < shared.patience)
    }

    /// A number that stays for as long as the others take this daemon for the same; `None`: the state has not answered
    /// lately, and they may have given it up.
    pub fn standing(&self) -> Option<u64> {
        self.is_heard().then(|| self.0.begun.load(Ordering::Acquire))
    }

    /// This daemon is another for the others from now on, and nothing is its.
    pub(super) fn begin_afresh(&self) {
        self.0.begun.fetch_add(1, Ordering::Release);
        self.set(BTreeSet::new());
    }

    /// For how long the state has not answered; `None`: it never has, or is this daemon's alone.
    pub(super) fn silence(&self) -> Option<Duration> {
        let answered = (*lock(&self.0.shared.as_ref()?.answered))?;
        Some(self.0.clock.steady().saturating_sub(answered))
    }

    /// Wakes whenever a scope was gained or lost.
    pub fn changes(&self) -> watch::Receiver<BTreeMap<Scope, u64>> {
        self.0.held.subscribe()
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
        let number = self.0.tenures.fetch_add(1, Ordering::Relaxed);
        self.0.held.send_if_modified(|before| {
            let changed = !before.keys().eq(&held);
            if changed {
                let kept = |scope: &Scope| before.get(scope).copied().unwrap_or(number);
                *before = held.into_iter().map(|scope| (scope.clone(), kept(&scope))).collect();
            }
            changed
        });
    }

    /// Whatever is known of what this daemon does is to be read anew.
    pub(super) fn forget(&self) {
        let held = self.held();
        self.set(BTreeSet::new());
        self.set(held);
    }

    pub(super) fn held(&self) -> BTreeSet<Scope> {
        self.0.held.borrow().keys().cloned().collect()
    }
}

/// Who waits for a scope sees after this that the state is heard of again.
const LOOKED_AGAIN_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scope_that_was_lost_in_between_is_another() {
        let holdings = Holdings::nothing_yet(Clock::system(), Duration::from_secs(10));
        let (mine, others) = (Scope::Account("mine".to_owned()), Scope::Account("others".to_owned()));
        holdings.set(BTreeSet::from([mine.clone()]));
        assert_eq!(holdings.tenure(&mine), None, "the state has not answered yet");
        holdings.answered(holdings.steady());
        let first = holdings.tenure(&mine);
        assert!(first.is_some() && !holdings.holds(&others));
        holdings.set(BTreeSet::from([mine.clone(), others.clone()]));
        assert_eq!(holdings.tenure(&mine), first, "what comes and goes beside it makes no difference");
        let mut changes = holdings.changes();
        holdings.forget();
        assert!(changes.has_changed().unwrap());
        assert!(changes.borrow_and_update().contains_key(&others));
        let again = holdings.tenure(&mine);
        assert!(again.is_some() && again != first);
        let alone = Holdings::everything(Clock::system());
        assert_eq!(alone.tenure(&mine), alone.tenure(&others));
    }
}
