//! How likely a batch of some age is to end within the next moment, learnt from what its like took.

use super::history::Class;
use std::sync::Arc;
use std::time::Duration;

/// How long one batch took, or how long it has gone on or was watched without an end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    pub seconds: f64,
    /// Whether it ended then; otherwise it is known to take longer.
    pub ended: bool,
    /// How many batches it stands for.
    pub weight: f64,
}

/// What is learnt of a class of batches: their hazard by age, and what is usual among them.
///
/// A kernel estimate in the logarithm of time, over the Kaplan–Meier weights of the durations, so that batches which
/// have not ended count for what they are. One width serves all modes: the one under which each duration is best
/// foretold by the others. Where few of a class are known, it leans on the coarser one.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    class: Class,
    /// Ends that it was learnt from.
    count: usize,
    /// By age: hazard × age, and how many batches were seen at that age.
    table: Box<[(f32, f32)]>,
    thrift: f64,
    usual: Option<Usual>,
    most: Option<Duration>,
    coarser: Option<Arc<Estimate>>,
}

/// The duration that half of a class keeps within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usual {
    /// Whole seconds.
    pub seconds: u64,
    /// From how many ends it is known.
    pub count: usize,
}

impl Estimate {
    /// Learns from `spans`, of which those of `coarser` are a superset.
    pub fn learn(class: Class, spans: &[Span], coarser: Option<Arc<Self>>) -> Self {
        let survival = kaplan_meier(spans);
        let count = spans.iter().filter(|span| span.ended).count();
        let mut table = smooth(spans, &survival);
        if let Some(coarser) = &coarser {
            for (own, theirs) in table.iter_mut().zip(&coarser.table) {
                let (leaning, seen) = (theirs.1.min(LEANING), own.1);
                if seen + leaning > 0.0 {
                    own.0 = (own.0 * seen + theirs.0 * leaning) / (seen + leaning);
                    own.1 = seen + leaning;
                }
            }
        }
        let quantile = |share: f64| survival.iter().find(|step| step.left <= 1.0 - share).map(|step| step.at);
        let usual = quantile(0.5)
            .filter(|_| count >= FEW)
            .map(|seconds| Usual { seconds: Duration::from_secs_f64(seconds).as_secs(), count });
        let most = quantile(0.99).filter(|_| count >= MANY).map(Duration::from_secs_f64);
        let thrift = thrift(&table);
        Self { class, count, table, thrift, usual, most, coarser }
    }

    /// The chance per second that a batch of `age` seconds ends, and how many batches that is known from.
    ///
    /// Between what was seen and what was not there is no edge: the further a batch gets beyond all others, the less
    /// is known of it.
    pub fn at(&self, age: f64) -> (f64, f64) {
        let age = age.max(1.0);
        let place = (age.ln() / STEP).min(LAST);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the table")]
        let index = place as usize;
        let share = place - place.floor();
        let (low, high) = (self.table[index], self.table[(index + 1).min(POINTS - 1)]);
        let between = |low: f32, high: f32| f64::from(low) * (1.0 - share) + f64::from(high) * share;
        (between(low.0, high.0) / age, between(low.1, high.1))
    }

    /// By how much better placed checks are with this estimate than without: what a check may be worth more so that
    /// a batch still gets as many.
    pub fn thrift(&self) -> f64 {
        self.thrift
    }

    /// Of the finest class that has some ends: whom this was mostly learnt from.
    pub fn mostly(&self) -> Option<(&Class, usize)> {
        match &self.coarser {
            Some(coarser) if self.count < FEW && coarser.count > self.count => coarser.mostly(),
            _ => (self.count > 0).then_some((&self.class, self.count)),
        }
    }

    /// The usual duration in the finest class that has one.
    pub fn usual(&self) -> Option<Usual> {
        self.usual.or_else(|| self.coarser.as_ref()?.usual())
    }

    /// What 99 of 100 in the finest class that tells keep within.
    pub fn most(&self) -> Option<Duration> {
        self.most.or_else(|| self.coarser.as_ref()?.most())
    }
}

/// What is left of all batches after an instant at which some ended.
struct Fall {
    at: f64,
    /// The share that ended then.
    lost: f64,
    /// The share that goes on.
    left: f64,
}

/// The Kaplan–Meier estimate: each end takes its share of those that could still end then.
fn kaplan_meier(spans: &[Span]) -> Vec<Fall> {
    let mut sorted: Vec<&Span> = spans.iter().filter(|span| span.weight > 0.0).collect();
    // At the same instant the ends come first: who was watched until then could have been one of them.
    sorted.sort_by(|a, b| a.seconds.total_cmp(&b.seconds).then(b.ended.cmp(&a.ended)));
    let mut at_risk: f64 = sorted.iter().map(|span| span.weight).sum();
    let mut left = 1.0;
    let mut falls = Vec::new();
    for span in sorted {
        if span.ended {
            let lost = left * (span.weight / at_risk).min(1.0);
            left -= lost;
            falls.push(Fall { at: span.seconds, lost, left });
        }
        at_risk -= span.weight;
    }
    falls
}

/// Hazard × age and how many were seen, by age, from the steps of the survival.
fn smooth(spans: &[Span], survival: &[Fall]) -> Box<[(f32, f32)]> {
    let mut ends = vec![0.0; POINTS];
    let mut counts = vec![0.0_f64; POINTS];
    for fall in survival {
        ends[point(fall.at)] += fall.lost;
        counts[point(fall.at)] += 1.0;
    }
    let mut seen = vec![0.0; POINTS];
    for span in spans {
        seen[point(span.seconds)] += span.weight;
    }
    let kernel = best_kernel(&ends, &counts);
    let ends = spread(&ends, &kernel);
    let seen = spread(&seen, &kernel);
    let (mut left, mut later) = (survival.last().map_or(1.0, |fall| fall.left), 0.0);
    let mut table = vec![(0.0, 0.0); POINTS].into_boxed_slice();
    for index in (0..POINTS).rev() {
        // Half of what falls on a point comes after it.
        let (surviving, at_risk) = (left + ends[index] / 2.0, later + seen[index] / 2.0);
        left += ends[index];
        later += seen[index];
        #[expect(clippy::cast_possible_truncation, reason = "a rough number is all it is")]
        if surviving > 0.0 && at_risk > 0.0 {
            table[index] = ((ends[index] / (surviving * STEP)) as f32, at_risk as f32);
        }
    }
    table
}

/// Half of a bell, by the distance in points: of the width under which each end is best foretold by the others.
fn best_kernel(ends: &[f64], counts: &[f64]) -> Vec<f64> {
    let total: f64 = counts.iter().sum();
    // A few durations say little of how far apart durations are.
    let narrowest = (0.6 / total.max(1.0).sqrt()).max(NARROWEST);
    let occupied: Vec<(usize, f64, f64)> = (0..POINTS)
        .filter(|index| ends[*index] > 0.0)
        .map(|index| (index, ends[index], ends[index] / counts[index].max(1.0)))
        .collect();
    let foretold = |kernel: &[f64]| -> f64 {
        let near = |a: usize, b: usize| kernel.get(a.abs_diff(b)).copied().unwrap_or(0.0);
        occupied
            .iter()
            .map(|(place, mass, own)| {
                let all: f64 = occupied.iter().map(|(other, mass, _)| mass * near(*place, *other)).sum();
                mass * (all - own * kernel[0]).max(1e-12).ln()
            })
            .sum()
    };
    let widths = std::iter::successors(Some(WIDEST), |width| Some(width * 0.82));
    let mut best = (f64::NEG_INFINITY, bell(narrowest.max(WIDEST)));
    for width in widths.take_while(|width| *width > narrowest).chain([narrowest]) {
        let kernel = bell(width);
        let score = if total > 1.0 { foretold(&kernel) } else { 0.0 };
        // Of equals the narrower: with one end nothing else decides.
        if score >= best.0 {
            best = (score, kernel);
        }
    }
    best.1
}

/// Half of a normal bell `width` wide in the logarithm of time; the whole sums to 1.
fn bell(width: f64) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let half: Vec<f64> = (0..POINTS)
        .map(|distance| distance as f64 * STEP / width)
        .take_while(|distance| *distance <= 4.5)
        .map(|distance| (-0.5 * distance * distance).exp())
        .collect();
    let whole = half.iter().sum::<f64>() * 2.0 - half[0];
    half.into_iter().map(|value| value / whole).collect()
}

/// What lies on the points, spread by `kernel`; what would fall off the ends stays on them.
fn spread(mass: &[f64], kernel: &[f64]) -> Vec<f64> {
    let mut spread = vec![0.0; POINTS];
    for (index, mass) in mass.iter().enumerate().filter(|(_, mass)| **mass > 0.0) {
        spread[index] += mass * kernel[0];
        for (distance, share) in kernel.iter().enumerate().skip(1) {
            spread[index.saturating_sub(distance)] += mass * share;
            spread[(index + distance).min(POINTS - 1)] += mass * share;
        }
    }
    spread
}

/// See [`Estimate::thrift`]: ∫ S·√h over ∫ S·√(1/t), which is 1 for those of whom nothing is known.
fn thrift(table: &[(f32, f32)]) -> f64 {
    let (mut placed, mut unplaced, mut surviving) = (0.0, 0.0, 1.0);
    for (index, (scaled, seen)) in table.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let age = (index as f64 * STEP).exp();
        let (scaled, seen) = (f64::from(*scaled), f64::from(*seen));
        let blended = (scaled * seen + UNSEEN) / (seen + UNSEEN);
        // Both integrands are per age, a step is age × STEP.
        placed += surviving * blended.sqrt() * age.sqrt();
        unplaced += surviving * age.sqrt();
        surviving *= (-blended * STEP).exp();
    }
    // Where all end at once the least interval allows no more checks there, and elsewhere they would be for nothing.
    (placed / unplaced).clamp(0.3, 2.0)
}

/// The point of the table next to `seconds`.
fn point(seconds: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the table")]
    let index = (seconds.max(1.0).ln() / STEP).round().min(LAST) as usize;
    index
}

/// The chance per age that a batch ends of which nothing is known is 1, and is believed as if it had been learnt from
/// so many batches.
pub const UNSEEN: f64 = 0.5;

/// How many batches the word of a coarser class is worth.
const LEANING: f32 = 5.0;
/// From so many ends on there is a usual duration.
const FEW: usize = 5;
/// From so many on there is one that hardly any exceeds.
const MANY: usize = 50;
/// Ages are kept from a second to 60 days, about 3 % apart.
const POINTS: usize = 512;
const STEP: f64 = 0.0303;
#[expect(clippy::cast_precision_loss, reason = "a few hundred")]
const LAST: f64 = (POINTS - 1) as f64;
/// In the logarithm of time.
const WIDEST: f64 = 1.5;
const NARROWEST: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::history::Stage;
    use proptest::prelude::*;

    fn class(size: Option<u8>) -> Class {
        Class {
            provider: "openai".to_owned(),
            stage: Stage::Work,
            endpoint: Some("/v1/responses".to_owned()),
            model: Some("gpt".to_owned()),
            size,
        }
    }

    fn ended(seconds: f64) -> Span {
        Span { seconds, ended: true, weight: 1.0 }
    }

    fn running(seconds: f64) -> Span {
        Span { ended: false, ..ended(seconds) }
    }

    fn learn(spans: &[Span]) -> Estimate {
        Estimate::learn(class(Some(3)), spans, None)
    }

    /// The share of those alive at `from` that are alive at `to`.
    fn surviving(estimate: &Estimate, from: f64, to: f64) -> f64 {
        let steps = 2000;
        let step = (to - from) / f64::from(steps);
        let sum: f64 =
            (0..steps).map(|index| estimate.at(from + (f64::from(index) + 0.5) * step).0 * step).sum();
        (-sum).exp()
    }

    #[test]
    fn ends_are_found_where_they_were() {
        let spans: Vec<Span> = (0..100).map(|number| ended(3000.0 + 12.0 * f64::from(number))).collect();
        let estimate = learn(&spans);
        assert!(surviving(&estimate, 1.0, 2000.0) > 0.99);
        let half = surviving(&estimate, 1.0, 3600.0);
        assert!((half - 0.5).abs() < 0.05, "{half}");
        assert_eq!(estimate.usual(), Some(Usual { seconds: 3588, count: 100 }));
        assert_eq!(estimate.most(), Some(Duration::from_secs(4176)));
        let (_, seen) = estimate.at(60.0);
        assert!((seen - 100.0).abs() < 1.0, "{seen}");
        let (_, seen) = estimate.at(36_000.0);
        assert!(seen < 1.0, "{seen}");
    }

    #[test]
    fn what_still_runs_counts_for_what_it_is() {
        let quick: Vec<Span> = (0..10).map(|number| ended(600.0 + f64::from(number))).collect();
        let mut both = quick.clone();
        both.extend((0..90).map(|_| running(3600.0)));
        let (alone, beside) = (learn(&quick), learn(&both));
        assert!(surviving(&alone, 1.0, 3000.0) < 0.01);
        let left = surviving(&beside, 1.0, 3000.0);
        assert!((left - 0.9).abs() < 0.02, "{left}");
        // Half of them have not ended: what is usual is not known yet.
        assert_eq!((alone.usual().map(|usual| usual.count), beside.usual()), (Some(10), None));
        let weighed = [quick, vec![Span { weight: 90.0, ..running(3600.0) }]].concat();
        assert!((surviving(&learn(&weighed), 1.0, 3000.0) - left).abs() < 1e-6);
    }

    #[test]
    fn two_modes_are_not_smeared_into_one() {
        let spans: Vec<Span> = (0..100)
            .map(|number| {
                let around = 1.0 + 0.2 * (f64::from(number) / 99.0 - 0.5);
                ended(around * if number % 2 == 0 { 600.0 } else { 21_600.0 })
            })
            .collect();
        let estimate = learn(&spans);
        let between = surviving(&estimate, 1000.0, 14_000.0);
        assert!(between > 0.95, "{between}");
        let first = surviving(&estimate, 1.0, 1000.0);
        assert!((first - 0.5).abs() < 0.03, "{first}");
    }

    #[test]
    fn few_lean_on_the_coarser_class_and_many_do_not() {
        let all: Vec<Span> = (0..100).map(|number| ended(3000.0 + f64::from(number))).collect();
        let coarser = Arc::new(Estimate::learn(class(None), &all, None));
        let lean = |count: usize| {
            let spans = vec![ended(300.0); count];
            Estimate::learn(class(Some(3)), &spans, Some(coarser.clone()))
        };
        let none = lean(0);
        assert_eq!(none.mostly().map(|(class, count)| (class.size, count)), Some((None, 100)));
        assert_eq!(none.usual(), coarser.usual());
        assert!(surviving(&none, 1.0, 1000.0) > 0.99);
        let early = [0, 1, 5, 50].map(|count| surviving(&lean(count), 1.0, 1000.0));
        assert!(early.is_sorted_by(|a, b| a > b), "{early:?}");
        let many = lean(50);
        assert_eq!(many.mostly().map(|(class, count)| (class.size, count)), Some((Some(3), 50)));
        assert_eq!(many.usual(), Some(Usual { seconds: 300, count: 50 }));
        assert_eq!(many.most(), Some(Duration::from_mins(5)));
    }

    proptest! {
        #[test]
        fn whatever_is_learnt_is_a_hazard(
            spans in prop::collection::vec((0.0_f64..1e8, any::<bool>(), 0.0_f64..100.0), 0..60),
            age in 0.0_f64..1e8,
        ) {
            let spans: Vec<Span> = spans
                .into_iter()
                .map(|(seconds, ended, weight)| Span { seconds, ended, weight: if ended { 1.0 } else { weight } })
                .collect();
            let estimate = learn(&spans);
            let (hazard, seen) = estimate.at(age);
            prop_assert!(hazard.is_finite() && hazard >= 0.0 && seen.is_finite() && seen >= 0.0, "{} {}", hazard, seen);
            prop_assert!(estimate.thrift().is_finite() && estimate.thrift() > 0.0);
        }
    }
}
