//! The database file and its log: where they are, how they are opened, checked, emptied and copied.

use super::directory::make_private;
use super::error::{OpenError, StoreError};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the database of `dir` is.
pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join("batchd.db")
}

pub(super) fn log(dir: &Path) -> PathBuf {
    dir.join("batchd.db-wal")
}

/// The index of the log, which all processes share.
pub(super) fn index(dir: &Path) -> PathBuf {
    dir.join("batchd.db-shm")
}

/// How long a file is; `None` if there is none. It is not opened.
pub(super) fn length(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.len())
}

/// Opens a database for reading; `fixed`: nobody writes it and nothing is made beside it.
pub(super) fn read_only(path: &Path, fixed: bool) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = if fixed {
        let encoded = path.as_os_str().as_encoded_bytes();
        let encoded = percent_encoding::percent_encode(encoded, percent_encoding::NON_ALPHANUMERIC);
        Connection::open_with_flags(
            format!("file:{encoded}?immutable=1"),
            flags | OpenFlags::SQLITE_OPEN_URI,
        )?
    } else {
        Connection::open_with_flags(path, flags)?
    };
    prepare(&connection, BUSY_TIMEOUT)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(connection)
}

/// Runs `quick_check` or `integrity_check`; the inner error is the first thing that is wrong.
pub(super) fn check(connection: &Connection, pragma: &str) -> Result<Result<(), String>, rusqlite::Error> {
    let found: String = connection.query_row(&format!("PRAGMA {pragma}(1)"), [], |row| row.get(0))?;
    Ok(if found == "ok" { Ok(()) } else { Err(found) })
}

/// Copies the log into the database and empties it; `false` if somebody still reads from it.
pub(super) fn checkpoint(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok(row.get::<_, i64>(0)? == 0))
}

/// What SQLite's error means while opening.
pub(super) fn open_error(dir: &Path, error: &rusqlite::Error) -> OpenError {
    let text = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::Locked {
            dir: dir.to_owned(),
            holder: format!("another program has {} locked; `fuser` names it", file(dir).display()),
        },
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory,
        ) => OpenError::Unwritable {
            dir: dir.to_owned(),
            what: format!("{text}; the user that batchd runs as must own the directory and what is in it"),
        },
        Some(ErrorCode::DiskFull) => OpenError::Unwritable {
            dir: dir.to_owned(),
            what: "the disk is full; free some space".to_owned(),
        },
        _ => damaged(dir, text),
    }
}

/// The error of a database that must not be used, with what to do.
pub(super) fn damaged(dir: &Path, what: impl std::fmt::Display) -> OpenError {
    OpenError::Damaged {
        file: file(dir),
        what: format!(
            "{what}; nothing was changed: stop the service and its socket, keep a copy of the directory, copy the \
             newest backup to batchd.db there, and start"
        ),
    }
}

/// What every connection needs. Closing never writes: [`checkpoint`] does, when it is asked to.
pub(super) fn prepare(connection: &Connection, timeout: Duration) -> Result<(), rusqlite::Error> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // A plan does not hang on what is bound, so that no statement is compiled again each time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.busy_timeout(timeout)?;
    connection.set_prepared_statement_cache_capacity(96);
    connection.execute_batch(
        "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY;",
    )
}

/// Copies everything that `connection` sees to `path`: compact, private, and on the disk.
///
/// Leaves nothing there if it fails.
pub(super) fn copy_to(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let copied = copy(connection, path);
    if copied.is_err() {
        let _ = std::fs::remove_file(path);
    }
    copied
}

fn copy(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |error: std::io::Error| StoreError::Io(error.to_string());
    // A copy that was begun and never finished.
    let _ = std::fs::remove_file(path);
    make_private(path).map_err(failed)?;
    let Some(name) = path.to_str() else {
        return Err(StoreError::Io("the state directory's name is not UTF-8; rename it".to_owned()));
    };
    connection.execute("VACUUM INTO ?1", [name])?;
    {
        // It belongs to no run, so that a log that lies where it is restored is not taken for its own.
        let copy = Connection::open(path)?;
        copy.pragma_update(None, "journal_mode", "DELETE")?;
        copy.execute("UPDATE identity SET run = ''", [])?;
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(failed)
}

/// `BTCH`.
pub(super) const APPLICATION_ID: i64 = 0x4254_4348;
/// How long a statement waits for another program that has the database locked.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
