//! Every reader of bytes from outside against mutations of what is recorded: a few thousand here, millions by
//! `just fuzz [N]`, and the same targets under cargo-fuzz in `fuzz/`.

mod corpus;
mod mutation;
mod targets;

use corpus::Corpus;
use nix::time::{ClockId, clock_gettime};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;
use targets::{TARGETS, Target};

/// A number from the environment, `BATCHD_FUZZ_…`.
fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(format!("BATCHD_FUZZ_{name}")).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("BATCHD_FUZZ_{name} is no number: {value}")))
}

#[test]
fn no_mutation_of_what_is_recorded_breaks_a_reader() {
    let executions = variable("EXECUTIONS").unwrap_or(4000);
    let seed = variable("SEED").unwrap_or(11);
    let only = std::env::var("BATCHD_FUZZ_TARGET").ok().filter(|only| !only.is_empty());
    let corpus = Corpus::recorded();
    let mut rng = fastrand::Rng::with_seed(seed);
    let targets: Vec<&Target> =
        TARGETS.iter().filter(|target| only.as_ref().is_none_or(|only| target.name == only)).collect();
    assert!(!targets.is_empty(), "there is no target {only:?}");
    let mut finds = Vec::new();
    for number in 0..executions {
        let target = targets[usize::try_from(number).unwrap() % targets.len()];
        let inputs = corpus.of(target.name);
        // What is recorded goes first as it is, then over and over with changes.
        let turn = usize::try_from(number).unwrap() / targets.len();
        let input = match inputs.get(turn) {
            Some(input) => input.clone(),
            None => mutation::mutated(inputs, &mut rng),
        };
        if let Err(what) = execute(target, &input) {
            finds.push(format!("{}: {what}: {}", target.name, keep(target, &input).display()));
            if finds.len() >= MOST_FINDS {
                break;
            }
        }
        if number > 0 && number.is_multiple_of(250_000) {
            eprintln!("{number} of {executions} executions, seed {seed}, {} finds", finds.len());
        }
    }
    assert!(finds.is_empty(), "seed {seed}:\n{}", finds.join("\n"));
}

/// What was found once stays found.
#[test]
fn what_was_found_once_is_read_now() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fuzz");
    for target in &TARGETS {
        for entry in std::fs::read_dir(root.join(target.name)).into_iter().flatten() {
            let path = entry.unwrap().path();
            execute(target, &std::fs::read(&path).unwrap())
                .unwrap_or_else(|what| panic!("{}: {what}", path.display()));
        }
    }
}

/// Runs a target once.
fn execute(target: &Target, input: &[u8]) -> Result<(), String> {
    let begun = processor_time();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let took = processor_time().saturating_sub(begun);
    match outcome {
        Ok(()) if took < LONGEST => Ok(()),
        Ok(()) => Err(format!("it took {took:?} for {} bytes", input.len())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default())
        }
    }
}

/// How long this thread has worked.
fn processor_time() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap())
}

/// Writes a find down; what is mended belongs into `tests/fixtures/fuzz/TARGET`.
fn keep(target: &Target, input: &[u8]) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz").join(target.name);
    std::fs::create_dir_all(&place).unwrap();
    let name = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = place.join(format!("{name:016x}"));
    std::fs::write(&path, input).unwrap();
    path
}

/// For one input of a few kilobytes; a debug build is much slower than what users have.
const LONGEST: Duration = Duration::from_millis(if cfg!(debug_assertions) { 2000 } else { 100 });
/// After so many the run ends.
const MOST_FINDS: usize = 20;
