//! Floor 1: HTTP, narrowed to what a daemon may do with it.

pub mod address;
pub mod allowance;
pub mod authorize;
pub mod call;
pub mod descriptors;
pub mod egress;
mod encoding;
pub mod failure;
pub mod limits;
pub mod scrub;
pub mod transport;
