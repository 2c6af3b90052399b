//! Findings about a live batch that its clock alone brings: it is late, or it gets nowhere (contract §6).

use super::duration::human;
use super::event::{Draft, EventType};
use super::time::{from_seconds, later, since};
use super::tracked::Tracked;
use jiff::Timestamp;
use std::time::Duration;

/// What is to be told of `tracked` at `now`, each episode once; what was told is noted in it.
///
/// Late is what its deadline has passed, or nine tenths of the provider's window. Stalled is what has made progress
/// once and then none for `stalled_after`: a service that counts only at the end is never called so.
pub fn findings(tracked: &mut Tracked, stalled_after: Duration, now: Timestamp) -> Vec<Draft> {
    let mut found = Vec::new();
    if !tracked.is_active() || tracked.lost_since.is_some() {
        return found;
    }
    if let Some((due, why)) = due_at(tracked).filter(|(due, _)| *due <= now)
        && tracked.warned.insert(format!("overdue since {due}"))
    {
        found.push(Draft::finding(EventType::BatchOverdue, tracked, due, now).because(&why));
    }
    if let Some(progress_at) = tracked.progress_at
        && tracked.stalled_since.is_none()
        && since(progress_at.max(tracked.status_since), now) >= stalled_after
    {
        tracked.stalled_since = Some(now);
        let why = format!("no progress for {}", human(since(progress_at, now)));
        found.push(Draft::finding(EventType::BatchStalled, tracked, progress_at, now).because(&why));
    }
    found
}

/// When the batch becomes late, and what that means in words: the earlier of its deadline and most of its window.
fn due_at(tracked: &Tracked) -> Option<(Timestamp, String)> {
    let deadline = tracked.deadline.map(|at| (at, format!("its deadline, {at}, has passed")));
    let window = tracked.batch.expires_at.and_then(from_seconds).zip(from_seconds(tracked.batch.created_at));
    let window = window.filter(|(expires, created)| expires > created).map(|(expires, created)| {
        let most = since(created, expires).mul_f64(MOST_OF_THE_WINDOW);
        (later(created, most), format!("its provider gives it up at {expires}"))
    });
    deadline.into_iter().chain(window).min_by_key(|(at, _)| *at)
}

/// How much of the provider's window may pass before a batch counts as late.
const MOST_OF_THE_WINDOW: f64 = 0.9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::status::Status;
    use crate::domain::tracked::{BatchKey, Origin};

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);
    const HOUR: Duration = Duration::from_hours(1);
    const STALLED_AFTER: Duration = Duration::from_hours(6);

    fn live() -> Tracked {
        let key = BatchKey { provider: "openai".to_owned(), id: "batch_1".to_owned() };
        let mut tracked = Tracked::new(key, "openai", "/v1/chat/completions", Origin::Hand, NOW);
        tracked.batch.status = Status::InProgress;
        tracked
    }

    fn told(tracked: &mut Tracked, now: Timestamp) -> Vec<EventType> {
        findings(tracked, STALLED_AFTER, now).into_iter().map(|draft| draft.kind).collect()
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
        let late = findings(&mut batch, STALLED_AFTER, later(NOW, HOUR * 22));
        assert_eq!(late[0].kind, EventType::BatchOverdue);
        assert!(late[0].data["message"].as_str().unwrap().contains("gives it up"));
    }

    #[test]
    fn only_what_has_moved_can_stall() {
        let mut batch = live();
        assert_eq!(told(&mut batch, later(NOW, HOUR * 100)), []);
        batch.progress_at = Some(NOW);
        assert_eq!(told(&mut batch, later(NOW, HOUR * 5)), []);
        assert_eq!(told(&mut batch, later(NOW, HOUR * 6)), [EventType::BatchStalled]);
        assert!(batch.stalled_since.is_some());
        assert_eq!(told(&mut batch, later(NOW, HOUR * 7)), []);
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
