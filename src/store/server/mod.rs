//! The state on a PostgreSQL server: how it is reached, and what its errors mean.

pub mod connect;
mod copying;
mod dialect;
pub mod examine;
pub mod leases;
mod member;
mod migrate;
pub mod moving;
pub mod opening;
mod parameter;
pub mod refusal;
pub mod session;
pub mod sqlstate;
mod steps;
mod trust;
pub mod writer;
