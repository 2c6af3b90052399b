//! When a failed delivery is tried again: one pure function of how often it was.

use std::time::Duration;

/// Delays after each failed attempt: twelve attempts in about three days (`docs/delivery.md#retries`).
pub const DELAYS: [Duration; 11] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(3),
    Duration::from_hours(6),
    Duration::from_hours(12),
    Duration::from_hours(24),
    Duration::from_hours(24),
];

/// How many attempts a receiver gets that answers "wrong request": long enough for a bad deploy to be mended.
pub const REFUSED_ATTEMPTS: u32 = 8;

/// What kind of failure it was, as far as trying again goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The receiver or the way to it is in trouble.
    Trouble,
    /// The receiver answered, and refused: a redirect, 400, 401, 403, 404 and the like.
    Refused,
}

/// How long to wait after `attempts` attempts (the first is 1) have failed; `None`: give up.
///
/// ±20 % by `jitter` (0 to 1).
pub fn next_attempt(delays: &[Duration], attempts: u32, class: Class, jitter: f64) -> Option<Duration> {
    if class == Class::Refused && attempts >= REFUSED_ATTEMPTS {
        return None;
    }
    let delay = delays.get(usize::try_from(attempts.checked_sub(1)?).ok()?)?;
    Some(delay.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn twelve_attempts_in_about_three_days() {
        let mut total = Duration::ZERO;
        let mut attempts = 1;
        while let Some(delay) = next_attempt(&DELAYS, attempts, Class::Trouble, 0.5) {
            total += delay;
            attempts += 1;
        }
        assert_eq!(attempts, 12);
        assert_eq!(total.as_secs(), 70 * 3600 + 42 * 60 + 35);
    }

    #[test]
    fn a_refusal_stops_after_eight() {
        assert!(next_attempt(&DELAYS, 7, Class::Refused, 0.5).is_some());
        assert_eq!(next_attempt(&DELAYS, 8, Class::Refused, 0.5), None);
        assert_eq!(next_attempt(&DELAYS, 0, Class::Trouble, 0.5), None);
    }

    proptest! {
        #[test]
        fn the_jitter_is_a_fifth(attempts in 1_u32..11, jitter in 0.0..=1.0) {
            let plain = DELAYS[attempts as usize - 1].as_secs_f64();
            let delay = next_attempt(&DELAYS, attempts, Class::Trouble, jitter).unwrap().as_secs_f64();
            prop_assert!(delay >= plain * 0.799 && delay <= plain * 1.201);
        }
    }
}
