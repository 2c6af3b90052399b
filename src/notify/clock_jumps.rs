//! Notices when the clock was set forward while the process ran, so that no wait ends sooner for it (`docs/delivery.md#clocks`).

use crate::clock::Clock;
use crate::domain::time::{later, since};
use crate::store::{Store, StoreError};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// What the clocks said when they were last compared. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct ClockJumps(Arc<Mutex<(Timestamp, Duration)>>);

impl ClockJumps {
    pub(super) fn new(clock: &Clock) -> Self {
        Self(Arc::new(Mutex::new((clock.now(), clock.steady()))))
    }

    /// Moves every wait with the clock, if it was set forward since they were last compared. Whoever asks meanwhile waits.
    ///
    /// A clock that was set back is the store's affair: it sees that across a start, too.
    pub(super) async fn follow(&self, clock: &Clock, store: &Store) -> Result<(), StoreError> {
        let mut last = self.0.lock().await;
        let (now, steady) = (clock.now(), clock.steady());
        let (before, steady_before) = *last;
        let passed = steady.saturating_sub(steady_before);
        let step = since(later(before, passed), now);
        if step >= MIN_JUMP {
            store.follow_step(later(before, passed), step).await?;
            tracing::warn!(
                seconds = step.as_secs(),
                "the clock was set forward by {}; delayed deliveries keep their remaining waits",
                crate::domain::duration::human(step)
            );
        }
        *last = (now, steady);
        Ok(())
    }
}

/// What time servers do little by little is less.
const MIN_JUMP: Duration = Duration::from_secs(2);
