//! One request and what came back, as plain values: what sans-IO adapters build and read.

use super::failure::Failure;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// A request with the limits it is sent under. Its `Debug` shows no address and no header: both may be secrets.
#[derive(Clone)]
pub struct Call {
    pub request: http::Request<Bytes>,
    /// From the first byte out to the last byte in.
    pub timeout: Duration,
    /// How much of the answer's body is read.
    pub body_limit: BodyLimit,
}

/// Rides on a request without which something that was paid for would be lost, as an upload is without the creation of
/// its batch: it waits for its turn, however long that takes, and is not refused as one too many.
#[derive(Clone, Copy, Debug)]
pub struct Paid;

/// Rides on a request that may not leave any more once this says no: it is asked after the wait for its turn, right before
/// the request leaves.
#[derive(Clone)]
pub struct OnlyWhile(pub Arc<dyn Fn() -> bool + Send + Sync>);

impl std::fmt::Debug for OnlyWhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnlyWhile")
    }
}

/// What a call needs besides what is in it, to be added just before it leaves: it ends sooner than an adapter lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    Aws {
        /// The service's name in the signature, such as `bedrock`.
        service: &'static str,
        region: String,
    },
    Google,
}

/// The SHA-256 of a body that is sent as it is read, in hexadecimal digits: rides on a request whose signature covers it.
#[derive(Clone, Debug)]
pub struct BodyHash(pub String);

impl Call {
    /// Whether its signature covers the body, so that a body which is sent as it is read needs a [`BodyHash`].
    pub fn signs_body(&self) -> bool {
        matches!(self.grant(), Some(Grant::Aws { .. }))
            && self.request.headers().get(CONTENT_HASH).is_none_or(|hash| hash != UNSIGNED_PAYLOAD)
    }

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

/// A header with this value says that the body is not signed, because it is sent as it is read. Only S3 takes it.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// The header by which S3 is told the body's hash.
pub const CONTENT_HASH: &str = "x-amz-content-sha256";

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
    pub status: StatusCode,
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

/// A body that is read while it is sent, of any length.
pub struct Outgoing {
    /// How long it is, in bytes.
    pub length: u64,
    /// Its pieces. What goes wrong in reading them ends the request.
    pub pieces: BoxStream<'static, std::io::Result<Bytes>>,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("length", &self.length).finish_non_exhaustive()
    }
}

/// The beginning of an answer whose body is read piece by piece.
pub struct Incoming {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The body's pieces, as they come; a failure ends it.
    pub pieces: BoxStream<'static, Result<Bytes, Failure>>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Incoming {
    /// The next piece of the body; `None`: that was all.
    pub async fn piece(&mut self) -> Option<Result<Bytes, Failure>> {
        self.pieces.next().await
    }

    /// An answer with the beginning of the body, at most `most` bytes: for what is no success and short.
    pub async fn into_answer(mut self, most: usize) -> Answer {
        let mut body = bytes::BytesMut::new();
        let mut cut = false;
        while let Some(piece) = self.piece().await {
            let Ok(piece) = piece else {
                cut = true;
                break;
            };
            let room = most - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.len() > room {
                cut = true;
                break;
            }
        }
        Answer { status: self.status, headers: self.headers, body: body.freeze(), cut }
    }
}

impl From<Answer> for Incoming {
    fn from(answer: Answer) -> Self {
        let Answer { status, mut headers, body, .. } = answer;
        // As long as it is now: something may have been taken out of it, or left unread.
        if headers.contains_key(CONTENT_LENGTH) {
            headers.insert(CONTENT_LENGTH, body.len().into());
        }
        Self { status, headers, pieces: futures_util::stream::once(async move { Ok(body) }).boxed() }
    }
}
