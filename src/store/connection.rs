//! How connections to the database are opened and judged (`docs/delivery.md#opening` and `docs/delivery.md#integrity`).
//!
//! A log (`batchd.db-wal`) that belongs to another database file is the one thing that SQLite cannot tell and that
//! would ruin a restored backup. So each run of the daemon writes its name into the file and into the lock file;
//! where the two differ, the log is set aside. A copy carries no name.

use super::database::{
    self, APPLICATION_ID, BUSY_TIMEOUT, check, checkpoint, damaged, open_error, prepare, read_only,
};
use super::directory::{make_private, unwritable};
use super::error::{OpenError, StoreError};
use super::lock::{Lock, Marks};
use super::outbox::recovering;
use super::sql::Sql;
use super::{history, migrate};
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// The connection that writes: made, checked and migrated.
#[derive(Debug)]
pub(super) struct Writable {
    pub(super) connection: Connection,
    /// Whether the whole file was checked.
    pub(super) checked: bool,
}

/// Opens the database of `dir` for writing, or makes it. A file that is refused is not touched.
///
/// `timeout`: how long to wait for another program that has it locked.
pub(super) fn open_writable(
    dir: &Path,
    lock: &Lock,
    timeout: Duration,
    now: Timestamp,
) -> Result<Writable, OpenError> {
    if rusqlite::version_number() < SQLITE_AT_LEAST {
        return Err(OpenError::Unwritable {
            dir: dir.to_owned(),
            what: format!(
                "this batchd was built with SQLite {}, which can damage it; build it with 3.51.3 or newer",
                rusqlite::version()
            ),
        });
    }
    let file = database::file(dir);
    if judge_length(dir, &lock.left)? > 0 {
        judge_header(dir)?;
    }
    if !set_foreign_log_aside(dir, &lock.left) {
        judge_log(dir, &lock.left)?;
    }
    make_private(&file).map_err(|error| unwritable(dir, &file, &error))?;

    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = |error| open_error(dir, &error);
    let mut connection = Connection::open_with_flags(&file, flags).map_err(failed)?;
    prepare(&connection, timeout).map_err(failed)?;
    if connection.is_readonly("main").map_err(failed)? {
        return Err(OpenError::Unwritable {
            dir: dir.to_owned(),
            what: format!("{} is read-only; the user that batchd runs as must own it", file.display()),
        });
    }
    let version = judge_schema(dir, &connection)?;
    if version == 0 {
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(failed)?;
    }
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(OpenError::Unwritable {
            dir: dir.to_owned(),
            what: "its file system cannot keep a write-ahead log; name a local directory in `[state] dir`"
                .to_owned(),
        });
    }
    connection
        .execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = 1000;
             PRAGMA journal_size_limit = 16777216; PRAGMA cache_size = -8000;",
        )
        .map_err(failed)?;

    let size = database::length(&file).unwrap_or(0);
    let checked = version == 0 || size < CHECKED_FIRST;
    if checked && version > 0 {
        // Whether pages and rows are sound; whether rows obey the schema takes three times as long.
        connection.pragma_update(None, "ignore_check_constraints", true).map_err(failed)?;
        check(&connection, "quick_check").map_err(failed)?.map_err(|what| damaged(dir, what))?;
        connection.pragma_update(None, "ignore_check_constraints", false).map_err(failed)?;
    }
    migrate::migrate(&mut connection, migrate::SCHEMAS, dir)?;
    adopt(&mut connection, lock, dir, now)?;
    // Without it the schedule knows less; that is no reason not to run.
    if let Err(error) = begin_history(&mut connection, now) {
        tracing::warn!(%error, "cannot learn from earlier batches; trying again at the next start");
    }
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    Ok(Writable { connection, checked })
}

/// Opens the database of `dir` for reading, beside whoever writes it.
pub(super) fn open_readable(dir: &Path) -> Result<Connection, OpenError> {
    let connection = read_only(&database::file(dir), false).map_err(|error| open_error(dir, &error))?;
    connection.pragma_update(None, "query_only", true).map_err(|error| open_error(dir, &error))?;
    Ok(connection)
}

/// The same without a daemon: the state must be there, and of a schema that this binary reads.
pub(super) fn open_offline(dir: &Path) -> Result<Connection, OpenError> {
    let file = database::file(dir);
    let marks = Marks::of(dir);
    if judge_length(dir, &marks)? == 0 {
        return Err(OpenError::Absent { dir: dir.to_owned() });
    }
    if run_of(dir).is_some_and(|run| is_of(&marks, &run)) {
        judge_log(dir, &marks)?;
    }
    let connection = match open_readable(dir).and_then(|connection| {
        judge_schema(dir, &connection)?;
        Ok(connection)
    }) {
        // Beside a read-only file system's database no shared memory can be made; without a log none is needed.
        Err(OpenError::Unwritable { .. })
            if database::length(&database::log(dir)).is_none_or(|length| length == 0) =>
        {
            read_only(&file, true).map_err(|error| open_error(dir, &error))?
        }
        other => other?,
    };
    let version = judge_schema(dir, &connection)?;
    if version == 0 {
        return Err(OpenError::Absent { dir: dir.to_owned() });
    }
    if version < migrate::newest() {
        return Err(OpenError::Unwritable {
            dir: dir.to_owned(),
            what: format!(
                "it has schema {version} and this batchd reads schema {}; start the daemon once, it brings it up to date",
                migrate::newest()
            ),
        });
    }
    Ok(connection)
}

/// Refuses a missing or empty database where there was one.
fn judge_length(dir: &Path, marks: &Marks) -> Result<u64, OpenError> {
    let path = database::file(dir);
    let length = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => return Err(damaged(dir, "it is a directory")),
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(unwritable(dir, &path, &error)),
    };
    if length == 0 && marks.initialised {
        return Err(damaged(dir, "the database that was here is empty or gone"));
    }
    Ok(length)
}

/// Refuses what is no database at first sight, before SQLite has it.
///
/// For the holder of the lock only: no connection of this process has the file open yet, so that closing it here
/// costs none its locks.
fn judge_header(dir: &Path) -> Result<(), OpenError> {
    let path = database::file(dir);
    let mut header = [0; HEADER.len()];
    File::open(&path)
        .map_err(|error| unwritable(dir, &path, &error))?
        .read_exact(&mut header)
        .map_err(|_| damaged(dir, "it is not a database"))?;
    if &header == HEADER { Ok(()) } else { Err(damaged(dir, "it is not a database")) }
}

/// The schema's number; 0 for a file without one. Refuses the databases of others and of newer ones.
fn judge_schema(dir: &Path, connection: &Connection) -> Result<i64, OpenError> {
    let number = |sql: &str| {
        connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(|error| open_error(dir, &error))
    };
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let empty = number("SELECT count(*) FROM sqlite_schema")? == 0;
    let ours = application == APPLICATION_ID || (application == 0 && version == 0 && empty);
    if !ours {
        return Err(damaged(dir, "it is the database of another program"));
    }
    if version > migrate::newest() {
        return Err(OpenError::Newer { file: database::file(dir), found: version, known: migrate::newest() });
    }
    if version <= 0 && !empty {
        return Err(damaged(dir, "its schema has no number"));
    }
    Ok(version)
}

/// Sets the log aside if it belongs to another file than the database beside it (see the head of this file). Whether the
/// database is another one than the last run's, such as a restored backup: what is known of that one's log is void.
fn set_foreign_log_aside(dir: &Path, marks: &Marks) -> bool {
    let (file, log) = (database::file(dir), database::log(dir));
    if database::length(&file).unwrap_or(0) == 0 {
        return true;
    }
    // A file that cannot tell is left to the checks that follow.
    let Some(run) = run_of(dir) else { return true };
    if is_of(marks, &run) {
        if database::length(&log).is_none() && marks.initialised && !marks.closed && marks.log.is_none() {
            tracing::warn!(
                "the log {} is gone, and the last run did not end cleanly: the last changes may be missing; \
                 they are seen again at the next poll, under the same event ids",
                log.display()
            );
        }
        return false;
    }
    if database::length(&log).is_none_or(|length| length == 0) {
        return true;
    }
    let aside = dir.join("batchd.db-wal.stale");
    tracing::warn!(
        "{} was replaced while its log was not empty: the log does not belong to it and was moved to {}",
        file.display(),
        aside.display()
    );
    if let Err(error) = std::fs::rename(&log, &aside) {
        tracing::warn!("failed to move the log: {error}");
    }
    // Made anew from the log; of the old one it would be wrong.
    let _ = std::fs::remove_file(database::index(dir));
    true
}

/// Which run of the daemon last opened the database itself, without its log.
fn run_of(dir: &Path) -> Option<String> {
    read_only(&database::file(dir), true)
        .and_then(|connection| connection.query_row(RUN, [], |row| row.get::<_, String>(0)))
        .ok()
}

/// How many commits the database has had, with what can be read of its log; nothing is changed by asking.
fn commits_of(dir: &Path) -> Option<i64> {
    read_only(&database::file(dir), false)
        .and_then(|connection| {
            connection.query_row("SELECT commits FROM identity", [], |row| row.get("commits"))
        })
        .ok()
}

/// Whether the database of that run is the one that `marks` speak of.
fn is_of(marks: &Marks, run: &str) -> bool {
    !run.is_empty() && (marks.runs.is_empty() || marks.runs.iter().any(|known| known == run))
}

/// Refuses a log that lacks what was acknowledged: SQLite would take what is left of it and say nothing.
fn judge_log(dir: &Path, marks: &Marks) -> Result<(), OpenError> {
    let Some(mark) = marks.log else { return Ok(()) };
    let log = database::log(dir);
    let flaw = match File::open(&log) {
        Ok(file) => mark.is_whole_in(&file).err(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            (!mark.is_empty()).then(|| "it is gone".to_owned())
        }
        Err(error) => return Err(unwritable(dir, &log, &error)),
    };
    // Another program may have copied the log into the database and deleted it, as SQLite does when it closes.
    flaw.filter(|_| commits_of(dir).is_none_or(|commits| commits < marks.commits)).map_or(Ok(()), |flaw| {
        Err(damaged(
            dir,
            format!(
                "its log {} lacks what was acknowledged last: {flaw} (to go on without what is missing, delete {} \
                 and start)",
                log.display(),
                super::lock::path(dir).display()
            ),
        ))
    })
}

/// Makes the database this run's own, and due what was under way when the last one died.
fn adopt(connection: &mut Connection, lock: &Lock, dir: &Path, now: Timestamp) -> Result<(), OpenError> {
    let failed = |error| open_error(dir, &error);
    let before: String = connection.query_row(RUN, [], |row| row.get(0)).map_err(failed)?;
    let run = format!("{:x}-{:x}", now.as_millisecond(), std::process::id());
    let mut runs: Vec<String> = Some(before).into_iter().filter(|run| !run.is_empty()).collect();
    runs.push(run.clone());
    // Both names hold until the file itself, without its log, carries the new one.
    let mut marks = Marks { initialised: lock.left.initialised, closed: false, runs, ..Marks::default() };
    lock.write(&marks, now)?;
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    transaction.execute("UPDATE identity SET run = ?1", [&run]).map_err(failed)?;
    recovering::recover(&Sql::File(&transaction), None, now).map_err(|error| match error {
        StoreError::Damaged(what) => damaged(dir, what),
        other => OpenError::Unwritable { dir: dir.to_owned(), what: other.to_string() },
    })?;
    transaction.commit().map_err(failed)?;
    if checkpoint(connection).map_err(failed)? {
        marks.runs = vec![run];
    }
    marks.initialised = true;
    lock.write(&marks, now)
}

fn begin_history(connection: &mut Connection, now: Timestamp) -> Result<(), StoreError> {
    if history::has_begun(&Sql::File(connection))? {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    history::begin(&Sql::File(&transaction), now)?;
    Ok(transaction.commit()?)
}

/// Before it two connections could damage a log (`docs/delivery.md#checkpoints`).
const SQLITE_AT_LEAST: i32 = 3_051_003;
const HEADER: &[u8; 16] = b"SQLite format 3\0";
const RUN: &str = "SELECT run FROM identity";
/// Files below this (some 20,000 batches) are checked before the daemon is ready, in a few tenths of a second; larger
/// ones right after it, so that a start takes under a second after a kill too.
const CHECKED_FIRST: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Without this, `synchronous = OFF` passes: nothing else can tell while the machine stays up.
    #[test]
    fn the_connection_that_writes_syncs_every_commit_and_keeps_references() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let writable = open_writable(dir.path(), &lock, Duration::ZERO, Timestamp::UNIX_EPOCH).unwrap();
        let number = |pragma: &str| -> i64 {
            writable.connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).unwrap()
        };
        assert_eq!(number("synchronous"), 2, "FULL");
        assert_eq!(number("foreign_keys"), 1);
        assert_eq!(number("auto_vacuum"), 2, "incremental");
        assert_eq!(number("trusted_schema"), 0);
        assert_eq!(number("wal_autocheckpoint"), 1000);
        let mode: String =
            writable.connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
    }
}
