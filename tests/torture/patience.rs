//! Real time, for tests of real processes: now, a pause, and waiting for a condition.

use std::time::{Duration, Instant};

pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "real processes live in real time")]
    Instant::now()
}

pub fn pause(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "a thread of a test, beside any runtime")]
    std::thread::sleep(time);
}

/// Asks `condition` again and again, for at most `limit`; `None`: it did not come true.
pub fn within<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = now();
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if begun.elapsed() > limit {
            return None;
        }
        pause(Duration::from_millis(15));
    }
}
