//! The way to a PostgreSQL server, against a real one.

mod configured;
mod connecting;
mod daemons;
mod failing_over;
mod support;
