//! One account's poller: what is due there, how fast it may be asked, and whether it answers.

use super::account::{Account, Description};
use super::budget::{Budget, HAND_TIMEOUT, Leave, Wishes};
use super::by_hand::ByHand;
use super::due::{DueList, Next};
use super::health::{Episode, Health};
use super::lists::Lists;
use super::recent_checks::{RecentCheck, RecentChecks};
use super::shared::Shared;
use crate::config::Polling;
use crate::domain::event::EventType;
use crate::domain::finding::Patience;
use crate::domain::hazard::Estimate;
use crate::domain::history::Class;
use crate::domain::schedule::{Plan, Terms};
use crate::domain::sighting::Sighting;
use crate::domain::time::{has_passed, later, since};
use crate::domain::tracked::Tracked;
use crate::http::call::{Answer, Call};
use crate::http::failure::{Failure, Verdict, retry_after};
use crate::http::transport::Transport;
use crate::logging::Recurring;
use crate::provider::page_items::fingerprint;
use crate::provider::{Page, PageRequest, Provider, registry};
use crate::store::providers::ProviderState;
use crate::store::rescheduled::Rescheduled;
use crate::store::schedule::ScheduleEntry;
use crate::store::{Pk, Store, StoreError};
use crate::sync::lock;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Polls the batches of one account.
pub(super) struct Poller {
    /// For what is asked for by hand; its way out keeps to the budget by itself.
    account: Arc<Account>,
    /// The way out for whoever has leave already.
    transport: Arc<dyn Transport>,
    pub(super) shared: Arc<Shared>,
    due: Mutex<DueList>,
    /// What is known of its list, if it has one. Locked after `due` where both are.
    lists: Option<Mutex<Lists>>,
    pub(super) budget: Arc<Budget>,
    record: Arc<Record>,
    /// What the list last said of the account's key, and when.
    probed: AsyncMutex<Option<(Timestamp, Access)>>,
    /// Notified when the loop has to consider its schedule again.
    pub(super) changed: Arc<Notify>,
    /// Notified when a poll has ended.
    pub(super) settled: Notify,
    pub(super) retired: CancellationToken,
    pub(super) in_flight: TaskTracker,
}

/// The result of one poll.
pub(super) struct Polled {
    /// When the batch is due again, and how; `None`: never by itself.
    pub next: Option<Next>,
    /// Why the batch could not be checked, if it could not.
    pub failure: Option<Failure>,
}

/// What came of asking for one batch, before it is read.
pub(super) struct Asked {
    begun: Instant,
    answer: Result<Answer, Failure>,
}

impl Asked {
    /// How the batch is written; `None`: there is more to the answer than that.
    pub(super) fn fingerprint(&self) -> Option<u64> {
        let answer = self.answer.as_ref().ok()?;
        let is_plain = answer.status.is_success() && !answer.cut && retry_after(&answer.headers).is_none();
        is_plain.then(|| fingerprint(&answer.body))
    }
}

/// What the account's list says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The list can be read.
    Accepted,
    /// The list is refused too, or there is none.
    Refused,
    /// The list did not answer.
    Unknown,
}

/// How long what the list said of the key is believed.
const PROBE_INTERVAL: Duration = Duration::from_mins(1);

/// What is known of an account besides its batches. The pollers that follow each other at reloads share it.
#[derive(Debug)]
pub(super) struct Record {
    wishes: Arc<Mutex<Wishes>>,
    health: Mutex<Health>,
    /// One report at a time, so that an older one never overtakes a newer.
    reporting: AsyncMutex<()>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    recent: RecentChecks,
    /// How often the schedule was found not to be what the database says.
    repaired: AtomicU64,
    /// Of what checks have shown.
    storing: Mutex<Recurring>,
}

/// How one account stands.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub name: String,
    pub kind: String,
    pub base_url: String,
    pub key: bool,
    /// How many batches are on its schedule.
    pub active: u64,
    /// Of those, due now.
    pub due: u64,
    /// How late the one is that has been due for longest.
    pub late: Duration,
    pub in_flight: u64,
    /// Until when it wants to be left alone, if it does.
    pub held_until: Option<Timestamp>,
    /// Whether and since when it refuses the key or does not answer.
    pub state: ProviderState,
    /// How many requests about batches ended how (`ok`, or [`Failure::class`]), since the start.
    pub polls: BTreeMap<&'static str, u64>,
    /// The last requests since the start, oldest first.
    pub recent: Vec<RecentCheck>,
    /// How many batches were found to be missing from the schedule, or wrongly on it, since the start.
    pub repaired: u64,
}

/// Whether the answer shows that the service has no list: it knows no such path or method, or answers with something
/// else.
fn is_no_list(failure: Option<&Failure>) -> bool {
    match failure {
        Some(Failure::Status { status, .. }) => matches!(status.as_u16(), 400 | 405 | 501),
        Some(Failure::Malformed(_) | Failure::Unsupported(_) | Failure::BadRequest(_)) => true,
        _ => false,
    }
}

impl Record {
    /// Of an account of which the database remembers `state`.
    pub(super) fn remembered(state: ProviderState, now: Timestamp) -> Arc<Self> {
        Arc::new(Self {
            wishes: Arc::new(Mutex::new(Wishes::remembered(state.held_until, now))),
            health: Mutex::new(Health::remembered(state)),
            reporting: AsyncMutex::default(),
            counts: Mutex::default(),
            recent: RecentChecks::default(),
            repaired: AtomicU64::default(),
            storing: Mutex::new(Recurring::new("store what a check has shown")),
        })
    }
}

impl Poller {
    pub(super) fn new(mut account: Account, record: Arc<Record>, shared: Arc<Shared>) -> Self {
        let lists = account.adapter.listing().map(|listing| Mutex::new(Lists::new(listing)));
        let clock = shared.clock.clone();
        let changed = Arc::new(Notify::new());
        let budget = Arc::new(Budget::new(
            &account.config.polling,
            record.wishes.clone(),
            changed.clone(),
            clock.now(),
        ));
        let transport = account.transport.clone();
        account.transport = Arc::new(ByHand { transport: transport.clone(), budget: budget.clone(), clock });
        Self {
            budget,
            account: Arc::new(account),
            transport,
            shared,
            due: Mutex::default(),
            lists,
            record,
            probed: AsyncMutex::default(),
            changed,
            settled: Notify::new(),
            retired: CancellationToken::new(),
            in_flight: TaskTracker::new(),
        }
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
        Plan { min_interval, max_interval }
    }

    /// What the schedule of any batch here depends on, if it is polled by itself.
    pub(super) fn terms(&self) -> Terms {
        Terms { plan: self.plan(), key_refused: self.key_refused(), cost: 1.0, estimate: None }
    }

    /// The same if pages of the list show it.
    pub(super) fn terms_on_pages(&self) -> Terms {
        let cost = self.lists(|lists| lists.cost()).unwrap_or(1.0);
        Terms { cost, ..self.terms() }
    }

    /// The same for `tracked`, in whichever way it is checked at present, and with what batches like it teach.
    pub(super) fn terms_of(&self, tracked: &Tracked) -> Terms {
        let terms = if tracked.is_close() { self.terms() } else { self.terms_on_pages() };
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
        let mut due = lock(&self.due);
        due.follow_clock(self.now());
        due
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
            reports_progress: registry::counts_live(&self.account.config.kind),
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

    /// Puts on the schedule what the database has of it, at times that were planned by an earlier poller or process: it
    /// may have had other bounds, or a clock that was ahead.
    pub(super) fn fill(&self, schedule: &[ScheduleEntry]) {
        let own = schedule.iter().filter(|entry| *entry.provider == *self.name());
        let entries =
            own.map(|entry| (entry.pk, self.bounded(Next::at(entry.next_poll_at, entry.created_at))));
        let now = self.now();
        self.due().fill(entries, now);
    }

    /// What a commit has made of batches' places on the schedule.
    pub(super) fn told(&self, changes: &[&Rescheduled]) {
        let now = self.now();
        let mut wait = false;
        {
            let mut due = self.due();
            for change in changes {
                wait |= due.told(change.pk, change.next.map(|next| self.bounded(next.into())), now);
            }
        }
        if wait {
            self.wake();
        }
    }

    /// No later than after the longest interval.
    pub(super) fn bounded(&self, next: Next) -> Next {
        Next { at: next.at.min(later(self.now(), self.plan().max_interval)), ..next }
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
            key: config.api_key.is_some() || config.auth_token.is_some(),
            active: active as u64,
            due: overdue as u64,
            late,
            in_flight: in_flight as u64,
            held_until: self.held_until(),
            state: lock(&self.record.health).state().clone(),
            polls: lock(&self.record.counts).clone(),
            recent: self.record.recent.all(),
            repaired: self.record.repaired.load(Ordering::Relaxed),
        }
    }

    /// Until when the provider wants to be left alone, if it does.
    pub(super) fn held_until(&self) -> Option<Timestamp> {
        self.budget.held_until(self.shared.clock.now())
    }

    /// Takes over what another daemon knew of the account; of the ceiling nothing is left, as that one may have used it.
    pub(super) fn remember(&self, state: ProviderState) {
        self.show(state);
        self.budget.use_up(self.now());
    }

    /// Shows what another daemon knows of the account. Its provider's wish to be left alone is everybody's: what is asked by
    /// hand here keeps to it too.
    pub(super) fn show(&self, state: ProviderState) {
        let now = self.now();
        if let Some(until) = state.held_until.filter(|until| *until > now) {
            self.budget.hold(Some(since(now, until)), now);
        }
        *lock(&self.record.health) = Health::remembered(state);
    }

    pub(super) fn record(&self) -> Arc<Record> {
        self.record.clone()
    }

    /// Asks for one batch by hand, once it is its turn.
    pub(super) async fn retrieve_by_hand(&self, id: &str) -> Result<Sighting, Failure> {
        let _leave = self.leave_by_hand().await?;
        self.retrieve(id).await
    }

    /// Leave for one request that was asked for by hand.
    pub(super) async fn leave_by_hand(&self) -> Result<Leave, Failure> {
        let leave = self.budget.by_hand(&self.shared.clock, HAND_TIMEOUT).await;
        leave.map_err(Failure::Busy)
    }

    /// Asks for one batch; whoever calls it has leave.
    pub(super) async fn retrieve(&self, id: &str) -> Result<Sighting, Failure> {
        let asked = self.ask(id).await?;
        self.read(id, &asked)
    }

    /// The same, without reading what comes.
    pub(super) async fn ask(&self, id: &str) -> Result<Asked, Failure> {
        let call = self.adapter().retrieve(id)?;
        let begun = Instant::now();
        Ok(Asked { begun, answer: self.send(call).await })
    }

    /// Reads what came.
    pub(super) fn read(&self, id: &str, asked: &Asked) -> Result<Sighting, Failure> {
        let result = asked.answer.as_ref().map_err(Clone::clone).and_then(|answer| {
            let sighting = self.account.read(answer, |adapter| adapter.retrieved(id, answer))?;
            Ok(Sighting { retry_after: retry_after(&answer.headers), ..sighting })
        });
        self.count(&result, asked.begun);
        result
    }

    /// What came need not be read.
    pub(super) fn leave_unread(&self, asked: &Asked) {
        self.count(&Ok(()), asked.begun);
    }

    /// Asks for the newest batch of the list by hand, once it is its turn.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let _leave = self.leave_by_hand().await?;
        let page = PageRequest { limit: 1, ..PageRequest::default() };
        let call = self.adapter().list(&page)?;
        let begun = Instant::now();
        let result = self.send(call).await.and_then(|answer| self.listed(&page, &answer).map(drop));
        self.record.recent.note(&result, begun.elapsed(), self.now());
        self.report(result.as_ref().err()).await;
        result
    }

    /// Whether the key can read the list, which every key can that is good for anything: asked outside the limits, but
    /// at most once a minute (`docs/providers.md#refusals`).
    pub(super) async fn access(&self) -> Access {
        let mut probed = self.probed.lock().await;
        let now = self.now();
        if let Some((at, access)) = *probed
            && !has_passed(PROBE_INTERVAL, at, now)
        {
            return access;
        }
        let page = PageRequest { limit: 1, ..PageRequest::default() };
        let begun = Instant::now();
        let result = match self.adapter().list(&page) {
            Ok(call) => self.send(call).await.and_then(|answer| self.listed(&page, &answer)),
            Err(failure) => Err(failure),
        };
        self.count(&result, begun);
        let access = match result.as_ref().map_err(Failure::verdict) {
            Ok(_) => Access::Accepted,
            Err(Verdict::Refused | Verdict::Missing) => Access::Refused,
            Err(Verdict::Again) if is_no_list(result.as_ref().err()) => Access::Refused,
            Err(Verdict::Again | Verdict::Hold(_)) => Access::Unknown,
        };
        if access != Access::Refused {
            self.report(result.as_ref().err()).await;
        }
        *probed = Some((now, access));
        access
    }

    /// Asks for a page of the list within the account's budget, once there is leave; `None`: this poller has been
    /// retired meanwhile.
    ///
    /// A list that is refused or not there says nothing of the account: keys may be restricted, and imitations
    /// often have no list.
    pub(super) async fn page(&self, page: &PageRequest) -> Option<Result<Page, Failure>> {
        self.page_as(page, |adapter, answer| adapter.listed(page, answer)).await
    }

    /// The same, read by `read`.
    pub(super) async fn page_as<T>(
        &self,
        page: &PageRequest,
        read: impl FnOnce(&dyn Provider, &Answer) -> Result<T, Failure> + Send,
    ) -> Option<Result<T, Failure>> {
        let leave = tokio::select! {
            biased;
            () = self.retired.cancelled() => return None,
            leave = self.budget.wait(&self.shared.clock) => leave,
        };
        let begun = Instant::now();
        let result = match self.adapter().list(page) {
            Ok(call) => {
                let answer = self.send(call).await;
                answer.and_then(|answer| self.account.read(&answer, |adapter| read(adapter, &answer)))
            }
            Err(failure) => Err(failure),
        };
        drop(leave);
        self.changed.notify_one();
        self.count(&result, begun);
        match result.as_ref().map_err(Failure::verdict) {
            Err(Verdict::Refused | Verdict::Missing) => {}
            Ok(_) | Err(Verdict::Again | Verdict::Hold(_)) => self.report(result.as_ref().err()).await,
        }
        Some(result)
    }

    fn listed(&self, page: &PageRequest, answer: &Answer) -> Result<Page, Failure> {
        self.account.read(answer, |adapter| adapter.listed(page, answer))
    }

    async fn send(&self, call: Call) -> Result<Answer, Failure> {
        let answer = self.transport.send(call).await?;
        self.budget.note(&answer, self.shared.clock.now());
        Ok(answer)
    }

    /// What an answer, or the lack of one, says of the account; if it wants to be left alone, it is from now on.
    pub(super) async fn report(&self, failure: Option<&Failure>) {
        let now = self.shared.clock.now();
        if let Some(Verdict::Hold(wait)) = failure.map(Failure::verdict) {
            let until = self.budget.hold(wait, now);
            lock(&self.record.health).hold(until);
        }
        let episode = lock(&self.record.health).note(self.name(), failure, now);
        if let Some(Episode { kind, message }) = episode {
            if kind == EventType::ProviderRecovered {
                tracing::info!(provider = self.name(), "{message}");
                // What was put off while it was in trouble need not be any more.
                self.all_due();
            } else {
                tracing::error!(provider = self.name(), "{message}");
            }
        }
        if lock(&self.record.health).report().is_none() || !self.shared.polls(self.name()) {
            return;
        }
        let _one_at_a_time = self.record.reporting.lock().await;
        let Some(report) = lock(&self.record.health).report() else { return };
        let (state, events) = (report.state.clone(), report.events.clone());
        let routes = self.shared.routes();
        match self.shared.store.set_provider_state(self.name().to_owned(), state, events, routes).await {
            Ok(()) => lock(&self.record.health).stored(report),
            Err(error) => {
                tracing::error!(provider = self.name(), %error, "cannot record the provider's state; tried again at the next poll");
            }
        }
    }

    /// What a check has shown cannot be stored: the batch is checked again.
    pub(super) fn cannot_store(&self, error: &StoreError) {
        lock(&self.record.storing).note_of::<(), _>(self.name(), Err(error));
    }

    /// It can.
    pub(super) fn has_stored(&self) {
        lock(&self.record.storing).note_of::<_, StoreError>(self.name(), Ok(()));
    }

    /// Notes how a request about batches ended that was sent at `begun`.
    fn count<T>(&self, result: &Result<T, Failure>, begun: Instant) {
        self.record.recent.note(result, begun.elapsed(), self.now());
        let result = result.as_ref().map_or_else(Failure::class, |_| "ok");
        *lock(&self.record.counts).entry(result).or_default() += 1;
    }

    pub(super) fn count_repaired(&self, batches: usize) {
        self.record.repaired.fetch_add(batches as u64, Ordering::Relaxed);
    }

    /// Puts a batch that a page showed on the schedule again.
    pub(super) fn settle_shown(&self, pk: Pk, next: Option<Next>) {
        self.due().settle(pk, next, true, self.now());
        self.settled.notify_waiters();
    }
}
