//! The loop of one webhook: what is due goes out, what comes back is recorded, in an order that survives any crash.

use super::Pulse;
use super::breaker::{Breaker, Leave};
use super::decision::{Decision, Rules, decide};
use super::deliver::{self, Exchange};
use super::destination::Destination;
use super::dispatcher::{Board, Tally};
use crate::clock::Clock;
use crate::domain::time::since;
use crate::rng::Rng;
use crate::store::outbox::{AttemptEnd, Due, Next, WebhookState};
use crate::store::{Pk, Store, StoreError};
use crate::webhook::{EventBody, Judgement};
use futures_util::FutureExt;
use futures_util::future::join_all;
use jiff::Timestamp;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
    pub(super) name: String,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    pub(super) stop: CancellationToken,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) pulse: Pulse,
    pub(super) board: Arc<Board>,
    pub(super) tally: Arc<Tally>,
    pub(super) destination: Option<Arc<Destination>>,
    pub(super) state: WebhookState,
    /// Whether `state` has changed since it was last stored.
    unsaved: bool,
    breaker: Breaker,
    /// The receiver's wish to be left alone. Not the wall clock's business while the process lives.
    paused: Option<Instant>,
    in_flight: JoinSet<Done>,
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
    pub(super) board: Arc<Board>,
    pub(super) tally: Arc<Tally>,
    pub(super) destination: Arc<Destination>,
    pub(super) state: WebhookState,
}

/// An attempt that has ended and is not recorded yet.
struct Done {
    attempt: Pk,
    due: Due,
    destination: Arc<Destination>,
    exchange: Exchange,
}

/// An end on its way to the store.
struct Ending {
    attempt: Pk,
    end: AttemptEnd,
    state: WebhookState,
}

impl Worker {
    pub(super) fn new(parts: Parts) -> Self {
        let now = parts.clock.now();
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
            board: parts.board,
            tally: parts.tally,
            destination: None,
            breaker: Breaker::new(parts.state.failures, Instant::now()),
            state: parts.state,
            unsaved: false,
            paused: pause.map(|pause| Instant::now() + pause),
            in_flight: JoinSet::new(),
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
            let wait = match self.claim().await {
                Ok(wait) => {
                    self.store_failed = false;
                    wait
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.store_failed, true) {
                        tracing::error!(webhook = %self.name, %error, "deliveries to webhook {} wait: {error}", self.name);
                    }
                    AFTER_TROUBLE
                }
            };
            self.beat();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                Some(command) = self.commands.recv() => self.obey(command).await,
                Some(done) = self.in_flight.join_next() => self.finish(done.ok()).await,
                Ok(()) = news.changed() => {}
                () = sleep(wait.min(LONGEST_SLEEP)) => {}
            }
        }
        self.drain().await;
    }

    /// Starts what is due as far as it may be started, and says when to look again.
    async fn claim(&mut self) -> Result<Duration, StoreError> {
        if self.unsaved {
            self.store.set_webhook_state(self.name.clone(), self.state.clone(), self.clock.now()).await?;
            self.unsaved = false;
        }
        loop {
            let Some(destination) = self.destination.clone() else { return Ok(LONGEST_SLEEP) };
            if self.state.disabled.is_some() {
                return Ok(LONGEST_SLEEP);
            }
            let instant = Instant::now();
            if let Some(until) = self.paused.filter(|until| *until > instant) {
                return Ok(until - instant);
            }
            let free = destination.adapter().concurrency().saturating_sub(self.in_flight.len());
            let leave = match self.breaker.leave(self.in_flight.len(), instant) {
                Leave::Now(count) => free.min(count),
                Leave::After(wait) => return Ok(wait),
                Leave::AfterProbe => 0,
            };
            if leave == 0 {
                return Ok(LONGEST_SLEEP);
            }
            let now = self.clock.now();
            let limit = u32::try_from(leave).unwrap_or(u32::MAX);
            let due = self.store.due(self.name.clone(), now, limit).await?;
            if due.is_empty() {
                let next = self.store.next_due(self.name.clone(), now).await?;
                return Ok(next.map_or(LONGEST_SLEEP, |next| since(now, next).max(SHORTEST_SLEEP)));
            }
            // Written before it is sent: a crash in between shows, and the delivery is due at the next start.
            let attempts = self.store.begin_attempts(due.iter().map(|due| due.pk).collect(), now).await?;
            let mut started = 0;
            for (due, attempt) in due.into_iter().zip(attempts) {
                if let Some(attempt) = attempt {
                    self.in_flight.spawn(send(attempt, due, Arc::clone(&destination), self.clock.clone()));
                    started += 1;
                }
            }
            self.breaker.started(started, instant);
            self.publish();
            if started == 0 {
                // Somebody else took them; what is left is found by the next look, not by running in a circle.
                return Ok(Duration::from_secs(1));
            }
        }
    }

    /// Records an attempt that has ended, and all others that have meanwhile.
    async fn finish(&mut self, first: Option<Done>) {
        let mut endings: Vec<Ending> = first.map(|done| self.judge(done)).into_iter().collect();
        while let Some(done) = self.in_flight.try_join_next() {
            endings.extend(done.ok().map(|done| self.judge(done)));
        }
        self.publish();
        self.record(endings).await;
    }

    /// Decides what becomes of an attempt; from here on the worker acts on it, stored or not.
    fn judge(&mut self, done: Done) -> Ending {
        let Done { attempt, due, destination, exchange } = done;
        let (now, instant) = (self.clock.now(), Instant::now());
        let jitter = self.rng.jitter_of(&due.event_id, now);
        let rules = Rules { delays: destination.delays(), retired: self.destination.is_none() };
        let failures = self.state.failures;
        let moved =
            self.destination.as_ref().is_some_and(|now| now.fingerprint() != destination.fingerprint());
        let Decision { next, state } = if moved && exchange.judgement != Judgement::Delivered {
            // What the old target said says nothing of the new one.
            let next = Next::Again { at: now, wait: Duration::ZERO, counts: false, plain: due.plain };
            Decision { next, state: self.state.clone() }
        } else {
            decide(&exchange.judgement, exchange.receivers, &due, &self.state, rules, now, jitter)
        };
        if state.failures == 0 {
            self.breaker.succeeded(instant);
        } else if state.failures > failures {
            self.breaker.failed(state.failures, destination.delays(), jitter, instant);
        }
        if state.paused_until != self.state.paused_until {
            self.paused = state.paused_until.map(|until| instant + since(now, until));
        }
        if state.disabled != self.state.disabled {
            tracing::error!(
                webhook = %self.name,
                "webhook {} is switched off and what it is owed is held: {}; once it is mended: batchd webhooks enable {}",
                self.name, state.disabled.as_deref().unwrap_or_default(), self.name
            );
        }
        self.state = state.clone();
        log(&self.name, &due, &exchange, next, now);
        self.tally.count(&self.name, fate(next));
        self.board.set_error(exchange.error.clone());
        let end = AttemptEnd {
            at: now,
            outcome: exchange.outcome.to_owned(),
            http_status: exchange.status,
            error: exchange.error,
            excerpt: exchange.excerpt,
            next,
        };
        Ending { attempt, end, state }
    }

    /// Stores endings, however long that takes: an answer that was had is not had again. Nothing is claimed meanwhile.
    async fn record(&mut self, mut endings: Vec<Ending>) {
        let mut told = false;
        while !endings.is_empty() {
            // Begun in this order, and so stored in it, all in one commit.
            let results = join_all(endings.iter().map(|ending| {
                self.store.finish_attempt(ending.attempt, ending.end.clone(), ending.state.clone())
            }))
            .await;
            let mut left = Vec::new();
            let mut trouble = None;
            for (ending, result) in endings.into_iter().zip(results) {
                match result {
                    Ok(()) => {}
                    // What is not recorded is sent again at the next start.
                    Err(StoreError::Closed) => return,
                    Err(error) => {
                        trouble = Some(error);
                        left.push(ending);
                    }
                }
            }
            endings = left;
            self.beat();
            if let Some(error) = trouble {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(
                        webhook = %self.name,
                        %error,
                        "the result of {} deliveries to webhook {} cannot be recorded: {error}; nothing more is sent until it can",
                        endings.len(), self.name
                    );
                }
                sleep(AFTER_TROUBLE).await;
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Point(destination) => self.point(destination),
            Command::Probe => self.breaker.probe_now(Instant::now()),
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
                        self.forgive();
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
            if moved {
                if !self.state.by_hand {
                    self.state = afresh(&self.state);
                }
                self.forgive();
                self.unsaved = true;
            }
        }
        self.destination = destination;
        self.publish();
    }

    /// Forgets failures and pauses.
    fn forgive(&mut self) {
        self.state.failures = 0;
        self.state.failing_since = None;
        self.state.paused_until = None;
        self.paused = None;
        self.breaker = Breaker::new(0, Instant::now());
    }

    /// Gives what is under way its time, then leaves it: it is due at the next start.
    async fn drain(&mut self) {
        let deadline = Instant::now() + GRACE;
        let work = async {
            while let Some(done) = self.in_flight.join_next().await {
                self.finish(done.ok()).await;
            }
        };
        if timeout_at(deadline, work).await.is_err() {
            tracing::warn!(
                webhook = %self.name,
                "{} deliveries to webhook {} were cut off by the stop; they are sent again at the next start",
                self.in_flight.len(), self.name
            );
            self.in_flight.abort_all();
        }
    }

    fn beat(&self) {
        self.pulse.store(self.clock.now().as_millisecond(), Ordering::Relaxed);
    }

    fn publish(&self) {
        self.board.publish(&self.state, self.breaker.is_open(), self.in_flight.len());
    }
}

async fn send(attempt: Pk, due: Due, destination: Arc<Destination>, clock: Clock) -> Done {
    let event = EventBody { id: &due.event_id, body: &due.body };
    let exchange = deliver::attempt(&destination, event, due.plain, clock.now()).await;
    Done { attempt, due, destination, exchange }
}

/// `state` with everything forgotten that was held against the webhook.
fn afresh(state: &WebhookState) -> WebhookState {
    WebhookState {
        last_success_at: state.last_success_at,
        fingerprint: state.fingerprint.clone(),
        ..WebhookState::default()
    }
}

/// The word for what becomes of a delivery, in metrics.
const fn fate(next: Next) -> &'static str {
    match next {
        Next::Delivered => "delivered",
        Next::Again { counts: true, .. } => "retried",
        Next::Again { counts: false, .. } => "snoozed",
        Next::Dead => "dead",
        Next::Hold => "held",
    }
}

/// One line an attempt.
fn log(webhook: &str, due: &Due, exchange: &Exchange, next: Next, now: Timestamp) {
    let attempt = due.attempts.saturating_add(1);
    let ms = u64::try_from(exchange.took.as_millis()).unwrap_or(u64::MAX);
    let error = exchange.error.as_deref().unwrap_or_default();
    let fields = (due.kind, due.event_id.as_str(), exchange.outcome);
    macro_rules! line {
        ($level:ident, $next:expr, $($words:tt)+) => {
            tracing::$level!(
                event = %fields.1, delivery = due.pk, webhook, attempt, outcome = fields.2,
                status = exchange.status, ms, next = $next, $($words)+
            )
        };
    }
    match next {
        Next::Delivered => line!(info, "delivered", "told webhook {webhook} of {}", fields.0),
        Next::Again { at, .. } => {
            let wait = crate::domain::duration::human(since(now, at));
            let at = at.to_string();
            line!(warn, at.as_str(), "webhook {webhook} did not take {}: {error}; again in {wait}", fields.0);
        }
        Next::Dead => {
            line!(
                error,
                "dead",
                "webhook {webhook} did not take {}: {error}; given up after {attempt} attempts; batchd deliveries retry {}",
                fields.0,
                due.pk
            );
        }
        Next::Hold => line!(warn, "held", "webhook {webhook} did not take {}: {error}; held", fields.0),
    }
}

/// No sleep is longer, so that a clock that is changed is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Nor shorter, should the store and the worker not agree on what is due.
const SHORTEST_SLEEP: Duration = Duration::from_millis(10);

/// After a failure of the store.
const AFTER_TROUBLE: Duration = Duration::from_secs(5);

/// What is under way at the stop gets so long.
const GRACE: Duration = Duration::from_secs(8);

/// No receiver's wish is longer ([`crate::http::failure::retry_after`]).
const LONGEST_PAUSE: Duration = Duration::from_hours(6);
