//! Which results are to be downloaded, how that goes, and the copies that are kept.

use super::batches::{COLUMNS, tracked};
use super::column::{collect, json, ms};
use super::events;
use super::{Pk, Store, StoreError, Tx};
use crate::domain::batch::Usage;
use crate::domain::event::{Draft, EventType};
use crate::domain::route::Routes;
use crate::domain::tracked::{BatchKey, SavedResults, Tracked};
use jiff::Timestamp;
use std::sync::Arc;

/// Results that are due.
#[derive(Clone, Debug)]
pub struct Due {
    /// The batch's row.
    pub pk: Pk,
    /// The batch.
    pub tracked: Tracked,
    /// Attempts that failed.
    pub tries: u32,
}

/// Results whose end has been told are due from now on.
pub(super) fn want(tx: &Tx<'_>, pk: Pk, told: &[Draft]) -> Result<(), StoreError> {
    let ended = |draft: &Draft| matches!(draft.kind, EventType::Batch(status) if status.is_terminal());
    if told.iter().any(ended) {
        tx.prepare_cached("UPDATE batches SET download_at = ?2 WHERE pk = ?1 AND results IS NULL")?
            .execute((pk, ms(tx.now)))?;
    }
    Ok(())
}

impl Store {
    /// The results that are due at `now`, the longest due first.
    ///
    /// What may still get richer (`docs/contract.md#incomplete-answers`) waits for its second look.
    pub async fn downloads_due(&self, now: Timestamp, limit: u32) -> Result<Vec<Due>, StoreError> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, download_tries FROM batches
                 WHERE download_at <= ?1 AND settled = 1 ORDER BY download_at LIMIT ?2"
            ))?;
            collect(query.query((ms(now), limit))?, |row| {
                let (pk, tracked) = tracked(row)?;
                Ok(Due { pk, tracked, tries: row.get("download_tries")? })
            })
        })
        .await
    }

    /// An attempt failed; `next`: when to try again, `None`: never, and that is told.
    pub async fn download_failed(
        &self,
        pk: Pk,
        error: String,
        next: Option<Timestamp>,
        now: Timestamp,
        routes: Arc<Routes>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.prepare_cached(
                "UPDATE batches SET download_at = ?2, download_tries = download_tries + 1, download_error = ?3
                 WHERE pk = ?1",
            )?
            .execute((pk, next.map(ms), &error))?;
            if next.is_none() {
                tell(tx, pk, EventType::ResultsFailed, Some(&error), now, &routes)?;
            }
            Ok(())
        })
        .await
    }

    /// The copy is there: noted, told, and the tokens that its lines tell become the batch's if it has none yet, all in
    /// one transaction. Without a copy there was nothing to download. `flaw`: what is wrong with the copy, which then does
    /// not count as downloaded.
    pub async fn download_done(
        &self,
        pk: Pk,
        saved: Option<SavedResults>,
        usage: Option<Usage>,
        flaw: Option<String>,
        now: Timestamp,
        routes: Arc<Routes>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let saved_json = saved.as_ref().map(json).transpose()?;
            tx.prepare_cached(
                "UPDATE batches SET download_at = NULL, download_error = ?3, results = coalesce(?2, results)
                 WHERE pk = ?1",
            )?
            .execute((pk, saved_json, &flaw))?;
            give_usage(tx, pk, usage)?;
            match (saved, flaw) {
                (None, _) => Ok(()),
                (Some(_), None) => tell(tx, pk, EventType::ResultsDownloaded, None, now, &routes),
                (Some(_), Some(flaw)) => tell(tx, pk, EventType::ResultsFailed, Some(&flaw), now, &routes),
            }
        })
        .await
    }

    /// Batches whose results were not downloaded as they should be, and for which nothing more is tried; the newest
    /// hundred.
    pub async fn failed_downloads(&self) -> Result<Vec<BatchKey>, StoreError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT provider, id FROM batches
                 WHERE download_error IS NOT NULL AND download_at IS NULL AND untracked_at IS NULL
                 ORDER BY pk DESC LIMIT 100",
            )?;
            collect(query.query([])?, |row| {
                Ok(BatchKey { provider: row.get("provider")?, id: row.get("id")? })
            })
        })
        .await
    }

    /// The tokens that a batch's results tell, once a batch: what its provider told itself stands.
    pub async fn set_usage(&self, key: BatchKey, usage: Usage) -> Result<(), StoreError> {
        self.write(move |tx| {
            let pk = tx
                .prepare_cached("SELECT pk FROM batches WHERE provider = ?1 AND id = ?2")?
                .query_and_then((&key.provider, &key.id), |row| row.get(0))?
                .next()
                .transpose()?;
            match pk {
                Some(pk) => give_usage(tx, pk, Some(usage)),
                None => Ok(()),
            }
        })
        .await
    }

    /// The copy at `path` has been deleted.
    pub async fn forget_results(&self, path: String) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.prepare_cached("UPDATE batches SET results = NULL WHERE results ->> '$.path' = ?1")?
                .execute([path])?;
            Ok(())
        })
        .await
    }
}

/// Records how a download went.
fn tell(
    tx: &mut Tx<'_>,
    pk: Pk,
    kind: EventType,
    why: Option<&str>,
    now: Timestamp,
    routes: &Routes,
) -> Result<(), StoreError> {
    let batch = tx
        .prepare_cached(&format!("SELECT {COLUMNS} FROM batches WHERE pk = ?1"))?
        .query_and_then([pk], tracked)?
        .next()
        .transpose()?;
    if let Some((_, tracked)) = batch {
        let mut draft = Draft::finding(kind, &tracked, tracked.status_since, now);
        if let Some(why) = why {
            draft = draft.because(why);
        }
        events::record(tx, &draft, Some((pk, &tracked)), routes)?;
    }
    Ok(())
}

fn give_usage(tx: &Tx<'_>, pk: Pk, usage: Option<Usage>) -> Result<(), StoreError> {
    let Some(usage) = usage else { return Ok(()) };
    tx.prepare_cached(
        "UPDATE batches SET batch = json_set(batch, '$.usage', json(?2))
         WHERE pk = ?1 AND batch ->> '$.usage' IS NULL",
    )?
    .execute((pk, json(&usage)?))?;
    Ok(())
}
