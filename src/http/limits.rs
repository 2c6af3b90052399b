//! Bounds that hold for every request, whoever sends it.

use std::time::Duration;

/// To resolve the name, connect and shake hands.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Of one batch object or list page. Gemini puts whole inline results into its answer to `get`, so the cap is
/// generous; what is longer is a failure that says so.
pub const PROVIDER_BODY: usize = 32 * 1024 * 1024;

/// Of a provider's answer that is no success: enough for its words.
pub const REFUSAL_BODY: usize = 256 * 1024;

/// Of a receiver's answer (`docs/contract.md#deliveries`).
pub const RECEIVER_BODY: usize = 64 * 1024;

/// Of a receiver's answer, in the attempt's row.
pub const EXCERPT: usize = 2 * 1024;

pub const USER_AGENT: &str = concat!("batchd/", env!("CARGO_PKG_VERSION"));
