//! What follows from messages that were sent: what becomes of their deliveries, how the webhook is treated from now on, and
//! who is told of its trouble.

use super::decision::{Decision, Rules, decide};
use super::deliver::Exchange;
use super::destination::Destination;
use super::last_failure::LastFailure;
use super::worker::{Done, Ending, Worker};
use super::{deaths, episode, log};
use crate::domain::route::Routes;
use crate::domain::time::since;
use crate::failpoint;
use crate::store::outbox::{AttemptEnd, Due, Next, WebhookState};
use crate::store::{Pk, StoreError};
use crate::sync;
use crate::webhook::DeliveryOutcome;
use futures_util::future::{join, join_all};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Messages whose attempts are logged, and what kept others from it.
pub(super) struct Begun {
    pub(super) messages: Vec<Vec<(Pk, Due)>>,
    pub(super) failure: Option<StoreError>,
}

impl Worker {
    /// Records what has ended and logs what is about to be sent, in one commit: a crash in between shows, and what was
    /// under way is due at the next start.
    pub(super) async fn commit(&mut self, messages: Vec<Vec<Due>>) -> Begun {
        let (store, now) = (&self.context.store, self.context.clock.now());
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

    /// Judges a message that has ended, and all others that have meanwhile.
    pub(super) fn end(&mut self, first: Option<Done>) {
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
        let now = self.context.clock.now();
        // One for the whole message: what goes together comes back together.
        let jitter = self.context.rng.jitter_of(&first.event_id, now);
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
            self.untold |= next == Next::Dead;
            log::attempt(&self.name, &due, &exchange, next, now);
            self.context.attempt_counts.count(&self.name, log::fate(next));
            decided.push((attempt, next));
        }
        self.apply_backpressure(&before, &exchange, &destination, jitter, by_itself);
        self.status.set_last_failure(exchange.error.clone().map(|error| LastFailure { at: now, error }));
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
            let now = self.context.clock.now();
            self.pacing
                .pause(self.state.paused_until.map(|until| since(now, until)), self.context.clock.steady());
        }
        if self.state.disabled != before.disabled {
            tracing::error!(
                webhook = %self.name,
                "webhook {} is switched off and its deliveries are held: {}; once its receiver works again, run: batchd webhooks enable {}",
                self.name, self.state.disabled.as_deref().unwrap_or_default(), self.name
            );
        }
    }

    /// Tells the other webhooks of an episode of trouble that has begun or ended, and of deliveries that were given up.
    pub(super) async fn tell_of_trouble(&mut self) -> Result<(), StoreError> {
        let Some(destination) = &self.destination else { return Ok(()) };
        let error = self.status.last_failure().map(|failure| failure.error);
        let now = self.context.clock.now();
        if let Some(news) =
            episode::news(&self.name, &self.state, destination.delays(), error.as_deref(), now)
        {
            let words = news.finding.data["message"].as_str().unwrap_or_default().to_owned();
            let (told_since, name) = (news.told_since, self.name.clone());
            self.context.store.tell_of_webhook(name, told_since, news.finding, self.others()).await?;
            self.state.told_since = told_since;
            match told_since {
                None => tracing::info!(webhook = %self.name, "{words}"),
                // That it is switched off has been said.
                Some(_) if self.state.disabled.is_some() => {}
                Some(_) => tracing::error!(webhook = %self.name, "{words}"),
            }
        }
        // What is not recorded yet is told with the next.
        if self.untold && self.endings.is_empty() {
            self.tell_of_given_up(now).await?;
        }
        Ok(())
    }

    async fn tell_of_given_up(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let (since, told_at) = (self.state.deaths_since, self.state.deaths_told_at);
        if !deaths::may_tell(since, told_at, now) {
            return Ok(());
        }
        let Some(given_up) = self.context.store.given_up(self.name.clone()).await? else {
            self.untold = false;
            return Ok(());
        };
        let since = deaths::episode(since, told_at, now);
        let finding = deaths::finding(&self.name, &given_up, now);
        self.context.store.tell_of_given_up(self.name.clone(), finding, since, self.others()).await?;
        (self.state.deaths_since, self.state.deaths_told_at) = (Some(since), Some(now));
        self.untold = false;
        Ok(())
    }

    /// The routes by which this webhook's trouble is told: never through itself.
    fn others(&self) -> Arc<Routes> {
        let routes = sync::read(&self.context.routes).clone();
        Arc::new(Routes(routes.0.iter().filter(|route| route.webhook != self.name).cloned().collect()))
    }

    /// Says once what keeps deliveries waiting.
    pub(super) fn tell_of_the_store(&mut self, error: &StoreError) {
        if std::mem::replace(&mut self.store_failed, true) {
            return;
        }
        let unrecorded = self.endings.len();
        if unrecorded > 0 {
            tracing::error!(
                webhook = %self.name,
                %error,
                "the results of {unrecorded} deliveries to webhook {} cannot be recorded: {error}; nothing more is sent to it until they can",
                self.name
            );
        } else {
            tracing::error!(webhook = %self.name, %error, "deliveries to webhook {} are delayed, because the state cannot be read or written: {error}", self.name);
        }
    }

    /// Records what has ended, once; what cannot be recorded now is kept.
    pub(super) async fn record(&mut self) {
        if !self.endings.is_empty()
            && let Some(error) = self.commit(Vec::new()).await.failure
        {
            self.tell_of_the_store(&error);
        }
    }
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
