//! Findings about a batch that the clock alone brings: it is late, it gets nowhere, its results will go (`docs/contract.md#findings`).

use super::duration::human;
use super::event::{EventType, Occurrence};
use super::time::{earlier, from_seconds, later, since};
use super::tracked::Tracked;
use jiff::Timestamp;
use std::time::Duration;

/// How long a batch may go on without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// After so long without progress a batch is stalled, where its provider reports progress.
    pub stalled_after: Duration,
    /// Whether the provider is known to count requests while a batch runs.
    pub reports_progress: bool,
    /// How long all but one in a hundred batches like it took, where that has been learnt.
    pub longest_usual: Option<Duration>,
}

/// What is to be told of `tracked` at `now`, each episode once; what was told is noted in it.
///
/// Late is what its deadline has passed, or nine tenths of the provider's window. Stalled is what has made no progress
/// for `stalled_after` where the provider reports any while the batch runs (its kind says so, or its counts have moved
/// before); elsewhere, what takes longer than nearly all did before, or nine tenths of the window.
pub fn findings(tracked: &mut Tracked, patience: &Patience, now: Timestamp) -> Vec<Occurrence> {
    let mut found = Vec::new();
    if !tracked.is_active() || tracked.lost_since.is_some() {
        return found;
    }
    if let Some((due, why)) = due_at(tracked).filter(|(due, _)| *due <= now)
        && tracked.warned.insert(format!("{OVERDUE}{due}"))
    {
        found.push(Occurrence::finding_because(EventType::BatchOverdue, due, now, why));
    }
    if tracked.stalled_since.is_none()
        && tracked.first_seen_at.is_some()
        && let Some((begun, why)) = stalled(tracked, patience, now)
    {
        tracked.stalled_since = Some(now);
        found.push(Occurrence::finding_because(EventType::BatchStalled, begun, now, why));
    }
    found
}

/// Since when the batch gets nowhere, and what that means in words, if it does.
fn stalled(tracked: &Tracked, patience: &Patience, now: Timestamp) -> Option<(Timestamp, String)> {
    if patience.reports_progress || tracked.progress_at.is_some() {
        let moved = tracked.progress_at.map_or(tracked.status_since, |at| at.max(tracked.status_since));
        let still = since(moved, now);
        return (still >= patience.stalled_after)
            .then(|| (moved, format!("no progress for {}", human(still))));
    }
    let created = from_seconds(tracked.batch.created_at)?;
    let unusual = patience.longest_usual.map(|longest| {
        (later(created, longest), format!("99 of 100 like it took no longer than {}", human(longest)))
    });
    let window = window_mostly_over(tracked)
        .map(|at| (at, "most of its provider's window has passed without a sign of progress".to_owned()));
    unusual.into_iter().chain(window).min_by_key(|(at, _)| *at).filter(|(at, _)| *at <= now)
}

/// When it is to be told that the provider will soon delete the results of an ended batch: for the last tenth of the
/// time that they are kept, and for three days at most. `None`: not (there is a copy), or it has been told.
pub fn results_warn_at(tracked: &Tracked) -> Option<Timestamp> {
    let expire_at = tracked.results_expire_at?;
    let wanted = tracked.batch.status.is_terminal()
        && tracked.untracked_at.is_none()
        && tracked.batch.has_output()
        && tracked.results.is_none()
        && !tracked.warned.contains(&expiring(expire_at));
    let ended = tracked.batch.ended_at().and_then(from_seconds).unwrap_or(tracked.status_since);
    wanted.then(|| earlier(expire_at, (since(ended, expire_at) / 10).min(WARNED_BEFORE_AT_MOST)))
}

/// That the results will soon be deleted, if it is time to tell; noted in `tracked`. Once they are gone it is no use.
pub fn results_expiring(tracked: &mut Tracked, now: Timestamp) -> Option<Occurrence> {
    let expire_at = tracked.results_expire_at?;
    if results_warn_at(tracked)? > now || expire_at <= now {
        return None;
    }
    tracked.warned.insert(expiring(expire_at));
    let why = format!(
        "its provider deletes the results in {}, at {expire_at}; `batchd results` fetches them",
        human(since(now, expire_at))
    );
    Some(Occurrence::finding_because(EventType::ResultsExpiring, expire_at, now, why))
}

fn expiring(expire_at: Timestamp) -> String {
    format!("results expire at {expire_at}")
}

/// When the batch becomes late, and what that means in words: the earlier of its deadline and most of its window.
fn due_at(tracked: &Tracked) -> Option<(Timestamp, String)> {
    let deadline = tracked.deadline.map(|at| (at, format!("its deadline, {at}, has passed")));
    let expires = tracked.batch.expires_at.and_then(from_seconds);
    let window = window_mostly_over(tracked)
        .zip(expires)
        .map(|(at, expires)| (at, format!("its provider gives it up at {expires}")));
    deadline.into_iter().chain(window).min_by_key(|(at, _)| *at)
}

/// The batch does not count as told to be late, unless it does in `stored`: it was judged by another deadline.
pub fn forget_overdue(tracked: &mut Tracked, stored: &Tracked) {
    tracked.warned.retain(|warned| !warned.starts_with(OVERDUE) || stored.warned.contains(warned));
}

/// When most of the provider's window has passed, where it has one.
fn window_mostly_over(tracked: &Tracked) -> Option<Timestamp> {
    let created = from_seconds(tracked.batch.created_at)?;
    let expires = tracked.batch.expires_at.and_then(from_seconds).filter(|expires| *expires > created)?;
    Some(later(created, since(created, expires).mul_f64(MOST_OF_THE_WINDOW)))
}

/// What begins the warning that notes a batch as late.
pub const OVERDUE: &str = "overdue since ";

/// How much of the provider's window may pass before a batch counts as late.
const MOST_OF_THE_WINDOW: f64 = 0.9;
/// How long before their end results are told of at the earliest.
const WARNED_BEFORE_AT_MOST: Duration = Duration::from_hours(3 * 24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::status::Status;
    use crate::domain::tracked::{BatchKey, Origin};

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);
    const HOUR: Duration = Duration::from_hours(1);
    const PATIENCE: Patience =
        Patience { stalled_after: Duration::from_hours(6), reports_progress: false, longest_usual: None };

    fn live() -> Tracked {
        let key = BatchKey { provider: "openai".to_owned(), id: "batch_1".to_owned() };
        let mut tracked = Tracked::new(key, "openai", "/v1/chat/completions", Origin::Hand, NOW);
        tracked.batch.status = Status::InProgress;
        tracked.first_seen_at = Some(NOW);
        tracked
    }

    fn message(found: &Occurrence, tracked: &Tracked) -> String {
        found.draft(tracked).data["message"].as_str().unwrap().to_owned()
    }

    fn told(tracked: &mut Tracked, now: Timestamp) -> Vec<EventType> {
        findings(tracked, &PATIENCE, now).iter().map(Occurrence::kind).collect()
    }

    #[test]
    fn a_deadline_that_passes_is_told_once_and_a_new_one_again() {
        let mut batch = live();
        batch.deadline = Some(later(NOW, HOUR));
        assert_eq!(told(&mut batch, NOW), []);
        let passed = later(NOW, HOUR);
        assert_eq!(told(&mut batch, passed), [EventType::BatchOverdue]);
        assert_eq!(told(&mut batch, later(passed, HOUR)), []);
        batch.deadline = Some(later(NOW, HOUR * 3));
        assert_eq!(told(&mut batch, later(NOW, HOUR * 2)), []);
        assert_eq!(told(&mut batch, later(NOW, HOUR * 3)), [EventType::BatchOverdue]);
    }

    #[test]
    fn most_of_the_window_is_late_too() {
        let mut batch = live();
        batch.batch.expires_at = Some(batch.batch.created_at + 24 * 3600);
        assert_eq!(told(&mut batch, later(NOW, HOUR * 21)), []);
        let late = findings(&mut batch, &PATIENCE, later(NOW, HOUR * 22));
        assert_eq!(late[0].kind(), EventType::BatchOverdue);
        assert!(message(&late[0], &batch).contains("gives it up"));
    }

    #[test]
    fn where_progress_is_not_reported_only_what_has_moved_can_stall() {
        let mut batch = live();
        assert_eq!(told(&mut batch, later(NOW, HOUR * 100)), []);
        batch.progress_at = Some(NOW);
        assert_eq!(told(&mut batch, later(NOW, HOUR * 5)), []);
        assert_eq!(told(&mut batch, later(NOW, HOUR * 6)), [EventType::BatchStalled]);
        assert!(batch.stalled_since.is_some());
        assert_eq!(told(&mut batch, later(NOW, HOUR * 7)), []);
    }

    #[test]
    fn where_progress_is_reported_standing_still_from_the_start_is_a_stall_too() {
        let patience = Patience { reports_progress: true, ..PATIENCE };
        let mut batch = live();
        assert_eq!(findings(&mut batch, &patience, later(NOW, HOUR * 5)), []);
        let found = findings(&mut batch, &patience, later(NOW, HOUR * 6));
        assert_eq!(found[0].kind(), EventType::BatchStalled);
        assert_eq!(message(&found[0], &batch), "no progress for 6 h");
        // One that nobody has seen yet cannot stand still.
        let mut unseen = Tracked { first_seen_at: None, ..live() };
        assert_eq!(findings(&mut unseen, &patience, later(NOW, HOUR * 60)), []);
    }

    #[test]
    fn elsewhere_what_takes_unusually_long_is_stalled() {
        let usual = Patience { longest_usual: Some(HOUR * 8), ..PATIENCE };
        let mut batch = live();
        assert_eq!(findings(&mut batch, &usual, later(NOW, HOUR * 7)), []);
        assert_eq!(findings(&mut batch, &usual, later(NOW, HOUR * 8))[0].kind(), EventType::BatchStalled);
        assert_eq!(findings(&mut batch, &usual, later(NOW, HOUR * 9)), []);
        // Nothing learnt: most of the window. That it is late is another finding.
        let mut batch = live();
        batch.batch.expires_at = Some(batch.batch.created_at + 24 * 3600);
        assert_eq!(told(&mut batch, later(NOW, HOUR * 21)), []);
        let kinds = told(&mut batch, later(NOW, HOUR * 22));
        assert_eq!(kinds, [EventType::BatchOverdue, EventType::BatchStalled]);
    }

    fn ended(kept_for: Duration) -> Tracked {
        let mut batch = live();
        batch.batch.status = Status::Completed;
        batch.batch.completed_at = Some(NOW.as_second());
        batch.batch.output_file_id = Some("file-out".to_owned());
        batch.results_expire_at = Some(later(NOW, kept_for));
        batch
    }

    #[test]
    fn results_that_will_go_are_told_once_and_in_time() {
        let day = HOUR * 24;
        assert_eq!(results_warn_at(&ended(day * 30)), Some(later(NOW, day * 27)));
        assert_eq!(results_warn_at(&ended(day)), Some(later(NOW, day.mul_f64(0.9))));
        let mut batch = ended(day * 30);
        assert_eq!(results_expiring(&mut batch, later(NOW, day * 26)), None);
        let told = results_expiring(&mut batch, later(NOW, day * 28)).unwrap();
        assert_eq!(told.kind(), EventType::ResultsExpiring);
        assert!(message(&told, &batch).contains("in 2 d"), "{told:?}");
        assert_eq!(results_expiring(&mut batch, later(NOW, day * 29)), None);
        assert_eq!(results_warn_at(&batch), None);
        // Gone is gone.
        assert_eq!(results_expiring(&mut ended(day), later(NOW, day)), None);
        for spared in [
            Tracked { untracked_at: Some(NOW), ..ended(day) },
            Tracked { results_expire_at: None, ..ended(day) },
            live(),
        ] {
            assert_eq!(results_warn_at(&spared), None);
        }
        let mut empty = ended(day);
        empty.batch.output_file_id = None;
        assert_eq!(results_warn_at(&empty), None, "there are none");
    }

    #[test]
    fn what_has_ended_or_is_lost_or_untracked_is_none_of_it() {
        let late = later(NOW, HOUR * 100);
        let broken = |change: fn(&mut Tracked)| {
            let mut batch = live();
            batch.deadline = Some(NOW);
            batch.progress_at = Some(NOW);
            change(&mut batch);
            told(&mut batch, late)
        };
        assert_eq!(broken(|_| {}).len(), 2);
        assert_eq!(broken(|batch| batch.batch.status = Status::Completed), []);
        assert_eq!(broken(|batch| batch.lost_since = Some(NOW)), []);
        assert_eq!(broken(|batch| batch.untracked_at = Some(NOW)), []);
    }
}
