//! Whether an account answers, and what of that is worth telling: one message an episode, and its end.

use crate::domain::event::{Draft, EventType};
use crate::domain::time::since;
use crate::http::failure::{Failure, Verdict};
use crate::store::providers::ProviderState;
use jiff::Timestamp;
use std::time::Duration;

/// After this long without a useful answer an account counts as unreachable.
const UNREACHABLE_AFTER: Duration = Duration::from_mins(10);

/// How an account has answered lately, and what of that is still to be stored.
#[derive(Debug)]
pub(super) struct Health {
    state: ProviderState,
    /// What the database holds.
    stored: ProviderState,
    /// Events that the database does not hold yet, oldest first.
    owed: Vec<Draft>,
}

/// What is to be stored of an account's health.
#[derive(Debug)]
pub(super) struct Report {
    pub state: ProviderState,
    pub events: Vec<Draft>,
}

impl Health {
    pub(super) fn remembered(state: ProviderState) -> Self {
        Self { stored: state.clone(), state, owed: Vec::new() }
    }

    pub(super) fn state(&self) -> &ProviderState {
        &self.state
    }

    /// The provider wants to be left alone until then.
    pub(super) const fn hold(&mut self, until: Timestamp) {
        self.state.held_until = Some(until);
    }

    /// What is worth a commit: an episode that began or ended, a wish to be left alone. The time of the last success
    /// alone is not.
    pub(super) fn report(&self) -> Option<Report> {
        let episode = |state: &ProviderState| {
            (state.refused_since, state.silent_since, state.silence_told, state.held_until)
        };
        let news = !self.owed.is_empty() || episode(&self.state) != episode(&self.stored);
        news.then(|| Report { state: self.state.clone(), events: self.owed.clone() })
    }

    /// `report` has been stored; until then every next one says the same again.
    pub(super) fn stored(&mut self, report: Report) {
        self.owed.drain(..report.events.len().min(self.owed.len()));
        self.stored = report.state;
    }

    /// Notes how a request to `provider` ended; the message if that begins or ends an episode.
    pub(super) fn note(
        &mut self,
        provider: &str,
        failure: Option<&Failure>,
        now: Timestamp,
    ) -> Option<Episode> {
        let state = &mut self.state;
        state.last_error = failure.map(ToString::to_string);
        // A clock that was set back must not make an episode begin in the future.
        for since in [&mut state.refused_since, &mut state.silent_since].into_iter().flatten() {
            *since = now.min(*since);
        }
        let (kind, begun, words) = match failure.map(Failure::verdict) {
            // Whatever the answer was about, there was one, and the key was accepted.
            None | Some(Verdict::Missing) => {
                let begun = state.refused_since.or(state.silent_since.filter(|_| state.silence_told));
                state.refused_since = None;
                state.silent_since = None;
                state.silence_told = false;
                state.last_success_at = Some(now);
                (EventType::ProviderRecovered, begun?, format!("{provider} answers again"))
            }
            Some(Verdict::Refused) => {
                state.silent_since = None;
                state.silence_told = false;
                if state.refused_since.is_some() {
                    return None;
                }
                state.refused_since = Some(now);
                let words = format!(
                    "{provider} refuses the key ({}); its batches are polled less often until it accepts one",
                    failure.map(ToString::to_string).unwrap_or_default()
                );
                (EventType::ProviderUnauthorized, now, words)
            }
            // An answer, but not one that ends what was told.
            Some(Verdict::Hold(_)) => {
                state.silent_since = state.silent_since.filter(|_| state.silence_told);
                return None;
            }
            Some(Verdict::Again) => {
                let begun = *state.silent_since.get_or_insert(now);
                if state.silence_told || since(begun, now) < UNREACHABLE_AFTER {
                    return None;
                }
                state.silence_told = true;
                let words = format!(
                    "{provider} has not given a useful answer for ten minutes ({})",
                    failure.map(ToString::to_string).unwrap_or_default()
                );
                (EventType::ProviderUnreachable, begun, words)
            }
        };
        self.owed.push(Draft::about_provider(kind, provider, &words, begun, now));
        Some(Episode { kind, message: words })
    }
}

/// An episode's beginning or end.
#[derive(Debug)]
pub(super) struct Episode {
    pub kind: EventType,
    pub message: String,
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

    /// Notes an answer, stores what is to be stored and gives the types of the events among it.
    fn told(health: &mut Health, failure: Option<&Failure>, now: Timestamp) -> Vec<EventType> {
        health.note("openai", failure, now);
        let Some(report) = health.report() else { return Vec::new() };
        let kinds = report.events.iter().map(|event| event.kind).collect();
        health.stored(report);
        kinds
    }

    #[test]
    fn a_refused_key_is_told_once_and_so_is_its_end() {
        let mut health = Health::remembered(ProviderState::default());
        assert_eq!(told(&mut health, Some(&status(401)), NOW), [EventType::ProviderUnauthorized]);
        assert_eq!(told(&mut health, Some(&status(403)), NOW), []);
        let mut restarted = Health::remembered(health.state().clone());
        assert_eq!(told(&mut restarted, Some(&status(401)), NOW), []);
        assert_eq!(told(&mut restarted, None, NOW), [EventType::ProviderRecovered]);
        assert_eq!(told(&mut restarted, None, NOW), []);
    }

    #[test]
    fn silence_is_told_after_ten_minutes() {
        let mut health = Health::remembered(ProviderState::default());
        assert_eq!(told(&mut health, Some(&Failure::Reset), NOW), []);
        let soon = later(NOW, Duration::from_secs(599));
        assert_eq!(told(&mut health, Some(&status(500)), soon), []);
        let late = later(NOW, Duration::from_mins(10));
        assert_eq!(told(&mut health, Some(&Failure::Reset), late), [EventType::ProviderUnreachable]);
        assert_eq!(told(&mut health, Some(&Failure::Reset), late), []);
        // "Too many requests" is an answer, but it does not end what was told.
        assert_eq!(told(&mut health, Some(&status(429)), late), []);
        assert_eq!(told(&mut health, Some(&status(404)), late), [EventType::ProviderRecovered]);
    }

    #[test]
    fn a_short_silence_is_not_worth_a_word() {
        let mut health = Health::remembered(ProviderState::default());
        told(&mut health, Some(&Failure::Reset), NOW);
        assert_eq!(told(&mut health, None, later(NOW, Duration::from_mins(1))), []);
    }

    #[test]
    fn what_could_not_be_stored_is_owed_until_it_is() {
        let mut health = Health::remembered(ProviderState::default());
        health.note("openai", Some(&status(401)), NOW);
        assert!(health.report().is_some(), "a report that is never stored");
        health.note("openai", Some(&status(401)), NOW);
        let report = health.report().unwrap();
        health.note("openai", None, NOW);
        health.stored(report);
        assert_eq!(told(&mut health, None, NOW), [EventType::ProviderRecovered]);
        assert!(health.report().is_none());
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_put_off_the_word() {
        let mut health = Health::remembered(ProviderState::default());
        told(&mut health, Some(&Failure::Reset), later(NOW, Duration::from_hours(5)));
        told(&mut health, Some(&Failure::Reset), NOW);
        let late = later(NOW, Duration::from_mins(10));
        assert_eq!(told(&mut health, Some(&Failure::Reset), late), [EventType::ProviderUnreachable]);
    }
}
