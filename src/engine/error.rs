//! Why a provider could not be asked.

use crate::http::failure::Failure;
use crate::store::StoreError;

/// Why a provider could not be asked about a batch, or the answer not be stored.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("no provider `{0}` is configured")]
    NoProvider(String),
    /// The provider did not answer as it should.
    #[error("{provider}: {failure}")]
    Provider { provider: String, failure: Failure },
    /// The provider refuses this batch to a key that it accepts otherwise.
    #[error("{provider}: {failure}")]
    BatchRefused { provider: String, failure: Failure },
    /// The account was configured anew while it waited for its turn, or batchd is stopping.
    #[error("{0} was configured anew meanwhile, or batchd is stopping; ask again")]
    Retired(String),
    /// The state could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}
