//! Floor 4: housekeeping at set times.

pub mod cron;
pub mod jobs;
