//! Leave to send: how many requests at once, how many a minute, and what the server itself asks for.
//!
//! What batchd does by itself and what people ask for share both, by turns where both wait: neither can starve the other.

use crate::clock::Clock;
use crate::config::Polling;
use crate::domain::pace::{Pace, Window};
use crate::domain::time::{earlier, later, since};
use crate::http::allowance::allowance;
use crate::http::call::Answer;
use crate::http::failure::MAX_WAIT;
use crate::sync::lock;
use jiff::Timestamp;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long an account is left alone that says "too many requests" without saying how long.
const HOLD: Duration = Duration::from_mins(1);
/// No sleep is longer, so that a suspended machine and a clock that jumps are noticed.
pub(super) const MAX_SLEEP: Duration = Duration::from_secs(15);

/// What the server has asked for. The pollers of an account that follow each other at reloads share it.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    held_until: Option<Timestamp>,
    window: Option<Window>,
    /// The newest time that was known when this was last asked for.
    seen_at: Option<Timestamp>,
}

/// One account's leave to send. Every request takes it first.
#[derive(Debug)]
pub(super) struct Budget {
    slots: Arc<Semaphore>,
    /// Of the slots, those that the schedule may have at once, and those that people may have.
    scheduled: Arc<Semaphore>,
    by_hand: Arc<Semaphore>,
    concurrency: u32,
    /// Told whenever a slot comes free.
    freed: Arc<Notify>,
    turns: Mutex<Turns>,
    pace: Mutex<Option<Pace>>,
    wishes: Arc<Mutex<Wishes>>,
}

/// Whose turn it is where both sides wait for the pace.
#[derive(Debug, Default)]
struct Turns {
    /// How many who ask by hand wait.
    waiting: u32,
    /// How many of them have a slot and wait for the pace alone.
    ready: u32,
    /// Whether the last leave went to somebody who asked by hand.
    hand_was_last: bool,
    /// Until when the schedule can be expected to ask again, if it has been told to wait.
    schedule_waits_until: Option<Timestamp>,
}

/// Leave for one request, which is in flight for as long as it is held.
#[derive(Debug)]
pub(super) struct Leave {
    held: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    freed: Arc<Notify>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.held = None;
        self.freed.notify_one();
    }
}

/// Somebody who waits; counted until dropped.
struct Waiting<'a> {
    turns: &'a Mutex<Turns>,
    ready: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut turns = lock(self.turns);
        turns.waiting -= 1;
        turns.ready -= u32::from(self.ready);
    }
}

/// How long a request that was asked for by hand waits for its turn.
pub(super) const HAND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one waits that cannot be asked for again for nothing: what was paid for before it would be lost.
pub(super) const PAID_TIMEOUT: Duration = Duration::from_hours(1);
/// How long after its time the schedule is still expected.
const EXPECTED: Duration = Duration::from_millis(500);

/// Why there is no leave just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Every slot is taken; one that comes free is worth asking again.
    Slot,
    /// Not before so long.
    For(Duration),
}

impl Wishes {
    /// Of a server that wanted to be left alone before this process began; never for longer than one may ask for now.
    pub(super) fn remembered(held_until: Option<Timestamp>, now: Timestamp) -> Self {
        Self {
            held_until: held_until.map(|until| until.min(later(now, MAX_WAIT))),
            window: None,
            seen_at: Some(now),
        }
    }

    /// What was to happen in an hour still happens in an hour if the clock was set back.
    fn follow_clock(&mut self, now: Timestamp) {
        if let Some(seen_at) = self.seen_at {
            let by = since(now, seen_at);
            self.held_until = self.held_until.map(|until| earlier(until, by));
        }
        self.seen_at = Some(now);
    }
}

impl Budget {
    pub(super) fn new(
        polling: &Polling,
        wishes: Arc<Mutex<Wishes>>,
        freed: Arc<Notify>,
        now: Timestamp,
    ) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(polling.concurrency as usize)),
            scheduled: Arc::new(Semaphore::new(share(polling.concurrency))),
            by_hand: Arc::new(Semaphore::new(share(polling.concurrency))),
            concurrency: polling.concurrency,
            freed,
            turns: Mutex::default(),
            pace: Mutex::new(polling.requests_per_minute.map(|per_minute| Pace::new(per_minute, now))),
            wishes,
        }
    }

    /// Takes leave for one request of the schedule at `now`.
    pub(super) fn take(&self, now: Timestamp) -> Result<Leave, Wait> {
        if let Some(until) = self.held_until(now) {
            return Err(Wait::For(since(now, until)));
        }
        let share = self.scheduled.clone().try_acquire_owned().map_err(|_| Wait::Slot)?;
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| Wait::Slot)?;
        let held = Some((share, slot));
        self.begin_scheduled(now).map(|()| Leave { held, freed: self.freed.clone() })
    }

    /// The same, once there is leave: behind those who asked before.
    pub(super) async fn wait(&self, clock: &Clock) -> Leave {
        let held = Some((acquire(&self.scheduled).await, acquire(&self.slots).await));
        let leave = Leave { held, freed: self.freed.clone() };
        loop {
            let now = clock.now();
            let wait = match self.held_until(now) {
                Some(until) => since(now, until),
                None => match self.begin_scheduled(now) {
                    Ok(()) => return leave,
                    Err(Wait::For(wait)) => wait,
                    Err(Wait::Slot) => MAX_SLEEP,
                },
            };
            tokio::time::sleep(wait.min(MAX_SLEEP)).await;
        }
    }

    /// Leave for one request that was asked for by hand, even while the server wants to be left alone. It waits for
    /// `timeout` at most.
    ///
    /// # Errors
    ///
    /// How long to wait before asking again, if the turn would not come in time.
    pub(super) async fn by_hand(&self, clock: &Clock, timeout: Duration) -> Result<Leave, Duration> {
        let begun = Instant::now();
        let ahead = {
            let mut turns = lock(&self.turns);
            turns.waiting += 1;
            turns.waiting
        };
        let mut waiting = Waiting { turns: &self.turns, ready: false };
        if let Some(interval) = lock(&self.pace).as_ref().map(Pace::interval)
            && interval * ahead.saturating_sub(1) > timeout
        {
            return Err((interval * (ahead - 1)).saturating_sub(timeout));
        }
        let acquired = async { (acquire(&self.by_hand).await, acquire(&self.slots).await) };
        let Ok(held) = tokio::time::timeout(timeout, acquired).await else { return Err(RETRY) };
        let leave = Leave { held: Some(held), freed: self.freed.clone() };
        lock(&self.turns).ready += 1;
        waiting.ready = true;
        loop {
            let wait = match self.begin_by_hand(clock.now()) {
                Ok(()) => return Ok(leave),
                Err(wait) => wait,
            };
            let left = timeout.saturating_sub(begun.elapsed());
            if wait > left {
                return Err(wait.saturating_sub(left));
            }
            tokio::time::sleep(wait.min(MAX_SLEEP)).await;
        }
    }

    /// Whether everybody shares one slot.
    pub(super) fn has_one_slot(&self) -> bool {
        self.concurrency < 2
    }

    /// Until when the server wants to be left alone, if it does.
    pub(super) fn held_until(&self, now: Timestamp) -> Option<Timestamp> {
        let mut wishes = lock(&self.wishes);
        wishes.follow_clock(now);
        wishes.held_until.filter(|until| *until > now)
    }

    /// The server asked to be left alone.
    pub(super) fn hold(&self, wait: Option<Duration>, now: Timestamp) -> Timestamp {
        let until = later(now, wait.unwrap_or(HOLD));
        let mut wishes = lock(&self.wishes);
        wishes.follow_clock(now);
        let until = wishes.held_until.map_or(until, |before| before.max(until));
        wishes.held_until = Some(until);
        until
    }

    /// As if the ceiling had just been reached: another daemon may have done so.
    pub(super) fn use_up(&self, now: Timestamp) {
        if let Some(pace) = lock(&self.pace).as_mut() {
            while pace.take(now).is_ok() {}
        }
    }

    /// Heeds what an answer says of the server's own limit.
    pub(super) fn note(&self, answer: &Answer, now: Timestamp) {
        if let Some(told) = allowance(&answer.headers) {
            // The one that was answered is counted already.
            let in_flight = self.in_flight().saturating_sub(1);
            lock(&self.wishes).window = Some(Window::told(&told, in_flight, now));
        }
    }

    fn in_flight(&self) -> u32 {
        let free = u32::try_from(self.slots.available_permits()).unwrap_or(u32::MAX);
        self.concurrency.saturating_sub(free)
    }

    /// A request of the schedule begins, unless somebody waits whose turn it is.
    fn begin_scheduled(&self, now: Timestamp) -> Result<(), Wait> {
        let mut turns = lock(&self.turns);
        let turn_of_others = (turns.ready > 0 && !turns.hand_was_last).then(|| self.interval()).flatten();
        match turn_of_others.map_or_else(|| self.begin(now, true), Err) {
            Ok(()) => {
                turns.hand_was_last = false;
                turns.schedule_waits_until = None;
                Ok(())
            }
            Err(wait) => {
                turns.schedule_waits_until = Some(later(now, wait));
                Err(Wait::For(wait))
            }
        }
    }

    /// A request that was asked for by hand begins, unless it is the schedule's turn.
    fn begin_by_hand(&self, now: Timestamp) -> Result<(), Duration> {
        let mut turns = lock(&self.turns);
        let schedule_comes = turns
            .schedule_waits_until
            .is_some_and(|until| since(until, now) < EXPECTED && since(now, until) <= MAX_SLEEP);
        if turns.hand_was_last
            && schedule_comes
            && let Some(wait) = self.interval()
        {
            return Err(wait);
        }
        self.begin(now, false)?;
        turns.hand_was_last = true;
        Ok(())
    }

    /// How long whoever lets another go first waits; `None`: nothing is rationed, so nobody has to.
    fn interval(&self) -> Option<Duration> {
        lock(&self.pace).as_ref().map(|pace| pace.interval().min(EXPECTED))
    }

    /// `heed`: what the server says of its own limit holds.
    fn begin(&self, now: Timestamp, heed: bool) -> Result<(), Duration> {
        let mut wishes = lock(&self.wishes);
        let wait = wishes.window.filter(|_| heed).map_or(Duration::ZERO, |window| window.wait(now));
        if !wait.is_zero() {
            return Err(wait);
        }
        if let Some(pace) = lock(&self.pace).as_mut() {
            pace.take(now)?;
        }
        if let Some(window) = &mut wishes.window {
            window.took(now);
        }
        Ok(())
    }
}

/// What one side may have of `concurrency`: all but a reserve for the other.
fn share(concurrency: u32) -> usize {
    let reserve = if concurrency < 2 { 0 } else { (concurrency / 4).max(1) };
    (concurrency - reserve) as usize
}

async fn acquire(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    loop {
        match semaphore.clone().acquire_owned().await {
            Ok(permit) => return permit,
            // It is never closed.
            Err(_) => tokio::time::sleep(MAX_SLEEP).await,
        }
    }
}

/// When to ask again where every slot is taken for long.
const RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn budget(concurrency: u32, per_minute: Option<u32>) -> Budget {
        let polling = Polling { concurrency, requests_per_minute: per_minute, ..Polling::default() };
        Budget::new(&polling, Arc::default(), Arc::default(), Clock::system().now())
    }

    #[tokio::test]
    async fn a_hold_lasts_no_longer_for_a_clock_that_is_set_back() {
        let budget = budget(4, None);
        let now = Timestamp::constant(1_795_000_000, 0);
        let ahead = later(now, Duration::from_hours(365 * 24));
        budget.hold(Some(Duration::from_mins(2)), ahead);
        assert_eq!(budget.held_until(now), Some(later(now, Duration::from_mins(2))));
        budget.hold(Some(Duration::from_mins(3)), ahead);
        assert_eq!(budget.hold(None, now), later(now, Duration::from_mins(3)));
    }

    #[tokio::test]
    async fn who_takes_over_begins_as_if_the_ceiling_had_been_reached() {
        let now = Timestamp::constant(1_795_000_000, 0);
        let polling = Polling { concurrency: 100, requests_per_minute: Some(60), ..Polling::default() };
        // Ten daemons in a minute, each of which asks as often as it may from the moment at which it has the account.
        let asked: usize = (0..10)
            .map(|turn| {
                let at = later(now, Duration::from_secs(turn * 6));
                let budget = Budget::new(&polling, Arc::default(), Arc::default(), at);
                budget.use_up(at);
                let seconds = (0..6).map(|second| later(at, Duration::from_secs(second)));
                seconds.map(|at| std::iter::from_fn(|| budget.take(at).ok()).count()).sum::<usize>()
            })
            .sum();
        assert!((10..=60).contains(&asked), "{asked}");
    }

    #[tokio::test]
    async fn neither_side_takes_every_slot() {
        let (clock, budget) = (Clock::system(), budget(4, None));
        let scheduled: Vec<_> = std::iter::from_fn(|| budget.take(clock.now()).ok()).collect();
        assert_eq!(scheduled.len(), 3);
        assert!(budget.by_hand(&clock, HAND_TIMEOUT).await.is_ok(), "one is kept for people");
        drop(scheduled);
        let by_hand = [
            budget.by_hand(&clock, HAND_TIMEOUT).await,
            budget.by_hand(&clock, HAND_TIMEOUT).await,
            budget.by_hand(&clock, HAND_TIMEOUT).await,
        ];
        assert!(budget.take(clock.now()).is_ok(), "and one for the schedule");
        drop(by_hand);
    }

    #[tokio::test]
    async fn who_would_wait_too_long_is_told_at_once_and_when_to_come_back() {
        let (clock, budget) = (Clock::system(), budget(1000, Some(60)));
        let (served, refused) = (AtomicU32::new(0), AtomicU32::new(0));
        let asking = futures_util::future::join_all((0..1000).map(|_| async {
            match budget.by_hand(&clock, HAND_TIMEOUT).await {
                Ok(_) => served.fetch_add(1, Ordering::Relaxed),
                Err(wait) => {
                    assert!(wait > Duration::ZERO);
                    refused.fetch_add(1, Ordering::Relaxed)
                }
            };
        }));
        let _ = tokio::time::timeout(Duration::from_millis(200), asking).await;
        assert_eq!(served.load(Ordering::Relaxed), 1, "the ceiling holds");
        assert!(refused.load(Ordering::Relaxed) >= 960, "{refused:?} were told");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_paid_for_waits_for_its_turn_where_others_are_refused() {
        let clock = Clock::simulated(Timestamp::constant(1_795_000_000, 0));
        let polling = Polling { concurrency: 2, requests_per_minute: Some(1), ..Polling::default() };
        let budget = Budget::new(&polling, Arc::default(), Arc::default(), clock.now());
        drop(budget.by_hand(&clock, HAND_TIMEOUT).await.unwrap());
        assert!(budget.by_hand(&clock, HAND_TIMEOUT).await.is_err());
        let begun = Instant::now();
        assert!(budget.by_hand(&clock, PAID_TIMEOUT).await.is_ok());
        assert!(begun.elapsed() > HAND_TIMEOUT, "the ceiling holds");
    }

    #[tokio::test]
    async fn where_both_wait_they_take_turns() {
        let (clock, budget) = (Clock::system(), budget(16, Some(1200)));
        let (by_hand, scheduled) = (AtomicU32::new(0), AtomicU32::new(0));
        let hand = async {
            loop {
                budget.by_hand(&clock, HAND_TIMEOUT).await.unwrap();
                by_hand.fetch_add(1, Ordering::Relaxed);
            }
        };
        let schedule = async {
            loop {
                drop(budget.wait(&clock).await);
                scheduled.fetch_add(1, Ordering::Relaxed);
            }
        };
        let both = async { tokio::join!(hand, schedule) };
        assert!(tokio::time::timeout(Duration::from_secs(3), both).await.is_err());
        let (by_hand, scheduled) = (by_hand.into_inner(), scheduled.into_inner());
        assert!(by_hand >= 8 && scheduled >= 8, "{by_hand} by hand, {scheduled} by the schedule");
        assert!(by_hand + scheduled <= 90, "{by_hand} by hand, {scheduled} by the schedule");
    }
}
