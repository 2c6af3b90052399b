//! Floor 0: values and rules. No I/O, no async, no clock, no randomness.

pub mod batch;
pub mod calendar;
pub mod digest;
pub mod discovery;
pub mod download;
pub mod duration;
pub mod event;
pub mod finding;
pub mod hazard;
pub mod history;
pub mod outcome;
pub mod outlook;
pub mod pace;
pub mod progress;
pub mod retry;
pub mod rounds;
pub mod route;
pub mod schedule;
pub mod shape;
pub mod sighting;
pub mod status;
pub mod time;
pub mod tracked;
pub mod transition;
pub mod walk;
