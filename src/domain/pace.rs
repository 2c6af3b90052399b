//! How fast an account or a webhook may be asked: a configured ceiling, and what the server itself says is left.

use super::time::{later, since};
use jiff::Timestamp;
use std::time::Duration;

/// A bucket of leave to send, filled at a steady rate.
///
/// It holds a second's worth and is filled at the ceiling less that, so no minute sees more than the ceiling.
#[derive(Clone, Debug)]
pub struct Pace {
    per_second: f64,
    capacity: f64,
    level: f64,
    at: Timestamp,
}

/// So many in every span of this length, as `rate = "60/m"` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; not zero.
    pub count: u32,
    /// A second, a minute or an hour.
    pub per: Duration,
}

impl Rate {
    /// Reads `1/s`, `60/m` or `500/h`.
    pub fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once('/')?;
        let count = count.parse().ok().filter(|count| *count > 0)?;
        let (_, seconds) = UNITS.into_iter().find(|(known, _)| *known == unit)?;
        Some(Self { count, per: Duration::from_secs(seconds) })
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.per.as_secs();
        let (unit, _) = UNITS.into_iter().find(|(_, length)| *length == seconds).unwrap_or(UNITS[0]);
        write!(f, "{}/{unit}", self.count)
    }
}

/// What a rate may be counted in, in seconds.
const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

impl Pace {
    /// One at once, and then one after the other, evenly: no span sees more than `rate` allows.
    pub fn even(rate: Rate, now: Timestamp) -> Self {
        let per_second = f64::from(rate.count.max(1)) / rate.per.as_secs_f64().max(1.0);
        Self { per_second, capacity: 1.0, level: 1.0, at: now }
    }

    /// A full bucket for at most `per_minute` requests a minute.
    pub fn new(per_minute: u32, now: Timestamp) -> Self {
        let per_minute = f64::from(per_minute.max(1));
        let capacity = (per_minute / 60.0).max(1.0);
        // A ceiling of one a minute still lets one through each minute.
        let per_second = ((per_minute - capacity) / 60.0).max(1.0 / 60.0);
        Self { per_second, capacity, level: capacity, at: now }
    }

    /// How long one request after the other has to wait once the bucket is empty.
    pub fn interval(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.per_second)
    }

    /// Takes leave for one request at `now`, or says how long to wait before asking again.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        // A clock that was set back gives nothing and takes nothing.
        let passed = since(self.at, now).as_secs_f64();
        self.at = now;
        self.level = (self.level + passed * self.per_second).min(self.capacity);
        if self.level >= 1.0 {
            self.level -= 1.0;
            Ok(())
        } else {
            let wait = ((1.0 - self.level) / self.per_second).max(0.001);
            Err(Duration::from_secs_f64(wait))
        }
    }
}

/// What a server says of its own limit on requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowance {
    /// Requests that it lets through in a window, where it tells.
    pub limit: Option<f64>,
    /// How many of them are left.
    pub remaining: f64,
    /// How long until the window begins anew.
    pub reset: Duration,
}

/// The server's own window, as its last answer told it: nothing is sent beyond what is left, and the last tenth of it
/// is spread over what remains of the window.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    limit: Option<f64>,
    left: f64,
    reset: Duration,
    until: Timestamp,
    /// When the last request of those that are spread left.
    last: Timestamp,
}

impl Window {
    /// What `allowance` means, told at `now` while `in_flight` other requests are under way: the server may not have
    /// counted them yet.
    pub fn told(allowance: &Allowance, in_flight: u32, now: Timestamp) -> Self {
        Self {
            limit: allowance.limit,
            left: (allowance.remaining - f64::from(in_flight)).max(0.0),
            reset: allowance.reset,
            until: later(now, allowance.reset),
            last: now,
        }
    }

    /// How long to wait before the next request; zero: not at all.
    pub fn wait(&self, now: Timestamp) -> Duration {
        let to_reset = since(now, self.until);
        // A clock that was set back must not make the window longer than it was.
        if to_reset.is_zero() || to_reset > self.reset {
            return Duration::ZERO;
        }
        if self.left < 1.0 {
            return to_reset;
        }
        let reserve = self.limit.map_or(LAST, |limit| limit / 10.0);
        if self.left > reserve {
            return Duration::ZERO;
        }
        let gap = since(self.last.min(self.until), self.until).div_f64(self.left + 1.0);
        since(now, later(self.last, gap))
    }

    /// A request leaves at `now`.
    pub fn took(&mut self, now: Timestamp) {
        self.left = (self.left - 1.0).max(0.0);
        self.last = now;
    }
}

/// So few are spread where the server does not say of how many.
const LAST: f64 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::later;
    use proptest::prelude::*;

    #[test]
    fn a_rate_is_written_with_its_unit() {
        assert_eq!(Rate::parse("1/s"), Some(Rate { count: 1, per: Duration::from_secs(1) }));
        for nonsense in ["", "1", "0/s", "1/d", "-1/s", "1/ s", "s/1"] {
            assert_eq!(Rate::parse(nonsense), None, "{nonsense}");
        }
    }

    proptest! {
        #[test]
        fn no_minute_sees_more_than_the_ceiling(
            per_minute in 1_u32..2000,
            gaps in prop::collection::vec(0_u64..400, 1..2000),
        ) {
            let mut now = Timestamp::constant(1_795_000_000, 0);
            let mut pace = Pace::new(per_minute, now);
            let mut sent = std::collections::VecDeque::new();
            for gap in gaps {
                now = later(now, Duration::from_millis(gap));
                while sent.front().is_some_and(|at| since(*at, now) >= Duration::from_mins(1)) {
                    sent.pop_front();
                }
                if pace.take(now).is_ok() {
                    sent.push_back(now);
                }
                prop_assert!(sent.len() <= per_minute.max(2) as usize, "{} of {}", sent.len(), per_minute);
            }
        }

        #[test]
        fn no_span_sees_more_than_the_rate(
            count in 1_u32..200, unit in 0_usize..3, gaps in prop::collection::vec(0_u64..4000, 1..1000),
        ) {
            let rate = Rate { count, per: Duration::from_secs(UNITS[unit].1) };
            prop_assert_eq!(Rate::parse(&rate.to_string()), Some(rate));
            let mut now = Timestamp::constant(1_795_000_000, 0);
            let mut pace = Pace::even(rate, now);
            let mut sent = std::collections::VecDeque::new();
            for gap in gaps {
                now = later(now, Duration::from_millis(gap));
                while sent.front().is_some_and(|at| since(*at, now) >= rate.per) {
                    sent.pop_front();
                }
                match pace.take(now) {
                    Ok(()) => sent.push_back(now),
                    Err(wait) => prop_assert!(wait <= rate.per / count + Duration::from_millis(1)),
                }
                prop_assert!(sent.len() <= count as usize, "{} of {rate}", sent.len());
            }
        }

        #[test]
        fn the_wait_it_names_is_long_enough(per_minute in 1_u32..2000, back in 0_u64..10_000) {
            let mut now = Timestamp::constant(1_795_000_000, 0);
            let mut pace = Pace::new(per_minute, now);
            while pace.take(now).is_ok() {}
            now = crate::domain::time::earlier(now, Duration::from_secs(back));
            let wait = pace.take(now).unwrap_err();
            now = later(now, wait + Duration::from_millis(1));
            prop_assert!(pace.take(now).is_ok());
        }
    }

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn window(limit: Option<f64>, remaining: f64, seconds: u64) -> Window {
        let reset = Duration::from_secs(seconds);
        Window::told(&Allowance { limit, remaining, reset }, 0, NOW)
    }

    #[test]
    fn what_is_plenty_is_not_spread_and_what_is_used_up_waits_for_the_reset() {
        assert_eq!(window(Some(50.0), 40.0, 60).wait(NOW), Duration::ZERO);
        assert_eq!(window(None, 6.0, 60).wait(NOW), Duration::ZERO);
        assert_eq!(window(Some(50.0), 0.0, 60).wait(NOW), Duration::from_mins(1));
        assert_eq!(window(Some(50.0), 4.0, 60).wait(NOW), Duration::from_secs(12));
        let reset = later(NOW, Duration::from_mins(1));
        assert_eq!(window(Some(50.0), 0.0, 60).wait(reset), Duration::ZERO);
        // Two under way may be those two.
        let two = Allowance { limit: None, remaining: 2.0, reset: Duration::from_mins(1) };
        assert_eq!(Window::told(&two, 2, NOW).wait(NOW), Duration::from_mins(1));
        let back = crate::domain::time::earlier(NOW, Duration::from_hours(1));
        assert_eq!(window(None, 0.0, 60).wait(back), Duration::ZERO, "a clock that was set back");
    }

    proptest! {
        #[test]
        fn no_more_leave_within_the_window_than_are_left(
            remaining in 0_u32..300, limit in prop::option::of(1_u32..1000), seconds in 1_u64..900,
            gaps in prop::collection::vec(0_u64..3000, 1..400),
        ) {
            let mut window = window(limit.map(f64::from), f64::from(remaining), seconds);
            let (mut now, mut sent) = (NOW, 0);
            for gap in gaps {
                now = later(now, Duration::from_millis(gap));
                if since(NOW, now) < Duration::from_secs(seconds) && window.wait(now).is_zero() {
                    window.took(now);
                    sent += 1;
                }
            }
            prop_assert!(sent <= remaining, "{} of {}", sent, remaining);
        }

        #[test]
        fn whoever_waits_as_told_may_go(
            remaining in 0_u32..20, seconds in 1_u64..900, requests in 1_usize..40,
        ) {
            let mut window = window(Some(200.0), f64::from(remaining), seconds);
            let mut now = NOW;
            for _ in 0..requests {
                now = later(now, window.wait(now));
                prop_assert!(window.wait(now).is_zero());
                window.took(now);
            }
        }
    }
}
