//! The disk that a simulated daemon's state is on: full or unreadable for a while, and what of it outlives a crash.

use super::outside::Outside;
use super::plan::{Window, current};
use batchd::failpoint;
use batchd::sync::lock;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// What goes wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskTrouble {
    /// No commit succeeds.
    Full,
    /// No query is answered.
    Unreadable,
}

/// Where a daemon dies: when it comes to `place` for the `count`-th time from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doom {
    pub place: &'static str,
    pub count: u32,
}

/// In memory where there is such a place: what matters is the order of commits.
pub struct Disk {
    root: tempfile::TempDir,
    generation: u32,
    trouble: Vec<Window<DiskTrouble>>,
    doom: Option<Doom>,
    /// How often the writer was about to commit.
    pub commits: u32,
}

impl Disk {
    pub fn new(trouble: Vec<Window<DiskTrouble>>) -> Self {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let disk = Self { root: root.unwrap(), generation: 0, trouble, doom: None, commits: 0 };
        std::fs::create_dir(disk.state()).unwrap();
        disk
    }

    /// Where all of it is.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The directory of the state as it is now.
    pub fn state(&self) -> PathBuf {
        self.root.path().join(format!("state-{}", self.generation))
    }

    pub fn config(&self) -> PathBuf {
        self.root.path().join("config.toml")
    }

    pub fn doom(&mut self, doom: Option<Doom>) {
        self.doom = doom;
    }

    /// What would be there if the machine stopped now becomes the state: the files as they are, and no lock or
    /// shared memory.
    fn crash(&mut self) {
        let before = self.state();
        self.generation += 1;
        let after = self.state();
        std::fs::create_dir(&after).unwrap();
        for entry in std::fs::read_dir(&before).unwrap() {
            let name = entry.unwrap().file_name();
            let text = name.to_string_lossy();
            if text != "ballast" && !text.ends_with("-shm") {
                std::fs::copy(before.join(&name), after.join(&name)).unwrap();
            }
        }
    }

    /// Removes what an earlier life left behind.
    pub fn tidy(&self) {
        for generation in 0..self.generation {
            let _ = std::fs::remove_dir_all(self.root.path().join(format!("state-{generation}")));
        }
    }

    fn reached(&mut self, place: &str, now: std::time::Duration) -> Reached {
        self.commits += u32::from(place == "store.commit");
        let fate = self.doom.as_mut().filter(|doom| doom.place == place);
        if let Some(doom) = fate {
            doom.count = doom.count.saturating_sub(1);
            if doom.count == 0 {
                self.doom = None;
                self.crash();
                return Reached::Death;
            }
        }
        let trouble = current(&self.trouble, now);
        let fails = match place {
            "store.write" => trouble == Some(&DiskTrouble::Full),
            "store.read" => trouble == Some(&DiskTrouble::Unreadable),
            _ => false,
        };
        if fails { Reached::Failure } else { Reached::Nothing }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    Nothing,
    Failure,
    Death,
}

/// Has this thread's daemon work on the disk of `outside`.
pub fn attach(outside: &Arc<Outside>) {
    let outside = Arc::downgrade(outside);
    failpoint::watch(Some(Rc::new(move |place| {
        let Some(outside) = outside.upgrade() else { return false };
        if outside.is_dead() {
            return false;
        }
        let now = outside.now();
        let reached = lock(&outside.disk).reached(place, now);
        if reached == Reached::Death {
            outside.note(format_args!("dies at {place}"));
            outside.die();
        }
        reached == Reached::Failure
    })));
}
