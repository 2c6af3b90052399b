//! One integration binary: the parts of batchd together, from outside.

mod sandbox;
mod sandbox_sdk;
