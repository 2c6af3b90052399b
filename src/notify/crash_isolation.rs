//! Lets a delivery that is suspected of killing the process be sent with no other under way (`docs/delivery.md#delivery-states`).

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::timeout;

/// What every attempt of every webhook passes through. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub(super) struct CrashIsolation(Arc<RwLock<()>>);

/// Leave to have attempts under way, for as long as it is kept.
#[derive(Clone)]
pub(super) enum Pass {
    Shared { _guard: Arc<OwnedRwLockReadGuard<()>> },
    Alone { _guard: Arc<OwnedRwLockWriteGuard<()>> },
}

impl CrashIsolation {
    /// Leave to send among others; none while somebody is sent alone.
    pub(super) fn enter(&self) -> Option<Pass> {
        let guard = Arc::clone(&self.0).try_read_owned().ok()?;
        Some(Pass::Shared { _guard: Arc::new(guard) })
    }

    /// Leave to send alone, if nothing is under way anywhere.
    pub(super) fn enter_alone(&self) -> Option<Pass> {
        let guard = Arc::clone(&self.0).try_write_owned().ok()?;
        Some(Pass::Alone { _guard: Arc::new(guard) })
    }

    /// The same for somebody who has waited long: nothing begins anywhere until what is under way has ended, or half
    /// a minute is over.
    pub(super) async fn insist(&self) -> Option<Pass> {
        let guard = timeout(INSISTENCE, Arc::clone(&self.0).write_owned()).await.ok()?;
        Some(Pass::Alone { _guard: Arc::new(guard) })
    }
}

/// Less than what makes a loop late.
const INSISTENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

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
        let hanging = crash_isolation.enter().unwrap();
        assert!(crash_isolation.insist().await.is_none(), "not for ever");
        drop(hanging);
        assert!(crash_isolation.insist().await.is_some());
        assert!(crash_isolation.enter().is_some());
    }
}
