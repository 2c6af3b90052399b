//! What every poller and every submission of one engine uses.

use super::active_submissions::ActiveSubmissions;
use super::estimates::Estimates;
use crate::clock::Clock;
use crate::domain::route::Routes;
use crate::rng::Rng;
use crate::store::Store;
use crate::sync;
use crate::tasks::Tasks;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::sync::{Arc, RwLock};

/// What the parts of one engine share.
pub(crate) struct Shared {
    pub store: Store,
    pub clock: Clock,
    pub rng: Rng,
    pub routes: RwLock<Arc<Routes>>,
    pub tasks: Tasks,
    /// How long earlier batches took.
    pub estimates: Arc<Estimates>,
    pub active_submissions: ActiveSubmissions,
    /// Notified when the answer to a creation was lost.
    pub lost: tokio::sync::Notify,
    /// How late polls begin, in seconds.
    pub lag: Histogram,
}

impl Shared {
    pub(super) fn new(store: Store, clock: Clock, rng: Rng, tasks: Tasks) -> Self {
        Self {
            store,
            clock,
            rng,
            routes: RwLock::default(),
            tasks,
            estimates: Arc::default(),
            active_submissions: ActiveSubmissions::default(),
            lost: tokio::sync::Notify::new(),
            lag: Histogram::new(exponential_buckets(0.01, 4.0, 10)),
        }
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        sync::read(&self.routes).clone()
    }
}
