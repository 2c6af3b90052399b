//! When a batch will be through by the pace of its requests, and how sure that is.

#![expect(clippy::cast_precision_loss, reason = "spans and counts far below 2^52, for an estimate")]

use super::time::{from_millis, since};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How many of a batch's requests were over at some of the looks at it: few, and the farther back the farther apart.
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
        if self.0.len() > LONGEST {
            // The one whose neighbours are closest, measured by how long ago they are.
            let ago = |index: usize| at - self.0[index].0 + 1;
            let crowded = (1..LONGEST - 1).min_by(|a, b| {
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
const LONGEST: usize = 8;
/// How unsteady a pace of which nothing else is known is taken to be: the variance of a span, by its square.
const EXPECTED: f64 = 0.02;
/// No clock of requests is surer than this, in squared parts of the time that is left.
const LEAST_SPREAD: f64 = 0.0009;
/// How much is doubted before there is anything to go by.
const DOUBTED: f64 = 6.0;
