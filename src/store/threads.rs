//! Where blocking work runs.

use super::error::StoreError;
use crate::tasks;

/// Runs what may block where it holds up nobody.
pub(super) async fn off_thread<T, F>(work: F) -> Result<T, StoreError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    tasks::begin_blocking(work).await.map_err(|error| {
        if error.is_panic() {
            StoreError::Internal("a task of the store panicked; the log tells where".to_owned())
        } else {
            StoreError::Closed
        }
    })
}
