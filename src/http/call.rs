//! One request and what came back, as plain values: what sans-IO adapters build and read.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::time::Duration;

/// A request with the limits it is sent under. Its `Debug` shows no address and no header: both may be secrets.
#[derive(Clone)]
pub struct Call {
    /// What is sent.
    pub request: http::Request<Bytes>,
    /// From the first byte out to the last byte in.
    pub timeout: Duration,
    /// How much of the answer's body is read.
    pub body_limit: BodyLimit,
}

/// What a call needs besides what is in it, to be added just before it leaves: it ends sooner than an adapter lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// AWS's signature.
    Aws {
        /// The service's name in the signature, such as `bedrock`.
        service: &'static str,
        /// The region in it.
        region: String,
    },
    /// Google's OAuth access token.
    Google,
}

impl Call {
    /// With a need for `grant`, which rides on the request.
    #[must_use]
    pub fn granted(mut self, grant: Grant) -> Self {
        self.request.extensions_mut().insert(grant);
        self
    }

    /// What it needs besides what is in it, if anything.
    pub fn grant(&self) -> Option<&Grant> {
        self.request.extensions().get()
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("method", self.request.method())
            .field("timeout", &self.timeout)
            .field("body_limit", &self.body_limit)
            .finish_non_exhaustive()
    }
}

/// What happens to an answer that is longer than is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLimit {
    /// It is a failure: half a document is worth nothing.
    Whole(usize),
    /// The rest is left unread: only the beginning is of interest, and the status line decides.
    Beginning(usize),
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status line's code.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body, as far as the limit allowed.
    pub body: Bytes,
    /// Whether the body went on after that, or did not end in time.
    pub cut: bool,
}

impl Answer {
    /// A header field as text; `None` if it is absent or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
