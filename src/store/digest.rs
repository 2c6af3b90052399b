//! What a digest is put together from, and where it is recorded.

use super::column::{Pk, count, ms};
use super::error::StoreError;
use super::jobs::{JobRun, note};
use super::state::Store;
use super::{row, telling};
use crate::domain::event::Draft;
use crate::domain::route::Routes;
use crate::domain::tracked::Tracked;
use jiff::Timestamp;
use std::sync::Arc;

impl Store {
    /// Watched batches whose end was seen after `since` and no later than `until`, oldest first; a page of those behind
    /// `after` (an end's time and a row). Empty: there are no more.
    pub async fn ended_between(
        &self,
        since: Timestamp,
        until: Timestamp,
        after: Option<(Timestamp, Pk)>,
    ) -> Result<Vec<(Pk, Tracked)>, StoreError> {
        self.read(move |connection| {
            let (at, pk) = after.map_or((ms(since), Pk::MAX), |(at, pk)| (ms(at), pk));
            let ended = row::select(&format!(
                "WHERE (over_at, pk) > (?1, ?2) AND over_at <= ?3 AND untracked_at IS NULL
                   AND status IN ('completed', 'failed', 'expired', 'cancelled')
                 ORDER BY over_at, pk LIMIT {PAGE_LENGTH}"
            ));
            connection.rows(&ended, (at, pk, ms(until)), row::read)
        })
        .await
    }

    /// Batches that run, the next to end first, at most `limit`; and how many there are.
    pub async fn running(&self, limit: usize) -> Result<(Vec<Tracked>, u64), StoreError> {
        self.read(move |connection| {
            let next = row::select(&format!("WHERE active = 1 ORDER BY eta IS NULL, eta, pk LIMIT {limit}"));
            let found = connection.rows(&next, [], |found| Ok(row::read(found)?.1))?;
            let all =
                connection.one("SELECT count(*) AS count FROM batches WHERE active = 1", [], |row| {
                    count(row, "count")
                })?;
            Ok((found, all))
        })
        .await
    }

    /// Batches that run and are lost, stalled or late at `now`, the oldest first, at most `limit`; and how many there
    /// are.
    pub async fn stuck(&self, now: Timestamp, limit: usize) -> Result<(Vec<Tracked>, u64), StoreError> {
        self.read(move |connection| {
            let stuck = row::select(&format!("WHERE {STUCK} ORDER BY pk LIMIT {limit}"));
            let found = connection.rows(&stuck, [ms(now)], |found| Ok(row::read(found)?.1))?;
            let all = format!("SELECT count(*) AS count FROM batches WHERE {STUCK}");
            let all = connection.one(&all, [ms(now)], |row| count(row, "count"))?;
            Ok((found, all))
        })
        .await
    }

    /// Records a digest and that its turn is over, in one transaction.
    pub async fn record_digest(
        &self,
        draft: Draft,
        run: JobRun,
        routes: Arc<Routes>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            telling::record(tx, &draft, None, &routes)?;
            note(tx, &run)
        })
        .await
    }
}

/// What is told as late stands among the warnings.
const STUCK: &str = "active = 1 AND (lost_since IS NOT NULL OR stalled_since IS NOT NULL OR deadline <= ?1
     OR warned LIKE '%\"overdue since %')";
/// Batches in one page of [`Store::ended_between`].
const PAGE_LENGTH: u32 = 500;
