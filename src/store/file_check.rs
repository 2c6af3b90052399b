//! Whether the database and its log are still as the last commit left them (`docs/delivery.md#integrity`).
//!
//! The daemon alone writes both, so a file of another length or time has been written by somebody else: then all of it
//! is checked. What stays of a commit is two `stat`s and a few small reads, some microseconds beside its fsync.

use super::database;
use super::directory::Identity;
use super::error::StoreError;
use super::log_mark::LogMark;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The files as the last commit left them.
///
/// `log` and `index` stay open for as long as the connection does: closing a descriptor drops the locks that SQLite
/// holds on its file.
#[derive(Debug)]
pub(super) struct FileCheck {
    dir: PathBuf,
    log: File,
    index: File,
    seen: [Seen; 2],
    newest: Option<LogMark>,
    warned: bool,
}

/// What tells that a file was written or is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    identity: Identity,
    length: u64,
    modified: (i64, i64),
}

impl Seen {
    fn of(path: &Path) -> Result<Self, StoreError> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Self {
                identity: Identity::from(&metadata),
                length: metadata.len(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(replaced(path)),
            Err(error) => Err(StoreError::Io(format!("{}: {error}", path.display()))),
        }
    }
}

/// The error of a file that is not the one that was opened.
pub(super) fn replaced(path: &Path) -> StoreError {
    StoreError::Damaged(format!("{} was deleted or replaced while in use", path.display()))
}

impl FileCheck {
    /// For the files of `dir`, which a connection that has written holds open.
    pub(super) fn begin(dir: &Path) -> Result<Self, StoreError> {
        let open = |path: &Path| {
            File::open(path).map_err(|error| StoreError::Io(format!("{}: {error}", path.display())))
        };
        let (log, index) = (open(&database::log(dir))?, open(&database::index(dir))?);
        let seen = see(dir)?;
        let newest = LogMark::of_index(&index).map(|(mark, _)| mark);
        Ok(Self { dir: dir.to_owned(), log, index, seen, newest, warned: false })
    }

    /// The newest commit, if the index of the log tells.
    pub(super) const fn newest(&self) -> Option<LogMark> {
        self.newest
    }

    /// Before anything is written: whether nobody else has written, or has at least left everything whole.
    pub(super) fn unchanged(&mut self) -> Result<(), StoreError> {
        let now = self.as_they_are()?;
        if now == self.seen {
            return Ok(());
        }
        if let Some((mark, _)) = LogMark::of_index(&self.index) {
            mark.is_whole_in(&self.log).map_err(|flaw| self.log_damaged(&flaw))?;
            self.newest = Some(mark);
        }
        {
            let connection = database::read_only(&database::file(&self.dir), false)?;
            database::check(&connection, "integrity_check")?.map_err(StoreError::Damaged)?;
        }
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                "another program has written the database or its log while batchd runs; both are whole, but only \
                 batchd may write them"
            );
        }
        self.seen = now;
        Ok(())
    }

    /// After a commit or a checkpoint: whether the log really holds it, behind the one before it.
    pub(super) fn committed(&mut self) -> Result<(), StoreError> {
        let now = self.as_they_are()?;
        if let Some((mark, page)) = LogMark::of_index(&self.index) {
            mark.is_held_by(&self.log, page).map_err(|flaw| self.log_damaged(&flaw))?;
            if let Some(before) = self.newest.filter(|before| mark.continues(before)) {
                before.is_held_by(&self.log, page).map_err(|flaw| self.log_damaged(&flaw))?;
            }
            self.newest = Some(mark);
        }
        self.seen = now;
        Ok(())
    }

    /// The files as they are now, if they are the ones that were opened.
    fn as_they_are(&self) -> Result<[Seen; 2], StoreError> {
        let now = see(&self.dir)?;
        for (now, (before, path)) in
            now.iter().zip(self.seen.iter().zip([database::file(&self.dir), database::log(&self.dir)]))
        {
            if now.identity != before.identity {
                return Err(replaced(&path));
            }
        }
        Ok(now)
    }

    fn log_damaged(&self, flaw: &str) -> StoreError {
        StoreError::Damaged(format!(
            "{} was written by something else: {flaw}",
            database::log(&self.dir).display()
        ))
    }
}

fn see(dir: &Path) -> Result<[Seen; 2], StoreError> {
    Ok([Seen::of(&database::file(dir))?, Seen::of(&database::log(dir))?])
}
