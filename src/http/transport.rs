//! Sending one request: the trait that everything above sees, and the real thing over reqwest.

use super::call::{Answer, Call};
use super::failure::Failure;
use std::future::Future;
use std::pin::Pin;

/// A future that a trait object returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Sends one HTTP request and reads the answer. No retries, no redirects, no cookies.
pub trait Transport: Send + Sync + 'static {
    /// Sends `call` within its limits.
    ///
    /// Any status line is an answer; a [`Failure`] is what kept one from coming.
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>>;
}
