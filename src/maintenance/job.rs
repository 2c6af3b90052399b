//! The jobs that come at the same times everywhere.

use std::time::Duration;

/// A job with a fixed schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// Deletes what ended longer ago than `state.retain`, and files that nobody has used for `files.retain`.
    Prune,
    /// Shortens the database's log.
    Checkpoint,
    /// Tells of results that their providers will soon delete.
    Expiring,
}

impl Job {
    pub const ALL: [Self; 3] = [Self::Prune, Self::Checkpoint, Self::Expiring];

    /// Its name in the table of runs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prune => "prune",
            Self::Checkpoint => "checkpoint",
            Self::Expiring => "expiring",
        }
    }

    /// When it runs, in UTC, with seconds. Off the full hour, when everybody else is busy.
    pub(super) const fn pattern(self) -> &'static str {
        match self {
            Self::Prune => "40 23 * * * *",
            Self::Checkpoint => "20 11 * * * *",
            Self::Expiring => "50 */5 * * * *",
        }
    }

    /// How far its runs are apart.
    pub(super) const fn period(self) -> Duration {
        match self {
            Self::Prune | Self::Checkpoint => Duration::from_hours(1),
            Self::Expiring => Duration::from_mins(5),
        }
    }
}
