//! What people were told by batchd, and so may rely on.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The status words of batches that have ended.
pub const ENDS: [&str; 4] = ["completed", "failed", "expired", "cancelled"];

/// What somebody knows of a batch that they had to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is tracked: batchd said so.
    Tracked,
    /// A request about it was not answered.
    Doubtful,
    Untracked,
    Purged,
}

/// All that was said, in all lives of the daemon.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By `ACCOUNT:ID`.
    pub batches: BTreeMap<String, Standing>,
    /// Those whose history somebody asked to delete, whatever became of that.
    pub ever_purged: BTreeSet<String>,
    /// Every event that was read, by its number.
    pub events: BTreeMap<i64, Value>,
    /// The ids of submitted batches, by the number of the submission.
    pub submitted: BTreeMap<u32, String>,
    /// How each batch was shown to have ended, by `ACCOUNT:ID` and when it was tracked: one that retention has deleted may
    /// be tracked anew.
    ended: BTreeMap<(String, String), String>,
    /// Answers of 500 and more, with what was asked.
    pub failures: BTreeSet<String>,
    /// How many daemons there have been.
    pub lives: u32,
    /// When something was asked for by hand, in seconds.
    pub by_hand: Vec<f64>,
}

impl Ledger {
    /// The newest number of an event that was read.
    pub fn newest(&self) -> i64 {
        self.events.last_key_value().map_or(0, |(sequence, _)| *sequence)
    }

    /// Reads a page of the log: what was read before must not have changed.
    pub fn read(&mut self, events: &[Value]) {
        for event in events {
            let sequence =
                event["sequence"].as_i64().unwrap_or_else(|| panic!("an event without a number: {event}"));
            if let Some(before) = self.events.insert(sequence, event.clone()) {
                assert_eq!(&before, event, "event {sequence} has changed");
            }
        }
    }

    /// Reads an answer: what was shown to have ended must not be shown as live, by whichever daemon.
    pub fn see(&mut self, what: &str, answer: &Value) {
        if answer["object"] == "batch"
            && let (Some(provider), Some(id)) = (answer["batchd"]["provider"].as_str(), answer["id"].as_str())
            && let (Some(tracked_at), Some(status)) =
                (answer["batchd"]["tracked_at"].as_str(), answer["status"].as_str())
        {
            let key = (format!("{provider}:{id}"), tracked_at.to_owned());
            if ENDS.contains(&status) {
                self.ended.insert(key, status.to_owned());
            } else if let Some(end) = self.ended.get(&key) {
                panic!("{what}: {} was {end} and is {status} again: {answer}", key.0);
            }
        }
        for entry in answer["data"].as_array().into_iter().flatten() {
            self.see(what, entry);
        }
    }

    /// Somebody begins to change what is tracked.
    pub fn doubt(&mut self, key: &str) -> Option<Standing> {
        let before = self.batches.get(key).copied();
        self.batches.insert(key.to_owned(), Standing::Doubtful);
        before
    }

    /// They have been told, or know that nothing has changed.
    pub fn settle(&mut self, key: &str, standing: Option<Standing>) {
        match standing {
            Some(standing) => self.batches.insert(key.to_owned(), standing),
            None => self.batches.remove(key),
        };
    }
}
