//! The client of the API: one method a route, over the Unix socket or HTTP.

use super::api::{
    CheckAnswer, CheckRequest, DeliveryView, DiscoverAnswer, DiscoverRequest, ErrorBody, ErrorCode,
    ErrorObject, Listing, PollAnswer, ProviderReport, ReloadAnswer, RetryAnswer, RetryDead, StatusReport,
    TestAnswer, TestRequest, TrackAnswer, TrackItem, TrackMany, WebhookReport, trailer,
};
use super::event_stream::{Message, Parser};
use crate::domain::outcome::Outcome;
use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use http::Method;
use http_body_util::BodyExt as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{RequestBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// `http://HOST:PORT` (or `https`, behind a proxy), no slash at the end.
    Http(String),
}

/// A way to one daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    address: Address,
    base: String,
    token: Option<SecretString>,
}

/// Why a request brought no answer that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no daemon answers at {address}: {reason}")]
    Unreachable {
        /// Where.
        address: Address,
        /// What the system says.
        reason: String,
    },
    /// The socket may not be opened by this user.
    #[error("the socket {} may not be opened by this user", .0.display())]
    Denied(PathBuf),
    /// No answer in time.
    #[error("the daemon at {0} does not answer in time")]
    Silent(Address),
    /// The connection broke within an answer.
    #[error("the connection to the daemon was lost: {0}")]
    Broken(String),
    /// What came is not what this version of batchd understands.
    #[error("the daemon's answer makes no sense: {0}")]
    Malformed(String),
    /// The client could not be made.
    #[error("the connection cannot be prepared: {0}")]
    Unprepared(String),
    /// The daemon says no.
    #[error("{}", .0.message)]
    Refused(Box<ErrorObject>),
}

/// Filters and paging of a list; keys may repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(&'static str, String)>);

/// A live stream of the event log.
#[derive(Debug)]
pub struct EventStream {
    response: Response,
    parser: Parser,
    ready: VecDeque<Message>,
}

/// The answer to a submission, line by line.
#[derive(Debug)]
pub struct Submitting {
    response: Response,
    unread: BytesMut,
}

/// The bytes of a long answer, as they come.
#[derive(Debug)]
pub struct Download(Response);

/// Results as they come, with what stands behind them.
#[derive(Debug)]
pub struct Lines {
    body: reqwest::Body,
    /// How many lines there were, as the daemon counts them; known at the end.
    pub lines: u64,
    /// Of those, lines of requests that did not succeed, where somebody looked; known at the end.
    pub failed: Option<u64>,
    /// Lines that nobody can read; known at the end.
    pub unreadable: u64,
    /// Lines that do not tell which request they belong to; known at the end.
    pub without_id: u64,
    /// How the batch ended, where it is told; known at the end.
    pub outcome: Option<Outcome>,
}

impl Client {
    /// A client of the daemon at `address`; `token` is sent over HTTP only, a socket needs none.
    ///
    /// Nothing is sent yet.
    #[expect(
        clippy::disallowed_methods,
        reason = "redirects, proxies and TLS are set here for the API's client"
    )]
    pub fn new(address: Address, token: Option<SecretString>) -> Result<Self, ClientError> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("batchd/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT);
        let (builder, base, token) = match &address {
            Address::Unix(path) => {
                (without_tls(builder).unix_socket(path.as_path()), "http://localhost", None)
            }
            Address::Http(base) if base.starts_with("https:") => (builder, base.as_str(), token),
            Address::Http(base) => (without_tls(builder), base.as_str(), token),
        };
        let base = base.to_owned();
        let http = builder.build().map_err(|error| ClientError::Unprepared(reason(&error)))?;
        Ok(Self { http, address, base, token })
    }

    /// Where it sends to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Tracks many: `POST /v1/batches/track`, an answer an item.
    pub async fn track_many(&self, items: &TrackMany) -> Result<Vec<TrackAnswer>, ClientError> {
        let request = self.to(Method::POST, &["v1", "batches", "track"]).timeout(LONG);
        let answers: Listing<TrackAnswer> = self.json(with_body(request, items)?).await?;
        if answers.data.len() == items.items.len() {
            Ok(answers.data)
        } else {
            Err(ClientError::Malformed(format!(
                "{} answers to {} items",
                answers.data.len(),
                items.items.len()
            )))
        }
    }

    /// Tracks one: `PUT /v1/batches/{id}`.
    pub async fn track(&self, item: &TrackItem) -> Result<Value, ClientError> {
        let request = self.to(Method::PUT, &["v1", "batches", &item.id]).timeout(LONG);
        self.json(with_body(request, item)?).await
    }

    /// Stops watching: `DELETE /v1/batches/{id}`.
    pub async fn untrack(&self, id: &str, purge: bool) -> Result<Value, ClientError> {
        let query = if purge { Query::default().with("purge", "true") } else { Query::default() };
        self.json(self.to_query(Method::DELETE, &["v1", "batches", id], &query)).await
    }

    /// A page of tracked batches.
    pub async fn batches(&self, query: &Query) -> Result<Listing<Value>, ClientError> {
        self.json(self.to_query(Method::GET, &["v1", "batches"], query)).await
    }

    /// A tracked batch; `detail`: with its transitions, deliveries and schedule.
    pub async fn batch(&self, id: &str, detail: bool) -> Result<Value, ClientError> {
        let query = if detail { Query::default().with("detail", "true") } else { Query::default() };
        self.json(self.to_query(Method::GET, &["v1", "batches", id], &query)).await
    }

    /// A fresh look at a batch, tracked or not.
    pub async fn fetch(&self, id: &str, provider: Option<&str>) -> Result<Value, ClientError> {
        let mut query = Query::default().with("fetch", "true");
        if let Some(provider) = provider {
            query = query.with("provider", provider);
        }
        self.json(self.to_query(Method::GET, &["v1", "batches", id], &query).timeout(LONG)).await
    }

    /// Polls one batch now.
    pub async fn poll(&self, id: &str) -> Result<Value, ClientError> {
        self.json(self.to(Method::POST, &["v1", "batches", id, "poll"]).timeout(LONG)).await
    }

    /// Asks the provider to cancel a batch.
    pub async fn cancel(&self, id: &str) -> Result<Value, ClientError> {
        self.json(self.to(Method::POST, &["v1", "batches", id, "cancel"]).timeout(LONG)).await
    }

    /// What the providers' lists have.
    pub async fn discover(&self, request: &DiscoverRequest) -> Result<DiscoverAnswer, ClientError> {
        let post = self.to(Method::POST, &["v1", "discover"]).timeout(LONG);
        self.json(with_body(post, request)?).await
    }

    /// Submits a file: `POST /v1/submit`. The answer begins once the file was taken in.
    pub async fn submit(
        &self,
        query: &Query,
        file: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<Submitting, ClientError> {
        let request =
            self.open(Method::POST, &["v1", "submit"], query).body(reqwest::Body::wrap_stream(file));
        let response = self.send(request).await?;
        Ok(Submitting { response, unread: BytesMut::new() })
    }

    /// The results of a batch that has ended, as JSON lines.
    pub async fn results(&self, id: &str, query: &Query) -> Result<Lines, ClientError> {
        // What can be wrong is known once the provider has begun to answer.
        let request = self
            .open(Method::GET, &["v1", "batches", id, "results"], query)
            .header(http::header::TE, "trailers");
        let response = self.within(LONG, self.send(request)).await?;
        Ok(Lines {
            body: http::Response::from(response).into_body(),
            lines: 0,
            failed: None,
            unreadable: 0,
            without_id: 0,
            outcome: None,
        })
    }

    /// Polls every active batch now.
    pub async fn poll_all(&self) -> Result<PollAnswer, ClientError> {
        self.json(self.to(Method::POST, &["v1", "poll"])).await
    }

    /// A page of the event log, or of one batch's events.
    pub async fn events(&self, batch: Option<&str>, query: &Query) -> Result<Listing<Value>, ClientError> {
        let request = match batch {
            Some(id) => self.to_query(Method::GET, &["v1", "batches", id, "events"], query),
            None => self.to_query(Method::GET, &["v1", "events"], query),
        };
        self.json(request).await
    }

    /// The event log from behind `after` on, live.
    pub async fn event_stream(&self, after: i64) -> Result<EventStream, ClientError> {
        let query = Query::default().with("after", after.to_string());
        let request = self
            .open(Method::GET, &["v1", "events"], &query)
            .header(http::header::ACCEPT, "text/event-stream")
            .header("last-event-id", after.to_string());
        // The whole never ends; only its beginning has a time limit.
        let response = self.within(SHORT, self.send(request)).await?;
        Ok(EventStream { response, parser: Parser::default(), ready: VecDeque::new() })
    }

    /// A page of the outbox.
    pub async fn deliveries(&self, query: &Query) -> Result<Listing<DeliveryView>, ClientError> {
        self.json(self.to_query(Method::GET, &["v1", "deliveries"], query)).await
    }

    /// Sends one delivery again.
    pub async fn retry_delivery(&self, id: &str) -> Result<Value, ClientError> {
        self.json(self.to(Method::POST, &["v1", "deliveries", id, "retry"])).await
    }

    /// Sends again what was given up.
    pub async fn retry_dead(&self, which: &RetryDead) -> Result<RetryAnswer, ClientError> {
        self.json(with_body(self.to(Method::POST, &["v1", "deliveries", "retry"]), which)?).await
    }

    /// Every webhook and its health.
    pub async fn webhooks(&self) -> Result<Listing<WebhookReport>, ClientError> {
        self.json(self.to(Method::GET, &["v1", "webhooks"])).await
    }

    /// Sends a test event to a webhook and waits for its answer.
    pub async fn test_webhook(&self, name: &str, test: &TestRequest) -> Result<TestAnswer, ClientError> {
        let request = self.to(Method::POST, &["v1", "webhooks", name, "test"]).timeout(LONG);
        self.json(with_body(request, test)?).await
    }

    /// Switches a webhook on or off.
    pub async fn switch_webhook(&self, name: &str, on: bool) -> Result<WebhookReport, ClientError> {
        let verb = if on { "enable" } else { "disable" };
        self.json(self.to(Method::POST, &["v1", "webhooks", name, verb])).await
    }

    /// Every provider and its health.
    pub async fn providers(&self) -> Result<Listing<ProviderReport>, ClientError> {
        self.json(self.to(Method::GET, &["v1", "providers"])).await
    }

    /// A live call to one provider or to each.
    pub async fn check_providers(&self, which: &CheckRequest) -> Result<Listing<CheckAnswer>, ClientError> {
        let request = self.to(Method::POST, &["v1", "providers", "check"]).timeout(LONG);
        self.json(with_body(request, which)?).await
    }

    /// The daemon's health.
    pub async fn status(&self) -> Result<StatusReport, ClientError> {
        self.json(self.to(Method::GET, &["v1", "status"])).await
    }

    /// Has the daemon read its configuration again; it has ten seconds, so that `systemctl reload` cannot hang.
    pub async fn reload(&self) -> Result<ReloadAnswer, ClientError> {
        self.json(self.to(Method::POST, &["v1", "reload"]).timeout(RELOAD)).await
    }

    /// A consistent copy of the database.
    pub async fn backup(&self) -> Result<Download, ClientError> {
        // The copy is made before the first byte comes.
        let request = self.open(Method::GET, &["v1", "backup"], &Query::default());
        Ok(Download(self.within(LONG, self.send(request)).await?))
    }

    fn to(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        self.to_query(method, segments, &Query::default())
    }

    fn to_query(&self, method: Method, segments: &[&str], query: &Query) -> RequestBuilder {
        self.open(method, segments, query).timeout(SHORT)
    }

    /// A request without a time limit for the whole of its answer.
    fn open(&self, method: Method, segments: &[&str], query: &Query) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{}", self.base, target(segments, query)));
        match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        let body = response.bytes().await.map_err(|error| self.failed(&error))?;
        // DELETE and the like may answer with nothing.
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(body).map_err(|error| ClientError::Malformed(error.to_string()))
    }

    /// Sends `request`; an answer that is not a success is the error it holds.
    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.failed(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body =
            self.within(SHORT, async { response.bytes().await.map_err(|error| self.failed(&error)) }).await;
        Err(ClientError::Refused(Box::new(refusal(status, &body.unwrap_or_default()))))
    }

    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        tokio::time::timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(ClientError::Silent(self.address.clone())))
    }

    /// What kept an answer from coming, without reqwest's URL.
    fn failed(&self, error: &reqwest::Error) -> ClientError {
        let io = io_error(error);
        let denied = io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied);
        match &self.address {
            Address::Unix(path) if denied => ClientError::Denied(path.clone()),
            address if error.is_connect() => {
                let reason = io.map_or_else(|| reason(error), plain);
                ClientError::Unreachable { address: address.clone(), reason }
            }
            address if error.is_timeout() => ClientError::Silent(address.clone()),
            _ => ClientError::Broken(reason(error)),
        }
    }
}

impl ClientError {
    /// Whether the daemon is away, or on its way out or in: what somebody who waits for it sits out.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent(_) | Self::Broken(_) => true,
            Self::Refused(error) => error.code == Some(ErrorCode::Unavailable),
            Self::Denied(_) | Self::Malformed(_) | Self::Unprepared(_) => false,
        }
    }

    /// The code of a refusal.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => error.code,
            _ => None,
        }
    }
}

impl Query {
    /// With one more pair.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.0.push((key, value.into()));
        self
    }

    /// The value of the first pair with this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    }

    /// Every pair.
    pub fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|(key, value)| ((*key).to_owned(), value.clone()))
    }

    /// The values of every pair with this key.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| *name == key).map(|(_, value)| value.as_str())
    }
}

impl EventStream {
    /// The next message; `None` when the daemon has closed the stream.
    ///
    /// Nothing is lost if the future is dropped. A stream that says nothing at all for 90 s counts as broken.
    pub async fn next(&mut self) -> Option<Result<Message, ClientError>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(Ok(message));
            }
            match tokio::time::timeout(IDLE, self.response.chunk()).await {
                Ok(Ok(Some(bytes))) => self.ready.extend(self.parser.push(&bytes)),
                Ok(Ok(None)) => return None,
                Ok(Err(error)) => return Some(Err(ClientError::Broken(reason(&error)))),
                Err(_) => return Some(Err(ClientError::Broken("silence".to_owned()))),
            }
        }
    }
}

impl Submitting {
    /// The next line; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line = self.unread.split_to(end + 1);
                let line = serde_json::from_slice(&line);
                return line.map(Some).map_err(|error| ClientError::Malformed(error.to_string()));
            }
            match self.response.chunk().await {
                Ok(Some(bytes)) => self.unread.extend_from_slice(&bytes),
                Ok(None) => return Ok(None),
                Err(error) => return Err(ClientError::Broken(reason(&error))),
            }
        }
    }
}

impl Download {
    /// The next bytes; `None` at the end. A body that is cut short is an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        match tokio::time::timeout(IDLE, self.0.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| ClientError::Broken(reason(&error))),
            Err(_) => Err(ClientError::Broken("silence".to_owned())),
        }
    }

    /// How many bytes there will be, if the daemon says so.
    pub fn length(&self) -> Option<u64> {
        self.0.content_length()
    }
}

impl Lines {
    /// The next bytes; `None` at the end. Results that end early are the error that the daemon tells.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = match tokio::time::timeout(LONG, self.body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(ClientError::Broken(reason(&error))),
                Ok(None) => return Ok(None),
                Err(_) => return Err(ClientError::Broken("silence".to_owned())),
            };
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

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Http(base) => f.write_str(base),
        }
    }
}

impl std::str::FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |what| BadAddress { text: text.to_owned(), what };
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Unix(PathBuf::from(path)))
            } else {
                Err(bad("the path of a socket is absolute"))
            };
        }
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Err(bad("it has no scheme that batchd knows"));
        }
        let url = reqwest::Url::parse(text).map_err(|_| bad("it is not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            // Repeating it would show the password.
            return Err(BadAddress {
                text: "the address".to_owned(),
                what: "it holds a password; a token goes into BATCHD_TOKEN",
            });
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("nothing may follow the path"));
        }
        Ok(Self::Http(url.as_str().trim_end_matches('/').to_owned()))
    }
}

/// A text that is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} cannot be used: {what}; write unix:///PATH or http://HOST:PORT")]
pub struct BadAddress {
    text: String,
    what: &'static str,
}

/// No certificates are loaded where none are needed: a machine may have none, and reading them takes time.
fn without_tls(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    builder.tls_certs_only(std::iter::empty())
}

fn with_body(request: RequestBuilder, body: &impl Serialize) -> Result<RequestBuilder, ClientError> {
    let body = serde_json::to_vec(body).map_err(|error| ClientError::Unprepared(error.to_string()))?;
    Ok(request.header(http::header::CONTENT_TYPE, "application/json").body(body))
}

/// The request target: each segment and value percent-encoded, so that an id may hold slashes.
fn target(segments: &[&str], query: &Query) -> String {
    let mut target = String::new();
    for segment in segments {
        target.push('/');
        target.extend(utf8_percent_encode(segment, RESERVED));
    }
    for (number, (key, value)) in query.0.iter().enumerate() {
        target.push(if number == 0 { '?' } else { '&' });
        target.push_str(key);
        target.push('=');
        target.extend(utf8_percent_encode(value, RESERVED));
    }
    target
}

/// The error that an answer holds, or what its status line means if it holds none.
fn refusal(status: http::StatusCode, body: &[u8]) -> ErrorObject {
    if let Ok(body) = serde_json::from_slice::<ErrorBody>(body) {
        let mut error = body.error;
        error.code = error.code.or(Some(code_of(status)));
        return error;
    }
    ErrorObject {
        message: format!("the daemon answered {status}"),
        kind: "api_error".to_owned(),
        param: None,
        code: Some(code_of(status)),
        hints: Vec::new(),
    }
}

fn code_of(status: http::StatusCode) -> ErrorCode {
    match status.as_u16() {
        400 => ErrorCode::InvalidRequest,
        401 => ErrorCode::Unauthorized,
        403 => ErrorCode::Forbidden,
        404 => ErrorCode::NotFound,
        421 => ErrorCode::Misdirected,
        500 => ErrorCode::Internal,
        501 => ErrorCode::NotSupported,
        503 => ErrorCode::Unavailable,
        _ => ErrorCode::Other,
    }
}

fn io_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

/// The innermost reason: reqwest's own text would repeat the URL.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    match io_error(error) {
        Some(io) => plain(io),
        None => std::iter::successors(Some(error), |error| error.source())
            .last()
            .map_or_else(String::new, ToString::to_string),
    }
}

/// An operating system's reason in a few words.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such socket".to_owned(),
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::WouldBlock => "too many clients are waiting".to_owned(),
        _ => error.to_string(),
    }
}

/// Filters and ids as parameters: what is not plainly harmless is encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For what the daemon knows by itself.
const SHORT: Duration = Duration::from_mins(1);
/// For what has to ask a provider or a receiver, or write 100,000 rows.
const LONG: Duration = Duration::from_mins(10);
const RELOAD: Duration = Duration::from_secs(10);
/// A live stream sends at least a comment more often than this.
const IDLE: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_with_slashes_and_colons_stay_one_segment() {
        let query = Query::default().with("label", "team=a&b").with("label", "x=1");
        assert_eq!(
            target(&["v1", "batches", "gemini:batches/a b", "poll"], &query),
            "/v1/batches/gemini%3Abatches%2Fa%20b/poll?label=team%3Da%26b&label=x%3D1"
        );
    }

    #[test]
    fn addresses_are_read_and_shown_again() {
        for text in ["unix:///run/batchd/batchd.sock", "http://127.0.0.1:8765", "https://batchd.example.com"]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("http://h:1/".parse::<Address>().unwrap().to_string(), "http://h:1");
        for bad in ["", "/run/x", "unix://run/x", "ftp://h", "127.0.0.1:80", "http://", "http://h?x=1"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        let error = "http://u:hunter2@h".parse::<Address>().unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn an_answer_without_an_error_object_is_judged_by_its_status() {
        let error = refusal(http::StatusCode::UNAUTHORIZED, b"<html>");
        assert_eq!(error.code, Some(ErrorCode::Unauthorized));
        assert_eq!(error.message, "the daemon answered 401 Unauthorized");
        let body = br#"{"error":{"message":"m","type":"t","param":null,"code":"of_a_later_version"}}"#;
        let error = refusal(http::StatusCode::CONFLICT, body);
        assert_eq!((error.code, error.message.as_str()), (Some(ErrorCode::Other), "m"));
    }
}
