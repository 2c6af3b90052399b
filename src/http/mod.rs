//! Floor 1: HTTP, narrowed to what a daemon may do with it.

pub mod address;
pub mod allowance;
pub mod authorize;
pub mod call;
pub mod descriptors;
pub mod egress;
mod encoding;
mod escapes;
pub mod failure;
mod io_thread;
pub mod limits;
pub mod memory;
pub mod own_certificate;
pub mod scrub;
pub mod scrubbed;
pub mod transport;
