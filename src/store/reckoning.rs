//! The reckoning of how much time has passed, as it is kept across restarts.

use crate::domain::retention::Retention;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is known of the clock, and what has been told of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Reckoning {
    pub(super) retention: Retention,
    /// Which boot of the machine it was at the last observation; `None`: nobody knows.
    pub(super) boot: Option<String>,
    /// How long that had lasted, in milliseconds.
    pub(super) steady: u64,
    /// Since when batches are held back, Unix milliseconds, if that has been told.
    pub(super) told_since: Option<i64>,
    /// How long the machine had run when this was written.
    #[serde(skip)]
    pub(super) saved: Duration,
}

impl Reckoning {
    /// One that begins with `retention`.
    pub(super) fn of(retention: Retention) -> Self {
        Self { retention, boot: None, steady: 0, told_since: None, saved: Duration::ZERO }
    }
}
