//! One account's poller: what is due there, how fast it may be asked, and whether it answers.

use super::budget::{Budget, LONGEST_NAP, Wait, Wishes};
use super::poll::{self, Polled};
use super::standing::{Episode, Health};
use super::{Account, Description, Shared};
use crate::config::Polling;
use crate::domain::event::EventType;
use crate::domain::history::Class;
use crate::domain::schedule::{Plan, Standing, Terms};
use crate::domain::sighting::Sighting;
use crate::domain::time::{from_millis, later, since};
use crate::domain::tracked::Tracked;
use crate::domain::transition::Step;
use crate::http::call::{Answer, Call};
use crate::http::failure::{Failure, Verdict};
use crate::provider::{Page, PageRequest, Provider};
use crate::store::providers::ProviderState;
use crate::store::{Pk, StoreError};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
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

/// What is due when: an entry a batch, nothing else of it.
#[derive(Debug, Default)]
struct DueList {
    by_time: BTreeSet<(i64, Pk)>,
    by_batch: BTreeMap<Pk, i64>,
    /// Under way, and what becomes of each when it comes back.
    busy: BTreeMap<Pk, Afterwards>,
}

/// What becomes of a batch after the look that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Afterwards {
    /// What the look says.
    AsSeen,
    /// The same, but if the look knows of no next one it is due then: it was put on the schedule meanwhile.
    OrDue(Timestamp),
    /// It was taken off the schedule.
    Gone,
}

impl DueList {
    /// Due then and at no other time, whatever was said before.
    fn put(&mut self, pk: Pk, at: Timestamp) {
        if let Some(afterwards) = self.busy.get_mut(&pk) {
            *afterwards = Afterwards::OrDue(at);
            return;
        }
        self.take(pk);
        let at = at.as_millisecond();
        self.by_batch.insert(pk, at);
        self.by_time.insert((at, pk));
    }

    /// Due then, unless it is on the schedule already.
    fn adopt(&mut self, pk: Pk, at: Timestamp) {
        if !self.by_batch.contains_key(&pk) {
            self.put(pk, at);
        }
    }

    /// Off the schedule.
    fn forget(&mut self, pk: Pk) {
        self.take(pk);
        if let Some(afterwards) = self.busy.get_mut(&pk) {
            *afterwards = Afterwards::Gone;
        }
    }

    /// Under way from now on; `false`: it is already.
    fn claim(&mut self, pk: Pk) -> bool {
        if self.busy.contains_key(&pk) {
            return false;
        }
        self.take(pk);
        self.busy.insert(pk, Afterwards::AsSeen);
        true
    }

    /// Back from a look, which says when the next one is due.
    fn settle(&mut self, pk: Pk, next: Option<Timestamp>) {
        let next = match self.busy.remove(&pk).unwrap_or(Afterwards::AsSeen) {
            Afterwards::AsSeen => next,
            Afterwards::OrDue(at) => next.or(Some(at)),
            Afterwards::Gone => None,
        };
        if let Some(next) = next {
            self.put(pk, next);
        }
    }

    fn take(&mut self, pk: Pk) {
        if let Some(at) = self.by_batch.remove(&pk) {
            self.by_time.remove(&(at, pk));
        }
    }

    /// Everything is due earlier by `by`.
    fn advance(&mut self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        for at in self.by_batch.values_mut() {
            *at = at.saturating_sub(by);
        }
        self.by_time = self.by_batch.iter().map(|(pk, at)| (*at, *pk)).collect();
    }

    fn first(&self) -> Option<(Timestamp, Pk)> {
        self.by_time.first().map(|(at, pk)| (from_millis(*at), *pk))
    }
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
        Self {
            budget: Budget::new(&account.config.polling, record.wishes.clone(), shared.clock.now()),
            account: Arc::new(account),
            shared,
            due: Mutex::default(),
            record,
            changed: Notify::new(),
            settled: Notify::new(),
            retired: CancellationToken::new(),
            in_flight: TaskTracker::new(),
        }
    }

    pub(super) fn start(self: Arc<Self>) {
        if self.standing().refused {
            // The key may be another by now: one batch tries it.
            let mut due = lock(&self.due);
            if let Some((_, pk)) = due.first() {
                due.put(pk, self.shared.clock.now());
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

    /// What the schedule of `tracked` depends on, if it is looked at alone.
    pub(super) fn terms(&self, tracked: &Tracked) -> Terms {
        let Polling { min_interval, max_interval, .. } = self.account.config.polling;
        let plan = Plan { min_interval, max_interval, retain: self.shared.retain() };
        let estimate = self.shared.learnt.about(&Class::of(tracked), self.shared.clock.now());
        Terms { plan, standing: self.standing(), cost: 1.0, estimate }
    }

    pub(super) fn stalled_after(&self) -> Duration {
        self.account.config.polling.stalled_after
    }

    pub(super) fn standing(&self) -> Standing {
        Standing { refused: lock(&self.record.health).state().refused_since.is_some() }
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
    pub(super) fn schedule(&self, pk: Pk, at: Timestamp) {
        let latest = later(self.shared.clock.now(), self.account.config.polling.max_interval);
        lock(&self.due).put(pk, at.min(latest));
    }

    pub(super) fn adopt(&self, pk: Pk, at: Timestamp) {
        lock(&self.due).adopt(pk, at);
    }

    pub(super) fn unschedule(&self, pk: Pk) {
        lock(&self.due).forget(pk);
    }

    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    pub(super) fn all_due(&self) -> u64 {
        let now = self.shared.clock.now();
        let mut due = lock(&self.due);
        let batches: Vec<Pk> = due.by_batch.keys().copied().collect();
        for pk in &batches {
            due.put(*pk, now);
        }
        let count = batches.len() + due.busy.len();
        drop(due);
        self.wake();
        count as u64
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let now = self.shared.clock.now();
        let due = lock(&self.due);
        let overdue = due.by_time.range(..=(now.as_millisecond(), Pk::MAX)).count() as u64;
        let late = due.first().map_or(Duration::ZERO, |(at, _)| since(at, now));
        let config = &self.account.config;
        Snapshot {
            name: config.name.clone(),
            kind: config.kind.clone(),
            base_url: config.base_url.clone(),
            key: config.api_key.is_some(),
            active: (due.by_batch.len() + due.busy.len()) as u64,
            due: overdue,
            late,
            in_flight: due.busy.len() as u64,
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
        poll::observed(self, &self.shared, before, Ok(sighting))
    }

    /// Looks at a tracked batch at once; waits its turn only behind a look at the same batch.
    ///
    /// The look is had to its end even if nobody waits for it any more.
    pub(super) async fn poll_by_hand(self: &Arc<Self>, pk: Pk) -> Result<Option<Failure>, StoreError> {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if lock(&self.due).claim(pk) {
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
        lock(&self.due).advance(by);
        self.budget.clock_was_set_back(by);
    }

    /// Starts as many polls as may be, and says how long nothing else needs doing.
    fn start_what_is_due(self: &Arc<Self>) -> Duration {
        loop {
            let now = self.shared.clock.now();
            let Some((at, pk)) = lock(&self.due).first() else { return LONGEST_NAP };
            if at > now {
                return since(now, at).min(LONGEST_NAP);
            }
            let slot = match self.budget.take(now) {
                Ok(slot) => slot,
                // One that comes free wakes the loop.
                Err(Wait::Slot) => return LONGEST_NAP,
                Err(Wait::For(wait)) => return wait.min(LONGEST_NAP),
            };
            self.shared.lag.observe(since(at, now).as_secs_f64());
            lock(&self.due).claim(pk);
            self.begin(pk, move |_| drop(slot));
        }
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
        let next = match polled {
            Ok(polled) => polled.next,
            Err(error) => {
                // The look is lost, not the batch: it is had again.
                tracing::error!(provider = self.name(), %error, "cannot store what was seen; it will be looked at again");
                Some(later(self.shared.clock.now(), self.account.config.polling.min_interval))
            }
        };
        lock(&self.due).settle(pk, next);
        self.changed.notify_one();
        self.settled.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves the value whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn at(seconds: u64) -> Timestamp {
        later(NOW, Duration::from_secs(seconds))
    }

    #[test]
    fn what_is_taken_off_during_its_look_stays_off_unless_it_is_put_on_again() {
        let mut due = DueList::default();
        due.put(1, at(10));
        assert!(due.claim(1) && !due.claim(1));
        due.forget(1);
        due.settle(1, Some(at(20)));
        assert_eq!(due.first(), None);

        assert!(due.claim(1));
        due.forget(1);
        due.adopt(1, at(12));
        due.settle(1, None);
        assert_eq!(due.first(), Some((at(12), 1)), "untracked and tracked again while a look was under way");
    }

    #[test]
    fn what_is_on_the_schedule_is_not_adopted_again() {
        let mut due = DueList::default();
        due.put(1, at(10));
        due.adopt(1, at(0));
        assert_eq!(due.first(), Some((at(10), 1)));
        assert!(due.claim(1));
        due.adopt(1, at(0));
        due.settle(1, Some(at(20)));
        assert_eq!(due.first(), Some((at(20), 1)));
    }
}
