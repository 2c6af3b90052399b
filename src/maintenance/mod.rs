//! Floor 4: housekeeping at set times.

pub mod cron;
mod digest;
pub mod housekeeping;
pub mod job;
pub mod jobs;
pub mod scheduled;
mod undeclared;
