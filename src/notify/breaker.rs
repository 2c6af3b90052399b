//! How hard a webhook that keeps failing may be tried, and how fast it catches up once it accepts again.

use std::time::Duration;
use tokio::time::Instant;

/// Failures in a row after which only one probe at a time is sent (`docs/contract.md#deliveries`).
pub const OPENS_AFTER: u32 = 5;

/// Probes are at most this far apart, so that a receiver that is back is noticed.
const SLOWEST_PROBE: Duration = Duration::from_mins(10);

/// After so many seconds of doubling there is nothing left to hold back.
const RAMP_SECONDS: u64 = 10;

/// Lets attempts through: all of them, one probe at a time, or ever more each second.
#[derive(Clone, Debug)]
pub struct Breaker(Phase);

#[derive(Clone, Debug)]
enum Phase {
    Closed,
    Open { probes: usize, next: Instant },
    Ramp { since: Instant, started: u64 },
}

/// How many attempts may be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// So many, now.
    Now(usize),
    /// None before this has passed.
    After(Duration),
    /// None before the probe under way has ended.
    AfterProbe,
}

impl Breaker {
    /// As a process finds it: a webhook that was failing when the last one ended is probed at once.
    pub fn new(failures: u32, now: Instant) -> Self {
        Self(if failures >= OPENS_AFTER { Phase::Open { probes: 0, next: now } } else { Phase::Closed })
    }

    pub const fn is_open(&self) -> bool {
        matches!(self.0, Phase::Open { .. })
    }

    /// How many attempts may be started at `now`.
    pub fn leave(&self, in_flight: usize, now: Instant) -> Leave {
        match &self.0 {
            Phase::Closed => Leave::Now(usize::MAX),
            Phase::Open { .. } if in_flight > 0 => Leave::AfterProbe,
            Phase::Open { next, .. } if *next > now => Leave::After(next.saturating_duration_since(now)),
            Phase::Open { .. } => Leave::Now(1),
            Phase::Ramp { since, started } => {
                let passed = now.saturating_duration_since(*since);
                let allowed = allowance(passed);
                if allowed > *started {
                    Leave::Now(usize::try_from(allowed - started).unwrap_or(usize::MAX))
                } else {
                    Leave::After(allowed_at(*started).saturating_sub(passed).max(Duration::from_millis(1)))
                }
            }
        }
    }

    /// Notes that attempts were started.
    pub fn started(&mut self, count: usize, now: Instant) {
        if let Phase::Ramp { since, started } = &mut self.0 {
            *started = started.saturating_add(count as u64);
            if now.saturating_duration_since(*since) >= Duration::from_secs(RAMP_SECONDS) {
                self.0 = Phase::Closed;
            }
        }
    }

    /// Lets the next probe go at once: somebody who should know has asked for it.
    pub fn probe_now(&mut self, now: Instant) {
        if let Phase::Open { next, .. } = &mut self.0 {
            *next = now;
        }
    }

    /// Notes that the receiver accepted something.
    pub fn succeeded(&mut self, now: Instant) {
        if self.is_open() {
            self.0 = Phase::Ramp { since: now, started: 0 };
        }
    }

    /// Notes a failure, the `failures`-th in a row; `delays` set the pace of the probes, ±20 % by `jitter`.
    pub fn failed(&mut self, failures: u32, delays: &[Duration], jitter: f64, now: Instant) {
        let probes = match self.0 {
            Phase::Open { probes, .. } => probes + 1,
            _ if failures >= OPENS_AFTER => 0,
            _ => return,
        };
        let delay = delays.get(probes).or(delays.last()).copied().unwrap_or(SLOWEST_PROBE).min(SLOWEST_PROBE);
        let delay = delay.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0));
        self.0 = Phase::Open { probes, next: now + delay };
    }
}

/// Attempts that may have been started so long after the first success: one at once, then 1, 2, 4, … a second.
fn allowance(passed: Duration) -> u64 {
    let seconds = passed.as_secs();
    if seconds >= RAMP_SECONDS {
        return u64::MAX;
    }
    let rate = 1_u64 << seconds;
    rate + rate * u64::from(passed.subsec_millis()) / 1000
}

/// When [`allowance`] exceeds `started`.
fn allowed_at(started: u64) -> Duration {
    if started == 0 {
        return Duration::ZERO;
    }
    // One more than was started: after `seconds` doublings and a part of the next.
    let wanted = started.saturating_add(1);
    let seconds = u64::from(wanted.ilog2());
    let rate = 1_u64 << seconds;
    Duration::from_secs(seconds) + Duration::from_millis(((wanted - rate) * 1000).div_ceil(rate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::retry::DELAYS;
    use proptest::prelude::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn five_failures_open_it_and_then_one_probe_goes_at_a_time() {
        let start = Instant::now();
        let mut breaker = Breaker::new(0, start);
        for failures in 1..OPENS_AFTER {
            breaker.failed(failures, &DELAYS, 0.5, start);
            assert_eq!(breaker.leave(3, start), Leave::Now(usize::MAX));
        }
        breaker.failed(5, &DELAYS, 0.5, start);
        assert!(breaker.is_open());
        assert_eq!(breaker.leave(0, start), Leave::After(seconds(5)));
        assert_eq!(breaker.leave(0, start + seconds(5)), Leave::Now(1));
        assert_eq!(breaker.leave(1, start + seconds(5)), Leave::AfterProbe);
        breaker.probe_now(start);
        assert_eq!(breaker.leave(0, start), Leave::Now(1), "a person asked");
    }

    #[test]
    fn probes_keep_the_schedules_pace_and_never_sleep_for_hours() {
        let start = Instant::now();
        let mut breaker = Breaker::new(4, start);
        let mut waits = Vec::new();
        for failures in 5..13 {
            breaker.failed(failures, &DELAYS, 0.5, start);
            let Leave::After(wait) = breaker.leave(0, start) else { panic!() };
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [5, 30, 120, 600, 600, 600, 600, 600]);
        // Even without any delay to go by.
        let mut breaker = Breaker::new(4, start);
        breaker.failed(5, &[], 0.5, start);
        assert_eq!(breaker.leave(0, start), Leave::After(seconds(600)));
    }

    #[test]
    fn c17_what_piled_up_goes_out_at_a_rate_that_doubles_each_second() {
        let start = Instant::now();
        let mut breaker = Breaker::new(9, start);
        assert_eq!(breaker.leave(0, start), Leave::Now(1), "a restart probes at once");
        breaker.succeeded(start);
        assert!(!breaker.is_open());
        let mut each_second = [0; 12];
        for step in 0..12_000_u64 {
            let now = start + Duration::from_millis(step);
            if let Leave::Now(count) = breaker.leave(0, now) {
                let count = count.min(2000);
                breaker.started(count, now);
                each_second[usize::try_from(step / 1000).unwrap()] += count;
            }
        }
        assert_eq!(each_second[..6], [1, 2, 4, 8, 16, 32]);
        assert!(each_second[11] > 1_000_000, "then there is no limit");
    }

    #[test]
    fn failures_while_it_catches_up_open_it_again() {
        let start = Instant::now();
        let mut breaker = Breaker::new(5, start);
        breaker.succeeded(start);
        breaker.failed(1, &DELAYS, 0.5, start);
        assert!(!breaker.is_open());
        breaker.failed(5, &DELAYS, 0.5, start);
        assert!(breaker.is_open());
    }

    proptest! {
        #[test]
        fn the_wait_it_names_is_enough_and_not_too_much(started in 0_u64..1000) {
            let at = allowed_at(started);
            prop_assert!(allowance(at) > started);
            let before = at.checked_sub(Duration::from_millis(1));
            prop_assert!(before.is_none_or(|before| allowance(before) <= started));
        }
    }
}
