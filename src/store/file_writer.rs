//! The connection that writes the database file, with what watches over that file and its log.

use super::database;
use super::error::StoreError;
use super::file_check::FileCheck;
use super::lock::{Lock, Marks};
use super::sql::Sql;
use jiff::Timestamp;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The connection and what watches over its files, in the order in which they are closed.
#[derive(Debug)]
pub(super) struct FileWriter {
    connection: Connection,
    check: FileCheck,
    lock: Lock,
    dir: PathBuf,
    /// How many commits the database has had.
    commits: i64,
    /// Why nothing is written any more: damage, or a failed fsync, which leaves the file in a state that nobody knows.
    /// Only a new start can tell.
    refused: Option<StoreError>,
}

impl FileWriter {
    /// Takes over a connection whose files are as `check` has seen them, and notes its newest commit.
    pub(super) fn new(
        connection: Connection,
        check: FileCheck,
        lock: Lock,
        dir: &Path,
    ) -> Result<Self, StoreError> {
        let commits = connection.query_row("SELECT commits FROM identity", [], |row| row.get("commits"))?;
        let open = Self { connection, check, lock, dir: dir.to_owned(), commits, refused: None };
        let noted = open.lock.note_commit(open.check.newest(), commits);
        noted.map_err(|error| StoreError::Io(format!("the lock file: {error}")))?;
        Ok(open)
    }

    pub(super) fn sql(&self) -> Sql<'_> {
        Sql::File(&self.connection)
    }

    /// Opens a transaction, if anything may be written.
    pub(super) fn begin(&mut self) -> Result<(), StoreError> {
        self.may_write()?;
        // Left open only by a panic between two statements.
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        Ok(self.connection.execute_batch("BEGIN IMMEDIATE")?)
    }

    /// Counts the commit, which is not there before `COMMIT` has succeeded, and commits.
    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        let count = "UPDATE identity SET commits = ?1";
        self.connection.prepare_cached(count)?.execute([self.commits + 1])?;
        self.connection.execute_batch("COMMIT")?;
        self.commits += 1;
        Ok(())
    }

    /// Something was written: it must be there, and the lock file tells the next start of it.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        self.check.committed()?;
        if let Err(error) = self.lock.note_commit(self.check.newest(), self.commits) {
            // The next start then knows of an older one.
            tracing::debug!("cannot note the newest commit: {error}");
        }
        Ok(())
    }

    /// Takes back what `error` has broken off.
    pub(super) fn roll_back(&mut self, error: &StoreError) {
        // SQLite may have rolled back by itself (`docs/delivery.md#threads`).
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!("failed to roll back: {error}");
        }
        self.refuse_after(error);
    }

    /// Whether anything may be written: nothing was refused before, and the files are as the last commit left them.
    pub(super) fn may_write(&mut self) -> Result<(), StoreError> {
        if let Some(error) = &self.refused {
            return Err(error.clone());
        }
        self.check.unchanged().inspect_err(|error| self.refuse_after(error))
    }

    /// Copies the log into the database and empties it. Not an error if somebody still reads from it.
    pub(super) fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.may_write()?;
        // Until it is over nobody can say how long the log is to be.
        let unknown = self.lock.note_commit(None, self.commits);
        unknown.map_err(|error| StoreError::Io(format!("the lock file: {error}")))?;
        // Readers end soon or late; there is another checkpoint in an hour.
        self.connection.busy_timeout(CHECKPOINT_TIMEOUT)?;
        let emptied = database::checkpoint(&self.connection);
        self.connection.busy_timeout(database::BUSY_TIMEOUT)?;
        let emptied = emptied.map_err(StoreError::from).inspect_err(|error| self.refuse_after(error));
        self.settle()?;
        emptied?;
        let length = database::length(&database::log(&self.dir)).unwrap_or(0);
        if length > LOG_WARNING {
            tracing::warn!(bytes = length, "the database's log is long: something keeps a read open");
        }
        Ok(())
    }

    /// Empties the log, gives up the lock.
    pub(super) fn close(mut self, now: Timestamp) -> Result<(), StoreError> {
        let emptied = self.checkpoint();
        drop(self.connection);
        let marks = Marks { closed: emptied.is_ok(), ..self.lock.marks() };
        if let Err(error) = self.lock.write(&marks, now) {
            tracing::warn!("failed to note the clean end: {error}");
        }
        emptied
    }

    /// Lets the database grow by `pages` at most from now on.
    pub(super) fn limit_growth(&self, pages: Option<u32>) -> Result<(), StoreError> {
        let present: u32 = self.connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let most = pages.map_or(u32::MAX - 1, |pages| present + pages);
        self.connection.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(()))?;
        Ok(())
    }

    fn refuse_after(&mut self, error: &StoreError) {
        match error {
            StoreError::Damaged(_) => self.refused = Some(error.clone()),
            error if error.is_doubtful() => {
                let what = "a write did not reach the disk before; restart batchd";
                self.refused = Some(StoreError::Io(what.to_owned()));
            }
            _ => {}
        }
    }
}

/// How long a checkpoint waits for readers.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(500);
/// `docs/delivery.md#checkpoints`.
const LOG_WARNING: u64 = 64 << 20;
