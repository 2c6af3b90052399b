//! Power loss and failing disks: every write of a process is written down, and the directory is made again as a disk that
//! lost power at any sync may hold it. What was acknowledged by then must be there.

use super::*;
use batchd::store::batches::BatchFilter;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Set for the process that [`recorded`] starts: the state that it works on.
const CHILD: &str = "BATCHD_TEST_DISK_CHILD";
/// In it, how many batches the process registers.
const COUNT: &str = "BATCHD_TEST_DISK_COUNT";

/// Does nothing by itself: [`recorded`] starts this binary again with only this test, under the shim.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_writes_are_written_down() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let count: u32 = std::env::var(COUNT).unwrap().parse().unwrap();
    let dir = Path::new(&dir);
    // What is acknowledged stands in the log of writes in its place.
    let mut acks = OpenOptions::new().create(true).append(true).open(dir.join("acks")).unwrap();
    let Ok(store) = Store::open(dir, Clock::system()) else { return };
    for number in 0..count {
        let id = format!("batch_{number}");
        let Ok(registered) = store.register(vec![registration(&id)], routes(&[])).await else { break };
        acks.write_all(id.as_bytes()).unwrap();
        let pk = registered[0].pk;
        let Ok(Some(before)) = store.load(pk).await else { break };
        let step = look(&before, Status::Completed, seconds(1));
        if store.record(pk, step, routes(&["pipeline"])).await.is_err() {
            break;
        }
        acks.write_all(format!("{id} ended").as_bytes()).unwrap();
        if number % 16 == 15 {
            let _ = store.checkpoint().await;
        }
    }
}

/// One thing that was done to a file.
#[derive(Debug)]
struct Done {
    operation: u8,
    path: PathBuf,
    offset: usize,
    bytes: Vec<u8>,
}

/// Runs the process in `dir` under the shim; gives what it did to its files. `None`: there is no `cc`, which is said.
fn recorded(dir: &Path, count: u32, fail: Option<&str>) -> Option<Vec<Done>> {
    let place = tempfile::tempdir().unwrap();
    let (shim, log) = (place.path().join("shim.so"), place.path().join("log"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disk/shim.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&shim)
        .arg(source)
        .arg("-ldl")
        .stderr(Stdio::inherit())
        .status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no C compiler builds tests/disk/shim.c here (`apt-get install gcc`)");
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["store::power::a_process_whose_writes_are_written_down", "--exact", "--test-threads=1"])
        .env("LD_PRELOAD", &shim)
        .env("DISK_SHIM_DIR", dir)
        .env("DISK_SHIM_LOG", &log)
        .env(CHILD, dir)
        .env(COUNT, count.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(fail) = fail {
        command.env("DISK_SHIM_FAIL", fail);
    }
    command.status().unwrap();
    let log = fs::read(log).unwrap_or_default();
    let mut rest = log.as_slice();
    let mut all = Vec::new();
    while rest.len() >= 21 {
        let number = |at: usize, length: usize| {
            let bytes = rest[at..at + length].iter().rev();
            bytes.fold(0_usize, |value, byte| value << 8 | usize::from(*byte))
        };
        let (operation, path, offset, length) = (rest[0], number(1, 4), number(5, 8), number(13, 8));
        rest = &rest[21..];
        let name = PathBuf::from(String::from_utf8(rest[..path].to_vec()).unwrap());
        rest = &rest[path..];
        let bytes = rest[..length].to_vec();
        rest = &rest[length..];
        all.push(Done { operation, path: name, offset, bytes });
    }
    Some(all)
}

/// What a disk holds of a file.
#[derive(Clone, Default)]
struct OnDisk {
    synced: Vec<u8>,
    /// What was done since: `None` is a new length.
    since: Vec<(usize, Option<Vec<u8>>)>,
}

impl OnDisk {
    /// The file with the first `count` of what was done since the sync, of the last of those a half.
    fn with(&self, count: usize) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for (place, (offset, written)) in self.since.iter().take(count).enumerate() {
            match written {
                None => bytes.resize(*offset, 0),
                Some(written) => {
                    let torn = place + 1 == count && count < self.since.len();
                    let written = if torn { &written[..written.len() / 2] } else { written };
                    let end = offset + written.len();
                    if bytes.len() < end {
                        bytes.resize(end, 0);
                    }
                    bytes[*offset..end].copy_from_slice(written);
                }
            }
        }
        bytes
    }
}

/// A disk, and what was acknowledged while it was written.
#[derive(Default)]
struct Disk {
    files: BTreeMap<PathBuf, OnDisk>,
    acknowledged: Vec<String>,
}

impl Disk {
    fn apply(&mut self, done: &Done) {
        if done.path.ends_with("acks") {
            if done.operation == b'w' {
                self.acknowledged.push(String::from_utf8(done.bytes.clone()).unwrap());
            }
            return;
        }
        match done.operation {
            b'w' => self.of(&done.path).since.push((done.offset, Some(done.bytes.clone()))),
            b't' => self.of(&done.path).since.push((done.offset, None)),
            b's' => {
                if let Some(file) = self.files.get_mut(&done.path) {
                    *file = OnDisk { synced: file.with(usize::MAX), since: Vec::new() };
                }
            }
            b'u' => drop(self.files.remove(&done.path)),
            b'r' => {
                if let Some(file) = self.files.remove(&done.path) {
                    self.files.insert(PathBuf::from(String::from_utf8(done.bytes.clone()).unwrap()), file);
                }
            }
            other => panic!("an unknown operation {other}"),
        }
    }

    fn of(&mut self, path: &Path) -> &mut OnDisk {
        self.files.entry(path.to_owned()).or_default()
    }

    /// Makes the directory as the disk may hold it: of what was not synced the first `part` in ten.
    fn make(&self, dir: &Path, part: usize) {
        for (path, file) in &self.files {
            let Some(name) = path.file_name().filter(|name| *name != "batchd.db-shm") else { continue };
            fs::write(dir.join(name), file.with((file.since.len() * part).div_ceil(10))).unwrap();
        }
    }
}

/// Whether everything that was acknowledged is in the state in `dir`.
async fn assert_holds(dir: &Path, acknowledged: &[String], what: &str) {
    let store = Store::open(dir, Clock::system()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let filter = BatchFilter::default();
    let (found, _) = store.list(filter).await.unwrap();
    let found: BTreeMap<String, Status> =
        found.into_iter().map(|(_, tracked)| (tracked.key.id, tracked.batch.status)).collect();
    for acknowledged in acknowledged {
        let (id, ended) = match acknowledged.strip_suffix(" ended") {
            Some(id) => (id, true),
            None => (acknowledged.as_str(), false),
        };
        let status = found.get(id).unwrap_or_else(|| panic!("{what}: {id} was lost"));
        assert!(!ended || *status == Status::Completed, "{what}: the end of {id} was lost");
    }
    drop(store);
    assert_sound(dir);
}

#[tokio::test]
async fn a_power_loss_at_any_sync_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let Some(done) = recorded(dir.path(), 40, None) else { return };
    let syncs = done.iter().filter(|done| done.operation == b's').count();
    let acknowledged =
        done.iter().filter(|done| done.path.ends_with("acks") && done.operation == b'w').count();
    assert_eq!(acknowledged, 80);
    assert!(syncs >= 80, "every acknowledgment has its sync: {syncs}");
    let mut disk = Disk::default();
    let mut passed = 0;
    for (place, one) in done.iter().enumerate() {
        disk.apply(one);
        if one.operation == b's' {
            passed += 1;
        }
        // Right after a sync, and in the middle of what comes next.
        let looked_at =
            one.operation == b's' || done.get(place + 1).is_some_and(|next| next.operation == b's');
        if !looked_at || passed % 3 != 0 || disk.acknowledged.is_empty() {
            continue;
        }
        for part in [0, 5, 10] {
            let copy = tempfile::tempdir().unwrap();
            disk.make(copy.path(), part);
            let what = format!("operation {place}, {part} of 10 of what was not synced");
            assert_holds(copy.path(), &disk.acknowledged, &what).await;
        }
    }
}

#[tokio::test]
async fn d14_a_disk_that_fails_acknowledges_nothing_that_it_does_not_hold() {
    // EIO, ENOSPC, and short writes.
    for (operation, number) in [('s', 5), ('w', 5), ('w', 28), ('w', 0)] {
        for count in [60, 75, 130] {
            let dir = tempfile::tempdir().unwrap();
            let rule = format!("{operation}:{count}:{number}");
            let Some(done) = recorded(dir.path(), 30, Some(&rule)) else { return };
            let mut disk = Disk::default();
            for one in &done {
                disk.apply(one);
            }
            // As the process left it, and as a power loss does.
            let left = tempfile::tempdir().unwrap();
            disk.make(left.path(), 0);
            for dir in [dir.path(), left.path()] {
                assert_holds(dir, &disk.acknowledged, &format!("{rule}, {}", dir.display())).await;
            }
        }
    }
}

#[tokio::test]
async fn every_commit_is_synced_before_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let Some(done) = recorded(dir.path(), 10, None) else { return };
    let log = dir.path().join("batchd.db-wal");
    let mut synced = false;
    for one in &done {
        match one.operation {
            b's' if one.path == log => synced = true,
            b'w' if one.path == log => synced = false,
            b'w' if one.path.ends_with("acks") => {
                assert!(synced, "acknowledged before its log was synced");
            }
            _ => {}
        }
    }
}
