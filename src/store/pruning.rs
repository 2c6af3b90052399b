//! Deleting what nobody needs any more, so that the state does not grow for ever.

use super::column::{Pk, ms};
use super::directory;
use super::error::StoreError;
use super::state::Store;
use super::threads::off_thread;
use super::transaction::Tx;
use jiff::Timestamp;
use rusqlite::Connection;

impl Store {
    /// Deletes what ended (or was untracked, or lost) before `before`, a few hundred rows a transaction; the ids of
    /// the events stay, so that nothing is told twice. Returns how many batches went.
    ///
    /// What a configured webhook is still owed stays, with its batch. On a full disk the ballast is given up first.
    pub async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        let before = ms(before);
        let mut pruned = 0;
        let mut after = Some((i64::MIN, 0));
        while let Some(from) = after {
            let chunk = self.write_freeing(move |tx| prune_batches(tx, from, before)).await?;
            pruned += chunk.deleted;
            after = chunk.last;
            // Whoever wants to write meanwhile comes first.
            tokio::task::yield_now().await;
        }
        while self.write_freeing(move |tx| prune_events_apart(tx, before)).await? > 0 {
            tokio::task::yield_now().await;
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

fn prune_batches(tx: &mut Tx<'_>, after: (i64, Pk), before: i64) -> Result<Pruned, StoreError> {
    let candidates: Vec<(Pk, i64, bool, String)> = tx
        .prepare_cached(&format!(
            "SELECT pk, over_at, provider, EXISTS (SELECT 1 FROM events WHERE events.batch = batches.pk AND {OWED}) AS owed
             FROM batches WHERE (over_at, pk) > (?1, ?2) AND over_at < ?3
             ORDER BY over_at, pk LIMIT {PRUNED_AT_ONCE}"
        ))?
        .query_map((after.0, after.1, before), |row| {
            Ok((row.get("pk")?, row.get("over_at")?, row.get("owed")?, row.get("provider")?))
        })?
        .collect::<Result<_, _>>()?;
    let mut deleted = 0;
    for (pk, _, _, provider) in candidates.iter().filter(|(_, _, owed, _)| !owed) {
        tx.prepare_cached("DELETE FROM batches WHERE pk = ?1")?.execute([pk])?;
        tx.supersede(*pk);
        tx.take_off_schedule(*pk, provider.clone());
        deleted += 1;
    }
    let last = candidates.last().map(|(pk, over_at, ..)| (*over_at, *pk));
    Ok(Pruned { deleted, last: last.filter(|_| candidates.len() == PRUNED_AT_ONCE) })
}

/// Deletes events that are about no batch.
fn prune_events_apart(tx: &mut Tx<'_>, before: i64) -> Result<usize, StoreError> {
    Ok(tx
        .prepare_cached(&format!(
            "DELETE FROM events WHERE sequence IN (
               SELECT sequence FROM events WHERE batch IS NULL AND recorded_at < ?1 AND NOT {OWED} LIMIT 100)"
        ))?
        .execute([before])?)
}

/// Makes the file shorter by some of its empty pages; `false` if few are left.
fn give_pages_back(tx: &mut Tx<'_>) -> Result<bool, StoreError> {
    let free = free_pages(tx)?;
    if free <= FREE_PAGES_KEPT {
        return Ok(false);
    }
    tx.execute_batch("PRAGMA incremental_vacuum(200)")?;
    // A database that was made without room for this shrinks by none.
    Ok(free_pages(tx)? < free)
}

fn free_pages(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.query_row("PRAGMA freelist_count", [], |row| row.get("freelist_count"))?)
}

/// Whether a webhook that is configured is still owed the event of the row.
const OWED: &str = "EXISTS (
     SELECT 1 FROM deliveries WHERE deliveries.sequence = events.sequence AND (
       state IN ('pending', 'inflight') OR (state = 'held' AND webhook NOT IN (
         SELECT name FROM webhooks WHERE configured = 0))))";
/// With what hangs on them a few hundred rows.
const PRUNED_AT_ONCE: usize = 40;
/// 1 MiB, for what comes next.
const FREE_PAGES_KEPT: i64 = 256;
