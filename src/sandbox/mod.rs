//! A simulated provider service for `batchd sandbox`, `batchd demo` and tests: it speaks the batch APIs of OpenAI,
//! Anthropic, Gemini and Mistral over plain HTTP below one address, well enough for the vendors' own SDKs.
//!
//! # Addresses
//!
//! `base_url` is `http://ADDRESS/v1` for OpenAI, `http://ADDRESS` for Anthropic and Mistral and `http://ADDRESS/v1beta`
//! for Gemini (`docs/contract.md#the-sandbox`). Google's own SDK adds the version by itself and takes `http://ADDRESS`; `/v1` is Gemini's
//! when Google's headers or a `key` parameter come along. OpenAI and Mistral share `/v1/files`. Any key will do; one
//! must be there. Keys are neither kept nor logged, and all see the same batches.
//!
//! # How a batch ends
//!
//! Every request succeeds unless another end is asked for: by metadata `sandbox_outcome` (OpenAI, Mistral), or by a
//! word in the batch's display name (Gemini) or in a model's name (all four), as in `sandbox-partial`:
//!
//! | word | end |
//! |---|---|
//! | `succeeded` | completed, every request succeeds |
//! | `partial` | completed, about a fifth of the requests fails, at least one |
//! | `all_failed` | completed, every request fails |
//! | `failed` | the input does not pass validation; at Anthropic, where a batch cannot fail, `all_failed` |
//! | `expired` | the window closes when 60 % of the requests are done; at Gemini, which then has no results, none |
//! | `expired_empty` | the window closes before any request is done |
//! | `cancelled` | the provider cancels it when half of the requests are done |
//!
//! A request that no model would take (no `messages`, no `max_tokens` at Anthropic, …) fails whatever the end, and
//! lines that are not what the API asks for fail the batch (at Anthropic, the call).
//!
//! # Time
//!
//! At speed 1 a batch lives for 5 to 25 minutes: some 10 s of validation, 4 to 20 minutes of work, 20 s to finish;
//! a cancellation takes 10 s. `sandbox_duration = "30s"` in the metadata, or `duration-30s` in a name, sets the time of
//! work. The speed divides all of it, and the completion window; what an API shows is always the real time. A batch
//! asked to expire has a window one and a half times the usual work, so that it ends soon too; any batch whose work
//! takes longer than its window expires as well.
//!
//! The life of a batch is a pure function of its plan and the time (`life.rs`): nothing ticks. Everything is in memory
//! and bounded; what does not fit is refused in the vendor's own words. Files and batches stay until they are deleted.
//!
//! # For tests
//!
//! - `GET /sandbox/requests` is a journal `{total, data: [{number, at, vendor, method, path, query, status}]}` of the
//!   last 10,000 requests, without keys; `DELETE` forgets it.
//! - `POST /sandbox/faults` `{"match": "/v1/batches", "method"?, "status"?: 503, "times"?: 1, "retry_after"?: 3 or a
//!   date, "retry_after_ms"?, "delay"?: "2s", "body"?}` lets the next requests whose path holds `match` fail or wait;
//!   `GET` lists the faults that wait, `DELETE` drops them.

mod answer;
mod anthropic;
mod batch;
mod chance;
mod control;
mod ending;
mod fields;
mod files;
mod gemini;
mod gemini_files;
mod input;
mod life;
mod memory;
mod middleware;
mod mistral;
mod newest_first;
mod openai;
mod plan;
mod refusal;
mod store;
mod vendor;
mod wire;

use crate::clock::Clock;
use crate::rng::Rng;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The simulated services. Cheap to clone; all clones are the same services.
#[derive(Clone, Debug)]
pub struct Sandbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: store::Store,
    control: control::Control,
    uploads: gemini_files::Uploads,
}

#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// How much faster time runs; 60 unless said otherwise.
    pub speed: Speed,
    /// The same seed gives the same ids, times and failing requests; a new one each time unless said otherwise.
    pub seed: u64,
    /// Whose time it is.
    pub clock: Clock,
    /// How many bytes of files and requests are kept at most; 512 MiB unless said otherwise.
    pub memory: usize,
    /// How many batches are kept at most; 10,000 unless said otherwise.
    pub batches: usize,
    /// How many requests of batches that have not ended a vendor takes at a time; no bound unless said otherwise.
    pub quota: Option<u64>,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            speed: Speed::default(),
            seed: Rng::system().bits(),
            clock: Clock::system(),
            memory: 512 * 1024 * 1024,
            batches: 10_000,
            quota: None,
        }
    }
}

/// How much faster than real time a sandbox runs: more than 0, at most a million.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed(f64);

impl Speed {
    /// `factor` times as fast.
    ///
    /// # Errors
    ///
    /// It is not a number above 0 up to a million.
    pub fn new(factor: f64) -> Result<Self, BadSpeed> {
        if factor > 0.0 && factor <= 1e6 { Ok(Self(factor)) } else { Err(BadSpeed(factor.to_string())) }
    }

    pub const fn factor(self) -> f64 {
        self.0
    }
}

impl Default for Speed {
    fn default() -> Self {
        Self(60.0)
    }
}

impl FromStr for Speed {
    type Err = BadSpeed;

    fn from_str(text: &str) -> Result<Self, BadSpeed> {
        text.parse().map_err(|_| BadSpeed(text.to_owned())).and_then(Self::new)
    }
}

impl std::fmt::Display for Speed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A text or number that is no speed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a speed; give a number above 0 and at most 1000000, such as 60")]
pub struct BadSpeed(String);

impl Sandbox {
    /// Services without a batch.
    pub fn new(options: &SandboxOptions) -> Self {
        Self(Arc::new(Inner {
            store: store::Store::new(options),
            control: control::Control::default(),
            uploads: gemini_files::Uploads::default(),
        }))
    }

    /// All four APIs and the sandbox's own pages.
    pub fn router(&self) -> Router {
        let routes = Router::new()
            .merge(openai::routes())
            .merge(files::routes())
            .merge(anthropic::routes())
            .merge(gemini::routes())
            .merge(gemini_files::routes())
            .merge(mistral::routes())
            .merge(control::routes())
            .fallback(middleware::unknown)
            .method_not_allowed_fallback(middleware::not_allowed)
            // What is kept is bounded as it is read, by `memory`.
            .layer(DefaultBodyLimit::disable())
            .with_state(self.clone());
        // The middleware stands outside so that it may change the address before it is routed.
        Router::new()
            .fallback_service(routes)
            .layer(axum::middleware::from_fn_with_state(self.clone(), middleware::handle))
    }

    /// Answers on `listener` until `shutdown`; then requests in flight have a moment to end.
    ///
    /// # Errors
    ///
    /// The listener's, if it fails for good.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> std::io::Result<()> {
        let server =
            axum::serve(listener, self.router()).with_graceful_shutdown(shutdown.clone().cancelled_owned());
        tokio::select! {
            ended = async { server.await } => ended,
            () = async {
                shutdown.cancelled().await;
                tokio::time::sleep(GRACE).await;
            } => Ok(()),
        }
    }

    fn store(&self) -> &store::Store {
        &self.0.store
    }

    fn control(&self) -> &control::Control {
        &self.0.control
    }

    fn uploads(&self) -> &gemini_files::Uploads {
        &self.0.uploads
    }
}

/// For requests in flight when the sandbox is told to stop.
const GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_number_above_zero() {
        assert_eq!("60".parse(), Ok(Speed::default()));
        assert_eq!("0.5".parse::<Speed>().unwrap().factor().to_bits(), 0.5_f64.to_bits());
        for bad in ["0", "-1", "inf", "NaN", "fast", "", "1e7"] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
    }
}
