//! Floor 4: what webhooks are owed reaches them, each by a worker of its own, until it is accepted or given up.

pub mod breaker;
mod clock_jumps;
mod context;
mod crash_isolation;
mod deaths;
pub mod decision;
pub mod deliver;
pub mod destination;
pub mod dispatcher;
mod episode;
pub mod last_failure;
mod log;
mod pacing;
mod plan;
mod run;
mod settle;
mod status;
mod worker;

pub use deliver::Exchange;
pub use destination::Destination;
pub use dispatcher::Dispatcher;
pub use pacing::GATHER;
pub use status::WebhookHealth;
