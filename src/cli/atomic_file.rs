//! A file that appears complete or not at all: it is written under another name, and renamed once it is on the disk.
//! What is no regular file, a device or a pipe, is written to as it is.

use super::error::Error;
use super::exit::Exit;
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Where a command writes what `-o FILE` or `FILE` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A regular file, or none yet: it appears whole. A link is followed, so that it stays what it is.
    File(PathBuf),
    /// A device or a pipe: it is written to as it is.
    Stream(PathBuf),
}

impl Place {
    /// What `path` is. A regular file that is there may only be replaced on demand.
    pub fn of(path: &Path, replace: bool) -> Result<Self, Error> {
        // The shell's own names for what is open already, whatever that is.
        let is_open_already = path.starts_with("/dev") || path.starts_with("/proc");
        match path.metadata() {
            Ok(about) if about.is_dir() => {
                Err(Error::new(Exit::Failed, format!("cannot write {}: it is a directory", path.display())))
            }
            Ok(about) if !about.is_file() || is_open_already => Ok(Self::Stream(path.to_owned())),
            Ok(_) if !replace => Err(exists(path)),
            Ok(_) => path.canonicalize().map(Self::File).map_err(|error| failed(path, &error)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::File(end_of_links(path))),
            Err(error) => Err(failed(path, &error)),
        }
    }
}

/// Where a link that leads to nothing leads; a path that is no link leads to itself.
fn end_of_links(path: &Path) -> PathBuf {
    let mut end = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(target) = end.read_link() else { break };
        end = end.parent().map_or(target.clone(), |directory| directory.join(&target));
    }
    end
}

/// As many links as Linux follows.
const MAX_LINKS: usize = 40;

/// A file that is being written. Dropped before [`AtomicFile::finish`], it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    /// As it was given.
    path: PathBuf,
    place: Place,
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
    /// Begins a file at `path`; a regular file that is there is only replaced on demand.
    pub fn begin(path: &Path, replace: bool) -> Result<Self, Error> {
        let place = Place::of(path, replace)?;
        let (aside, file) = match &place {
            Place::File(end) => {
                let aside = aside(end);
                let file = OpenOptions::new().write(true).create_new(true).mode(0o666).open(&aside);
                (aside, file)
            }
            Place::Stream(stream) => (PathBuf::new(), OpenOptions::new().append(true).open(stream)),
        };
        let file = file.map_err(|error| failed(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            place,
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
        let fault = |error: std::io::Error| failed(&self.path, &error);
        self.file.flush().map_err(fault)?;
        if let Place::File(end) = &self.place {
            self.file.get_ref().sync_all().map_err(fault)?;
            put(&self.aside, end, self.replace).map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => exists(&self.path),
                _ => fault(error),
            })?;
            self.done = true;
            sync_directory(end).map_err(fault)?;
        }
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
        if !self.done && matches!(self.place, Place::File(_)) {
            let _ = std::fs::remove_file(&self.aside);
        }
    }
}

/// Gives the file `aside` its name.
pub fn put(aside: &Path, end: &Path, replace: bool) -> std::io::Result<()> {
    if replace {
        return std::fs::rename(aside, end);
    }
    // Unlike a rename, a link never replaces what somebody else has put there meanwhile.
    std::fs::hard_link(aside, end).and_then(|()| std::fs::remove_file(aside))
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

pub fn exists(file: &Path) -> Error {
    Error::new(Exit::Failed, format!("{} exists", file.display())).hint("--force replaces it")
}

/// Whether a path means standard output.
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    fn write(path: &Path, replace: bool, text: &str) -> Result<Written, Error> {
        let mut file = AtomicFile::begin(path, replace)?;
        file.write(text.as_bytes())?;
        file.finish()
    }

    fn names(directory: &TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_regular_file_is_replaced_only_on_demand() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("out");
        write(&file, false, "one").unwrap();
        assert!(write(&file, false, "two").unwrap_err().hints[0].contains("--force"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one");
        write(&file, true, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two");
        assert!(write(directory.path(), true, "x").unwrap_err().message.contains("it is a directory"));
        assert_eq!(names(&directory), ["out"]);
    }

    #[test]
    fn a_link_stays_and_its_target_is_replaced() {
        let directory = TempDir::new().unwrap();
        let (file, link) = (directory.path().join("out"), directory.path().join("latest"));
        symlink("out", &link).unwrap();
        // It leads to nothing yet.
        write(&link, false, "one").unwrap();
        assert!(write(&link, false, "two").is_err());
        write(&link, true, "two").unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(names(&directory), ["latest", "out"]);
    }

    #[test]
    fn a_device_and_a_pipe_are_written_to() {
        use std::io::Read as _;
        use std::os::unix::fs::FileTypeExt as _;
        for replace in [false, true] {
            assert_eq!(write(Path::new("/dev/null"), replace, "x").unwrap().bytes, 1);
        }
        assert!(Path::new("/dev/null").metadata().unwrap().file_type().is_char_device());
        let directory = TempDir::new().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reading = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut text = String::new();
                File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
                text
            }
        });
        write(&pipe, true, "through").unwrap();
        assert_eq!(reading.join().unwrap(), "through");
        assert!(pipe.metadata().unwrap().file_type().is_fifo());
        assert_eq!(names(&directory), ["pipe"]);
    }
}
