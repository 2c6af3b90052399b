//! The worker of one webhook: what it remembers, what it can be told, and how it is begun.

use super::context::Context;
use super::deliver::Exchange;
use super::destination::Destination;
use super::pacing::Pacing;
use super::status::WorkerStatus;
use crate::domain::ownership::Scope;
use crate::domain::time::since;
use crate::store::outbox::{AttemptEnd, Due, WebhookState};
use crate::store::{Pk, StoreError};
use crate::tasks::Pulse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

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
///
/// Its parts stand in files of their own: `run.rs` is its loop, `plan.rs` says what may be sent, `settle.rs` what follows
/// from what was sent.
pub(super) struct Worker {
    pub(super) name: String,
    pub(super) context: Context,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) pulse: Pulse,
    pub(super) status: Arc<WorkerStatus>,
    /// Where messages are sent; `None`: the webhook has left the configuration.
    pub(super) destination: Option<Arc<Destination>>,
    pub(super) state: WebhookState,
    /// Whether `state` has changed since it was last stored.
    pub(super) unsaved: bool,
    pub(super) pacing: Pacing,
    pub(super) in_flight: JoinSet<Done>,
    /// Attempts that have ended and are not recorded yet, oldest first.
    pub(super) endings: Vec<Ending>,
    /// Deliveries whose message was refused for something in it when they shared it: each is sent by itself.
    pub(super) apart: BTreeSet<Pk>,
    /// Whether deliveries may have been given up of which nobody has been told yet.
    pub(super) untold: bool,
    /// When it was last asked whether a suspect has waited for long while others were due.
    pub(super) suspects_asked: Option<Instant>,
    /// Since when a suspect waits for its turn to be sent alone.
    pub(super) waiting_alone: Option<Instant>,
    /// Whether the last pass failed because the state could not be read or written.
    pub(super) store_failed: bool,
}

/// How a worker is told something and asked how it fares.
pub(super) struct Handle {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) status: Arc<WorkerStatus>,
}

impl Handle {
    pub(super) fn point(&self, destination: Option<Arc<Destination>>) {
        // What is asked of the webhook from now on, by hand too, goes there at once.
        self.status.set_destination(destination.clone());
        // A worker that has ended was told to stop.
        let _ = self.commands.send(Command::Point(destination));
    }
}

/// A message that was sent, or not, and is not recorded yet: one attempt at each delivery that it tells of.
pub(super) struct Done {
    pub(super) attempts: Vec<(Pk, Due)>,
    pub(super) destination: Arc<Destination>,
    pub(super) exchange: Exchange,
}

/// How an attempt ended, and the state of the webhook after it; to be stored together.
pub(super) struct Ending {
    pub(super) attempt: Pk,
    pub(super) end: AttemptEnd,
    pub(super) state: WebhookState,
}

impl Worker {
    /// A worker that has not begun to run yet, and the handle to it.
    pub(super) fn new(
        name: String,
        context: Context,
        destination: Arc<Destination>,
        state: WebhookState,
    ) -> (Self, Handle) {
        let (now, steady) = (context.clock.now(), context.clock.steady());
        let pause = state.paused_until.map(|until| since(now, until));
        // A pause that is longer than any receiver's wish is a clock that was set back.
        let pause = pause.filter(|pause| !pause.is_zero() && *pause <= MAX_PAUSE);
        let (sender, commands) = mpsc::unbounded_channel();
        let status = Arc::new(context.status(&name));
        let pulse = context.tasks.watch(format!("webhook {name}"), context.tasks.stopping());
        let mut worker = Self {
            name,
            context,
            commands,
            pulse,
            status: Arc::clone(&status),
            destination: None,
            pacing: Pacing::new(state.failures, pause, steady),
            state,
            unsaved: false,
            in_flight: JoinSet::new(),
            endings: Vec::new(),
            apart: BTreeSet::new(),
            untold: true,
            suspects_asked: None,
            waiting_alone: None,
            store_failed: false,
        };
        worker.point(Some(destination));
        (worker, Handle { commands: sender, status })
    }

    pub(super) async fn handle_command(&mut self, command: Command) {
        match command {
            Command::Point(destination) => self.point(destination),
            Command::Probe => self.pacing.probe_now(Instant::now()),
            Command::Switch(reason, reply) => {
                // Where another daemon serves the webhook, the state says more than this one knows.
                if !self.context.store.holds(&Scope::Webhook(self.name.clone())) {
                    self.remember().await;
                }
                let by_hand = reason.is_some();
                let wanted = if by_hand {
                    WebhookState { disabled: reason, by_hand, ..self.state.clone() }
                } else {
                    afresh(&self.state)
                };
                let stored = self
                    .context
                    .store
                    .set_webhook_state(self.name.clone(), wanted.clone(), self.context.clock.now())
                    .await;
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

    /// Reads what is remembered of the webhook, in place of what this daemon knew; `false`: it cannot be read.
    pub(super) async fn remember(&mut self) -> bool {
        let state = match self.context.store.webhook_state(self.name.clone()).await {
            Ok(state) => state,
            Err(error) => {
                self.tell_of_the_store(&error);
                return false;
            }
        };
        let now = self.context.clock.now();
        let pause = state.paused_until.map(|until| since(now, until));
        let pause = pause.filter(|pause| !pause.is_zero() && *pause <= MAX_PAUSE);
        let fingerprint = self.state.fingerprint.take();
        self.state = WebhookState { fingerprint: fingerprint.or(state.fingerprint), ..state };
        self.pacing = Pacing::new(self.state.failures, pause, self.context.clock.steady());
        if let Some(destination) = &self.destination {
            self.pacing.keep_to(destination.rate(), now);
        }
        self.untold = true;
        self.publish();
        true
    }

    /// Sends to `destination` from now on. If it points elsewhere than before, what was held against the old target
    /// is forgotten; only what a person switched off stays off.
    fn point(&mut self, destination: Option<Arc<Destination>>) {
        if let Some(destination) = &destination {
            let fingerprint = Some(destination.fingerprint().to_owned());
            let moved = self.state.fingerprint.is_some() && self.state.fingerprint != fingerprint;
            self.state.fingerprint = fingerprint;
            self.pacing.keep_to(destination.rate(), self.context.clock.now());
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
        self.status.set_last_failure(None);
        self.pacing.reset();
    }

    pub(super) fn publish(&self) {
        self.status.publish(&self.state, self.pacing.is_open(), self.in_flight.len());
    }
}

/// `state` with everything forgotten that was held against the webhook; not what others were told of it.
fn afresh(state: &WebhookState) -> WebhookState {
    WebhookState {
        last_success_at: state.last_success_at,
        fingerprint: state.fingerprint.clone(),
        told_since: state.told_since,
        deaths_since: state.deaths_since,
        deaths_told_at: state.deaths_told_at,
        ..WebhookState::default()
    }
}

/// No receiver's wish is longer ([`crate::http::failure::retry_after`]).
const MAX_PAUSE: Duration = Duration::from_hours(6);
