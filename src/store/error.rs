//! Why the state cannot be opened, read or written.

use super::server::refusal::Refusal;
use rusqlite::{ErrorCode, ffi};
use std::io;
use std::path::PathBuf;

/// Why the state cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another daemon, or another program, holds it.
    #[error("the state in {} is held by {holder}", dir.display())]
    Locked {
        /// The state directory.
        dir: PathBuf,
        /// What the lock file says of the holder.
        holder: String,
    },
    /// The database is not one, or is damaged, or was emptied.
    #[error("the state in {} is damaged: {what}", file.display())]
    Damaged {
        /// The database file.
        file: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// It was written by a newer batchd.
    #[error(
        "the state in {} has schema {found}, this batchd knows schemas up to {known}; run the newer batchd, or \
         restore a backup that this one made",
        file.display()
    )]
    Newer {
        /// The database file.
        file: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest that this binary knows.
        known: i64,
    },
    /// The directory or a file in it cannot be made or written.
    #[error("the state in {} cannot be used: {what}", dir.display())]
    Unwritable {
        /// The state directory.
        dir: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The server that is to hold it cannot be used.
    #[error("{0}")]
    Server(#[from] Refusal),
    /// The server's tables were written by a newer batchd.
    #[error(
        "the state at {host} has schema {found}, and a batchd that knows schemas up to {known} may not write it; run the \
         newer batchd"
    )]
    NewerServer {
        host: String,
        /// The oldest schema that may write.
        found: i64,
        /// The newest that this binary knows.
        known: i64,
    },
    /// The schema that the server's address leads to is another program's.
    #[error(
        "the schema `{schema}` at {host} holds tables that are not batchd's ({table}); name an empty schema in \
         `[state] url` (`?options=-csearch_path%3Dbatchd`), or another database"
    )]
    Foreign {
        host: String,
        schema: String,
        /// One of those tables.
        table: String,
    },
    /// Its state has moved to a server.
    #[error(
        "the state in {} has moved to the PostgreSQL server {to}; name it in `[state] url`, or another directory in \
         `[state] dir` (to go back to what is there, delete batchd.lock in it)",
        dir.display()
    )]
    Moved { dir: PathBuf, to: String },
    /// There is nothing there to read (only without a daemon).
    #[error("there is no state in {}; name another directory in `[state] dir`, or start the daemon", dir.display())]
    Absent {
        /// The state directory.
        dir: PathBuf,
    },
}

/// Why a read or a write did not happen. Nothing of a failed write is there.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// No space.
    #[error("the disk with the state is full; free some space, batchd goes on by itself")]
    Full,
    /// Something else holds the database.
    #[error("the database is locked by another program; `fuser` names it")]
    Busy,
    /// The file system or the file is read-only.
    #[error("the database cannot be written: it is read-only, or opened without the daemon")]
    ReadOnly,
    /// The database is damaged.
    #[error("the database is damaged: {0}; stop the service, copy the newest backup to batchd.db, and start")]
    Damaged(String),
    /// Reading or writing failed.
    #[error("the database cannot be read or written; check the disk: {0}")]
    Io(String),
    /// The server with the state cannot be reached, or cannot do what was asked just now.
    #[error(
        "the state cannot be read or written: {0}; batchd goes on by itself once the PostgreSQL server answers"
    )]
    Unreachable(String),
    /// The other daemons that share the state have given this one up: it was silent for too long.
    #[error("the other daemons took over, as this one was silent for too long; it starts anew")]
    GivenUp,
    /// A newer batchd has brought the tables on the server to a schema that this one may not write.
    #[error(
        "the state has schema {found} now, and a batchd that knows schemas up to {known} may not write it; run the newer \
         batchd"
    )]
    Outdated {
        /// The oldest schema that may write.
        found: i64,
        /// The newest that this binary knows.
        known: i64,
    },
    /// The store has been closed.
    #[error("the state is closed; batchd is stopping")]
    Closed,
    /// A defect of batchd.
    #[error("internal: {0}")]
    Internal(String),
}

impl StoreError {
    /// Whether what was written may or may not have reached the disk: only a new start can tell.
    pub(super) fn is_doubtful(&self) -> bool {
        matches!(self, Self::Io(text) if text.ends_with(FSYNC))
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::ReadOnly,
            _ => Self::Io(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ if is_damage(&error) => Self::Damaged(text),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly,
            Some(ErrorCode::SystemIoFailure) if is_fsync(&error) => Self::Io(format!("{text} {FSYNC}")),
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => Self::Io(text),
            _ => Self::Internal(text),
        }
    }
}

/// Whether the file is not what was written to it. A value that no statement of ours can have stored, and JSON that is
/// none, are damage as much as a page that makes no sense.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => true,
        rusqlite::Error::SqliteFailure(code, text) => {
            matches!(code.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                || matches!(
                    code.extended_code,
                    ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA | ffi::SQLITE_READONLY_DBMOVED
                )
                || text.as_deref() == Some("malformed JSON")
        }
        _ => false,
    }
}

fn is_fsync(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_extended_error_code(), Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}

/// The end of the text of an error whose data may or may not have reached the disk.
const FSYNC: &str = "(fsync)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_sqlite_keep_their_meaning() {
        let error =
            |code| StoreError::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
        assert_eq!(error(rusqlite::ffi::SQLITE_FULL), StoreError::Full);
        assert_eq!(error(rusqlite::ffi::SQLITE_BUSY_SNAPSHOT), StoreError::Busy);
        assert_eq!(error(rusqlite::ffi::SQLITE_READONLY_DIRECTORY), StoreError::ReadOnly);
        for damage in [ffi::SQLITE_READONLY_DBMOVED, ffi::SQLITE_IOERR_CORRUPTFS, ffi::SQLITE_IOERR_DATA] {
            assert!(matches!(error(damage), StoreError::Damaged(_)), "{damage}");
        }
        assert!(matches!(error(rusqlite::ffi::SQLITE_CORRUPT_VTAB), StoreError::Damaged(_)));
        assert!(matches!(error(rusqlite::ffi::SQLITE_NOTADB), StoreError::Damaged(_)));
        assert!(matches!(error(rusqlite::ffi::SQLITE_IOERR_WRITE), StoreError::Io(_)));
        assert!(matches!(error(rusqlite::ffi::SQLITE_CONSTRAINT), StoreError::Internal(_)));
    }
}
