//! Floor 4: what webhooks are owed reaches them, each by a worker of its own, until it is accepted or given up.

pub mod breaker;
mod clock_jumps;
mod crash_isolation;
pub mod decision;
pub mod deliver;
pub mod destination;
pub mod dispatcher;
mod episode;
mod log;
mod pacing;
mod worker;

pub use deliver::Exchange;
pub use destination::Destination;
pub use dispatcher::{Dispatcher, WebhookHealth};
pub use pacing::GATHER;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

/// When a loop last completed a pass, in Unix milliseconds: a watchdog sees by it that the loop is alive.
pub type Pulse = Arc<AtomicI64>;
