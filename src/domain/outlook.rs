//! A live batch's chances of ending from now on: what its like teach, what its own progress says, and where both are
//! silent, its age.

use super::hazard::{Estimate, UNSEEN};
use super::progress::Forecast;

/// What the end of one batch is foreseen by.
#[derive(Clone, Copy, Debug)]
pub struct Outlook<'a> {
    /// Seconds since its present stage began.
    pub age: f64,
    /// Seconds since anything was last heard of it that changes what to expect: its status.
    pub quiet: f64,
    /// Seconds before which age makes no difference.
    pub youth: f64,
    /// What its like teach.
    pub estimate: Option<&'a Estimate>,
    /// What its progress says.
    pub forecast: Option<Forecast>,
}

/// A moment ahead: the chance per second that the batch ends then, and the chance that it has not ended before.
#[derive(Clone, Copy)]
struct Moment {
    hazard: f64,
    ahead: f64,
}

impl Outlook<'_> {
    /// Seconds until ∫ √hazard has come to `effort`; `most` if it does not within that.
    ///
    /// The integral, not the hazard at this instant: between two modes that is near zero, and a local rule would leap
    /// over the start of the second.
    pub fn until(&self, effort: f64, most: f64) -> f64 {
        if self.estimate.is_none() && self.forecast.is_none() {
            // ∫ √(1/t) = 2√t
            let root = (self.quiet + self.youth).sqrt();
            return (effort * root + effort * effort / 4.0).min(most);
        }
        let (mut sum, mut from) = (0.0, 0.0);
        for moment in self.moments(most) {
            let gained = moment.hazard.sqrt() * (moment.ahead - from);
            if sum + gained >= effort {
                return from + (moment.ahead - from) * (effort - sum) / gained.max(f64::MIN_POSITIVE);
            }
            sum += gained;
            from = moment.ahead;
        }
        most
    }

    /// Seconds until as many of such batches as each of `shares` says (ascending) will have ended; `None` if nothing
    /// but age is known of them.
    pub fn quantiles<const N: usize>(&self, shares: [f64; N]) -> Option<[f64; N]> {
        if !self.is_informed() {
            return None;
        }
        let (mut found, mut next) = ([0.0; N], 0);
        let (mut passed, mut from) = (0.0, 0.0);
        for moment in self.moments(FARTHEST) {
            let gained = moment.hazard * (moment.ahead - from);
            while next < N && passed + gained >= -(1.0 - shares[next]).ln() {
                let missing = -(1.0 - shares[next]).ln() - passed;
                found[next] = from + (moment.ahead - from) * missing / gained.max(f64::MIN_POSITIVE);
                next += 1;
            }
            if next == N {
                return Some(found);
            }
            passed += gained;
            from = moment.ahead;
        }
        None
    }

    /// Whether more than its age tells of its end: progress, or others that were seen at its age.
    pub fn is_informed(&self) -> bool {
        self.forecast.is_some() || self.estimate.is_some_and(|estimate| estimate.at(self.age).1 >= ENOUGH)
    }

    /// The hazard over steps into the future that are short enough to see what there is, up to `most` seconds.
    fn moments(&self, most: f64) -> impl Iterator<Item = Moment> {
        let (mut ahead, mut steps) = (0.0, 0);
        // What the batch's like and its age leave of it.
        let mut surviving = 1.0_f64;
        std::iter::from_fn(move || {
            if ahead >= most || steps == STEPS {
                return None;
            }
            steps += 1;
            let mut step = (self.quiet + ahead + self.youth) / 8.0;
            if self.estimate.is_some() {
                step = step.min((self.age + ahead).max(1.0) / 32.0);
            }
            if let Some(forecast) = &self.forecast
                && forecast.elapsed + ahead < 4.0 * forecast.typical
            {
                step = step.min(forecast.grain() / 3.0);
            }
            let step = step.max(0.2).min(most - ahead);
            let middle = ahead + step / 2.0;
            let mut hazard = self.by_age(middle);
            if let Some(forecast) = &self.forecast {
                let (density, left) = forecast.at(middle);
                let trusted = 1.0 - forecast.doubt;
                let doubted = forecast.doubt * surviving;
                surviving *= (-hazard * step).exp();
                let going_on = trusted * left + doubted;
                hazard = (trusted * density + doubted * hazard) / going_on.max(f64::MIN_POSITIVE);
            }
            ahead += step;
            Some(Moment { hazard, ahead })
        })
    }

    /// The hazard by age alone: with every batch that was seen at that age, what is learnt counts for more.
    fn by_age(&self, ahead: f64) -> f64 {
        let unseen = 1.0 / (self.quiet + ahead + self.youth);
        match self.estimate {
            Some(estimate) => {
                let (learnt, seen) = estimate.at(self.age + ahead);
                (learnt * seen + unseen * UNSEEN) / (seen + UNSEEN)
            }
            None => unseen,
        }
    }
}

/// So many must have been seen at a batch's age before their ends say when it ends.
const ENOUGH: f64 = 3.0;
/// What is farther ahead than 60 days is not foreseen.
const FARTHEST: f64 = 60.0 * 86_400.0;
/// More steps than any interval needs.
const STEPS: usize = 4096;
