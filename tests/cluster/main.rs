//! The hunt over several daemons on one PostgreSQL: real daemons under load, killed, frozen, cut off and left without
//! their server at moments from a seed, and a judge that knows only what was answered, asked and received; and cases of
//! their own for what such a hunt meets too seldom.
//!
//! `tests/cluster/run` makes it long. The seed decides what is done and when; how the machine schedules it all, it cannot.

#![expect(clippy::unwrap_used, reason = "a test may fail by a panic")]
#![expect(
    clippy::print_stderr,
    reason = "the seed, what happened, and what cannot run here are for whoever runs it"
)]

#[path = "../torture/client.rs"]
mod client;
#[path = "../torture/patience.rs"]
mod patience;
#[path = "../torture/servers.rs"]
mod servers;
#[expect(dead_code, reason = "the other tests use more of it")]
#[path = "../it/support/mod.rs"]
mod support;
#[expect(dead_code, reason = "the other tests use more of it")]
#[path = "../it/world.rs"]
mod world;

mod away;
mod commits;
mod faults;
mod follower;
mod hunt;
mod judge;
mod ledger;
mod load;
mod pace;
mod provider;
mod receiver;
mod rolling;
mod silence;
mod stage;
mod switching;
mod takeover;

use std::time::Duration;

/// Of the environment, such as `BATCHD_CLUSTER_KILLS`.
fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(format!("BATCHD_CLUSTER_{name}")).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("BATCHD_CLUSTER_{name} is no number: {value}")))
}

/// Whether the marks are to be met, by a release build with the machine to itself.
fn is_long() -> bool {
    variable("LONG").is_some_and(|long| long > 0)
}

/// One number, or another one in the long run.
fn amount(name: &str, short: u64, long: u64) -> u64 {
    variable(name).unwrap_or(if is_long() { long } else { short })
}

/// How long something may take that is to be done within `mark`: a debug build beside other tests is given more.
fn mark(mark: Duration) -> Duration {
    if is_long() { mark } else { mark * 3 + Duration::from_secs(10) }
}

fn seed() -> u64 {
    variable("SEED").unwrap_or(7)
}
