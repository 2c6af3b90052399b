//! A short life, crashed at each of its commits: right before it, and right after it before anybody is told.

use super::disk::Doom;
use super::plan::{Act, Form, Life, Plan, Quirk, Step, Window};
use super::weeks::{live_in, outside_of};
use batchd::sync::lock;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const SEED: u64 = 1;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Batches with one id at two accounts that end, one that ends at once, one that is untracked, one that is submitted, one
/// that its provider calls back to life.
fn plan() -> Plan {
    let life = |account, id: &str, takes: Option<u64>, ending| Life {
        account,
        id: id.to_owned(),
        created: Duration::ZERO,
        takes: takes.map(secs),
        ending,
        files_after: Duration::ZERO,
        quirks: Vec::new(),
    };
    let lives = vec![
        life("alpha", "batch_namesake", Some(150), "completed"),
        life("beta", "batch_namesake", Some(200), "completed"),
        life("alpha", "batch_at_once", Some(0), "failed"),
        life("alpha", "batch_left", Some(230), "expired"),
        life("beta", "batch_lasting", None, "completed"),
        // Its provider says for a while that it runs again.
        Life {
            quirks: vec![Window { from: secs(400), to: secs(590), what: Quirk::Revived }],
            ..life("alpha", "batch_revived", Some(100), "completed")
        },
    ];
    let form = Form {
        beta: true,
        ends: true,
        ops: true,
        concurrency: 3,
        moved: false,
        discover: false,
        retain_days: 90,
        longest: 3,
    };
    let key = |key: &str| key.to_owned();
    let steps = [
        (5, Act::Track { key: key("alpha:batch_namesake"), check: true }),
        (
            10,
            Act::TrackMany {
                keys: vec![key("beta:batch_namesake"), key("alpha:batch_at_once"), key("beta:batch_lasting")],
                check: false,
            },
        ),
        (20, Act::Track { key: key("alpha:batch_left"), check: true }),
        (25, Act::Track { key: key("alpha:batch_revived"), check: false }),
        (30, Act::Submit { account: "alpha", number: 1 }),
        (60, Act::Disable("ends")),
        (70, Act::Untrack { key: key("alpha:batch_left"), purge: false }),
        (90, Act::Reload(Form { ops: false, ..form })),
        (160, Act::Enable("ends")),
        (170, Act::Reload(form)),
        (300, Act::Track { key: key("alpha:batch_namesake"), check: false }),
        (350, Act::Poll(key("alpha:batch_revived"))),
        (450, Act::Poll(key("alpha:batch_revived"))),
        (500, Act::Poll(key("alpha:batch_revived"))),
        (600, Act::Peace),
        // A submission is finished by now, whatever became of it.
        (1100, Act::Sleep(secs(12 * 3600))),
        (12 * 3600 + 10, Act::Measure),
        (12 * 3600 + 600, Act::Judge),
    ];
    Plan {
        form,
        lives,
        trouble: BTreeMap::new(),
        moods: BTreeMap::new(),
        disk: Vec::new(),
        steps: steps.map(|(at, act)| Step { at: secs(at), act, patience: None }).into(),
        peace: secs(600),
    }
}

#[test]
fn a_crash_at_any_commit_loses_nothing() {
    let plan = plan();
    let outside = outside_of(SEED, &plan, std::env::var_os("SIM_LOG").is_some());
    live_in(&outside, SEED, &plan);
    let commits = lock(&outside.disk).commits;
    assert!(commits > 20, "{commits} commits");
    // On the disk, before a commit is after the one before it: what differs is only who has been told of that.
    let before = (1..=commits).step_by(3).map(|count| Doom { place: "store.commit", count });
    let after = (1..=commits).map(|count| Doom { place: "store.committed", count });
    let dooms: Vec<Doom> = before.chain(after).collect();
    let next = AtomicU32::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(doom) = dooms.get(number as usize) else { return };
                    let outside = outside_of(SEED, &plan, std::env::var_os("SIM_LOG").is_some());
                    lock(&outside.disk).doom(Some(doom.clone()));
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| live_in(&outside, SEED, &plan))) {
                        let what = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                        failed.lock().unwrap().push(format!("{doom:?}: {what}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} of {} crashes lost something:\n{}",
        failed.len(),
        dooms.len(),
        failed.join("\n")
    );
}
