//! When the results of a batch are fetched again after a failure, and when that is given up.

use super::time::{from_seconds, later};
use super::tracked::Tracked;
use jiff::Timestamp;
use std::time::Duration;

/// Why results could not be fetched, as far as it matters for the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Something that may pass.
    Passing,
    /// The provider has no such results, gives fewer than it says there are, or gives what is none: unlikely to change.
    Missing,
    /// They cannot be had by any number of tries.
    Lasting,
}

/// When to try again after the attempt with this `number`, counted from 1; `None`: never.
///
/// A service may be late with its files, so what is missing is asked for a few times. Everything else that may pass is tried until the
/// provider deletes it; where that is not known, for a month after the end.
pub fn next_try(number: u32, trouble: Trouble, tracked: &Tracked, now: Timestamp) -> Option<Timestamp> {
    let give_up = match trouble {
        Trouble::Lasting => true,
        Trouble::Missing => number >= MISSING_TRIES,
        Trouble::Passing => false,
    };
    if give_up {
        return None;
    }
    let step = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX).min(WAITS.len() - 1);
    let at = later(now, WAITS[step]);
    let end = tracked.batch.ended_at().and_then(from_seconds).unwrap_or(tracked.status_since);
    let last = tracked.results_expire_at.unwrap_or_else(|| later(end, USUALLY_KEPT));
    (at <= last).then_some(at)
}

const MISSING_TRIES: u32 = 4;

/// Most services keep results for thirty days.
const USUALLY_KEPT: Duration = Duration::from_hours(30 * 24);

/// The last one repeats.
const WAITS: [Duration; 6] = [
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(3),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tracked::{BatchKey, Origin};
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn ended() -> Tracked {
        let key = BatchKey { provider: "openai".into(), id: "batch_1".into() };
        Tracked::new(key, "openai", "/v1/responses", Origin::Hand, NOW)
    }

    #[test]
    fn what_is_missing_or_hopeless_is_given_up() {
        assert!(next_try(3, Trouble::Missing, &ended(), NOW).is_some());
        assert_eq!(next_try(4, Trouble::Missing, &ended(), NOW), None);
        assert_eq!(next_try(1, Trouble::Lasting, &ended(), NOW), None);
    }

    #[test]
    fn nothing_is_tried_once_the_provider_has_deleted_it() {
        let mut batch = ended();
        batch.results_expire_at = Some(later(NOW, Duration::from_mins(1)));
        assert!(next_try(1, Trouble::Passing, &batch, NOW).is_some());
        assert_eq!(next_try(2, Trouble::Passing, &batch, NOW), None);
        let month = later(NOW, USUALLY_KEPT);
        assert_eq!(next_try(9, Trouble::Passing, &ended(), month), None);
    }

    proptest! {
        #[test]
        fn waits_only_grow(number in 1_u32..100) {
            let wait = |number| next_try(number, Trouble::Passing, &ended(), NOW).unwrap();
            prop_assert!(wait(number) <= wait(number + 1));
            prop_assert!(wait(number) > NOW);
        }
    }
}
