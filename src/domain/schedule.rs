//! When to look at a batch again: one pure function of what is known of it.

use super::duration::human;
use super::time::{later, since};
use super::tracked::Tracked;
use super::transition::HOLD;
use jiff::Timestamp;
use std::time::Duration;

/// The bounds that the configuration sets for one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// No two looks by the batch's own schedule are closer than this.
    pub min_interval: Duration,
    /// No two are farther apart.
    pub max_interval: Duration,
    /// How long a lost batch is still looked for.
    pub retain: Duration,
}

/// What stands in the way at the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The provider refuses the key.
    pub refused: bool,
}

/// All that a batch's schedule depends on besides the batch itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The bounds.
    pub plan: Plan,
    /// What stands in the way.
    pub standing: Standing,
    /// What one look costs, in requests: 1 alone, 1/k where one page of a list settles k due batches.
    pub cost: f64,
}

/// When to look next, and why then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextPoll {
    /// The instant; `None`: never again by itself.
    pub at: Option<Timestamp>,
    /// The reasons, in words, the decisive one first.
    pub reasons: Vec<String>,
}

/// How often a `completed` that still lacks its files is looked at.
const HOLD_INTERVAL: Duration = Duration::from_secs(5);
/// How often an id that the provider does not know is asked for until it counts as lost.
const MISSING_INTERVAL: Duration = Duration::from_mins(5);

/// When `tracked`, looked at just now (at `now`), is to be looked at again.
///
/// With nothing learnt the chance that a batch of age t ends within the next second falls as 1/t, and the best
/// interval for that grows as √t: here √(`min_interval` × cost × time in this status), between the two bounds.
/// It starts again when the status changes. `jitter` (0 to 1) keeps batches that began together apart.
///
/// A failed look backs off from `min_interval` by doubling, apart from the batch's own schedule.
pub fn next_poll(terms: &Terms, tracked: &Tracked, now: Timestamp, jitter: f64) -> NextPoll {
    let Terms { plan, standing, cost } = terms;
    let never = |reason: &str| NextPoll { at: None, reasons: vec![reason.to_owned()] };
    let (interval, reason) = if tracked.untracked_at.is_some() {
        return never("untracked: not polled");
    } else if tracked.batch.status.is_terminal() && tracked.settled {
        return never("it has ended");
    } else if standing.refused {
        (plan.max_interval, "the provider refuses the key: at max_interval until it accepts one".to_owned())
    } else if let Some(lost_since) = tracked.lost_since {
        if since(lost_since, now) >= plan.retain {
            return never("lost for longer than the state is kept");
        }
        (plan.max_interval, "the provider does not know it any more: at max_interval".to_owned())
    } else if let Some(missing) = tracked.missing {
        (
            MISSING_INTERVAL,
            format!(
                "the provider did not know it {} time(s) in a row: asked again before it counts as lost",
                missing.count
            ),
        )
    } else if tracked.failures > 0 {
        (
            backoff(plan.min_interval, tracked.failures),
            format!("{} failed look(s) in a row: backing off", tracked.failures),
        )
    } else if tracked.held_since.is_some() {
        (
            HOLD_INTERVAL.min(plan.min_interval),
            format!(
                "completed, but its files are not there yet or more may come: looked at quickly for {}",
                human(HOLD)
            ),
        )
    } else if tracked.batch.status.is_terminal() {
        (plan.min_interval, "it has ended, and its record was not complete: one more look".to_owned())
    } else {
        let age = since(tracked.status_since, now);
        (
            geometric_mean(plan.min_interval, age.mul_f64(cost.clamp(0.0, 1.0))),
            format!(
                "{} for {}: the interval grows with the square root of that",
                tracked.batch.status,
                human(age)
            ),
        )
    };
    let interval = if tracked.held_since.is_some() && tracked.failures == 0 {
        interval
    } else {
        jittered(plan, interval, jitter)
    };
    let mut at = later(now, interval);
    let mut reasons = vec![
        reason,
        format!("at most every {}, at least every {}", human(plan.min_interval), human(plan.max_interval)),
    ];
    if let Some(deadline) = tracked.deadline.filter(|deadline| *deadline > now && *deadline < at) {
        at = deadline.max(later(now, plan.min_interval)).min(at);
        reasons.insert(0, "its deadline passes before that: looked at then".to_owned());
    }
    NextPoll { at: Some(at), reasons }
}

/// When a live batch is likely to end, if its counts have moved: at the rate they have had so far.
pub fn eta(tracked: &Tracked, now: Timestamp) -> Option<Timestamp> {
    let batch = &tracked.batch;
    if batch.status.is_terminal() {
        return None;
    }
    let counts = batch.request_counts.filter(|counts| counts.done() > 0 && counts.done() < counts.total)?;
    let began = super::time::from_seconds(batch.in_progress_at.unwrap_or(batch.created_at))?;
    let spent = since(began, now);
    #[expect(clippy::cast_precision_loss, reason = "an estimate: counts beyond 2^52 do not occur")]
    let left = spent.as_secs_f64() * (counts.total - counts.done()) as f64 / counts.done() as f64;
    let left = Duration::try_from_secs_f64(left).ok()?;
    Some(super::time::to_millis(later(now, left)))
}

fn geometric_mean(a: Duration, b: Duration) -> Duration {
    Duration::try_from_secs_f64((a.as_secs_f64() * b.as_secs_f64()).sqrt()).unwrap_or(Duration::MAX)
}

fn backoff(base: Duration, failures: u32) -> Duration {
    base.saturating_mul(1_u32.checked_shl(failures.min(24)).unwrap_or(u32::MAX))
}

/// `interval` ±10 %, inside the bounds; at a bound the jitter points inwards, so that batches still drift apart.
fn jittered(plan: &Plan, interval: Duration, jitter: f64) -> Duration {
    let jitter = jitter.clamp(0.0, 1.0);
    let scaled = |duration: Duration, factor: f64| {
        Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
    };
    let floor = scaled(plan.min_interval, 1.0 + 0.2 * jitter);
    let ceiling = scaled(plan.max_interval, 1.0 - 0.2 * (1.0 - jitter));
    scaled(interval.min(plan.max_interval), 0.9 + 0.2 * jitter)
        .max(floor)
        .min(ceiling)
        .clamp(plan.min_interval, plan.max_interval.max(plan.min_interval))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::status::Status;
    use crate::domain::tracked::{BatchKey, Missing, Origin};
    use proptest::prelude::*;

    fn terms(min: u64, max: u64) -> Terms {
        let plan = Plan {
            min_interval: Duration::from_secs(min),
            max_interval: Duration::from_secs(max),
            retain: Duration::from_hours(90 * 24),
        };
        Terms { plan, standing: Standing::default(), cost: 1.0 }
    }

    fn refused(terms: &Terms) -> Terms {
        Terms { standing: Standing { refused: true }, ..terms.clone() }
    }

    fn tracked(age: u64, now: Timestamp) -> Tracked {
        let key = BatchKey { provider: "openai".into(), id: "batch_1".into() };
        let mut tracked = Tracked::new(key, "openai", "/v1/responses", Origin::Hand, now);
        tracked.status_since = super::super::time::earlier(now, Duration::from_secs(age));
        tracked.batch.status = Status::InProgress;
        tracked
    }

    fn interval(terms: &Terms, tracked: &Tracked, now: Timestamp, jitter: f64) -> Duration {
        since(now, next_poll(terms, tracked, now, jitter).at.unwrap())
    }

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    #[test]
    fn what_is_over_or_untracked_is_left_alone() {
        let terms = terms(15, 900);
        let mut over = tracked(60, NOW);
        over.batch.status = Status::Completed;
        over.settled = true;
        assert_eq!(next_poll(&terms, &over, NOW, 0.5).at, None);
        over.settled = false;
        assert!(next_poll(&terms, &over, NOW, 0.5).at.is_some());
        over.untracked_at = Some(NOW);
        assert_eq!(next_poll(&terms, &over, NOW, 0.5).at, None);
    }

    #[test]
    fn a_lost_batch_is_looked_for_until_the_state_forgets_it() {
        let terms = terms(15, 900);
        let mut lost = tracked(60, NOW);
        lost.missing = Some(Missing { since: NOW, count: 3 });
        lost.lost_since = Some(NOW);
        assert!(interval(&terms, &lost, NOW, 0.5) >= Duration::from_mins(12));
        let after = later(NOW, terms.plan.retain);
        assert_eq!(next_poll(&terms, &lost, after, 0.5).at, None);
    }

    #[test]
    fn a_hold_is_quick_and_a_refused_key_is_slow() {
        let terms = terms(15, 900);
        let mut held = tracked(60, NOW);
        held.held_since = Some(NOW);
        assert_eq!(interval(&terms, &held, NOW, 0.5), Duration::from_secs(5));
        let refused = interval(&refused(&terms), &tracked(1, NOW), NOW, 0.5);
        assert!(refused >= Duration::from_mins(12), "{refused:?}");
    }

    proptest! {
        #[test]
        fn every_interval_is_within_the_bounds(
            min in 1_u64..600, more in 0_u64..100_000, age in 0_u64..10_000_000,
            failures in 0_u32..100, refused: bool, jitter in 0.0..=1.0,
        ) {
            let terms = terms(min, min + more);
            let mut tracked = tracked(age, NOW);
            tracked.failures = failures;
            let terms = Terms { standing: Standing { refused }, ..terms };
            let interval = interval(&terms, &tracked, NOW, jitter);
            prop_assert!(interval >= terms.plan.min_interval && interval <= terms.plan.max_interval, "{:?}", interval);
        }

        #[test]
        fn it_grows_with_age_and_with_failures(
            age in 0_u64..1_000_000, more in 0_u64..1_000_000, failures in 1_u32..40, jitter in 0.0..=1.0,
        ) {
            let terms = terms(15, 900);
            let young = interval(&terms, &tracked(age, NOW), NOW, jitter);
            let old = interval(&terms, &tracked(age + more, NOW), NOW, jitter);
            prop_assert!(young <= old);
            let mut failing = tracked(age, NOW);
            failing.failures = failures;
            let once = interval(&terms, &failing, NOW, jitter);
            failing.failures += 1;
            prop_assert!(once <= interval(&terms, &failing, NOW, jitter));
        }

        #[test]
        fn two_that_began_together_drift_apart(age in 0_u64..1_000_000, a in 0.0..0.4, b in 0.6..=1.0) {
            let terms = terms(15, 900);
            let first = interval(&terms, &tracked(age, NOW), NOW, a);
            let second = interval(&terms, &tracked(age, NOW), NOW, b);
            prop_assert!(first < second, "{:?} {:?}", first, second);
        }
    }
}
