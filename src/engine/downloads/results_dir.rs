//! The directory of downloaded results: one file a batch, whole or not there, and never more than is wanted.

use crate::domain::tracked::SavedResults;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncWriteExt as _, BufWriter};

/// The ending of a file that is not whole yet.
const UNFINISHED: &str = "part";
/// What is added to the name of a file in which lines are missing.
const INCOMPLETE: &str = "partial";
/// The ending of a file that is.
const FINISHED: &str = "jsonl";
/// Bytes of a file's name; a longer one is replaced by its digest.
const MAX_NAME_LENGTH: usize = 200;

pub(super) struct ResultsDir<'a> {
    dir: &'a Path,
    is_shared: bool,
}

/// A file that grows. Dropped before it is finished, it leaves nothing.
pub(super) struct PartialFile {
    path: PathBuf,
    /// What it is called in the state.
    known_as: String,
    aside: Aside,
    file: BufWriter<File>,
    digest: Sha256,
    bytes: u64,
}

/// The name of a file that is not whole yet, which is nobody else's: another daemon may write the same results, in the same
/// directory. Removed when this is dropped, unless there is none any more.
struct Aside(Option<PathBuf>);

impl Aside {
    fn of(path: &Path) -> Self {
        Self(Some(path.with_extension(format!("{:016x}.{UNFINISHED}", fastrand::u64(..)))))
    }

    /// Gives the file the name `path`.
    async fn rename(mut self, path: &Path) -> io::Result<()> {
        if let Some(aside) = &self.0 {
            tokio::fs::rename(aside, path).await?;
        }
        self.0 = None;
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), "cannot remove results that are not whole: {error}");
        }
    }
}

impl<'a> ResultsDir<'a> {
    /// The directory of this name; `is_shared`: other daemons have it too, each under a name of its own.
    pub(super) fn new(dir: &'a Path, is_shared: bool) -> Self {
        Self { dir, is_shared }
    }

    /// Begins the file of a batch.
    pub(super) async fn begin(&self, provider: &str, id: &str) -> io::Result<PartialFile> {
        let path = self.path(provider, id);
        let known_as = self.known_as(&path);
        let aside = Aside::of(&path);
        let parent = self.dir.join(provider);
        let made = move || std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        tokio::task::spawn_blocking(made).await.map_err(io::Error::other)??;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = match &aside.0 {
            Some(aside) => options.open(aside).await?,
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        let file = BufWriter::with_capacity(256 * 1024, file);
        Ok(PartialFile { path, known_as, aside, file, digest: Sha256::new(), bytes: 0 })
    }

    /// What a file is called in the state: in a directory that others have under another name too, by its place there.
    fn known_as(&self, path: &Path) -> String {
        let shown = path.strip_prefix(self.dir).ok().filter(|_| self.is_shared).unwrap_or(path);
        shown.to_string_lossy().into_owned()
    }

    fn path(&self, provider: &str, id: &str) -> PathBuf {
        let mut name = utf8_percent_encode(id, NAME).to_string();
        if name.len() > MAX_NAME_LENGTH {
            name = data_encoding::HEXLOWER.encode(&Sha256::digest(id));
        }
        self.dir.join(provider).join(format!("{name}.{FINISHED}"))
    }

    /// Deletes what was written in `expired` (Unix milliseconds), at most a tenth of all or a thousand, then the oldest until no more than `max_bytes` are left. Gives the paths.
    ///
    /// What has been unfinished since before `abandoned` (Unix milliseconds) goes too: whoever wrote it is dead.
    pub(super) async fn sweep(
        &self,
        expired: Vec<Range<i64>>,
        max_bytes: u64,
        abandoned: i64,
    ) -> io::Result<Vec<String>> {
        let dir = self.dir.to_owned();
        let swept = tokio::task::spawn_blocking(move || sweep(&dir, &expired, max_bytes, abandoned));
        let swept = swept.await.map_err(io::Error::other)??;
        Ok(swept.iter().map(|path| self.known_as(path)).collect())
    }
}

impl PartialFile {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).await
    }

    /// How long it is so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives it its name; then it is on the disk, whatever happens.
    pub(super) async fn finish(mut self, lines: u64) -> io::Result<SavedResults> {
        self.file.flush().await?;
        self.file.get_ref().sync_all().await?;
        self.aside.rename(&self.path).await?;
        match tokio::fs::remove_file(incomplete(&self.path)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(parent) = self.path.parent() {
            File::open(parent).await?.sync_all().await?;
        }
        Ok(SavedResults {
            path: self.known_as,
            sha256: data_encoding::HEXLOWER.encode(&self.digest.finalize()),
            bytes: self.bytes,
            lines,
        })
    }

    /// Keeps what there is, under a name that says that lines are missing. Gives that name.
    pub(super) async fn keep(mut self) -> io::Result<String> {
        self.file.flush().await?;
        self.file.get_ref().sync_all().await?;
        let path = incomplete(&self.path);
        self.aside.rename(&path).await?;
        Ok(path.to_string_lossy().into_owned())
    }
}

/// The name of the file at `path` as long as lines are missing.
fn incomplete(path: &Path) -> PathBuf {
    path.with_extension(format!("{FINISHED}.{INCOMPLETE}"))
}

fn sweep(dir: &Path, expired: &[Range<i64>], max_bytes: u64, abandoned: i64) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let providers = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        providers => providers?,
    };
    for provider in providers {
        let provider = provider?;
        if !provider.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(provider.path())? {
            let path = file?.path();
            // Nothing else is ours.
            let ours = [FINISHED, INCOMPLETE, UNFINISHED];
            let Some(ending) =
                path.extension().and_then(|ending| ours.into_iter().find(|our| ending == *our))
            else {
                continue;
            };
            let metadata = match std::fs::metadata(&path) {
                // Another daemon sweeps too.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            let written =
                metadata.mtime().saturating_mul(1000).saturating_add(metadata.mtime_nsec() / 1_000_000);
            if ending == UNFINISHED {
                if written < abandoned {
                    remove(&path)?;
                }
                continue;
            }
            files.push((written, metadata.len(), path));
        }
    }
    files.sort();
    let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    let mut gone = Vec::new();
    let mut most = (files.len() / 10).max(OLD_AT_ONCE);
    for (written, bytes, path) in files {
        let is_old = most > 0 && expired.iter().any(|part| part.contains(&written));
        if !is_old && total <= max_bytes {
            continue;
        }
        most = most.saturating_sub(1);
        remove(&path)?;
        total -= bytes;
        gone.push(path);
    }
    Ok(gone)
}

/// Removes a file, unless somebody else has.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// So many files may go for their age at once, if a tenth of all is less.
const OLD_AT_ONCE: usize = 1000;

/// What may stand in a file's name as it is.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

#[cfg(test)]
mod tests {
    use super::*;

    use jiff::Timestamp;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    fn now() -> Timestamp {
        crate::clock::Clock::system().now()
    }

    fn older_than(age: Duration) -> Vec<Range<i64>> {
        let oldest = crate::domain::time::earlier(now(), age).as_millisecond();
        std::iter::once(i64::MIN..oldest).collect()
    }

    async fn put(dir_of_results: &ResultsDir<'_>, id: &str, content: &str) -> SavedResults {
        let mut file = dir_of_results.begin("p", id).await.unwrap();
        file.write(content.as_bytes()).await.unwrap();
        file.finish(1).await.unwrap()
    }

    #[tokio::test]
    async fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let dir_of_results = ResultsDir::new(dir.path(), false);
        let mut file = dir_of_results.begin("p", "batches/a.b").await.unwrap();
        file.write(b"half").await.unwrap();
        drop(file);
        assert_eq!(std::fs::read_dir(dir.path().join("p")).unwrap().count(), 0, "nothing is left");
        let path = dir.path().join("p/batches%2Fa%2Eb.jsonl");
        assert!(!path.exists());
        let saved = put(&dir_of_results, "batches/a.b", "whole\n").await;
        assert_eq!(saved.path, path.to_str().unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"whole\n");
        assert_eq!(saved.sha256, data_encoding::HEXLOWER.encode(&Sha256::digest("whole\n")));
        let mut file = dir_of_results.begin("p", "short").await.unwrap();
        file.write(b"one\n").await.unwrap();
        let kept = file.keep().await.unwrap();
        assert_eq!(kept, dir.path().join("p/short.jsonl.partial").to_str().unwrap());
        put(&dir_of_results, "short", "one\ntwo\n").await;
        assert!(!Path::new(&kept).exists());
        let long = put(&dir_of_results, &"x".repeat(500), "").await;
        assert!(Path::new(&long.path).exists());
    }

    #[tokio::test]
    async fn results_are_their_owners_alone_and_what_is_abandoned_goes() {
        let dir = tempfile::tempdir().unwrap();
        let dir_of_results = ResultsDir::new(dir.path(), false);
        let saved = put(&dir_of_results, "new", "whole\n").await;
        let mode = std::fs::metadata(&saved.path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600, "{mode:o}");
        let left = dir.path().join("p/left.0123.part");
        std::fs::write(&left, "half").unwrap();
        let at = now().as_millisecond();
        dir_of_results.sweep(Vec::new(), 1000, at - 60_000).await.unwrap();
        assert!(left.exists(), "somebody may be writing it");
        dir_of_results.sweep(Vec::new(), 1000, at + 60_000).await.unwrap();
        assert!(!left.exists() && Path::new(&saved.path).exists());
    }

    #[tokio::test]
    async fn two_that_write_the_same_results_at_once_do_each_other_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let dir_of_results = ResultsDir::new(dir.path(), true);
        let mut one = dir_of_results.begin("p", "batch_1").await.unwrap();
        one.write(b"first\n").await.unwrap();
        let mut other = dir_of_results.begin("p", "batch_1").await.unwrap();
        other.write(b"second\n").await.unwrap();
        let (one, other) = (one.finish(1).await.unwrap(), other.finish(1).await.unwrap());
        assert_eq!((one.path.as_str(), other.path.as_str()), ("p/batch_1.jsonl", "p/batch_1.jsonl"));
        assert_eq!(std::fs::read(dir.path().join(&other.path)).unwrap(), b"second\n");
        assert_eq!(std::fs::read_dir(dir.path().join("p")).unwrap().count(), 1);
        let gone = dir_of_results.sweep(Vec::new(), 0, 0).await.unwrap();
        assert_eq!(gone, ["p/batch_1.jsonl"], "by the name that the state has");
    }

    #[tokio::test]
    async fn the_oldest_go_first_and_nothing_that_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let dir_of_results = ResultsDir::new(dir.path(), false);
        std::fs::write(dir.path().join("note.jsonl"), "mine").unwrap();
        let mut saved = Vec::new();
        for id in ["a", "b", "c"] {
            saved.push(put(&dir_of_results, id, "0123456789").await.path);
        }
        let day = Duration::from_hours(24);
        let back = |path: &str, days: u64| {
            let at = now() - jiff::SignedDuration::try_from(day * u32::try_from(days).unwrap()).unwrap();
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(at.into()).unwrap();
        };
        back(&saved[0], 5);
        back(&saved[1], 3);
        assert_eq!(dir_of_results.sweep(older_than(day * 10), 30, 0).await.unwrap(), Vec::<String>::new());
        assert_eq!(dir_of_results.sweep(older_than(day * 10), 20, 0).await.unwrap(), [saved[0].clone()]);
        assert_eq!(dir_of_results.sweep(older_than(day), 1000, 0).await.unwrap(), [saved[1].clone()]);
        assert!(Path::new(&saved[2]).exists() && dir.path().join("note.jsonl").exists());
    }
}
