//! Creations that were asked for over the API, so that whoever asks again gets the same batch
//! (`docs/contract.md#creating-once`).

use super::column::ms;
use super::error::StoreError;
use super::sql::Sql;
use super::state::Store;
use super::transaction::Tx;
use super::value::named;
use crate::domain::time::{earlier, since};
use crate::domain::tracked::BatchKey;
use jiff::Timestamp;
use std::time::Duration;

/// What tells one creation from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The client's `Idempotency-Key`.
    pub key: Option<String>,
    /// A hash of all that was asked for.
    pub request: String,
}

/// A creation that was asked for before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// What was asked for, as in [`Asked::request`].
    pub request: String,
    /// The mark of its submission.
    pub marker: String,
    /// `None`: it is not known yet whether there is one.
    pub batch: Option<BatchKey>,
}

impl Store {
    /// The creation with the same key within a day; without a key the newest with the same request within ten minutes.
    pub async fn asked_before(&self, asked: Asked, now: Timestamp) -> Result<Option<Before>, StoreError> {
        self.read(move |connection| {
            let (column, value, within) = match &asked.key {
                Some(key) => ("key", key, KEPT_FOR),
                None => ("request", &asked.request, RETRIED_WITHIN),
            };
            let found = connection.row(
                &format!(
                    "SELECT marker, request, provider, batch_id, created_at FROM creations
                 WHERE {column} = ?1 ORDER BY pk DESC LIMIT 1"
                ),
                [value],
                |row| {
                    let provider: Option<String> = row.get("provider")?;
                    let batch = provider
                        .zip(row.get::<Option<String>>("batch_id")?)
                        .map(|(provider, id)| BatchKey { provider, id });
                    let before = Before { request: row.get("request")?, marker: row.get("marker")?, batch };
                    Ok((before, super::column::at(row.get("created_at")?)))
                },
            )?;
            // A clock that was set makes nothing older than it is.
            let is_recent = |at: Timestamp| since(at, now) < within && since(now, at) < within;
            Ok(found.filter(|(_, at)| is_recent(*at)).map(|(before, _)| before))
        })
        .await
    }
}

impl Store {
    /// Forgets the creations whose keys begin with `prefix`.
    pub async fn forget_asked(&self, prefix: String) -> Result<(), StoreError> {
        self.write(move |tx| {
            let end = format!("{prefix}{}", char::MAX);
            tx.send("DELETE FROM creations WHERE key >= ?1 AND key < ?2", (prefix, end))?;
            Ok(())
        })
        .await
    }
}

/// Written with the submission of `marker`.
pub(super) fn open(tx: &Tx<'_>, marker: &str, asked: &Asked) -> Result<(), StoreError> {
    tx.send(
        "DELETE FROM creations WHERE created_at < ?1
           AND NOT EXISTS (SELECT 1 FROM submissions WHERE submissions.marker = creations.marker)",
        [ms(earlier(tx.now, KEPT_FOR))],
    )?;
    tx.send(
        "INSERT INTO creations (marker, key, request, created_at) VALUES (:marker, :key, :request, :now)",
        named! {
            ":marker": marker,
            ":key": asked.key,
            ":request": asked.request,
            ":now": ms(tx.now),
        },
    )?;
    Ok(())
}

/// The submission has created this batch.
pub(super) fn complete(connection: &Sql<'_>, marker: &str, batch: &BatchKey) -> Result<(), StoreError> {
    connection.send(
        "UPDATE creations SET provider = ?2, batch_id = ?3 WHERE marker = ?1",
        (marker, &batch.provider, &batch.id),
    )?;
    Ok(())
}

/// The submission has created nothing: whoever asks again has it created.
pub(super) fn forget(connection: &Sql<'_>, marker: &str) -> Result<(), StoreError> {
    connection.send("DELETE FROM creations WHERE marker = ?1", [marker])?;
    Ok(())
}

/// How long a key stands for its batch.
const KEPT_FOR: Duration = Duration::from_hours(24);
/// For how long a retry may come that has no key.
const RETRIED_WITHIN: Duration = Duration::from_mins(10);
