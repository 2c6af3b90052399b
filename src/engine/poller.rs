//! One account's poller: what is due there, how fast it may be asked, and whether it answers.

use super::budget::{Budget, LONGEST_NAP, Wait, Wishes};
use super::due::{DueList, Next, is_close};
use super::health::{Episode, Health};
use super::poll::{self, Polled};
use super::rounds::{Lists, Round};
use super::{Account, Description, Shared};
use crate::config::Polling;
use crate::domain::event::EventType;
use crate::domain::finding::Patience;
use crate::domain::hazard::Estimate;
use crate::domain::history::Class;
use crate::domain::schedule::{Plan, Terms};
use crate::domain::sighting::Sighting;
use crate::domain::time::{later, since};
use crate::domain::tracked::Tracked;
use crate::domain::transition::Step;
use crate::http::call::{Answer, Call};
use crate::http::failure::{Failure, Verdict};
use crate::provider::{Page, PageRequest, Provider};
use crate::store::providers::ProviderState;
use crate::store::{Pk, Store, StoreError};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

const PANICKED: &str = "the poll panicked; the log tells where";

/// Polls the batches of one account.
pub(super) struct Poller {
    account: Arc<Account>,
    shared: Arc<Shared>,
    due: Mutex<DueList>,
    /// What is known of its list, if it has one. Locked after `due` where both are.
    lists: Option<Mutex<Lists>>,
    budget: Budget,
    record: Arc<Record>,
    /// The loop has something to look at.
    changed: Notify,
    /// A look has come to its end.
    settled: Notify,
    retired: CancellationToken,
    in_flight: TaskTracker,
}

/// What is known of an account besides its batches. The pollers that follow each other at reloads share it.
#[derive(Debug)]
pub(super) struct Record {
    wishes: Arc<Mutex<Wishes>>,
    health: Mutex<Health>,
    /// One report at a time, so that an older one never overtakes a newer.
    reporting: AsyncMutex<()>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

/// How one account stands.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its address.
    pub base_url: String,
    /// Whether it has a key.
    pub key: bool,
    /// Batches on its schedule.
    pub active: u64,
    /// Of those, due now.
    pub due: u64,
    /// How late the latest is.
    pub late: Duration,
    /// Requests in flight.
    pub in_flight: u64,
    /// Until when it wants to be left alone.
    pub held_until: Option<Timestamp>,
    /// Its trouble.
    pub state: ProviderState,
    /// Polls by result, since the start.
    pub polls: BTreeMap<&'static str, u64>,
}

impl Record {
    /// Of an account of which the database remembers `state`.
    pub(super) fn remembered(state: ProviderState) -> Arc<Self> {
        Arc::new(Self {
            wishes: Arc::default(),
            health: Mutex::new(Health::remembered(state)),
            reporting: AsyncMutex::default(),
            counts: Mutex::default(),
        })
    }
}

impl Poller {
    pub(super) fn new(account: Account, record: Arc<Record>, shared: Arc<Shared>) -> Self {
        let lists = account.adapter.listing().map(|listing| Mutex::new(Lists::new(listing)));
        Self {
            budget: Budget::new(&account.config.polling, record.wishes.clone(), shared.clock.now()),
            account: Arc::new(account),
            shared,
            due: Mutex::default(),
            lists,
            record,
            changed: Notify::new(),
            settled: Notify::new(),
            retired: CancellationToken::new(),
            in_flight: TaskTracker::new(),
        }
    }

    pub(super) fn start(self: Arc<Self>) {
        if self.key_refused() {
            // The key may be another by now: one batch tries it.
            let now = self.now();
            let mut due = self.due();
            if let Some((_, pk)) = due.first(false) {
                // Retrieved: that a list is refused says less.
                due.put(pk, Next { closely: true, ..Next::at(now, None) }, now);
            }
        }
        let name = format!("poller {}", self.name());
        let tasks = self.shared.tasks.clone();
        let retired = self.retired.clone();
        tasks.keep_running(name, retired, async move |pulse| self.run(&pulse).await);
    }

    /// Begins no more polls.
    pub(super) fn retire(&self) {
        self.retired.cancel();
        self.in_flight.close();
    }

    /// Whether it begins no more polls.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.is_cancelled()
    }

    /// Resolves when it begins no more polls.
    pub(super) async fn retired(&self) {
        self.retired.cancelled().await;
    }

    /// As long as it is held, something that was in flight before this poller still is.
    pub(super) fn not_ended(&self) -> TaskTrackerToken {
        self.in_flight.token()
    }

    /// Resolves, once it is retired, when what was in flight has ended (each of it has its own deadline).
    pub(super) async fn ended(&self) {
        self.in_flight.wait().await;
    }

    pub(super) fn name(&self) -> &str {
        &self.account.config.name
    }

    pub(super) fn account(&self) -> Arc<Account> {
        self.account.clone()
    }

    pub(super) fn adapter(&self) -> &dyn Provider {
        self.account.adapter.as_ref()
    }

    pub(super) fn plan(&self) -> Plan {
        let Polling { min_interval, max_interval, .. } = self.account.config.polling;
        Plan { min_interval, max_interval, retain: self.shared.retain() }
    }

    /// What the schedule of any batch here depends on, if it is looked at alone.
    pub(super) fn terms(&self) -> Terms {
        Terms { plan: self.plan(), key_refused: self.key_refused(), cost: 1.0, estimate: None }
    }

    /// The same if pages of the list show it.
    pub(super) fn terms_on_pages(&self) -> Terms {
        let cost = self.lists(|lists| lists.cost()).unwrap_or(1.0);
        Terms { cost, ..self.terms() }
    }

    /// The same for `tracked`, in whichever way it is looked at at present, and with what its like teach.
    pub(super) fn terms_of(&self, tracked: &Tracked) -> Terms {
        let terms = if is_close(tracked) { self.terms() } else { self.terms_on_pages() };
        Terms { estimate: self.estimate(tracked), ..terms }
    }

    /// What earlier batches like `tracked` teach.
    pub(super) fn estimate(&self, tracked: &Tracked) -> Option<Arc<Estimate>> {
        self.shared.estimates.about(&Class::of(tracked), self.now())
    }

    pub(super) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn store(&self) -> &Store {
        &self.shared.store
    }

    pub(super) fn due(&self) -> MutexGuard<'_, DueList> {
        lock(&self.due)
    }

    /// What is known of the account's list; `None`: it has none.
    pub(super) fn lists<T>(&self, with: impl FnOnce(&mut Lists) -> T) -> Option<T> {
        self.lists.as_ref().map(|lists| with(&mut lock(lists)))
    }

    pub(super) fn note_lag(&self, late: Duration) {
        self.shared.lag.observe(late.as_secs_f64());
    }

    /// How long a batch here may go on without a word.
    pub(super) fn patience(&self) -> Patience {
        Patience {
            stalled_after: self.account.config.polling.stalled_after,
            reports_progress: self.adapter().reports_progress(),
            // That is a matter of the batch.
            longest_usual: None,
        }
    }

    pub(super) fn key_refused(&self) -> bool {
        lock(&self.record.health).state().refused_since.is_some()
    }

    pub(super) fn describe(&self, id: &str) -> Description {
        Description {
            kind: self.account.config.kind.clone(),
            endpoint: self.adapter().default_endpoint(),
            console_url: self.adapter().console_url(id),
        }
    }

    pub(super) fn canonical_id(&self, id: &str) -> String {
        self.adapter().canonical_id(id)
    }

    /// Puts a batch on the schedule, at a time that was planned by an earlier poller or process: it may have had
    /// other bounds, or a clock that was ahead.
    pub(super) fn schedule(&self, pk: Pk, next: Next) {
        let now = self.now();
        let latest = later(now, self.plan().max_interval);
        self.due().put(pk, Next { at: next.at.min(latest), ..next }, now);
    }

    pub(super) fn adopt(&self, pk: Pk, next: Next) {
        self.due().adopt(pk, next, self.now());
    }

    pub(super) fn unschedule(&self, pk: Pk) {
        self.due().forget(pk);
    }

    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    pub(super) fn nudge(&self, pk: Pk) {
        self.due().nudge(pk, self.now());
        self.wake();
    }

    pub(super) fn all_due(&self) -> u64 {
        let count = self.due().hurry(self.now());
        self.wake();
        count as u64
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let now = self.now();
        let ((active, in_flight), (overdue, late)) = {
            let due = self.due();
            (due.counts(), due.overdue(now))
        };
        let config = &self.account.config;
        Snapshot {
            name: config.name.clone(),
            kind: config.kind.clone(),
            base_url: config.base_url.clone(),
            key: config.api_key.is_some(),
            active: active as u64,
            due: overdue as u64,
            late,
            in_flight: in_flight as u64,
            held_until: self.held_until(),
            state: lock(&self.record.health).state().clone(),
            polls: lock(&self.record.counts).clone(),
        }
    }

    /// Until when the provider wants to be left alone, if it does.
    pub(super) fn held_until(&self) -> Option<Timestamp> {
        self.budget.held_until(self.shared.clock.now())
    }

    pub(super) fn record(&self) -> Arc<Record> {
        self.record.clone()
    }

    /// Asks for one batch, outside the schedule and its limits.
    pub(super) async fn look(&self, id: &str) -> Result<Sighting, Failure> {
        let call = self.adapter().retrieve(id)?;
        let result = self.send(call).await.and_then(|answer| self.adapter().retrieved(id, &answer));
        self.count(&result);
        result
    }

    /// Asks for the newest batch of the list, outside the limits.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let page = PageRequest { limit: 1, ..PageRequest::default() };
        let call = self.adapter().list(&page)?;
        let result = self.send(call).await.and_then(|answer| self.adapter().listed(&page, &answer).map(drop));
        self.report(result.as_ref().err()).await;
        result
    }

    /// Asks for a page of the list within the account's budget, once there is leave; `None`: this poller has been
    /// retired meanwhile.
    ///
    /// A list that is refused or not there says nothing of the account: keys may be restricted, and imitations
    /// often have no list.
    pub(super) async fn page(&self, page: &PageRequest) -> Option<Result<Page, Failure>> {
        let leave = tokio::select! {
            biased;
            () = self.retired.cancelled() => return None,
            leave = self.budget.wait(&self.shared.clock) => leave,
        };
        let result = match self.adapter().list(page) {
            Ok(call) => self.send(call).await.and_then(|answer| self.adapter().listed(page, &answer)),
            Err(failure) => Err(failure),
        };
        drop(leave);
        self.changed.notify_one();
        self.count(&result);
        match result.as_ref().map_err(Failure::verdict) {
            Err(Verdict::Refused | Verdict::Missing) => {}
            Err(Verdict::Hold(wait)) => {
                self.hold(wait);
                self.report(result.as_ref().err()).await;
            }
            Ok(_) | Err(Verdict::Again) => self.report(result.as_ref().err()).await,
        }
        Some(result)
    }

    async fn send(&self, call: Call) -> Result<Answer, Failure> {
        let answer = self.account.send(call).await?;
        self.budget.note(&answer, self.shared.clock.now());
        Ok(answer)
    }

    /// What a sighting makes of a batch, with the time of the next look.
    pub(super) fn observe(&self, before: &Tracked, sighting: &Sighting) -> Step {
        poll::observed(self, before, Ok(sighting), &self.terms_of(before))
    }

    /// Looks at a tracked batch at once; waits its turn only behind a look at the same batch.
    ///
    /// The look is had to its end even if nobody waits for it any more.
    pub(super) async fn poll_by_hand(self: &Arc<Self>, pk: Pk) -> Result<Option<Failure>, StoreError> {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.due().claim(pk) {
                break;
            }
            settled.await;
        }
        let (told, answer) = oneshot::channel();
        self.begin(pk, move |polled| {
            let result = match polled {
                Ok(Polled { failure, .. }) => Ok(failure.clone()),
                Err(error) => Err(error.clone()),
            };
            // Whoever asked may be gone.
            let _ = told.send(result);
        });
        answer.await.unwrap_or_else(|_| Err(StoreError::Internal(PANICKED.to_owned())))
    }

    /// What an answer, or the lack of one, says of the account.
    pub(super) async fn report(&self, failure: Option<&Failure>) {
        let now = self.shared.clock.now();
        let episode = lock(&self.record.health).note(self.name(), failure, now);
        if let Some(Episode { kind, message }) = episode {
            tracing::warn!(provider = self.name(), "{message}");
            if kind == EventType::ProviderRecovered {
                // What was put off while it was in trouble need not be any more.
                self.all_due();
            }
        }
        if lock(&self.record.health).report().is_none() {
            return;
        }
        let _one_at_a_time = self.record.reporting.lock().await;
        let Some(report) = lock(&self.record.health).report() else { return };
        let (state, events) = (report.state.clone(), report.events.clone());
        let routes = self.shared.routes();
        match self.shared.store.set_provider_state(self.name().to_owned(), state, events, routes).await {
            Ok(()) => lock(&self.record.health).stored(report),
            Err(error) => {
                tracing::error!(provider = self.name(), %error, "cannot record the provider's state; tried again at the next look");
            }
        }
    }

    /// The server asked to be left alone.
    pub(super) fn hold(&self, wait: Option<Duration>) -> Timestamp {
        self.budget.hold(wait, self.shared.clock.now())
    }

    pub(super) fn count<T>(&self, result: &Result<T, Failure>) {
        let result = result.as_ref().map_or_else(Failure::class, |_| "ok");
        *lock(&self.record.counts).entry(result).or_default() += 1;
    }

    async fn run(self: Arc<Self>, pulse: &crate::tasks::Pulse) {
        let mut before = self.shared.clock.now();
        loop {
            pulse.beat();
            let now = self.shared.clock.now();
            if now < before {
                self.clock_was_set_back(since(now, before));
            }
            before = now;
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.retired.is_cancelled() {
                return;
            }
            let nap = self.start_what_is_due();
            tokio::select! {
                () = self.retired.cancelled() => return,
                () = &mut changed => {}
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    /// What was to happen in an hour still happens in an hour.
    fn clock_was_set_back(&self, by: Duration) {
        self.due().advance(by);
        self.budget.clock_was_set_back(by);
    }

    /// Starts a round if one is worth it, and as many polls as may be; says how long nothing else needs doing.
    fn start_what_is_due(self: &Arc<Self>) -> Duration {
        self.start_a_round();
        loop {
            let now = self.now();
            // While a round is under way it is for the next one to see what many have become due, or are about to.
            let first = {
                let due = self.due();
                let crowd = self.account.config.polling.concurrency as usize;
                due.first(due.is_in_round() && due.is_crowded(crowd, self.plan().min_interval, now))
            };
            let Some((at, pk)) = first else { return LONGEST_NAP };
            if at > now {
                return since(now, at).min(LONGEST_NAP);
            }
            let slot = match self.budget.take(now) {
                Ok(slot) => slot,
                // One that comes free wakes the loop.
                Err(Wait::Slot) => return LONGEST_NAP,
                Err(Wait::For(wait)) => return wait.min(LONGEST_NAP),
            };
            self.note_lag(since(at, now));
            self.due().claim(pk);
            self.begin(pk, move |_| drop(slot));
        }
    }

    /// Begins a round if one would cost less than the looks that are due.
    fn start_a_round(self: &Arc<Self>) {
        let now = self.now();
        if self.held_until().is_some() || self.lists(|lists| lists.may_begin(now)) != Some(true) {
            return;
        }
        {
            let mut due = self.due();
            if due.is_in_round() {
                return;
            }
            if self.lists(|lists| lists.is_stale(now)) == Some(true) {
                due.forget_what_was_unlisted();
            }
            let wanted = due.wanted(self.plan().max_interval, now);
            if wanted.is_empty()
                || self.lists(|lists| lists.is_worth_it(&wanted, &due, now)) != Some(true)
                || !due.begin_round()
            {
                return;
            }
            due.expect(&wanted);
        }
        let round = Round::of(self.clone());
        self.shared.tasks.attempt(&self.in_flight, round.run(), {
            let poller = self.clone();
            move || {
                tracing::error!(
                    provider = poller.name(),
                    "a round panicked; batches are retrieved for a while"
                );
                poller.lists(|lists| lists.panicked(poller.now()));
                poller.wake();
            }
        });
    }

    /// Looks at a claimed batch, and tells `done` what came of it before the batch is back on the schedule.
    fn begin(self: &Arc<Self>, pk: Pk, done: impl FnOnce(&Result<Polled, StoreError>) + Send + 'static) {
        let poller = self.clone();
        let look = async move {
            let seen = poll::poll(&poller, &poller.shared, pk).await;
            done(&seen);
            poller.settle(pk, seen);
        };
        let poller = self.clone();
        self.shared.tasks.attempt(&self.in_flight, look, move || {
            tracing::error!(provider = poller.name(), "a poll panicked; the batch is looked at again later");
            poller.settle(pk, Err(StoreError::Internal(PANICKED.to_owned())));
        });
    }

    fn settle(&self, pk: Pk, polled: Result<Polled, StoreError>) {
        let now = self.now();
        let next = match polled {
            Ok(polled) => polled.next,
            Err(error) => {
                // The look is lost, not the batch: it is had again.
                tracing::error!(provider = self.name(), %error, "cannot store what was seen; it will be looked at again");
                Some(Next::at(later(now, self.plan().min_interval), None))
            }
        };
        self.due().settle(pk, next, false, now);
        self.changed.notify_one();
        self.settled.notify_waiters();
    }

    /// The same for a batch that a page showed.
    pub(super) fn settle_shown(&self, pk: Pk, next: Option<Next>) {
        self.due().settle(pk, next, true, self.now());
        self.settled.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves the value whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
