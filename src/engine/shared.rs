//! What every poller and every submission of one engine uses.

use super::active_submissions::ActiveSubmissions;
use super::estimates::Estimates;
use crate::clock::Clock;
use crate::domain::ownership::Scope;
use crate::domain::route::Routes;
use crate::domain::tracked::BatchKey;
use crate::rng::Rng;
use crate::store::Store;
use crate::sync;
use crate::tasks::Tasks;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use tokio_util::sync::CancellationToken;

/// The accounts at which a batch has ended, so that there may be room for another.
#[derive(Debug, Default)]
pub(crate) struct Room {
    accounts: Mutex<BTreeSet<String>>,
    /// Batches that were failed for their quota, and left no room.
    failed: Mutex<Vec<BatchKey>>,
    changed: tokio::sync::Notify,
}

impl Room {
    /// There may be room at `account`.
    pub fn made(&self, account: &str) {
        sync::lock(&self.accounts).insert(account.to_owned());
        self.changed.notify_one();
    }

    /// The accounts at which there may be room since this was asked last.
    pub fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *sync::lock(&self.accounts))
    }

    /// A batch that waits for quota was failed for it.
    pub fn failed(&self, batch: BatchKey) {
        self.failed_again(batch);
        self.changed.notify_one();
    }

    /// The same for one of which [`Room::take_failed`] has told, and for which nothing could be done: it has time.
    pub fn failed_again(&self, batch: BatchKey) {
        sync::lock(&self.failed).push(batch);
    }

    /// The batches that were failed since this was asked last.
    pub fn take_failed(&self) -> Vec<BatchKey> {
        std::mem::take(&mut *sync::lock(&self.failed))
    }

    /// The queue has changed.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

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
    /// What makes the submissions that wait for quota be tried before their time.
    pub room: Room,
    /// How late polls begin, in seconds.
    pub lag: Histogram,
    /// Where downloaded results lie.
    pub results_dir: RwLock<PathBuf>,
}

impl Shared {
    /// Waits for a moment, or until this daemon gains or loses a part of the work.
    pub(super) async fn wait_for_work(&self, ended: &CancellationToken) {
        let Some(holdings) = self.store.holdings() else { return };
        tokio::select! {
            biased;
            () = ended.cancelled() => {}
            () = holdings.wait() => {}
        }
    }

    /// Whether an account is this daemon's to poll.
    pub(super) fn polls(&self, provider: &str) -> bool {
        self.store.holds(&Scope::Account(provider.to_owned()))
    }

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
            room: Room::default(),
            lag: Histogram::new(exponential_buckets(0.01, 4.0, 10)),
            results_dir: RwLock::default(),
        }
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        sync::read(&self.routes).clone()
    }
}
