//! When a webhook may be sent to, and how much at once: its breaker, its wish to be left alone, its rate, how many
//! requests it bears, and the time in which messages are gathered.

use super::breaker::{Breaker, Leave};
use crate::domain::pace::{Pace, Rate};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// A chat webhook gets the first event at once; what follows within this becomes one message (`docs/contract.md#deliveries`).
pub const GATHER: Duration = Duration::from_secs(10);

/// How many answers in a row must be well before a receiver that was overrun gets as much at once as before
/// (`docs/delivery.md#http-answers`, B8).
const WELL: u32 = 10;

/// Everything that holds a webhook's messages back.
pub(super) struct Pacing {
    breaker: Breaker,
    /// Until when its receiver wants to be left alone, by [`crate::clock::Clock::steady`].
    paused: Option<Duration>,
    pace: Option<(Rate, Pace)>,
    gathering: Option<Instant>,
    /// Requests at once, after the receiver said that they were too many; and good answers since.
    fewer: Option<(usize, u32)>,
}

/// What a message is held back for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Requests under way.
    pub(super) in_flight: usize,
    /// How many there may be of this kind.
    pub(super) most: usize,
    /// By the steady clock.
    pub(super) steady: Duration,
    /// By the timer.
    pub(super) instant: Instant,
}

impl Pacing {
    /// As a process finds it: after so many failures in a row, and with so much of a pause left.
    pub(super) fn new(failures: u32, pause: Option<Duration>, steady: Duration) -> Self {
        Self {
            breaker: Breaker::new(failures, Instant::now()),
            paused: pause.map(|pause| steady + pause),
            pace: None,
            gathering: None,
            fewer: None,
        }
    }

    /// Whether only probes are let through.
    pub(super) const fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// How many messages may be started.
    pub(super) fn leave(&self, load: Load) -> Leave {
        let Load { in_flight, most, steady, instant } = load;
        if let Some(until) = self.paused.filter(|until| *until > steady) {
            return Leave::After(until.saturating_sub(steady));
        }
        if let Some(until) = self.gathering.filter(|until| *until > instant) {
            return Leave::After(until - instant);
        }
        let most = self.fewer.map_or(most, |(fewer, _)| fewer.min(most));
        match most.saturating_sub(in_flight) {
            0 => Leave::AfterProbe,
            free => match self.breaker.leave(in_flight, instant) {
                Leave::Now(count) => Leave::Now(free.min(count)),
                other => other,
            },
        }
    }

    /// Holds to `rate` from now on.
    pub(super) fn keep_to(&mut self, rate: Option<Rate>, now: Timestamp) {
        if self.pace.as_ref().map(|(rate, _)| *rate) != rate {
            self.pace = rate.map(|rate| (rate, Pace::even(rate, now)));
        }
    }

    /// Takes leave for one message by the rate, or says how long to wait.
    pub(super) fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        self.pace.as_mut().map_or(Ok(()), |(_, pace)| pace.take(now))
    }

    /// Notes that messages were started.
    pub(super) fn started(&mut self, count: usize, instant: Instant) {
        self.breaker.started(count, instant);
    }

    /// Lets the next probe go at once: somebody who should know has asked for it.
    pub(super) fn probe_now(&mut self, instant: Instant) {
        self.breaker.probe_now(instant);
        self.gathering = None;
    }

    /// Notes that a message was accepted; `gathers`: what follows it is gathered for a while.
    pub(super) fn accepted(&mut self, gathers: bool, instant: Instant) {
        self.breaker.succeeded(instant);
        self.gathering = gathers.then(|| instant + GATHER);
        self.fewer = self.fewer.and_then(|(fewer, well)| (well + 1 < WELL).then_some((fewer, well + 1)));
    }

    /// Notes a failure, the `failures`-th in a row; `delays` and `jitter` set the pace of the probes.
    pub(super) fn failed(&mut self, failures: u32, delays: &[Duration], jitter: f64, instant: Instant) {
        self.breaker.failed(failures, delays, jitter, instant);
    }

    /// Notes that the receiver was overrun by `most` requests at once, or fewer if it was so before.
    pub(super) fn overrun(&mut self, most: usize) {
        let most = self.fewer.map_or(most, |(fewer, _)| fewer);
        self.fewer = Some(((most / 2).max(1), 0));
    }

    /// Leaves the receiver alone for so long.
    pub(super) fn pause(&mut self, pause: Option<Duration>, steady: Duration) {
        self.paused = pause.map(|pause| steady + pause);
    }

    /// Forgets failures and pauses.
    pub(super) fn reset(&mut self) {
        self.breaker = Breaker::new(0, Instant::now());
        self.paused = None;
        self.gathering = None;
        self.fewer = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(in_flight: usize, instant: Instant) -> Load {
        Load { in_flight, most: 4, steady: Duration::from_secs(100), instant }
    }

    #[test]
    fn b8_a_receiver_that_is_overrun_gets_half_at_once_until_ten_answers_are_well() {
        let start = Instant::now();
        let mut pacing = Pacing::new(0, None, Duration::ZERO);
        assert_eq!(pacing.leave(load(0, start)), Leave::Now(4));
        assert_eq!(pacing.leave(load(3, start)), Leave::Now(1));
        for expected in [2, 1, 1] {
            pacing.overrun(4);
            assert_eq!(pacing.leave(load(0, start)), Leave::Now(expected));
        }
        for _ in 0..9 {
            pacing.accepted(false, start);
        }
        assert_eq!(pacing.leave(load(0, start)), Leave::Now(1));
        assert_eq!(pacing.leave(load(1, start)), Leave::AfterProbe);
        pacing.accepted(false, start);
        assert_eq!(pacing.leave(load(0, start)), Leave::Now(4));
    }

    #[test]
    fn what_follows_an_accepted_message_is_gathered() {
        let start = Instant::now();
        let mut pacing = Pacing::new(0, None, Duration::ZERO);
        pacing.accepted(true, start);
        assert_eq!(
            pacing.leave(load(0, start + Duration::from_secs(3))),
            Leave::After(Duration::from_secs(7))
        );
        assert_eq!(pacing.leave(load(0, start + GATHER)), Leave::Now(4));
        pacing.probe_now(start);
        assert_eq!(pacing.leave(load(0, start)), Leave::Now(4), "somebody waits for it");
    }

    #[test]
    fn a_pause_is_measured_by_a_clock_that_nobody_sets() {
        let start = Instant::now();
        let mut pacing = Pacing::new(0, Some(Duration::from_secs(7)), Duration::from_secs(95));
        assert_eq!(pacing.leave(load(0, start)), Leave::After(Duration::from_secs(2)));
        pacing.pause(Some(Duration::from_mins(1)), Duration::from_secs(100));
        assert_eq!(pacing.leave(load(0, start)), Leave::After(Duration::from_mins(1)));
        pacing.reset();
        assert_eq!(pacing.leave(load(0, start)), Leave::Now(4));
    }

    #[test]
    fn a_rate_that_has_not_changed_goes_on() {
        let now = Timestamp::constant(1_795_000_000, 0);
        let rate = Rate::parse("1/m");
        let mut pacing = Pacing::new(0, None, Duration::ZERO);
        pacing.keep_to(rate, now);
        assert_eq!(pacing.take(now), Ok(()));
        pacing.keep_to(rate, now);
        assert_eq!(pacing.take(now), Err(Duration::from_mins(1)));
        pacing.keep_to(None, now);
        assert_eq!(pacing.take(now), Ok(()));
    }
}
