//! Simulated batches under the schedule's own rule: how late their ends are seen, and by how many looks.

#![expect(clippy::cast_precision_loss, reason = "seconds and counts far below 2^52")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts and places in lists")]

use batchd::domain::batch::RequestCounts;
use batchd::domain::hazard::{Estimate, Span};
use batchd::domain::history::Class;
use batchd::domain::schedule::{Plan, Terms, next_poll};
use batchd::domain::sighting::Sighting;
use batchd::domain::status::Status;
use batchd::domain::time::since;
use batchd::domain::tracked::{BatchKey, Origin, Tracked};
use batchd::domain::transition::observe;
use batchd::rng::Rng;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

/// A kind of batches: how long they take.
pub struct Row {
    pub name: &'static str,
    /// ½ (∫ √(f·S) dt)²: mean lag in seconds × looks a batch, of the best schedule there is.
    pub optimum: f64,
    /// The ratio to it that a schedule without any knowledge reaches.
    pub unlearnt: f64,
    /// A duration in seconds, from chance.
    pub draw: fn(&Rng) -> f64,
}

/// The rows of the table that the schedule is judged by.
pub const ROWS: [Row; 6] = [
    Row {
        name: "log-normal, median 1 h, sigma 0.3",
        optimum: 960.0,
        unlearnt: 3.65,
        draw: |rng| around(HOUR, 0.3, rng),
    },
    Row {
        name: "log-normal, median 1 h, sigma 0.5",
        optimum: 1493.0,
        unlearnt: 2.47,
        draw: |rng| around(HOUR, 0.5, rng),
    },
    Row {
        name: "log-normal, median 1 h, sigma 1.0",
        optimum: 2817.0,
        unlearnt: 1.57,
        draw: |rng| around(HOUR, 1.0, rng),
    },
    Row {
        name: "log-normal, median 1 h, sigma 1.5",
        optimum: 4656.0,
        unlearnt: 1.30,
        draw: |rng| around(HOUR, 1.5, rng),
    },
    Row {
        name: "half around 10 min, half around 6 h",
        optimum: 2586.0,
        unlearnt: 2.81,
        draw: |rng| around(if rng.jitter() < 0.5 { HOUR / 6.0 } else { 6.0 * HOUR }, 0.3, rng),
    },
    Row {
        name: "exponential, mean 1 h",
        optimum: 1800.0,
        unlearnt: 1.48,
        draw: |rng| -HOUR * (1.0 - rng.jitter()).ln(),
    },
];

const HOUR: f64 = 3600.0;

/// Log-normal: `median` seconds, `sigma` in the logarithm.
fn around(median: f64, sigma: f64, rng: &Rng) -> f64 {
    median * (sigma * normal(rng)).exp()
}

fn normal(rng: &Rng) -> f64 {
    let (radius, angle) = (1.0 - rng.jitter(), rng.jitter());
    (-2.0 * radius.ln()).sqrt() * (2.0 * std::f64::consts::PI * angle).cos()
}

/// What is learnt of a class from these durations.
pub fn learnt(durations: &[f64]) -> Option<Arc<Estimate>> {
    let spans: Vec<Span> =
        durations.iter().map(|seconds| Span { seconds: *seconds, ended: true, weight: 1.0 }).collect();
    let class = Class::of(&fresh());
    (!spans.is_empty()).then(|| Arc::new(Estimate::learn(class, &spans, None)))
}

/// The default bounds, and a price of a look in place of the default one.
pub fn terms(estimate: Option<Arc<Estimate>>, cost: f64) -> Terms {
    let plan = Plan { min_interval: Duration::from_secs(15), max_interval: Duration::from_mins(15) };
    Terms { plan, key_refused: false, cost, estimate }
}

fn fresh() -> Tracked {
    let key = BatchKey { provider: "openai".to_owned(), id: "batch_1".to_owned() };
    let mut tracked = Tracked::new(key, "openai", "/v1/responses", Origin::Hand, NOW);
    tracked.batch.status = Status::InProgress;
    tracked
}

/// The instants of the looks at a batch that tells nothing but that it goes on, in seconds, as far as `until`; the
/// times from one to the next are those of the rule itself.
pub fn looks(terms: &Terms, rng: &Rng, until: f64) -> Vec<f64> {
    let tracked = fresh();
    let mut looks = Vec::new();
    let mut now = NOW;
    loop {
        now = next_poll(terms, &tracked, now, rng.jitter()).at.unwrap();
        let at = since(NOW, now).as_secs_f64();
        looks.push(at);
        if at >= until {
            return looks;
        }
    }
}

/// Mean lag in seconds and mean number of looks of batches that take `durations`. Chance differs from batch to batch
/// only as much as `schedules` different series of jitter let it.
pub fn lag_and_looks(terms: &Terms, durations: &[f64], schedules: usize, rng: &Rng) -> (f64, f64) {
    let longest = durations.iter().copied().fold(0.0, f64::max);
    let schedules: Vec<Vec<f64>> = (0..schedules).map(|_| looks(terms, rng, longest)).collect();
    let (mut lag, mut count) = (0.0, 0.0);
    for (number, duration) in durations.iter().enumerate() {
        let looks = &schedules[number % schedules.len()];
        let index = looks.partition_point(|at| at < duration);
        lag += looks[index] - duration;
        count += index as f64 + 1.0;
    }
    (lag / durations.len() as f64, count / durations.len() as f64)
}

/// What [`lag_and_looks`] gives at the price at which there are about `budget` looks a batch.
pub fn at_budget(
    estimate: Option<&Arc<Estimate>>,
    durations: &[f64],
    budget: f64,
    schedules: usize,
    rng: &Rng,
) -> (f64, f64) {
    let (mut low, mut high) = (1e-4_f64, 1e3_f64);
    for _ in 0..11 {
        let cost = (low * high).sqrt();
        let (_, count) = lag_and_looks(&terms(estimate.cloned(), cost), durations, schedules, rng);
        if count > budget { low = cost } else { high = cost }
    }
    lag_and_looks(&terms(estimate.cloned(), (low * high).sqrt()), durations, schedules, rng)
}

/// How the looks at one batch went whose requests end at a steady noisy rate: the lag in seconds, and their number.
///
/// Every minute's worth of requests takes a minute, give or take `noise` of one; `total` requests take `seconds`.
pub fn with_progress(
    estimate: Option<Arc<Estimate>>,
    total: u64,
    seconds: f64,
    noise: f64,
    rng: &Rng,
) -> (f64, usize) {
    let terms = terms(estimate, 1.0);
    let minutes = (seconds / 60.0).ceil() as usize;
    let paces: Vec<f64> = (0..minutes).map(|_| 60.0 * (noise * normal(rng)).exp()).collect();
    let mut ends = vec![0.0];
    for pace in &paces {
        ends.push(ends[ends.len() - 1] + pace);
    }
    let end = ends[minutes];
    let done = |at: f64| {
        let minute = ends.partition_point(|end| *end <= at).clamp(1, minutes) - 1;
        let part = (minute as f64 + (at - ends[minute]) / paces[minute]) / minutes as f64;
        ((part * total as f64) as u64).min(total)
    };
    let mut tracked = fresh();
    let (mut now, mut count) = (NOW, 0);
    loop {
        now = next_poll(&terms, &tracked, now, rng.jitter()).at.unwrap();
        count += 1;
        let at = since(NOW, now).as_secs_f64();
        if at >= end {
            return (at - end, count);
        }
        let counts = RequestCounts { total, completed: done(at), failed: 0 };
        let sighting = Sighting {
            id: "batch_1".to_owned(),
            status: Some(Status::InProgress),
            created_at: Some(NOW.as_second()),
            request_counts: Some(counts),
            ..Sighting::default()
        };
        let status_since = tracked.status_since;
        tracked = observe(&tracked, &sighting, false, now).tracked;
        tracked.status_since = status_since;
    }
}

/// The value that this share of `values` keeps within.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() as f64 * share).ceil() as usize).clamp(1, values.len()) - 1]
}
