//! A consistent copy of the live state.

use super::directory::{copy_path, make_private, sync};
use super::{Store, StoreError};
use rusqlite::Connection;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

impl Store {
    /// Makes a consistent copy beside the database and returns its path; the caller reads it and deletes it.
    ///
    /// Holds up nothing. What is never fetched is removed at the next start.
    pub async fn copy_aside(&self) -> Result<PathBuf, StoreError> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        self.apart(move |connection, dir| {
            let path = copy_path(dir, number);
            copy_to(connection, &path)?;
            sync(dir).map_err(|error| StoreError::Io(error.to_string()))?;
            Ok(path)
        })
        .await
    }

    /// Makes a consistent copy at `path`, in place of what is there; for state that no daemon serves.
    pub async fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let path = path.to_owned();
        self.apart(move |connection, _| copy_to(connection, &path)).await
    }
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
