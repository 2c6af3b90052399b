//! When a webhook's trouble is worth telling the others: once an episode, and its end (`docs/contract.md#findings`).

use super::breaker::OPENS_AFTER;
use crate::domain::duration::human;
use crate::domain::event::{Draft, EventType};
use crate::domain::time::{since, to_millis};
use crate::store::outbox::WebhookState;
use jiff::Timestamp;
use std::time::Duration;

/// What is to be told of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct News {
    /// Since when the trouble lasts that is told of; `None`: it is over.
    pub(super) told_since: Option<Timestamp>,
    pub(super) finding: Draft,
}

/// What is to be told of the webhook `name`, whose state is `state`, at `now`.
///
/// It fails if its receiver has switched it off, or if it has failed five times in a row and for as long as its first
/// five attempts at one delivery take, or a minute if that is shorter: what a restart over there takes is not worth a
/// word. It has recovered when it accepts something again. One that a person switched off is no news to anybody.
pub(super) fn news(
    name: &str,
    state: &WebhookState,
    delays: &[Duration],
    last_error: Option<&str>,
    now: Timestamp,
) -> Option<News> {
    let draft = |kind, words: &str, since| Draft::about_webhook(kind, name, words, since, now);
    if let Some(told_since) = state.told_since {
        let well = state.disabled.is_none() && state.failing_since.is_none();
        let accepted = state.last_success_at.is_some_and(|at| at >= told_since.min(now));
        return (well && accepted).then(|| {
            let words = format!("webhook {name} accepts again, after {}", human(since(told_since, now)));
            News { told_since: None, finding: draft(EventType::WebhookRecovered, &words, told_since) }
        });
    }
    let failing_since = state.failing_since?;
    let words = match &state.disabled {
        Some(_) if state.by_hand => return None,
        Some(reason) => format!(
            "webhook {name} is switched off, and what it is owed is held: {reason}; once it is mended: batchd webhooks \
             enable {name}"
        ),
        None => {
            let quiet: Duration = delays.iter().take(OPENS_AFTER as usize - 1).sum();
            if state.failures < OPENS_AFTER || since(failing_since, now) < quiet.min(MAX_QUIET) {
                return None;
            }
            let error = last_error.map(|error| format!(": {error}")).unwrap_or_default();
            format!("webhook {name} has failed {} times in a row{error}", state.failures)
        }
    };
    let since = to_millis(failing_since);
    Some(News { told_since: Some(since), finding: draft(EventType::WebhookFailing, &words, since) })
}

/// For how long a failing webhook is not told of at most: longer than most receivers take to restart.
const MAX_QUIET: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::outcome::Severity;
    use crate::domain::retry::DELAYS;
    use crate::domain::time::later;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn at(seconds: u64) -> Timestamp {
        later(NOW, Duration::from_secs(seconds))
    }

    fn failing(failures: u32) -> WebhookState {
        WebhookState { failures, failing_since: Some(NOW), ..WebhookState::default() }
    }

    fn told(state: &mut WebhookState, delays: &[Duration], now: Timestamp) -> Option<Draft> {
        let news = news("ops", state, delays, Some("503 Service Unavailable"), now)?;
        state.told_since = news.told_since;
        Some(news.finding)
    }

    #[test]
    fn a_failing_webhook_is_told_of_once_and_so_is_its_end() {
        let mut state = failing(4);
        assert_eq!(told(&mut state, &DELAYS, at(600)), None);
        state.failures = 5;
        assert_eq!(told(&mut state, &DELAYS, at(59)), None, "it may be restarting");
        let beginning = told(&mut state, &DELAYS, at(60)).unwrap();
        assert_eq!((beginning.kind, beginning.severity), (EventType::WebhookFailing, Severity::Error));
        assert_eq!(
            beginning.data["message"],
            "webhook ops has failed 5 times in a row: 503 Service Unavailable"
        );
        state.failures = 9;
        assert_eq!(told(&mut state, &DELAYS, at(6000)), None, "once");
        // Forgotten by hand is not mended.
        state.failures = 0;
        state.failing_since = None;
        assert_eq!(told(&mut state, &DELAYS, at(6100)), None);
        state.last_success_at = Some(at(6200));
        let end = told(&mut state, &DELAYS, at(6200)).unwrap();
        assert_eq!(end.kind, EventType::WebhookRecovered);
        assert_eq!(end.data["since"], beginning.data["since"]);
        assert_eq!(told(&mut state, &DELAYS, at(6300)), None);
        // Another episode is another event.
        state.failing_since = Some(at(7000));
        state.failures = 5;
        assert_ne!(told(&mut state, &DELAYS, at(9000)).unwrap().id, beginning.id);
    }

    #[test]
    fn what_is_waited_is_not_longer_than_the_webhooks_own_schedule() {
        let short = [Duration::from_secs(1); 5];
        assert_eq!(told(&mut failing(5), &short, at(3)), None);
        assert!(told(&mut failing(5), &short, at(4)).is_some());
        assert!(told(&mut failing(5), &[], at(0)).is_some());
    }

    #[test]
    fn b4_one_that_its_receiver_switched_off_is_told_of_at_once_and_one_switched_off_by_hand_is_not() {
        let off = |by_hand| WebhookState {
            disabled: Some("410 Gone".to_owned()),
            by_hand,
            failing_since: Some(NOW),
            ..WebhookState::default()
        };
        let mut state = off(false);
        let words = told(&mut state, &DELAYS, NOW).unwrap().data["message"].as_str().unwrap().to_owned();
        assert!(words.contains("410 Gone") && words.contains("batchd webhooks enable ops"), "{words}");
        assert_eq!(told(&mut off(true), &DELAYS, at(9999)), None);
        // While it is off nothing has ended, even if something that was under way was accepted.
        state.failing_since = None;
        state.last_success_at = Some(at(1));
        assert_eq!(told(&mut state, &DELAYS, at(1)), None);
        state.disabled = None;
        assert!(told(&mut state, &DELAYS, at(1)).is_some());
    }
}
