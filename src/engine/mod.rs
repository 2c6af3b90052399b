//! Floor 4: what polls the providers, with one poller for each account.

pub mod account;
mod active_submissions;
mod bootstrap;
mod budget;
mod by_hand;
pub mod cancel;
mod creation_params;
pub mod discovery;
pub mod downloads;
mod due;
mod error;
mod estimates;
pub mod health;
pub mod intake;
mod lists;
pub mod merged;
pub mod passed_on;
pub mod poll;
pub mod poller;
mod pollers;
mod polling;
pub mod queue;
pub mod recent_checks;
pub mod reconcile;
mod requeue;
pub mod results;
mod rounds;
mod schedule_repair;
mod shared;
mod submission_search;
pub mod submit;
mod submit_error;
mod submit_request;
mod unchanged;
mod upload_ahead;

use crate::clock::Clock;
use crate::domain::hazard::Usual;
use crate::domain::history::Class;
use crate::domain::outcome::Severity;
use crate::domain::route::Routes;
use crate::domain::schedule::{self, NextPoll};
use crate::domain::sighting::Sighting;
use crate::domain::tracked::Tracked;
use crate::http::failure::Verdict;
use crate::logging::Recurring;
use crate::provider::{Page, PageRequest};
use crate::rng::Rng;
use crate::store::recording::Registered;
use crate::store::schedule::ScheduleEntry;
use crate::store::{Pk, Store, StoreError};
use crate::sync;
use crate::tasks::Tasks;
pub use account::{Account, Description};
pub use error::ProviderError;
use jiff::Timestamp;
use poller::{Access, Poller, Record, Snapshot};
use pollers::Pollers;
use prometheus_client::metrics::histogram::Histogram;
use shared::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;
pub use submit_error::SubmitError;

/// Everything that asks providers. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    pollers: Arc<RwLock<Pollers>>,
}

/// A set of accounts that can be put in force without anything that could fail.
pub struct Prepared {
    engine: Engine,
    schedule: Vec<ScheduleEntry>,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // In force by now, or given up.
        sync::write(&self.engine.pollers).coming.clear();
    }
}

impl Engine {
    /// An engine without accounts; [`Engine::apply`] gives it some.
    pub fn new(store: Store, clock: Clock, rng: Rng, tasks: Tasks) -> Self {
        let shared = Arc::new(Shared::new(store, clock, rng, tasks));
        let (learnt, store, clock) = (shared.estimates.clone(), shared.store.clone(), shared.clock.clone());
        let stopping = shared.tasks.stopping();
        shared
            .tasks
            .keep_running("learning", stopping.clone(), |pulse| learnt.keep(store, clock, stopping, pulse));
        let pollers: Arc<RwLock<Pollers>> = Arc::default();
        let told = Arc::downgrade(&pollers);
        shared.store.watch_schedule(move |changes| {
            if let Some(pollers) = told.upgrade() {
                sync::read(&pollers).told(&changes);
            }
        });
        shared.tasks.keep_running("schedule", shared.tasks.stopping(), |pulse| {
            schedule_repair::keep(shared.clone(), pollers.clone(), pulse)
        });
        Self { shared, pollers }
    }

    /// Takes a new set of accounts and routes, in place of those before; if the state cannot be read, all stays as it was.
    pub async fn apply(&self, accounts: Vec<Account>, routes: Routes) -> Result<(), StoreError> {
        let prepared = self.prepare(accounts).await?;
        self.put_in_force(prepared, routes);
        Ok(())
    }

    /// Reads what a new set of accounts needs, and changes nothing. One at a time.
    pub async fn prepare(&self, accounts: Vec<Account>) -> Result<Prepared, StoreError> {
        let shared = &self.shared;
        let mut remembered: BTreeMap<_, _> = shared.store.provider_states().await?.into_iter().collect();
        {
            let mut pollers = sync::write(&self.pollers);
            let Pollers { in_force, coming } = &mut *pollers;
            *coming = accounts
                .into_iter()
                .map(|account| {
                    let name = account.config.name.clone();
                    let record = match in_force.get(&name) {
                        Some(predecessor) => predecessor.record(),
                        None => Record::remembered(
                            remembered.remove(&name).unwrap_or_default(),
                            shared.clock.now(),
                        ),
                    };
                    (name, Arc::new(Poller::new(account, record, shared.clone())))
                })
                .collect();
        }
        // Only now, so that nothing is committed between this and what the new pollers are told.
        let mut prepared = Prepared { engine: self.clone(), schedule: Vec::new() };
        prepared.schedule = shared.store.schedule().await?;
        let new: Vec<String> = {
            let pollers = sync::read(&self.pollers);
            pollers.coming.keys().filter(|name| !pollers.in_force.contains_key(*name)).cloned().collect()
        };
        for name in new {
            shared.estimates.begin(&shared.store, &name, shared.clock.now()).await;
        }
        Ok(prepared)
    }

    /// Puts what was prepared in the place of what was before: at start and at every reload.
    ///
    /// What is in flight at an account that left finishes; its batches stay, unpolled.
    pub fn put_in_force(&self, mut prepared: Prepared, routes: Routes) {
        self.set_routes(routes);
        let (pollers, mut before) = {
            let mut pollers = sync::write(&self.pollers);
            let coming = std::mem::take(&mut pollers.coming);
            (coming.clone(), std::mem::replace(&mut pollers.in_force, coming))
        };
        let schedule = std::mem::take(&mut prepared.schedule);
        drop(prepared);
        for (name, poller) in pollers {
            if let Some(predecessor) = before.remove(&name) {
                predecessor.retire();
                self.shared.tasks.spawn_tracked(succeed(predecessor, poller));
            } else {
                poller.fill(&schedule);
                poller.clone().start();
                self.shared.tasks.spawn_tracked(bootstrap::learn(poller, self.shared.clone()));
            }
        }
        for gone in before.into_values() {
            gone.retire();
        }
    }

    pub fn routes(&self) -> Arc<Routes> {
        self.shared.routes()
    }

    /// Downloaded results lie there from now on.
    pub fn set_results_dir(&self, dir: PathBuf) {
        *sync::write(&self.shared.results_dir) = dir;
    }

    /// Takes other routes, for every event from now on.
    pub fn set_routes(&self, routes: Routes) {
        *sync::write(&self.shared.routes) = Arc::new(routes);
    }

    /// Asks the provider for one batch, even while it wants to be left alone; changes no batch.
    ///
    /// An answer shows that the account is well; a failure is told to whoever asked and to nobody else.
    pub async fn retrieve(&self, provider: &str, id: &str) -> Result<Sighting, ProviderError> {
        let poller = self.poller(provider)?;
        let failure = match poller.retrieve_by_hand(id).await {
            Ok(sighting) => {
                poller.report(None).await;
                return Ok(sighting);
            }
            Err(failure) => failure,
        };
        let provider = provider.to_owned();
        if failure.verdict() == Verdict::Refused && poller.access().await == Access::Accepted {
            return Err(ProviderError::BatchRefused { provider, failure });
        }
        Err(ProviderError::Provider { provider, failure })
    }

    /// Asks the provider for the newest batch of its list: whether address and key are right.
    pub async fn check(&self, provider: &str) -> Result<(), ProviderError> {
        self.poller(provider)?
            .check()
            .await
            .map_err(|failure| ProviderError::Provider { provider: provider.to_owned(), failure })
    }

    /// Asks the provider for a page of its list, as soon as its concurrency, its ceiling and its own wishes leave room:
    /// for what batchd does by itself.
    pub async fn page(&self, provider: &str, page: &PageRequest) -> Result<Page, ProviderError> {
        match self.poller(provider)?.page(page).await {
            None => Err(ProviderError::Retired(provider.to_owned())),
            Some(result) => {
                result.map_err(|failure| ProviderError::Provider { provider: provider.to_owned(), failure })
            }
        }
    }

    /// What the first check of a new batch, just made by hand, means for it, with the time of the next one.
    pub fn first_step(
        &self,
        tracked: &Tracked,
        sighting: &Sighting,
    ) -> Result<crate::domain::transition::Step, ProviderError> {
        let step = self.poller(&tracked.key.provider)?.observe(tracked, sighting);
        poll::log_warnings(&step);
        Ok(step)
    }

    /// Says in the log what has become of new batches that had ended before they were registered.
    pub fn log_ends(&self, registered: &[Registered]) {
        for batch in registered.iter().filter(|batch| batch.new) {
            if batch.tracked.outcome().is_some_and(|outcome| outcome.severity() > Severity::Info) {
                poll::log_status(&batch.tracked);
            }
        }
    }

    /// Polls a tracked batch now, even while the provider wants to be left alone.
    pub async fn poll_now(&self, provider: &str, pk: Pk) -> Result<(), ProviderError> {
        match self.poller(provider)?.poll_by_hand(pk).await? {
            None => Ok(()),
            Some(failure) => Err(ProviderError::Provider { provider: provider.to_owned(), failure }),
        }
    }

    /// Until when a provider wants to be left alone, if it does.
    pub fn held_until(&self, provider: &str) -> Option<Timestamp> {
        self.poller(provider).ok()?.held_until()
    }

    /// Makes one batch due now, if it is on the schedule; the pace of its provider holds.
    pub fn nudge(&self, provider: &str, pk: Pk) {
        if !self.shared.polls(provider) {
            self.ask_owner(provider.to_owned(), Some(pk));
            return;
        }
        if let Ok(poller) = self.poller(provider) {
            poller.nudge(pk);
        }
    }

    /// Makes every active batch due now; the pace of each provider holds. Returns how many.
    pub fn poll_all(&self) -> u64 {
        let pollers = sync::read(&self.pollers);
        for name in pollers.in_force.keys().filter(|name| !self.shared.polls(name)) {
            self.ask_owner(name.clone(), None);
        }
        pollers.in_force.values().map(|poller| poller.all_due()).sum()
    }

    /// Has the daemon that polls an account, where several share the state, check one batch or all of them.
    fn ask_owner(&self, provider: String, batch: Option<Pk>) {
        let store = self.shared.store.clone();
        self.shared.tasks.spawn_tracked(async move {
            if let Err(error) = store.ask_for_checks(provider.clone(), batch).await {
                tracing::warn!(provider, %error, "cannot ask the daemon that polls the account to do so now");
            }
        });
    }

    /// When `tracked` would be polled again if it were polled now, and why: the rule itself, without jitter.
    pub fn explain(&self, tracked: &Tracked) -> NextPoll {
        if tracked.waiting_for.is_some() {
            let reason = "it waits to be created by its provider".to_owned();
            return NextPoll { at: None, reasons: vec![reason] };
        }
        match self.poller(&tracked.key.provider) {
            Ok(poller) => {
                let at = tracked.last_polled_at.unwrap_or(tracked.tracked_at);
                let mut next = schedule::next_poll(&poller.terms_of(tracked), tracked, at, 0.5);
                if next.at.is_some()
                    && let Some(until) = poller.held_until()
                {
                    let why =
                        format!("the provider wants to be left alone until {until}: nothing is asked before");
                    next.reasons.insert(0, why);
                }
                next
            }
            Err(_) => NextPoll {
                at: None,
                reasons: vec![format!(
                    "provider `{}` is not in the configuration: not polled",
                    tracked.key.provider
                )],
            },
        }
    }

    /// How long batches like those of `class` usually take, as far as that is learnt.
    pub fn usual(&self, class: &Class) -> Option<Usual> {
        self.shared.estimates.about(class, self.shared.clock.now())?.usual()
    }

    /// How each account stands.
    pub fn snapshot(&self) -> Vec<Snapshot> {
        let pollers = sync::read(&self.pollers);
        pollers.in_force.values().map(|poller| poller.snapshot()).collect()
    }

    /// How late polls are, in seconds: for metrics.
    pub fn lag(&self) -> Histogram {
        self.shared.lag.clone()
    }

    /// The adapter's word on a new batch: default endpoint, console page, kind.
    pub fn describe(&self, provider: &str, id: &str) -> Result<Description, ProviderError> {
        Ok(self.poller(provider)?.describe(id))
    }

    /// The id under which the provider's own lists and answers know the batch.
    pub fn canonical_id(&self, provider: &str, id: &str) -> String {
        self.poller(provider).map_or_else(|_| id.to_owned(), |poller| poller.canonical_id(id))
    }

    /// Every form in which some account would know `id`, where that is another than `id` itself.
    pub fn other_forms(&self, id: &str) -> BTreeSet<String> {
        let pollers = sync::read(&self.pollers);
        pollers.in_force.values().map(|poller| poller.canonical_id(id)).filter(|form| form != id).collect()
    }

    /// Polls nothing any more by itself; what is in flight may finish. Polls by hand stay possible: requests that came
    /// before the stop are answered in full.
    pub async fn stop(&self) {
        let pollers = sync::read(&self.pollers).in_force.clone();
        for poller in pollers.values() {
            poller.retire();
        }
        for poller in pollers.into_values() {
            poller.ended().await;
        }
    }

    /// The account called `provider`, for what is done by hand there.
    pub fn account(&self, provider: &str) -> Result<Arc<Account>, ProviderError> {
        Ok(self.poller(provider)?.account())
    }

    fn poller(&self, provider: &str) -> Result<Arc<Poller>, ProviderError> {
        let pollers = sync::read(&self.pollers);
        pollers.in_force.get(provider).cloned().ok_or_else(|| ProviderError::NoProvider(provider.to_owned()))
    }
}

/// Sets `successor` running once what its predecessors had in flight has ended; no other account waits for that.
async fn succeed(predecessor: Arc<Poller>, successor: Arc<Poller>) {
    let not_ended = successor.not_ended();
    let shared = successor.shared.clone();
    let mut reading = Recurring::new("read the schedule from the state");
    predecessor.ended().await;
    while !successor.is_retired() {
        if let Some(schedule) = reading.note_of(successor.name(), shared.store.schedule().await) {
            successor.fill(&schedule);
            successor.start();
            break;
        }
        tokio::select! {
            biased;
            () = shared.tasks.stopping().cancelled_owned() => break,
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
    drop(not_ended);
}
