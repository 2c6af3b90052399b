//! Deleting what nobody needs any more, so that the state does not grow for ever.

use super::column::Pk;
use super::directory;
use super::error::StoreError;
use super::sql::Sql;
use super::state::Store;
use super::threads::off_thread;
use super::transaction::Tx;
use std::ops::Range;

impl Store {
    /// Deletes what ended (or was untracked, or lost) in `expired`, in Unix milliseconds, a few hundred rows a
    /// transaction and `most` batches in all; the ids of the events stay, so that nothing is told twice. Returns how many
    /// batches went.
    ///
    /// What a configured webhook is still owed stays, with its batch. On a full disk the ballast is given up first.
    pub async fn prune(&self, expired: Vec<Range<i64>>, most: u64) -> Result<u64, StoreError> {
        let mut pruned = 0;
        for part in &expired {
            let mut after = (pruned < most).then_some((part.start, Pk::MIN));
            while let Some(from) = after {
                let (end, most) = (part.end, most - pruned);
                let chunk = self.write_freeing(move |tx| prune_batches(tx, from, end, most)).await?;
                pruned += chunk.deleted;
                after = chunk.last.filter(|_| chunk.deleted < most);
                // Whoever wants to write meanwhile comes first.
                tokio::task::yield_now().await;
            }
            let (start, end) = (part.start, part.end);
            while self.write_freeing(move |tx| prune_events_apart(tx, start, end)).await? > 0 {
                tokio::task::yield_now().await;
            }
        }
        while self.write_freeing(give_pages_back).await? {
            tokio::task::yield_now().await;
        }
        let dir = self.0.dir.clone();
        off_thread(move || directory::set_ballast(&dir)).await?;
        Ok(pruned)
    }
}

/// What one transaction of [`Store::prune`] did.
struct Pruned {
    deleted: u64,
    /// After which batch the next one goes on; `None`: there is no next.
    last: Option<(i64, Pk)>,
}

fn prune_batches(tx: &mut Tx<'_>, after: (i64, Pk), end: i64, most: u64) -> Result<Pruned, StoreError> {
    let candidates: Vec<(Pk, i64, bool, String)> = tx.rows(&format!(
            "SELECT pk, over_at, provider, EXISTS (SELECT 1 FROM events WHERE events.batch = batches.pk AND {OWED}) AS owed
             FROM batches WHERE (over_at, pk) > (?1, ?2) AND over_at < ?3
             ORDER BY over_at, pk LIMIT {PRUNED_AT_ONCE}"
        ), (after.0, after.1, end), |row| {
            Ok((row.get("pk")?, row.get("over_at")?, row.get("owed")?, row.get("provider")?))
        })?;
    let mut deleted = 0;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    for (pk, _, _, provider) in candidates.iter().filter(|(_, _, owed, _)| !owed).take(most) {
        tx.send("DELETE FROM batches WHERE pk = ?1", [pk])?;
        tx.supersede(*pk);
        tx.take_off_schedule(*pk, provider.clone());
        deleted += 1;
    }
    let last = candidates.last().map(|(pk, over_at, ..)| (*over_at, *pk));
    Ok(Pruned { deleted, last: last.filter(|_| candidates.len() == PRUNED_AT_ONCE) })
}

/// Deletes events that are about no batch. What began and is not over stays: its end is told to who was told of it.
fn prune_events_apart(tx: &mut Tx<'_>, start: i64, end: i64) -> Result<usize, StoreError> {
    tx.execute(
        &format!(
            "DELETE FROM events WHERE sequence IN (
               SELECT sequence FROM events WHERE batch IS NULL AND recorded_at >= ?1 AND recorded_at < ?2
                 AND NOT {OWED} AND NOT {OPEN_EPISODE} LIMIT 100)"
        ),
        (start, end),
    )
}

/// Makes the file shorter by some of its empty pages; `false` if few are left.
fn give_pages_back(tx: &mut Tx<'_>) -> Result<bool, StoreError> {
    let Sql::File(connection) = tx.sql() else { return Ok(false) };
    let free = free_pages(connection)?;
    if free <= FREE_PAGES_KEPT {
        return Ok(false);
    }
    connection.execute_batch("PRAGMA incremental_vacuum(200)")?;
    // A database that was made without room for this shrinks by none.
    Ok(free_pages(connection)? < free)
}

fn free_pages(connection: &rusqlite::Connection) -> Result<i64, StoreError> {
    Ok(connection.query_row("PRAGMA freelist_count", [], |row| row.get("freelist_count"))?)
}

/// Whether a webhook that is configured is still owed the event of the row.
pub(super) const OWED: &str = "EXISTS (
     SELECT 1 FROM deliveries WHERE deliveries.sequence = events.sequence AND (
       state IN ('pending', 'inflight') OR (state = 'held' AND webhook NOT IN (
         SELECT name FROM webhooks WHERE configured = 0))))";
/// Whether the event of the row tells of trouble that lasts.
const OPEN_EPISODE: &str = "(
     type IN ('provider.unauthorized', 'provider.unreachable') AND provider IN (
       SELECT name FROM providers WHERE refused_since IS NOT NULL OR silent_since IS NOT NULL)
     OR type = 'webhook.failing' AND body ->> '$.data.webhook' IN (
       SELECT name FROM webhooks WHERE told_since IS NOT NULL))";
/// With what hangs on them a few hundred rows.
const PRUNED_AT_ONCE: usize = 40;
/// 1 MiB, for what comes next.
const FREE_PAGES_KEPT: i64 = 256;
