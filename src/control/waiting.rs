//! What becomes of a submission that waits for quota when somebody asks for it by hand (`docs/contract.md#waiting-for-quota`).

use super::api::ErrorCode;
use super::api_error::ApiError;
use super::service::Service;
use crate::domain::tracked::Tracked;
use crate::store::Pk;
use serde_json::Value;

impl Service {
    /// Takes a submission out of the queue, and gives it as it then is.
    pub(super) async fn cancel_waiting(&self, pk: Pk, tracked: &Tracked) -> Result<Value, ApiError> {
        let id = &tracked.key.id;
        if !self.live()?.engine.cancel_wait(pk, tracked).await? {
            let message = format!("the batch of `{id}` is being created at this moment");
            return Err(ApiError::new(ErrorCode::CreationInProgress, message)
                .hint("try again in a moment: then it is cancelled at its provider"));
        }
        tracing::info!(provider = tracked.key.provider, batch = id, "took {id} out of the queue");
        self.batch(&tracked.key.to_string()).await
    }
}
