//! Many seeds, each a week of everything: a few with every run of the tests, thousands by one command.
//!
//! `SIM_SEEDS=5000 SIM_FROM=1 cargo test --locked --test it simulation::hunt` runs these seeds; with `SIM_LOG=1` what
//! happens in each is printed.

use super::plan::Plan;
use super::weeks::live_through;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many days each seed is.
const WEEK: u64 = 7;

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

#[test]
fn whatever_goes_wrong_nothing_is_lost() {
    let (first, count) = (number("SIM_FROM", 1), number("SIM_SEEDS", 50));
    let aloud = std::env::var_os("SIM_LOG").is_some();
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    if let Err(panic) =
                        catch_unwind(AssertUnwindSafe(|| live_through(seed, &Plan::of(seed, WEEK), aloud)))
                    {
                        let what = panic.downcast_ref::<String>().cloned();
                        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|what| (*what).to_owned()));
                        let what = what.unwrap_or_default();
                        let told = format!(
                            "seed {seed}: {what}\n  SIM_FROM={seed} SIM_SEEDS=1 SIM_LOG=1 cargo test --locked \
                             --test it simulation::hunt::whatever -- --nocapture"
                        );
                        // A long hunt tells of it at once.
                        eprintln!("{told}");
                        failed.lock().unwrap().push(told);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {count} seeds failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn the_same_seed_is_the_same_world() {
    let seed = number("SIM_FROM", 1);
    let log = || live_through(seed, &Plan::of(seed, 2), std::env::var_os("SIM_LOG").is_some());
    let (first, second) = (log(), log());
    if let Some(at) = first.iter().zip(&second).position(|(first, second)| first != second) {
        panic!("seed {seed} parts at line {at}:\n{}\n{}", first[at], second[at]);
    }
    assert_eq!(first.len(), second.len(), "seed {seed}");
}
