//! Every target under libFuzzer: the first byte says which, or `BATCHD_FUZZ_TARGET` names it.
#![no_main]

#[path = "../../tests/it/fuzz/targets.rs"]
mod targets;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use targets::TARGETS;

static ONLY: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("BATCHD_FUZZ_TARGET").ok());

fuzz_target!(|data: &[u8]| {
    if let Some(only) = ONLY.as_deref() {
        TARGETS.iter().filter(|target| target.name == only).for_each(|target| (target.run)(data));
    } else if let Some((first, rest)) = data.split_first() {
        (TARGETS[usize::from(*first) % TARGETS.len()].run)(rest);
    }
});
