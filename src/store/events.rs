//! The event log: append-only, numbered, each event once.

use super::column::{collect, event_type, ms};
use super::{Pk, Store, StoreError, Tx, outbox};
use crate::domain::event::{Draft, EventType};
use crate::domain::route::Routes;
use crate::domain::tracked::{BatchKey, Tracked};
use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio::sync::watch;

/// A recorded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEvent {
    /// Its number in the log.
    pub sequence: i64,
    /// `evt_…`
    pub id: String,
    /// What happened.
    pub kind: EventType,
    /// The frozen body, as generic webhooks get it.
    pub body: String,
}

/// Which events to read, oldest first.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Only those with a greater number.
    pub after: i64,
    /// Only those of this batch.
    pub batch: Option<BatchKey>,
    /// At most so many.
    pub limit: Option<u32>,
}

impl Store {
    /// Records an event that is not about one batch, with its deliveries; `false` if it was recorded before.
    ///
    /// What a webhook is owed is decided here, once: it is held if the webhook is switched off, by what this store
    /// knows of it or, where it knows nothing, by `routes`.
    pub async fn record_event(&self, draft: Draft, routes: Arc<Routes>) -> Result<bool, StoreError> {
        self.write(move |tx| record(tx, &draft, None, &routes)).await
    }

    /// Reads events.
    pub async fn events(&self, filter: EventFilter) -> Result<Vec<LoggedEvent>, StoreError> {
        self.read(move |connection| {
            let limit = filter.limit.map_or(-1, i64::from);
            let read = |row: &rusqlite::Row<'_>| {
                Ok(LoggedEvent {
                    sequence: row.get(0)?,
                    id: row.get(1)?,
                    kind: event_type(row, 2)?,
                    body: row.get(3)?,
                })
            };
            if let Some(key) = filter.batch {
                let mut query = connection.prepare_cached(
                    "SELECT sequence, id, type, body FROM events
                     WHERE batch = (SELECT pk FROM batches WHERE provider = ?1 AND id = ?2) AND sequence > ?3
                     ORDER BY sequence LIMIT ?4",
                )?;
                collect(query.query((key.provider, key.id, filter.after, limit))?, read)
            } else {
                let mut query = connection.prepare_cached(
                    "SELECT sequence, id, type, body FROM events WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
                )?;
                collect(query.query((filter.after, limit))?, read)
            }
        })
        .await
    }

    /// The number of the newest event; 0 if there is none.
    pub async fn last_sequence(&self) -> Result<i64, StoreError> {
        self.read(last_sequence).await
    }

    /// How many events of each type were recorded by this process: for metrics.
    pub fn recorded_by_type(&self) -> Vec<(EventType, u64)> {
        self.0.daemon.as_ref().map(|daemon| daemon.writer.core.recorded()).unwrap_or_default()
    }

    /// Wakes whenever an event was committed; the value is the newest number.
    ///
    /// Of a store that was opened for reading only it never wakes.
    pub fn watch_events(&self) -> watch::Receiver<i64> {
        match &self.0.daemon {
            Some(daemon) => daemon.writer.core.watch_events(),
            None => watch::Sender::new(0).subscribe(),
        }
    }
}

/// The number that was given last, even if its event has been deleted since.
pub(super) fn last_sequence(connection: &Connection) -> Result<i64, StoreError> {
    let last = connection
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'events'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(last.unwrap_or(0))
}

/// Records `draft` with a delivery for each webhook that wants it, unless it was recorded before.
///
/// `about`: the batch that it is about, as it stands in its row; its event is fenced for ever.
pub(super) fn record(
    tx: &mut Tx<'_>,
    draft: &Draft,
    about: Option<(Pk, &Tracked)>,
    routes: &Routes,
) -> Result<bool, StoreError> {
    if let Some((_, tracked)) = about {
        let fenced = tx
            .prepare_cached("INSERT INTO fences (about, id) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
            .execute((fence(&tracked.key), &draft.id))?;
        if fenced == 0 {
            return Ok(false);
        }
    }
    // The number stands in the body, so it must be known first; there is one writer only.
    let sequence = last_sequence(tx)? + 1;
    let recorded = tx
        .prepare_cached(
            "INSERT INTO events (sequence, id, type, batch, provider, batch_id, recorded_at, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO NOTHING",
        )?
        .execute((
            sequence,
            &draft.id,
            draft.kind.as_str(),
            about.map(|(pk, _)| pk),
            &draft.provider,
            &draft.batch_id,
            ms(tx.now),
            draft.body(sequence),
        ))?;
    if recorded == 0 {
        return Ok(false);
    }
    tx.tell_event(sequence, draft.kind);
    for route in &routes.0 {
        if route.wants(draft, about.map(|(_, tracked)| tracked))
            || was_told_of_the_beginning(tx, draft, about.map(|(pk, _)| pk), sequence, &route.webhook)?
        {
            outbox::owe(tx, sequence, route)?;
        }
    }
    Ok(true)
}

/// Whether `draft` ends what `webhook` was told of (`docs/contract.md#findings`).
fn was_told_of_the_beginning(
    tx: &Tx<'_>,
    draft: &Draft,
    about: Option<Pk>,
    sequence: i64,
    webhook: &str,
) -> Result<bool, StoreError> {
    for beginning in draft.kind.ends() {
        let told: bool = match about {
            Some(pk) => tx
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM events JOIN deliveries USING (sequence)
                       WHERE events.batch = ?1 AND type = ?2 AND webhook = ?3)",
                )?
                .query_row((pk, beginning.as_str(), webhook), |row| row.get(0))?,
            // What the end before has ended is over.
            None => tx
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM events JOIN deliveries USING (sequence)
                       WHERE events.batch IS NULL AND provider IS ?1 AND type = ?2 AND webhook = ?3
                         AND body ->> '$.data.webhook' IS ?6 AND sequence > coalesce((SELECT max(sequence) FROM events
                           WHERE batch IS NULL AND provider IS ?1 AND type = ?4 AND sequence < ?5
                             AND body ->> '$.data.webhook' IS ?6), 0))",
                )?
                .query_row(
                    (
                        &draft.provider,
                        beginning.as_str(),
                        webhook,
                        draft.kind.as_str(),
                        sequence,
                        draft.data["webhook"].as_str(),
                    ),
                    |row| row.get(0),
                )?,
        };
        if told {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where the fences of a batch's events stand.
pub(super) fn fence(key: &BatchKey) -> i64 {
    let mut hash = Sha256::new();
    for field in [&key.provider, &key.id] {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    i64::from_be_bytes(first)
}
