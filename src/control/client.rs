//! The client of the API: one method a route, over the Unix socket or HTTP.

use super::address::Address;
use super::api::{
    CheckAnswer, CheckRequest, ConfigReport, DeliveryView, DiscoverAnswer, DiscoverRequest, Listing,
    PollAnswer, ProviderReport, ReloadAnswer, RetryAnswer, RetryDead, StatusReport, TestAnswer, TestRequest,
    TrackAnswer, TrackItem, TrackMany, WebhookReport,
};
use super::client_error::{ClientError, io_error, plain, reason, refusal};
use super::streams::{Body, Download, EventStream, Lines, Submitting};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::Method;
use http_body_util::BodyExt as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{RequestBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// A way to one daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    address: Address,
    base: String,
    token: Option<SecretString>,
}

/// Filters and paging of a list; keys may repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(&'static str, String)>);

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

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Tracks many: `POST /v1/batches/track`, an answer an item.
    pub async fn track_many(&self, items: &TrackMany) -> Result<Vec<TrackAnswer>, ClientError> {
        let request = self.to(Method::POST, &["v1", "batches", "track"]).timeout(LONG_TIMEOUT);
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
        let request = self.to(Method::PUT, &["v1", "batches", &item.id]).timeout(LONG_TIMEOUT);
        self.json(with_body(request, item)?).await
    }

    /// Stops watching: `DELETE /v1/batches/{id}`.
    pub async fn untrack(&self, id: &str, purge: bool) -> Result<Value, ClientError> {
        let query = if purge { Query::default().with("purge", "true") } else { Query::default() };
        self.json(self.to_query(Method::DELETE, &["v1", "batches", id], &query)).await
    }

    pub async fn batches(&self, query: &Query) -> Result<Listing<Value>, ClientError> {
        self.json(self.to_query(Method::GET, &["v1", "batches"], query)).await
    }

    /// A tracked batch; `detail`: with its transitions, deliveries and schedule.
    pub async fn batch(&self, id: &str, detail: bool) -> Result<Value, ClientError> {
        let query = if detail { Query::default().with("detail", "true") } else { Query::default() };
        self.json(self.to_query(Method::GET, &["v1", "batches", id], &query)).await
    }

    /// Checks a batch, tracked or not.
    pub async fn fetch(&self, id: &str, provider: Option<&str>) -> Result<Value, ClientError> {
        let mut query = Query::default().with("fetch", "true");
        if let Some(provider) = provider {
            query = query.with("provider", provider);
        }
        self.json(self.to_query(Method::GET, &["v1", "batches", id], &query).timeout(LONG_TIMEOUT)).await
    }

    pub async fn poll(&self, id: &str) -> Result<Value, ClientError> {
        self.json(self.to(Method::POST, &["v1", "batches", id, "poll"]).timeout(LONG_TIMEOUT)).await
    }

    /// Asks the provider to cancel a batch.
    pub async fn cancel(&self, id: &str) -> Result<Value, ClientError> {
        self.json(self.to(Method::POST, &["v1", "batches", id, "cancel"]).timeout(LONG_TIMEOUT)).await
    }

    /// Submits the requests of an ended batch that did not succeed: `POST /v1/batches/{id}/resubmit`.
    pub async fn resubmit(
        &self,
        id: &str,
        query: &Query,
        input: Option<BoxStream<'static, std::io::Result<Bytes>>>,
    ) -> Result<Value, ClientError> {
        let mut request = self.open(Method::POST, &["v1", "batches", id, "resubmit"], query);
        if let Some(input) = input {
            request = request.body(reqwest::Body::wrap_stream(input));
        }
        self.json(request).await
    }

    pub async fn discover(&self, request: &DiscoverRequest) -> Result<DiscoverAnswer, ClientError> {
        let post = self.to(Method::POST, &["v1", "discover"]).timeout(LONG_TIMEOUT);
        self.json(with_body(post, request)?).await
    }

    /// Submits a file, of `length` bytes where that is known: `POST /v1/submit`. The answer begins once the file was taken
    /// in.
    pub async fn submit(
        &self,
        query: &Query,
        file: BoxStream<'static, std::io::Result<Bytes>>,
        length: Option<u64>,
    ) -> Result<Submitting, ClientError> {
        let mut request =
            self.open(Method::POST, &["v1", "submit"], query).body(reqwest::Body::wrap_stream(file));
        if let Some(length) = length {
            request = request.header(http::header::CONTENT_LENGTH, length);
        }
        let response = self.send(request).await?;
        Ok(Submitting::new(body(response)))
    }

    /// The results of a batch that has ended, as JSON lines.
    pub async fn results(&self, id: &str, query: &Query) -> Result<Lines, ClientError> {
        // What can be wrong is known once the provider has begun to answer.
        let request = self
            .open(Method::GET, &["v1", "batches", id, "results"], query)
            .header(http::header::TE, "trailers");
        let response = self.within(LONG_TIMEOUT, self.send(request)).await?;
        Ok(Lines::new(body(response)))
    }

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
        let response = self.within(TIMEOUT, self.send(request)).await?;
        Ok(EventStream::new(body(response)))
    }

    pub async fn deliveries(&self, query: &Query) -> Result<Listing<DeliveryView>, ClientError> {
        self.json(self.to_query(Method::GET, &["v1", "deliveries"], query)).await
    }

    pub async fn retry_delivery(&self, id: &str) -> Result<Value, ClientError> {
        self.json(self.to(Method::POST, &["v1", "deliveries", id, "retry"])).await
    }

    /// Sends again what was given up.
    pub async fn retry_dead(&self, which: &RetryDead) -> Result<RetryAnswer, ClientError> {
        self.json(with_body(self.to(Method::POST, &["v1", "deliveries", "retry"]), which)?).await
    }

    pub async fn webhooks(&self) -> Result<Listing<WebhookReport>, ClientError> {
        self.json(self.to(Method::GET, &["v1", "webhooks"])).await
    }

    /// Sends a test event to a webhook and waits for its answer.
    pub async fn test_webhook(&self, name: &str, test: &TestRequest) -> Result<TestAnswer, ClientError> {
        let request = self.to(Method::POST, &["v1", "webhooks", name, "test"]).timeout(LONG_TIMEOUT);
        self.json(with_body(request, test)?).await
    }

    /// Switches a webhook on or off.
    pub async fn switch_webhook(&self, name: &str, on: bool) -> Result<WebhookReport, ClientError> {
        let verb = if on { "enable" } else { "disable" };
        self.json(self.to(Method::POST, &["v1", "webhooks", name, verb])).await
    }

    pub async fn providers(&self) -> Result<Listing<ProviderReport>, ClientError> {
        self.json(self.to(Method::GET, &["v1", "providers"])).await
    }

    /// A live call to one provider or to each.
    pub async fn check_providers(&self, which: &CheckRequest) -> Result<Listing<CheckAnswer>, ClientError> {
        let request = self.to(Method::POST, &["v1", "providers", "check"]).timeout(LONG_TIMEOUT);
        self.json(with_body(request, which)?).await
    }

    pub async fn status(&self) -> Result<StatusReport, ClientError> {
        self.json(self.to(Method::GET, &["v1", "status"])).await
    }

    /// What is in force; it has little time, for it is only asked beside something else.
    pub async fn config(&self) -> Result<ConfigReport, ClientError> {
        self.json(self.to(Method::GET, &["v1", "config"]).timeout(RELOAD_TIMEOUT)).await
    }

    /// Has the daemon read its configuration again; it has ten seconds, so that `systemctl reload` cannot hang.
    pub async fn reload(&self) -> Result<ReloadAnswer, ClientError> {
        self.json(self.to(Method::POST, &["v1", "reload"]).timeout(RELOAD_TIMEOUT)).await
    }

    /// A consistent copy of the database.
    pub async fn backup(&self) -> Result<Download, ClientError> {
        // The copy is made before the first byte comes.
        let request = self.open(Method::GET, &["v1", "backup"], &Query::default());
        Ok(Download::new(body(self.within(LONG_TIMEOUT, self.send(request)).await?)))
    }

    fn to(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        self.to_query(method, segments, &Query::default())
    }

    fn to_query(&self, method: Method, segments: &[&str], query: &Query) -> RequestBuilder {
        self.open(method, segments, query).timeout(TIMEOUT)
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
            self.within(TIMEOUT, async { response.bytes().await.map_err(|error| self.failed(&error)) }).await;
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

impl Query {
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.0.push((key, value.into()));
        self
    }

    /// The value of the first pair with this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    }

    pub fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|(key, value)| ((*key).to_owned(), value.clone()))
    }

    /// The values of every pair with this key.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| *name == key).map(|(_, value)| value.as_str())
    }
}

fn body(response: Response) -> Body {
    let body = http::Response::from(response).into_body();
    body.map_err(|error| ClientError::Broken(reason(&error))).boxed_unsync()
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

/// Filters and ids as parameters: what is not plainly harmless is encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For what the daemon knows by itself.
const TIMEOUT: Duration = Duration::from_mins(1);
/// For what has to ask a provider or a receiver, or write 100,000 rows.
const LONG_TIMEOUT: Duration = Duration::from_mins(10);
const RELOAD_TIMEOUT: Duration = Duration::from_secs(10);

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
}
