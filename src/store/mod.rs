//! Floor 3: durable state. The only place that names rusqlite.
//!
//! All writes go through one connection and are grouped: whatever waits goes into one transaction (`writer`).
//! Read-only connections serve what is read (`reader`). See `docs/delivery.md#sqlite`.

pub mod backup;
pub mod batches;
mod column;
mod connection;
mod digest;
mod directory;
pub mod discovery;
pub mod downloads;
pub mod events;
mod expiring;
pub mod history;
pub mod jobs;
mod lock;
mod migrate;
pub mod outbox;
pub mod providers;
mod reader;
pub mod spool;
pub mod submissions;
mod writer;

pub use writer::CommitStats;

use crate::clock::Clock;
use directory::Identity;
use lock::Lock;
use reader::Readers;
use rusqlite::{Connection, ErrorCode};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};
use writer::{Tx, Writer};

/// A row's own number.
pub type Pk = i64;

/// The open state directory. Cheap to clone; all clones are one store.
///
/// Dropping the last clone without [`Store::close`] is what a crash is: nothing is lost, nothing is tidied.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    readers: Readers,
    /// `None`: opened for reading only.
    daemon: Option<Daemon>,
}

/// What only the daemon's store has.
#[derive(Debug)]
struct Daemon {
    writer: Writer,
    files: [(PathBuf, Identity); 3],
    checked: bool,
    /// The time, in Unix milliseconds, when somebody last asked what is due.
    asked_at: AtomicI64,
}

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
    #[error("the database cannot be read or written; look at the disk: {0}")]
    Io(String),
    /// The store has been closed.
    #[error("the state is closed; batchd is stopping")]
    Closed,
    /// A defect of batchd.
    #[error("internal: {0}")]
    Internal(String),
}

impl Store {
    /// Opens (or makes) the state in `dir` for the daemon: locks it, checks it, migrates it, and makes due what
    /// was under way when the last daemon died.
    ///
    /// Must be called inside a tokio runtime. On a current-thread runtime everything runs inline, so that
    /// simulations do the same every time; on others on the threads for blocking work.
    pub fn open(dir: &Path, clock: Clock) -> Result<Self, OpenError> {
        Self::open_patiently(dir, clock, PATIENCE)
    }

    fn open_patiently(dir: &Path, clock: Clock, patience: Duration) -> Result<Self, OpenError> {
        directory::prepare(dir)?;
        let lock = Lock::take(dir)?;
        directory::remove_stale_copies(dir);
        let database = connection::database(dir);
        let opened = connection::open_writable(dir, &lock, patience, clock.now())?;
        let readers = Readers::new([connection::open_readable(dir)?, connection::open_readable(dir)?]);
        directory::set_ballast(dir);

        let identity = |path: PathBuf| match Identity::of(&path) {
            Ok(Some(identity)) => Ok((path, identity)),
            Ok(None) => Err(connection::damaged(dir, format!("{} is gone", path.display()))),
            Err(error) => Err(directory::unwritable(dir, &path, &error)),
        };
        let locked = lock.identity().map_err(|error| directory::unwritable(dir, &lock::path(dir), &error))?;
        let files = [identity(database)?, identity(connection::log(dir))?, (lock::path(dir), locked)];
        let newest =
            events::last_sequence(&opened.connection).map_err(|error| connection::damaged(dir, error))?;
        let writer = Writer::start(opened.connection, lock, dir.to_owned(), clock, newest);
        let daemon = Daemon { writer, files, checked: opened.checked, asked_at: AtomicI64::new(i64::MIN) };
        Ok(Self(Arc::new(Inner { dir: dir.to_owned(), readers, daemon: Some(daemon) })))
    }

    /// Opens existing state for reading only, beside a daemon or without one.
    pub fn open_offline(dir: &Path, clock: Clock) -> Result<Self, OpenError> {
        // Nothing that is read depends on the time.
        drop(clock);
        let readers = Readers::new([connection::open_offline(dir)?]);
        Ok(Self(Arc::new(Inner { dir: dir.to_owned(), readers, daemon: None })))
    }

    /// Writes what waits, shortens the log and closes. Later calls answer [`StoreError::Closed`].
    pub async fn close(&self) -> Result<(), StoreError> {
        self.0.readers.close().await;
        match &self.0.daemon {
            Some(daemon) => daemon.writer.alone(writer::Core::close).await,
            None => Ok(()),
        }
    }

    /// Whether opening checked the whole file; if not (it is large), [`Store::check_whole`] should soon.
    pub fn was_checked(&self) -> bool {
        self.0.daemon.as_ref().is_some_and(|daemon| daemon.checked)
    }

    /// Checks the whole file; may take long, and holds up nothing.
    pub async fn check_whole(&self) -> Result<(), StoreError> {
        let found = self.apart(|connection, _| Ok(connection::check(connection, "integrity_check")?)).await?;
        found.map_err(StoreError::Damaged)
    }

    /// Copies the log into the database and empties it: now and then, so that it does not grow. Not an error if
    /// somebody reads just now; the next one will do it.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        self.writer()?.alone(|core| core.checkpoint().map(drop)).await
    }

    /// Whether the files are still the ones that were opened, and whether writing works.
    ///
    /// Writes only if the last write failed. Cheap otherwise; meant for every 30 s.
    pub async fn healthy(&self) -> Result<(), StoreError> {
        let Some(daemon) = &self.0.daemon else { return Ok(()) };
        let dir = self.0.dir.clone();
        let files = daemon.files.clone();
        let changed = off_thread(move || {
            directory::set_ballast(&dir);
            files.into_iter().find(|(path, before)| Identity::of(path).ok().flatten() != Some(*before))
        })
        .await?;
        if let Some((path, _)) = changed {
            return Err(StoreError::Damaged(format!(
                "{} was deleted or replaced while in use",
                path.display()
            )));
        }
        if let Some(trouble) = daemon.writer.core.trouble() {
            // The smallest write may fit where no other does.
            if trouble == StoreError::Full && directory::is_short_of_space(&self.0.dir) {
                return Err(trouble);
            }
            self.write(|tx| Ok(tx.execute("UPDATE identity SET run = run", []).map(drop)?)).await?;
        }
        Ok(())
    }

    /// How long commits took, for metrics.
    pub fn commit_stats(&self) -> CommitStats {
        self.0.daemon.as_ref().map(|daemon| daemon.writer.core.commits()).unwrap_or_default()
    }

    /// For tests of a full disk: the database grows by at most `pages` pages from now on; `None`: freely.
    #[doc(hidden)]
    pub async fn limit_growth(&self, pages: Option<u32>) -> Result<(), StoreError> {
        self.writer()?.alone(move |core| core.limit_growth(pages)).await
    }

    fn writer(&self) -> Result<&Writer, StoreError> {
        self.0.daemon.as_ref().map(|daemon| &daemon.writer).ok_or(StoreError::ReadOnly)
    }

    /// Runs `operation` in the next transaction; answers after its commit.
    async fn write<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        self.writer()?.write(operation).await
    }

    /// The same for what frees space: on a full disk it is tried once more without the ballast.
    async fn write_freeing<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Clone + Send + 'static,
        T: Send + 'static,
    {
        match self.write(operation.clone()).await {
            Err(StoreError::Full) if directory::drop_ballast(&self.0.dir) => self.write(operation).await,
            other => other,
        }
    }

    /// Reads on one of the read-only connections.
    async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        self.0.readers.read(query).await
    }

    /// Reads on a connection of its own: for what takes long.
    async fn apart<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        F: FnOnce(&Connection, &Path) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        self.0.readers.opened()?;
        let dir = self.0.dir.clone();
        off_thread(move || {
            let connection = connection::read_only(&connection::database(&dir), false)?;
            query(&connection, &dir)
        })
        .await?
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(text),
            Some(ErrorCode::SystemIoFailure) if writer::is_fsync(&error) => {
                Self::Io(format!("{text} {}", writer::FSYNC))
            }
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => Self::Io(text),
            _ => Self::Internal(text),
        }
    }
}

/// Runs what may block where it holds up nobody; inline on a current-thread runtime (see [`Store::open`]).
async fn off_thread<T, F>(work: F) -> Result<T, StoreError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        if error.is_panic() {
            StoreError::Internal("a task of the store panicked; the log tells where".to_owned())
        } else {
            StoreError::Closed
        }
    })
}

/// How long opening waits for another program that has the database locked.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(dir: &Path) -> String {
        let refused = Store::open_patiently(dir, Clock::system(), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
        refused.to_string()
    }

    #[tokio::test]
    async fn a_database_that_another_program_has_locked_is_not_waited_for_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let other = Connection::open(connection::database(dir.path())).unwrap();
        other.execute_batch("CREATE TABLE theirs (x); BEGIN EXCLUSIVE").unwrap();
        assert!(refused(dir.path()).contains("another program has"));

        let dir = tempfile::tempdir().unwrap();
        Store::open(dir.path(), Clock::system()).unwrap().close().await.unwrap();
        let other = Connection::open(connection::database(dir.path())).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(refused(dir.path()).contains("`fuser` names it"));
        other.execute_batch("ROLLBACK").unwrap();
        Store::open(dir.path(), Clock::system()).unwrap();
    }

    #[test]
    fn errors_of_sqlite_keep_their_meaning() {
        let error =
            |code| StoreError::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
        assert_eq!(error(rusqlite::ffi::SQLITE_FULL), StoreError::Full);
        assert_eq!(error(rusqlite::ffi::SQLITE_BUSY_SNAPSHOT), StoreError::Busy);
        assert_eq!(error(rusqlite::ffi::SQLITE_READONLY_DBMOVED), StoreError::ReadOnly);
        assert!(matches!(error(rusqlite::ffi::SQLITE_CORRUPT_VTAB), StoreError::Damaged(_)));
        assert!(matches!(error(rusqlite::ffi::SQLITE_NOTADB), StoreError::Damaged(_)));
        assert!(matches!(error(rusqlite::ffi::SQLITE_IOERR_WRITE), StoreError::Io(_)));
        assert!(matches!(error(rusqlite::ffi::SQLITE_CONSTRAINT), StoreError::Internal(_)));
    }
}
