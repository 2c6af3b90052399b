//! A ceiling of requests a minute, held in every minute whatever its start.

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

impl Pace {
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
