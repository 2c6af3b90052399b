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
        Self { at, created_at, closely: false }
    }
}

impl From<NextCheck> for Next {
    fn from(NextCheck { at, created_at, closely }: NextCheck) -> Self {
        Self { at, created_at, closely }
    }
}

impl Default for DueList {
    fn default() -> Self {
        let (together, apart, by_batch, busy) = Default::default();
        Self {
            together,
            apart,
            by_batch,
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
            let next = Next { at, created_at: entry.created_at(), closely: true };
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
        self.by_batch.insert(pk, Entry { at, created_at, interval, queue, unlisted });
        self.queue(queue).insert((at, pk));
    }

    fn take(&mut self, pk: Pk) -> Option<Entry> {
        let entry = self.by_batch.remove(&pk)?;
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
        Some(entry)
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
        for (pk, entry) in &mut self.by_batch {
            entry.at = entry.at.saturating_sub(by);
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn at(seconds: u64) -> Timestamp {
        later(NOW, Duration::from_secs(seconds))
    }

    fn next(seconds: u64) -> Next {
        Next::at(at(seconds), Some(1))
    }

    fn wanted(due: &DueList, seconds: u64) -> Vec<Pk> {
        due.wanted(Duration::from_mins(15), at(seconds)).into_iter().map(|wanted| wanted.pk).collect()
    }

    #[test]
    fn what_is_taken_off_during_its_poll_stays_off_unless_it_is_put_on_again() {
        let mut due = DueList::default();
        due.put(1, next(10), NOW);
        let claim = due.claim(1);
        assert!(claim.is_some() && due.claim(1).is_none());
        due.forget(1);
        due.settle(1, Some(next(20)), false, NOW);
        assert_eq!(due.first(false), None);

        assert!(due.claim(1).is_some());
        due.forget(1);
        due.told(1, Some(next(12)), NOW);
        due.settle(1, None, false, NOW);
        let why = "untracked and tracked again while a poll was under way";
        assert_eq!(due.first(false), Some((at(12), 1)), "{why}");
    }

    #[test]
    fn what_is_said_during_a_poll_is_not_lost() {
        let mut due = DueList::default();
        due.put(1, next(10), NOW);
        // The poll's own commit says the same as the poll.
        assert!(due.claim(1).is_some());
        due.told(1, Some(next(20)), NOW);
        due.settle(1, Some(next(20)), false, NOW);
        assert_eq!(due.first(false), Some((at(20), 1)));
        // Made due meanwhile: the poll that is under way may have come too early for that.
        assert!(due.claim(1).is_some());
        due.told(1, Some(next(5)), at(5));
        due.told(1, Some(next(900)), at(6));
        due.settle(1, Some(next(900)), false, at(6));
        assert_eq!(due.first(true), Some((at(5), 1)));
        // An end.
        assert!(due.claim(1).is_some());
        due.told(1, None, at(7));
        due.settle(1, Some(next(900)), false, at(7));
        assert!(!due.knows(1));
    }

    #[test]
    fn a_batch_keeps_its_place_in_the_list_whatever_becomes_of_a_poll() {
        let mut due = DueList::default();
        due.put(1, Next::at(at(10), Some(77)), NOW);
        assert!(due.claim(1).is_some());
        due.settle(1, Some(Next::at(at(20), None)), false, NOW);
        assert_eq!(due.created(), [77]);
        due.put(1, Next::at(at(10), None), NOW);
        assert_eq!(due.created(), [77]);
    }

    #[test]
    fn what_was_read_gives_way_to_what_was_said_since() {
        let mut due = DueList::default();
        due.told(1, None, NOW);
        due.told(2, Some(next(20)), NOW);
        assert!(!due.is_filled());
        due.fill([1, 2, 3].map(|pk| (pk, next(10))).into_iter(), NOW);
        assert!(due.is_filled());
        let known: Vec<Pk> = (1..=4).filter(|pk| due.knows(*pk)).collect();
        assert_eq!((known, due.first(false)), (vec![2, 3], Some((at(10), 3))));
    }

    #[test]
    fn what_nobody_takes_care_of_is_due_again() {
        let mut due = DueList::default();
        for pk in 1..=3 {
            due.put(pk, next(0), NOW);
        }
        let (held, lost) = (due.claim(1), due.claim(2));
        drop(lost);
        let round = due.begin_round();
        due.watch();
        assert!(due.claim_shown(3).is_some());
        assert_eq!(due.release_lost(at(30)), [2]);
        drop(round);
        due.release_lost(at(40));
        assert!(!due.is_in_round());
        assert_eq!(due.first(false), Some((at(30), 2)));
        assert!(due.waits(3) && !due.waits(1) && due.knows(1));
        drop(held);
        assert_eq!(due.release_lost(at(50)), [1]);
        assert_eq!(due.counts(), (3, 0));
    }

    #[test]
    fn news_has_what_is_on_the_schedule_retrieved_at_once_and_nothing_else() {
        let mut due = DueList::default();
        due.nudge(1, NOW);
        assert_eq!(due.first(false), None);
        due.put(1, next(10), NOW);
        due.nudge(1, at(20));
        assert_eq!(due.first(true), Some((at(10), 1)), "never put off, and not left to a page");
        // The poll that is under way may have come too early for the news …
        assert!(due.claim(1).is_some());
        due.nudge(1, at(21));
        due.settle(1, Some(next(900)), false, at(22));
        assert_eq!(due.first(true), Some((at(21), 1)));
        // … or have seen it …
        assert!(due.claim(1).is_some());
        due.nudge(1, at(23));
        due.settle(1, None, false, at(24));
        assert_eq!(due.first(false), None);
        // … and a page that was asked for before it has not.
        due.put(2, next(10), NOW);
        due.begin_round();
        due.watch();
        due.nudge(2, at(30));
        assert_eq!(due.claim_shown(2), None);
    }

    #[test]
    fn what_is_due_soon_is_checked_with_what_is_due() {
        let mut due = DueList::default();
        for (pk, seconds) in [(1, 100), (2, 115), (3, 140), (4, 900)] {
            due.put(pk, next(seconds), NOW);
        }
        due.put(5, Next { closely: true, ..next(100) }, NOW);
        assert!(wanted(&due, 99).is_empty());
        assert_eq!(wanted(&due, 100), [1, 2], "140 s is more than a fifth before its time");
        assert_eq!(wanted(&due, 112), [1, 2, 3]);
    }

    #[test]
    fn a_page_does_not_undo_what_a_poll_saw_meanwhile() {
        let mut due = DueList::default();
        for pk in 1..=4 {
            due.put(pk, next(0), NOW);
        }
        assert!(due.claim(1).is_some());
        let round = due.begin_round();
        assert!(round.is_some() && due.begin_round().is_none());
        due.expect(&due.wanted(Duration::from_mins(15), NOW));
        assert_eq!(due.first(false), None);
        due.watch();
        // One was under way when the page was asked for, another was polled and settled while it came.
        assert!(due.claim(2).is_some());
        due.settle(2, Some(next(60)), false, NOW);
        due.settle(1, Some(next(60)), false, NOW);
        due.forget(3);
        let shown: Vec<bool> = (1..=5).map(|pk| due.claim_shown(pk).is_some()).collect();
        assert_eq!(shown, [false, false, false, true, false]);
        due.settle(4, Some(next(60)), true, NOW);
        due.end_round(at(15), NOW);
        assert_eq!(due.counts(), (3, 0));
        assert_eq!(due.first(false), Some((at(60), 1)));
    }

    #[test]
    fn what_no_page_shows_is_retrieved_until_one_does() {
        let mut due = DueList::default();
        due.put(1, next(0), NOW);
        due.begin_round();
        due.expect(&due.wanted(Duration::from_mins(15), NOW));
        assert_eq!(due.expected().len(), 1);
        due.release(1, true);
        due.end_round(at(15), NOW);
        assert_eq!(due.first(true), Some((NOW, 1)));
        for _ in 0..2 {
            assert!(due.claim(1).is_some());
            due.settle(1, Some(next(10)), false, NOW);
            assert!(wanted(&due, 10).is_empty(), "it stays apart");
        }
        due.begin_round();
        due.watch();
        assert_eq!(due.claim_shown(1), Some(at(10)));
        due.settle(1, Some(next(10)), true, NOW);
        due.end_round(at(15), NOW);
        assert_eq!(wanted(&due, 10), [1]);
    }

    #[test]
    fn a_round_that_dies_leaves_nothing_behind() {
        let mut due = DueList::default();
        for pk in 1..=3 {
            due.put(pk, next(0), NOW);
        }
        due.begin_round();
        due.expect(&due.wanted(Duration::from_mins(15), NOW));
        due.watch();
        assert!(due.claim_shown(2).is_some());
        due.end_round(at(15), NOW);
        assert_eq!(due.counts(), (3, 0));
        assert_eq!(due.overdue(NOW).0, 2);
        assert!(due.begin_round().is_some());
    }

    #[test]
    fn a_clock_that_is_set_back_puts_off_neither_what_waits_nor_what_is_under_way() {
        let (mut due, year) = (DueList::default(), 365 * 24 * 3600);
        due.follow_clock(at(year));
        for pk in 1..=3 {
            due.put(pk, next(year + 60), at(year));
        }
        let claims = (due.claim(1), due.claim(2));
        due.follow_clock(NOW);
        // One was planned before, one after.
        due.settle(1, Some(next(year + 60)), false, NOW);
        due.settle(2, Some(next(60)), false, NOW);
        drop(claims);
        let all_at = |due: &DueList| due.overdue(at(60)).0;
        assert_eq!(all_at(&due), 3);
    }

    proptest! {
        /// Whatever happens in whatever order, a batch is in exactly one place.
        #[test]
        fn no_batch_is_lost_or_twice(steps in prop::collection::vec((0_u8..14, 1_i64..6, 0_u64..50), 0..200)) {
            let mut due = DueList::default();
            let mut alive = BTreeSet::new();
            for (step, pk, seconds) in steps {
                match step {
                    0 | 1 => {
                        let created_at = Some(1).filter(|_| seconds % 3 > 0);
                        due.put(pk, Next { at: at(seconds), created_at, closely: step == 1 }, NOW);
                        alive.insert(pk);
                    }
                    2 => { due.forget(pk); alive.remove(&pk); }
                    // A claim of what is on no schedule is a poll by hand.
                    3 => { due.claim(pk); }
                    4 => due.settle(pk, Some(next(seconds)).filter(|_| alive.contains(&pk)), seconds % 2 == 0, NOW),
                    5 => { due.begin_round(); }
                    6 => due.expect(&due.wanted(Duration::from_mins(15), at(seconds))),
                    7 => due.watch(),
                    8 => { due.claim_shown(pk); }
                    9 => due.release(pk, seconds % 2 == 0),
                    10 => due.end_round(at(seconds), NOW),
                    11 => { due.hurry(at(seconds)); }
                    13 => due.nudge(pk, at(seconds)),
                    _ => due.advance(Duration::from_secs(seconds)),
                }
                let expected = due.round.as_ref().map_or(0, |round| round.expected.len());
                let unseen = due.expected().iter().filter(|wanted| wanted.created_at.is_none()).count();
                prop_assert_eq!(due.unseen(), unseen);
                prop_assert_eq!(due.by_batch.len(), due.together.len() + due.apart.len() + expected);
                for pk in &alive {
                    prop_assert!(due.by_batch.contains_key(pk) != due.busy.contains_key(pk), "{} {:?}", pk, due);
                }
            }
        }
    }
}
