//! Lets a delivery that is suspected of killing the process be sent with no other under way (`docs/delivery.md#suspects`).

use crate::sync::lock;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::{Instant, timeout};

/// What every attempt of every webhook passes through. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub(super) struct CrashIsolation {
    attempts: Arc<RwLock<()>>,
    /// Until when nobody is sent alone: after one the others have at least as much time.
    rest: Arc<Mutex<Option<Instant>>>,
}

/// Leave to have attempts under way, for as long as it is kept.
#[derive(Clone)]
pub(super) enum Pass {
    Shared { _guard: Arc<OwnedRwLockReadGuard<()>> },
    Alone { _guard: Arc<Alone> },
}

/// Nothing else is under way while it lives.
pub(super) struct Alone {
    _guard: OwnedRwLockWriteGuard<()>,
    since: Instant,
    rest: Arc<Mutex<Option<Instant>>>,
}

impl CrashIsolation {
    /// Leave to send among others; none while somebody is sent alone.
    pub(super) fn enter(&self) -> Option<Pass> {
        let guard = Arc::clone(&self.attempts).try_read_owned().ok()?;
        Some(Pass::Shared { _guard: Arc::new(guard) })
    }

    /// Leave to send alone, if nothing is under way anywhere and the others have had their turn.
    pub(super) fn enter_alone(&self) -> Option<Pass> {
        if self.others_turn() {
            return None;
        }
        Some(self.alone(Arc::clone(&self.attempts).try_write_owned().ok()?))
    }

    /// The same for somebody who has waited long: nothing begins anywhere until what is under way has ended, or half
    /// a minute is over.
    pub(super) async fn insist(&self) -> Option<Pass> {
        if self.others_turn() {
            return None;
        }
        Some(self.alone(timeout(INSISTENCE, Arc::clone(&self.attempts).write_owned()).await.ok()?))
    }

    fn others_turn(&self) -> bool {
        lock(&self.rest).is_some_and(|until| Instant::now() < until)
    }

    fn alone(&self, guard: OwnedRwLockWriteGuard<()>) -> Pass {
        let alone = Alone { _guard: guard, since: Instant::now(), rest: Arc::clone(&self.rest) };
        Pass::Alone { _guard: Arc::new(alone) }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        *lock(&self.rest) = Some(Instant::now() + self.since.elapsed().max(LEAST_REST));
    }
}

/// Less than what makes a loop late.
const INSISTENCE: Duration = Duration::from_secs(30);

/// Longer than those wait that found somebody alone ([`super::plan`]).
const LEAST_REST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a11_who_is_alone_is_alone() {
        let crash_isolation = CrashIsolation::default();
        let (one, other) = (crash_isolation.enter().unwrap(), crash_isolation.enter().unwrap());
        assert!(crash_isolation.enter_alone().is_none());
        let copy = one.clone();
        drop((one, other));
        assert!(crash_isolation.enter_alone().is_none(), "a part of it is still under way");
        drop(copy);
        let alone = crash_isolation.enter_alone().unwrap();
        assert!(crash_isolation.enter().is_none() && crash_isolation.enter_alone().is_none());
        drop(alone);
        advance(LEAST_REST).await;
        let hanging = crash_isolation.enter().unwrap();
        assert!(crash_isolation.insist().await.is_none(), "not for ever");
        drop(hanging);
        assert!(crash_isolation.insist().await.is_some());
        assert!(crash_isolation.enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn after_one_alone_the_others_have_as_much_time() {
        let crash_isolation = CrashIsolation::default();
        let alone = crash_isolation.enter_alone().unwrap();
        advance(Duration::from_secs(15)).await;
        drop(alone);
        advance(Duration::from_secs(14)).await;
        assert!(crash_isolation.enter_alone().is_none() && crash_isolation.insist().await.is_none());
        assert!(crash_isolation.enter().is_some());
        advance(Duration::from_secs(1)).await;
        assert!(crash_isolation.enter_alone().is_some());
    }
}
