//! Floor 3: durable state, in a SQLite file or on a PostgreSQL server (`server`). The only place that names rusqlite and
//! tokio-postgres.
//!
//! All writes go through one connection and are grouped: whatever waits goes into one transaction (`writer`).
//! Other connections serve what is read (`reader`). Every statement is written once, for both (`sql`,
//! `docs/design.md#sql`). What is the file's own is in `docs/delivery.md#sqlite`.

pub mod backup;
pub mod batches;
mod checks;
mod column;
mod commit_stats;
mod connection;
pub mod costs;
pub mod creations;
mod damage;
mod database;
mod digest;
mod directory;
pub mod discovery;
pub mod downloads;
mod error;
pub mod events;
mod expiring;
pub mod figures;
mod file_check;
mod file_writer;
pub mod files;
mod given;
pub mod history;
pub mod holdings;
pub mod jobs;
mod lock;
mod log_mark;
pub mod log_steps;
pub mod lookup;
mod migrate;
mod opening;
mod operations;
pub mod outbox;
pub mod providers;
mod pruning;
pub mod queue;
mod reader;
mod reckoning;
pub mod recording;
pub mod rescheduled;
pub mod restore;
mod retention;
mod room;
mod row;
pub mod schedule;
pub mod server;
pub mod shared_dirs;
pub mod spool;
mod sql;
mod state;
pub mod submissions;
mod telling;
mod tending;
mod threads;
pub mod touch;
mod transaction;
pub mod uploads;
mod value;
mod writer;

pub use column::Pk;
pub use commit_stats::CommitStats;
pub use error::{OpenError, StoreError};
pub use server::connect::Connector;
pub use server::leases::MemberView;
pub use server::moving::Moved;
pub use server::opening::Shared;
pub use server::refusal::{Affair, Refusal};
pub use state::Store;
