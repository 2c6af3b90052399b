//! What the workers of one dispatcher work with.

use super::clock_jumps::ClockJumps;
use super::crash_isolation::CrashIsolation;
use super::status::{AttemptCounts, WorkerStatus};
use crate::clock::Clock;
use crate::domain::route::Routes;
use crate::rng::Rng;
use crate::store::Store;
use crate::tasks::Tasks;
use std::collections::BTreeSet;
use std::sync::{Arc, RwLock};
use tokio::sync::watch;

/// Shared by all workers; the dispatcher holds one, and each worker a clone of it.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    pub(super) tasks: Tasks,
    pub(super) attempt_counts: Arc<AttemptCounts>,
    /// The webhooks that are disabled.
    pub(super) switched_off: Arc<watch::Sender<BTreeSet<String>>>,
    /// The webhooks whose receivers refuse the secrets that they are sent (401, 403).
    pub(super) refused: Arc<watch::Sender<BTreeSet<String>>>,
    /// By which other webhooks are told of one's trouble.
    pub(super) routes: Arc<RwLock<Arc<Routes>>>,
    pub(super) crash_isolation: CrashIsolation,
    pub(super) clock_jumps: ClockJumps,
}

impl Context {
    pub(super) fn new(store: Store, clock: Clock, rng: Rng, tasks: Tasks) -> Self {
        Self {
            crash_isolation: CrashIsolation::default(),
            clock_jumps: ClockJumps::new(&clock),
            routes: Arc::default(),
            attempt_counts: Arc::default(),
            switched_off: Arc::new(watch::Sender::new(BTreeSet::new())),
            refused: Arc::new(watch::Sender::new(BTreeSet::new())),
            store,
            clock,
            rng,
            tasks,
        }
    }

    /// What a worker of the webhook `name` shows of itself.
    pub(super) fn status(&self, name: &str) -> WorkerStatus {
        WorkerStatus::new(name.to_owned(), self.switched_off.clone(), self.refused.clone())
    }
}
