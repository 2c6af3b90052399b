//! The body of one long answer, taken up again where a connection breaks.

use crate::engine::Account;
use crate::http::call::{Answer, Call, Incoming};
use crate::http::failure::{Failure, Verdict};
use crate::provider::answer;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderValue, IF_RANGE, LOCATION, RANGE};
use http::{HeaderMap, Request, StatusCode};
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

/// Failures in a row, without a byte between them, after which another try is made.
const MAX_RETRIES: u32 = 4;
/// The first wait; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// No server's wish to wait is heeded beyond this: somebody is waiting for the results.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How much of a file is read at once.
const FILE_PIECE: usize = 256 * 1024;
/// How many bytes of an answer are read that is no success.
const MAX_REFUSAL: usize = 64 * 1024;

/// A body of any length.
pub(super) struct Body {
    source: Source,
    is_lines: bool,
}

enum Source {
    /// A file on this machine.
    File(tokio::fs::File),
    Wire(Box<Wire>),
}

struct Wire {
    request: Request<Bytes>,
    timeout: Duration,
    incoming: Incoming,
    /// Bytes that were given.
    offset: u64,
    /// Bytes to pass over: the server began anew.
    skip: u64,
    /// What tells that the content is still the same.
    tag: Option<HeaderValue>,
    /// How long the whole is, where the server says.
    length: Option<u64>,
    failures: u32,
}

impl Body {
    /// The body of the answer to `call`, once it has begun well.
    pub(super) async fn open(account: &Account, call: Call, is_lines: bool) -> Result<Self, Failure> {
        let (request, timeout) = (call.request, call.timeout);
        let mut failures = 0;
        let incoming = loop {
            match begin(account, &request, timeout, None).await {
                Ok(incoming) => break incoming,
                Err(failure) => wait_after(failure, &mut failures).await?,
            }
        };
        let header = |name| incoming.headers.get(name).cloned();
        let length = header(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        // A weak tag does not promise the same bytes.
        let tag = header(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
        let wire = Wire { request, timeout, incoming, offset: 0, skip: 0, tag, length, failures: 0 };
        Ok(Self { source: Source::Wire(Box::new(wire)), is_lines })
    }

    /// The lines of a file on this machine.
    pub(super) async fn of_file(path: &Path) -> std::io::Result<Self> {
        Ok(Self { source: Source::File(tokio::fs::File::open(path).await?), is_lines: true })
    }

    /// Whether the bytes are lines, one record each.
    pub(super) fn is_lines(&self) -> bool {
        self.is_lines
    }

    /// The next piece; `None`: that was all.
    pub(super) async fn next(&mut self, account: &Account) -> Option<Result<Bytes, Failure>> {
        match &mut self.source {
            Source::File(file) => {
                let mut piece = BytesMut::with_capacity(FILE_PIECE);
                match file.read_buf(&mut piece).await {
                    Ok(0) => None,
                    Ok(_) => Some(Ok(piece.freeze())),
                    Err(error) => Some(Err(Failure::Malformed(format!("the copy cannot be read: {error}")))),
                }
            }
            Source::Wire(wire) => wire.next(account).await,
        }
    }
}

impl Wire {
    async fn next(&mut self, account: &Account) -> Option<Result<Bytes, Failure>> {
        loop {
            match self.incoming.piece().await {
                Some(Ok(piece)) => {
                    let passed = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
                    self.skip -= passed as u64;
                    if passed < piece.len() {
                        self.failures = 0;
                        self.offset += (piece.len() - passed) as u64;
                        return Some(Ok(piece.slice(passed..)));
                    }
                }
                None if self.length.is_none_or(|length| self.offset >= length) => return None,
                broken => {
                    let failure = broken.and_then(Result::err).unwrap_or(Failure::Reset);
                    if let Err(failure) = self.resume(account, failure).await {
                        return Some(Err(failure));
                    }
                }
            }
        }
    }

    async fn resume(&mut self, account: &Account, failure: Failure) -> Result<(), Failure> {
        let mut failure = failure;
        loop {
            tracing::debug!(offset = self.offset, "fetching results was interrupted, resuming: {failure}");
            wait_after(failure, &mut self.failures).await?;
            match begin(account, &self.request, self.timeout, Some((self.offset, self.tag.as_ref()))).await {
                Ok(incoming) => {
                    self.skip =
                        match incoming.status {
                            StatusCode::PARTIAL_CONTENT if starts_at(&incoming.headers, self.offset) => 0,
                            StatusCode::PARTIAL_CONTENT => return Err(Failure::Malformed(
                                "the server goes on elsewhere than it was asked to; fetch the results again"
                                    .to_owned(),
                            )),
                            // The server knows no ranges, or has another edition: the same file is passed over.
                            _ => self.offset,
                        };
                    let tag = incoming.headers.get(ETAG);
                    if self.skip > 0 && self.tag.is_some() && tag != self.tag.as_ref() {
                        return Err(Failure::Malformed(
                            "the results changed while they were fetched; fetch them again".to_owned(),
                        ));
                    }
                    self.incoming = incoming;
                    return Ok(());
                }
                Err(again) => failure = again,
            }
        }
    }
}

/// Sends a short request, trying again while somebody waits for the results.
pub(super) async fn send_with_retries(account: &Account, call: Call) -> Result<Answer, Failure> {
    let Call { request, timeout, body_limit } = call;
    let mut failures = 0;
    loop {
        let call = Call { request: request.clone(), timeout, body_limit };
        let failure = match account.send(call).await {
            Ok(answer) if answer.status.is_server_error() || answer.status.as_u16() == 429 => {
                answer::refusal(&answer)
            }
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        wait_after(failure, &mut failures).await?;
    }
}

/// Opens the answer; what is no success is the failure that it tells.
async fn begin(
    account: &Account,
    request: &Request<Bytes>,
    timeout: Duration,
    from: Option<(u64, Option<&HeaderValue>)>,
) -> Result<Incoming, Failure> {
    let mut request = request.clone();
    if let Some((offset, tag)) = from {
        let headers = request.headers_mut();
        if let Ok(range) = HeaderValue::try_from(format!("bytes={offset}-")) {
            headers.insert(RANGE, range);
        }
        if let Some(tag) = tag {
            headers.insert(IF_RANGE, tag.clone());
        }
    }
    let call = Call { request, timeout, body_limit: crate::http::call::BodyLimit::Beginning(MAX_REFUSAL) };
    let incoming = account.open(call).await?;
    if incoming.status.is_success() {
        return Ok(incoming);
    }
    if incoming.status.is_redirection() {
        return Err(Failure::from_status(incoming.status, &incoming.headers, Some(redirect(&incoming))));
    }
    Err(answer::refusal(&incoming.into_answer(MAX_REFUSAL).await))
}

/// Where an answer sends on to: its host and no more, since the rest may be a secret.
fn redirect(incoming: &Incoming) -> String {
    let location = incoming.headers.get(LOCATION).and_then(|location| location.to_str().ok());
    let host = location.and_then(|location| {
        let location: http::Uri = location.parse().ok()?;
        location.authority().map(|authority| authority.host().to_owned())
    });
    let to = host.map_or_else(String::new, |host| format!(" to {host}"));
    format!("it redirects{to}, and no key is sent on to another place; check `base_url`")
}

/// Waits before the next try, or gives the failure back if that would not help.
async fn wait_after(failure: Failure, failures: &mut u32) -> Result<(), Failure> {
    let retry_after = match failure.verdict() {
        Verdict::Again if is_passing(&failure) => None,
        Verdict::Hold(retry_after) => retry_after,
        _ => return Err(failure),
    };
    if *failures >= MAX_RETRIES {
        return Err(failure);
    }
    let wait = retry_after.unwrap_or(FIRST_WAIT * 2_u32.saturating_pow(*failures)).min(MAX_WAIT);
    *failures += 1;
    tokio::time::sleep(wait).await;
    Ok(())
}

/// Whether another try may go better.
fn is_passing(failure: &Failure) -> bool {
    match failure {
        Failure::Status { status, .. } => status.is_server_error() || matches!(status.as_u16(), 408 | 409),
        Failure::Dns(_)
        | Failure::ConnectRefused
        | Failure::ConnectTimeout
        | Failure::Connect(_)
        | Failure::NoDescriptors
        | Failure::Reset
        | Failure::Timeout(_) => true,
        _ => false,
    }
}

/// Whether a partial answer begins where it was asked to.
fn starts_at(headers: &HeaderMap, offset: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}
