//! The content of uploaded files: one file each in a directory, whole under its id or not there at all.

use super::directory;
use super::error::StoreError;
use super::room::Room;
use super::spool::Spooled;
use super::state::Store;
use super::threads::off_thread;
use crate::domain::time::since;
use crate::failpoint;
use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file on its way in. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    file: File,
    part: Removed,
    whole: PathBuf,
    digest: Sha256,
    bytes: u64,
    room: Room,
}

/// Content that is whole and has its name, but belongs to no file yet. Dropped before it is kept, it goes.
#[derive(Debug)]
pub struct Uploaded {
    content: Removed,
    pub bytes: u64,
    /// Its digest, in hexadecimal digits.
    pub sha256: String,
}

/// A path that is removed when this is dropped, unless there is none any more.
#[derive(Debug)]
struct Removed(Option<PathBuf>);

impl Drop for Removed {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), "failed to remove an upload that is not kept: {error}");
        }
    }
}

impl Store {
    /// Contents are in `dir` from now on; without this, in `files` below the state. Once, before there is any.
    pub fn keep_files_in(&self, dir: &Path) {
        if self.0.files.set(dir.to_owned()).is_ok() && !self.is_on_server() {
            remove_unfinished(dir);
        }
    }

    /// Whether every daemon with this state has the contents: there is no other, or they are in a directory that all have.
    pub fn has_files_in_common(&self) -> bool {
        !self.is_on_server() || self.contents() != usual(&self.0.dir)
    }

    /// Where contents are.
    fn contents(&self) -> PathBuf {
        self.0.files.get().cloned().unwrap_or_else(|| usual(&self.0.dir))
    }

    /// Begins the content of the file `id`.
    pub async fn begin_upload(&self, id: &str) -> Result<Upload, StoreError> {
        let (dir, id) = (self.contents(), id.to_owned());
        off_thread(move || Upload::begin(&dir, &id)).await?
    }

    /// The content of the file `id`, which has `bytes`; `None`: it is not there, or is not as long.
    pub async fn file_content(&self, id: &str, bytes: u64) -> Result<Option<Spooled>, StoreError> {
        let path = self.contents().join(id);
        off_thread(move || match File::open(path) {
            Ok(file) if file.metadata()?.len() == bytes => Ok(Some(Spooled::of(file, bytes))),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::from(error)),
        })
        .await?
    }

    /// Removes contents that belong to no file: of uploads whose process died before they were registered. Not those of
    /// the last day: whoever goes back to the state that a restored backup replaced finds its files.
    pub async fn sweep_contents(&self, now: Timestamp) -> Result<(), StoreError> {
        let dir = self.contents();
        let old = off_thread(move || {
            names(&dir, |entry| {
                let modified = entry.metadata().and_then(|about| about.modified());
                let modified = modified.ok().and_then(|at| Timestamp::try_from(at).ok());
                modified.is_some_and(|at| since(at, now) >= SWEPT_AFTER)
            })
        })
        .await?;
        let known = self.known_files(old.clone()).await?;
        let orphans: Vec<String> = old.into_iter().filter(|name| !known.contains(name)).collect();
        if !orphans.is_empty() {
            tracing::info!("removing {} uploads that belong to no file", orphans.len());
            self.remove_contents(orphans).await?;
        }
        Ok(())
    }

    /// Removes the contents of these files.
    pub(super) async fn remove_contents(&self, ids: Vec<String>) -> Result<(), StoreError> {
        let dir = self.contents();
        off_thread(move || remove(&dir, &ids)).await
    }
}

impl Upload {
    fn begin(dir: &Path, id: &str) -> Result<Self, StoreError> {
        if !dir.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            directory::sync(dir.parent().unwrap_or(dir))?;
        }
        let whole = dir.join(id);
        let part = dir.join(format!("{id}{UNFINISHED}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        let room = Room::in_dir(dir);
        Ok(Self { file, part: Removed(Some(part)), whole, digest: Sha256::new(), bytes: 0, room })
    }

    /// How long it is so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds what comes next.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] before the disk is: what the database needs is left to it.
    pub async fn add(mut self, pieces: Vec<Bytes>) -> Result<Self, StoreError> {
        off_thread(move || {
            for piece in pieces {
                self.room.take(piece.len() as u64)?;
                self.file.write_all(&piece)?;
                self.digest.update(&piece);
                self.bytes += piece.len() as u64;
            }
            Ok(self)
        })
        .await?
    }

    /// All of it has come: it is on the disk under its name, whatever happens.
    pub async fn finish(self) -> Result<Uploaded, StoreError> {
        off_thread(move || {
            let Self { file, mut part, whole, digest, bytes, .. } = self;
            failpoint::reach("files.written", || whole.display().to_string());
            file.sync_all()?;
            if let Some(path) = &part.0 {
                std::fs::rename(path, &whole)?;
                part.0 = None;
            }
            let content = Removed(Some(whole.clone()));
            if let Some(dir) = whole.parent() {
                directory::sync(dir)?;
            }
            Ok(Uploaded { content, bytes, sha256: data_encoding::HEXLOWER.encode(&digest.finalize()) })
        })
        .await?
    }
}

impl Uploaded {
    /// It belongs to a file from now on.
    pub(super) fn keep(mut self) {
        self.content.0 = None;
    }
}

fn remove(dir: &Path, ids: &[String]) {
    for id in ids {
        drop(Removed(Some(dir.join(id))));
    }
}

/// Removes what uploads to `dir` have left that a dead process did not finish.
pub(super) fn remove_unfinished(dir: &Path) {
    let unfinished = names(dir, |entry| entry.file_name().to_string_lossy().ends_with(UNFINISHED));
    remove(dir, &unfinished);
}

/// The names in a directory that may be of contents, and are `wanted`.
fn names(dir: &Path, wanted: impl Fn(&std::fs::DirEntry) -> bool) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let entries = entries.flatten().filter(wanted);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Where contents are if nothing is said of it.
pub(super) fn usual(dir: &Path) -> PathBuf {
    dir.join("files")
}

/// The ending of what is not whole yet.
const UNFINISHED: &str = ".part";
/// How old contents are that belong to no file before they go.
const SWEPT_AFTER: Duration = Duration::from_hours(24);
