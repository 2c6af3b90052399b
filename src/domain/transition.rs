//! What a sighting means for a watched batch: its new state and the events worth telling.

use super::batch::RequestCounts;
use super::bounds;
use super::event::{EventType, Occurrence};
use super::hazard::Usual;
use super::sighting::Sighting;
use super::status::Status;
use super::time::{from_seconds, since};
use super::tracked::{HOLD, LATE_FILES, Missing, Origin, Tracked, Transition};
use jiff::Timestamp;
use std::time::Duration;

/// How many "no such batch" in a row make a batch lost …
const LOST_AFTER_CHECKS: u32 = 3;
/// … over at least this time.
const LOST_AFTER: Duration = Duration::from_mins(10);

/// After this many failed second checks an ended batch's record stays as it is.
const SETTLED_AFTER_FAILURES: u32 = 5;

/// What one check changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The batch as it is now.
    pub tracked: Tracked,
    /// The change of status, if there was one.
    pub transition: Option<Transition>,
    /// What is worth telling; the event of each is recorded once, ever.
    pub events: Vec<Occurrence>,
    /// How long batches like it usually take, for the events; the caller knows it.
    pub usual: Option<Usual>,
    /// New oddities for the log, said once a batch.
    pub warnings: Vec<String>,
}

impl Step {
    /// A step without a status transition or anything to tell.
    pub const fn quiet(tracked: Tracked) -> Self {
        Self { tracked, transition: None, events: Vec::new(), usual: None, warnings: Vec::new() }
    }

    /// Whether more than the times of the poll changed, so that it cannot wait for the next commit.
    pub fn is_news(&self, before: &Tracked) -> bool {
        self.transition.is_some() || !self.events.is_empty() || {
            let mut quiet = self.tracked.clone();
            quiet.last_polled_at = before.last_polled_at;
            quiet.next_poll_at = before.next_poll_at;
            quiet.eta = before.eta;
            quiet != *before
        }
    }
}

/// What `sighting`, had at `now`, means for `before`.
///
/// `hold_incomplete`: this kind of provider may say `completed` before the output file's id is there.
///
/// Pure: the caller stores the result in one transaction. A batch that has ended does not come back to life,
/// a word that is not known changes nothing, and fields that the provider left out keep their value.
pub fn observe(before: &Tracked, sighting: &Sighting, hold_incomplete: bool, now: Timestamp) -> Step {
    let mut tracked = before.clone();
    let mut warnings = Vec::new();
    let first = before.first_seen_at.is_none();

    for trouble in &sighting.unreadable {
        warn_once(&mut tracked, &mut warnings, bounds::word(trouble));
    }
    let told = told_status(before, sighting, first, &mut tracked, &mut warnings);
    let status = if unconfirmed(before, sighting, told, first) {
        tracked.held_since = Some(now);
        before.batch.status
    } else {
        held(&mut tracked, sighting, told, hold_incomplete, now)
    };

    tracked.provider_status = sighting.provider_status.as_deref().map(bounds::word);
    take_fields(&mut tracked, sighting, &mut warnings);
    tracked.batch.status = status;
    stamp(&mut tracked, before, sighting, first, now);
    tracked.first_seen_at.get_or_insert(now);
    tracked.last_polled_at = Some(now);
    tracked.last_error = None;
    tracked.failures = 0;
    tracked.missing = None;
    tracked.lost_since = None;
    if progressed(before.batch.request_counts, tracked.batch.request_counts) {
        tracked.progress_at = Some(now);
        tracked.trail.mark(now, tracked.batch.request_counts.map_or(0, RequestCounts::done));
        tracked.stalled_since = None;
    }
    let awaited = hold_incomplete && awaits_files(&tracked, now);
    tracked.settled = status.is_terminal()
        && !awaited
        && (before.batch.status.is_terminal() && !first || says_all(&tracked));

    // Decided by the caller from all this.
    tracked.next_poll_at = None;
    tracked.eta = None;
    let changed = first || status != before.batch.status;
    if changed {
        tracked.status_since = now;
        tracked.stalled_since = None;
    }
    // A clock that was set back must not keep the batch young until it has caught up.
    tracked.status_since = tracked.status_since.min(now);
    let transition = changed.then(|| Transition {
        from: (!first).then_some(before.batch.status),
        to: status,
        provider_status: tracked.provider_status.clone(),
        occurred_at: tracked.batch.stamp(status).and_then(from_seconds),
        observed_at: now,
    });
    let events = transition
        .iter()
        .filter(|transition| !is_old_news(before, transition))
        .map(|transition| Occurrence::Status(transition.clone()))
        .collect();
    Step { tracked, transition, events, usual: None, warnings }
}

/// What it means that the provider, asked at `now`, does not know the batch.
///
/// A batch is lost after three such answers in a row over at least ten minutes; it keeps its status.
pub fn observe_missing(before: &Tracked, error: String, now: Timestamp) -> Step {
    let mut tracked = before.clone();
    if before.batch.status.is_terminal() {
        // It has ended and been deleted since: there is nothing more to learn.
        tracked.settled = true;
        tracked.last_polled_at = Some(now);
        return Step::quiet(tracked);
    }
    let missing = before.missing.map_or(Missing { since: now, count: 1 }, |earlier| Missing {
        // A clock that was set back must not put the end off.
        since: earlier.since.min(now),
        count: earlier.count.saturating_add(1),
    });
    tracked.missing = Some(missing);
    tracked.last_polled_at = Some(now);
    tracked.last_error = Some(error);
    tracked.failures = 0;
    let mut events = Vec::new();
    if before.lost_since.is_none()
        && missing.count >= LOST_AFTER_CHECKS
        && since(missing.since, now) >= LOST_AFTER
    {
        tracked.lost_since = Some(now);
        events.push(Occurrence::finding(EventType::BatchLost, missing.since, now));
    }
    Step { events, ..Step::quiet(tracked) }
}

/// What it means that a check failed for a reason that says nothing about the batch.
pub fn observe_failure(before: &Tracked, error: String, now: Timestamp) -> Tracked {
    let mut tracked = before.clone();
    tracked.last_polled_at = Some(now);
    tracked.last_error = Some(error);
    tracked.failures = before.failures.saturating_add(1);
    // The second check after the end is a courtesy, unless files are still to come.
    tracked.settled |= before.batch.status.is_terminal()
        && tracked.failures >= SETTLED_AFTER_FAILURES
        && !awaits_files(before, now);
    tracked
}

fn warn_once(tracked: &mut Tracked, warnings: &mut Vec<String>, what: String) {
    // A server that finds ever new oddities must not grow the record for ever.
    const MAX_WARNINGS: usize = 32;
    if tracked.warned.len() < MAX_WARNINGS && tracked.warned.insert(what.clone()) {
        warnings.push(what);
    }
}

fn told_status(
    before: &Tracked,
    sighting: &Sighting,
    first: bool,
    tracked: &mut Tracked,
    warnings: &mut Vec<String>,
) -> Status {
    match sighting.status {
        Some(status) if before.batch.status.is_terminal() && !first && !status.is_terminal() => {
            warn_once(
                tracked,
                warnings,
                format!("the provider says `{status}` after `{}`; kept as ended", before.batch.status),
            );
            before.batch.status
        }
        Some(status) => status,
        None => {
            let what = match &sighting.provider_status {
                Some(word) => format!("unknown status word `{}`", bounds::word(word)),
                None => "no status in the provider's answer".to_owned(),
            };
            warn_once(tracked, warnings, what);
            if first { Status::InProgress } else { before.batch.status }
        }
    }
}

/// An end that the provider may take back, seen for the first time. What was never seen alive is taken as it is.
fn unconfirmed(before: &Tracked, sighting: &Sighting, told: Status, first: bool) -> bool {
    sighting.revocable
        && told.is_terminal()
        && !first
        && !before.batch.status.is_terminal()
        && before.provider_status != sighting.provider_status.as_deref().map(bounds::word)
}

/// `completed` with successes but without any file id is `finalizing` for at most [`HOLD`].
fn held(
    tracked: &mut Tracked,
    sighting: &Sighting,
    told: Status,
    hold_incomplete: bool,
    now: Timestamp,
) -> Status {
    let incomplete = told == Status::Completed
        && !tracked.batch.status.is_terminal()
        && sighting.output_file_id.is_none()
        && sighting.error_file_id.is_none()
        && sighting.request_counts.is_some_and(|counts| counts.completed > 0);
    if !(hold_incomplete && incomplete) {
        tracked.held_since = None;
        return told;
    }
    // A clock that was set back must not make it longer.
    let held_since = tracked.held_since.map_or(now, |since| since.min(now));
    tracked.held_since = Some(held_since);
    if since(held_since, now) < HOLD {
        Status::Finalizing
    } else {
        tracked.held_since = None;
        told
    }
}

fn take_fields(tracked: &mut Tracked, sighting: &Sighting, warnings: &mut Vec<String>) {
    fn take<T: Clone>(into: &mut Option<T>, from: Option<&T>) {
        if let Some(value) = from {
            *into = Some(value.clone());
        }
    }
    let batch = &mut tracked.batch;
    let id = |id: &Option<String>| id.clone().filter(|id| bounds::is_id(id));
    if let Some(endpoint) = &sighting.endpoint {
        batch.endpoint = bounds::word(endpoint);
    }
    if let Some(file) = id(&sighting.input_file_id) {
        batch.input_file_id = file;
    }
    if let Some(window) = &sighting.completion_window {
        batch.completion_window = bounds::word(window);
    }
    if let Some(created_at) = sighting.created_at {
        batch.created_at = created_at;
    }
    take(&mut batch.model, sighting.model.as_deref().map(bounds::word).as_ref());
    take(&mut batch.output_file_id, id(&sighting.output_file_id).as_ref());
    take(&mut batch.error_file_id, id(&sighting.error_file_id).as_ref());
    take(&mut batch.errors, sighting.errors.as_ref().map(bounds::errors).as_ref());
    take(&mut batch.in_progress_at, sighting.in_progress_at.as_ref());
    take(&mut batch.expires_at, sighting.expires_at.as_ref());
    take(&mut batch.finalizing_at, sighting.finalizing_at.as_ref());
    take(&mut batch.completed_at, sighting.completed_at.as_ref());
    take(&mut batch.failed_at, sighting.failed_at.as_ref());
    take(&mut batch.expired_at, sighting.expired_at.as_ref());
    take(&mut batch.cancelling_at, sighting.cancelling_at.as_ref());
    take(&mut batch.cancelled_at, sighting.cancelled_at.as_ref());
    take(&mut batch.request_counts, sighting.request_counts.as_ref());
    take(&mut batch.usage, sighting.usage.as_ref());
    if let Some(metadata) = &sighting.metadata {
        let (kept, left_out) = bounds::metadata(metadata);
        batch.metadata = Some(kept);
        if left_out > 0 {
            warn_once(tracked, warnings, format!("metadata is too long: {left_out} entries are not kept"));
        }
    }
    if tracked.name.is_none() {
        tracked.name = sighting.display_name.as_deref().map(bounds::word);
    }
    if let Some(at) = sighting.results_expire_at.and_then(from_seconds) {
        tracked.results_expire_at = Some(at);
    }
}

/// Fills the time of the present status: the provider's own, else its one time for every end, else (only for a
/// change that was really witnessed) the time of the check.
fn stamp(tracked: &mut Tracked, before: &Tracked, sighting: &Sighting, first: bool, now: Timestamp) {
    let status = tracked.batch.status;
    // Azure tells the end of a failed batch in `completed_at`.
    let end = sighting.ended_at.or(sighting.completed_at).filter(|_| status.is_terminal());
    let witnessed =
        (!first && before.batch.status != status && tracked.held_since.is_none()).then(|| now.as_second());
    if let Some(slot) = tracked.batch.stamp_mut(status)
        && slot.is_none()
    {
        *slot = end.or(witnessed);
    }
}

/// Whether files may still be named of a batch that has completed without any.
fn awaits_files(tracked: &Tracked, now: Timestamp) -> bool {
    let end = tracked.batch.ended_at().and_then(from_seconds).unwrap_or(tracked.status_since);
    tracked.batch.lacks_files() && since(end, now) < LATE_FILES
}

fn progressed(before: Option<RequestCounts>, now: Option<RequestCounts>) -> bool {
    now.is_some_and(|now| now.done() > before.map_or(0, RequestCounts::done))
}

/// Whether an ended batch's record can get no richer: counts, and the files that the counts promise.
fn says_all(tracked: &Tracked) -> bool {
    let batch = &tracked.batch;
    match batch.request_counts {
        Some(counts) => counts.completed == 0 || batch.output_file_id.is_some(),
        None => batch.status == Status::Failed || batch.output_file_id.is_some(),
    }
}

/// An end that was past when discovery first listed the provider is not told.
fn is_old_news(before: &Tracked, transition: &Transition) -> bool {
    before.origin == Origin::Baseline && transition.from.is_none() && transition.to.is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::EventType;
    use crate::domain::time::{earlier, later};
    use crate::domain::tracked::BatchKey;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn fresh(origin: Origin) -> Tracked {
        let key = BatchKey { provider: "openai".into(), id: "batch_1".into() };
        Tracked::new(key, "openai", "/v1/responses", origin, NOW)
    }

    /// The statuses that one check after another makes of what a service says that may take an end back.
    fn lived(said: &[Status]) -> Vec<Status> {
        let mut tracked = fresh(Origin::Hand);
        said.iter()
            .map(|status| {
                let sighting = Sighting {
                    id: "batch_1".to_owned(),
                    status: Some(*status),
                    provider_status: Some(status.as_str().to_owned()),
                    revocable: *status == Status::Completed,
                    ..Sighting::default()
                };
                tracked = observe(&tracked, &sighting, false, NOW).tracked;
                assert_eq!(
                    tracked.held_since.is_some(),
                    *status == Status::Completed && !tracked.batch.status.is_terminal()
                );
                tracked.batch.status
            })
            .collect()
    }

    #[test]
    fn an_end_that_may_be_taken_back_counts_when_it_is_seen_twice_in_a_row() {
        use Status::{Completed, InProgress};
        assert_eq!(lived(&[InProgress, Completed, Completed]), [InProgress, InProgress, Completed]);
        let taken_back = [InProgress, Completed, InProgress, Completed, Completed];
        assert_eq!(lived(&taken_back), [InProgress, InProgress, InProgress, InProgress, Completed]);
        assert_eq!(lived(&[Completed]), [Completed], "what was never seen alive is taken as it is");
    }

    #[test]
    fn files_that_are_not_named_are_waited_for_a_day_and_no_longer() {
        let minute = Duration::from_mins(1);
        let nameless = Sighting {
            id: "batch_1".to_owned(),
            status: Some(Status::Completed),
            request_counts: Some(RequestCounts { total: 2, completed: 2, failed: 0 }),
            ..Sighting::default()
        };
        let mut tracked = observe(&fresh(Origin::Hand), &nameless, true, NOW).tracked;
        assert_eq!(tracked.batch.status, Status::Finalizing);
        for minutes in 1..10 {
            tracked = observe(&tracked, &nameless, true, later(NOW, minute * minutes)).tracked;
            assert_eq!((tracked.batch.status, tracked.settled), (Status::Completed, false));
        }
        let mut failing = tracked.clone();
        for _ in 0..9 {
            failing = observe_failure(&failing, "no answer".to_owned(), later(NOW, minute * 20));
        }
        assert!(!failing.settled);
        let named = Sighting { output_file_id: Some("file-out".to_owned()), ..nameless.clone() };
        assert!(observe(&tracked, &named, true, later(NOW, minute * 30)).tracked.settled);
        let late = later(NOW, LATE_FILES + minute * 2);
        assert!(observe(&tracked, &nameless, true, late).tracked.settled);
        assert!(observe(&tracked, &nameless, false, later(NOW, minute * 10)).tracked.settled);
    }

    fn counts() -> impl Strategy<Value = Option<RequestCounts>> {
        prop::option::of((0_u64..9, 0_u64..9).prop_map(|(completed, failed)| RequestCounts {
            total: 20,
            completed,
            failed,
        }))
    }

    /// Any sighting: a word that is known, one that is not or none, and any of the fields that decide something.
    fn sighting() -> impl Strategy<Value = Sighting> {
        let status = prop::option::weighted(0.85, prop::sample::select(Status::ALL.as_slice()));
        let text = |text: &'static str| prop::option::of(Just(text.to_owned()));
        let at = || prop::option::of(1_794_000_000_i64..1_796_000_000);
        (status, any::<bool>(), counts(), text("file-out"), text("file-err"), text("gpt"), at(), at())
            .prop_map(
                |(
                    status,
                    silent,
                    request_counts,
                    output_file_id,
                    error_file_id,
                    model,
                    ended_at,
                    in_progress_at,
                )| {
                    let word = status.map_or("daydreaming", Status::as_str).to_owned();
                    Sighting {
                        id: "batch_1".to_owned(),
                        status,
                        provider_status: (status.is_some() || !silent).then_some(word),
                        request_counts,
                        output_file_id,
                        error_file_id,
                        model,
                        ended_at,
                        in_progress_at,
                        ..Sighting::default()
                    }
                },
            )
    }

    /// Sightings with the seconds between them (a negative number: the clock was set back).
    fn life() -> impl Strategy<Value = Vec<(Sighting, i64)>> {
        prop::collection::vec((sighting(), -40_i64..100), 1..30)
    }

    fn steps(hold: bool, life: &[(Sighting, i64)]) -> Vec<(Tracked, Step, Timestamp)> {
        let mut tracked = fresh(Origin::Hand);
        let mut now = NOW;
        life.iter()
            .map(|(sighting, gap)| {
                let by = Duration::from_secs(gap.unsigned_abs());
                now = if *gap < 0 { earlier(now, by) } else { later(now, by) };
                let step = observe(&tracked, sighting, hold, now);
                let before = std::mem::replace(&mut tracked, step.tracked.clone());
                (before, step, now)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn every_change_of_status_is_one_transition_and_one_event_of_its_type(hold: bool, life in life()) {
            let mut first = true;
            for (before, step, now) in steps(hold, &life) {
                let changed = first || before.batch.status != step.tracked.batch.status;
                prop_assert_eq!(step.transition.is_some(), changed);
                let kinds: Vec<EventType> = step.events.iter().map(Occurrence::kind).collect();
                let expected = changed.then_some(EventType::Batch(step.tracked.batch.status));
                prop_assert_eq!(kinds, Vec::from_iter(expected));
                if let Some(transition) = step.transition {
                    prop_assert_eq!(transition.from, (!first).then_some(before.batch.status));
                    prop_assert_eq!(transition.to, step.tracked.batch.status);
                    prop_assert_eq!(transition.observed_at, now);
                }
                first = false;
            }
        }

        #[test]
        fn g5_a_terminal_event_has_the_same_id_however_often_it_is_seen(hold: bool, life in life()) {
            // The log keeps one event of an id, for ever: so each end is told once.
            let mut ids = std::collections::BTreeMap::new();
            for (_, step, _) in steps(hold, &life) {
                for event in step.events {
                    let id = event.draft(&step.tracked).id;
                    prop_assert_eq!(ids.entry(event.kind()).or_insert_with(|| id.clone()), &id);
                }
            }
            let distinct: std::collections::BTreeSet<_> = ids.values().collect();
            prop_assert_eq!(distinct.len(), ids.len());
        }

        #[test]
        fn what_has_ended_stays_ended_and_no_unknown_word_ends_anything(hold: bool, life in life()) {
            let mut first = true;
            for ((before, step, _), (sighting, _)) in steps(hold, &life).into_iter().zip(&life) {
                let status = step.tracked.batch.status;
                if !first && before.batch.status.is_terminal() {
                    prop_assert!(status.is_terminal());
                }
                if sighting.status.is_none() {
                    prop_assert_eq!(status, if first { Status::InProgress } else { before.batch.status });
                }
                if status.is_terminal() && !before.batch.status.is_terminal() {
                    prop_assert_eq!(Some(status), sighting.status);
                }
                first = false;
            }
        }

        #[test]
        fn no_field_vanishes(hold: bool, life in life()) {
            for (before, step, _) in steps(hold, &life) {
                let (before, after) = (serde_json::to_value(&before.batch), serde_json::to_value(&step.tracked.batch));
                let (before, after) = (before.unwrap(), after.unwrap());
                for (field, value) in before.as_object().unwrap() {
                    prop_assert!(value.is_null() || !after[field].is_null(), "{} vanished", field);
                }
            }
        }

        #[test]
        fn the_same_sighting_again_is_no_news(life in life(), gap in 0_u64..1000) {
            let (_, step, now) = steps(false, &life).pop().unwrap();
            let sighting = &life.last().unwrap().0;
            // An ended batch is settled by its second check; after that there is nothing left to learn.
            let settled = observe(&step.tracked, sighting, false, now).tracked;
            let again = observe(&settled, sighting, false, later(now, Duration::from_secs(gap)));
            prop_assert!(!again.is_news(&settled), "{:?} {:?}", settled, again);
            prop_assert!(!settled.batch.status.is_terminal() || settled.settled);
        }

        #[test]
        fn a_completed_without_its_files_is_held_for_a_minute_at_most(gaps in prop::collection::vec(-4000_i64..30, 1..60)) {
            let mut tracked = fresh(Origin::Hand);
            let (mut now, mut held) = (NOW, Duration::ZERO);
            let sighting = Sighting {
                status: Some(Status::Completed),
                request_counts: Some(RequestCounts { total: 2, completed: 2, failed: 0 }),
                ..Sighting::default()
            };
            for gap in gaps.into_iter().chain([0, 30, 30]) {
                let by = Duration::from_secs(gap.unsigned_abs());
                now = if gap < 0 { earlier(now, by) } else { later(now, by) };
                held = if gap < 0 || tracked.first_seen_at.is_none() { Duration::ZERO } else { held + by };
                tracked = observe(&tracked, &sighting, true, now).tracked;
                prop_assert!(tracked.batch.status == Status::Completed || held < HOLD, "held for {:?}", held);
            }
            prop_assert_eq!(tracked.batch.status, Status::Completed);
            prop_assert_eq!(tracked.held_since, None);
        }
    }

    #[test]
    fn j7_an_end_that_was_past_at_the_first_round_of_discovery_is_recorded_and_not_told() {
        let over = Sighting { status: Some(Status::Failed), ..Sighting::default() };
        let step = observe(&fresh(Origin::Baseline), &over, false, NOW);
        assert!(step.transition.is_some() && step.events.is_empty());
        assert_eq!(observe(&fresh(Origin::Found), &over, false, NOW).events.len(), 1);
    }

    #[test]
    fn three_checks_over_ten_minutes_lose_a_batch_once_whatever_the_clock_does() {
        let mut tracked = fresh(Origin::Hand);
        let mut lost = 0;
        for minute in [600, 0, 5, 10, 15, 20] {
            let now = later(NOW, Duration::from_mins(minute));
            let step = observe_missing(&tracked, "404".to_owned(), now);
            lost += step.events.len();
            tracked = step.tracked;
            assert_eq!(lost == 1, (10..600).contains(&minute), "at minute {minute}");
        }
    }
}
