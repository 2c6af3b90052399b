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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::hazard::Span;
    use crate::domain::history::{Class, Stage};
    use proptest::prelude::*;

    fn estimate(durations: &[f64]) -> Estimate {
        let spans: Vec<Span> =
            durations.iter().map(|seconds| Span { seconds: *seconds, ended: true, weight: 1.0 }).collect();
        let class = Class {
            provider: "openai".to_owned(),
            stage: Stage::Work,
            endpoint: None,
            model: None,
            size: None,
        };
        Estimate::learn(class, &spans, None)
    }

    fn outlook(age: f64, estimate: Option<&Estimate>) -> Outlook<'_> {
        Outlook { age, quiet: age, youth: 60.0, estimate, forecast: None }
    }

    /// Checks as the rule places them, from `age` on, as far as `until`.
    fn checks(mut age: f64, until: f64, estimate: &Estimate, effort: f64) -> Vec<f64> {
        let mut checks = Vec::new();
        while age < until {
            age += outlook(age, Some(estimate)).until(effort * estimate.thrift(), f64::INFINITY).max(1.0);
            checks.push(age);
        }
        checks
    }

    #[test]
    fn nothing_known_is_the_same_in_closed_form_and_by_steps() {
        let nothing = estimate(&[]);
        for age in [0.0, 60.0, 3600.0, 100_000.0] {
            for effort in [0.5, 2.0, 10.0] {
                let (closed, steps) =
                    (outlook(age, None).until(effort, 1e6), outlook(age, Some(&nothing)).until(effort, 1e6));
                assert!((steps / closed - 1.0).abs() < 0.02, "{age} {effort}: {closed} {steps}");
            }
        }
        assert!((nothing.thrift() - 1.0).abs() < 1e-6);
        assert_eq!(outlook(60.0, Some(&nothing)).quantiles([0.5]), None);
    }

    #[test]
    fn what_remains_is_foretold_from_those_that_got_as_far() {
        let durations: Vec<f64> = (0..100)
            .map(|number| if number < 50 { 600.0 + f64::from(number) } else { 6000.0 + f64::from(number) })
            .collect();
        let estimate = estimate(&durations);
        let [early] = outlook(60.0, Some(&estimate)).quantiles([0.25]).unwrap();
        assert!((450.0..700.0).contains(&early), "{early}");
        let [low, half, high] = outlook(1500.0, Some(&estimate)).quantiles([0.1, 0.5, 0.9]).unwrap();
        assert!(low < half && half < high);
        assert!((4000.0..5200.0).contains(&half), "{half}");
    }

    #[test]
    fn a_pace_is_followed_and_a_pace_that_did_not_hold_is_not() {
        let forecast = Forecast { elapsed: 0.0, typical: 1800.0, shape: 30.0, doubt: 0.05 };
        let ahead = Outlook { forecast: Some(forecast), ..outlook(600.0, None) };
        let [half] = ahead.quantiles([0.5]).unwrap();
        assert!((half - 1800.0).abs() < 100.0, "{half}");
        let near = Outlook { forecast: Some(Forecast { elapsed: 1780.0, ..forecast }), ..ahead };
        assert!(near.until(2.0, 900.0) < ahead.until(2.0, 900.0));
        // Long after all should have been over, only age tells.
        let broken =
            Outlook { forecast: Some(Forecast { elapsed: 18_000.0, ..forecast }), ..outlook(20_000.0, None) };
        let silent = outlook(20_000.0, None);
        let (broken, silent) = (broken.until(2.0, 1e6), silent.until(2.0, 1e6));
        assert!((broken / silent - 1.0).abs() < 0.1, "{broken} {silent}");
    }

    proptest! {
        #[test]
        fn no_mode_is_leapt_over(
            first in 100.0_f64..2000.0, ratio in 3.0_f64..40.0, share in 0.2_f64..0.8, budget in 30.0_f64..60.0,
        ) {
            let second = first * ratio;
            let durations: Vec<f64> = (0..100)
                .map(|number| {
                    let around = 0.9 + 0.2 * (f64::from(number) * 0.618).fract();
                    around * if f64::from(number) < 100.0 * share { first } else { second }
                })
                .collect();
            let estimate = estimate(&durations);
            // Under this a batch gets about so many checks.
            let mean = durations.iter().map(|duration| duration.sqrt()).sum::<f64>() / 100.0;
            let checks = checks(1.0, second * 2.0, &estimate, 2.0 * mean / budget);
            for mode in [first, second] {
                let within = checks.iter().filter(|at| (mode * 0.85..mode * 1.25).contains(*at)).count();
                prop_assert!(within >= 2, "{} checks around {}: {:?}", within, mode, checks);
            }
        }

        #[test]
        fn it_always_comes_and_never_after_the_most(
            age in 0.0_f64..1e7, quiet in 0.0_f64..1e7, effort in 1e-3_f64..1e3, most in 1.0_f64..1e6,
            durations in prop::collection::vec(1.0_f64..1e6, 0..20),
            pace in prop::option::of((0.0_f64..1e5, 0.1_f64..1e5, 1.0_f64..60.0)),
        ) {
            let estimate = estimate(&durations);
            let forecast =
                pace.map(|(elapsed, typical, shape)| Forecast { elapsed, typical, shape, doubt: 0.1 });
            let outlook = Outlook { age, quiet, youth: 60.0, estimate: Some(&estimate), forecast };
            let ahead = outlook.until(effort, most);
            prop_assert!(ahead > 0.0 && ahead <= most, "{}", ahead);
            prop_assert!(outlook.until(effort * 2.0, most) >= ahead);
            if let Some(found) = outlook.quantiles([0.1, 0.5, 0.9]) {
                prop_assert!(found.is_sorted() && found[0] >= 0.0, "{:?}", found);
            }
        }
    }
}
