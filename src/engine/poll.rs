//! One poll, from the request to the commit.

use super::due::{Mark, Next};
use super::poller::{Access, Asked, Polled, Poller};
use super::requeue::failed_for_quota;
use super::shared::Shared;
use super::unchanged;
use crate::domain::finding::{self, Patience};
use crate::domain::hazard::Estimate;
use crate::domain::history::Stage;
use crate::domain::outcome::{Outcome, Severity};
use crate::domain::schedule::{self, Terms};
use crate::domain::sighting::Sighting;
use crate::domain::time::later;
use crate::domain::tracked::Tracked;
use crate::domain::transition::{Step, observe, observe_failure, observe_missing};
use crate::http::failure::{Failure, Verdict};
use crate::store::touch::Touch;
use crate::store::{Pk, StoreError};
use jiff::Timestamp;

/// Asks for one batch and stores what the answer means. What is not to be checked any more is asked for by hand only.
pub(super) async fn poll(
    poller: &Poller,
    shared: &Shared,
    pk: Pk,
    by_hand: bool,
) -> Result<Polled, StoreError> {
    let begun = poller.now();
    let mut early = None;
    if !by_hand && poller.due().may_be_unchanged(pk, begun) {
        let Some(id) = shared.store.id_on_schedule(pk).await? else {
            return Ok(Polled { next: None, failure: None });
        };
        let asked = poller.ask(&id).await;
        if let Ok(asked) = &asked
            && let Some(next) = unchanged_poll(poller, pk, asked)
        {
            poller.report(None).await;
            return Ok(Polled { next: Some(next), failure: None });
        }
        early = Some(asked);
    }
    let Some(before) = shared.store.load(pk).await?.filter(|before| by_hand || Next::of(before).is_some())
    else {
        return Ok(Polled { next: None, failure: None });
    };
    if early.is_some() && before.last_polled_at.is_some_and(|at| at > begun) {
        // Somebody has asked since, and knows better than this answer.
        return Ok(Polled { next: Next::of(&before), failure: None });
    }
    let asked = match early {
        Some(asked) => asked,
        None => poller.ask(&before.key.id).await,
    };
    let fingerprint = asked.as_ref().ok().and_then(Asked::fingerprint);
    let seen = asked.and_then(|asked| poller.read(&before.key.id, &asked));
    let judged = match &seen {
        Ok(sighting) => {
            poller.report(None).await;
            Ok(sighting)
        }
        Err(failure) => Err((failure, judge(poller, &before, failure).await)),
    };
    let terms = poller.terms();
    let step = observed(poller, &before, judged, &terms);
    log(&before, &step, seen.as_ref().err());

    let mark = fingerprint.zip(seen.as_ref().ok());
    let mark = mark.and_then(|(print, sighting)| mark_of(poller, &before, (sighting, print), &step, &terms));
    let next = Next::of(&step.tracked).map(|next| Next { mark, ..next });
    keep(poller, pk, &before, step).await?;
    Ok(Polled { next, failure: seen.err() })
}

/// Stores what a check means for a batch: the times of the check with the next commit, all else at once.
pub(super) async fn keep(poller: &Poller, pk: Pk, before: &Tracked, step: Step) -> Result<(), StoreError> {
    let Tracked { last_polled_at, next_poll_at, eta, .. } = step.tracked;
    // What is not on the schedule has no row for the times alone.
    let stays_on = before.untracked_at.is_none() && before.next_poll_at.is_some();
    match next_poll_at.filter(|_| stays_on && !step.is_news(before)) {
        Some(next_poll_at) => {
            let last_polled_at = last_polled_at.unwrap_or_else(|| poller.now());
            poller.store().touch(pk, Touch { last_polled_at, next_poll_at, eta });
            Ok(())
        }
        None => record(poller, pk, step).await,
    }
}

/// What comes after a poll whose answer is written as the last one was; its times are noted.
fn unchanged_poll(poller: &Poller, pk: Pk, asked: &Asked) -> Option<Next> {
    let now = poller.now();
    let next = poller.due().after_unchanged(pk, asked.fingerprint()?, now)?;
    poller.leave_unread(asked);
    tracing::debug!(provider = poller.name(), batch = pk, "the batch is unchanged");
    poller.store().touch_times(now, std::iter::once((pk, next.at)));
    Some(next)
}

/// What a page of the list, on which the batch is written as `fingerprint` says, means for one of the batches on it, with
/// the time of the next check. No I/O.
pub(super) fn seen_on_page(
    poller: &Poller,
    before: &Tracked,
    sighting: &Sighting,
    fingerprint: Option<u64>,
) -> (Step, Option<Mark>) {
    let terms = poller.terms_on_pages();
    let step = observed(poller, before, Ok(sighting), &terms);
    log(before, &step, None);
    let mark =
        fingerprint.and_then(|fingerprint| mark_of(poller, before, (sighting, fingerprint), &step, &terms));
    (step, mark)
}

/// Stores a check that brought news.
async fn record(poller: &Poller, pk: Pk, step: Step) -> Result<(), StoreError> {
    let shared = poller.shared();
    let ended = step.transition.as_ref().is_some_and(|transition| transition.to.is_terminal());
    // For what the provider had no room, that leaves none.
    let refused = ended && failed_for_quota(&step.tracked).is_some();
    let waits = step.tracked.lineage.quota_wait.is_some().then(|| step.tracked.key.clone());
    shared.store.record(pk, step, shared.routes()).await?;
    if ended {
        shared.estimates.invalidate(poller.name());
        match waits.filter(|_| refused) {
            Some(batch) => shared.room.failed(batch),
            None if refused => {}
            None => shared.room.made(poller.name()),
        }
    }
    Ok(())
}

/// What a check means for the batch, with the time of the next one. No I/O.
pub(super) fn observed(
    poller: &Poller,
    before: &Tracked,
    seen: Result<&Sighting, (&Failure, Verdict)>,
    terms: &Terms,
) -> Step {
    let now = poller.now();
    observed_at(poller, before, seen, terms, (now, jitter(poller, before, now)))
}

/// What a check shows that brings nothing new, after this one.
fn mark_of(
    poller: &Poller,
    before: &Tracked,
    seen: (&Sighting, u64),
    step: &Step,
    terms: &Terms,
) -> Option<Mark> {
    let jitter = jitter(poller, before, step.tracked.last_polled_at?);
    let again = |then| observed_at(poller, &step.tracked, Ok(seen.0), terms, (then, jitter));
    unchanged::mark(before, seen, step, terms, again)
}

/// How far the check that follows one at `now` is moved from where it would be, from 0 to 1.
fn jitter(poller: &Poller, tracked: &Tracked, now: Timestamp) -> f64 {
    poller.shared().rng.jitter_of(&tracked.key.to_string(), now)
}

/// The same as if it were another time.
fn observed_at(
    poller: &Poller,
    before: &Tracked,
    seen: Result<&Sighting, (&Failure, Verdict)>,
    terms: &Terms,
    (now, jitter): (Timestamp, f64),
) -> Step {
    let mut key_refused = terms.key_refused;
    let mut not_before = None;
    let mut step = match seen {
        Ok(sighting) => {
            key_refused = false;
            // Longer than between any two checks it is not put off.
            not_before = sighting.retry_after.map(|wait| later(now, wait.min(terms.plan.max_interval)));
            observe(before, sighting, poller.adapter().hold_incomplete(), now)
        }
        Err((failure, verdict)) => match verdict {
            Verdict::Missing => observe_missing(before, failure.to_string(), now),
            Verdict::Again => Step::quiet(observe_failure(before, failure.to_string(), now)),
            Verdict::Refused => {
                key_refused = true;
                Step::quiet(patient(before, failure, now))
            }
            Verdict::Hold(_) => {
                not_before = poller.held_until();
                Step::quiet(patient(before, failure, now))
            }
        },
    };
    let terms = Terms { key_refused, estimate: poller.estimate(&step.tracked), ..terms.clone() };
    // What is learnt of a later stage says nothing of the whole.
    let whole = terms.estimate.as_deref().filter(|_| Stage::of(step.tracked.batch.status) == Stage::Work);
    let patience = Patience { longest_usual: whole.and_then(Estimate::most), ..poller.patience() };
    step.events.extend(finding::findings(&mut step.tracked, &patience, now));
    let next = schedule::next_poll(&terms, &step.tracked, now, jitter);
    step.tracked.next_poll_at = next.at.map(|at| not_before.map_or(at, |earliest| earliest.max(at)));
    step.tracked.eta = schedule::eta(&terms, &step.tracked, now);
    step.usual = terms.estimate.as_deref().and_then(Estimate::usual);
    step
}

/// What a failure means for the batch, once it is told to the account if it says something of that.
///
/// A key is good if it can read the list: then the refusal is this batch's own (it was deleted, or belongs to another
/// project) and counts as if it were not there. So it does if it was refused the last time already and the account has
/// been well since.
async fn judge(poller: &Poller, before: &Tracked, failure: &Failure) -> Verdict {
    let verdict = failure.verdict();
    let may_be_its_own =
        verdict == Verdict::Refused && matches!(failure, Failure::Status { .. }) && !poller.key_refused();
    if !may_be_its_own {
        poller.report(Some(failure)).await;
        return verdict;
    }
    let was_refused = before.last_error.as_ref() == Some(&failure.to_string());
    match poller.access().await {
        Access::Accepted => Verdict::Missing,
        Access::Refused if was_refused && !poller.key_refused() => Verdict::Missing,
        Access::Refused => {
            poller.report(Some(failure)).await;
            Verdict::Refused
        }
        Access::Unknown => Verdict::Again,
    }
}

/// The account is in trouble, which says nothing of the batch: its own schedule goes on.
fn patient(before: &Tracked, failure: &Failure, now: Timestamp) -> Tracked {
    let mut tracked = before.clone();
    tracked.last_polled_at = Some(now);
    tracked.last_error = Some(failure.to_string());
    tracked
}

fn log(before: &Tracked, step: &Step, failure: Option<&Failure>) {
    let key = &before.key;
    log_warnings(step);
    if let Some(failure) = failure {
        let (class, failures) = (failure.class(), step.tracked.failures);
        // Warned of once; the same again is for who reads the debug log.
        if before.last_error == step.tracked.last_error {
            tracing::debug!(
                provider = key.provider,
                batch = key.id,
                class,
                failures,
                "the batch still cannot be checked: {failure}"
            );
        } else {
            tracing::warn!(
                provider = key.provider,
                batch = key.id,
                class,
                failures,
                "cannot check the batch: {failure}"
            );
        }
    } else if step.transition.is_some() {
        log_status(&step.tracked);
    } else {
        tracing::debug!(provider = key.provider, batch = key.id, status = %before.batch.status, "the batch is unchanged");
    }
    if step.tracked.lost_since.is_some() && before.lost_since.is_none() {
        tracing::error!(provider = key.provider, batch = key.id, "the provider no longer knows the batch");
    }
}

/// What has become of a batch, at the level of its event: an end that is an error or a warning is logged as one.
pub(super) fn log_status(tracked: &Tracked) {
    let (key, status, outcome) = (&tracked.key, tracked.batch.status, tracked.outcome());
    macro_rules! record {
        ($level:ident) => {
            tracing::$level!(
                provider = key.provider,
                batch = key.id,
                %status,
                outcome = outcome.map(tracing::field::display),
                "{} {}{status}",
                key.id,
                if status.is_terminal() { "" } else { "is " },
            )
        };
    }
    match outcome.map(Outcome::severity) {
        Some(Severity::Error) => record!(error),
        Some(Severity::Warning) => record!(warn),
        Some(Severity::Info) | None => record!(info),
    }
}

/// What was odd about an answer, each thing once.
pub(super) fn log_warnings(step: &Step) {
    let key = &step.tracked.key;
    for warning in &step.warnings {
        tracing::warn!(provider = key.provider, batch = key.id, "{warning}");
    }
}
