//! What is remembered of providers across restarts: the episodes of their trouble.

use super::column::{at, ms};
use super::{Store, StoreError, events};
use crate::domain::event::Draft;
use crate::domain::route::Routes;
use jiff::Timestamp;
use std::sync::Arc;

/// A provider's trouble.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderState {
    /// Since when it refuses the key.
    pub refused_since: Option<Timestamp>,
    /// Since when it has not answered.
    pub silent_since: Option<Timestamp>,
    /// Whether the present silence has been told.
    pub silence_told: bool,
    /// What went wrong the last time.
    pub last_error: Option<String>,
    /// When it last answered as it should.
    pub last_success_at: Option<Timestamp>,
}

impl Store {
    /// What is remembered of every provider.
    pub async fn provider_states(&self) -> Result<Vec<(String, ProviderState)>, StoreError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT name, refused_since, silent_since, silence_told, last_error, last_success_at
                 FROM providers ORDER BY name",
            )?;
            let states = query.query_map([], |row| {
                let state = ProviderState {
                    refused_since: row.get::<_, Option<i64>>(1)?.map(at),
                    silent_since: row.get::<_, Option<i64>>(2)?.map(at),
                    silence_told: row.get(3)?,
                    last_error: row.get(4)?,
                    last_success_at: row.get::<_, Option<i64>>(5)?.map(at),
                };
                Ok((row.get(0)?, state))
            })?;
            Ok(states.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Saves it, with the events that it gave rise to, in one transaction.
    pub async fn set_provider_state(
        &self,
        provider: String,
        state: ProviderState,
        events: Vec<Draft>,
        routes: Arc<Routes>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.prepare_cached(
                "INSERT OR REPLACE INTO providers
                   (name, refused_since, silent_since, silence_told, last_error, last_success_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute((
                provider,
                state.refused_since.map(ms),
                state.silent_since.map(ms),
                state.silence_told,
                state.last_error,
                state.last_success_at.map(ms),
            ))?;
            for draft in &events {
                events::record(tx, draft, None, &routes)?;
            }
            Ok(())
        })
        .await
    }
}
