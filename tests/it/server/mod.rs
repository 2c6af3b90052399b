//! The way to a PostgreSQL server, against a real one.

mod configured;
mod connecting;
mod daemons;
mod sharing;
mod support;
