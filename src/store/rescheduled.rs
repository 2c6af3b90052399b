//! What a commit has changed on the schedule, and who is told.

use super::column::Pk;
use super::error::StoreError;
use super::row;
use super::sql::Sql;
use crate::domain::tracked::Tracked;
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;

/// What a commit made of a batch's place on the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescheduled {
    /// Its row.
    pub pk: Pk,
    pub provider: String,
    /// `None`: it is on the schedule no more.
    pub next: Option<NextCheck>,
}

/// When a batch is to be checked next, and what the schedule has to know of it besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextCheck {
    pub at: Timestamp,
    /// When the batch was created, Unix seconds; `None` until the provider has shown it.
    pub created_at: Option<i64>,
    /// [`Tracked::is_close`].
    pub closely: bool,
}

impl Rescheduled {
    pub(super) fn of(pk: Pk, stored: &Tracked) -> Self {
        Self { pk, provider: stored.key.provider.clone(), next: NextCheck::of(stored) }
    }
}

impl NextCheck {
    /// What comes after a check of `tracked`; `None`: nothing by itself.
    pub fn of(tracked: &Tracked) -> Option<Self> {
        Some(Self {
            at: tracked.next_poll_at.filter(|_| tracked.untracked_at.is_none())?,
            created_at: tracked.first_seen_at.map(|_| tracked.batch.created_at),
            closely: tracked.is_close(),
        })
    }
}

/// Where these batches stand on the schedule now.
pub(super) fn read(connection: &Sql<'_>, batches: &[Pk]) -> Result<Vec<Rescheduled>, StoreError> {
    let found = row::load_all(connection, batches)?;
    Ok(found.iter().map(|(pk, tracked)| Rescheduled::of(*pk, tracked)).collect())
}

/// Every batch of a provider that is on the schedule, to be checked at `now`.
pub(super) fn at_once(
    connection: &Sql<'_>,
    provider: &str,
    now: Timestamp,
) -> Result<Vec<Rescheduled>, StoreError> {
    connection.rows("SELECT batch, created_at FROM checks WHERE provider = ?1", [provider], |row| {
        let next = NextCheck { at: now, created_at: row.get("created_at")?, closely: false };
        Ok(Rescheduled { pk: row.get("batch")?, provider: provider.to_owned(), next: Some(next) })
    })
}

/// Who is told what each commit has changed on the schedule.
#[derive(Clone, Default)]
pub(super) struct ScheduleWatcher(Option<Arc<dyn Fn(Vec<Rescheduled>) + Send + Sync>>);

impl ScheduleWatcher {
    pub(super) fn new(watcher: impl Fn(Vec<Rescheduled>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(watcher)))
    }

    pub(super) fn tell(&self, changes: Vec<Rescheduled>) {
        if let Some(watcher) = self.0.as_ref().filter(|_| !changes.is_empty()) {
            watcher(changes);
        }
    }
}

impl fmt::Debug for ScheduleWatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScheduleWatcher").field(&self.0.is_some()).finish()
    }
}
