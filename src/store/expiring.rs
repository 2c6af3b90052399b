//! Which ended batches' results will soon be deleted by their provider, and telling of them, each once.

use super::column::{Pk, json, ms};
use super::error::StoreError;
use super::state::Store;
use super::transaction::Tx;
use super::value::named;
use super::{row, telling};
use crate::domain::finding;
use crate::domain::route::Routes;
use crate::domain::tracked::Tracked;
use jiff::Timestamp;
use std::sync::Arc;

impl Store {
    /// Tells of every batch whose results will soon be deleted, seen from `now`. Returns how many were told.
    pub async fn tell_expiring(&self, now: Timestamp, routes: Arc<Routes>) -> Result<u64, StoreError> {
        let mut all = 0;
        loop {
            let routes = routes.clone();
            let (found, told) = self.write(move |tx| tell_some(tx, now, &routes)).await?;
            all += told;
            if found < AT_ONCE {
                return Ok(all);
            }
            // Whoever wants to write meanwhile comes first.
            tokio::task::yield_now().await;
        }
    }
}

fn tell_some(tx: &mut Tx<'_>, now: Timestamp, routes: &Routes) -> Result<(usize, u64), StoreError> {
    let due: Vec<(Pk, Tracked)> = tx.rows(
        &row::select(&format!("WHERE results_warn_at <= ?1 ORDER BY results_warn_at LIMIT {AT_ONCE}")),
        [ms(now)],
        row::read,
    )?;
    let mut told = 0;
    for (pk, mut tracked) in due.iter().cloned() {
        if let Some(found) = finding::results_expiring(&mut tracked, now) {
            let draft = found.draft(&tracked);
            told += u64::from(telling::record(tx, &draft, Some((pk, &tracked)), routes)?);
        }
        tx.send(
            "UPDATE batches SET results_warn_at = NULL, warned = :warned WHERE pk = :pk",
            named! { ":pk": pk, ":warned": json(&tracked.warned)? },
        )?;
    }
    Ok((due.len(), told))
}

/// Batches in one transaction.
const AT_ONCE: usize = 100;
