//! The event log: append-only, numbered, each event once.

use super::column::{collect, event_type};
use super::error::StoreError;
use super::state::Store;
use super::telling::{last_sequence, record};
use crate::domain::event::{Draft, EventType};
use crate::domain::route::Routes;
use crate::domain::tracked::BatchKey;
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
                    sequence: row.get("sequence")?,
                    id: row.get("id")?,
                    kind: event_type(row, "type")?,
                    body: row.get("body")?,
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
