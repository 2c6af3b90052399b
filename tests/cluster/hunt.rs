//! The hunt itself: load, faults, and the judge at the end.

use crate::faults::{Amounts, Hunted};
use crate::follower::follow;
use crate::judge::{Judge, most_in_a_minute};
use crate::ledger::Ledger;
use crate::load::{Load, SINGLES};
use crate::patience::{now, pause, within};
use crate::stage::{NAMES, Setup, Stage};
use crate::support::postgres::Postgres;
use crate::{amount, is_long, seed};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A ceiling that would be reached without it.
const CEILING: usize = 240;

const SETUP: Setup = Setup {
    lease: "4s",
    polling: "min_interval = \"500ms\"\nmax_interval = \"3s\"\ntimeout = \"5s\"",
    accounts: &[("one", ""), ("two", ""), ("bounded", "requests_per_minute = 240")],
    webhooks: &[
        (
            "steady",
            "events = [\"batch.validating\", \"batch.in_progress\", \"batch.finalizing\", \"batch.completed\", \
             \"batch.failed\", \"batch.expired\", \"batch.cancelling\", \"batch.cancelled\"]",
        ),
        ("slow", ""),
        ("flaky", ""),
    ],
};

#[test]
fn whatever_is_killed_frozen_or_restarted_nothing_is_lost_or_told_twice() {
    let Some(postgres) = Postgres::own(&["max_wal_size = 256MB"]) else { return };
    let amounts = Amounts {
        kills: amount("KILLS", 8, 200),
        freezes: amount("FREEZES", 1, 20),
        restarts: amount("RESTARTS", 1, 20),
    };
    let rate = u32::try_from(amount("RATE", 20, 100)).unwrap();
    let seed = seed();
    eprintln!("hunt: {amounts:?}, {rate} new batches a second, seed {seed}");
    let stage = Stage::new(&postgres, SETUP, seed);
    let (ledger, over, deaf) = (Ledger::default(), AtomicBool::new(false), AtomicBool::new(false));
    let load = Load { stage: &stage, ledger: &ledger, over: &over, rate, reloads: true };
    let reached: Vec<AtomicU64> = NAMES.iter().map(|_| AtomicU64::new(0)).collect();
    let begun = now();
    let (wrong, summary) = std::thread::scope(|scope| {
        let ends = (Ends(&over), Ends(&deaf));
        let mut hunted = Hunted::begin(&stage);
        let followers: Vec<_> = NAMES
            .iter()
            .zip(&reached)
            .map(|(name, reached)| (stage.socket(name), reached))
            .map(|(socket, reached)| {
                scope.spawn({
                    let deaf = &deaf;
                    move || follow(&socket, reached, deaf)
                })
            })
            .collect();
        let loading: Vec<_> = (0..SINGLES + 3)
            .map(|number| {
                let (load, rng) =
                    (&load, fastrand::Rng::with_seed(seed.wrapping_add(100 + u64::from(number))));
                scope.spawn(move || match number {
                    0 => load.bundles(rng),
                    1 => load.commands(rng),
                    2 => load.others(rng),
                    _ => load.singles(rng),
                })
            })
            .collect();
        // A little of ordinary life at both ends.
        pause(Duration::from_secs(2));
        hunted.suffer(amounts, &mut fastrand::Rng::with_seed(seed));
        pause(Duration::from_secs(2));
        let (neglected_until, lasted) = (now(), begun.elapsed());
        drop(ends.0);
        for thread in loading {
            thread.join().unwrap();
        }
        calm(&stage);
        let judge = Judge { stage: &stage, entries: ledger.open().clone(), names: &NAMES };
        let mut wrong = judge.settle(hunted.last, SETTLE_LIMIT);
        let settled = begun.elapsed().saturating_sub(lasted);
        let last = judge.last_event();
        within(SETTLE_LIMIT, || reached.iter().all(|at| at.load(Ordering::SeqCst) >= last).then_some(()));
        drop(ends.1);
        let followers: Vec<_> = followers.into_iter().map(|thread| thread.join().unwrap()).collect();
        wrong.append(&mut hunted.wrong);
        wrong.extend(judge.judge());
        wrong.extend(judge.judge_followers(&followers, last));
        let (neglect, neglected) = judge.longest_neglect(neglected_until);
        // Of daemons that die every few seconds for long it is told, and not judged: that all are checked once they live
        // is.
        if neglect > NEGLECT && !is_long() {
            wrong.push(format!("{neglected} was not polled for {neglect:?}"));
        }
        let most = most_in_a_minute(&stage.provider.asked("bounded"));
        if most > CEILING {
            wrong.push(format!("{most} requests came within a minute, and {CEILING} may"));
        }
        for node in &mut hunted.nodes {
            wrong.extend(node.stop().err());
        }
        let summary = format!(
            "{}; {lasted:?} under load, the server away for {:?}, settled {settled:?} later; longest without a check: \
             {neglect:?}; most requests in a minute: {most} of {CEILING}",
            judge.summary(&followers),
            hunted.away
        );
        wrong.extend(panics(&stage));
        if !wrong.is_empty() {
            wrong.push(format!("done: {}", hunted.done.join(", ")));
        }
        (wrong, summary)
    });
    eprintln!("{summary}");
    report(&stage, wrong, seed);
}

/// From here on nothing goes wrong, and all configurations are one.
fn calm(stage: &Stage<'_>) {
    stage.provider.calm();
    stage.receiver.calm();
    for name in NAMES {
        stage.configure(name, 0);
        let reloaded =
            within(SETTLE_LIMIT, || stage.ask(name, "POST", "/v1/reload", b"")?.is_success().then_some(()));
        assert!(reloaded.is_some(), "{name} does not reload its configuration");
    }
}

/// What daemons have said of panics.
pub fn panics(stage: &Stage<'_>) -> Vec<String> {
    let log = |name| std::fs::read_to_string(stage.path(name, "log")).unwrap_or_default();
    let logs = NAMES.iter().map(|name| (name, log(name)));
    logs.flat_map(|(name, log)| {
        let panics = log.lines().filter(|line| line.contains("panicked"));
        panics.map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
    })
    .collect()
}

/// Fails with what is wrong, and leaves what was said to whoever wants to see it.
pub fn report(stage: &Stage<'_>, mut wrong: Vec<String>, seed: u64) {
    if wrong.is_empty() {
        return;
    }
    let place = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-{seed}"));
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place).unwrap();
    for name in NAMES {
        for what in ["log", "toml"] {
            let _ = std::fs::copy(stage.path(name, what), place.join(format!("{name}.{what}")));
        }
    }
    let _ = std::fs::write(place.join("postgres.log"), stage.postgres.log());
    let _ = std::fs::write(place.join("wrong"), wrong.join("\n"));
    let (count, done) = (wrong.len(), wrong.last().cloned());
    wrong.truncate(40);
    panic!(
        "{count} things are wrong (seed {seed}, kept in {}):\n{}\n{done:?}",
        place.display(),
        wrong.join("\n")
    );
}

/// Ends what goes on until it is over, however the test ends.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What is due is checked within a minute.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);
/// A batch that goes on is checked every few seconds; daemons are away for a while, and so is the server.
const NEGLECT: Duration = Duration::from_secs(90);
