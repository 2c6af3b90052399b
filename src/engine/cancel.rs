//! Cancelling: the provider is asked, and what it says of the batch is a sighting like any other.

use super::{Engine, ProviderError};
use crate::domain::sighting::Sighting;

impl Engine {
    /// Asks the provider to cancel a batch. `None`: it was accepted, and the answer tells nothing of the batch.
    pub async fn cancel(&self, provider: &str, id: &str) -> Result<Option<Sighting>, ProviderError> {
        let account = self.account(provider)?;
        let adapter = account.adapter.as_ref();
        let answer = match adapter.cancel(id) {
            Ok(call) => account.send(call).await,
            Err(failure) => Err(failure),
        };
        answer
            .and_then(|answer| adapter.cancelled(id, &answer))
            .map_err(|failure| ProviderError::Provider { provider: provider.to_owned(), failure })
    }
}
