//! What becomes of a delivery in whose attempt the process died: one pure function (`docs/delivery.md#suspects`).

use std::time::Duration;

/// Deaths in a row that make a delivery a suspect: from then on it is sent alone.
pub const SUSPECT: u32 = 3;

/// How long a suspect waits before each attempt alone. Whoever kills the daemon from outside does not meet the few
/// seconds of all three; what kills it from inside does.
pub const WAITS: [Duration; 3] = [Duration::from_mins(1), Duration::from_mins(10), Duration::from_hours(1)];

/// What follows from a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterDeath {
    /// It is sent again after this wait; `deaths` in a row are remembered of it.
    Again { deaths: u32, wait: Duration },
    /// It is given up.
    GiveUp { deaths: u32 },
}

/// What becomes of a delivery that was under way when the process died, after `deaths` in a row before; `alone`: no
/// other delivery was under way.
///
/// Up to the third death it is due at once. From then on only deaths in which it was alone count against it, and the
/// third of those gives it up.
pub fn after_death(deaths: u32, alone: bool) -> AfterDeath {
    let counted = if deaths < SUSPECT || alone { deaths.saturating_add(1) } else { deaths };
    match counted.checked_sub(SUSPECT) {
        None => AfterDeath::Again { deaths: counted, wait: Duration::ZERO },
        Some(alone) => match usize::try_from(alone).ok().and_then(|alone| WAITS.get(alone)) {
            Some(wait) => AfterDeath::Again { deaths: counted, wait: *wait },
            None => AfterDeath::GiveUp { deaths: counted },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What becomes of a delivery that dies in all of these, each alone or not: its deaths alone as a suspect, the time
    /// that it waited, and whether it was given up.
    fn life(deaths: impl IntoIterator<Item = bool>) -> (u32, Duration, bool) {
        let (mut count, mut as_suspect, mut waited) = (0, 0, Duration::ZERO);
        for alone in deaths {
            as_suspect += u32::from(alone && count >= SUSPECT);
            match after_death(count, alone) {
                AfterDeath::Again { deaths, wait } => {
                    count = deaths;
                    waited += wait;
                }
                AfterDeath::GiveUp { .. } => return (as_suspect, waited, true),
            }
        }
        (as_suspect, waited, false)
    }

    #[test]
    fn a11_poison_is_given_up_after_six_deaths_and_seventy_one_minutes() {
        assert_eq!(life([true; 9]), (3, Duration::from_mins(71), true));
        assert_eq!(life([true; 5]), (2, Duration::from_mins(71), false));
        assert_eq!(life([true; 2]), (0, Duration::ZERO, false));
    }

    #[test]
    fn what_was_remembered_by_another_version_is_no_reason_to_panic() {
        assert_eq!(after_death(u32::MAX, true), AfterDeath::GiveUp { deaths: u32::MAX });
    }

    proptest! {
        #[test]
        fn nothing_is_given_up_but_for_three_deaths_alone_as_a_suspect(alone: Vec<bool>) {
            let (as_suspect, waited, given_up) = life(alone.iter().copied());
            prop_assert_eq!(given_up, as_suspect == 3, "{:?}", alone);
            if given_up {
                prop_assert!(waited >= WAITS.iter().sum::<Duration>(), "{:?}", waited);
            }
        }

        #[test]
        fn the_count_never_falls_and_a_suspect_always_waits(deaths in 0_u32..8, alone: bool) {
            match after_death(deaths, alone) {
                AfterDeath::Again { deaths: then, wait } => {
                    prop_assert!(then >= deaths && then <= deaths + 1);
                    prop_assert_eq!(wait.is_zero(), then < SUSPECT);
                }
                AfterDeath::GiveUp { deaths: then } => prop_assert!(then >= deaths),
            }
        }
    }
}
