//! When to check a batch again: one pure function of what is known of it.
//!
//! A check that comes too early is a wasted request, one that comes too late is a late answer. Their product is least
//! if the next check comes when ∫ √(hazard / (2 · cost)) since the last one has come to 1, where the hazard is the chance
//! per second that the batch ends, and `cost` what a request is worth in seconds of lateness.

use super::duration::human;
use super::hazard::Estimate;
use super::history::Stage;
use super::outlook::Outlook;
use super::time::{from_seconds, later, since, to_millis};
use super::tracked::{Eta, HOLD, LATE_FILES, Tracked};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// The bounds that the configuration sets for one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// No two checks by the batch's own schedule are closer than this.
    pub min_interval: Duration,
    /// No two are farther apart.
    pub max_interval: Duration,
}

/// All that a batch's schedule depends on besides the batch itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The bounds.
    pub plan: Plan,
    /// The provider refuses the key.
    pub key_refused: bool,
    /// What one check costs, in requests: 1 alone, 1/k where one page of a list settles k due batches.
    pub cost: f64,
    /// What its provider's earlier batches teach.
    pub estimate: Option<Arc<Estimate>>,
}

/// When to check next, and why then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextPoll {
    /// The instant; `None`: never again by itself.
    pub at: Option<Timestamp>,
    /// The reasons, in words, the decisive one first.
    pub reasons: Vec<String>,
}

/// What part of `min_interval` a check is worth, as twice the seconds of lateness that it may save: under it a batch of
/// which nothing is known is checked about 54 times in an hour if `min_interval` is 15 s.
const SHARE: f64 = 0.25;
/// What is farther off is not told to the second.
const MOST_TOLD: f64 = 60.0 * 86_400.0;
/// How often a `completed` that still lacks its files is checked.
const HOLD_INTERVAL: Duration = Duration::from_secs(5);
/// How often an id that the provider does not know is asked for until it counts as lost.
const MISSING_INTERVAL: Duration = Duration::from_mins(5);

/// When `tracked`, checked just now (at `now`), is to be checked again.
///
/// With nothing learnt the chance that a batch of age t ends within the next second falls as 1/t, so that the interval
/// grows as √t from `min_interval` on, and begins anew when the status changes. What the provider's earlier batches
/// took places the checks better, and the batch's own progress better still; either way a batch gets about as many of
/// them. `jitter` (0 to 1) keeps batches that began together apart.
///
/// A failed check backs off from `min_interval` by doubling, apart from the batch's own schedule.
pub fn next_poll(terms: &Terms, tracked: &Tracked, now: Timestamp, jitter: f64) -> NextPoll {
    let Terms { plan, key_refused, .. } = terms;
    let never = |reason: &str| NextPoll { at: None, reasons: vec![reason.to_owned()] };
    let (interval, reason) = if tracked.untracked_at.is_some() {
        return never("untracked: not polled");
    } else if tracked.batch.status.is_terminal() && tracked.settled {
        return never("it has ended");
    } else if *key_refused {
        (plan.max_interval, "the provider refuses the key: at max_interval until it accepts one".to_owned())
    } else if tracked.lost_since.is_some() {
        // Until it is deleted: only retention can tell how long it really was lost from how far the clock has leapt.
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
            format!("{} failed check(s) in a row: backing off", tracked.failures),
        )
    } else if tracked.held_since.is_some() {
        (
            HOLD_INTERVAL.min(plan.min_interval),
            format!(
                "completed, but its files are not there yet or more may come: checked quickly for {}",
                human(HOLD)
            ),
        )
    } else if tracked.batch.status.is_terminal() && tracked.batch.lacks_files() {
        return late_files(plan, tracked, now, jitter);
    } else if tracked.batch.status.is_terminal() {
        (plan.min_interval, "it has ended, and its record was not complete: one more check".to_owned())
    } else {
        foreseen(terms, tracked, now)
    };
    let interval = if tracked.held_since.is_some() && tracked.failures == 0 {
        interval
    } else {
        jittered(plan, interval, jitter)
    };
    let mut at = later(now, interval);
    let mut reasons = vec![
        reason,
        format!(
            "never more often than every {}, never more rarely than every {}",
            human(plan.min_interval),
            human(plan.max_interval)
        ),
    ];
    if terms.cost < 1.0 {
        reasons.push(
            "a page of its provider's list serves others that are due: it is checked more often".to_owned(),
        );
    }
    for (instant, why) in [
        (tracked.deadline, "its deadline passes before that: checked then"),
        (window_ends(tracked), "its provider's window ends before that: checked then"),
    ] {
        if let Some(instant) = instant.filter(|instant| *instant > now && *instant < at) {
            at = instant.max(later(now, plan.min_interval)).min(at);
            reasons.insert(0, why.to_owned());
        }
    }
    NextPoll { at: Some(at), reasons }
}

/// When a batch that has completed is asked for the files again that it does not name: after a quarter of the time that
/// they have been missing, so that a day of it takes about thirty requests.
fn late_files(plan: &Plan, tracked: &Tracked, now: Timestamp, jitter: f64) -> NextPoll {
    let missing = since(tracked.status_since, now);
    let interval = (missing / 4).max(plan.min_interval).mul_f64(0.9 + 0.2 * jitter.clamp(0.0, 1.0));
    let reason = format!(
        "completed, but its files are not named yet: checked ever more rarely until they are, or for {}",
        human(LATE_FILES)
    );
    NextPoll { at: Some(later(now, interval)), reasons: vec![reason] }
}

/// When `tracked` is likely to end; `None` if nothing but its age is known.
pub fn eta(terms: &Terms, tracked: &Tracked, now: Timestamp) -> Option<Eta> {
    if !tracked.is_active() || tracked.lost_since.is_some() {
        return None;
    }
    let ahead = Outlook::of(terms, tracked, now).quantiles([0.1, 0.5, 0.9])?;
    let [earliest, at, latest] = ahead.map(|ahead| to_millis(later(now, Duration::from_secs_f64(ahead))));
    Some(Eta { at, earliest, latest })
}

/// The interval after a check that went as it should, and why.
fn foreseen(terms: &Terms, tracked: &Tracked, now: Timestamp) -> (Duration, String) {
    let outlook = Outlook::of(terms, tracked, now);
    let price = terms.plan.min_interval.as_secs_f64() * SHARE * terms.cost.max(0.0);
    let thrift = outlook.estimate.map_or(1.0, Estimate::thrift);
    let ahead = outlook.until(price.sqrt() * thrift, terms.plan.max_interval.as_secs_f64());
    let interval = Duration::try_from_secs_f64(ahead).unwrap_or(terms.plan.max_interval);
    let status = tracked.batch.status;
    let stands = human(since(tracked.status_since, now));
    let why = if let (Some(forecast), Some(counts)) = (outlook.forecast, tracked.batch.request_counts) {
        let left = Duration::from_secs_f64((forecast.typical - forecast.elapsed).clamp(0.0, MOST_TOLD));
        let when = match left.as_secs() {
            0 => "any moment".to_owned(),
            left => format!("in about {}", human(Duration::from_secs(left))),
        };
        format!("{} of {} requests are over: at their pace all are {when}", counts.done(), counts.total)
    } else if let Some((class, count)) = outlook.estimate.and_then(Estimate::mostly) {
        let learnt = format!("learnt from {count} earlier batch(es) ({class})");
        if outlook.is_informed() {
            format!("{learnt}: checked when its like end")
        } else {
            format!(
                "{status} for {stands} at the last check, longer than what was {learnt}: the interval grows with the square root of that"
            )
        }
    } else {
        format!("{status} for {stands} at the last check: the interval grows with the square root of that")
    };
    (interval, why)
}

impl<'a> Outlook<'a> {
    /// What the end of `tracked` is foreseen by at `now`.
    fn of(terms: &'a Terms, tracked: &Tracked, now: Timestamp) -> Self {
        let batch = &tracked.batch;
        let stamp = |at: Option<i64>| at.and_then(from_seconds);
        let began = match Stage::of(batch.status) {
            Stage::Work => stamp(Some(batch.created_at)),
            Stage::Finalizing => stamp(batch.finalizing_at),
            Stage::Cancelling => stamp(batch.cancelling_at),
        };
        let counts = batch.request_counts.filter(|counts| counts.total > 0);
        // The last thing that made its end more likely than before: it is past its last request, or past its window.
        let through =
            tracked.progress_at.filter(|_| counts.is_some_and(|counts| counts.done() >= counts.total));
        let news = [through, window_ends(tracked).filter(|end| *end <= now)].into_iter().flatten();
        let news = news.chain([tracked.status_since]).max().unwrap_or(tracked.status_since);
        let forecast = counts.and_then(|counts| {
            let began = stamp(batch.in_progress_at.or(Some(batch.created_at)));
            tracked.trail.forecast(began, counts.total, now)
        });
        Self {
            age: since(began.unwrap_or(tracked.status_since), now).as_secs_f64(),
            quiet: since(news, now).as_secs_f64(),
            youth: terms.plan.min_interval.as_secs_f64() / SHARE,
            estimate: terms.estimate.as_deref(),
            forecast,
        }
    }
}

/// When the provider gives the batch up, with a moment for it to do so.
fn window_ends(tracked: &Tracked) -> Option<Timestamp> {
    let expires = tracked.batch.expires_at.and_then(from_seconds)?;
    Some(later(expires, Duration::from_secs(5)))
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
    use crate::domain::batch::RequestCounts;
    use crate::domain::hazard::Span;
    use crate::domain::history::Class;
    use crate::domain::status::Status;
    use crate::domain::time::earlier;
    use crate::domain::tracked::{BatchKey, Missing, Origin};
    use proptest::prelude::*;

    fn terms(min: u64, max: u64) -> Terms {
        let plan = Plan { min_interval: Duration::from_secs(min), max_interval: Duration::from_secs(max) };
        Terms { plan, key_refused: false, cost: 1.0, estimate: None }
    }

    fn refused(terms: &Terms) -> Terms {
        Terms { key_refused: true, ..terms.clone() }
    }

    fn tracked(age: u64, now: Timestamp) -> Tracked {
        let key = BatchKey { provider: "openai".into(), id: "batch_1".into() };
        let mut tracked = Tracked::new(key, "openai", "/v1/responses", Origin::Hand, now);
        tracked.status_since = earlier(now, Duration::from_secs(age));
        tracked.batch.status = Status::InProgress;
        tracked
    }

    fn interval(terms: &Terms, tracked: &Tracked, now: Timestamp, jitter: f64) -> Duration {
        since(now, next_poll(terms, tracked, now, jitter).at.unwrap())
    }

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    #[test]
    fn late_files_are_asked_for_ever_more_rarely() {
        let terms = terms(15, 900);
        let waits: Vec<u64> = [60, 600, 6_000, 60_000]
            .into_iter()
            .map(|age| {
                let mut batch = tracked(age, NOW);
                batch.batch.status = Status::Completed;
                batch.batch.request_counts = Some(RequestCounts { total: 2, completed: 2, failed: 0 });
                interval(&terms, &batch, NOW, 0.5).as_secs()
            })
            .collect();
        assert_eq!(waits, [15, 150, 1_500, 15_000]);
    }

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
    fn a_lost_batch_is_looked_for_however_far_the_clock_has_leapt() {
        let terms = terms(15, 900);
        let mut lost = tracked(60, NOW);
        lost.missing = Some(Missing { since: NOW, count: 3 });
        lost.lost_since = Some(NOW);
        for after in [NOW, later(NOW, Duration::from_hours(70 * 365 * 24)), Timestamp::UNIX_EPOCH] {
            assert!(interval(&terms, &lost, after, 0.5) >= Duration::from_mins(12));
        }
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

    #[test]
    fn what_is_not_known_begins_at_the_least_and_anew_with_each_status() {
        let terms = terms(15, 900);
        let young = interval(&terms, &tracked(0, NOW), NOW, 0.5);
        assert!((15..=17).contains(&young.as_secs()), "{young:?}");
        let hour = interval(&terms, &tracked(3600, NOW), NOW, 0.5);
        assert!((100..=140).contains(&hour.as_secs()), "{hour:?}");
        let mut changed = tracked(3600, NOW);
        changed.batch.status = Status::Finalizing;
        changed.status_since = NOW;
        assert_eq!(interval(&terms, &changed, NOW, 0.5), young);
    }

    /// A hundred batches that took an hour, give or take a few minutes.
    fn about_an_hour() -> Terms {
        let class = Class::of(&tracked(0, NOW));
        let spans: Vec<Span> = (0..100)
            .map(|number| Span { seconds: 3300.0 + 6.0 * f64::from(number), ended: true, weight: 1.0 })
            .collect();
        Terms { estimate: Some(Arc::new(Estimate::learn(class, &spans, None))), ..terms(15, 900) }
    }

    /// Created and in its status for `age` seconds.
    fn aged(age: u64) -> Tracked {
        let mut aged = tracked(age, NOW);
        aged.batch.created_at = NOW.as_second() - i64::try_from(age).unwrap();
        aged
    }

    #[test]
    fn what_is_learnt_places_the_looks_and_says_so() {
        let (terms, unlearnt) = (about_an_hour(), terms(15, 900));
        let early = interval(&terms, &aged(60), NOW, 0.5);
        assert!(early > interval(&unlearnt, &aged(60), NOW, 0.5) * 3, "{early:?}");
        let near = interval(&terms, &aged(3500), NOW, 0.5);
        assert!(near <= Duration::from_secs(40), "{near:?}");
        let why = next_poll(&terms, &aged(3500), NOW, 0.5).reasons;
        assert!(why[0].contains("learnt from 100 earlier batch(es) (openai, /v1/responses)"), "{why:?}");
        let why = next_poll(&terms, &aged(100_000), NOW, 0.5).reasons;
        assert!(why[0].contains("longer than what was learnt from 100"), "{why:?}");

        let ends = eta(&terms, &aged(600), NOW).unwrap();
        let ahead = [ends.earliest, ends.at, ends.latest].map(|at| since(NOW, at).as_secs());
        assert!(ahead[0] > 2600 && (2850..3150).contains(&ahead[1]) && ahead[2] < 3500, "{ahead:?}");
        assert_eq!(eta(&terms, &aged(100_000), NOW), None, "none was seen at that age");
        assert_eq!(eta(&unlearnt, &aged(600), NOW), None, "nothing is known");
    }

    #[test]
    fn progress_is_sharper_than_what_is_learnt() {
        let mut moving = aged(600);
        moving.batch.request_counts = Some(RequestCounts { total: 1000, completed: 100, failed: 0 });
        for (ago, done) in [(400, 34), (200, 66), (0, 100)] {
            moving.trail.mark(earlier(NOW, Duration::from_secs(ago)), done);
        }
        for terms in [terms(15, 900), about_an_hour()] {
            let ends = eta(&terms, &moving, NOW).unwrap();
            let ahead = since(NOW, ends.at);
            assert!((4900..6000).contains(&ahead.as_secs()), "{ahead:?}");
            let next = next_poll(&terms, &moving, NOW, 0.5);
            assert!(next.reasons[0].starts_with("100 of 1000 requests are over: at their pace"), "{next:?}");
        }
    }

    #[test]
    fn a_deadline_and_the_end_of_the_window_are_looked_at() {
        let terms = terms(15, 900);
        let mut due = tracked(100_000, NOW);
        due.deadline = Some(later(NOW, Duration::from_secs(100)));
        let next = next_poll(&terms, &due, NOW, 0.5);
        assert_eq!(next.at, due.deadline);
        assert!(next.reasons[0].contains("deadline"), "{next:?}");
        due.batch.expires_at = Some(NOW.as_second() + 40);
        let next = next_poll(&terms, &due, NOW, 0.5);
        assert_eq!(since(NOW, next.at.unwrap()), Duration::from_secs(45));
        assert!(next.reasons[0].contains("window"), "{next:?}");
        // Past it, it may end any moment.
        let late = later(NOW, Duration::from_secs(50));
        due.deadline = None;
        let ahead = since(late, next_poll(&terms, &due, late, 0.5).at.unwrap());
        assert!(ahead <= Duration::from_secs(20), "{ahead:?}");
    }

    proptest! {
        #[test]
        fn every_interval_is_within_the_bounds(
            min in 1_u64..600, more in 0_u64..100_000, age in 0_u64..10_000_000, cost in 0.001..1.0,
            failures in 0_u32..100, refused: bool, learnt: bool, jitter in 0.0..=1.0,
        ) {
            let estimate = if learnt { about_an_hour().estimate } else { None };
            let terms = Terms { cost, estimate, ..terms(min, min + more) };
            let mut tracked = aged(age);
            tracked.failures = failures;
            let terms = Terms { key_refused: refused, ..terms };
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
            for terms in [terms(15, 900), about_an_hour()] {
                let first = interval(&terms, &aged(age), NOW, a);
                let second = interval(&terms, &aged(age), NOW, b);
                prop_assert!(first < second, "{:?} {:?}", first, second);
            }
        }

        #[test]
        fn a_cheaper_look_comes_no_later(age in 0_u64..1_000_000, cost in 0.001..1.0, jitter in 0.0..=1.0) {
            for terms in [terms(15, 900), about_an_hour()] {
                let cheap = interval(&Terms { cost, ..terms.clone() }, &aged(age), NOW, jitter);
                prop_assert!(cheap <= interval(&terms, &aged(age), NOW, jitter));
            }
        }
    }
}
