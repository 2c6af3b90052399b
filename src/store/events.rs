//! The event log: append-only, numbered, each event once.

use super::column::{event_type, ms};
use super::error::StoreError;
use super::state::Store;
use super::telling::{last_sequence, record};
use super::value::Value;
use crate::domain::event::{Draft, EventType};
use crate::domain::route::Routes;
use crate::domain::tracked::BatchKey;
use jiff::Timestamp;
use std::fmt::Write as _;
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
    /// Only those recorded since.
    pub since: Option<Timestamp>,
    /// Only these types; empty: all.
    pub types: Vec<EventType>,
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
        let limit = filter.limit.map_or(i64::MAX, i64::from);
        let (conditions, values) = filter.sql();
        self.read(move |connection| {
            connection.rows(
                &format!(
                    "SELECT sequence, id, type, body FROM events {conditions} ORDER BY sequence LIMIT {limit}"
                ),
                values.as_slice(),
                |row| {
                    Ok(LoggedEvent {
                        sequence: row.get("sequence")?,
                        id: row.get("id")?,
                        kind: event_type(row, "type")?,
                        body: row.get("body")?,
                    })
                },
            )
        })
        .await
    }

    /// The number behind which the newest `count` of these events begin; that of the filter if there are no more.
    pub async fn before_the_newest(&self, filter: EventFilter, count: u64) -> Result<i64, StoreError> {
        let after = filter.after;
        let (conditions, mut values) = filter.sql();
        values.push(Value::from(i64::try_from(count).unwrap_or(i64::MAX)));
        self.read(move |connection| {
            let found = connection.row(
                &format!("SELECT sequence FROM events {conditions} ORDER BY sequence DESC LIMIT 1 OFFSET ?"),
                values.as_slice(),
                |row| row.get("sequence"),
            )?;
            Ok(found.unwrap_or(after))
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

impl EventFilter {
    /// What follows `FROM events`, and its values.
    fn sql(self) -> (String, Vec<Value>) {
        let mut sql = String::from("WHERE sequence > ?");
        let mut values: Vec<Value> = vec![self.after.into()];
        if let Some(key) = self.batch {
            sql.push_str(
                " AND batch = (SELECT pk FROM batches WHERE batches.provider = ? AND batches.id = ?)",
            );
            values.extend([key.provider.into(), key.id.into()]);
        }
        if let Some(since) = self.since {
            sql.push_str(" AND recorded_at >= ?");
            values.push(ms(since).into());
        }
        if !self.types.is_empty() {
            let places = vec!["?"; self.types.len()].join(", ");
            let _ = write!(sql, " AND type IN ({places})");
            values.extend(self.types.iter().map(|kind| kind.as_str().to_owned().into()));
        }
        (sql, values)
    }
}
