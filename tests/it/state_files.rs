//! The files of a running daemon: who may read them, and what it does when somebody else writes them.

use crate::world::{Daemon, World, until};
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

fn database(world: &World) -> PathBuf {
    world.state().join("batchd.db")
}

/// A daemon that has acknowledged some batches.
fn busy(world: &World) -> Daemon {
    let daemon = world.daemon();
    for number in 0..12 {
        let id = format!("batch_{number}");
        world.provider.put(&id, "in_progress", &json!({}));
        world.ok(&["track", &id]);
    }
    daemon
}

fn ends_with_65(world: &World, daemon: &Daemon, what: &str) {
    let status = daemon.end();
    assert_eq!(status.code(), Some(65), "{what}: {}", daemon.log());
    assert!(daemon.log().contains("damaged"), "{what}: {}", daemon.log());
    drop(world.batchd(&["status"]));
}

#[test]
fn damage_under_a_running_daemon_ends_it_with_65_by_itself() {
    let faults: [(&str, fn(&Path)); 4] = [
        ("pages are overwritten", |file| {
            let pages = vec![0x5A; 4096 * 30];
            OpenOptions::new().write(true).open(file).unwrap().write_all_at(&pages, 4096 * 2).unwrap();
        }),
        ("the log is cut", |file| {
            let log = OpenOptions::new().write(true).open(file.with_extension("db-wal")).unwrap();
            log.set_len(log.metadata().unwrap().len() / 3).unwrap();
        }),
        ("the log is deleted", |file| fs::remove_file(file.with_extension("db-wal")).unwrap()),
        ("the database is replaced", |file| {
            fs::copy(file, file.with_extension("copy")).unwrap();
            fs::rename(file.with_extension("copy"), file).unwrap();
        }),
    ];
    for (what, fault) in faults {
        let world = World::new();
        let daemon = busy(&world);
        fault(&database(&world));
        ends_with_65(&world, &daemon, what);
        if what.contains("the log is") {
            let next = Daemon::start(world.command().arg("run"));
            assert_eq!(next.end().code(), Some(65), "{what}: {}", next.log());
            assert!(next.log().contains("batchd.lock"), "{what}: {}", next.log());
            let offline = world.batchd(&["list", "--offline"]);
            assert_eq!(offline.status.code(), Some(65), "{what}: {offline:?}");
        }
    }
}

/// The mode of everything below `dir`.
fn assert_private(dir: &Path, seen: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (kind, mode) =
            (entry.file_type().unwrap(), entry.metadata().unwrap().permissions().mode() & 0o7777);
        let path = entry.path();
        let expected = if kind.is_socket() {
            0o660
        } else if kind.is_dir() {
            0o700
        } else {
            0o600
        };
        assert_eq!(mode, expected, "{}: {mode:o}", path.display());
        seen.push(entry.file_name().into_string().unwrap());
        if kind.is_dir() {
            assert_private(&path, seen);
        }
    }
}

#[test]
fn whatever_the_umask_every_file_is_its_owners_alone() {
    let world = World::new();
    let without_umask = |arguments: &str| {
        let batchd = world.command();
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(format!("umask 0; exec {} {arguments}", env!("CARGO_BIN_EXE_batchd")))
            .env_clear();
        command.envs(batchd.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    };
    let daemon = Daemon::start(&mut without_umask("run"));
    until("the daemon answers", || UnixStream::connect(world.socket()).ok());
    world.provider.complete("batch_1");
    world.ok(&["track", "batch_1"]);
    let backup = world.directory.path().join("backup.db");
    let made = without_umask(&format!("backup {}", backup.display())).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(world.state()).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(world.socket()).unwrap().permissions().mode() & 0o7777, 0o660);
    let mut seen = Vec::new();
    assert_private(&world.state(), &mut seen);
    for name in ["batchd.db", "batchd.db-wal", "batchd.db-shm", "batchd.lock", "ballast"] {
        assert!(seen.iter().any(|seen| seen == name), "{name} in {seen:?}");
    }
    daemon.terminate();
}
