//! What a sighting means for a watched batch: its new state and the events worth telling.

use super::batch::RequestCounts;
use super::event::{Draft, EventType};
use super::sighting::Sighting;
use super::status::Status;
use super::time::{from_seconds, since};
use super::tracked::{Missing, Origin, Tracked};
use jiff::Timestamp;
use std::time::Duration;

/// How long a `completed` without its files is shown as `finalizing`.
pub const HOLD: Duration = Duration::from_mins(1);

/// How many "no such batch" in a row make a batch lost …
const LOST_AFTER_LOOKS: u32 = 3;
/// … over at least this time.
const LOST_AFTER: Duration = Duration::from_mins(10);

/// After this many failed second looks an ended batch's record stays as it is.
const SETTLED_AFTER_FAILURES: u32 = 5;

/// A change of a batch's status that was observed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Transition {
    /// The status before; `None` at the first sighting.
    pub from: Option<Status>,
    /// The status now.
    pub to: Status,
    /// The provider's own word.
    pub provider_status: Option<String>,
    /// The provider's time of it, where it tells one.
    pub occurred_at: Option<Timestamp>,
    /// When batchd saw it.
    pub observed_at: Timestamp,
}

/// What one look changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The batch as it is now.
    pub tracked: Tracked,
    /// The change of status, if there was one.
    pub transition: Option<Transition>,
    /// What is worth telling; each is recorded once, ever.
    pub events: Vec<Draft>,
    /// New oddities for the log, said once a batch.
    pub warnings: Vec<String>,
}

impl Step {
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
        warn_once(&mut tracked, &mut warnings, trouble.clone());
    }
    let told = told_status(before, sighting, first, &mut tracked, &mut warnings);
    let status = held(&mut tracked, sighting, told, hold_incomplete, now);

    tracked.provider_status.clone_from(&sighting.provider_status);
    take_fields(&mut tracked, sighting);
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
        tracked.stalled_since = None;
    }
    tracked.settled =
        status.is_terminal() && (before.batch.status.is_terminal() && !first || says_all(&tracked));

    // Decided by the caller from all this; an event tells no plan rather than the one that was carried out.
    tracked.next_poll_at = None;
    tracked.eta = None;
    let changed = first || status != before.batch.status;
    if changed {
        tracked.status_since = now;
        tracked.stalled_since = None;
    }
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
        .map(|transition| Draft::status(&tracked, transition))
        .collect();
    Step { tracked, transition, events, warnings }
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
        return Step { tracked, transition: None, events: Vec::new(), warnings: Vec::new() };
    }
    let missing = before.missing.map_or(Missing { since: now, count: 1 }, |earlier| Missing {
        since: earlier.since,
        count: earlier.count.saturating_add(1),
    });
    tracked.missing = Some(missing);
    tracked.last_polled_at = Some(now);
    tracked.last_error = Some(error);
    tracked.failures = 0;
    let mut events = Vec::new();
    if before.lost_since.is_none()
        && missing.count >= LOST_AFTER_LOOKS
        && since(missing.since, now) >= LOST_AFTER
    {
        tracked.lost_since = Some(now);
        events.push(Draft::finding(EventType::BatchLost, &tracked, missing.since, now));
    }
    Step { tracked, transition: None, events, warnings: Vec::new() }
}

/// What it means that a look failed for a reason that says nothing about the batch.
pub fn observe_failure(before: &Tracked, error: String, now: Timestamp) -> Tracked {
    let mut tracked = before.clone();
    tracked.last_polled_at = Some(now);
    tracked.last_error = Some(error);
    tracked.failures = before.failures.saturating_add(1);
    // The second look after the end is a courtesy.
    tracked.settled |= before.batch.status.is_terminal() && tracked.failures >= SETTLED_AFTER_FAILURES;
    tracked
}

fn warn_once(tracked: &mut Tracked, warnings: &mut Vec<String>, what: String) {
    // A server that finds ever new oddities must not grow the record for ever.
    const MOST: usize = 32;
    if tracked.warned.len() < MOST && tracked.warned.insert(what.clone()) {
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
                Some(word) => format!("unknown status word `{word}`"),
                None => "no status in the provider's answer".to_owned(),
            };
            warn_once(tracked, warnings, what);
            if first { Status::InProgress } else { before.batch.status }
        }
    }
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
        && tracked.batch.status != Status::Completed
        && sighting.output_file_id.is_none()
        && sighting.error_file_id.is_none()
        && sighting.request_counts.is_some_and(|counts| counts.completed > 0);
    if !(hold_incomplete && incomplete) {
        tracked.held_since = None;
        return told;
    }
    let held_since = *tracked.held_since.get_or_insert(now);
    if since(held_since, now) < HOLD {
        Status::Finalizing
    } else {
        tracked.held_since = None;
        told
    }
}

fn take_fields(tracked: &mut Tracked, sighting: &Sighting) {
    fn take<T: Clone>(into: &mut Option<T>, from: Option<&T>) {
        if let Some(value) = from {
            *into = Some(value.clone());
        }
    }
    let batch = &mut tracked.batch;
    if let Some(endpoint) = &sighting.endpoint {
        batch.endpoint.clone_from(endpoint);
    }
    if let Some(file) = &sighting.input_file_id {
        batch.input_file_id.clone_from(file);
    }
    if let Some(window) = &sighting.completion_window {
        batch.completion_window.clone_from(window);
    }
    if let Some(created_at) = sighting.created_at {
        batch.created_at = created_at;
    }
    take(&mut batch.model, sighting.model.as_ref());
    take(&mut batch.output_file_id, sighting.output_file_id.as_ref());
    take(&mut batch.error_file_id, sighting.error_file_id.as_ref());
    take(&mut batch.errors, sighting.errors.as_ref());
    take(&mut batch.in_progress_at, sighting.in_progress_at.as_ref());
    take(&mut batch.expires_at, sighting.expires_at.as_ref());
    take(&mut batch.finalizing_at, sighting.finalizing_at.as_ref());
    take(&mut batch.completed_at, sighting.completed_at.as_ref());
    take(&mut batch.failed_at, sighting.failed_at.as_ref());
    take(&mut batch.expired_at, sighting.expired_at.as_ref());
    take(&mut batch.cancelling_at, sighting.cancelling_at.as_ref());
    take(&mut batch.cancelled_at, sighting.cancelled_at.as_ref());
    take(&mut batch.request_counts, sighting.request_counts.as_ref());
    take(&mut batch.metadata, sighting.metadata.as_ref());
    take(&mut batch.usage, sighting.usage.as_ref());
    if tracked.name.is_none() {
        tracked.name.clone_from(&sighting.display_name);
    }
    if let Some(at) = sighting.results_expire_at.and_then(from_seconds) {
        tracked.results_expire_at = Some(at);
    }
}

/// Fills the time of the present status: the provider's own, else its one time for every end, else (only for a
/// change that was really witnessed) the time of the look.
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
