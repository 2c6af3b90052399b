//! Deliveries that were given up and of which the other webhooks are still to be told.

use super::super::column::{Pk, count, event_type, instant, ms};
use super::super::error::StoreError;
use super::super::state::Store;
use super::super::telling;
use super::super::value::named;
use crate::domain::event::{Draft, EventType};
use crate::domain::route::Routes;
use jiff::Timestamp;
use std::sync::Arc;

/// What of a webhook was given up and has not been told yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// How many deliveries.
    pub count: u64,
    /// When the first of them was given up.
    pub since: Timestamp,
    /// The one that was given up last.
    pub last: Dead,
}

/// One delivery that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Its row.
    pub pk: Pk,
    /// `evt_…`
    pub event_id: String,
    /// What it was to tell.
    pub kind: EventType,
    /// The provider and the batch that it was about, if any.
    pub provider: Option<String>,
    pub batch_id: Option<String>,
    /// Attempts in all.
    pub attempts: u32,
    /// Why.
    pub error: String,
}

impl Store {
    /// What was given up of `webhook` and has not been told.
    pub async fn given_up(&self, webhook: String) -> Result<Option<GivenUp>, StoreError> {
        self.read(move |connection| {
            let found = connection.rows("SELECT deliveries.pk AS pk, events.id AS event_id, type, provider, batch_id, attempts, last_error,
                   count(*) OVER () AS count, min(due_at) OVER () AS since
                 FROM deliveries JOIN events USING (sequence) WHERE webhook = ?1 AND untold = 1
                 ORDER BY due_at DESC, deliveries.pk DESC LIMIT 1", [webhook], |row| {
                let error: Option<String> = row.get("last_error")?;
                Ok(GivenUp {
                    count: count(row, "count")?,
                    since: instant(row, "since")?,
                    last: Dead {
                        pk: row.get("pk")?,
                        event_id: row.get("event_id")?,
                        kind: event_type(row, "type")?,
                        provider: row.get("provider")?,
                        batch_id: row.get("batch_id")?,
                        attempts: row.get("attempts")?,
                        error: error.unwrap_or_default(),
                    },
                })
            })?;
            Ok(found.into_iter().next())
        })
        .await
    }

    /// Records `finding` about all that was given up of `webhook`, with its deliveries to the others, and in the same
    /// transaction that it is told, and that the episode began `since`.
    pub async fn tell_of_given_up(
        &self,
        webhook: String,
        finding: Draft,
        since: Timestamp,
        routes: Arc<Routes>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            telling::record(tx, &finding, None, &routes)?;
            tx.send("UPDATE deliveries SET untold = 0 WHERE webhook = ?1 AND untold = 1", [&webhook])?;
            tx.send(
                "INSERT INTO webhooks (name, deaths_since, deaths_told_at) VALUES (:name, :since, :told_at)
                 ON CONFLICT (name) DO UPDATE SET deaths_since = :since, deaths_told_at = :told_at",
                named! {
                    ":name": webhook, ":since": ms(since), ":told_at": ms(finding.observed_at)
                },
            )?;
            Ok(())
        })
        .await
    }
}
