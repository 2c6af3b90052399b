//! What every job works with.

use crate::clock::Clock;
use crate::config::Config;
use crate::engine::Engine;
use crate::store::Store;
use crate::tasks::Tasks;
use std::sync::Arc;

/// Runs what is due at set times: see [`Housekeeping::run`].
#[derive(Clone)]
pub struct Housekeeping {
    pub store: Store,
    pub clock: Clock,
    pub tasks: Tasks,
    pub engine: Engine,
    /// Gives the configuration in force.
    pub config: Arc<dyn Fn() -> Arc<Config> + Send + Sync>,
}
