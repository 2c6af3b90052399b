//! Where blocking work runs.

use super::error::StoreError;
use crate::tasks;
use tokio::task::JoinError;

/// Runs what may block where it holds up nobody.
pub(super) async fn off_thread<T, F>(work: F) -> Result<T, StoreError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    tasks::begin_blocking(work).await.map_err(|error| broken_off(&error))
}

/// The same for what waits for a server's answers, which the runtime brings.
pub(super) async fn off_runtime<T, F>(work: F) -> Result<T, StoreError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    tasks::begin_waiting(work).await.map_err(|error| broken_off(&error))
}

fn broken_off(error: &JoinError) -> StoreError {
    if error.is_panic() {
        StoreError::Internal("a task of the store panicked; the log tells where".to_owned())
    } else {
        StoreError::Closed
    }
}
