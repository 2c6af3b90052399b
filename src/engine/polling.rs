//! The loop of one account's poller: starts what is due, by itself or by hand, and takes back what has ended.

use super::budget::{MAX_SLEEP, Wait};
use super::due::{Claim, Next};
use super::poll;
use super::poller::{Polled, Poller};
use super::rounds::Round;
use crate::domain::ownership::Scope;
use crate::domain::sighting::Sighting;
use crate::domain::time::{later, since};
use crate::domain::tracked::Tracked;
use crate::domain::transition::Step;
use crate::http::failure::Failure;
use crate::logging::Recurring;
use crate::store::holdings::Holdings;
use crate::store::{Pk, StoreError};
use crate::tasks::Pulse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Of the waits of one that does not poll the account, each so-many-th shows what its owner knows.
const SHOWN_EVERY: u32 = 5;
const PANICKED: &str = "the poll panicked; the log tells where";

impl Poller {
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

    /// What a sighting makes of a batch, with the time of the next check.
    pub(super) fn observe(&self, before: &Tracked, sighting: &Sighting) -> Step {
        poll::observed(self, before, Ok(sighting), &self.terms_of(before))
    }

    /// Polls a tracked batch at once; waits only while the same batch is being polled.
    ///
    /// The poll goes on to its end even if nobody waits for it any more.
    pub(super) async fn poll_by_hand(self: &Arc<Self>, pk: Pk) -> Result<Option<Failure>, StoreError> {
        let leave = match self.leave_by_hand().await {
            Ok(leave) => leave,
            Err(failure) => return Ok(Some(failure)),
        };
        let claim = loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            let claim = self.due().claim(pk);
            if let Some(claim) = claim {
                break claim;
            }
            settled.await;
        };
        let (told, answer) = oneshot::channel();
        self.begin(pk, claim, true, move |polled| {
            drop(leave);
            let result = match polled {
                Ok(Polled { failure, .. }) => Ok(failure.clone()),
                Err(error) => Err(error.clone()),
            };
            // Whoever asked may be gone.
            let _ = told.send(result);
        });
        answer.await.unwrap_or_else(|_| Err(StoreError::Internal(PANICKED.to_owned())))
    }

    async fn run(self: Arc<Self>, pulse: &Pulse) {
        let scope = Scope::Account(self.name().to_owned());
        let holdings = self.shared.store.holdings();
        // Of what is this daemon's alone the schedule is known from the start.
        let alone = holdings.as_ref().filter(|holdings| holdings.is_alone());
        let mut known = alone.and_then(|holdings| holdings.tenure(&scope));
        let mut handovers = holdings.as_ref().map(Holdings::changes);
        let mut waits: u32 = 0;
        let mut reading = Recurring::new("read the schedule from the state");
        loop {
            pulse.beat();
            let Some(tenure) = self.shared.store.tenure(&scope) else {
                known = None;
                self.shared.wait_for_work(&self.retired).await;
                if self.retired.is_cancelled() {
                    return;
                }
                waits += 1;
                if waits.is_multiple_of(SHOWN_EVERY) {
                    self.show_owners().await;
                }
                continue;
            };
            if known != Some(tenure) {
                if self.retired.is_cancelled() {
                    return;
                }
                if reading.note_of(self.name(), self.take_over().await).is_some() {
                    known = Some(tenure);
                } else {
                    self.shared.wait_for_work(&self.retired).await;
                }
                continue;
            }
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.retired.is_cancelled() {
                return;
            }
            let sleep = self.start_what_is_due();
            tokio::select! {
                biased;
                () = self.retired.cancelled() => return,
                () = &mut changed => {}
                () = changed_hands(&mut handovers) => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Shows here too what the daemon knows that polls the account.
    async fn show_owners(&self) {
        if let Ok(states) = self.shared.store.provider_states().await
            && let Some((_, state)) = states.into_iter().find(|(name, _)| name == self.name())
        {
            self.show(state);
        }
    }

    /// Takes what others have left on the schedule, and nothing of what this daemon knew of it.
    async fn take_over(&self) -> Result<(), StoreError> {
        self.due().begin_anew();
        let states = self.shared.store.provider_states().await?;
        let schedule = self.shared.store.schedule_of(self.name().to_owned()).await?;
        if let Some((_, state)) = states.into_iter().find(|(name, _)| name == self.name()) {
            self.remember(state);
        }
        self.fill(&schedule);
        Ok(())
    }

    /// Starts a round if one is worth it, and as many polls as may be; says how long nothing else needs doing.
    fn start_what_is_due(self: &Arc<Self>) -> Duration {
        self.start_a_round();
        loop {
            let now = self.now();
            // While a round is under way it is for the next one to see what many have become due, or are about to.
            let first = {
                let due = self.due();
                let crowd = self.account().config.polling.concurrency as usize;
                due.first(due.is_in_round() && due.is_crowded(crowd, self.plan().min_interval, now))
            };
            let Some((at, pk)) = first else { return MAX_SLEEP };
            if at > now {
                return since(now, at).min(MAX_SLEEP);
            }
            let slot = match self.budget.take(now) {
                Ok(slot) => slot,
                // One that comes free wakes the loop.
                Err(Wait::Slot) => return MAX_SLEEP,
                Err(Wait::For(wait)) => return wait.min(MAX_SLEEP),
            };
            self.note_lag(since(at, now));
            let claim = self.due().claim(pk);
            if let Some(claim) = claim {
                self.begin(pk, claim, false, move |_| drop(slot));
            }
        }
    }

    /// Begins a round if one would cost less than the polls that are due.
    fn start_a_round(self: &Arc<Self>) {
        let now = self.now();
        if self.held_until().is_some() || self.lists(|lists| lists.may_begin(now)) != Some(true) {
            return;
        }
        let claim = {
            let mut due = self.due();
            if due.is_in_round() {
                return;
            }
            if self.lists(|lists| lists.is_stale(now)) == Some(true) {
                due.forget_what_was_unlisted();
            }
            let wanted = due.wanted(self.plan().max_interval, now);
            if wanted.is_empty() || self.lists(|lists| lists.is_worth_it(&wanted, &due, now)) != Some(true) {
                return;
            }
            let Some(claim) = due.begin_round() else { return };
            due.expect(&wanted);
            claim
        };
        let round = Round::of(self.clone(), claim);
        self.shared.tasks.attempt(&self.in_flight, round.run(), {
            let poller = self.clone();
            move || {
                tracing::error!(
                    provider = poller.name(),
                    "reading the list of batches panicked; each batch is polled by itself for a while"
                );
                poller.lists(|lists| lists.panicked(poller.now()));
                poller.wake();
            }
        });
    }

    /// Polls a claimed batch, and tells `done` the result before the batch is back on the schedule.
    fn begin(
        self: &Arc<Self>,
        pk: Pk,
        claim: Claim,
        by_hand: bool,
        done: impl FnOnce(&Result<Polled, StoreError>) + Send + 'static,
    ) {
        let poller = self.clone();
        let run = async move {
            let seen = Box::pin(poll::poll(&poller, &poller.shared, pk, by_hand)).await;
            done(&seen);
            poller.settle(pk, seen);
            drop(claim);
        };
        let poller = self.clone();
        self.shared.tasks.attempt(&self.in_flight, run, move || {
            tracing::error!(provider = poller.name(), "a poll panicked; the batch is polled again later");
            poller.settle(pk, Err(StoreError::Internal(PANICKED.to_owned())));
        });
    }

    fn settle(&self, pk: Pk, polled: Result<Polled, StoreError>) {
        let now = self.now();
        let next = match polled {
            Ok(polled) => {
                self.has_stored();
                polled.next
            }
            Err(error) => {
                // The answer is lost, not the batch.
                self.cannot_store(&error);
                Some(Next::at(later(now, self.plan().min_interval), None))
            }
        };
        self.due().settle(pk, next, false, now);
        self.changed.notify_one();
        self.settled.notify_waiters();
    }
}

/// Waits until something was gained or lost.
async fn changed_hands(changes: &mut Option<watch::Receiver<BTreeMap<Scope, u64>>>) {
    if let Some(changes) = changes
        && changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
