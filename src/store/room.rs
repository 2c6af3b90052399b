//! How much may still be written beside the database: what that needs is left to it.

use super::directory;
use super::error::StoreError;
use std::path::{Path, PathBuf};

/// Watches the free space while something grows beside the database.
#[derive(Debug)]
pub(super) struct Room {
    dir: PathBuf,
    /// How many bytes may be written until the free space is checked again.
    left: u64,
}

impl Room {
    pub(super) fn in_dir(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), left: 0 }
    }

    /// Takes room for `bytes` that are about to be written. Blocks for a moment.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] before the disk is.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), StoreError> {
        if bytes > self.left {
            let wanted = bytes.saturating_add(CHECK_EVERY);
            if directory::free_space(&self.dir).is_some_and(|free| free < wanted.saturating_add(RESERVE)) {
                return Err(StoreError::Full);
            }
            self.left = wanted;
        }
        self.left -= bytes;
        Ok(())
    }
}

/// How much is written between two checks of the space that is left.
const CHECK_EVERY: u64 = 16 << 20;
/// What is left to the database and to everybody else on the disk.
const RESERVE: u64 = 64 << 20;
