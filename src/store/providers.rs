//! What is remembered of providers across restarts: the episodes of their trouble.

use super::{Store, StoreError};
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
        unimplemented!()
    }

    /// Saves it, with the events that it gave rise to, in one transaction.
    pub async fn set_provider_state(
        &self,
        provider: String,
        state: ProviderState,
        events: Vec<Draft>,
        routes: Arc<Routes>,
    ) -> Result<(), StoreError> {
        let _ = (provider, state, events, routes);
        unimplemented!()
    }
}
