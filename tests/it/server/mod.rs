//! The way to a PostgreSQL server, against a real one.

mod connecting;
mod support;
