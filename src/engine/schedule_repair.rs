//! Compares the schedule in memory with the database: what is due and nobody knows of is put on the schedule, what is
//! on it and should not be is taken off (`docs/schedule.md#repair`).

use super::due::{DueList, Next};
use super::poller::Poller;
use super::pollers::Pollers;
use super::shared::Shared;
use crate::domain::time::earlier;
use crate::logging::Recurring;
use crate::store::{Pk, StoreError};
use crate::sync;
use crate::tasks::Pulse;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// Compares now and then, for as long as the daemon runs.
pub(super) async fn keep(shared: Arc<Shared>, pollers: Arc<RwLock<Pollers>>, pulse: Pulse) {
    let stopping = shared.tasks.stopping();
    let mut cursors = BTreeMap::new();
    let mut comparing = Recurring::new("compare the schedule with the state");
    loop {
        for _ in 0..2 {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(INTERVAL / 2) => {}
            }
            pulse.beat();
        }
        let mut in_force = sync::read(&pollers).in_force.clone();
        // Others repair what is theirs.
        in_force.retain(|name, _| shared.polls(name));
        cursors.retain(|name, _| in_force.contains_key(name));
        for poller in in_force.values() {
            let lost = poller.release_lost();
            if lost > 0 {
                tracing::warn!(
                    provider = poller.name(),
                    batches = lost,
                    "polls were lost without a result; their batches are due now"
                );
            }
        }
        comparing.note(compare(&shared, &in_force, &mut cursors).await);
    }
}

async fn compare(
    shared: &Shared,
    in_force: &BTreeMap<String, Arc<Poller>>,
    cursors: &mut BTreeMap<String, Pk>,
) -> Result<(), StoreError> {
    let mut waiting: BTreeMap<Pk, &str> = BTreeMap::new();
    for (name, poller) in in_force {
        let some = poller.some_waiting(cursors.entry(name.clone()).or_default(), AT_ONCE);
        waiting.extend(some.into_iter().map(|pk| (pk, name.as_str())));
    }
    let before = earlier(shared.clock.now(), GRACE);
    let (due, off) = shared.store.compare(before, waiting.keys().copied().collect()).await?;
    let mut doubtful: BTreeMap<String, Vec<Pk>> = BTreeMap::new();
    for entry in due {
        if let Some(poller) = in_force.get(&*entry.provider)
            && poller.lacks(&poller.due(), entry.pk)
        {
            doubtful.entry(poller.name().to_owned()).or_default().push(entry.pk);
        }
    }
    for pk in off {
        if let Some(name) = waiting.get(&pk) {
            doubtful.entry((*name).to_owned()).or_default().push(pk);
        }
    }
    if doubtful.is_empty() {
        return Ok(());
    }
    // What a commit under way has changed is told meanwhile.
    tokio::time::sleep(PAUSE).await;
    for (name, batches) in doubtful {
        let Some(poller) = in_force.get(&name) else { continue };
        let stored = shared.store.next_checks(batches.clone()).await?;
        let (mut added, mut removed) = (0, 0);
        for pk in batches {
            match stored.get(&pk) {
                Some(next) => added += usize::from(poller.add_missing(pk, Next::from(*next))),
                None => removed += usize::from(poller.remove_waiting(pk)),
            }
        }
        if added > 0 {
            tracing::warn!(
                provider = name,
                batches = added,
                "the schedule had lost batches that the state says are due; they are on it again"
            );
        }
        if removed > 0 {
            tracing::warn!(
                provider = name,
                batches = removed,
                "the schedule had batches that are not to be checked any more; they are off it"
            );
        }
    }
    Ok(())
}

impl Poller {
    /// What is under way and nobody takes care of is due now. Returns how many batches that are.
    fn release_lost(&self) -> usize {
        let now = self.now();
        let lost = self.due().release_lost(now).len();
        if lost > 0 {
            self.count_repaired(lost);
            self.settled.notify_waiters();
            self.wake();
        }
        lost
    }

    /// Whether the batch is missing from the schedule. One that is not filled yet, or runs no more, lacks nothing.
    fn lacks(&self, due: &DueList, pk: Pk) -> bool {
        due.is_filled() && !due.knows(pk) && !self.is_retired()
    }

    /// Some of what waits for its time, behind the cursor, which moves on.
    fn some_waiting(&self, cursor: &mut Pk, count: usize) -> Vec<Pk> {
        let due = self.due();
        if !due.is_filled() || self.is_retired() {
            return Vec::new();
        }
        let some = due.some_behind(*cursor, count);
        *cursor = some.last().copied().filter(|_| some.len() == count).unwrap_or_default();
        some
    }

    /// Puts a batch on the schedule if it is not there; whether it was not.
    fn add_missing(&self, pk: Pk, next: Next) -> bool {
        let next = self.bounded(next);
        let now = self.now();
        let mut due = self.due();
        let missing = self.lacks(&due, pk);
        if missing {
            due.put(pk, next, now);
            self.count_repaired(1);
            self.wake();
        }
        missing
    }

    /// Takes a batch off the schedule that waits there; whether it did.
    fn remove_waiting(&self, pk: Pk) -> bool {
        let mut due = self.due();
        let waits = due.waits(pk);
        if waits {
            due.forget(pk);
            self.count_repaired(1);
        }
        waits
    }
}

/// With [`GRACE`] and what a poll takes, what is lost is checked within a minute of being due.
const INTERVAL: Duration = Duration::from_secs(40);
/// What has been due for less may be on its way.
const GRACE: Duration = Duration::from_secs(10);
/// Between finding a difference and believing it.
const PAUSE: Duration = Duration::from_secs(1);
/// How many of the batches on an account's schedule are compared at a time.
const AT_ONCE: usize = 500;
