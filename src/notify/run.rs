//! The loop of one webhook's worker: what is due goes out, what comes back is recorded, in an order that survives any crash.

use super::crash_isolation::Pass;
use super::deliver;
use super::destination::Destination;
use super::last_failure;
use super::plan::{MAX_SLEEP, Plan};
use super::worker::{Done, Worker};
use crate::clock::Clock;
use crate::domain::ownership::Scope;
use crate::failpoint;
use crate::store::holdings::Holdings;
use crate::store::outbox::Due;
use crate::store::{Pk, StoreError};
use crate::webhook::EventBody;
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

impl Worker {
    /// Works until it is told to stop; a defect costs one pass and a pause.
    pub(super) async fn supervised(mut self) {
        while AssertUnwindSafe(self.run()).catch_unwind().await.is_err() {
            tracing::error!(
                webhook = %self.name,
                "the worker of webhook {} panicked; it is started again in {} s; please report this",
                self.name,
                PAUSE_AFTER_FAILURE.as_secs()
            );
            sleep(PAUSE_AFTER_FAILURE).await;
        }
    }

    async fn run(&mut self) {
        let mut news = self.context.store.watch_deliveries(&self.name);
        let stopping = self.context.tasks.stopping();
        let scope = Scope::Webhook(self.name.clone());
        let holdings = self.context.store.holdings();
        // For which term.
        let mut known = holdings.as_ref().is_none_or(Holdings::is_alone).then_some(0);
        let mut waits: u32 = 0;
        self.recall_failure().await;
        while !stopping.is_cancelled() {
            let term = holdings.as_ref().map_or(Some(0), |holdings| holdings.term(&scope));
            if let Some(holdings) = holdings.as_ref().filter(|_| term.is_none()) {
                known = None;
                self.pulse.beat();
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => {}
                    Some(command) = self.commands.recv() => self.handle_command(command).await,
                    Some(done) = self.in_flight.join_next() => {
                        self.end(done.ok());
                        self.record().await;
                    }
                    () = holdings.wait() => {
                        // What the owner knows is shown here too.
                        waits += 1;
                        if waits.is_multiple_of(SHOWN_EVERY) {
                            self.remember().await;
                        }
                    }
                }
                continue;
            }
            if self.context.store.was_switched_elsewhere(&self.name) || known != term {
                // What another daemon knew of the webhook.
                if !self.remember().await {
                    known = None;
                    sleep(PAUSE_AFTER_FAILURE).await;
                    continue;
                }
                known = term;
            }
            // Before the query, so that nothing that comes during it is missed.
            news.borrow_and_update();
            let wait = match self.pass().await {
                Ok(wait) => {
                    self.store_failed = false;
                    wait
                }
                Err(error) => {
                    self.tell_of_the_store(&error);
                    PAUSE_AFTER_FAILURE
                }
            };
            self.pulse.beat();
            tokio::select! {
                biased;
                () = stopping.cancelled() => {}
                Some(command) = self.commands.recv() => self.handle_command(command).await,
                Some(done) = self.in_flight.join_next() => self.end(done.ok()),
                Ok(()) = news.changed() => {}
                () = sleep(wait.min(MAX_SLEEP)) => {}
            }
        }
        self.drain().await;
    }

    /// Of a webhook that was failing when the process before ended: learns what went wrong then.
    async fn recall_failure(&self) {
        if self.state.failures == 0 || self.status.last_failure().is_some() {
            return;
        }
        match last_failure::recorded(&self.context.store, &self.name).await {
            Ok(failure) => self.status.set_last_failure(failure),
            // The next attempt tells it anew.
            Err(error) => tracing::debug!(webhook = %self.name, "the last failure cannot be read: {error}"),
        }
    }

    /// Records what has ended, starts what is due as far as it may be started, and says when to check again.
    async fn pass(&mut self) -> Result<Duration, StoreError> {
        failpoint::reach("worker.pass", || self.name.clone());
        self.context.clock_jumps.follow(&self.context.clock, &self.context.store).await?;
        if self.unsaved {
            self.context
                .store
                .set_webhook_state(self.name.clone(), self.state.clone(), self.context.clock.now())
                .await?;
            self.unsaved = false;
        }
        loop {
            // An answer that cannot be recorded is not had again: nothing more is sent until it can.
            let stuck = self.store_failed && !self.endings.is_empty();
            let plan = if stuck { Ok(Plan::nothing(Duration::ZERO)) } else { self.plan().await };
            let (plan, failure) = match plan {
                Ok(plan) => (plan, None),
                Err(error) => (Plan::nothing(Duration::ZERO), Some(error)),
            };
            let Plan { messages, pass, check_again } = plan;
            let (planned, ended) = (messages.len(), !self.endings.is_empty());
            let begun = self.commit(messages).await;
            let started = self.start(begun.messages, pass.as_ref());
            self.publish();
            if let Some(error) = begun.failure.or(failure) {
                return Err(error);
            }
            if stuck {
                self.store_failed = false;
                continue;
            }
            self.tell_of_trouble().await?;
            if planned == 0 && !ended {
                return Ok(check_again);
            }
            if planned == 0 {
                // When to check again may have changed with what was recorded.
                continue;
            }
            if started == 0 {
                // Somebody else took them; what is left is found by the next pass, not by running in a circle.
                return Ok(Duration::from_secs(1));
            }
        }
    }

    /// Sends messages whose attempts are logged; how many.
    fn start(&mut self, messages: Vec<Vec<(Pk, Due)>>, pass: Option<&Pass>) -> usize {
        let Some(destination) = &self.destination else { return 0 };
        let started = messages.len();
        for message in messages {
            self.in_flight.spawn(send(
                message,
                Arc::clone(destination),
                self.context.clock.clone(),
                pass.cloned(),
            ));
        }
        self.pacing.started(started, Instant::now());
        started
    }

    /// Gives what is under way its time, then leaves it: it is due at the next start.
    async fn drain(&mut self) {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        // First of all: whoever kills the process while it stops makes suspects of nothing.
        if !self.in_flight.is_empty()
            && let Err(error) = self.context.store.expect_stop(self.name.clone()).await
        {
            self.tell_of_the_store(&error);
        }
        let work = async {
            while let Some(done) = self.in_flight.join_next().await {
                self.end(done.ok());
                self.record().await;
            }
        };
        if timeout_at(deadline, work).await.is_err() {
            tracing::warn!(
                webhook = %self.name,
                "batchd stopped while {} messages to webhook {} were being sent; they are sent again at the next start",
                self.in_flight.len(), self.name
            );
            self.in_flight.shutdown().await;
        }
        self.record().await;
        // What was cut off here says nothing against it: only what a process dies of does.
        if let Err(error) = self.context.store.interrupt(self.name.clone(), self.context.clock.now()).await {
            self.tell_of_the_store(&error);
        }
    }
}

async fn send(
    attempts: Vec<(Pk, Due)>,
    destination: Arc<Destination>,
    clock: Clock,
    pass: Option<Pass>,
) -> Done {
    let events: Vec<EventBody<'_>> =
        attempts.iter().map(|(_, due)| EventBody { id: &due.event_id, body: &due.body }).collect();
    let plain = attempts.first().is_some_and(|(_, due)| due.plain);
    let exchange = deliver::attempt(&destination, &events, plain, clock.now()).await;
    drop(events);
    drop(pass);
    Done { attempts, destination, exchange }
}

/// Of the waits of one that does not serve the webhook, each so-many-th shows what its owner knows.
const SHOWN_EVERY: u32 = 5;
/// The pause after the state could not be read or written, or the worker panicked.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// How long what is under way at the stop may take; a second is left to record it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(7);
