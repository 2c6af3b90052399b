//! Which ended batches' results will soon be deleted by their provider, and telling of them, each once.

use super::batches::{COLUMNS, tracked};
use super::column::{json, ms};
use super::{Pk, Store, StoreError, Tx, events};
use crate::domain::finding;
use crate::domain::route::Routes;
use crate::domain::tracked::Tracked;
use jiff::Timestamp;
use rusqlite::Connection;
use std::sync::Arc;

impl Store {
    /// Tells of every batch whose results will soon be deleted, seen from `now`. Returns how many were told.
    pub async fn tell_expiring(&self, now: Timestamp, routes: Arc<Routes>) -> Result<u64, StoreError> {
        let mut all = 0;
        loop {
            let routes = routes.clone();
            let (looked_at, told) = self.write(move |tx| tell_some(tx, now, &routes)).await?;
            all += told;
            if looked_at < AT_ONCE {
                return Ok(all);
            }
            // Whoever wants to write meanwhile comes first.
            tokio::task::yield_now().await;
        }
    }
}

/// Notes when it is to be told that the results of a batch will soon be deleted.
pub(super) fn plan(connection: &Connection, pk: Pk, tracked: &Tracked) -> Result<(), StoreError> {
    if tracked.batch.status.is_terminal() {
        connection
            .prepare_cached("UPDATE batches SET results_warn_at = ?2 WHERE pk = ?1")?
            .execute((pk, finding::results_warn_at(tracked).map(ms)))?;
    }
    Ok(())
}

fn tell_some(tx: &mut Tx<'_>, now: Timestamp, routes: &Routes) -> Result<(usize, u64), StoreError> {
    let due: Vec<(Pk, Tracked)> = tx
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM batches WHERE results_warn_at <= ?1 ORDER BY results_warn_at LIMIT {AT_ONCE}"
        ))?
        .query_and_then([ms(now)], tracked)?
        .collect::<Result<_, StoreError>>()?;
    let mut told = 0;
    for (pk, mut tracked) in due.iter().cloned() {
        if let Some(draft) = finding::results_expiring(&mut tracked, now) {
            told += u64::from(events::record(tx, &draft, Some((pk, &tracked)), routes)?);
        }
        tx.prepare_cached("UPDATE batches SET results_warn_at = NULL, warned = ?2 WHERE pk = ?1")?
            .execute((pk, json(&tracked.warned)?))?;
    }
    Ok((due.len(), told))
}

const AT_ONCE: usize = 100;
