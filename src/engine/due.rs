//! What is due when at one account: an entry a batch, nothing else of it.

use crate::domain::time::{earlier, from_millis, later, since};
use crate::domain::tracked::Tracked;
use crate::store::Pk;
use crate::store::rescheduled::NextCheck;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A page shows a batch for nothing: it is worth being there from this share of its interval before it is due.
const EARLY: f64 = 0.2;

/// When a batch is to be checked again, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub at: Timestamp,
    /// When the batch was created, Unix seconds, if the provider has said so: where it stands in the list.
    pub created_at: Option<i64>,
    /// Whether it has to be retrieved: a list may lag behind, or leave out what is waited for.
    pub closely: bool,
    /// What a check shows that brings nothing new.
    pub mark: Option<Mark>,
}

/// How a batch was written when it was read last, and until when the same means that nothing is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub fingerprint: u64,
    pub until: Timestamp,
}

/// A check that showed nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unchanged {
    pub pk: Pk,
    /// When it was due.
    pub due_at: Timestamp,
    pub next_at: Timestamp,
}

/// A batch that a page may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub pk: Pk,
    pub created_at: Option<i64>,
}

/// Whoever holds it takes care of a batch, or of a round, that is under way.
pub(super) type Claim = Arc<()>;

/// The schedule of one account.
#[derive(Debug)]
pub(super) struct DueList {
    /// Those that a page of the list may show.
    together: BTreeSet<(i64, Pk)>,
    /// Those that are retrieved in any case.
    apart: BTreeSet<(i64, Pk)>,
    by_batch: BTreeMap<Pk, Entry>,
    /// Those whose last check may say what the next one shows.
    by_fingerprint: BTreeMap<u64, Pk>,
    /// Under way, and what becomes of each when it comes back.
    busy: BTreeMap<Pk, Busy>,
    round: Option<Round>,
    /// Until it has been filled from the database: what was said of batches meanwhile, which is newer than what was read.
    told: Option<BTreeSet<Pk>>,
    /// The time when it was last used.
    seen_at: Option<Timestamp>,
    /// Which of the spans it is in each of which a batch that the list did not show is given another chance; never 0.
    span: u8,
}

/// Of a batch that is not being polled.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Unix milliseconds.
    at: i64,
    /// Unix seconds, or [`UNKNOWN`]: an `Option` would cost eight bytes a batch.
    created_at: i64,
    fingerprint: u64,
    /// Until when the fingerprint counts, Unix milliseconds; [`UNKNOWN`]: there is none.
    same_until: i64,
    /// Milliseconds from when `at` was decided to `at`.
    interval: u32,
    queue: Queue,
    /// In which span the list did not show it; 0: in none.
    unlisted: u8,
}

const UNKNOWN: i64 = i64::MIN;

impl Entry {
    fn created_at(&self) -> Option<i64> {
        Some(self.created_at).filter(|at| *at != UNKNOWN)
    }

    fn mark(&self) -> Option<Mark> {
        let until = Some(self.same_until).filter(|until| *until != UNKNOWN)?;
        Some(Mark { fingerprint: self.fingerprint, until: from_millis(until) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Together,
    Apart,
    /// Left to the round that is under way.
    Expected,
}

/// Of a batch that is being polled.
#[derive(Clone, Debug)]
struct Busy {
    /// Whether somebody still takes care of it.
    claim: Weak<()>,
    /// What was said of its place on the schedule meanwhile.
    told: Told,
    /// Since when there is news that the poll may have come too early for.
    news: Option<Timestamp>,
    /// By how much the clock has been set back since it began.
    set_back: Duration,
    created_at: Option<i64>,
    unlisted: u8,
    mark: Option<Mark>,
    /// Milliseconds that it has waited between two checks.
    interval: u32,
}

/// What was said of a batch's place on the schedule during its poll.
#[derive(Clone, Copy, Debug)]
enum Told {
    Nothing,
    Off,
    Due(Next),
}

/// What the schedule knows of the round that is under way.
#[derive(Debug, Default)]
struct Round {
    claim: Weak<()>,
    expected: BTreeSet<Pk>,
    /// How many of them nobody has ever seen.
    unseen: usize,
    /// Batches that have been polled by themselves since the page was asked for: it may be older than what they saw.
    overtaken: BTreeSet<Pk>,
    /// Claimed by the page that is being taken in.
    claimed: BTreeSet<Pk>,
}

impl Next {
    /// What comes after a check of `tracked`; `None`: nothing by itself.
    pub(super) fn of(tracked: &Tracked) -> Option<Self> {
        NextCheck::of(tracked).map(Self::from)
    }

    /// Of a batch of which only the time is known.
    pub(super) const fn at(at: Timestamp, created_at: Option<i64>) -> Self {
        Self { at, created_at, closely: false, mark: None }
    }
}

impl From<NextCheck> for Next {
    fn from(NextCheck { at, created_at, closely }: NextCheck) -> Self {
        Self { at, created_at, closely, mark: None }
    }
}

impl Default for DueList {
    fn default() -> Self {
        let (together, apart, by_batch, by_fingerprint, busy) = Default::default();
        Self {
            together,
            apart,
            by_batch,
            by_fingerprint,
            busy,
            round: None,
            told: Some(BTreeSet::new()),
            seen_at: None,
            span: 1,
        }
    }
}

impl DueList {
    /// Due then and at no other time, whatever was said before.
    pub(super) fn put(&mut self, pk: Pk, next: Next, now: Timestamp) {
        if let Some(busy) = self.busy.get_mut(&pk) {
            busy.told = Told::Due(next);
            return;
        }
        let created_at = self.take(pk).and_then(|entry| entry.created_at());
        self.insert(pk, Next { created_at: next.created_at.or(created_at), ..next }, now, 0);
    }

    /// What a commit has made of a batch's place on the schedule; `None`: it is off. Whether it waits for its time now.
    pub(super) fn told(&mut self, pk: Pk, next: Option<Next>, now: Timestamp) -> bool {
        if let Some(told) = &mut self.told {
            told.insert(pk);
        }
        let Some(next) = next else {
            self.forget(pk);
            return false;
        };
        self.put(pk, next, now);
        let Some(busy) = self.busy.get_mut(&pk) else { return true };
        if next.at <= now {
            // The poll that is under way may have come too early for what was written.
            busy.news = Some(now);
        }
        false
    }

    /// Forgets everything, so that it is filled from the database again; what is under way ends, and brings nothing that
    /// the database does not have.
    pub(super) fn begin_anew(&mut self) {
        self.together.clear();
        self.apart.clear();
        self.by_batch.clear();
        self.by_fingerprint.clear();
        for busy in self.busy.values_mut() {
            busy.told = Told::Off;
        }
        if let Some(round) = &mut self.round {
            round.expected.clear();
            round.unseen = 0;
        }
        self.told = Some(BTreeSet::new());
    }

    /// What the database had when it was read; what was said since is newer.
    pub(super) fn fill(&mut self, entries: impl Iterator<Item = (Pk, Next)>, now: Timestamp) {
        let told = self.told.take().unwrap_or_default();
        for (pk, next) in entries.filter(|(pk, _)| !told.contains(pk)) {
            self.put(pk, next, now);
        }
    }

    /// Whether it has been filled.
    pub(super) fn is_filled(&self) -> bool {
        self.told.is_none()
    }

    /// Whether it knows the batch, waiting or under way.
    pub(super) fn knows(&self, pk: Pk) -> bool {
        self.by_batch.contains_key(&pk) || self.busy.contains_key(&pk)
    }

    /// Whether the batch waits for its time.
    pub(super) fn waits(&self, pk: Pk) -> bool {
        self.by_batch.contains_key(&pk)
    }

    /// Some of what waits for its time, behind `behind`.
    pub(super) fn some_behind(&self, behind: Pk, count: usize) -> Vec<Pk> {
        let rest = (std::ops::Bound::Excluded(behind), std::ops::Bound::Unbounded);
        self.by_batch.range(rest).take(count).map(|(pk, _)| *pk).collect()
    }

    /// What is under way and nobody takes care of is due at `now`. Returns what that was.
    pub(super) fn release_lost(&mut self, now: Timestamp) -> Vec<Pk> {
        if self.round.as_ref().is_some_and(|round| round.claim.strong_count() == 0) {
            self.end_round(now, now);
        }
        let lost: Vec<Pk> =
            self.busy.iter().filter(|(_, busy)| busy.claim.strong_count() == 0).map(|(pk, _)| *pk).collect();
        for pk in &lost {
            self.settle(*pk, Some(Next::at(now, None)), false, now);
        }
        lost
    }

    /// Everything is due at `now`. Returns how many that are.
    pub(super) fn hurry(&mut self, now: Timestamp) -> usize {
        let at = now.as_millisecond();
        for (pk, entry) in &mut self.by_batch {
            let set = match entry.queue {
                Queue::Together => &mut self.together,
                Queue::Apart => &mut self.apart,
                Queue::Expected => continue,
            };
            set.remove(&(entry.at, *pk));
            entry.at = at;
            set.insert((at, *pk));
        }
        self.by_batch.len() + self.busy.len()
    }

    /// Due now, and retrieved whatever a page shows: there is news of it, which the list may not have yet. Only if it
    /// is on the schedule at all.
    pub(super) fn nudge(&mut self, pk: Pk, now: Timestamp) {
        if let Some(round) = &mut self.round {
            round.overtaken.insert(pk);
        }
        if let Some(busy) = self.busy.get_mut(&pk) {
            busy.news = Some(now);
        } else if let Some(entry) = self.take(pk) {
            let at = from_millis(entry.at).min(now);
            let next = Next { closely: true, ..Next::at(at, entry.created_at()) };
            self.insert(pk, next, now, entry.unlisted);
        }
    }

    /// Off the schedule.
    pub(super) fn forget(&mut self, pk: Pk) {
        self.take(pk);
        if let Some(busy) = self.busy.get_mut(&pk) {
            busy.told = Told::Off;
        }
    }

    /// Under way from now on, for as long as the claim is held; `None`: it is already.
    pub(super) fn claim(&mut self, pk: Pk) -> Option<Claim> {
        if let Some(round) = &mut self.round {
            round.overtaken.insert(pk);
        }
        let claim = Claim::default();
        self.occupy(pk, Arc::downgrade(&claim)).then_some(claim)
    }

    fn occupy(&mut self, pk: Pk, claim: Weak<()>) -> bool {
        if self.busy.contains_key(&pk) {
            return false;
        }
        let entry = self.take(pk);
        let busy = Busy {
            claim,
            told: Told::Nothing,
            news: None,
            set_back: Duration::ZERO,
            created_at: entry.and_then(|entry| entry.created_at()),
            unlisted: entry.map_or(0, |entry| entry.unlisted),
            mark: entry.and_then(|entry| entry.mark()),
            interval: entry.map_or(0, |entry| entry.interval),
        };
        self.busy.insert(pk, busy);
        true
    }

    /// Back from a check, which says when the next one is due. `listed`: whether a page showed it; if not, what was
    /// known of that stays.
    pub(super) fn settle(&mut self, pk: Pk, next: Option<Next>, listed: bool, now: Timestamp) {
        let Some(busy) = self.busy.remove(&pk) else { return };
        if let Some(round) = &mut self.round {
            round.claimed.remove(&pk);
        }
        // What a poll says stands, unless the batch was taken off meanwhile; what it does not know was said before.
        let next = match busy.told {
            Told::Off => None,
            Told::Due(told) => next.or(Some(told)),
            Told::Nothing => next,
        };
        // Planned before the clock was set back, it would be due too late; after that, it is due too early.
        let next = next.map(|next| (earlier(next.at, busy.set_back), next));
        let next = next.map(|(at, next)| Next {
            at: busy.news.map_or(at, |news| at.min(news)),
            created_at: next.created_at.or(busy.created_at),
            closely: next.closely || busy.news.is_some(),
            // What was written meanwhile may be more than what the check saw.
            mark: next.mark.filter(|_| matches!(busy.told, Told::Nothing)),
        });
        if let Some(next) = next {
            self.insert(pk, next, now, if listed { 0 } else { busy.unlisted });
        }
    }

    fn insert(&mut self, pk: Pk, next: Next, now: Timestamp, unlisted: u8) {
        let queue = if next.closely || unlisted == self.span { Queue::Apart } else { Queue::Together };
        let interval = u32::try_from(since(now, next.at).as_millis()).unwrap_or(u32::MAX);
        let at = next.at.as_millisecond();
        let created_at = next.created_at.unwrap_or(UNKNOWN);
        let mark = next.mark.filter(|_| !next.closely);
        let (fingerprint, same_until) =
            mark.map_or((0, UNKNOWN), |mark| (mark.fingerprint, mark.until.as_millisecond()));
        if mark.is_some() {
            self.by_fingerprint.insert(fingerprint, pk);
        }
        let entry = Entry { at, created_at, fingerprint, same_until, interval, queue, unlisted };
        self.by_batch.insert(pk, entry);
        self.queue(queue).insert((at, pk));
    }

    fn take(&mut self, pk: Pk) -> Option<Entry> {
        let entry = self.by_batch.remove(&pk)?;
        if entry.mark().is_some() {
            self.by_fingerprint.remove(&entry.fingerprint);
        }
        self.take_off_queue(pk, entry);
        Some(entry)
    }

    fn take_off_queue(&mut self, pk: Pk, entry: Entry) {
        match (entry.queue, &mut self.round) {
            (Queue::Expected, Some(round)) => {
                round.expected.remove(&pk);
                round.unseen -= usize::from(entry.created_at().is_none());
            }
            (Queue::Expected, None) => {}
            (Queue::Together, _) => {
                self.together.remove(&(entry.at, pk));
            }
            (Queue::Apart, _) => {
                self.apart.remove(&(entry.at, pk));
            }
        }
    }

    /// The batch of which an item of a page, written as `fingerprint` says, shows nothing new, if there is one.
    pub(super) fn unchanged_item(&self, fingerprint: u64, now: Timestamp) -> Option<Wanted> {
        let pk = *self.by_fingerprint.get(&fingerprint)?;
        let entry = self.by_batch.get(&pk)?;
        (now.as_millisecond() < entry.same_until).then(|| Wanted { pk, created_at: entry.created_at() })
    }

    /// A page has shown a batch, written as `fingerprint` says and unchanged: it is due again after the interval that it
    /// had. `None`: it is not on the schedule any more, or a poll that knows better than the page is under way, or was.
    pub(super) fn settle_unchanged(&mut self, fingerprint: u64, now: Timestamp) -> Option<Unchanged> {
        let pk = *self.by_fingerprint.get(&fingerprint)?;
        let entry = *self.by_batch.get(&pk)?;
        let is_overtaken = self.round.as_ref().is_none_or(|round| round.overtaken.contains(&pk));
        if is_overtaken || now.as_millisecond() >= entry.same_until {
            return None;
        }
        self.take_off_queue(pk, entry);
        let next_at = later(now, Duration::from_millis(entry.interval.into()));
        let at = next_at.as_millisecond();
        self.by_batch.insert(pk, Entry { at, queue: Queue::Together, unlisted: 0, ..entry });
        self.together.insert((at, pk));
        Some(Unchanged { pk, due_at: from_millis(entry.at), next_at })
    }

    /// Whether the batch, which is being polled, may turn out to be unchanged by how it is written.
    pub(super) fn may_be_unchanged(&self, pk: Pk, now: Timestamp) -> bool {
        self.busy.get(&pk).and_then(|busy| busy.mark).is_some_and(|mark| now < mark.until)
    }

    /// What comes after a poll that showed the batch written as `fingerprint` says, if that is nothing new.
    pub(super) fn after_unchanged(&self, pk: Pk, fingerprint: u64, now: Timestamp) -> Option<Next> {
        let busy = self.busy.get(&pk).filter(|busy| matches!(busy.told, Told::Nothing))?;
        let mark = busy.mark.filter(|mark| mark.fingerprint == fingerprint && now < mark.until)?;
        let at = later(now, Duration::from_millis(busy.interval.into()));
        Some(Next { mark: Some(mark), ..Next::at(at, busy.created_at) })
    }

    fn queue(&mut self, queue: Queue) -> &mut BTreeSet<(i64, Pk)> {
        if queue == Queue::Apart { &mut self.apart } else { &mut self.together }
    }

    /// What was due in an hour still is if the clock was set back since this was last used.
    pub(super) fn follow_clock(&mut self, now: Timestamp) {
        let by = self.seen_at.map_or(Duration::ZERO, |seen_at| since(now, seen_at));
        self.seen_at = Some(now);
        if !by.is_zero() {
            self.advance(by);
        }
    }

    fn advance(&mut self, by: Duration) {
        for busy in self.busy.values_mut() {
            busy.set_back = busy.set_back.saturating_add(by);
        }
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.together.clear();
        self.apart.clear();
        // What the rules say of a batch depends on the clock.
        self.by_fingerprint.clear();
        for (pk, entry) in &mut self.by_batch {
            entry.at = entry.at.saturating_sub(by);
            entry.same_until = UNKNOWN;
            match entry.queue {
                Queue::Together => self.together.insert((entry.at, *pk)),
                Queue::Apart => self.apart.insert((entry.at, *pk)),
                Queue::Expected => false,
            };
        }
    }

    /// What is due first. `apart`: only of those that no page is to show.
    pub(super) fn first(&self, apart: bool) -> Option<(Timestamp, Pk)> {
        let together = self.together.first().filter(|_| !apart);
        let first = [self.apart.first(), together].into_iter().flatten().min()?;
        Some((from_millis(first.0), first.1))
    }

    /// Whether more than `count` that a page may show are due at `now`, or soon enough to be checked with them if their
    /// interval is the shortest.
    pub(super) fn is_crowded(&self, count: usize, shortest: Duration, now: Timestamp) -> bool {
        let until = later(now, shortest.mul_f64(EARLY)).as_millisecond();
        self.together.range(..=(until, Pk::MAX)).nth(count).is_some()
    }

    /// Those that a page may show and that are due at `now`, or soon enough to be checked with them; none if none is
    /// due. `max_interval`: no interval is longer.
    pub(super) fn wanted(&self, max_interval: Duration, now: Timestamp) -> Vec<Wanted> {
        let now = now.as_millisecond();
        if self.together.first().is_none_or(|(at, _)| *at > now) {
            return Vec::new();
        }
        let reach = i64::try_from(max_interval.mul_f64(EARLY).as_millis()).unwrap_or(i64::MAX);
        self.together
            .range(..=(now.saturating_add(reach), Pk::MAX))
            .filter_map(|(at, pk)| {
                let entry = self.by_batch.get(pk)?;
                #[expect(clippy::cast_precision_loss, reason = "an instant of this millennium fits")]
                let early = (*at - now) as f64 <= f64::from(entry.interval) * EARLY;
                early.then_some(Wanted { pk: *pk, created_at: entry.created_at() })
            })
            .collect()
    }

    /// The creation times of everything on the schedule, newest first.
    pub(super) fn created(&self) -> Vec<i64> {
        let mut created: Vec<i64> = self.by_batch.values().filter_map(Entry::created_at).collect();
        created.sort_unstable_by(|a, b| b.cmp(a));
        created
    }

    /// What the list has not shown so far is given another chance, each after its next poll.
    pub(super) fn forget_what_was_unlisted(&mut self) {
        self.span = self.span.checked_add(1).unwrap_or(1);
    }

    /// A round begins, and is under way until it ends or nobody holds its claim; `None`: one is.
    pub(super) fn begin_round(&mut self) -> Option<Claim> {
        if self.round.is_some() {
            return None;
        }
        let claim = Claim::default();
        self.round = Some(Round { claim: Arc::downgrade(&claim), ..Round::default() });
        Some(claim)
    }

    pub(super) fn is_in_round(&self) -> bool {
        self.round.is_some()
    }

    /// Leaves these to the round.
    pub(super) fn expect(&mut self, wanted: &[Wanted]) {
        let Some(round) = &mut self.round else { return };
        for Wanted { pk, .. } in wanted {
            if let Some(entry) = self.by_batch.get_mut(pk)
                && entry.queue == Queue::Together
            {
                self.together.remove(&(entry.at, *pk));
                entry.queue = Queue::Expected;
                round.expected.insert(*pk);
                round.unseen += usize::from(entry.created_at().is_none());
            }
        }
    }

    /// How many batches that nobody has ever seen are left to the round.
    pub(super) fn unseen(&self) -> usize {
        self.round.as_ref().map_or(0, |round| round.unseen)
    }

    /// What is left to the round and has not been seen.
    pub(super) fn expected(&self) -> Vec<Wanted> {
        let expected = self.round.iter().flat_map(|round| &round.expected);
        expected
            .filter_map(|pk| {
                self.by_batch.get(pk).map(|entry| Wanted { pk: *pk, created_at: entry.created_at() })
            })
            .collect()
    }

    /// Not left to the round any more. `unlisted`: it should have been shown and was not, so it is retrieved.
    pub(super) fn release(&mut self, pk: Pk, unlisted: bool) {
        let Some(round) = &mut self.round else { return };
        if round.expected.remove(&pk)
            && let Some(entry) = self.by_batch.get_mut(&pk)
        {
            entry.queue = if unlisted { Queue::Apart } else { Queue::Together };
            entry.unlisted = if unlisted { self.span } else { 0 };
            round.unseen -= usize::from(entry.created_at().is_none());
            let (at, queue) = (entry.at, entry.queue);
            self.queue(queue).insert((at, pk));
        }
    }

    /// A page is asked for: polls of single batches from now on know better than it does.
    pub(super) fn watch(&mut self) {
        if let Some(round) = &mut self.round {
            round.overtaken = self.busy.keys().copied().collect();
        }
    }

    /// Under way from now on because a page shows it; gives when it was due. `None`: it is not on the schedule, or a
    /// poll that knows better than the page is under way, or was.
    pub(super) fn claim_shown(&mut self, pk: Pk) -> Option<Timestamp> {
        let entry = *self.by_batch.get(&pk)?;
        let round = self.round.as_ref().filter(|round| !round.overtaken.contains(&pk))?;
        let claim = round.claim.clone();
        if !self.occupy(pk, claim) {
            return None;
        }
        if let Some(round) = &mut self.round {
            round.claimed.insert(pk);
        }
        Some(from_millis(entry.at))
    }

    /// The round is over: what it has left is on the schedule again, and what it had claimed is due at `again`.
    pub(super) fn end_round(&mut self, again: Timestamp, now: Timestamp) {
        let Some(round) = &mut self.round else { return };
        let (expected, claimed) = (round.expected.clone(), std::mem::take(&mut round.claimed));
        for pk in expected {
            self.release(pk, false);
        }
        for pk in claimed {
            self.settle(pk, Some(Next::at(again, None)), false, now);
        }
        self.round = None;
    }

    /// Batches on the schedule, and how many of them are being polled.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.by_batch.len() + self.busy.len(), self.busy.len())
    }

    /// How many are due at `now`, and how late the latest is.
    pub(super) fn overdue(&self, now: Timestamp) -> (usize, Duration) {
        let until = (now.as_millisecond(), Pk::MAX);
        let waiting = self.together.range(..=until).count() + self.apart.range(..=until).count();
        let expected = self.round.iter().flat_map(|round| &round.expected);
        let expected: Vec<i64> = expected.filter_map(|pk| Some(self.by_batch.get(pk)?.at)).collect();
        let due = expected.iter().filter(|at| **at <= until.0).count();
        let first = self.first(false).map(|(at, _)| at.as_millisecond());
        let earliest = expected.into_iter().chain(first).min();
        (waiting + due, earliest.map_or(Duration::ZERO, |at| since(from_millis(at), now)))
    }
}

#[cfg(test)]
mod tests;
