//! The reckoning of how much time has passed, as it is kept across restarts.

use super::column::{json, ms};
use super::error::StoreError;
use crate::clock::Clock;
use crate::domain::retention::Retention;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};
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
    /// How long the machine had run when this was written; `None`: what it says now has not been.
    #[serde(skip)]
    pub(super) saved: Option<Duration>,
}

impl Reckoning {
    /// One that begins with `retention`.
    pub(super) fn of(retention: Retention) -> Self {
        Self { retention, boot: None, steady: 0, told_since: None, saved: None }
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
    pub(super) fn read(connection: &Connection) -> Result<Option<Self>, StoreError> {
        let text: Option<String> = connection
            .query_row("SELECT reckoning FROM retention", [], |row| row.get("reckoning"))
            .optional()?;
        let read = |text: String| {
            serde_json::from_str(&text)
                .map_err(|error| StoreError::Damaged(format!("column reckoning: {error}")))
        };
        text.map(read).transpose()
    }

    pub(super) fn write(&self, connection: &Connection) -> Result<(), StoreError> {
        connection
            .prepare_cached("INSERT OR REPLACE INTO retention (one, reckoning) VALUES (1, ?1)")?
            .execute([json(self)?])?;
        Ok(())
    }
}

/// The clock as the database knows it: whoever writes a time down by a clock that has leapt since writes the leap down
/// with it, so that after a crash the time still has its age.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KnownClock(Option<(i64, Duration)>);

impl KnownClock {
    /// Writes down what the clock has done since it was seen last, if that is more than to go right; gives what is known
    /// once that is committed.
    pub(super) fn follow(
        self,
        connection: &Connection,
        clock: &Clock,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let (wall, steady) = (ms(now), clock.steady());
        if let Some((before, ran_before)) = self.0 {
            let ran = i64::try_from(steady.saturating_sub(ran_before).as_millis()).unwrap_or(i64::MAX);
            if wall.saturating_sub(before).saturating_sub(ran).abs() <= SLACK {
                return Ok(self);
            }
        }
        if let Some(mut reckoning) = Reckoning::read(connection)? {
            reckoning.observe(wall, steady, clock.boot(), self.0.is_some());
            reckoning.write(connection)?;
        }
        Ok(Self(Some((wall, steady))))
    }
}

/// So far the clock may be off between two commits, in milliseconds.
const SLACK: i64 = 2_000;
