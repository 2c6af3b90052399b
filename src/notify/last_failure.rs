//! What went wrong at a webhook the last time, and how a new process learns it: from what the webhook is owed.

use crate::store::outbox::{Delivery, DeliveryFilter, DeliveryState};
use crate::store::{Store, StoreError};
use jiff::Timestamp;

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LastFailure {
    pub at: Timestamp,
    /// What went wrong, for people; no secrets.
    pub error: String,
}

/// The last failure that is recorded of `webhook`: of all that it is owed, and of the newest that were given up.
pub async fn recorded(store: &Store, webhook: &str) -> Result<Option<LastFailure>, StoreError> {
    let mut last = None;
    for state in [DeliveryState::Pending, DeliveryState::Inflight, DeliveryState::Held, DeliveryState::Dead] {
        let mut after = None;
        loop {
            let filter = DeliveryFilter {
                state: Some(state),
                webhook: Some(webhook.to_owned()),
                after,
                limit: Some(PAGE),
                ..DeliveryFilter::default()
            };
            let (page, more) = store.deliveries(filter).await?;
            after = page.last().map(|delivery| delivery.pk);
            last = last.max(page.into_iter().filter_map(failure).max());
            if !more || state == DeliveryState::Dead {
                break;
            }
        }
    }
    Ok(last)
}

fn failure(delivery: Delivery) -> Option<LastFailure> {
    Some(LastFailure { at: delivery.last_attempt_at?, error: delivery.last_error? })
}

/// How many deliveries are in memory at a time.
const PAGE: u32 = 1_000;
