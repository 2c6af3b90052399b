//! What the clients of the torture know: what they were promised, what they saw, and what they hold to be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub struct Ledger(Mutex<Entries>);

#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// Batches whose registration was acknowledged, each with how.
    pub acknowledged: BTreeMap<String, &'static str>,
    /// Batches whose history somebody asked to delete, answered or not.
    pub purged: BTreeSet<String>,
    /// Batches that somebody asked to untrack, answered or not.
    pub untracked: BTreeSet<String>,
    /// Submissions by their tag; with the batch's id where it was told.
    pub submitted: BTreeMap<String, Option<String>>,
    /// Backups that arrived whole, each with what had been acknowledged before it was asked for.
    pub backups: Vec<(PathBuf, BTreeSet<String>)>,
    /// Events that a client read from the log, by their numbers.
    pub read: BTreeMap<u64, String>,
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
}

impl Entries {
    /// What is acknowledged and not asked to be deleted.
    pub fn kept(&self) -> BTreeSet<String> {
        self.acknowledged.keys().filter(|id| !self.purged.contains(*id)).cloned().collect()
    }
}
