//! The long answers of the API, as the client reads them: events, progress, results and copies of the state.

use super::api::trailer;
use super::client_error::ClientError;
use super::event_stream::{Message, Parser};
use crate::domain::outcome::Outcome;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use serde_json::Value;
use std::collections::VecDeque;
use std::time::Duration;

/// The body of an answer, piece by piece.
pub(super) type Body = UnsyncBoxBody<Bytes, ClientError>;

/// A live stream of the event log.
#[derive(Debug)]
pub struct EventStream {
    body: Body,
    parser: Parser,
    ready: VecDeque<Message>,
}

/// The answer to a submission, line by line.
#[derive(Debug)]
pub struct Submitting {
    body: Body,
    unread: BytesMut,
}

/// The bytes of a long answer, as they come.
#[derive(Debug)]
pub struct Download(Body);

/// Results as they come, with what stands behind them.
#[derive(Debug)]
pub struct Lines {
    body: Body,
    /// How many lines there were, as the daemon counts them; known at the end.
    pub lines: u64,
    /// Of those, lines of requests that did not succeed, where that was counted; known at the end.
    pub failed: Option<u64>,
    /// Lines that nobody can read; known at the end.
    pub unreadable: u64,
    /// Lines that do not tell which request they belong to; known at the end.
    pub without_id: u64,
    /// How the batch ended, where the daemon says so; known at the end.
    pub outcome: Option<Outcome>,
}

impl EventStream {
    pub(super) fn new(body: Body) -> Self {
        Self { body, parser: Parser::default(), ready: VecDeque::new() }
    }

    /// The next message; `None` when the daemon has closed the stream.
    ///
    /// Nothing is lost if the future is dropped. A stream that is silent for 90 s counts as broken.
    pub async fn next(&mut self) -> Option<Result<Message, ClientError>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(Ok(message));
            }
            match within(IDLE_TIMEOUT, bytes(&mut self.body)).await {
                Ok(Some(bytes)) => self.ready.extend(self.parser.push(&bytes)),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Submitting {
    pub(super) fn new(body: Body) -> Self {
        Self { body, unread: BytesMut::new() }
    }

    /// The next line; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line = self.unread.split_to(end + 1);
                let line = serde_json::from_slice(&line);
                return line.map(Some).map_err(|error| ClientError::Malformed(error.to_string()));
            }
            match bytes(&mut self.body).await? {
                Some(bytes) => self.unread.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}

impl Download {
    pub(super) fn new(body: Body) -> Self {
        Self(body)
    }

    /// The next bytes; `None` at the end. A body that is cut short is an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        within(IDLE_TIMEOUT, bytes(&mut self.0)).await
    }
}

impl Lines {
    pub(super) fn new(body: Body) -> Self {
        Self { body, lines: 0, failed: None, unreadable: 0, without_id: 0, outcome: None }
    }

    /// The next bytes; `None` at the end. Results that end early are the error that the daemon reports.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = within(RESULTS_TIMEOUT, async { self.body.frame().await.transpose() }).await?;
            let Some(frame) = frame else { return Ok(None) };
            match frame.into_data() {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(frame) => {
                    if let Ok(fields) = frame.into_trailers() {
                        self.ended(&fields)?;
                    }
                }
            }
        }
    }

    fn ended(&mut self, fields: &http::HeaderMap) -> Result<(), ClientError> {
        if let Some(error) = fields.get(trailer::ERROR) {
            let error = serde_json::from_slice(error.as_bytes())
                .map_err(|error| ClientError::Malformed(error.to_string()))?;
            return Err(ClientError::Refused(Box::new(error)));
        }
        let count = |name| fields.get(name)?.to_str().ok()?.parse().ok();
        self.lines = count(trailer::LINES).unwrap_or_default();
        self.failed = count(trailer::FAILED);
        self.unreadable = count(trailer::UNREADABLE).unwrap_or_default();
        self.without_id = count(trailer::WITHOUT_ID).unwrap_or_default();
        let outcome = fields.get(trailer::OUTCOME).and_then(|word| word.to_str().ok());
        self.outcome = outcome.and_then(|word| serde_json::from_value(word.into()).ok());
        Ok(())
    }
}

/// The next bytes of a body; `None` at its end.
async fn bytes(body: &mut Body) -> Result<Option<Bytes>, ClientError> {
    while let Some(frame) = body.frame().await {
        if let Ok(bytes) = frame?.into_data() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let silence = || Err(ClientError::Broken("silence".to_owned()));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| silence())
}

/// A live stream sends at least a comment more often than this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// A provider may take this long for the next piece of its results.
const RESULTS_TIMEOUT: Duration = Duration::from_mins(10);
