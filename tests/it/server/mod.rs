//! The way to a PostgreSQL server, against a real one.

mod at_once;
mod configured;
mod connecting;
mod daemons;
mod failing_over;
mod hearing;
mod sharing;
mod support;
