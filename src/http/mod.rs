//! Floor 1: HTTP, narrowed to what a daemon may do with it.

pub mod call;
pub mod failure;
pub mod limits;
pub mod transport;
