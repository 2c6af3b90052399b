//! Where blocking work runs.

use super::error::StoreError;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs what may block where it holds up nobody; inline on a current-thread runtime, so that simulations do the same
/// every time.
pub(super) async fn off_thread<T, F>(work: F) -> Result<T, StoreError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        if error.is_panic() {
            StoreError::Internal("a task of the store panicked; the log tells where".to_owned())
        } else {
            StoreError::Closed
        }
    })
}
