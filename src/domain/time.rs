//! Instants as the rules use them: wall-clock time to the millisecond.

use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// `at` plus `by`, clamped to the last representable instant.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// `at` minus `by`, clamped to the first representable instant.
pub fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

/// How long after `from` `to` is; zero if it is not.
pub fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// Whether at `now` it is `wait` or longer since `at`. What lies in the future was noted before the clock was set back, and
/// counts as long ago: else it would hold up what waits for it until the clock has caught up.
pub fn has_passed(wait: Duration, at: Timestamp, now: Timestamp) -> bool {
    at > now || since(at, now) >= wait
}

/// `at` without what is finer than a millisecond: the resolution of everything that is stored.
pub fn to_millis(at: Timestamp) -> Timestamp {
    from_millis(at.as_millisecond())
}

/// The instant `millis` Unix milliseconds after the epoch, clamped to what can be represented.
pub fn from_millis(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(if millis < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// The instant `seconds` Unix seconds after the epoch; `None` where no calendar reaches it.
pub fn from_seconds(seconds: i64) -> Option<Timestamp> {
    Timestamp::from_second(seconds).ok()
}
