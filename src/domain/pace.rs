//! A ceiling of requests in a span of time, held in every such span whatever its start.

use super::time::since;
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
}
