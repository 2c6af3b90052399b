//! The open transaction as an operation sees it, and what is told to others once it is committed.

use super::column::Pk;
use super::rescheduled::Rescheduled;
use super::sql::Sql;
use crate::domain::event::EventType;
use crate::domain::ownership::Scope;
use crate::domain::prices::Prices;
use crate::domain::tracked::Tracked;
use jiff::Timestamp;
use std::ops::Deref;
use std::sync::Arc;

/// The open transaction, as an operation sees it, and what is to be told once it is committed.
#[derive(Debug)]
pub(super) struct Tx<'c> {
    sql: Sql<'c>,
    /// When the transaction began.
    pub(super) now: Timestamp,
    pub(super) prices: Arc<Prices>,
    pub(super) after_commit: AfterCommit,
}

/// What holds for all operations of a transaction.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) now: Timestamp,
    /// The prices in force.
    pub(super) prices: Arc<Prices>,
}

/// What watchers and metrics hear of after the commit.
#[derive(Debug, Default)]
pub(super) struct AfterCommit {
    pub(super) events: Vec<EventType>,
    /// The number of the newest event; 0: none was recorded.
    pub(super) newest: i64,
    /// Webhooks that something was made due for, each once.
    pub(super) webhooks: Vec<String>,
    /// Whether something may have been made due for any of them.
    pub(super) all_webhooks: bool,
    /// Batches whose touches are out of date.
    pub(super) superseded: Vec<Pk>,
    /// What has changed on the schedule, in this order.
    pub(super) rescheduled: Vec<Rescheduled>,
    /// What else the owners of scopes are to hear of, if those are other daemons.
    pub(super) letters: Vec<(Scope, &'static str, Option<Pk>)>,
}

/// How much there was to tell before an operation.
pub(super) struct Mark {
    events: usize,
    newest: i64,
    webhooks: usize,
    all_webhooks: bool,
    superseded: usize,
    rescheduled: usize,
    letters: usize,
}

impl AfterCommit {
    /// The types of the events, for failpoints.
    pub(super) fn kinds(&self) -> String {
        self.events.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            events: self.events.len(),
            newest: self.newest,
            webhooks: self.webhooks.len(),
            all_webhooks: self.all_webhooks,
            superseded: self.superseded.len(),
            rescheduled: self.rescheduled.len(),
            letters: self.letters.len(),
        }
    }

    pub(super) fn back_to(&mut self, mark: &Mark) {
        self.events.truncate(mark.events);
        self.newest = mark.newest;
        self.webhooks.truncate(mark.webhooks);
        self.all_webhooks = mark.all_webhooks;
        self.superseded.truncate(mark.superseded);
        self.rescheduled.truncate(mark.rescheduled);
        self.letters.truncate(mark.letters);
    }
}

impl<'c> Tx<'c> {
    /// A view of the transaction that is open.
    pub(super) fn of(sql: Sql<'c>, Terms { now, prices }: Terms) -> Self {
        Self { sql, now, prices, after_commit: AfterCommit::default() }
    }

    /// The connection itself, for as long as it is open.
    pub(super) const fn sql(&self) -> Sql<'c> {
        self.sql
    }
}

impl<'c> Deref for Tx<'c> {
    type Target = Sql<'c>;

    fn deref(&self) -> &Sql<'c> {
        &self.sql
    }
}

impl Tx<'_> {
    /// An event was recorded.
    pub(super) fn tell_event(&mut self, sequence: i64, kind: EventType) {
        self.after_commit.newest = self.after_commit.newest.max(sequence);
        self.after_commit.events.push(kind);
    }

    /// What was noted of earlier checks of the batch is out of date now.
    pub(super) fn supersede(&mut self, pk: Pk) {
        self.after_commit.superseded.push(pk);
    }

    /// The batch's place on the schedule is what `stored`, which is its row, says from now on.
    pub(super) fn reschedule(&mut self, pk: Pk, stored: &Tracked) {
        self.after_commit.rescheduled.push(Rescheduled::of(pk, stored));
    }

    /// The batch is on the schedule no more.
    pub(super) fn take_off_schedule(&mut self, pk: Pk, provider: String) {
        self.after_commit.rescheduled.push(Rescheduled { pk, provider, next: None });
    }

    /// A delivery to `webhook` was added or made due.
    pub(super) fn tell_webhook(&mut self, webhook: &str) {
        let told = &mut self.after_commit.webhooks;
        if !told.iter().any(|told| told == webhook) {
            told.push(webhook.to_owned());
        }
    }

    /// The owner of `scope` is to hear of something.
    pub(super) fn write_letter(&mut self, scope: Scope, kind: &'static str, batch: Option<Pk>) {
        self.after_commit.letters.push((scope, kind, batch));
    }

    /// Deliveries were made due, to whatever webhooks.
    pub(super) fn tell_all_webhooks(&mut self) {
        self.after_commit.all_webhooks = true;
    }
}
