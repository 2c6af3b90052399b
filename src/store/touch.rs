//! Checks that changed nothing but the times of the poll: they wait for the next commit.

use super::column::{Pk, at, ms};
use super::error::StoreError;
use crate::domain::time::to_millis;
use crate::domain::tracked::{Eta, Tracked};
use jiff::Timestamp;
use rusqlite::{Connection, named_params};
use std::collections::BTreeMap;

/// The times of a poll that changed nothing else: they ride on the next commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// When the provider was asked.
    pub last_polled_at: Timestamp,
    /// When it will be asked next.
    pub next_poll_at: Option<Timestamp>,
    /// When the batch is expected to end.
    pub eta: Option<Eta>,
}

/// A [`Touch`] as it waits: of many batches there are many, and instants in full would take twice the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedTouch {
    /// Unix milliseconds each; [`i64::MIN`]: none.
    last_polled_at: i64,
    next_poll_at: i64,
    /// When it is likely to end: the middle, the earliest, the latest.
    eta: [i64; 3],
}

impl From<Touch> for PackedTouch {
    fn from(touch: Touch) -> Self {
        Self {
            last_polled_at: ms(touch.last_polled_at),
            next_poll_at: touch.next_poll_at.map_or(i64::MIN, ms),
            eta: touch.eta.map_or([i64::MIN; 3], |eta| [eta.at, eta.earliest, eta.latest].map(ms)),
        }
    }
}

impl From<PackedTouch> for Touch {
    fn from(packed: PackedTouch) -> Self {
        let [middle, earliest, latest] = packed.eta;
        Self {
            last_polled_at: at(packed.last_polled_at),
            next_poll_at: (packed.next_poll_at != i64::MIN).then(|| at(packed.next_poll_at)),
            eta: (middle != i64::MIN).then(|| Eta {
                at: at(middle),
                earliest: at(earliest),
                latest: at(latest),
            }),
        }
    }
}

impl Touch {
    /// Shows the check in `tracked`, unless that knows a later one.
    pub(super) fn apply(self, tracked: &mut Tracked) {
        let last_polled_at = to_millis(self.last_polled_at);
        if tracked.last_polled_at.is_some_and(|known| known > last_polled_at) {
            return;
        }
        tracked.last_polled_at = Some(last_polled_at);
        tracked.eta = self.eta;
        tracked.next_poll_at = self.next_poll_at.map(to_millis).filter(|_| tracked.untracked_at.is_none());
    }
}

impl PackedTouch {
    /// Writes it to the batch's row.
    pub(super) fn write(self, connection: &Connection, pk: Pk) -> Result<(), StoreError> {
        let touch = Touch::from(self);
        connection
            .prepare_cached(
                "UPDATE batches SET last_polled_at = :last_polled_at, eta = :eta, eta_earliest = :eta_earliest,
                   eta_latest = :eta_latest,
                   next_poll_at = CASE WHEN untracked_at IS NULL THEN :next_poll_at END
                 WHERE pk = :pk",
            )?
            .execute(named_params! {
                ":pk": pk,
                ":last_polled_at": ms(touch.last_polled_at),
                ":next_poll_at": touch.next_poll_at.map(ms),
                ":eta": touch.eta.map(|eta| ms(eta.at)),
                ":eta_earliest": touch.eta.map(|eta| ms(eta.earliest)),
                ":eta_latest": touch.eta.map(|eta| ms(eta.latest)),
            })?;
        Ok(())
    }
}

/// Checks that changed nothing, not written yet; `writing` are those of the commit that is under way.
#[derive(Debug, Default)]
pub(super) struct Touches {
    pub(super) waiting: BTreeMap<Pk, PackedTouch>,
    writing: BTreeMap<Pk, PackedTouch>,
}

impl Touches {
    /// The last check of a batch, if it is not written yet.
    pub(super) fn of(&self, pk: Pk) -> Option<Touch> {
        self.waiting.get(&pk).or_else(|| self.writing.get(&pk)).map(|touch| Touch::from(*touch))
    }

    /// Every such check.
    pub(super) fn all(&self) -> BTreeMap<Pk, Touch> {
        // Newer after older.
        let both = self.writing.iter().chain(&self.waiting);
        both.map(|(pk, touch)| (*pk, Touch::from(*touch))).collect()
    }

    /// Some of what waits, oldest batch first: one commit must not take long.
    pub(super) fn take(&mut self) -> BTreeMap<Pk, PackedTouch> {
        let rest = match self.waiting.keys().nth(MAX_WRITTEN_AT_ONCE).copied() {
            Some(first) => self.waiting.split_off(&first),
            None => BTreeMap::new(),
        };
        self.writing = std::mem::replace(&mut self.waiting, rest);
        self.writing.clone()
    }

    /// Forgets what was written; what was not waits again, unless there is newer.
    pub(super) fn settle(&mut self, written: bool) {
        for (pk, touch) in std::mem::take(&mut self.writing) {
            if !written {
                self.waiting.entry(pk).or_insert(touch);
            }
        }
    }
}

/// Touches in one transaction.
const MAX_WRITTEN_AT_ONCE: usize = 1000;
