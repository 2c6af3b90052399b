//! A daemon's row among those that share the state: its commits count up in it.

use super::super::error::StoreError;
use super::session::{Session, Told};
use jiff::Timestamp;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Who a daemon is among those that share the state; of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Member {
    /// Of letters and digits alone.
    pub(in super::super) id: String,
    pub(in super::super) name: String,
    pub(in super::super) place: Place,
}

/// Where a daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Place {
    /// The machine and the directory, for people.
    shown: String,
    /// The directory itself, which one daemon holds at a time, on this boot of this machine.
    seat: String,
}

impl Member {
    pub(in super::super) fn new(name: &str, place: Place) -> Self {
        Self { id: format!("{:016x}", fastrand::u64(..)), name: name.to_owned(), place }
    }

    /// Adds the row; gives up the daemon that held the same directory before, of which nothing is left. `first` is done in
    /// the same transaction, which comes after all others.
    pub(super) fn join<T>(
        &self,
        session: &Session,
        now: Timestamp,
        first: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let joined = self.join_in_transaction(session, now, first);
        if joined.is_err() {
            session.give_up();
        }
        joined
    }

    fn join_in_transaction<T>(
        &self,
        session: &Session,
        now: Timestamp,
        first: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Self { id, name, place } = self;
        let seat = quoted(&place.seat);
        session.control("BEGIN; SELECT sequence FROM head FOR UPDATE")?;
        let done = first()?;
        let name = self.free_name(session, name, &seat)?;
        let (name, place, now) = (quoted(&name), quoted(&place.shown), now.as_millisecond());
        let version = quoted(env!("CARGO_PKG_VERSION"));
        session.control(&format!(
            "UPDATE members SET dead = 1 WHERE seat = {seat} AND dead = 0; \
             DELETE FROM members WHERE dead = 1 AND seen_at < {}; \
             INSERT INTO members (id, name, place, seat, version, joined_at, seen_at) \
             VALUES ('{id}', {name}, {place}, {seat}, {version}, {now}, {now}); COMMIT",
            now - KEPT_FOR,
        ))?;
        Ok(done)
    }

    /// `name`, or with a number behind it that no other living daemon has.
    fn free_name(&self, session: &Session, name: &str, seat: &str) -> Result<String, StoreError> {
        let told = session.told(&format!("SELECT name FROM members WHERE dead = 0 AND seat <> {seat}"))?;
        let taken: Vec<String> =
            told.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
        if !taken.iter().any(|other| other == name) {
            return Ok(name.to_owned());
        }
        let mut numbered = (2..).map(|number| format!("{name}-{number}"));
        let free = numbered.find(|name| !taken.contains(name)).unwrap_or_else(|| self.id.clone());
        tracing::warn!(
            "another daemon is called {name} already; this one is {free} (`[state] name` gives it another)"
        );
        Ok(free)
    }

    /// The statement that counts this member's commit number `commit`; it changes no row if the member was given up.
    pub(super) fn beat(&self, commit: i64, now: Timestamp) -> String {
        format!(
            "UPDATE members SET commits = {commit}, seen_at = {} WHERE id = '{}' AND dead = 0 AND commits = {}",
            now.as_millisecond(),
            self.id,
            commit - 1
        )
    }

    /// The number of its last commit, and whether it was given up; `None`: its row is gone.
    pub(super) fn read(&self, session: &Session) -> Result<Option<(i64, bool)>, StoreError> {
        let told = session.told(&format!("SELECT commits, dead FROM members WHERE id = '{}'", self.id))?;
        let number = |at: usize| number(&told, 0, at);
        Ok(number(0).zip(number(1)).map(|(commits, dead)| (commits, dead != 0)))
    }

    /// Leaves: whatever it owned is free.
    pub(super) fn leave(&self, session: &Session) -> Result<(), StoreError> {
        session.control(&format!(
            "UPDATE leases SET owner = NULL WHERE owner = '{0}'; UPDATE members SET dead = 1 WHERE id = '{0}'",
            self.id
        ))
    }
}

/// The number in a column of an answer.
pub(super) fn number(told: &Told, row: usize, column: usize) -> Option<i64> {
    told.rows.get(row)?.get(column)?.as_ref()?.parse().ok()
}

/// `text` as it stands in a statement, whatever is in it.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 3);
    quoted.push_str("E'");
    for character in text.chars() {
        match character {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\0' => quoted.push('\u{fffd}'),
            other => {
                let _ = write!(quoted, "{other}");
            }
        }
    }
    quoted.push('\'');
    quoted
}

/// How long the row of one that was given up stays, in milliseconds: for whoever looks at what happened.
const KEPT_FOR: i64 = 86_400_000;

impl Place {
    /// Where this process runs, which has locked the directory.
    pub(in super::super) fn of(dir: &Path) -> Self {
        let host =
            nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let shown = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        // Directories of containers have the same path, and are others.
        let file = std::fs::metadata(dir).map(|about| (about.dev(), about.ino())).unwrap_or_default();
        let seat = match boot.trim() {
            // Nobody can say: it is like no other.
            "" => format!("{:016x}", fastrand::u64(..)),
            boot => format!("{boot}:{}:{}", file.0, file.1),
        };
        Self { shown: format!("{host}:{}", shown.display()), seat }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_a_statement_ends_where_it_ends() {
        assert_eq!(quoted("it's"), "E'it''s'");
        assert_eq!(quoted(r"\'; DROP TABLE members; --"), r"E'\\''; DROP TABLE members; --'");
    }
}
