//! Why a submission did not create a batch, or why it is not known whether it did.

use super::error::ProviderError;
use crate::http::failure::{Failure, Verdict};
use crate::provider::input_checker::InputProblem;
use crate::store::StoreError;

/// Why nothing was submitted, or why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The provider said no, or could not be asked, or the state could not be written. No batch was created.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error("the file is not accepted")]
    Input(Vec<InputProblem>),
    /// The file broke off before its end; why.
    #[error("the upload was cut off: {0}")]
    Cut(String),
    #[error("the daemon is stopping")]
    Stopping,
    /// Whoever asked is gone, and nothing was created yet.
    #[error("it was given up")]
    Abandoned,
    /// The answer to the creation was lost: the batch may exist. [`super::Engine::reconcile`] goes on searching for it.
    #[error("{provider}: the answer to the creation of the batch was lost: {failure}")]
    Lost { provider: String, failure: Failure },
}

impl SubmitError {
    /// Why the provider refused, if it was asked and did.
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Provider(ProviderError::Provider { failure, .. }) => Some(failure),
            _ => None,
        }
    }

    /// Whether the provider has refused it for now, and takes it once others have ended.
    pub fn is_for_now(&self) -> bool {
        self.failure()
            .is_some_and(|failure| failure.quota().is_some() || matches!(failure.verdict(), Verdict::Hold(_)))
    }
}

impl From<StoreError> for SubmitError {
    fn from(error: StoreError) -> Self {
        Self::Provider(error.into())
    }
}
