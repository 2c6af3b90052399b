//! All workers together: begun, pointed elsewhere and retired as the configuration says, and asked how they fare.

use super::Pulse;
use super::clock_jumps::ClockJumps;
use super::crash_isolation::CrashIsolation;
use super::deliver::{self, Exchange};
use super::destination::{Destination, SecretsDigest};
use super::worker::{Command, Parts, Worker};
use crate::clock::Clock;
use crate::domain::route::Routes;
use crate::rng::Rng;
use crate::store::outbox::WebhookState;
use crate::store::{Store, StoreError};
use crate::sync;
use crate::webhook::EventBody;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Sends what webhooks are owed. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    rng: Rng,
    tasks: TaskTracker,
    stop: CancellationToken,
    workers: Mutex<BTreeMap<String, Handle>>,
    /// Held over a whole [`Dispatcher::apply`], so that two never mix.
    applying: tokio::sync::Mutex<()>,
    attempt_counts: Arc<AttemptCounts>,
    switched_off: Arc<watch::Sender<BTreeSet<String>>>,
    refused: Arc<watch::Sender<BTreeSet<String>>>,
    routes: Arc<RwLock<Arc<Routes>>>,
    crash_isolation: CrashIsolation,
    clock_jumps: ClockJumps,
}

struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    pulse: Pulse,
    status: Arc<WorkerStatus>,
}

/// How a webhook fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookHealth {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// What is remembered of it: failures, pause, whether and why it is switched off.
    pub state: WebhookState,
    /// Whether it has failed so often that only single probes are sent.
    pub breaker_open: bool,
    /// Attempts under way.
    pub in_flight: usize,
    /// What went wrong the last time; `None` after a success.
    pub last_error: Option<String>,
}

impl Dispatcher {
    /// One without webhooks yet; its workers run in `tasks` until `stop`.
    pub fn new(store: Store, clock: Clock, rng: Rng, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            crash_isolation: CrashIsolation::default(),
            clock_jumps: ClockJumps::new(&clock),
            routes: Arc::default(),
            store,
            clock,
            rng,
            tasks,
            stop,
            workers: Mutex::default(),
            applying: tokio::sync::Mutex::default(),
            attempt_counts: Arc::default(),
            switched_off: Arc::new(watch::Sender::new(BTreeSet::new())),
            refused: Arc::new(watch::Sender::new(BTreeSet::new())),
        }))
    }

    /// Tells of webhooks' trouble by these routes from now on.
    pub fn set_routes(&self, routes: Arc<Routes>) {
        *sync::write(&self.0.routes) = routes;
    }

    /// Sends to these webhooks and no others from now on. What is under way to others ends where it began.
    ///
    /// What is owed to a webhook that is not among them is held, what was held for want of one that is now is
    /// released. A webhook that points elsewhere than before begins afresh.
    pub async fn apply(&self, destinations: Vec<Destination>) -> Result<(), StoreError> {
        let inner = &self.0;
        let _whole = inner.applying.lock().await;
        let names = destinations.iter().map(|destination| destination.name().to_owned()).collect();
        inner.store.align_webhooks(names, inner.clock.now()).await?;
        let mut states: BTreeMap<String, WebhookState> =
            inner.store.webhook_states().await?.into_iter().collect();

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
        Ok(())
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
        Some(deliver::attempt(&destination, &[event], false, self.0.clock.now()).await)
    }

    /// How every configured webhook fares, by name.
    pub fn health(&self) -> Vec<WebhookHealth> {
        self.0.workers().iter().filter_map(|(name, handle)| handle.status.health(name)).collect()
    }

    /// The webhooks that are switched off, and a wake-up whenever that changes: events for them are to be recorded
    /// as held.
    pub fn switched_off(&self) -> watch::Receiver<BTreeSet<String>> {
        self.0.switched_off.subscribe()
    }

    /// The webhooks whose receivers refuse what they are sent for its secrets (401, 403), and a wake-up whenever one does
    /// so again.
    pub fn refused(&self) -> watch::Receiver<BTreeSet<String>> {
        self.0.refused.subscribe()
    }

    /// The secrets_digest over the secrets that a webhook is sent to with; `None`: there is no such webhook.
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

    /// How many attempts of each webhook ended how (`delivered retried snoozed dead held`), since the process began.
    pub fn deliveries_total(&self) -> Vec<(String, &'static str, u64)> {
        let counts = sync::lock(&self.0.attempt_counts.0);
        counts.iter().map(|((name, fate), count)| (name.clone(), *fate, *count)).collect()
    }

    /// When each worker last completed a pass; no worker lets more than half a minute go by.
    pub fn pulses(&self) -> Vec<(String, Pulse)> {
        let workers = self.0.workers();
        workers.iter().map(|(name, handle)| (name.clone(), Arc::clone(&handle.pulse))).collect()
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
        let (commands, receiver) = mpsc::unbounded_channel();
        let pulse: Pulse = Arc::new(AtomicI64::new(self.clock.now().as_millisecond()));
        let status = Arc::new(WorkerStatus::new(
            name.clone(),
            Arc::clone(&self.switched_off),
            Arc::clone(&self.refused),
        ));
        let worker = Worker::new(Parts {
            name,
            store: self.store.clone(),
            clock: self.clock.clone(),
            rng: self.rng.clone(),
            stop: self.stop.clone(),
            commands: receiver,
            pulse: Arc::clone(&pulse),
            status: Arc::clone(&status),
            attempt_counts: Arc::clone(&self.attempt_counts),
            routes: Arc::clone(&self.routes),
            crash_isolation: self.crash_isolation.clone(),
            clock_jumps: self.clock_jumps.clone(),
            destination,
            state,
        });
        self.tasks.spawn(worker.supervised());
        Handle { commands, pulse, status }
    }
}

impl Handle {
    fn point(&self, destination: Option<Arc<Destination>>) {
        // What is asked of the webhook from now on, by hand too, goes there at once.
        self.status.set_destination(destination.clone());
        // A worker that has ended was told to stop.
        let _ = self.commands.send(Command::Point(destination));
    }
}

/// Attempts by webhook and by what became of the delivery.
#[derive(Default)]
pub(super) struct AttemptCounts(Mutex<BTreeMap<(String, &'static str), u64>>);

impl AttemptCounts {
    pub(super) fn count(&self, webhook: &str, fate: &'static str) {
        *sync::lock(&self.0).entry((webhook.to_owned(), fate)).or_default() += 1;
    }
}

/// What a worker shows of itself.
pub(super) struct WorkerStatus {
    name: String,
    shown: Mutex<Shown>,
    switched_off: Arc<watch::Sender<BTreeSet<String>>>,
    refused: Arc<watch::Sender<BTreeSet<String>>>,
}

#[derive(Default)]
struct Shown {
    destination: Option<Arc<Destination>>,
    state: WebhookState,
    breaker_open: bool,
    in_flight: usize,
    last_error: Option<String>,
}

impl WorkerStatus {
    fn new(
        name: String,
        switched_off: Arc<watch::Sender<BTreeSet<String>>>,
        refused: Arc<watch::Sender<BTreeSet<String>>>,
    ) -> Self {
        Self { name, shown: Mutex::default(), switched_off, refused }
    }

    /// Notes whether the receiver refuses the secrets.
    pub(super) fn set_refused(&self, refused: bool) {
        self.refused.send_if_modified(|names| {
            if refused {
                names.insert(self.name.clone());
                true
            } else {
                names.remove(&self.name)
            }
        });
    }

    pub(super) fn publish(&self, state: &WebhookState, breaker_open: bool, in_flight: usize) {
        {
            let mut shown = sync::lock(&self.shown);
            shown.state.clone_from(state);
            shown.breaker_open = breaker_open;
            shown.in_flight = in_flight;
        }
        self.switched_off.send_if_modified(|names| {
            if state.disabled.is_some() { names.insert(self.name.clone()) } else { names.remove(&self.name) }
        });
    }

    pub(super) fn last_error(&self) -> Option<String> {
        sync::lock(&self.shown).last_error.clone()
    }

    pub(super) fn set_error(&self, error: Option<String>) {
        sync::lock(&self.shown).last_error = error;
    }

    fn set_destination(&self, destination: Option<Arc<Destination>>) {
        sync::lock(&self.shown).destination = destination;
    }

    fn destination(&self) -> Option<Arc<Destination>> {
        sync::lock(&self.shown).destination.clone()
    }

    fn is_configured(&self) -> bool {
        sync::lock(&self.shown).destination.is_some()
    }

    fn health(&self, name: &str) -> Option<WebhookHealth> {
        let shown = sync::lock(&self.shown);
        let destination = shown.destination.as_ref()?;
        Some(WebhookHealth {
            name: name.to_owned(),
            kind: destination.kind().to_owned(),
            state: shown.state.clone(),
            breaker_open: shown.breaker_open,
            in_flight: shown.in_flight,
            last_error: shown.last_error.clone(),
        })
    }
}
