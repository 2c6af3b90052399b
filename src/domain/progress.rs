//! When a batch will be through by the pace of its requests, and how sure that is.

#![expect(clippy::cast_precision_loss, reason = "spans and counts far below 2^52, for an estimate")]

use super::time::{from_millis, since};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How many of a batch's requests were over at some of the checks of it: few, and the farther back the farther apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Trail(Vec<(i64, u64)>);

/// When the last request should be over, told from the last mark of a trail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Seconds since that mark.
    pub elapsed: f64,
    /// Seconds from the mark until, as likely as not, all requests are over.
    pub typical: f64,
    /// The greater, the surer: a log-logistic distribution's shape.
    pub shape: f64,
    /// The chance that pace says nothing about this batch's end.
    pub doubt: f64,
}

impl Trail {
    /// Notes that `done` requests were over at `at`.
    pub fn mark(&mut self, at: Timestamp, done: u64) {
        let at = at.as_millisecond();
        // A count that falls, or a clock that was set back, is the beginning of another story.
        if self.0.last().is_some_and(|(before, fewer)| *before >= at || *fewer >= done) {
            self.0.clear();
        }
        self.0.push((at, done));
        if self.0.len() > MAX_MARKS {
            // The one whose neighbours are closest, measured by how long ago they are.
            let ago = |index: usize| at - self.0[index].0 + 1;
            let crowded = (1..MAX_MARKS - 1).min_by(|a, b| {
                let gap = |index: usize| ago(index - 1) as f64 / ago(index + 1) as f64;
                gap(*a).total_cmp(&gap(*b))
            });
            self.0.remove(crowded.unwrap_or(1));
        }
    }

    /// When all `total` requests should be over. `began`: when work began; it counts as a mark if there is only one
    /// other. `None` without a pace, or if all are over already.
    pub fn forecast(&self, began: Option<Timestamp>, total: u64, now: Timestamp) -> Option<Forecast> {
        let (last, done) = *self.0.last()?;
        let open = total.checked_sub(done).filter(|open| *open > 0)? as f64;
        let marks = || {
            let began = began.map(|at| (at.as_millisecond(), 0)).filter(|_| self.0.len() == 1);
            began.into_iter().chain(self.0.iter().copied())
        };
        let (first, before) = marks().next()?;
        let span = (last - first) as f64 / 1000.0;
        let gained = done.saturating_sub(before) as f64;
        if span < 1.0 || gained < 1.0 {
            return None;
        }
        let per_request = span / gained;
        let typical = open * per_request;
        // How far the time that a stretch took is off the steady pace, per second of it: as for a random walk.
        let mut wander = EXPECTED * span;
        let mut stretches = 1.0;
        for ((from, before), (to, after)) in marks().zip(marks().skip(1)) {
            let took = (to - from) as f64 / 1000.0;
            wander += (took - (after - before) as f64 * per_request).powi(2) / took.max(1.0);
            stretches += 1.0;
        }
        wander /= stretches;
        // What is ahead wanders, the pace itself is known from the span behind only, and when within the time that one
        // request takes a count has moved is not known at all.
        let unseen = 1.0 / (6.0 * open * open);
        let spread = (wander * (1.0 / span + 1.0 / typical) + unseen).min(1.0) + LEAST_SPREAD;
        Some(Forecast {
            elapsed: since(from_millis(last), now).as_secs_f64(),
            typical,
            shape: std::f64::consts::PI / (3.0 * spread).sqrt(),
            doubt: 1.0 / (DOUBTED + 3.0 * stretches),
        })
    }
}

impl Forecast {
    /// The chance per second that all is over `ahead` seconds from now, and the chance that it is not before.
    pub fn at(&self, ahead: f64) -> (f64, f64) {
        let age = (self.elapsed + ahead).max(1e-3);
        let odds = (age / self.typical).powf(self.shape);
        let left = 1.0 / (1.0 + odds);
        (self.shape / age * odds * left * left, left)
    }

    /// Over how many seconds its end is uncertain: nothing changes much faster.
    pub fn grain(&self) -> f64 {
        self.typical / self.shape
    }
}

/// So many marks tell the pace and its steadiness.
const MAX_MARKS: usize = 8;
/// How unsteady a pace of which nothing else is known is taken to be: the variance of a span, by its square.
const EXPECTED: f64 = 0.02;
/// No clock of requests is surer than this, in squared parts of the time that is left.
const LEAST_SPREAD: f64 = 0.0009;
/// How much is doubted before there is anything to go by.
const DOUBTED: f64 = 6.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::later;
    use proptest::prelude::*;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn at(seconds: u64) -> Timestamp {
        later(NOW, Duration::from_secs(seconds))
    }

    fn trail(marks: &[(u64, u64)]) -> Trail {
        let mut trail = Trail::default();
        for (seconds, done) in marks {
            trail.mark(at(*seconds), *done);
        }
        trail
    }

    #[test]
    fn a_steady_pace_tells_the_end() {
        let steady = trail(&[(60, 10), (120, 20), (600, 100)]);
        let forecast = steady.forecast(Some(NOW), 400, at(660)).unwrap();
        assert!((forecast.typical - 1800.0).abs() < 1.0, "{forecast:?}");
        assert!((forecast.elapsed - 60.0).abs() < 1e-9);
        let left = |ahead| forecast.at(ahead).1;
        assert!(left(1000.0) > 0.95 && (left(1740.0) - 0.5).abs() < 0.01 && left(2800.0) < 0.05);

        let unsteady = trail(&[(60, 2), (120, 40), (600, 100)]);
        let doubtful = unsteady.forecast(Some(NOW), 400, at(660)).unwrap();
        assert!(doubtful.shape < forecast.shape, "{doubtful:?} {forecast:?}");
    }

    #[test]
    fn without_a_pace_there_is_no_forecast() {
        assert_eq!(Trail::default().forecast(Some(NOW), 400, at(60)), None);
        assert_eq!(trail(&[(60, 10)]).forecast(None, 400, at(60)), None, "one mark has no pace");
        assert!(trail(&[(60, 10)]).forecast(Some(NOW), 400, at(60)).is_some());
        assert_eq!(trail(&[(60, 10), (90, 400)]).forecast(None, 400, at(99)), None, "all are over");
        assert_eq!(trail(&[(60, 10), (90, 500)]).forecast(None, 400, at(99)), None, "more than all");
    }

    #[test]
    fn counts_that_fall_begin_another_story() {
        assert_eq!(trail(&[(60, 10), (90, 20), (120, 3)]), trail(&[(120, 3)]));
        assert_eq!(trail(&[(60, 10), (30, 20)]), trail(&[(30, 20)]), "a clock that was set back");
    }

    proptest! {
        #[test]
        fn a_trail_stays_short_and_keeps_its_ends(gaps in prop::collection::vec((1_u64..1000, 1_u64..50), 1..60)) {
            let (mut seconds, mut done) = (0, 0);
            let mut trail = Trail::default();
            for (gap, more) in &gaps {
                (seconds, done) = (seconds + gap, done + more);
                trail.mark(at(seconds), done);
            }
            prop_assert!(trail.0.len() <= MAX_MARKS);
            prop_assert_eq!(trail.0.first(), Some(&(at(gaps[0].0).as_millisecond(), gaps[0].1)));
            prop_assert_eq!(trail.0.last(), Some(&(at(seconds).as_millisecond(), done)));
            prop_assert!(trail.0.windows(2).all(|pair| pair[0] < pair[1]));
            let text = serde_json::to_string(&trail).unwrap();
            prop_assert_eq!(serde_json::from_str::<Trail>(&text).unwrap(), trail.clone());
            if let Some(forecast) = trail.forecast(Some(NOW), done + 1000, at(seconds)) {
                let (density, left) = forecast.at(forecast.typical);
                prop_assert!(density.is_finite() && (left - 0.5).abs() < 0.01, "{:?}", forecast);
                prop_assert!(forecast.shape.is_finite() && forecast.doubt > 0.0 && forecast.doubt < 1.0);
            }
        }
    }
}
