//! Checks that changed nothing but the times of the poll: they wait for the next commit.

use super::column::{Pk, at, ms};
use super::error::StoreError;
use super::given::Given;
use super::sql::Sql;
use super::value::Value;
use crate::domain::tracked::{Eta, Tracked};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// The times of a poll that changed nothing else: they ride on the next commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// When the provider was asked.
    pub last_polled_at: Timestamp,
    /// When it will be asked next.
    pub next_poll_at: Timestamp,
    /// When the batch is expected to end.
    pub eta: Option<Eta>,
}

/// A [`Touch`] as it waits: of many batches there are many, and instants in full would take twice the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedTouch {
    /// Unix milliseconds each.
    last_polled_at: i64,
    next_poll_at: i64,
    /// When it is likely to end: the middle, the earliest, the latest; [`NONE`]: not known, [`AS_IT_WAS`].
    eta: [i64; 3],
}

const NONE: i64 = i64::MIN;
const AS_IT_WAS: i64 = i64::MIN + 1;

impl From<Touch> for PackedTouch {
    fn from(touch: Touch) -> Self {
        Self {
            last_polled_at: ms(touch.last_polled_at),
            next_poll_at: ms(touch.next_poll_at),
            eta: touch.eta.map_or([NONE; 3], |eta| [eta.at, eta.earliest, eta.latest].map(ms)),
        }
    }
}

impl PackedTouch {
    /// Of a check that has left what is expected as it was.
    pub(super) fn of_times(last_polled_at: Timestamp, next_poll_at: Timestamp) -> Self {
        Self { last_polled_at: ms(last_polled_at), next_poll_at: ms(next_poll_at), eta: [AS_IT_WAS; 3] }
    }

    pub(super) fn next_poll_at(self) -> Timestamp {
        at(self.next_poll_at)
    }

    /// The same after `older`, which may know what is expected.
    fn after(self, older: Option<Self>) -> Self {
        if self.eta[0] != AS_IT_WAS {
            return self;
        }
        Self { eta: older.map_or(self.eta, |older| older.eta), ..self }
    }

    /// Shows the check in `tracked`, unless that knows a later one or is not watched any more.
    pub(super) fn apply(self, tracked: &mut Tracked) {
        let last_polled_at = at(self.last_polled_at);
        let is_watched = tracked.next_poll_at.is_some() && tracked.untracked_at.is_none();
        if !is_watched || tracked.last_polled_at.is_some_and(|known| known > last_polled_at) {
            return;
        }
        tracked.last_polled_at = Some(last_polled_at);
        tracked.next_poll_at = Some(self.next_poll_at());
        tracked.eta = match self.eta {
            [AS_IT_WAS, ..] => tracked.eta,
            [NONE, ..] => None,
            [middle, earliest, latest] => {
                Some(Eta { at: at(middle), earliest: at(earliest), latest: at(latest) })
            }
        };
    }

    /// Writes them to the batches' places on the schedule, where those still have one.
    pub(super) fn write_all(connection: &Sql<'_>, touches: &BTreeMap<Pk, Self>) -> Result<(), StoreError> {
        let (mut of_times, mut whole) = (Given::default(), Given::default());
        for (pk, Self { last_polled_at, next_poll_at, eta }) in touches {
            let times = [*pk, *last_polled_at, *next_poll_at].map(Value::from);
            if eta[0] == AS_IT_WAS {
                of_times.push(times.into());
            } else {
                let eta = eta.map(|at| Value::from((at != NONE).then_some(at)));
                whole.push(times.into_iter().chain(eta).collect());
            }
        }
        connection.set(
            "UPDATE checks SET last_polled_at = given.last_polled_at, next_poll_at = given.next_poll_at
             FROM given(batch INT, last_polled_at INT, next_poll_at INT) WHERE checks.batch = given.batch",
            &of_times,
        )?;
        connection.set(
            "UPDATE checks SET last_polled_at = given.last_polled_at, next_poll_at = given.next_poll_at,
               eta = given.eta, eta_earliest = given.eta_earliest, eta_latest = given.eta_latest
             FROM given(batch INT, last_polled_at INT, next_poll_at INT, eta INT, eta_earliest INT, eta_latest INT)
             WHERE checks.batch = given.batch",
            &whole,
        )
    }
}

/// Checks that changed nothing, not written yet; `writing` are those of the commit that is under way.
#[derive(Debug, Default)]
pub(super) struct Touches {
    pub(super) waiting: BTreeMap<Pk, PackedTouch>,
    writing: BTreeMap<Pk, PackedTouch>,
}

impl Touches {
    /// A check, which is newer than what waits.
    pub(super) fn add(&mut self, pk: Pk, touch: PackedTouch) {
        self.waiting.entry(pk).and_modify(|older| *older = touch.after(Some(*older))).or_insert(touch);
    }

    /// The last check of a batch, if it is not written yet.
    pub(super) fn of(&self, pk: Pk) -> Option<PackedTouch> {
        let writing = self.writing.get(&pk).copied();
        self.waiting.get(&pk).map(|touch| touch.after(writing)).or(writing)
    }

    /// Every such check.
    pub(super) fn all(&self) -> BTreeMap<Pk, PackedTouch> {
        let mut all = self.writing.clone();
        all.extend(self.waiting.iter().map(|(pk, touch)| (*pk, touch.after(self.writing.get(pk).copied()))));
        all
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
                self.waiting.entry(pk).and_modify(|newer| *newer = newer.after(Some(touch))).or_insert(touch);
            }
        }
    }
}

/// Touches in one transaction.
const MAX_WRITTEN_AT_ONCE: usize = 5000;
