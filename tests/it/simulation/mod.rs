//! Simulations on a virtual clock: weeks in a second, with faults from a seed.

mod abandoned;
mod alone;
mod at_once;
mod commits;
mod disk;
mod engine;
mod hunt;
mod invariants;
mod ledger;
mod operator;
mod outside;
mod plan;
mod provider;
mod receiver;
mod weeks;

pub use alone::{DAY, EPOCH, Life, MINUTE, World, account, answer, count, ids, is};
