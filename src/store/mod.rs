//! Floor 3: durable state. The only place that names rusqlite.
//!
//! All writes go through one connection and are grouped: whatever waits goes into one transaction.
//! A second, read-only connection serves what is read. See `delivery.md` §6.

pub mod backup;
pub mod batches;
pub mod events;
pub mod jobs;
pub mod migrate;
pub mod outbox;
pub mod providers;

use crate::clock::Clock;
use std::path::{Path, PathBuf};

/// A row's own number.
pub type Pk = i64;

/// The open state directory. Cheap to clone; all clones are one store.
#[derive(Clone, Debug)]
pub struct Store {}

/// Why the state cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another daemon holds it.
    #[error("another daemon holds the state in {}: {holder}", dir.display())]
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
        /// What is wrong.
        what: String,
    },
    /// It was written by a newer batchd.
    #[error("the state in {} has schema {found}; this batchd knows schemas up to {known}", file.display())]
    Newer {
        /// The database file.
        file: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest that this binary knows.
        known: i64,
    },
    /// The directory or a file in it cannot be made or written.
    #[error("the state in {} cannot be written: {what}", dir.display())]
    Unwritable {
        /// The state directory.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// There is nothing there to read (only without a daemon).
    #[error("there is no state in {}", dir.display())]
    Absent {
        /// The state directory.
        dir: PathBuf,
    },
}

/// Why a read or a write did not happen. Nothing of a failed write is there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No space.
    #[error("the disk is full")]
    Full,
    /// Something else holds the database.
    #[error("the database is locked by another process")]
    Busy,
    /// The file system or the file is read-only.
    #[error("the database cannot be written")]
    ReadOnly,
    /// The database is damaged.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// Reading or writing failed.
    #[error("the database cannot be read or written: {0}")]
    Io(String),
    /// The store has been closed.
    #[error("the state is closed")]
    Closed,
    /// A defect of batchd.
    #[error("internal: {0}")]
    Internal(String),
}

impl Store {
    /// Opens (or makes) the state in `dir` for the daemon: locks it, checks it, migrates it.
    ///
    /// Must be called inside a tokio runtime.
    pub fn open(dir: &Path, clock: Clock) -> Result<Self, OpenError> {
        let _ = (dir, clock);
        unimplemented!()
    }

    /// Opens existing state for reading only, beside a daemon or without one.
    pub fn open_offline(dir: &Path, clock: Clock) -> Result<Self, OpenError> {
        let _ = (dir, clock);
        unimplemented!()
    }

    /// Writes what waits, shortens the log and closes. Later calls answer [`StoreError::Closed`].
    pub async fn close(&self) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Checks the whole file; may take long.
    pub async fn check_whole(&self) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Whether the files are still the ones that were opened, and whether writing works.
    pub async fn healthy(&self) -> Result<(), StoreError> {
        unimplemented!()
    }
}
