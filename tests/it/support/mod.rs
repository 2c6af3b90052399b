//! What tests run beside batchd: a PostgreSQL cluster of their own, and a way to it that can be cut.

pub mod cluster;
pub mod postgres;
pub mod proxy;
