//! What webhooks are owed: deliveries and their attempts, how they are sent, and what is remembered of each webhook.

pub(super) mod delivery;
mod given_up;
pub(super) mod recovering;
pub(super) mod sending;
mod webhooks;

pub use delivery::{Attempt, Backlog, Delivery, DeliveryFilter, DeliveryState, Trigger};
pub use given_up::{Dead, GivenUp};
pub use sending::{AttemptEnd, Due, Next};
pub use webhooks::WebhookState;
