//! The directory of downloaded results: one file a batch, whole or not there, and never more than is wanted.

use crate::domain::tracked::SavedResults;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};
use std::fs::Permissions;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
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
}

/// A file that grows. Dropped before it is finished, it leaves nothing that would be taken for results.
pub(super) struct PartialFile {
    path: PathBuf,
    aside: PathBuf,
    file: BufWriter<File>,
    digest: Sha256,
    bytes: u64,
}

impl<'a> ResultsDir<'a> {
    pub(super) fn new(dir: &'a Path) -> Self {
        Self { dir }
    }

    /// Begins the file of a batch; what an earlier process left half-written is overwritten.
    pub(super) async fn begin(&self, provider: &str, id: &str) -> io::Result<PartialFile> {
        let path = self.path(provider, id);
        let aside = path.with_extension(UNFINISHED);
        let parent = self.dir.join(provider);
        let made = move || std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        tokio::task::spawn_blocking(made).await.map_err(io::Error::other)??;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&aside).await?;
        // One that was left there may be readable by others.
        file.set_permissions(Permissions::from_mode(0o600)).await?;
        let file = BufWriter::with_capacity(256 * 1024, file);
        Ok(PartialFile { path, aside, file, digest: Sha256::new(), bytes: 0 })
    }

    fn path(&self, provider: &str, id: &str) -> PathBuf {
        let mut name = utf8_percent_encode(id, NAME).to_string();
        if name.len() > MAX_NAME_LENGTH {
            name = data_encoding::HEXLOWER.encode(&Sha256::digest(id));
        }
        self.dir.join(provider).join(format!("{name}.{FINISHED}"))
    }

    /// Deletes what was written in `expired` (Unix milliseconds), at most a tenth of all or a thousand, then the oldest until no more than `max_bytes` are left. Gives the paths.
    pub(super) async fn sweep(&self, expired: Vec<Range<i64>>, max_bytes: u64) -> io::Result<Vec<String>> {
        let dir = self.dir.to_owned();
        let swept = tokio::task::spawn_blocking(move || sweep(&dir, &expired, max_bytes));
        swept.await.map_err(io::Error::other)?
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
        tokio::fs::rename(&self.aside, &self.path).await?;
        match tokio::fs::remove_file(incomplete(&self.path)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(parent) = self.path.parent() {
            File::open(parent).await?.sync_all().await?;
        }
        Ok(SavedResults {
            path: self.path.to_string_lossy().into_owned(),
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
        tokio::fs::rename(&self.aside, &path).await?;
        Ok(path.to_string_lossy().into_owned())
    }
}

/// The name of the file at `path` as long as lines are missing.
fn incomplete(path: &Path) -> PathBuf {
    path.with_extension(format!("{FINISHED}.{INCOMPLETE}"))
}

fn sweep(dir: &Path, expired: &[Range<i64>], max_bytes: u64) -> io::Result<Vec<String>> {
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
            if path.extension().is_none_or(|ending| ending != FINISHED && ending != INCOMPLETE) {
                continue;
            }
            let metadata = std::fs::metadata(&path)?;
            let written =
                metadata.mtime().saturating_mul(1000).saturating_add(metadata.mtime_nsec() / 1_000_000);
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
        std::fs::remove_file(&path)?;
        total -= bytes;
        gone.push(path.to_string_lossy().into_owned());
    }
    Ok(gone)
}

/// So many files may go for their age at once, if a tenth of all is less.
const OLD_AT_ONCE: usize = 1000;

/// What may stand in a file's name as it is.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

#[cfg(test)]
mod tests {
    use super::*;

    use jiff::Timestamp;
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
        let dir_of_results = ResultsDir::new(dir.path());
        let mut file = dir_of_results.begin("p", "batches/a.b").await.unwrap();
        file.write(b"half").await.unwrap();
        drop(file);
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
    async fn results_are_their_owners_alone_whatever_was_left_there() {
        let dir = tempfile::tempdir().unwrap();
        let dir_of_results = ResultsDir::new(dir.path());
        let left = dir.path().join("p/left").with_extension(UNFINISHED);
        std::fs::create_dir(dir.path().join("p")).unwrap();
        std::fs::write(&left, "half").unwrap();
        std::fs::set_permissions(&left, Permissions::from_mode(0o666)).unwrap();
        for id in ["left", "new"] {
            let saved = put(&dir_of_results, id, "whole\n").await;
            let mode = std::fs::metadata(saved.path).unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode, 0o600, "{id}: {mode:o}");
        }
    }

    #[tokio::test]
    async fn the_oldest_go_first_and_nothing_that_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let dir_of_results = ResultsDir::new(dir.path());
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
        assert_eq!(dir_of_results.sweep(older_than(day * 10), 30).await.unwrap(), Vec::<String>::new());
        assert_eq!(dir_of_results.sweep(older_than(day * 10), 20).await.unwrap(), [saved[0].clone()]);
        assert_eq!(dir_of_results.sweep(older_than(day), 1000).await.unwrap(), [saved[1].clone()]);
        assert!(Path::new(&saved[2]).exists() && dir.path().join("note.jsonl").exists());
    }
}
