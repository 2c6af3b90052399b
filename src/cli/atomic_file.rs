//! A file that appears complete or not at all: it is written under another name, and renamed once it is on the disk.

use super::error::Error;
use super::exit::Exit;
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file that is being written. Dropped before [`AtomicFile::finish`], it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    aside: PathBuf,
    replace: bool,
    file: BufWriter<File>,
    digest: Sha256,
    bytes: u64,
    done: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub path: PathBuf,
    pub bytes: u64,
    pub sha256: String,
}

impl AtomicFile {
    /// Begins a file at `path`, which must not exist unless it is to be replaced.
    pub fn begin(path: &Path, replace: bool) -> Result<Self, Error> {
        if !replace && path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        let aside = aside(path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o666).open(&aside);
        let file = file.map_err(|error| failed(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            aside,
            replace,
            file: BufWriter::with_capacity(256 * 1024, file),
            digest: Sha256::new(),
            bytes: 0,
            done: false,
        })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| failed(&self.path, &error))
    }

    /// Gives the file its name, once its bytes are on the disk.
    pub fn finish(mut self) -> Result<Written, Error> {
        let named = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        named.map_err(|error| failed(&self.path, &error))?;
        if self.replace {
            std::fs::rename(&self.aside, &self.path)
        } else {
            // Unlike a rename, a link never replaces what somebody else has put there meanwhile.
            std::fs::hard_link(&self.aside, &self.path).and_then(|()| std::fs::remove_file(&self.aside))
        }
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => exists(&self.path),
            _ => failed(&self.path, &error),
        })?;
        self.done = true;
        sync_directory(&self.path).map_err(|error| failed(&self.path, &error))?;
        let digest = std::mem::take(&mut self.digest).finalize();
        let sha256 = data_encoding::HEXLOWER.encode(&digest);
        Ok(Written { path: std::mem::take(&mut self.path), bytes: self.bytes, sha256 })
    }
}

impl AtomicFile {
    /// Keeps what has been written, under a name that says that something is missing. Gives that name.
    pub fn keep(mut self) -> Result<PathBuf, Error> {
        let mut name = self.path.file_name().map_or_else(OsString::new, OsString::from);
        name.push(".partial");
        let path = self.path.with_file_name(name);
        let kept = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        kept.and_then(|()| std::fs::rename(&self.aside, &path)).map_err(|error| failed(&path, &error))?;
        self.done = true;
        sync_directory(&path).map_err(|error| failed(&path, &error))?;
        Ok(path)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.aside);
        }
    }
}

/// The name under which a file grows, in the same directory so that it can be renamed.
pub fn aside(file: &Path) -> PathBuf {
    let mut name = file.file_name().map_or_else(OsString::new, OsString::from);
    name.push(format!(".tmp-{}", std::process::id()));
    file.with_file_name(name)
}

/// A rename is durable once its directory is.
pub fn sync_directory(file: &Path) -> std::io::Result<()> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

/// What kept a file from being written.
pub fn failed(file: &Path, error: &std::io::Error) -> Error {
    let told = Error::io(format!("cannot write {}", file.display()), error);
    match error.kind() {
        ErrorKind::StorageFull => told.hint("free some space, or write to another disk"),
        _ => told,
    }
}

/// A file that is in the way.
pub fn exists(file: &Path) -> Error {
    Error::new(Exit::Failed, format!("{} exists", file.display())).hint("--force replaces it")
}
