//! Floor 4: what polls the providers, with one poller for each account.

pub mod account;
mod active_submissions;
mod bootstrap;
mod budget;
mod by_hand;
pub mod cancel;
pub mod discovery;
pub mod downloads;
mod due;
mod error;
mod estimates;
pub mod health;
pub mod intake;
mod lists;
pub mod poll;
pub mod poller;
mod polling;
pub mod reconcile;
pub mod results;
mod rounds;
mod shared;
pub mod submit;
mod submit_error;

use crate::clock::Clock;
use crate::domain::outcome::Severity;
use crate::domain::route::Routes;
use crate::domain::schedule::{self, NextPoll};
use crate::domain::sighting::Sighting;
use crate::domain::tracked::Tracked;
use crate::http::failure::Verdict;
use crate::provider::{Page, PageRequest};
use crate::rng::Rng;
use crate::store::batches::ScheduleEntry;
use crate::store::recording::Registered;
use crate::store::{Pk, Store, StoreError};
use crate::sync;
use crate::tasks::Tasks;
pub use account::{Account, Description};
use due::Next;
pub use error::ProviderError;
use jiff::Timestamp;
use poller::{Access, Poller, Record, Snapshot};
use prometheus_client::metrics::histogram::Histogram;
use shared::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};
use std::time::Duration;
pub use submit_error::SubmitError;

/// Everything that asks providers. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    pollers: Arc<RwLock<BTreeMap<String, Arc<Poller>>>>,
}

impl Engine {
    /// An engine without accounts; [`Engine::apply`] gives it some.
    pub fn new(store: Store, clock: Clock, rng: Rng, tasks: Tasks) -> Self {
        let shared = Shared::new(store, clock, rng, tasks);
        let (learnt, store, clock) = (shared.estimates.clone(), shared.store.clone(), shared.clock.clone());
        let stopping = shared.tasks.stopping();
        shared
            .tasks
            .keep_running("learning", stopping.clone(), |pulse| learnt.keep(store, clock, stopping, pulse));
        Self { shared: Arc::new(shared), pollers: Arc::default() }
    }

    /// Takes a new set of accounts and routes, in place of those before: at start and at every reload.
    ///
    /// What is in flight at an account that left finishes; its batches stay, unpolled.
    pub async fn apply(
        &self,
        accounts: Vec<Account>,
        routes: Routes,
        retain: Duration,
    ) -> Result<(), StoreError> {
        // Read before anything is changed: if the state cannot be read, all stays as it was.
        let mut remembered: BTreeMap<_, _> = self.shared.store.provider_states().await?.into_iter().collect();
        let schedule = self.shared.store.schedule().await?;
        self.set_routes(routes);
        *sync::write(&self.shared.retain) = retain;
        let mut successors = Vec::new();
        let mut first = BTreeMap::new();
        {
            let mut pollers = sync::write(&self.pollers);
            let mut before = std::mem::take(&mut *pollers);
            for account in accounts {
                let name = account.config.name.clone();
                let predecessor = before.remove(&name);
                let record = match &predecessor {
                    Some(predecessor) => predecessor.record(),
                    None => Record::remembered(remembered.remove(&name).unwrap_or_default()),
                };
                let poller = Arc::new(Poller::new(account, record, self.shared.clone()));
                pollers.insert(name.clone(), poller.clone());
                match predecessor {
                    Some(predecessor) => {
                        predecessor.retire();
                        successors.push((predecessor, poller));
                    }
                    None => {
                        first.insert(name, poller);
                    }
                }
            }
            for gone in before.into_values() {
                gone.retire();
            }
        }
        for (name, poller) in &first {
            self.shared.estimates.begin(&self.shared.store, name, self.shared.clock.now()).await;
            self.shared.tasks.spawn_tracked(bootstrap::learn(poller.clone(), self.shared.clone()));
        }
        begin(first, schedule);
        for (predecessor, successor) in successors {
            // An account goes on once what its predecessors had in flight has ended; no other waits for that.
            let not_ended = successor.not_ended();
            let shared = self.shared.clone();
            self.shared.tasks.spawn_tracked(async move {
                predecessor.ended().await;
                while !successor.is_retired() {
                    match shared.store.schedule().await {
                        Ok(schedule) => {
                            let name = successor.name().to_owned();
                            begin(BTreeMap::from([(name, successor.clone())]), schedule);
                            break;
                        }
                        Err(error) => {
                            tracing::error!(provider = successor.name(), %error, "cannot read the schedule; trying again");
                        }
                    }
                    tokio::select! {
                        () = shared.tasks.stopping().cancelled_owned() => break,
                        () = tokio::time::sleep(Duration::from_secs(5)) => {}
                    }
                }
                drop(not_ended);
            });
        }
        Ok(())
    }

    pub fn routes(&self) -> Arc<Routes> {
        self.shared.routes()
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

    /// Puts registered batches on the schedule; those that stand there keep their time.
    pub fn adopt(&self, registered: &[Registered]) {
        let mut touched = BTreeMap::new();
        for batch in registered {
            if batch.new && batch.tracked.outcome().is_some_and(|outcome| outcome.severity() > Severity::Info)
            {
                poll::log_status(&batch.tracked);
            }
            let provider = &batch.tracked.key.provider;
            if let (Ok(poller), Some(next)) = (self.poller(provider), Next::of(&batch.tracked)) {
                poller.adopt(batch.pk, next);
                touched.insert(provider.clone(), poller);
            }
        }
        for poller in touched.into_values() {
            poller.wake();
        }
    }

    /// Takes a batch off the schedule.
    pub fn forget(&self, provider: &str, pk: Pk) {
        if let Ok(poller) = self.poller(provider) {
            poller.unschedule(pk);
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
        if let Ok(poller) = self.poller(provider) {
            poller.nudge(pk);
        }
    }

    /// Makes every active batch due now; the pace of each provider holds. Returns how many.
    pub fn poll_all(&self) -> u64 {
        let pollers = sync::read(&self.pollers);
        pollers.values().map(|poller| poller.all_due()).sum()
    }

    /// When `tracked` would be polled again if it were polled now, and why: the rule itself, without jitter.
    pub fn explain(&self, tracked: &Tracked) -> NextPoll {
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

    /// How each account stands.
    pub fn snapshot(&self) -> Vec<Snapshot> {
        let pollers = sync::read(&self.pollers);
        pollers.values().map(|poller| poller.snapshot()).collect()
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
        pollers.values().map(|poller| poller.canonical_id(id)).filter(|form| form != id).collect()
    }

    /// Polls nothing any more by itself; what is in flight may finish. Polls by hand stay possible: requests that came
    /// before the stop are answered in full.
    pub async fn stop(&self) {
        let pollers = sync::read(&self.pollers).clone();
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
        pollers.get(provider).cloned().ok_or_else(|| ProviderError::NoProvider(provider.to_owned()))
    }
}

/// Fills the schedules of these pollers and sets them running.
fn begin(pollers: BTreeMap<String, Arc<Poller>>, schedule: Vec<ScheduleEntry>) {
    for entry in schedule {
        if let Some(poller) = pollers.get(&*entry.provider) {
            poller.schedule(entry.pk, Next::at(entry.next_poll_at, entry.created_at));
        }
    }
    for poller in pollers.into_values() {
        poller.start();
    }
}
