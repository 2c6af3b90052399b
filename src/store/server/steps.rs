//! A server that has lost commits which had been answered: how that is noticed, and how the numbers of events go on so
//! that no follower passes over new ones (`docs/scaling.md#fail-over-of-the-server`).
//!
//! A standby that takes over may lack the newest commits, and so does an older copy that is put back. What came next would
//! be numbered as what was lost had been, and whoever has read that would never see it.

use super::super::error::StoreError;
use super::member::{number, quoted};
use super::session::Session;

/// What a daemon knows of the newest that the server had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The highest number of an event.
    pub(super) sequence: i64,
    /// The number of the newest step.
    pub(super) step: i64,
    /// Which line of the server's log it is: a standby that takes over begins another.
    pub(super) timeline: Option<String>,
}

impl Known {
    /// Whether a server whose newest number and line are these has lost something that this daemon has seen.
    pub(super) fn is_ahead_of(&self, sequence: i64, timeline: Option<&str>) -> bool {
        let is_another = matches!((&self.timeline, timeline), (Some(known), Some(now)) if known != now);
        sequence < self.sequence || is_another
    }

    /// The same, whatever was seen first.
    pub(super) fn saw(&mut self, sequence: i64, step: i64) {
        self.sequence = self.sequence.max(sequence);
        self.step = self.step.max(step);
    }
}

/// What the server has, read under the lock of `head`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    sequence: i64,
    step: i64,
    /// The line in which the last daemon that looked for it found the server.
    noted: Option<String>,
    timeline: Option<String>,
}

impl Found {
    /// Whether numbers have to be left out: not if another daemon has left them out already.
    fn needs_step(&self, known: &Known, has_lost: bool) -> bool {
        let is_another = matches!((&self.noted, &self.timeline), (Some(noted), Some(now)) if noted != now);
        self.sequence < known.sequence || is_another || has_lost && self.step <= known.step
    }
}

/// How the server is asked for the line of its log; `NULL` where it does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timeline(pub(super) &'static str);

impl Timeline {
    /// Tries whether the server says it: services that keep their log in their own way do not.
    pub(super) fn of(session: &Session) -> Result<Self, StoreError> {
        match session.told(&format!("SELECT {ASKED}")) {
            Ok(_) => Ok(Self(ASKED)),
            Err(_) => session.told("SELECT 1").map(|_| Self(UNKNOWN)),
        }
    }
}

/// In the transaction that is open and has locked `head`: has the numbers go on behind a gap if the server has lost what
/// `known` tells, or if `has_lost` says that it has. Returns what is known from then on.
pub(super) fn follow(
    session: &Session,
    timeline: Timeline,
    known: &Known,
    has_lost: bool,
    now: i64,
) -> Result<Known, StoreError> {
    let told = session.told(&format!(
        "SELECT sequence, (SELECT coalesce(max(number), 0) FROM steps), (SELECT timeline FROM batchd), {} FROM head",
        timeline.0
    ))?;
    let text = |at: usize| told.rows.first().and_then(|row| row.get(at).cloned().flatten());
    let found = Found {
        sequence: number(&told, 0, 0).unwrap_or_default(),
        step: number(&told, 0, 1).unwrap_or_default(),
        noted: text(2),
        timeline: text(3),
    };
    if found.timeline.is_some() && found.timeline != found.noted {
        let timeline = quoted(found.timeline.as_deref().unwrap_or_default());
        session.control(&format!("UPDATE batchd SET timeline = {timeline}"))?;
    }
    if !found.needs_step(known, has_lost) {
        let Found { sequence, step, timeline, .. } = found;
        return Ok(Known { sequence, step, timeline });
    }
    let before = found.sequence.max(known.sequence);
    let (sequence, step) = (before + LEFT_OUT, found.step.max(known.step) + 1);
    session.control(&format!(
        "UPDATE head SET sequence = {sequence}; \
         INSERT INTO steps (number, newest, behind, goes_on, at) \
           VALUES ({step}, {}, {before}, {sequence} + 1, {now}); {ROWS_GO_ON}",
        found.sequence
    ))?;
    tracing::error!(
        newest = found.sequence,
        seen = before,
        "the PostgreSQL server is another one, or an older copy, and may have lost commits that had been answered: the \
         numbers of events go on at {} after {before}; what has ended since is found again, what was registered since has \
         to be registered again",
        sequence + 1
    );
    Ok(Known { sequence, step, timeline: found.timeline })
}

const ASKED: &str = "left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)";
const UNKNOWN: &str = "NULL";
/// So many numbers are left out: more than any daemon can have seen that the others have not.
const LEFT_OUT: i64 = 10_000;
/// What is under way knows rows by numbers that the server may give again.
const ROWS_GO_ON: &str = "SELECT setval(rows.name, nextval(rows.name) + 1000000) \
    FROM (SELECT pg_get_serial_sequence(t, 'pk')::regclass AS name FROM unnest(ARRAY['mail', 'batches', 'transitions', \
      'deliveries', 'attempts', 'submissions', 'classes', 'files', 'creations', 'queue']) AS t) AS rows";

#[cfg(test)]
mod tests {
    use super::*;

    fn known(sequence: i64, step: i64, timeline: &str) -> Known {
        Known { sequence, step, timeline: Some(timeline.to_owned()) }
    }

    fn found(sequence: i64, step: i64, noted: &str, timeline: &str) -> Found {
        Found { sequence, step, noted: Some(noted.to_owned()), timeline: Some(timeline.to_owned()) }
    }

    #[test]
    fn numbers_are_left_out_once_for_each_time_that_commits_were_lost() {
        // Nothing was lost: a restart of the server, a daemon that was given up.
        assert!(!found(90, 0, "1", "1").needs_step(&known(90, 0, "1"), false));
        // The own row has an older count, the newest number is an older one, the line of the log is another.
        assert!(found(90, 0, "1", "1").needs_step(&known(90, 0, "1"), true));
        assert!(found(89, 0, "1", "1").needs_step(&known(90, 0, "1"), false));
        assert!(found(90, 0, "1", "2").needs_step(&Known::default(), false));
        // Another daemon has done it already.
        assert!(!found(10_090, 1, "2", "2").needs_step(&known(95, 0, "1"), true));
        // And that was lost too.
        assert!(found(90, 0, "1", "1").needs_step(&known(10_091, 1, "1"), true));
        assert!(found(10_090, 1, "1", "1").needs_step(&known(10_090, 1, "1"), true));
    }

    #[test]
    fn a_server_that_does_not_tell_its_line_is_judged_by_its_numbers() {
        let unknown = Known { sequence: 90, step: 0, timeline: None };
        assert!(!unknown.is_ahead_of(90, None) && unknown.is_ahead_of(89, None));
        assert!(!known(90, 0, "1").is_ahead_of(90, None));
        assert!(known(90, 0, "1").is_ahead_of(90, Some("2")));
        let silent = Found { noted: Some("1".to_owned()), timeline: None, ..found(90, 0, "1", "1") };
        assert!(!silent.needs_step(&unknown, false));
    }
}
