//! What the clients of the hunt know: what they were promised, and what they hold to be wrong.

use crate::patience::now;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

#[derive(Default)]
pub struct Ledger(Mutex<Entries>);

#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// Batches whose registration was acknowledged, and when.
    pub acknowledged: BTreeMap<String, Instant>,
    /// The same in the order of acknowledgement, to draw from.
    pub drawn_from: Vec<String>,
    /// Batches that somebody asked to untrack, answered or not.
    pub untracked: BTreeSet<String>,
    /// How often each operation succeeded and failed.
    pub done: BTreeMap<&'static str, (u64, u64)>,
    /// What a client should never have seen.
    pub wrong: Vec<String>,
}

impl Ledger {
    pub fn open(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn count(&self, operation: &'static str, well: bool) {
        let mut entries = self.open();
        let (good, bad) = entries.done.entry(operation).or_default();
        if well {
            *good += 1;
        } else {
            *bad += 1;
        }
    }

    pub fn acknowledge(&self, id: &str) {
        let mut entries = self.open();
        if entries.acknowledged.insert(id.to_owned(), now()).is_none() {
            entries.drawn_from.push(id.to_owned());
        }
    }

    pub fn wrong(&self, what: String) {
        self.open().wrong.push(what);
    }
}
