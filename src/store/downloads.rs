//! Which results are to be downloaded, how that goes, and the copies that are kept.

use super::column::{Pk, json, ms};
use super::error::StoreError;
use super::state::Store;
use super::transaction::Tx;
use super::value::named;
use super::{costs, row, telling};
use crate::domain::cost::Told;
use crate::domain::event::{EventType, Occurrence};
use crate::domain::route::Routes;
use crate::domain::tracked::{BatchKey, SavedResults, Tracked};
use jiff::Timestamp;
use std::sync::Arc;

/// Results that are due.
#[derive(Clone, Debug)]
pub struct Due {
    /// The batch's row.
    pub pk: Pk,
    pub tracked: Tracked,
    /// Attempts that failed.
    pub tries: u32,
}

/// Results whose end is told are due from then on.
pub(super) fn are_wanted(told: &[Occurrence]) -> bool {
    told.iter().any(|event| EventType::ENDS.contains(&event.kind()))
}

impl Store {
    /// The results that are due at `now`, the longest due first.
    ///
    /// What may still get richer (`docs/contract.md#incomplete-answers`) waits for its second check.
    pub async fn downloads_due(&self, now: Timestamp, limit: u32) -> Result<Vec<Due>, StoreError> {
        self.read(move |connection| {
            connection.rows(
                &row::select_with(
                    "download_tries",
                    "WHERE download_at <= ?1 AND settled = 1 ORDER BY download_at LIMIT ?2",
                ),
                (ms(now), limit),
                |due| {
                    let (pk, tracked) = row::read(due)?;
                    Ok(Due { pk, tracked, tries: due.get("download_tries")? })
                },
            )
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
            tx.send(
                "UPDATE batches SET download_at = :next, download_tries = download_tries + 1,
                   download_error = :error
                 WHERE pk = :pk",
                named! { ":pk": pk, ":next": next.map(ms), ":error": error.clone() },
            )?;
            if next.is_none() {
                tell(tx, pk, EventType::ResultsFailed, Some(error), now, &routes)?;
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
        told: Option<Told>,
        flaw: Option<String>,
        now: Timestamp,
        routes: Arc<Routes>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let saved_json = saved.as_ref().map(json).transpose()?;
            tx.send(
                "UPDATE batches SET download_at = NULL, download_error = :flaw,
                   results = coalesce(:results, results)
                 WHERE pk = :pk",
                named! { ":pk": pk, ":results": saved_json, ":flaw": flaw },
            )?;
            give_tokens(tx, pk, told)?;
            match (saved, flaw) {
                (None, _) => Ok(()),
                (Some(_), None) => tell(tx, pk, EventType::ResultsDownloaded, None, now, &routes),
                (Some(_), Some(flaw)) => tell(tx, pk, EventType::ResultsFailed, Some(flaw), now, &routes),
            }
        })
        .await
    }

    /// Batches whose results were not downloaded as they should be, and for which nothing more is tried; the newest
    /// hundred.
    pub async fn failed_downloads(&self) -> Result<Vec<BatchKey>, StoreError> {
        self.read(|connection| {
            connection.rows(
                "SELECT provider, id FROM batches
                 WHERE download_error IS NOT NULL AND download_at IS NULL AND untracked_at IS NULL
                 ORDER BY pk DESC LIMIT 100",
                [],
                |row| Ok(BatchKey { provider: row.get("provider")?, id: row.get("id")? }),
            )
        })
        .await
    }

    /// The tokens that a batch's results tell, once a batch: what its provider told itself stands.
    pub async fn set_usage(&self, key: BatchKey, told: Told) -> Result<(), StoreError> {
        self.write(move |tx| match row::number(tx, &key)? {
            Some(pk) => give_tokens(tx, pk, Some(told)),
            None => Ok(()),
        })
        .await
    }

    /// The copy at `path` has been deleted.
    pub async fn forget_results(&self, path: String) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.send("UPDATE batches SET results = NULL WHERE results ->> '$.path' = ?1", [path])?;
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
    why: Option<String>,
    now: Timestamp,
    routes: &Routes,
) -> Result<(), StoreError> {
    if let Some((_, tracked)) = row::load(tx, pk)? {
        let found = match why {
            None => Occurrence::finding(kind, tracked.status_since, now),
            Some(why) => Occurrence::finding_because(kind, tracked.status_since, now, why),
        };
        telling::record(tx, &found.draft(&tracked), Some((pk, &tracked)), routes)?;
    }
    Ok(())
}

/// The tokens that a batch's results tell become the batch's if it has none yet, and what it cost follows from them.
fn give_tokens(tx: &Tx<'_>, pk: Pk, told: Option<Told>) -> Result<(), StoreError> {
    let Some(Told { usage, by_model, .. }) = told else { return Ok(()) };
    let Some((_, Tracked { mut batch, .. })) = row::load(tx, pk)? else { return Ok(()) };
    if batch.usage.is_none_or(|known| known.input_tokens == 0 && known.output_tokens == 0) {
        batch.usage = Some(usage);
        tx.send("UPDATE batches SET batch = ?2 WHERE pk = ?1", (pk, json(&batch)?))?;
    }
    if !by_model.is_empty() {
        tx.send(
            "UPDATE batches SET spent = :spent WHERE pk = :pk",
            named! { ":pk": pk, ":spent": json(&by_model)? },
        )?;
    }
    costs::settle(tx, pk)?;
    Ok(())
}
