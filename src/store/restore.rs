//! Puts a backup in the place of the state while no daemon runs (`docs/operations.md#restore`).

use super::database::{self, APPLICATION_ID, check};
use super::directory::{self, unwritable};
use super::error::OpenError;
use super::lock::{self, Lock, Marks};
use super::migrate;
use super::state::Store;
use jiff::Timestamp;
use rusqlite::Connection;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    pub batches: u64,
    pub events: u64,
}

impl Store {
    /// Checks a backup as a whole, and says what it holds. Nothing is changed.
    ///
    /// # Errors
    ///
    /// It is damaged or no backup ([`OpenError::Damaged`]), or of a newer batchd ([`OpenError::Newer`]).
    pub fn judge_backup(backup: &Path) -> Result<Holds, OpenError> {
        judge(backup, &open(backup)?)
    }

    /// Puts `backup` in the place of the database of `dir`. What was there is kept as `batchd.db.before-TIME`; its path is
    /// given, if there was anything.
    ///
    /// A crash leaves the old state or the new one.
    ///
    /// # Errors
    ///
    /// As [`Store::judge_backup`]; a daemon holds the state ([`OpenError::Locked`]); or `dir` cannot be written.
    pub fn restore(dir: &Path, backup: &Path, now: Timestamp) -> Result<Option<PathBuf>, OpenError> {
        directory::prepare(dir)?;
        let lock = Lock::take(dir)?;
        directory::remove_stale_copies(dir);
        let connection = open(backup)?;
        judge(backup, &connection)?;
        let (file, log) = (database::file(dir), database::log(dir));
        let fault = |path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| unwritable(dir, &path, &error)
        };
        let copy = directory::copy_path(dir, 0);
        database::copy_to(&connection, &copy).map_err(|error| OpenError::Unwritable {
            dir: dir.to_owned(),
            what: format!("the backup cannot be copied there: {error}"),
        })?;
        own_like(dir, &copy);
        own_like(dir, &lock::path(dir));
        let kept = if database::length(&file).is_some() {
            let kept = unused(dir, now);
            // A second name first, so that at no instant there is none.
            keep(&file, &kept).map_err(fault(&kept))?;
            if database::length(&log).is_some_and(|length| length > 0) {
                let kept_log = PathBuf::from(format!("{}-wal", kept.display()));
                keep(&log, &kept_log).map_err(fault(&kept_log))?;
            }
            directory::sync(dir).map_err(fault(dir))?;
            Some(kept)
        } else {
            None
        };
        std::fs::rename(&copy, &file).map_err(fault(&file))?;
        // The copy belongs to no run, so that a log that a crash leaves here is not taken for its own.
        for beside in [log, dir.join("batchd.db-shm")] {
            match std::fs::remove_file(&beside) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(fault(&beside)(error)),
                _ => {}
            }
        }
        directory::sync(dir).map_err(fault(dir))?;
        // What the lock file says of commits was said of the state before.
        lock.write(&Marks { initialised: true, ..Marks::default() }, now)?;
        Ok(kept)
    }
}

/// Opens a backup for reading; nothing is made beside it unless a log lies there.
fn open(backup: &Path) -> Result<Connection, OpenError> {
    let log = PathBuf::from(format!("{}-wal", backup.display()));
    let fixed = database::length(&log).is_none_or(|length| length == 0);
    database::read_only(backup, fixed).map_err(|error| damaged(backup, error))
}

fn judge(backup: &Path, connection: &Connection) -> Result<Holds, OpenError> {
    let number = |sql: &str| {
        connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(|error| damaged(backup, error))
    };
    let version = number("PRAGMA user_version")?;
    if number("PRAGMA application_id")? != APPLICATION_ID || version <= 0 {
        return Err(damaged(backup, "it is no backup of batchd"));
    }
    if version > migrate::newest() {
        return Err(OpenError::Newer { file: backup.to_owned(), found: version, known: migrate::newest() });
    }
    check(connection, "integrity_check")
        .map_err(|error| damaged(backup, error))?
        .map_err(|what| damaged(backup, what))?;
    let count = |sql: &str| number(sql).map(|count| u64::try_from(count).unwrap_or(0));
    Ok(Holds {
        batches: count("SELECT count(*) FROM batches")?,
        events: count("SELECT count(*) FROM events")?,
    })
}

fn damaged(backup: &Path, what: impl std::fmt::Display) -> OpenError {
    OpenError::Damaged {
        file: backup.to_owned(),
        what: format!("{what}; nothing was changed: take another backup"),
    }
}

/// A name for what was there, which nothing has yet.
fn unused(dir: &Path, now: Timestamp) -> PathBuf {
    let stem = format!("batchd.db.before-{}", now.strftime("%Y%m%dT%H%M%SZ"));
    let names = std::iter::once(stem.clone()).chain((2..).map(|number| format!("{stem}-{number}")));
    let mut paths = names.map(|name| dir.join(name));
    paths.find(|path| !path.exists()).unwrap_or_else(|| dir.join(stem))
}

/// Gives a file a second name, or makes a second file where that cannot be.
fn keep(file: &Path, kept: &Path) -> io::Result<()> {
    if std::fs::hard_link(file, kept).is_ok() {
        return Ok(());
    }
    std::fs::copy(file, kept)?;
    File::open(kept)?.sync_all()
}

/// Whoever restores may be root; the daemon must own its files all the same.
fn own_like(dir: &Path, file: &Path) {
    let (Ok(wanted), Ok(has)) = (std::fs::metadata(dir), std::fs::metadata(file)) else { return };
    if (wanted.uid(), wanted.gid()) != (has.uid(), has.gid())
        && let Err(error) = std::os::unix::fs::chown(file, Some(wanted.uid()), Some(wanted.gid()))
    {
        tracing::warn!(file = %file.display(), "cannot give the file to the owner of its directory: {error}");
    }
}
