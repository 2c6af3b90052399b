//! What webhooks are owed: deliveries and their attempts, how they are sent, and what is remembered of each webhook.

pub(super) mod delivery;
pub(super) mod sending;
mod webhooks;

pub use delivery::{Attempt, Backlog, Delivery, DeliveryFilter, DeliveryState, Trigger};
pub use sending::{AttemptEnd, Due, Next, SUSPECT};
pub use webhooks::WebhookState;
