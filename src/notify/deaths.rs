//! When deliveries that were given up are told to the other webhooks: the first at once, what follows ever more rarely
//! (`docs/contract.md#findings`).

use crate::domain::event::Draft;
use crate::domain::time::{later, since};
use crate::store::outbox::GivenUp;
use jiff::Timestamp;
use std::time::Duration;

/// Whether what was given up may be told at `now`, where others were told of such `since` and last at `told_at`.
///
/// Each wait is as long as the episode was before it, so a thousand deaths in a day are told in about twenty findings.
pub(super) fn may_tell(began: Option<Timestamp>, told_at: Option<Timestamp>, now: Timestamp) -> bool {
    let (Some(began), Some(told_at)) = (began, told_at) else { return true };
    // A clock that was set back holds nothing up for longer than the wait.
    now < told_at || later(told_at, wait(began, told_at)) <= now
}

/// When the episode began that something given up and told at `now` belongs to: a new one, if nothing was told for long.
pub(super) fn episode(began: Option<Timestamp>, told_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
    match (began, told_at) {
        (Some(began), Some(told_at)) if began <= now && now < later(told_at, 2 * LONGEST) => began,
        _ => now,
    }
}

fn wait(began: Timestamp, told_at: Timestamp) -> Duration {
    since(began, told_at).clamp(SHORTEST, LONGEST)
}

/// What the others are told of it.
pub(super) fn finding(webhook: &str, given_up: &GivenUp, now: Timestamp) -> Draft {
    let GivenUp { count, since, last } = given_up;
    let about = match (&last.provider, &last.batch_id) {
        (Some(provider), Some(id)) => format!("{} of {provider}:{id}", last.kind),
        (Some(provider), None) => format!("{} of {provider}", last.kind),
        (None, _) => last.kind.to_string(),
    };
    let (pk, attempts) = (last.pk, last.attempts);
    let tried = if attempts == 1 { "one attempt".to_owned() } else { format!("{attempts} attempts") };
    // The reason comes last: it is as long as the receiver makes it.
    let words = if *count == 1 {
        format!(
            "webhook {webhook} never got {about}, which was given up after {tried}; to send it again: batchd deliveries \
             retry {pk}; the reason: {}",
            last.error
        )
    } else {
        format!(
            "{count} deliveries to webhook {webhook} were given up, the last of them {about} after {tried}; to send \
             them again: batchd deliveries retry --dead --webhook {webhook}; the reason: {}",
            last.error
        )
    };
    Draft::about_dead_deliveries(webhook, (&last.event_id, attempts), *count, &words, *since, now)
}

/// The least time between two findings …
const SHORTEST: Duration = Duration::from_mins(1);
/// … and the longest.
const LONGEST: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::EventType;
    use crate::domain::outcome::Severity;
    use crate::domain::time::earlier;
    use crate::store::outbox::Dead;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn at(seconds: u64) -> Timestamp {
        later(NOW, Duration::from_secs(seconds))
    }

    /// The seconds at which deaths at these seconds are told.
    fn told(deaths: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut deaths: Vec<u64> = deaths.into_iter().collect();
        deaths.sort_unstable();
        let (mut began, mut told_at, mut told) = (None, None, Vec::new());
        let end = deaths.last().copied().unwrap_or(0) + 2 * LONGEST.as_secs();
        let (mut untold, mut deaths) = (false, deaths.into_iter().peekable());
        for second in 0..=end {
            while deaths.next_if(|death| *death <= second).is_some() {
                untold = true;
            }
            if untold && may_tell(began, told_at, at(second)) {
                began = Some(episode(began, told_at, at(second)));
                told_at = Some(at(second));
                untold = false;
                told.push(second);
            }
        }
        assert!(!untold, "something was never told");
        told
    }

    #[test]
    fn the_first_is_told_at_once_and_a_burst_is_no_burst_of_findings() {
        assert_eq!(told([7]), [7]);
        assert_eq!(told((0..10_000).map(|number| number / 100)), [0, 60, 120]);
        let day = told(0..24 * 3600);
        assert!(day.len() < 35 && day[..5] == [0, 60, 120, 240, 480], "{day:?}");
        // Days apart they are episodes of their own.
        assert_eq!(told([0, 100_000, 100_001]), [0, 100_000, 100_060]);
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nothing_up() {
        let (began, told_at) = (Some(NOW), Some(NOW));
        assert!(!may_tell(began, told_at, at(1)));
        let before = earlier(NOW, Duration::from_hours(100));
        assert!(may_tell(began, told_at, before));
        assert_eq!(episode(began, told_at, before), before);
    }

    #[test]
    fn it_says_what_was_lost_and_how_to_send_it_again() {
        let last = Dead {
            pk: 12,
            event_id: "evt_1".to_owned(),
            kind: EventType::ENDS[0],
            provider: Some("openai".to_owned()),
            batch_id: Some("batch_1".to_owned()),
            attempts: 8,
            error: "404 Not Found".to_owned(),
        };
        let one = GivenUp { count: 1, since: NOW, last };
        let draft = finding("ops", &one, at(1));
        assert_eq!((draft.kind, draft.severity), (EventType::DeliveryDead, Severity::Error));
        assert_eq!(
            draft.data["message"],
            "webhook ops never got batch.completed of openai:batch_1, which was given up after 8 attempts; to send it \
             again: batchd deliveries retry 12; the reason: 404 Not Found"
        );
        let many = GivenUp { count: 3, ..one.clone() };
        let words = finding("ops", &many, at(1)).data["message"].as_str().unwrap().to_owned();
        assert!(words.starts_with("3 deliveries to webhook ops were given up"), "{words}");
        // Sent again by hand and given up again, it is another finding; seen again it is the same.
        let again = GivenUp { last: Dead { attempts: 16, ..one.last.clone() }, ..one.clone() };
        assert_ne!(finding("ops", &again, at(1)).id, draft.id);
        assert_eq!(finding("ops", &one, at(99)).id, draft.id);
    }

    proptest! {
        #[test]
        fn whatever_dies_is_told_within_an_hour_and_never_twice_in_a_minute(
            deaths in proptest::collection::vec(0_u64..20_000, 0..40),
        ) {
            let told = told(deaths.iter().copied());
            for pair in told.windows(2) {
                prop_assert!(pair[1] - pair[0] >= SHORTEST.as_secs());
            }
            for death in deaths {
                prop_assert!(told.iter().any(|at| *at >= death && *at <= death + LONGEST.as_secs()));
            }
        }
    }
}
