//! The torture: a real daemon under every kind of load, killed at random moments again and again, and a judge that knows
//! only what was answered, asked and received.
//!
//! `just torture [KILLS] [SEED]` runs it longer. The seed decides what is done and when somebody dies; how the machine
//! schedules it all, it cannot.

#![expect(clippy::unwrap_used, reason = "a test may fail by a panic")]
#![expect(clippy::print_stderr, reason = "the seed and what happened are for whoever runs it")]

mod checker;
mod client;
mod ledger;
mod load;
mod patience;
mod provider;
mod receiver;
mod servers;
mod stage;

use checker::Checker;
use ledger::Ledger;
use load::Load;
use nix::sys::signal::Signal;
use patience::{now, pause};
use stage::{Death, Stage};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[test]
fn a10_kills_under_every_load_lose_nothing() {
    Torture { kills: variable("KILLS").unwrap_or(20), seed: seed(), deletes: false, sabotage: false }
        .passes();
}

#[test]
fn kills_while_histories_are_deleted_lose_nothing_else() {
    let kills = variable("KILLS").unwrap_or(20) / 2;
    Torture { kills, seed: seed() ^ 0xdead, deletes: true, sabotage: false }.passes();
}

#[test]
fn the_judge_sees_a_state_that_went_back() {
    let wrong = Torture { kills: 6, seed: 4, deletes: false, sabotage: true }.run().0;
    for what in ["is not in the log", "was read as"] {
        assert!(wrong.iter().any(|one| one.contains(what)), "nothing {what} in {wrong:#?}");
    }
}

/// Of the environment: `BATCHD_TORTURE_KILLS`, `BATCHD_TORTURE_SEED`.
fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(format!("BATCHD_TORTURE_{name}")).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("BATCHD_TORTURE_{name} is no number: {value}")))
}

fn seed() -> u64 {
    variable("SEED").unwrap_or(7)
}

/// What is to be done to the daemon.
struct Torture {
    kills: u64,
    seed: u64,
    /// Whether histories are deleted meanwhile, by clients and in time.
    deletes: bool,
    /// Whether an older state is put in place before the end, which the judge must see.
    sabotage: bool,
}

impl Torture {
    fn passes(&self) {
        let Self { kills, seed, deletes, .. } = self;
        eprintln!("torture: {kills} kills, seed {seed}, deletes {deletes}");
        let (mut wrong, stage) = self.run();
        if !wrong.is_empty() {
            let count = wrong.len();
            wrong.truncate(40);
            panic!(
                "{count} things are wrong (seed {seed}, {kills} kills, deletes {deletes}; kept in {}):\n{}\n\n\
                 the log's end:\n{}",
                keep(&stage, *seed),
                wrong.join("\n"),
                stage.end_of_log()
            );
        }
    }

    /// Gives what is wrong in the end, and where.
    fn run(&self) -> (Vec<String>, Stage) {
        let Self { kills, seed, deletes, sabotage } = *self;
        let stage = Stage::new(seed, if deletes { "1s" } else { "7d" });
        let (ledger, over, tags) = (Ledger::default(), AtomicBool::new(false), AtomicU64::new(0));
        let load = Load { stage: &stage, ledger: &ledger, deletes, over: &over, tags: &tags };
        let mut deaths = Vec::new();
        let (mut daemon, last_start) = std::thread::scope(|scope| {
            for number in 0..3 {
                let (load, rng) = (&load, fastrand::Rng::with_seed(seed.wrapping_add(100 + number)));
                scope.spawn(move || load.requests(rng));
            }
            let rng = fastrand::Rng::with_seed(seed.wrapping_add(200));
            let load = &load;
            scope.spawn(move || load.commands(rng));
            scope.spawn(move || load.follow());
            // The clients stop however this ends.
            let ends = Ends(&over);
            let mut rng = fastrand::Rng::with_seed(seed);
            for number in 0..kills {
                if sabotage && number == 1 {
                    copy_state(&stage, "state", "before");
                }
                match one_life(&stage, &mut rng, deletes) {
                    Ok(death) => deaths.push(death),
                    Err(what) => panic!("life {number}, seed {seed}: {what}\n{}", stage.end_of_log()),
                }
            }
            if sabotage {
                copy_state(&stage, "before", "state");
            }
            stage.configure(0);
            let (mut daemon, begun) = (stage.start(), now());
            daemon.answers(&stage.socket()).unwrap();
            // A little of ordinary life at the end.
            pause(Duration::from_millis(500));
            drop(ends);
            (daemon, begun)
        });
        stage.provider.calm();
        stage.receiver.calm();
        stage.configure(0);
        load.calm_reload();
        let entries = ledger.open().clone();
        let checker = Checker { stage: &stage, entries, deaths: &deaths, last_start, deletes };
        let mut wrong = checker.settle(if sabotage { Duration::from_secs(2) } else { SETTLE_LIMIT });
        wrong.extend(checker.judge_running());
        wrong.extend(daemon.stop().err());
        wrong.extend(checker.judge_stopped());
        eprintln!("{}", checker.summary());
        (wrong, stage)
    }
}

/// What was due is checked within a minute.
const SETTLE_LIMIT: Duration = Duration::from_mins(1);

fn copy_state(stage: &Stage, from: &str, to: &str) {
    let to = stage.path(to);
    let _ = std::fs::remove_dir_all(&to);
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(stage.path(from)).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    // The directory of the state is its owner's alone.
    std::fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
}

/// Ends the load when it goes.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A daemon from its start to its death, at a moment that the seed says.
fn one_life(stage: &Stage, rng: &mut fastrand::Rng, deletes: bool) -> Result<Death, String> {
    if deletes && rng.u32(..3) == 0 && stage.database().exists() {
        make_pruning_due(stage);
    }
    let mut daemon = stage.start();
    let way = rng.u32(..100);
    let time = Duration::from_millis(match rng.u32(..10) {
        0..3 => rng.u64(..100),
        3..8 => rng.u64(100..1000),
        _ => rng.u64(1000..2500),
    });
    if way < 12 {
        // In the middle of its start.
        pause(time / 4);
        return daemon.kill();
    }
    daemon.answers(&stage.socket())?;
    pause(time);
    match way {
        12..18 => daemon.stop(),
        18..26 => {
            let from: Instant = now();
            daemon.signal(Signal::SIGTERM);
            pause(time / 8);
            // It may be over already, as it was told to.
            match daemon.kill() {
                Ok(death) => Ok(Death { from, ..death }),
                Err(what) if what.contains("exit status: 0") => Ok(Death { from, until: now() }),
                Err(what) => Err(what),
            }
        }
        _ => daemon.kill(),
    }
}

/// Sets the daily deletion back by two days while no daemon runs.
fn make_pruning_due(stage: &Stage) {
    let Ok(database) = rusqlite::Connection::open(stage.database()) else { return };
    let back = 2 * 24 * 3600 * 1000;
    // Without a table yet there is nothing to delete either.
    let _ = database.execute("UPDATE jobs SET started_at = started_at - ?1 WHERE name = 'prune'", [back]);
}

/// Leaves state and log of a failure to whoever wants to see it.
fn keep(stage: &Stage, seed: u64) -> String {
    let place = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("torture-{seed}"));
    let _ = std::fs::remove_dir_all(&place);
    let _ = std::fs::create_dir_all(&place);
    for name in ["state/batchd.db", "daemon.log", "config.toml"] {
        let to = place.join(name.rsplit('/').next().unwrap());
        let _ = std::fs::copy(stage.path(name), to);
    }
    place.display().to_string()
}
