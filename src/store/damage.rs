//! Damage that a read or a write has met with: noted once, told to whoever ends the daemon, and never written over.

use super::error::StoreError;
use std::sync::Arc;
use tokio::sync::watch;

/// Whether the state has turned out to be damaged. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(super) struct Damage(Arc<watch::Sender<Option<StoreError>>>);

impl Default for Damage {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Damage {
    /// Passes `result` on and notes the damage that it tells of; the first one stays.
    pub(super) fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ StoreError::Damaged(_)) = &result {
            self.0.send_if_modified(|known| {
                let is_new = known.is_none();
                if is_new {
                    tracing::error!(%error, "the state is damaged; nothing more is written");
                    *known = Some(error.clone());
                }
                is_new
            });
        }
        result
    }

    /// The damage, if there is any.
    pub(super) fn known(&self) -> Option<StoreError> {
        self.0.borrow().clone()
    }

    /// An error if there is any.
    pub(super) fn none_yet(&self) -> Result<(), StoreError> {
        self.known().map_or(Ok(()), Err)
    }

    /// Resolves once there is some.
    pub(super) async fn comes(&self) -> StoreError {
        let mut told = self.0.subscribe();
        loop {
            if let Some(error) = told.borrow_and_update().clone() {
                return error;
            }
            if told.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
