//! What webhooks are owed: deliveries, their attempts, and the state of each webhook.

use super::{Pk, Store, StoreError};
use crate::domain::event::EventType;
use jiff::Timestamp;
use std::time::Duration;

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// It waits for its time.
    Pending,
    /// An attempt is under way.
    Inflight,
    /// It was accepted.
    Delivered,
    /// It was given up.
    Dead,
    /// Its webhook is switched off or gone.
    Held,
}

/// A delivery that is due.
#[derive(Clone, Debug)]
pub struct Due {
    /// Its row.
    pub pk: Pk,
    /// `evt_…`
    pub event_id: String,
    /// What happened.
    pub kind: EventType,
    /// The frozen body.
    pub body: String,
    /// Attempts that counted so far.
    pub attempts: u32,
    /// The full form was refused before: send it plain.
    pub plain: bool,
    /// When the event was recorded.
    pub recorded_at: Timestamp,
}

/// Why an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Its time had come.
    Schedule,
    /// Somebody asked.
    Manual,
    /// The process before died with it in flight.
    Startup,
}

/// How an attempt ended, and what becomes of the delivery.
#[derive(Clone, Debug)]
pub struct AttemptEnd {
    /// When.
    pub at: Timestamp,
    /// One word: `delivered`, or a failure's class.
    pub outcome: String,
    /// The answer's code, if one came.
    pub http_status: Option<u16>,
    /// What went wrong, for people; no secrets.
    pub error: Option<String>,
    /// The beginning of the answer, without secrets.
    pub excerpt: Option<String>,
    /// What becomes of the delivery.
    pub next: Next,
}

/// What becomes of a delivery after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is done.
    Delivered,
    /// Again after `wait`; `counts`: the attempt used up one of its tries.
    Again {
        /// When.
        at: Timestamp,
        /// The wait that led there: a clock that is set back never lengthens it.
        wait: Duration,
        /// Whether a try was used up.
        counts: bool,
        /// From now on in plain form.
        plain: bool,
    },
    /// It is given up.
    Dead,
    /// The webhook is switched off: this and all that it is owed is held.
    Hold,
}

/// A delivery as it is shown.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its row.
    pub pk: Pk,
    /// `evt_…`
    pub event_id: String,
    /// What happened.
    pub kind: EventType,
    /// The batch that it is about, if any.
    pub batch_id: Option<String>,
    /// The provider that it is about, if any.
    pub provider: Option<String>,
    /// To whom.
    pub webhook: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// Attempts so far, all of them.
    pub attempts: u32,
    /// When it is tried next.
    pub next_attempt_at: Option<Timestamp>,
    /// What went wrong the last time.
    pub last_error: Option<String>,
}

/// One attempt as it is shown.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; `None`: it is under way, or the process died in it.
    pub finished_at: Option<Timestamp>,
    /// Why it was made.
    pub trigger: Trigger,
    /// One word; `unknown_crash` if the process died in it.
    pub outcome: Option<String>,
    /// The answer's code.
    pub http_status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// The beginning of the answer.
    pub excerpt: Option<String>,
}

/// Which deliveries to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    /// Only in this state.
    pub state: Option<DeliveryState>,
    /// Only to this webhook.
    pub webhook: Option<String>,
    /// Only of events about this batch.
    pub batch: Option<crate::domain::tracked::BatchKey>,
    /// Only what comes after this one.
    pub after: Option<Pk>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// What is remembered of a webhook across restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookState {
    /// Why it is switched off, if it is.
    pub disabled: Option<String>,
    /// Whether it was switched off by a person (who alone switches it on again).
    pub by_hand: bool,
    /// Failures in a row.
    pub failures: u32,
    /// Since when it fails.
    pub failing_since: Option<Timestamp>,
    /// Until when its receiver wants to be left alone.
    pub paused_until: Option<Timestamp>,
    /// When it last accepted something.
    pub last_success_at: Option<Timestamp>,
    /// A short keyed hash of where it points: if that changes, what was held is sent there.
    pub fingerprint: Option<String>,
}

/// How much a webhook is owed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// By state.
    pub counts: Vec<(DeliveryState, u64)>,
    /// The oldest that is neither delivered nor dead.
    pub oldest: Option<Timestamp>,
}

impl Store {
    /// What `webhook` is owed and due at `now`, soonest first.
    pub async fn due(&self, webhook: String, now: Timestamp, limit: u32) -> Result<Vec<Due>, StoreError> {
        let _ = (webhook, now, limit);
        unimplemented!()
    }

    /// When the next delivery to `webhook` is due, seen from `now`: never later than its stored wait allows.
    pub async fn next_due(&self, webhook: String, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let _ = (webhook, now);
        unimplemented!()
    }

    /// Logs attempts before they are sent; a delivery that is not pending any more gives `None`.
    pub async fn begin_attempts(
        &self,
        deliveries: Vec<Pk>,
        now: Timestamp,
    ) -> Result<Vec<Option<Pk>>, StoreError> {
        let _ = (deliveries, now);
        unimplemented!()
    }

    /// Logs how an attempt ended, moves its delivery on, and saves the webhook's state with it.
    pub async fn finish_attempt(
        &self,
        attempt: Pk,
        end: AttemptEnd,
        webhook: WebhookState,
    ) -> Result<(), StoreError> {
        let _ = (attempt, end, webhook);
        unimplemented!()
    }

    /// Lists deliveries; the flag says whether there are more.
    pub async fn deliveries(&self, filter: DeliveryFilter) -> Result<(Vec<Delivery>, bool), StoreError> {
        let _ = filter;
        unimplemented!()
    }

    /// The attempts at one delivery, oldest first.
    pub async fn attempts(&self, delivery: Pk) -> Result<Vec<Attempt>, StoreError> {
        let _ = delivery;
        unimplemented!()
    }

    /// Makes deliveries due now with a new budget, under the same event id; `false` where there is none such.
    pub async fn retry(&self, deliveries: Vec<Pk>, now: Timestamp) -> Result<Vec<bool>, StoreError> {
        let _ = (deliveries, now);
        unimplemented!()
    }

    /// The same for all that was given up, of one webhook or of all. Returns how many.
    pub async fn retry_dead(&self, webhook: Option<String>, now: Timestamp) -> Result<u64, StoreError> {
        let _ = (webhook, now);
        unimplemented!()
    }

    /// What is remembered of every webhook.
    pub async fn webhook_states(&self) -> Result<Vec<(String, WebhookState)>, StoreError> {
        unimplemented!()
    }

    /// Saves what is to be remembered of `webhook`. Switching it off holds what is pending, switching it on
    /// releases what is held, in the same transaction.
    pub async fn set_webhook_state(
        &self,
        webhook: String,
        state: WebhookState,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let _ = (webhook, state, now);
        unimplemented!()
    }

    /// Holds what is owed to webhooks that are not in `configured`, and releases what is held of those that are and
    /// are not switched off.
    pub async fn align_webhooks(&self, configured: Vec<String>, now: Timestamp) -> Result<(), StoreError> {
        let _ = (configured, now);
        unimplemented!()
    }

    /// How much each webhook is owed.
    pub async fn backlogs(&self) -> Result<Vec<(String, Backlog)>, StoreError> {
        unimplemented!()
    }

    /// Wakes whenever a delivery was added or made due.
    pub fn watch_deliveries(&self) -> tokio::sync::watch::Receiver<u64> {
        unimplemented!()
    }
}
