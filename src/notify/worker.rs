//! The loop of one webhook: what is due goes out, what comes back is recorded, in an order that survives any crash.

use super::Pulse;
use super::breaker::Leave;
use super::clock_jumps::ClockJumps;
use super::crash_isolation::{CrashIsolation, Pass};
use super::decision::{Decision, Rules, decide};
use super::deliver::{self, Exchange};
use super::destination::Destination;
use super::dispatcher::{AttemptCounts, WorkerStatus};
use super::pacing::{Load, Pacing};
use super::{episode, log};
use crate::clock::Clock;
use crate::domain::event::Subject;
use crate::domain::route::Routes;
use crate::domain::time::since;
use crate::failpoint;
use crate::rng::Rng;
use crate::store::outbox::{AttemptEnd, Due, Next, WebhookState};
use crate::store::{Pk, Store, StoreError};
use crate::webhook::{DeliveryOutcome, EventBody};
use futures_util::FutureExt;
use futures_util::future::{join, join_all};
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

/// What a worker can be told.
pub(super) enum Command {
    /// Send to this from now on; `None`: the webhook has left the configuration.
    Point(Option<Arc<Destination>>),
    /// Switch it off (with the reason) or on, by hand.
    Switch(Option<String>, oneshot::Sender<Result<(), StoreError>>),
    /// Try at once, however often it has failed.
    Probe,
}

/// Sends what one webhook is owed. It alone changes what is remembered of the webhook.
pub(super) struct Worker {
    name: String,
    store: Store,
    clock: Clock,
    rng: Rng,
    stop: CancellationToken,
    commands: mpsc::UnboundedReceiver<Command>,
    pulse: Pulse,
    status: Arc<WorkerStatus>,
    attempt_counts: Arc<AttemptCounts>,
    routes: Arc<RwLock<Arc<Routes>>>,
    crash_isolation: CrashIsolation,
    clock_jumps: ClockJumps,
    destination: Option<Arc<Destination>>,
    state: WebhookState,
    /// Whether `state` has changed since it was last stored.
    unsaved: bool,
    pacing: Pacing,
    in_flight: JoinSet<Done>,
    /// Attempts that have ended and are not recorded yet, oldest first.
    endings: Vec<Ending>,
    /// Deliveries whose message was refused for something in it when they shared it: each is sent by itself.
    apart: BTreeSet<Pk>,
    /// Since when a suspect waits for its turn to be sent alone.
    waiting_alone: Option<Instant>,
    store_failed: bool,
}

/// What a worker is made from.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    pub(super) stop: CancellationToken,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) pulse: Pulse,
    pub(super) status: Arc<WorkerStatus>,
    pub(super) attempt_counts: Arc<AttemptCounts>,
    pub(super) routes: Arc<RwLock<Arc<Routes>>>,
    pub(super) crash_isolation: CrashIsolation,
    pub(super) clock_jumps: ClockJumps,
    pub(super) destination: Arc<Destination>,
    pub(super) state: WebhookState,
}

/// A message that was sent, or not, and is not recorded yet: one attempt at each delivery that it tells of.
struct Done {
    attempts: Vec<(Pk, Due)>,
    destination: Arc<Destination>,
    exchange: Exchange,
}

/// An end on its way to the store.
struct Ending {
    attempt: Pk,
    end: AttemptEnd,
    state: WebhookState,
}

/// Messages that may go now, each with the deliveries that it tells of, and when to look again.
struct Plan {
    messages: Vec<Vec<Due>>,
    pass: Option<Pass>,
    look_again: Duration,
}

impl Plan {
    /// Nothing goes before `wait` has passed.
    const fn nothing(wait: Duration) -> Self {
        Self { messages: Vec::new(), pass: None, look_again: wait }
    }
}

impl Worker {
    pub(super) fn new(parts: Parts) -> Self {
        let (now, steady) = (parts.clock.now(), parts.clock.steady());
        let pause = parts.state.paused_until.map(|until| since(now, until));
        // A pause that is longer than any wish is a clock that was set back.
        let pause = pause.filter(|pause| !pause.is_zero() && *pause <= LONGEST_PAUSE);
        let mut worker = Self {
            name: parts.name,
            store: parts.store,
            clock: parts.clock,
            rng: parts.rng,
            stop: parts.stop,
            commands: parts.commands,
            pulse: parts.pulse,
            status: parts.status,
            attempt_counts: parts.attempt_counts,
            routes: parts.routes,
            crash_isolation: parts.crash_isolation,
            clock_jumps: parts.clock_jumps,
            destination: None,
            pacing: Pacing::new(parts.state.failures, pause, steady),
            state: parts.state,
            unsaved: false,
            in_flight: JoinSet::new(),
            endings: Vec::new(),
            apart: BTreeSet::new(),
            waiting_alone: None,
            store_failed: false,
        };
        worker.point(Some(parts.destination));
        worker
    }

    /// Works until it is told to stop; a defect costs one pass and a pause.
    pub(super) async fn supervised(mut self) {
        while AssertUnwindSafe(self.run()).catch_unwind().await.is_err() {
            tracing::error!(
                webhook = %self.name,
                "the worker of webhook {} failed; it goes on in {} s; please report this",
                self.name,
                AFTER_TROUBLE.as_secs()
            );
            sleep(AFTER_TROUBLE).await;
        }
    }

    async fn run(&mut self) {
        let mut news = self.store.watch_deliveries();
        while !self.stop.is_cancelled() {
            // Before the query, so that nothing that comes during it is missed.
            news.borrow_and_update();
            let wait = match self.pass().await {
                Ok(wait) => {
                    self.store_failed = false;
                    wait
                }
                Err(error) => {
                    self.tell_of_the_store(&error);
                    AFTER_TROUBLE
                }
            };
            self.beat();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                Some(command) = self.commands.recv() => self.handle_command(command).await,
                Some(done) = self.in_flight.join_next() => self.end(done.ok()),
                Ok(()) = news.changed() => {}
                () = sleep(wait.min(LONGEST_SLEEP)) => {}
            }
        }
        self.drain().await;
    }

    /// Records what has ended, starts what is due as far as it may be started, and says when to look again.
    async fn pass(&mut self) -> Result<Duration, StoreError> {
        failpoint::reach("worker.pass", || self.name.clone());
        self.clock_jumps.follow(&self.clock, &self.store).await?;
        if self.unsaved {
            self.store.set_webhook_state(self.name.clone(), self.state.clone(), self.clock.now()).await?;
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
            let Plan { messages, pass, look_again } = plan;
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
                return Ok(look_again);
            }
            if planned == 0 {
                // When to look again may have changed with what was recorded.
                continue;
            }
            if started == 0 {
                // Somebody else took them; what is left is found by the next look, not by running in a circle.
                return Ok(Duration::from_secs(1));
            }
        }
    }

    /// What may go now. Reads only.
    async fn plan(&mut self) -> Result<Plan, StoreError> {
        let Some(destination) = self.destination.clone() else { return Ok(Plan::nothing(LONGEST_SLEEP)) };
        if self.state.disabled.is_some() {
            return Ok(Plan::nothing(LONGEST_SLEEP));
        }
        let (adapter, now) = (destination.adapter(), self.clock.now());
        let load = Load {
            in_flight: self.in_flight.len(),
            most: adapter.concurrency(),
            steady: self.clock.steady(),
            instant: Instant::now(),
        };
        let leave = match self.pacing.leave(load) {
            Leave::Now(count) => count,
            Leave::After(wait) => return Ok(Plan::nothing(wait)),
            Leave::AfterProbe => return Ok(Plan::nothing(LONGEST_SLEEP)),
        };
        let limit = if adapter.groups() { MOST_TOGETHER } else { leave };
        let (name, limit) = (self.name.clone(), u32::try_from(limit).unwrap_or(u32::MAX));
        let due = if adapter.keeps_order() {
            self.store.due_in_order(name, now, limit).await?
        } else {
            self.store.due(name, now, limit).await?
        };
        if due.is_empty() {
            let next = self.store.next_due(self.name.clone(), now).await?;
            return match next.map(|next| since(now, next)) {
                Some(Duration::ZERO) => self.plan_alone().await,
                Some(wait) => Ok(Plan::nothing(wait.max(SHORTEST_SLEEP))),
                None => Ok(Plan::nothing(LONGEST_SLEEP)),
            };
        }
        let Some(pass) = self.crash_isolation.enter() else { return Ok(Plan::nothing(SOMEBODY_IS_ALONE)) };
        let mut plan = Plan { messages: Vec::new(), pass: Some(pass), look_again: LONGEST_SLEEP };
        let messages = if adapter.groups() {
            self.together(due)
        } else {
            due.into_iter().map(|due| vec![due]).collect()
        };
        for message in messages.into_iter().take(leave) {
            if let Err(wait) = self.pacing.take(now) {
                plan.look_again = wait;
                break;
            }
            plan.messages.push(message);
        }
        Ok(plan)
    }

    /// A delivery that is suspected of killing the process goes when nothing else is due here or under way anywhere.
    async fn plan_alone(&mut self) -> Result<Plan, StoreError> {
        let now = self.clock.now();
        if !self.in_flight.is_empty() || !self.endings.is_empty() {
            return Ok(Plan::nothing(LONGEST_SLEEP));
        }
        let Some(suspect) = self.store.suspect(self.name.clone(), now).await? else {
            // Or what is due waits for another to be taken first.
            return Ok(Plan::nothing(SOMEBODY_IS_FIRST));
        };
        let waiting = *self.waiting_alone.get_or_insert_with(Instant::now);
        let pass = match self.crash_isolation.enter_alone() {
            None if waiting.elapsed() >= PATIENCE_ALONE => self.crash_isolation.insist().await,
            pass => pass,
        };
        let Some(pass) = pass else { return Ok(Plan::nothing(SOMEBODY_IS_ALONE)) };
        self.waiting_alone = None;
        tracing::warn!(
            webhook = %self.name,
            delivery = suspect.pk,
            event = %suspect.event_id,
            "batchd has died in a row while this delivery was under way: it is sent alone"
        );
        Ok(Plan { messages: vec![vec![suspect]], pass: Some(pass), look_again: Duration::ZERO })
    }

    /// Of what is due, soonest first, what one message can tell: all that comes after the first in the log's order, but
    /// what must go in another form, or by itself.
    fn together(&self, due: Vec<Due>) -> Vec<Vec<Due>> {
        let by_itself = |due: &Due| self.apart.contains(&due.pk) || due.kind.subject() == Subject::Nothing;
        let Some(first) = due.first() else { return Vec::new() };
        if by_itself(first) {
            return due.into_iter().take(1).map(|due| vec![due]).collect();
        }
        let plain = first.plain;
        let mut message: Vec<Due> =
            due.into_iter().filter(|due| due.plain == plain && !by_itself(due)).collect();
        message.sort_by_key(|due| due.sequence);
        vec![message]
    }

    /// Records what has ended and logs what is about to be sent, in one commit: a crash in between shows, and what was
    /// under way is due at the next start.
    async fn commit(&mut self, messages: Vec<Vec<Due>>) -> Begun {
        let (store, now) = (&self.store, self.clock.now());
        let endings = std::mem::take(&mut self.endings);
        // Begun in this order, and so stored in it.
        let ending =
            join_all(endings.iter().map(|ending| {
                store.finish_attempt(ending.attempt, ending.end.clone(), ending.state.clone())
            }));
        let pks: Vec<Pk> = messages.iter().flatten().map(|due| due.pk).collect();
        let begins = !pks.is_empty();
        let beginning = async { if begins { store.begin_attempts(pks, now).await } else { Ok(Vec::new()) } };
        let (ended, begun) = join(ending, beginning).await;
        if begins {
            failpoint::reach("deliver.logged", || self.name.clone());
        }
        if !ended.is_empty() {
            failpoint::reach("deliver.recorded", || self.name.clone());
        }
        let mut failure = None;
        for (ending, result) in endings.into_iter().zip(ended) {
            match result {
                // What is not recorded at the end is sent again at the next start.
                Ok(()) | Err(StoreError::Closed) => {}
                Err(error) => {
                    failure = Some(error);
                    self.endings.push(ending);
                }
            }
        }
        let mut attempts = match begun {
            Ok(attempts) => attempts.into_iter(),
            Err(error) => {
                failure = failure.or(Some(error));
                Vec::new().into_iter()
            }
        };
        let messages = messages.into_iter().map(|message| {
            let begun =
                message.into_iter().map(|due| attempts.next().flatten().map(|attempt| (attempt, due)));
            begun.flatten().collect::<Vec<_>>()
        });
        Begun { messages: messages.filter(|message| !message.is_empty()).collect(), failure }
    }

    /// Sends messages whose attempts are logged; how many.
    fn start(&mut self, messages: Vec<Vec<(Pk, Due)>>, pass: Option<&Pass>) -> usize {
        let Some(destination) = &self.destination else { return 0 };
        let started = messages.len();
        for message in messages {
            self.in_flight.spawn(send(message, Arc::clone(destination), self.clock.clone(), pass.cloned()));
        }
        self.pacing.started(started, Instant::now());
        started
    }

    /// Judges a message that has ended, and all others that have meanwhile.
    fn end(&mut self, first: Option<Done>) {
        let mut done = first;
        loop {
            if let Some(done) = done {
                self.judge(done);
            }
            done = match self.in_flight.try_join_next() {
                Some(next) => next.ok(),
                None => break,
            };
        }
        self.publish();
    }

    /// Decides what becomes of a message's deliveries; from here on the worker acts on it, stored or not.
    fn judge(&mut self, done: Done) {
        let Done { attempts, destination, exchange } = done;
        let Some((_, first)) = attempts.first() else { return };
        let now = self.clock.now();
        // One for the whole message: what goes together comes back together.
        let jitter = self.rng.jitter_of(&first.event_id, now);
        let rules = Rules { delays: destination.delays(), retired: self.destination.is_none() };
        let before = self.state.clone();
        let moved =
            self.destination.as_ref().is_some_and(|now| now.fingerprint() != destination.fingerprint());
        let outcome = &exchange.outcome;
        let elsewhere = moved && *outcome != DeliveryOutcome::Delivered;
        let by_itself = attempts.iter().all(|(_, due)| self.apart.contains(&due.pk));
        let apart = attempts.len() > 1 && is_refused_for_what_is_in_it(&exchange, first.plain);
        let mut decided = Vec::with_capacity(attempts.len());
        for (attempt, due) in attempts {
            let again = Next::Again { at: now, wait: Duration::ZERO, counts: false, plain: due.plain };
            let next = if elsewhere {
                // What the old target said says nothing of the new one.
                again
            } else if apart {
                // One of them may be to blame, and the others are not to suffer for it.
                self.apart.insert(due.pk);
                again
            } else {
                let Decision { next, state } =
                    decide(outcome, exchange.receiver_at_fault, &due, &before, rules, now, jitter);
                self.state = state;
                next
            };
            if !matches!(next, Next::Again { .. }) {
                self.apart.remove(&due.pk);
            }
            log::attempt(&self.name, &due, &exchange, next, now);
            self.attempt_counts.count(&self.name, log::fate(next));
            decided.push((attempt, next));
        }
        self.apply_backpressure(&before, &exchange, &destination, jitter, by_itself);
        self.status.set_error(exchange.error.clone());
        self.endings.extend(decided.into_iter().map(|(attempt, next)| Ending {
            attempt,
            end: AttemptEnd {
                at: now,
                outcome: exchange.result.to_owned(),
                http_status: exchange.status,
                error: exchange.error.clone(),
                excerpt: exchange.excerpt.clone(),
                next,
            },
            state: self.state.clone(),
        }));
    }

    /// What an answer means for the messages that follow.
    fn apply_backpressure(
        &mut self,
        before: &WebhookState,
        exchange: &Exchange,
        destination: &Destination,
        jitter: f64,
        by_itself: bool,
    ) {
        let (adapter, instant) = (destination.adapter(), Instant::now());
        if exchange.outcome == DeliveryOutcome::Delivered {
            self.pacing.accepted(adapter.groups() && !by_itself, instant);
        } else if self.state.failures > before.failures {
            self.pacing.failed(self.state.failures, destination.delays(), jitter, instant);
        }
        self.status.set_refused(matches!(exchange.status, Some(401 | 403)));
        if matches!(exchange.outcome, DeliveryOutcome::Snooze(None)) {
            self.pacing.overrun(adapter.concurrency());
        }
        if self.state.paused_until != before.paused_until {
            let now = self.clock.now();
            self.pacing.pause(self.state.paused_until.map(|until| since(now, until)), self.clock.steady());
        }
        if self.state.disabled != before.disabled {
            tracing::error!(
                webhook = %self.name,
                "webhook {} is switched off and what it is owed is held: {}; once it is mended: batchd webhooks enable {}",
                self.name, self.state.disabled.as_deref().unwrap_or_default(), self.name
            );
        }
    }

    /// Tells the other webhooks of an episode of trouble that has begun or ended.
    async fn tell_of_trouble(&mut self) -> Result<(), StoreError> {
        let Some(destination) = &self.destination else { return Ok(()) };
        let error = self.status.last_error();
        let now = self.clock.now();
        let Some(news) = episode::news(&self.name, &self.state, destination.delays(), error.as_deref(), now)
        else {
            return Ok(());
        };
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner).clone();
        let others = routes.0.iter().filter(|route| route.webhook != self.name).cloned().collect();
        let words = news.finding.data["message"].as_str().unwrap_or_default().to_owned();
        let (told_since, name) = (news.told_since, self.name.clone());
        self.store.tell_of_webhook(name, told_since, news.finding, Arc::new(Routes(others))).await?;
        self.state.told_since = told_since;
        match told_since {
            None => tracing::info!(webhook = %self.name, "{words}"),
            // That it is switched off has been said.
            Some(_) if self.state.disabled.is_some() => {}
            Some(_) => tracing::warn!(webhook = %self.name, "{words}"),
        }
        Ok(())
    }

    /// Says once what keeps deliveries waiting.
    fn tell_of_the_store(&mut self, error: &StoreError) {
        if std::mem::replace(&mut self.store_failed, true) {
            return;
        }
        let unrecorded = self.endings.len();
        if unrecorded > 0 {
            tracing::error!(
                webhook = %self.name,
                %error,
                "the result of {unrecorded} deliveries to webhook {} cannot be recorded: {error}; nothing more is sent until it can",
                self.name
            );
        } else {
            tracing::error!(webhook = %self.name, %error, "deliveries to webhook {} wait: {error}", self.name);
        }
    }

    async fn handle_command(&mut self, command: Command) {
        match command {
            Command::Point(destination) => self.point(destination),
            Command::Probe => self.pacing.probe_now(Instant::now()),
            Command::Switch(reason, reply) => {
                let by_hand = reason.is_some();
                let wanted = if by_hand {
                    WebhookState { disabled: reason, by_hand, ..self.state.clone() }
                } else {
                    afresh(&self.state)
                };
                let stored =
                    self.store.set_webhook_state(self.name.clone(), wanted.clone(), self.clock.now()).await;
                if stored.is_ok() {
                    self.state = wanted;
                    if !by_hand {
                        self.reset();
                    }
                }
                // Whoever asked may have gone.
                let _ = reply.send(stored);
            }
        }
        self.publish();
    }

    /// Sends to `destination` from now on. If it points elsewhere than before, what was held against the old target
    /// is forgotten; only what a person switched off stays off.
    fn point(&mut self, destination: Option<Arc<Destination>>) {
        if let Some(destination) = &destination {
            let fingerprint = Some(destination.fingerprint().to_owned());
            let moved = self.state.fingerprint.is_some() && self.state.fingerprint != fingerprint;
            self.state.fingerprint = fingerprint;
            self.pacing.keep_to(destination.rate(), self.clock.now());
            if moved {
                if !self.state.by_hand {
                    self.state = afresh(&self.state);
                }
                self.reset();
                self.unsaved = true;
            }
        }
        self.destination = destination;
        self.publish();
    }

    /// Forgets failures and pauses.
    fn reset(&mut self) {
        self.state.failures = 0;
        self.state.failing_since = None;
        self.state.paused_until = None;
        self.pacing.reset();
    }

    /// Gives what is under way its time, then leaves it: it is due at the next start.
    async fn drain(&mut self) {
        let deadline = Instant::now() + GRACE;
        let work = async {
            while let Some(done) = self.in_flight.join_next().await {
                self.end(done.ok());
                self.record().await;
            }
        };
        if timeout_at(deadline, work).await.is_err() {
            tracing::warn!(
                webhook = %self.name,
                "{} messages to webhook {} were cut off by the stop; they are sent again at the next start",
                self.in_flight.len(), self.name
            );
            self.in_flight.shutdown().await;
        }
        self.record().await;
        // What was cut off here says nothing against it: only what a process dies of does.
        if let Err(error) = self.store.interrupt(self.name.clone(), self.clock.now()).await {
            self.tell_of_the_store(&error);
        }
    }

    /// Records what has ended, once; what cannot be recorded now is kept.
    async fn record(&mut self) {
        if !self.endings.is_empty()
            && let Some(error) = self.commit(Vec::new()).await.failure
        {
            self.tell_of_the_store(&error);
        }
    }

    fn beat(&self) {
        self.pulse.store(self.clock.now().as_millisecond(), Ordering::Relaxed);
    }

    fn publish(&self) {
        self.status.publish(&self.state, self.pacing.is_open(), self.in_flight.len());
    }
}

/// Messages whose attempts are logged, and what kept others from it.
struct Begun {
    messages: Vec<Vec<(Pk, Due)>>,
    failure: Option<StoreError>,
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

/// Whether a message that tells of several was not taken for what it says, so that some of them may be in order.
fn is_refused_for_what_is_in_it(exchange: &Exchange, plain: bool) -> bool {
    match &exchange.outcome {
        DeliveryOutcome::Dead(_) => true,
        DeliveryOutcome::Simplify(_) => plain,
        DeliveryOutcome::Delivered | DeliveryOutcome::Snooze(_) | DeliveryOutcome::Gone(_) => false,
        DeliveryOutcome::Trouble(_) | DeliveryOutcome::Refused(_) => !exchange.receiver_at_fault,
    }
}

/// `state` with everything forgotten that was held against the webhook; not what others were told of it.
fn afresh(state: &WebhookState) -> WebhookState {
    WebhookState {
        last_success_at: state.last_success_at,
        fingerprint: state.fingerprint.clone(),
        told_since: state.told_since,
        ..WebhookState::default()
    }
}

/// No sleep is longer, so that a clock that is changed and a machine that slept are noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);

/// Nor shorter, should the store and the worker not agree on what is due.
const SHORTEST_SLEEP: Duration = Duration::from_millis(10);

/// After a failure of the store.
const AFTER_TROUBLE: Duration = Duration::from_secs(5);

/// What is under way at the stop gets so long; a second is left to record it.
const GRACE: Duration = Duration::from_secs(7);

/// No receiver's wish is longer ([`crate::http::failure::retry_after`]).
const LONGEST_PAUSE: Duration = Duration::from_hours(6);

/// Deliveries that one message tells of.
const MOST_TOGETHER: usize = 500;

/// How long to wait for whoever is sent alone, or for others to end.
const SOMEBODY_IS_ALONE: Duration = Duration::from_millis(250);

/// How long to wait before looking again at what is due and may not go yet.
const SOMEBODY_IS_FIRST: Duration = Duration::from_millis(500);

/// How long a suspect waits for a moment in which nothing is under way anywhere.
const PATIENCE_ALONE: Duration = Duration::from_mins(1);
