//! What is remembered of providers across restarts: the episodes of their trouble, and until when they are left alone.

use super::column::{maybe_at, ms};
use super::error::StoreError;
use super::state::Store;
use super::telling;
use super::value::named;
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
    /// Until when it wanted to be left alone when it last said so.
    pub held_until: Option<Timestamp>,
}

impl Store {
    /// What is remembered of every provider.
    pub async fn provider_states(&self) -> Result<Vec<(String, ProviderState)>, StoreError> {
        self.read(|connection| {
            connection.rows("SELECT name, refused_since, silent_since, silence_told, last_error, last_success_at, held_until
                 FROM providers ORDER BY name", [], |row| {
                let state = ProviderState {
                    refused_since: maybe_at(row, "refused_since")?,
                    silent_since: maybe_at(row, "silent_since")?,
                    silence_told: row.get("silence_told")?,
                    last_error: row.get("last_error")?,
                    last_success_at: maybe_at(row, "last_success_at")?,
                    held_until: maybe_at(row, "held_until")?,
                };
                Ok((row.get("name")?, state))
            })
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
            tx.send(
                "INSERT INTO providers
                   (name, refused_since, silent_since, silence_told, last_error, last_success_at, held_until)
                 VALUES (:name, :refused_since, :silent_since, :silence_told, :last_error, :last_success_at,
                   :held_until)
                 ON CONFLICT (name) DO UPDATE SET refused_since = excluded.refused_since,
                   silent_since = excluded.silent_since, silence_told = excluded.silence_told,
                   last_error = excluded.last_error, last_success_at = excluded.last_success_at,
                   held_until = excluded.held_until",
                named! {
                    ":name": provider,
                    ":refused_since": state.refused_since.map(ms),
                    ":silent_since": state.silent_since.map(ms),
                    ":silence_told": state.silence_told,
                    ":last_error": state.last_error,
                    ":last_success_at": state.last_success_at.map(ms),
                    ":held_until": state.held_until.map(ms),
                },
            )?;
            for draft in &events {
                telling::record(tx, draft, None, &routes)?;
            }
            Ok(())
        })
        .await
    }
}
