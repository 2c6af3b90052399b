//! The event log: append-only, numbered, each event once.

use super::{Store, StoreError};
use crate::domain::event::{Draft, EventType};
use crate::domain::route::Routes;
use crate::domain::tracked::BatchKey;
use std::sync::Arc;

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
    pub async fn record_event(&self, draft: Draft, routes: Arc<Routes>) -> Result<bool, StoreError> {
        let _ = (draft, routes);
        unimplemented!()
    }

    /// Reads events.
    pub async fn events(&self, filter: EventFilter) -> Result<Vec<LoggedEvent>, StoreError> {
        let _ = filter;
        unimplemented!()
    }

    /// The number of the newest event; 0 if there is none.
    pub async fn last_sequence(&self) -> Result<i64, StoreError> {
        unimplemented!()
    }

    /// How many events of each type were recorded by this process: for metrics.
    pub fn recorded_by_type(&self) -> Vec<(EventType, u64)> {
        unimplemented!()
    }

    /// Wakes whenever an event was committed; the value is the newest number.
    pub fn watch_events(&self) -> tokio::sync::watch::Receiver<i64> {
        unimplemented!()
    }
}
