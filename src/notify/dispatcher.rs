//! All workers together: begun, pointed elsewhere and retired as the configuration says, and asked how they fare.

use super::context::Context;
use super::deliver::{self, Exchange};
use super::destination::{Destination, SecretsDigest};
use super::log;
use super::status::WebhookHealth;
use super::worker::{Command, Handle, Worker};
use crate::clock::Clock;
use crate::domain::route::Routes;
use crate::rng::Rng;
use crate::store::outbox::WebhookState;
use crate::store::{Store, StoreError};
use crate::sync;
use crate::tasks::Tasks;
use crate::webhook::EventBody;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{OwnedMutexGuard, oneshot, watch};

/// Sends what webhooks are owed. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

struct Inner {
    context: Context,
    workers: Mutex<BTreeMap<String, Handle>>,
    /// Held over a whole [`Dispatcher::apply`], so that two never mix.
    applying: Arc<tokio::sync::Mutex<()>>,
}

/// Webhooks that the database knows to be the configured ones, and that can be put in force without anything that could
/// fail.
#[derive(Debug)]
pub struct Aligned {
    destinations: Vec<Destination>,
    states: BTreeMap<String, WebhookState>,
    _whole: OwnedMutexGuard<()>,
}

impl Aligned {
    /// Those that are switched off.
    pub fn switched_off(&self) -> BTreeSet<String> {
        let off = self.states.iter().filter(|(_, state)| state.disabled.is_some());
        off.map(|(name, _)| name.clone()).collect()
    }
}

impl Dispatcher {
    /// One without webhooks yet; its workers run in `tasks` until these stop.
    pub fn new(store: Store, clock: Clock, rng: Rng, tasks: Tasks) -> Self {
        Self(Arc::new(Inner {
            context: Context::new(store, clock, rng, tasks),
            workers: Mutex::default(),
            applying: Arc::default(),
        }))
    }

    /// Tells of webhooks' trouble by these routes from now on.
    pub fn set_routes(&self, routes: Arc<Routes>) {
        *sync::write(&self.0.context.routes) = routes;
    }

    /// Sends to these webhooks and no others from now on; if that cannot be stored, all stays as it was.
    pub async fn apply(&self, destinations: Vec<Destination>) -> Result<(), StoreError> {
        let aligned = self.align(destinations).await?;
        self.put_in_force(aligned);
        Ok(())
    }

    /// Stores, in one transaction, that these webhooks and no others are configured.
    ///
    /// What is owed to a webhook that is not among them is held, what was held for want of one that is now is released.
    pub async fn align(&self, destinations: Vec<Destination>) -> Result<Aligned, StoreError> {
        let inner = &self.0;
        let whole = inner.applying.clone().lock_owned().await;
        let names = destinations.iter().map(|destination| destination.name().to_owned()).collect();
        let states = inner.context.store.align_webhooks(names, inner.context.clock.now()).await?;
        Ok(Aligned { destinations, states: states.into_iter().collect(), _whole: whole })
    }

    /// Sends to these webhooks from now on. What is under way to others ends where it began; a webhook that points
    /// elsewhere than before begins afresh.
    pub fn put_in_force(&self, aligned: Aligned) {
        let Aligned { destinations, mut states, _whole } = aligned;
        let inner = &self.0;
        let mut workers = inner.workers();
        let mut retired: BTreeSet<String> = workers.keys().cloned().collect();
        for destination in destinations {
            if destination.is_insecure() {
                tracing::warn!(
                    webhook = destination.name(),
                    "webhook {} trusts ANY certificate (insecure_skip_verify): whoever is on the way can read and \
                     change what it is sent; configure `ca_file` instead",
                    destination.name()
                );
            }
            let destination = Arc::new(destination);
            let name = destination.name().to_owned();
            retired.remove(&name);
            let handle = workers.entry(name.clone()).or_insert_with(|| {
                inner.begin(name.clone(), Arc::clone(&destination), states.remove(&name).unwrap_or_default())
            });
            handle.point(Some(destination));
        }
        for name in retired {
            if let Some(handle) = workers.get(&name) {
                handle.point(None);
            }
        }
    }

    /// Switches a webhook off by hand: what it is owed is held. `false`: there is no such webhook.
    pub async fn disable(&self, name: &str, reason: &str) -> Result<bool, StoreError> {
        self.switch(name, Some(reason.to_owned())).await
    }

    /// Switches a webhook on again, whoever switched it off. `false`: there is no such webhook.
    pub async fn enable(&self, name: &str) -> Result<bool, StoreError> {
        self.switch(name, None).await
    }

    async fn switch(&self, name: &str, reason: Option<String>) -> Result<bool, StoreError> {
        let answer = {
            let workers = self.0.workers();
            let Some(handle) = workers.get(name).filter(|handle| handle.status.is_configured()) else {
                return Ok(false);
            };
            let (reply, answer) = oneshot::channel();
            // A worker that has ended drops the reply.
            let _ = handle.commands.send(Command::Switch(reason, reply));
            answer
        };
        answer.await.unwrap_or(Err(StoreError::Closed)).map(|()| true)
    }

    /// Tries webhooks (one, or all) at once, however often they have failed: after deliveries were sent again by hand.
    /// A receiver's wish to be left alone is still heeded.
    pub fn probe(&self, name: Option<&str>) {
        for (_, handle) in self.0.workers().iter().filter(|(known, _)| name.is_none_or(|name| name == *known))
        {
            // A worker that has ended was told to stop.
            let _ = handle.commands.send(Command::Probe);
        }
    }

    /// Sends `event` to a webhook once, at once, outside of the outbox, whatever state it is in, and says what came
    /// back. `None`: there is no such webhook.
    pub async fn test(&self, name: &str, event: EventBody<'_>) -> Option<Exchange> {
        let destination = self.0.workers().get(name)?.status.destination()?;
        Some(deliver::attempt(&destination, &[event], false, self.0.context.clock.now()).await)
    }

    /// How every configured webhook fares, by name.
    pub fn health(&self) -> Vec<WebhookHealth> {
        self.0.workers().iter().filter_map(|(name, handle)| handle.status.health(name)).collect()
    }

    /// The webhooks that are switched off, and a wake-up whenever that changes: events for them are to be recorded
    /// as held.
    pub fn switched_off(&self) -> watch::Receiver<BTreeSet<String>> {
        self.0.context.switched_off.subscribe()
    }

    /// The webhooks whose receivers refuse what they are sent for its secrets (401, 403), and a wake-up whenever one does
    /// so again.
    pub fn refused(&self) -> watch::Receiver<BTreeSet<String>> {
        self.0.context.refused.subscribe()
    }

    /// A digest of the secrets that are sent to a webhook; `None`: there is no such webhook.
    pub fn secrets_digest(&self, name: &str) -> Option<SecretsDigest> {
        Some(self.0.workers().get(name)?.status.destination()?.secrets_digest())
    }

    /// Sends to `destination` in place of the one of its name, if there is one.
    pub fn renew(&self, destination: Destination) {
        let name = destination.name().to_owned();
        if let Some(handle) = self.0.workers().get(&name).filter(|handle| handle.status.is_configured()) {
            handle.point(Some(Arc::new(destination)));
        }
    }

    /// How many attempts of each webhook ended how (`delivered retried snoozed dead held`), since the process began; of
    /// each that there is, every way, so that a count is seen to leave zero.
    pub fn deliveries_total(&self) -> Vec<(String, &'static str, u64)> {
        let names: Vec<String> = self.0.workers().keys().cloned().collect();
        let none = names.iter().flat_map(|name| log::FATES.map(|fate| (name.clone(), fate, 0)));
        none.chain(self.0.context.attempt_counts.all()).collect()
    }
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").finish_non_exhaustive()
    }
}

impl Inner {
    fn workers(&self) -> MutexGuard<'_, BTreeMap<String, Handle>> {
        sync::lock(&self.workers)
    }

    fn begin(&self, name: String, destination: Arc<Destination>, state: WebhookState) -> Handle {
        let (worker, handle) = Worker::new(name, self.context.clone(), destination, state);
        self.context.tasks.spawn_tracked(worker.supervised());
        handle
    }
}
