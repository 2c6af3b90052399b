//! What a webhook's worker may send now, and when it checks again.

use super::breaker::Leave;
use super::crash_isolation::Pass;
use super::pacing::Load;
use super::worker::Worker;
use crate::domain::event::Subject;
use crate::domain::time::since;
use crate::store::StoreError;
use crate::store::outbox::Due;
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// Messages that may go now, each with the deliveries that it tells of, and when to check again.
pub(super) struct Plan {
    pub(super) messages: Vec<Vec<Due>>,
    pub(super) pass: Option<Pass>,
    pub(super) check_again: Duration,
}

impl Plan {
    /// Nothing goes before `wait` has passed.
    pub(super) const fn nothing(wait: Duration) -> Self {
        Self { messages: Vec::new(), pass: None, check_again: wait }
    }
}

impl Worker {
    /// What may go now. Reads only.
    pub(super) async fn plan(&mut self) -> Result<Plan, StoreError> {
        let Some(destination) = self.destination.clone() else { return Ok(Plan::nothing(MAX_SLEEP)) };
        if self.state.disabled.is_some() {
            return Ok(Plan::nothing(MAX_SLEEP));
        }
        let (adapter, now) = (destination.adapter(), self.context.clock.now());
        let load = Load {
            in_flight: self.in_flight.len(),
            most: adapter.concurrency(),
            steady: self.context.clock.steady(),
            instant: Instant::now(),
        };
        let leave = match self.pacing.leave(load) {
            Leave::Now(count) => count,
            Leave::After(wait) => return Ok(Plan::nothing(wait)),
            Leave::AfterProbe => return Ok(Plan::nothing(MAX_SLEEP)),
        };
        let limit = if adapter.groups() { MAX_GROUP } else { leave };
        let (name, limit) = (self.name.clone(), u32::try_from(limit).unwrap_or(u32::MAX));
        let due = if adapter.keeps_order() {
            self.context.store.due_in_order(name, now, limit).await?
        } else {
            self.context.store.due(name, now, limit).await?
        };
        if due.is_empty() {
            let next = self.context.store.next_due(self.name.clone(), now).await?;
            return match next.map(|next| since(now, next)) {
                Some(Duration::ZERO) => self.plan_alone().await,
                Some(wait) => Ok(Plan::nothing(wait.max(MIN_SLEEP))),
                None => Ok(Plan::nothing(MAX_SLEEP)),
            };
        }
        if self.suspect_is_overdue(now).await? {
            return self.plan_alone().await;
        }
        let Some(pass) = self.context.crash_isolation.enter() else {
            return Ok(Plan::nothing(ISOLATION_RETRY));
        };
        let mut plan = Plan { messages: Vec::new(), pass: Some(pass), check_again: MAX_SLEEP };
        let messages = if adapter.groups() {
            self.together(due)
        } else {
            due.into_iter().map(|due| vec![due]).collect()
        };
        for message in messages.into_iter().take(leave) {
            if let Err(wait) = self.pacing.take(now) {
                plan.check_again = wait;
                break;
            }
            plan.messages.push(message);
        }
        Ok(plan)
    }

    /// Whether a suspect has been due for so long, while there was always something else to send, that it goes first.
    async fn suspect_is_overdue(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        if self.waiting_alone.is_some_and(|since| since.elapsed() >= ALONE_AFTER) {
            return Ok(true);
        }
        if self.suspects_asked.is_some_and(|asked| asked.elapsed() < ALONE_AFTER) {
            return Ok(false);
        }
        self.suspects_asked = Some(Instant::now());
        if self.context.store.suspect(self.name.clone(), now).await?.is_some() {
            self.waiting_alone.get_or_insert_with(Instant::now);
        }
        Ok(false)
    }

    /// A delivery that is suspected of killing the process goes when nothing else is due here or under way anywhere.
    async fn plan_alone(&mut self) -> Result<Plan, StoreError> {
        let now = self.context.clock.now();
        if !self.in_flight.is_empty() || !self.endings.is_empty() {
            return Ok(Plan::nothing(MAX_SLEEP));
        }
        let Some(suspect) = self.context.store.suspect(self.name.clone(), now).await? else {
            self.waiting_alone = None;
            // Or what is due waits for another to be taken first.
            return Ok(Plan::nothing(ORDER_RETRY));
        };
        let waiting = *self.waiting_alone.get_or_insert_with(Instant::now);
        let pass = match self.context.crash_isolation.enter_alone() {
            None if waiting.elapsed() >= ALONE_AFTER => self.context.crash_isolation.insist().await,
            pass => pass,
        };
        let Some(pass) = pass else { return Ok(Plan::nothing(ISOLATION_RETRY)) };
        self.waiting_alone = None;
        tracing::warn!(
            webhook = %self.name,
            delivery = suspect.pk,
            event = %suspect.event_id,
            "batchd crashed more than once while this delivery was being sent: it is sent while no other is"
        );
        Ok(Plan { messages: vec![vec![suspect]], pass: Some(pass), check_again: Duration::ZERO })
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
}

/// No sleep is longer, so that a clock that is changed and a machine that slept are noticed.
pub(super) const MAX_SLEEP: Duration = Duration::from_secs(15);

/// Nor shorter, should the store and the worker not agree on what is due.
const MIN_SLEEP: Duration = Duration::from_millis(10);

/// Deliveries that one message tells of.
const MAX_GROUP: usize = 500;

/// How long to wait while another delivery is sent alone, or until the others have ended.
const ISOLATION_RETRY: Duration = Duration::from_millis(250);

/// How long to wait before checking again what is due and may not go yet.
const ORDER_RETRY: Duration = Duration::from_millis(500);

/// How long a suspect waits for a moment in which nothing is under way anywhere.
const ALONE_AFTER: Duration = Duration::from_mins(1);
