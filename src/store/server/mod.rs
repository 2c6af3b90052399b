//! The state on a PostgreSQL server: how it is reached, and what its errors mean.

pub mod connect;
pub mod examine;
pub mod refusal;
pub mod sqlstate;
mod trust;
