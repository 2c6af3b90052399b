//! One integration binary: the parts of batchd together, from outside.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod sandbox;
mod sandbox_sdk;
