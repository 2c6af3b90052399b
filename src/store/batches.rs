//! Watched batches and their transitions.

use super::{Pk, Store, StoreError};
use crate::domain::route::Routes;
use crate::domain::status::Status;
use crate::domain::tracked::{BatchKey, Tracked};
use crate::domain::transition::{Step, Transition};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One batch to register.
#[derive(Clone, Debug)]
pub struct Registration {
    /// What is stored if it is new.
    pub tracked: Tracked,
    /// The first look, if it has been had: stored with it, if it is new.
    pub first_look: Option<Step>,
    /// What the user gave, for a batch that is known already.
    pub given: Given,
}

/// What a second `track` of a batch changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Replaces the name.
    pub name: Option<String>,
    /// Added to the labels, replacing those of the same key.
    pub labels: BTreeMap<String, String>,
    /// Added to the webhooks that it names.
    pub notify_also: BTreeSet<String>,
    /// `Some(true)`: `--no-notify`.
    pub notify_nobody: Option<bool>,
    /// Replaces the deadline.
    pub deadline: Option<Timestamp>,
}

/// A registered batch.
#[derive(Clone, Debug)]
pub struct Registered {
    /// Its row.
    pub pk: Pk,
    /// Whether it was new; a batch that had been untracked and is watched again is not.
    pub new: bool,
    /// As stored now.
    pub tracked: Tracked,
}

/// Which batches to list; newest registered first.
#[derive(Clone, Debug, Default)]
pub struct BatchFilter {
    /// Only those still watched.
    pub active_only: bool,
    /// Only these statuses; empty: all.
    pub statuses: Vec<Status>,
    /// Only this provider's.
    pub provider: Option<String>,
    /// Only those with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only this user's.
    pub owner: Option<String>,
    /// Only what comes after (was registered before) this one.
    pub after: Option<Pk>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// What the schedule keeps in memory of a watched batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleEntry {
    /// Its row.
    pub pk: Pk,
    /// Its provider.
    pub provider: String,
    /// When it is due.
    pub next_poll_at: Timestamp,
}

/// The times of a poll that changed nothing else: they ride on the next commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// When the provider was asked.
    pub last_polled_at: Timestamp,
    /// When it will be asked next.
    pub next_poll_at: Option<Timestamp>,
    /// When the batch is expected to end.
    pub eta: Option<Timestamp>,
}

impl Store {
    /// Registers batches in one transaction, each by itself idempotent: a known one takes what was given and
    /// nothing else, and is watched again if it had been untracked. In the order of `items`.
    pub async fn register(
        &self,
        items: Vec<Registration>,
        routes: Arc<Routes>,
    ) -> Result<Vec<Registered>, StoreError> {
        let _ = (items, routes);
        unimplemented!()
    }

    /// Stores a look: state, transition, events and one delivery for each webhook that wants one, in one
    /// transaction. What only users change (name if set, labels, notify, deadline, untracked) is left alone.
    ///
    /// Returns how many events were new.
    pub async fn record(&self, pk: Pk, step: Step, routes: Arc<Routes>) -> Result<usize, StoreError> {
        let _ = (pk, step, routes);
        unimplemented!()
    }

    /// Notes a look that changed nothing; written with the next commit, or within 30 s.
    pub fn touch(&self, pk: Pk, touch: Touch) {
        let _ = (pk, touch);
        unimplemented!()
    }

    /// One batch by its row.
    pub async fn load(&self, pk: Pk) -> Result<Option<Tracked>, StoreError> {
        let _ = pk;
        unimplemented!()
    }

    /// One batch by its key.
    pub async fn get(&self, key: BatchKey) -> Result<Option<(Pk, Tracked)>, StoreError> {
        let _ = key;
        unimplemented!()
    }

    /// Every batch with this id, at whatever provider.
    pub async fn find(&self, id: String) -> Result<Vec<(Pk, Tracked)>, StoreError> {
        let _ = id;
        unimplemented!()
    }

    /// Lists batches; the flag says whether there are more.
    pub async fn list(&self, filter: BatchFilter) -> Result<(Vec<(Pk, Tracked)>, bool), StoreError> {
        let _ = filter;
        unimplemented!()
    }

    /// Every batch that is to be polled some day, for the schedule in memory.
    pub async fn schedule(&self) -> Result<Vec<ScheduleEntry>, StoreError> {
        unimplemented!()
    }

    /// The changes of status of one batch, oldest first.
    pub async fn transitions(&self, pk: Pk) -> Result<Vec<Transition>, StoreError> {
        let _ = pk;
        unimplemented!()
    }

    /// Stops watching; the history stays.
    pub async fn untrack(&self, pk: Pk, now: Timestamp) -> Result<(), StoreError> {
        let _ = (pk, now);
        unimplemented!()
    }

    /// Deletes a batch with its transitions, events and deliveries.
    pub async fn purge(&self, pk: Pk) -> Result<(), StoreError> {
        let _ = pk;
        unimplemented!()
    }

    /// How many batches there are, by provider and status, active ones and ended ones.
    pub async fn counts(&self) -> Result<Vec<(String, Status, u64)>, StoreError> {
        unimplemented!()
    }

    /// Deletes what ended (or was untracked, or lost) before `before`, a few hundred rows a transaction; the ids of
    /// the events stay, so that nothing is told twice. Returns how many batches went.
    pub async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        let _ = before;
        unimplemented!()
    }
}
