//! The lock file: one daemon a state directory, and what must be known before the database is opened.

use super::directory::{Identity, unwritable};
use super::error::OpenError;
use super::log_mark::LogMark;
use crate::sync::lock;
use jiff::Timestamp;
use std::fmt::Write;
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The exclusive lock of a state directory, held until it is dropped or the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    dir: PathBuf,
    /// What the last holder left.
    pub(super) left: Marks,
    /// What this one has written, and since when it holds the lock.
    written: Mutex<(Marks, Timestamp)>,
}

/// What the lock file says of the database beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// A database was made here: a missing or empty one is not a fresh start.
    pub(super) initialised: bool,
    /// The last daemon closed the state as it should.
    pub(super) closed: bool,
    /// The runs of which one last opened the database; see [`super::connection`].
    pub(super) runs: Vec<String>,
    /// The newest commit that was acknowledged; `None`: not known, as while the log is emptied.
    pub(super) log: Option<LogMark>,
    /// How many commits the database has had by then.
    pub(super) commits: i64,
    /// The server that the state has moved to: what lies here is old.
    pub(super) moved: Option<String>,
}

impl Lock {
    /// Takes the lock of `dir`, or says who holds it.
    pub(super) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = path(dir);
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(|error| unwritable(dir, &path, &error))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(OpenError::Locked {
                        dir: dir.to_owned(),
                        holder: holder(&contents(&mut file)),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(unwritable(dir, &path, &error)),
            }
            // Somebody may have deleted the file between the opening and the locking: then this lock guards nothing.
            if Identity::of_file(&file).ok() == Identity::of(&path).ok().flatten() {
                file.set_permissions(Permissions::from_mode(0o600))
                    .map_err(|error| unwritable(dir, &path, &error))?;
                let left = Marks::read(&contents(&mut file));
                let written = Mutex::new((left.clone(), Timestamp::UNIX_EPOCH));
                return Ok(Self { file, dir: dir.to_owned(), left, written });
            }
        }
    }

    /// Writes who holds the lock, since when, and `marks`.
    ///
    /// One write of constant length, in place: a crash leaves the old text or the new one.
    pub(super) fn write(&self, marks: &Marks, since: Timestamp) -> Result<(), OpenError> {
        *lock(&self.written) = (marks.clone(), since);
        self.put(marks, since)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| unwritable(&self.dir, &path(&self.dir), &error))
    }

    /// Notes the newest commit that is acknowledged. Not synced: it may be older than what a disk that lost power holds,
    /// never newer.
    pub(super) fn note_commit(&self, log: Option<LogMark>, commits: i64) -> io::Result<()> {
        let mut written = lock(&self.written);
        if (written.0.log, written.0.commits) != (log, commits) {
            (written.0.log, written.0.commits) = (log, commits);
            self.put(&written.0, written.1)?;
        }
        Ok(())
    }

    fn put(&self, marks: &Marks, since: Timestamp) -> io::Result<()> {
        let mut text = String::new();
        if marks.initialised {
            text.push_str("initialised\n");
        }
        if marks.closed {
            text.push_str("closed\n");
        }
        if let Some(server) = &marks.moved {
            let _ = writeln!(text, "moved {server}");
        }
        if let Some(log) = &marks.log {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "log {}", log.text());
        }
        let _ = write!(
            text,
            "commits {}\nrun {}\npid {}\nsince {since}\nhost {}\nversion {}\n",
            marks.commits,
            marks.runs.join(" "),
            std::process::id(),
            host(),
            env!("CARGO_PKG_VERSION"),
        );
        text.truncate(text.floor_char_boundary(LENGTH - 1));
        let padded = format!("{text:LENGTH$}");
        self.file
            .write_all_at(&padded.as_bytes()[..LENGTH], 0)
            .and_then(|()| self.file.set_len(LENGTH as u64))
    }

    /// What [`Lock::write`] wrote last.
    pub(super) fn marks(&self) -> Marks {
        lock(&self.written).0.clone()
    }

    /// Which file is locked.
    pub(super) fn identity(&self) -> std::io::Result<Identity> {
        Identity::of_file(&self.file)
    }
}

impl Marks {
    /// Reads what a lock file says; nothing if there is none.
    pub(super) fn of(dir: &Path) -> Self {
        File::open(path(dir)).map_or_else(|_| Self::default(), |mut file| Self::read(&contents(&mut file)))
    }

    fn read(text: &str) -> Self {
        let mut marks = Self::default();
        for line in text.lines() {
            match line.trim_end() {
                "initialised" => marks.initialised = true,
                "closed" => marks.closed = true,
                other => {
                    if let Some(runs) = other.strip_prefix("run ") {
                        marks.runs = runs.split_whitespace().map(str::to_owned).collect();
                    } else if let Some(log) = other.strip_prefix("log ") {
                        marks.log = LogMark::parse(log);
                    } else if let Some(server) = other.strip_prefix("moved ") {
                        marks.moved = Some(server.to_owned());
                    } else if let Some(commits) = other.strip_prefix("commits ") {
                        marks.commits = commits.parse().unwrap_or(0);
                    }
                }
            }
        }
        marks
    }
}

/// Where the lock of `dir` is.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("batchd.lock")
}

fn contents(file: &mut File) -> String {
    let mut bytes = Vec::new();
    // An unreadable text only costs the name of the holder.
    let _ = file.take(4096).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn holder(text: &str) -> String {
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .map_or("unknown", str::trim_end)
    };
    format!(
        "process {} on {}, since {}, batchd {}",
        value("pid"),
        value("host"),
        value("since"),
        value("version")
    )
}

fn host() -> String {
    let name = nix::sys::utsname::uname().map(|system| system.nodename().to_string_lossy().into_owned());
    name.ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// Below the size of a disk's sector, so that it is written whole or not at all.
const LENGTH: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_by_the_next_holder() {
        let dir = tempfile::tempdir().unwrap();
        let marks =
            Marks { initialised: true, runs: vec!["a-1".to_owned(), "b-2".to_owned()], ..Marks::default() };
        {
            let lock = Lock::take(dir.path()).unwrap();
            assert_eq!(lock.left, Marks::default());
            lock.write(&marks, Timestamp::constant(1_795_000_000, 0)).unwrap();
            let refused = Lock::take(dir.path()).unwrap_err();
            let text = refused.to_string();
            assert!(matches!(refused, OpenError::Locked { .. }), "{text}");
            assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
            assert!(text.contains("since 2026-11-18T"), "{text}");
        }
        assert_eq!(Lock::take(dir.path()).unwrap().left, marks);
        assert_eq!(Marks::of(dir.path()), marks);
        let mode = std::fs::metadata(path(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_shorter_text_leaves_nothing_of_a_longer_one() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let long = Marks {
            initialised: true,
            closed: true,
            runs: vec!["x".repeat(40); 4],
            log: None,
            commits: 9,
            moved: Some("db:5432".to_owned()),
        };
        lock.write(&long, Timestamp::UNIX_EPOCH).unwrap();
        lock.write(&Marks::default(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(Marks::of(dir.path()), Marks::default());
    }
}
