//! What becomes of a delivery and of its webhook after an attempt: one pure function (`docs/contract.md#deliveries`).

use crate::domain::retry::{self, Class};
use crate::domain::time::{later, since};
use crate::store::outbox::{Due, Next, WebhookState};
use crate::webhook::DeliveryOutcome;
use jiff::Timestamp;
use std::time::Duration;

/// What follows from an attempt; stored in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub next: Next,
    pub state: WebhookState,
}

/// The rules that an attempt is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The waits after each failed attempt.
    pub delays: &'a [Duration],
    /// Whether the webhook has left the configuration meanwhile.
    pub retired: bool,
}

/// What becomes of `due` and of its webhook, whose state was `state`, when an attempt ended so at `now`.
///
/// `receiver_at_fault`: the receiver or the way to it is to blame, not the making of the message.
pub fn decide(
    outcome: &DeliveryOutcome,
    receiver_at_fault: bool,
    due: &Due,
    state: &WebhookState,
    rules: Rules<'_>,
    now: Timestamp,
    jitter: f64,
) -> Decision {
    let mut state = state.clone();
    if state.paused_until.is_some_and(|until| until <= now) {
        state.paused_until = None;
    }
    let next = match outcome {
        DeliveryOutcome::Delivered => {
            state.failures = 0;
            state.failing_since = None;
            state.last_success_at = Some(now);
            Next::Delivered
        }
        DeliveryOutcome::Snooze(retry_after) => {
            let wait =
                retry_after.unwrap_or_else(|| UNNAMED_PAUSE.mul_f64(1.0 + 0.2 * jitter.clamp(0.0, 1.0)));
            let until = later(now, wait);
            state.paused_until = state.paused_until.max(Some(until));
            if is_too_old(due, due.attempts, rules.delays, now) {
                Next::Dead
            } else {
                Next::Again { at: until, wait, counts: false, plain: due.plain }
            }
        }
        DeliveryOutcome::Trouble(_) | DeliveryOutcome::Refused(_) => {
            if receiver_at_fault {
                state.failures = state.failures.saturating_add(1);
                state.failing_since.get_or_insert(now);
            }
            let class =
                if matches!(outcome, DeliveryOutcome::Refused(_)) { Class::Refused } else { Class::Trouble };
            let attempts = due.attempts.saturating_add(1);
            match retry::next_attempt(rules.delays, attempts, class, jitter) {
                Some(wait) if !is_too_old(due, attempts, rules.delays, now) => {
                    Next::Again { at: later(now, wait), wait, counts: true, plain: due.plain }
                }
                _ => Next::Dead,
            }
        }
        // At once: nothing is wrong over there that time would mend.
        DeliveryOutcome::Simplify(_) if !due.plain => {
            Next::Again { at: now, wait: Duration::ZERO, counts: false, plain: true }
        }
        DeliveryOutcome::Simplify(_) | DeliveryOutcome::Dead(_) => Next::Dead,
        DeliveryOutcome::Gone(reason) => {
            if state.disabled.is_none() {
                state.disabled = Some(reason.clone());
                state.by_hand = false;
                state.failing_since.get_or_insert(now);
            }
            Next::Hold
        }
    };
    // Nobody would send it again: it waits with the rest.
    let nobody = rules.retired || state.disabled.is_some();
    let next = if nobody && matches!(next, Next::Again { .. }) { Next::Hold } else { next };
    Decision { next, state }
}

/// Whether a delivery has had its time: more than three days (or all of a longer schedule) *and* enough attempts,
/// so that neither a clock that jumps nor a laptop that slept gives up what was hardly tried.
fn is_too_old(due: &Due, attempts: u32, delays: &[Duration], now: Timestamp) -> bool {
    let schedule = delays.iter().fold(Duration::ZERO, |sum, delay| sum.saturating_add(*delay));
    attempts >= LEAST_ATTEMPTS && since(due.recorded_at, now) > OLDEST.max(schedule)
}

/// How long a webhook is left alone that answers 429 and does not say for how long.
const UNNAMED_PAUSE: Duration = Duration::from_mins(1);

/// How old a delivery may get …
const OLDEST: Duration = Duration::from_hours(72);
/// … once it has been tried so often.
const LEAST_ATTEMPTS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::EventType;
    use crate::domain::retry::DELAYS;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);
    const RULES: Rules<'_> = Rules { delays: &DELAYS, retired: false };

    fn due(attempts: u32) -> Due {
        Due {
            pk: 1,
            event_id: "evt_1".to_owned(),
            kind: EventType::Test,
            body: "{}".to_owned(),
            attempts,
            plain: false,
            recorded_at: NOW,
            sequence: 1,
        }
    }

    fn trouble() -> DeliveryOutcome {
        DeliveryOutcome::Trouble("500".to_owned())
    }

    fn refused() -> DeliveryOutcome {
        DeliveryOutcome::Refused("404".to_owned())
    }

    fn after(outcome: &DeliveryOutcome, due: &Due) -> Decision {
        decide(outcome, true, due, &WebhookState::default(), RULES, NOW, 0.5)
    }

    /// How many attempts a delivery gets that always meets `outcome`, and how long that takes.
    fn life(outcome: &DeliveryOutcome, delays: &[Duration]) -> (u32, Duration) {
        let (mut due, mut now, mut state) = (due(0), NOW, WebhookState::default());
        let rules = Rules { delays, retired: false };
        for attempt in 1..1000 {
            let decision = decide(outcome, true, &due, &state, rules, now, 0.5);
            state = decision.state;
            match decision.next {
                Next::Again { at, wait, counts, plain } => {
                    assert_eq!(at, later(now, wait));
                    now = at;
                    due.plain = plain;
                    due.attempts += u32::from(counts);
                }
                Next::Dead => return (attempt, since(NOW, now)),
                other => panic!("{other:?}"),
            }
        }
        panic!("it never ends");
    }

    #[test]
    fn b1_a_success_after_failures_forgets_them() {
        let failing = after(&trouble(), &due(0)).state;
        assert_eq!((failing.failures, failing.failing_since), (1, Some(NOW)));
        let decision = decide(
            &DeliveryOutcome::Delivered,
            true,
            &due(1),
            &failing,
            RULES,
            later(NOW, Duration::from_secs(5)),
            0.5,
        );
        assert_eq!(decision.next, Next::Delivered);
        assert_eq!((decision.state.failures, decision.state.failing_since), (0, None));
        assert_eq!(decision.state.last_success_at, Some(later(NOW, Duration::from_secs(5))));
    }

    #[test]
    fn b2_trouble_for_ever_is_twelve_attempts_in_about_three_days() {
        let (attempts, took) = life(&trouble(), &DELAYS);
        assert_eq!(attempts, 12);
        assert_eq!(took.as_secs(), 70 * 3600 + 42 * 60 + 35);
    }

    #[test]
    fn b3_a_refusal_for_ever_stops_after_eight() {
        let (attempts, took) = life(&refused(), &DELAYS);
        assert_eq!(attempts, 8);
        assert_eq!(took.as_secs(), 4 * 3600 + 42 * 60 + 35);
    }

    #[test]
    fn another_list_of_delays_is_kept_to() {
        let list = [5, 30, 120].map(Duration::from_secs);
        assert_eq!(life(&trouble(), &list), (4, Duration::from_secs(155)));
        assert_eq!(life(&trouble(), &[]), (1, Duration::ZERO));
        let weeks = [Duration::from_hours(7 * 24); 8];
        assert_eq!(life(&trouble(), &weeks), (9, Duration::from_hours(8 * 7 * 24)));
    }

    #[test]
    fn b4_gone_switches_the_webhook_off_and_holds() {
        let decision = after(&DeliveryOutcome::Gone("410 Gone".to_owned()), &due(0));
        assert_eq!(decision.next, Next::Hold);
        assert_eq!(decision.state.disabled.as_deref(), Some("410 Gone"));
        assert!(!decision.state.by_hand);
        // Another attempt that was under way is held with the rest, unless it was accepted.
        let failed = decide(&trouble(), true, &due(0), &decision.state, RULES, NOW, 0.5);
        assert_eq!(failed.next, Next::Hold);
        let accepted = decide(&DeliveryOutcome::Delivered, true, &due(0), &decision.state, RULES, NOW, 0.5);
        assert_eq!(accepted.next, Next::Delivered);
        assert!(accepted.state.disabled.is_some());
    }

    #[test]
    fn a_person_who_switched_it_off_stays_its_master() {
        let state =
            WebhookState { disabled: Some("by ada".to_owned()), by_hand: true, ..WebhookState::default() };
        let gone = decide(&DeliveryOutcome::Gone("410".to_owned()), true, &due(0), &state, RULES, NOW, 0.5);
        assert_eq!(gone.state, state);
    }

    #[test]
    fn b5_a_pause_holds_the_whole_webhook_and_uses_nothing_up() {
        let retry_after = Duration::from_secs(7);
        let decision = after(&DeliveryOutcome::Snooze(Some(retry_after)), &due(3));
        assert_eq!(
            decision.next,
            Next::Again { at: later(NOW, retry_after), wait: retry_after, counts: false, plain: false }
        );
        assert_eq!(decision.state.paused_until, Some(later(NOW, retry_after)));
        assert_eq!(decision.state.failures, 0);
        // A shorter wish of a second answer does not end it sooner.
        let shorter = DeliveryOutcome::Snooze(Some(Duration::from_secs(1)));
        let second = decide(&shorter, true, &due(3), &decision.state, RULES, NOW, 0.5);
        assert_eq!(second.state.paused_until, Some(later(NOW, retry_after)));
        // And it is forgotten when it is over.
        let late = later(NOW, Duration::from_secs(8));
        let third = decide(&DeliveryOutcome::Delivered, true, &due(3), &decision.state, RULES, late, 0.5);
        assert_eq!(third.state.paused_until, None);
    }

    #[test]
    fn b8_too_many_requests_without_a_wish_is_a_minute_at_least() {
        let Next::Again { wait, counts, .. } = after(&DeliveryOutcome::Snooze(None), &due(0)).next else {
            panic!()
        };
        assert!(wait >= Duration::from_mins(1) && wait <= Duration::from_secs(72), "{wait:?}");
        assert!(!counts);
    }

    #[test]
    fn age_alone_gives_nothing_up() {
        let after_days = |attempts, outcome: &DeliveryOutcome| {
            let now = later(NOW, Duration::from_hours(5 * 24));
            decide(outcome, true, &due(attempts), &WebhookState::default(), RULES, now, 0.5).next
        };
        assert!(matches!(after_days(0, &trouble()), Next::Again { .. }), "a laptop that slept");
        assert!(matches!(after_days(4, &trouble()), Next::Again { .. }));
        assert_eq!(after_days(5, &trouble()), Next::Dead);
        assert!(matches!(after_days(5, &DeliveryOutcome::Snooze(None)), Next::Again { .. }));
        assert_eq!(after_days(6, &DeliveryOutcome::Snooze(None)), Next::Dead);
    }

    #[test]
    fn h3_a_refused_form_is_sent_once_more_as_plain_text_and_then_given_up() {
        let outcome = DeliveryOutcome::Simplify("invalid_blocks".to_owned());
        let decision = after(&outcome, &due(11));
        assert_eq!(decision.next, Next::Again { at: NOW, wait: Duration::ZERO, counts: false, plain: true });
        assert_eq!(decision.state.failures, 0, "the receiver is well");
        assert_eq!(life(&outcome, &DELAYS), (2, Duration::ZERO));
    }

    #[test]
    fn what_cannot_be_made_is_not_the_receivers_fault() {
        let decision = decide(&trouble(), false, &due(0), &WebhookState::default(), RULES, NOW, 0.5);
        assert!(matches!(decision.next, Next::Again { counts: true, .. }));
        assert_eq!(decision.state, WebhookState::default());
    }

    #[test]
    fn f2_what_was_under_way_when_its_webhook_was_removed_is_held() {
        let rules = Rules { retired: true, ..RULES };
        let decide = |outcome: &DeliveryOutcome| {
            decide(outcome, true, &due(0), &WebhookState::default(), rules, NOW, 0.5).next
        };
        assert_eq!(decide(&trouble()), Next::Hold);
        assert_eq!(decide(&DeliveryOutcome::Delivered), Next::Delivered);
    }

    proptest! {
        #[test]
        fn nothing_waits_for_ever_and_no_wait_is_longer_than_its_reason(
            attempts in 0_u32..20, age in 0_u64..10_000_000, jitter in 0.0..1.0_f64, retry_after in 1_u64..21_600,
            which in 0_usize..4, plain: bool,
        ) {
            let outcome = [
                trouble(),
                refused(),
                DeliveryOutcome::Snooze(Some(Duration::from_secs(retry_after))),
                DeliveryOutcome::Simplify(String::new()),
            ][which].clone();
            let now = later(NOW, Duration::from_secs(age));
            let due = Due { attempts, plain, ..due(0) };
            let decision = decide(&outcome, true, &due, &WebhookState::default(), RULES, now, jitter);
            match decision.next {
                Next::Again { at, wait, counts, plain: then_plain } => {
                    prop_assert_eq!(at, later(now, wait));
                    prop_assert!(wait <= Duration::from_hours(24).mul_f64(1.2));
                    prop_assert!(then_plain || !plain, "plain stays plain");
                    prop_assert!(counts || which >= 2);
                    if which == 2 {
                        prop_assert_eq!(wait, Duration::from_secs(retry_after));
                    }
                }
                // The attempt that just failed counts too.
                Next::Dead => prop_assert!(attempts + 1 >= 6 || which == 3 && plain),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
