//! Whether an account answers, and what of that is worth telling: one message an episode, and its end.

use crate::domain::event::{Draft, EventType};
use crate::domain::time::since;
use crate::http::failure::{Failure, Verdict};
use crate::store::providers::ProviderState;
use jiff::Timestamp;
use std::time::Duration;

/// After this long without a useful answer an account counts as unreachable.
const UNREACHABLE_AFTER: Duration = Duration::from_mins(10);

/// How an account has answered lately.
#[derive(Debug)]
pub(super) struct Health {
    state: ProviderState,
    /// What the database was last told.
    stored: ProviderState,
}

/// A change of an account's health that is to be stored.
pub(super) struct Report {
    pub state: ProviderState,
    pub events: Vec<Draft>,
    pub message: Option<String>,
}

impl Health {
    pub(super) fn remembered(state: ProviderState) -> Self {
        Self { stored: state.clone(), state }
    }

    pub(super) fn state(&self) -> &ProviderState {
        &self.state
    }

    /// The last report could not be stored: the next one says it again.
    pub(super) fn untold(&mut self) {
        self.state = self.stored.clone();
        self.stored = ProviderState::default();
    }

    /// Notes how a request to `provider` ended; a report if that changes anything worth keeping.
    pub(super) fn note(
        &mut self,
        provider: &str,
        failure: Option<&Failure>,
        now: Timestamp,
    ) -> Option<Report> {
        let mut events = Vec::new();
        let mut message = None;
        let state = &mut self.state;
        state.last_error = failure.map(ToString::to_string);
        match failure.map(Failure::verdict) {
            // Whatever the answer was about, there was one, and the key was accepted.
            None | Some(Verdict::Missing) => {
                if let Some(begun) = state.refused_since.or(state.silent_since.filter(|_| state.silence_told))
                {
                    let words = format!("{provider} answers again");
                    events.push(Draft::about_provider(
                        EventType::ProviderRecovered,
                        provider,
                        &words,
                        begun,
                        now,
                    ));
                    message = Some(words);
                }
                state.refused_since = None;
                state.silent_since = None;
                state.silence_told = false;
                state.last_success_at = Some(now);
            }
            Some(Verdict::Refused) => {
                state.silent_since = None;
                state.silence_told = false;
                if state.refused_since.is_none() {
                    state.refused_since = Some(now);
                    let words = format!(
                        "{provider} refuses the key ({}); its batches are looked at less often until it accepts one",
                        failure.map(ToString::to_string).unwrap_or_default()
                    );
                    events.push(Draft::about_provider(
                        EventType::ProviderUnauthorized,
                        provider,
                        &words,
                        now,
                        now,
                    ));
                    message = Some(words);
                }
            }
            Some(Verdict::Hold(_)) => state.silent_since = None,
            Some(Verdict::Again) => {
                let begun = *state.silent_since.get_or_insert(now);
                if !state.silence_told && since(begun, now) >= UNREACHABLE_AFTER {
                    state.silence_told = true;
                    let words = format!(
                        "{provider} has not given a useful answer for ten minutes ({})",
                        failure.map(ToString::to_string).unwrap_or_default()
                    );
                    events.push(Draft::about_provider(
                        EventType::ProviderUnreachable,
                        provider,
                        &words,
                        begun,
                        now,
                    ));
                    message = Some(words);
                }
            }
        }
        // The time of the last success alone is not worth a commit.
        let episode = |state: &ProviderState| (state.refused_since, state.silent_since, state.silence_told);
        if events.is_empty() && episode(state) == episode(&self.stored) {
            return None;
        }
        self.stored = state.clone();
        Some(Report { state: state.clone(), events, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::later;
    use http::{HeaderMap, StatusCode};

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn status(code: u16) -> Failure {
        Failure::from_status(StatusCode::from_u16(code).unwrap(), &HeaderMap::new(), None)
    }

    fn told(report: Option<Report>) -> Vec<EventType> {
        report.into_iter().flat_map(|report| report.events).map(|event| event.kind).collect()
    }

    #[test]
    fn a_refused_key_is_told_once_and_so_is_its_end() {
        let mut health = Health::remembered(ProviderState::default());
        assert_eq!(told(health.note("openai", Some(&status(401)), NOW)), [EventType::ProviderUnauthorized]);
        assert!(health.note("openai", Some(&status(403)), NOW).is_none());
        let mut restarted = Health::remembered(health.state().clone());
        assert!(restarted.note("openai", Some(&status(401)), NOW).is_none());
        assert_eq!(told(restarted.note("openai", None, NOW)), [EventType::ProviderRecovered]);
        assert!(restarted.note("openai", None, NOW).is_none());
    }

    #[test]
    fn silence_is_told_after_ten_minutes() {
        let mut health = Health::remembered(ProviderState::default());
        assert_eq!(told(health.note("openai", Some(&Failure::Reset), NOW)), []);
        let soon = later(NOW, Duration::from_secs(599));
        assert!(health.note("openai", Some(&status(500)), soon).is_none());
        let late = later(NOW, Duration::from_mins(10));
        assert_eq!(
            told(health.note("openai", Some(&Failure::Reset), late)),
            [EventType::ProviderUnreachable]
        );
        assert!(health.note("openai", Some(&Failure::Reset), late).is_none());
        assert_eq!(told(health.note("openai", Some(&status(404)), late)), [EventType::ProviderRecovered]);
    }

    #[test]
    fn a_short_silence_is_not_worth_a_word() {
        let mut health = Health::remembered(ProviderState::default());
        health.note("openai", Some(&Failure::Reset), NOW);
        assert_eq!(told(health.note("openai", None, later(NOW, Duration::from_mins(1)))), []);
    }
}
