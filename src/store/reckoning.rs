//! The reckoning of how much time has passed, as it is kept across restarts.

use super::column::{json, ms};
use super::error::StoreError;
use super::sql::Sql;
use crate::clock::Clock;
use crate::domain::retention::Retention;
use crate::sync::lock;
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard};
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
}

impl Reckoning {
    /// One that begins with `retention`.
    pub(super) fn of(retention: Retention) -> Self {
        Self { retention, boot: None, steady: 0, told_since: None }
    }

    /// The wall clock shows `wall` (Unix milliseconds) and the machine has run for `steady`, in the boot `boot`. Whether
    /// the clock leapt. `is_ours`: this process made the observation before.
    pub(super) fn observe(
        &mut self,
        wall: i64,
        steady: Duration,
        boot: Option<String>,
        is_ours: bool,
    ) -> bool {
        let millis = u64::try_from(steady.as_millis()).unwrap_or(u64::MAX);
        let same_boot = is_ours || self.boot.is_some() && self.boot == boot;
        let ran = same_boot.then(|| Duration::from_millis(millis.saturating_sub(self.steady)));
        (self.boot, self.steady) = (boot, millis);
        self.retention.observe(wall, ran)
    }

    /// As it was written last, if it ever was.
    pub(super) fn read(connection: &Sql<'_>) -> Result<Option<Self>, StoreError> {
        let text: Option<String> =
            connection.row("SELECT reckoning FROM retention", [], |row| row.get("reckoning"))?;
        let read = |text: String| {
            serde_json::from_str(&text)
                .map_err(|error| StoreError::Damaged(format!("column reckoning: {error}")))
        };
        text.map(read).transpose()
    }
}

/// The reckoning of this process, the only one there is: it follows the clock whenever something is about to be written,
/// and what it has seen is committed with what was written by that clock. So whatever stands in the database has its age,
/// even after a crash.
#[derive(Debug)]
pub(super) struct Reckoner {
    clock: Clock,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    reckoning: Reckoning,
    /// Whether this process has observed the clock before.
    is_ours: bool,
    /// How often it has changed in a way that has to be written, and as of which of those changes it is.
    changes: u64,
    written: u64,
    /// How long the machine had run when it was written.
    saved: Option<Duration>,
}

/// What a transaction writes of the reckoning.
#[derive(Debug)]
pub(super) struct Unwritten {
    reckoning: Reckoning,
    changes: u64,
    steady: Duration,
}

impl Reckoner {
    /// Goes on from what the database knows; a state that knows nothing begins with the newest time that stands in it.
    pub(super) fn begin(connection: &Sql<'_>, clock: Clock) -> Result<Self, StoreError> {
        let reckoning = if let Some(written) = Reckoning::read(connection)? {
            written
        } else {
            let newest: Option<i64> = connection.one(
                "SELECT max(at) AS newest FROM (
                   SELECT max(recorded_at) AS at FROM events
                   UNION ALL SELECT max(finished_at) FROM jobs
                   UNION ALL SELECT max(tracked_at) FROM batches) AS times",
                [],
                |row| row.get("newest"),
            )?;
            let now = ms(clock.now());
            let begun = newest.filter(|newest| *newest > 0 && *newest < now).unwrap_or(now);
            Reckoning::of(Retention::beginning(begun))
        };
        let kept = Kept { reckoning, is_ours: false, changes: 1, written: 0, saved: None };
        Ok(Self { clock, kept: Mutex::new(kept) })
    }

    /// Notes what the clock shows.
    pub(super) fn follow(&self) {
        drop(self.following());
    }

    /// What `read` says of the reckoning as it stands now.
    pub(super) fn now<T>(&self, read: impl FnOnce(&Reckoning) -> T) -> T {
        read(&self.following().reckoning)
    }

    /// Changes the reckoning; the next commit writes that down.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Reckoning) -> T) -> T {
        let mut kept = self.following();
        kept.changes += 1;
        change(&mut kept.reckoning)
    }

    fn following(&self) -> MutexGuard<'_, Kept> {
        let mut kept = lock(&self.kept);
        let is_ours = std::mem::replace(&mut kept.is_ours, true);
        let (wall, steady) = (ms(self.clock.now()), self.clock.steady());
        let leapt = kept.reckoning.observe(wall, steady, self.clock.boot(), is_ours);
        kept.changes += u64::from(leapt);
        kept
    }

    /// What a transaction that begins now is to write; `None`: nothing.
    pub(super) fn unwritten(&self) -> Option<Unwritten> {
        let kept = self.following();
        let steady = self.clock.steady();
        kept.is_due(steady).then(|| Unwritten {
            reckoning: kept.reckoning.clone(),
            changes: kept.changes,
            steady,
        })
    }

    /// Whether the next commit writes it.
    pub(super) fn is_due(&self) -> bool {
        lock(&self.kept).is_due(self.clock.steady())
    }

    /// It was committed.
    pub(super) fn written(&self, what: &Unwritten) {
        let mut kept = lock(&self.kept);
        (kept.written, kept.saved) = (what.changes, Some(what.steady));
    }
}

impl Kept {
    fn is_due(&self, steady: Duration) -> bool {
        self.changes != self.written
            || self.saved.is_none_or(|saved| steady.saturating_sub(saved) >= SAVED_EVERY)
    }
}

impl Unwritten {
    pub(super) fn write(&self, connection: &Sql<'_>) -> Result<(), StoreError> {
        connection.send(
            "INSERT INTO retention (one, reckoning) VALUES (1, ?1)
             ON CONFLICT (one) DO UPDATE SET reckoning = excluded.reckoning",
            [json(&self.reckoning)?],
        )?;
        Ok(())
    }
}

/// How often the reckoning is written where nothing else calls for it.
const SAVED_EVERY: Duration = Duration::from_mins(15);
