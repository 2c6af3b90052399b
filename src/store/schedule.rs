//! The schedule as the database has it: what a commit changes of it, and what memory is compared with.

use super::column::{Pk, instant, ms};
use super::error::StoreError;
use super::given::Given;
use super::rescheduled::{NextCheck, Rescheduled, ScheduleWatcher};
use super::row;
use super::sql::Sql;
use super::state::Store;
use crate::domain::ownership::Scope;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the schedule keeps in memory of a watched batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleEntry {
    /// Its row.
    pub pk: Pk,
    pub provider: Arc<str>,
    /// When it is due.
    pub next_poll_at: Timestamp,
    /// When it was created, Unix seconds; `None` until the provider has shown it.
    pub created_at: Option<i64>,
}

impl Store {
    /// Tells `watcher` after each commit what it has changed on the schedule, in the order of the commits and before
    /// whoever wrote is answered: batches registered, tracked again, checked with news, untracked, deleted.
    ///
    /// One watcher at a time; it must not wait and must not use the store.
    pub fn watch_schedule(&self, watcher: impl Fn(Vec<Rescheduled>) + Send + Sync + 'static) {
        if let Some(daemon) = &self.0.daemon {
            daemon.writer.core.watch_schedule(ScheduleWatcher::new(watcher));
        }
    }

    /// Every batch that is to be polled some day, for the schedule in memory.
    pub async fn schedule(&self) -> Result<Vec<ScheduleEntry>, StoreError> {
        let mut entries = self.read(|connection| entries(connection, None)).await?;
        let Some(daemon) = &self.0.daemon else { return Ok(entries) };
        let touches = daemon.writer.core.all_touches();
        for entry in &mut entries {
            if let Some(touch) = touches.get(&entry.pk) {
                entry.next_poll_at = touch.next_poll_at();
            }
        }
        Ok(entries)
    }

    /// The same of one provider.
    pub async fn schedule_of(&self, provider: String) -> Result<Vec<ScheduleEntry>, StoreError> {
        let mut entries = self.schedule().await?;
        entries.retain(|entry| *entry.provider == *provider);
        Ok(entries)
    }

    /// Asks the daemon that polls this provider, which shares the state with this one, to check a batch now; `None`: all
    /// that are active.
    pub async fn ask_for_checks(&self, provider: String, batch: Option<Pk>) -> Result<(), StoreError> {
        self.write(move |tx| {
            let kind = if batch.is_some() { "nudge" } else { "hurry" };
            tx.write_letter(Scope::Account(provider), kind, batch);
            Ok(())
        })
        .await
    }

    /// Every batch that was due at `before`, and those of `on_schedule` that are not on the schedule. What is known of
    /// checks that are not written yet counts.
    pub async fn compare(
        &self,
        before: Timestamp,
        on_schedule: Vec<Pk>,
    ) -> Result<(Vec<ScheduleEntry>, Vec<Pk>), StoreError> {
        let (mut due, off) = self
            .read(move |connection| {
                let due = entries(connection, Some(before))?;
                let off = connection.rows_of(
                    "SELECT given.pk AS pk FROM given(pk INT)
                     WHERE NOT EXISTS (SELECT 1 FROM checks WHERE checks.batch = given.pk)",
                    &Given::each(on_schedule),
                    |row| row.get("pk"),
                )?;
                Ok((due, off))
            })
            .await?;
        if let Some(daemon) = &self.0.daemon {
            let core = &daemon.writer.core;
            due.retain(|entry| {
                let touch = core.touch_of(entry.pk);
                touch.is_none_or(|touch| touch.next_poll_at() <= before)
            });
        }
        Ok((due, off))
    }

    /// Where each of these batches stands on the schedule, if it is on it at all; what is known of checks that are not
    /// written yet counts.
    pub async fn next_checks(&self, batches: Vec<Pk>) -> Result<BTreeMap<Pk, NextCheck>, StoreError> {
        let mut found = self.read(move |connection| row::load_all(connection, &batches)).await?;
        self.show_touches(&mut found);
        Ok(found.iter().filter_map(|(pk, tracked)| Some((*pk, NextCheck::of(tracked)?))).collect())
    }
}

/// What of the schedule is due at `before`, or all of it. The table is read from end to end: it is narrow, and an index
/// would have to be kept up to date by every check.
fn entries(connection: &Sql<'_>, before: Option<Timestamp>) -> Result<Vec<ScheduleEntry>, StoreError> {
    let mut names = BTreeSet::new();
    connection.rows("SELECT batch, provider, next_poll_at, created_at FROM checks WHERE next_poll_at <= ?1 ORDER BY batch", [before.map_or(i64::MAX, ms)], |row| {
        Ok(ScheduleEntry {
            pk: row.get("batch")?,
            provider: shared(&mut names, row.text("provider")?),
            next_poll_at: instant(row, "next_poll_at")?,
            created_at: row.get("created_at")?,
        })
    })
}

/// One name for all batches of a provider: there may be many.
fn shared(names: &mut BTreeSet<Arc<str>>, name: &str) -> Arc<str> {
    if let Some(known) = names.get(name) {
        return Arc::clone(known);
    }
    let name: Arc<str> = name.into();
    names.insert(Arc::clone(&name));
    name
}
