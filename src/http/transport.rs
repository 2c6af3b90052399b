//! Sending one request: the trait that everything above sees, and the real thing over reqwest.

use super::call::{Answer, BodyLimit, Call, Incoming, Outgoing};
use super::descriptors::{self, Share};
use super::egress::{Guard, GuardedResolver, Lookup, Unresolved, system_lookup};
use super::encoding::{self, Coding, Unpacker};
use super::failure::Failure;
use super::io_thread::{self, IoThread};
use super::memory::{self, Turn};
use super::{limits, own_certificate};
use crate::clock::Clock;
use crate::config::Proxy;
use crate::sync::lock;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderValue};
use jiff::fmt::rfc2822::DateTimePrinter;
use nix::time::{ClockId, clock_gettime};
use secrecy::ExposeSecret;
use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Sends one HTTP request and reads the answer. No retries, no redirects, no cookies.
pub trait Transport: Send + Sync + 'static {
    /// Sends `call` within its limits.
    ///
    /// Any status line is an answer; a [`Failure`] is what kept one from coming.
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>>;

    /// Sends `call` with `body` in place of its own. The call's timeout bounds each wait: for the body to be taken on,
    /// piece by piece, and for the answer after that; not the whole.
    fn upload(&self, call: Call, body: Outgoing) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            let mut whole = BytesMut::new();
            let mut pieces = body.pieces;
            while let Some(piece) = pieces.next().await {
                whole.extend_from_slice(&piece.map_err(|error| unreadable(&error))?);
            }
            let mut call = call;
            *call.request.body_mut() = whole.freeze();
            self.send(call).await
        })
    }

    /// Sends `call` and gives the answer as soon as it begins. The call's timeout bounds the wait for the beginning and
    /// for each piece; its limit for the body does not count.
    fn open(&self, call: Call) -> BoxFuture<'_, Result<Incoming, Failure>> {
        Box::pin(async move { Ok(self.send(call).await?.into()) })
    }
}

/// What a client is built from; each provider and each webhook has its own.
#[derive(Clone, Debug)]
pub struct TransportConfig<'a> {
    /// How requests leave.
    pub proxy: &'a Proxy,
    /// Further certificate authorities, PEM, besides the platform's.
    pub ca_files: Vec<PathBuf>,
    pub insecure_skip_verify: bool,
    pub guard: Guard,
    /// Whose descriptors it uses.
    pub share: Share,
}

/// Why a client cannot be built. The texts hold no URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportProblem {
    /// A file of certificates is missing or is none.
    #[error("cannot read certificates from {}: {what}", path.display())]
    CaFile { path: PathBuf, what: String },
    #[error("the proxy's URL cannot be read; write it like \"http://proxy.example.com:3128\"")]
    Proxy,
    #[error("the HTTP client cannot be built: {0}")]
    Client(String),
}

/// The real thing: one connection pool on a thread of its own, or of a few webhooks where there are many; TLS by rustls
/// with the platform's roots.
pub struct ReqwestTransport {
    wire: Wire,
}

/// What sends on that thread.
#[derive(Clone)]
struct Wire {
    client: reqwest::Client,
    guard: Guard,
    share: Share,
    thread: Arc<IoThread>,
}

impl std::fmt::Debug for ReqwestTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReqwestTransport").field("guard", &self.wire.guard).finish_non_exhaustive()
    }
}

impl ReqwestTransport {
    /// Builds a client. On a machine without any certificate authority it still works for plain http, with a warning.
    pub fn new(config: &TransportConfig<'_>) -> Result<Self, TransportProblem> {
        Self::with_lookup(config, system_lookup())
    }

    /// The same with another way to resolve names.
    pub fn with_lookup(config: &TransportConfig<'_>, lookup: Lookup) -> Result<Self, TransportProblem> {
        let certificates = certificates(&config.ca_files)?;
        let proxy = match config.proxy {
            Proxy::None | Proxy::Env => None,
            Proxy::Url(url) => {
                Some(reqwest::Proxy::all(url.expose_secret()).map_err(|_| TransportProblem::Proxy)?)
            }
        };
        let resolver = GuardedResolver::new(config.guard, proxy_hosts(config.proxy), lookup);
        let resolver = Arc::new(resolver);
        let builder = || {
            #[expect(clippy::disallowed_methods, reason = "this is where clients are built")]
            let mut builder = reqwest::Client::builder()
                .user_agent(limits::USER_AGENT)
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .connect_timeout(limits::CONNECT_TIMEOUT)
                .pool_idle_timeout(if descriptors::scarce() { SCARCE_IDLE_TIMEOUT } else { IDLE_TIMEOUT })
                .tls_danger_accept_invalid_certs(config.insecure_skip_verify)
                .dns_resolver(Arc::clone(&resolver));
            if !matches!(config.proxy, Proxy::Env) {
                builder = builder.no_proxy();
            }
            if let Some(proxy) = &proxy {
                builder = builder.proxy(proxy.clone());
            }
            builder
        };
        let failed = |error: rustls::Error| TransportProblem::Client(error.to_string());
        let trusting = if config.insecure_skip_verify {
            // Who trusts any certificate needs none.
            builder()
        } else if certificates.is_empty() {
            if let Ok(tls) = own_certificate::platform_config() {
                builder().tls_backend_preconfigured(tls)
            } else {
                // There are no roots.
                warn_of_no_roots();
                builder().tls_certs_only([])
            }
        } else {
            let tls = own_certificate::client_config(&certificates).map_err(failed)?;
            builder().tls_backend_preconfigured(tls)
        };
        let client = trusting.build().map_err(|problem| TransportProblem::Client(innermost(&problem)))?;
        let others = (config.share == Share::Webhooks).then_some(&io_thread::WEBHOOKS);
        let thread = Arc::new(IoThread::new(others));
        Ok(Self { wire: Wire { client, guard: config.guard, share: config.share, thread } })
    }

    /// Does `work`, which keeps to `timeout` by itself as long as its thread is free to read the clock.
    async fn bounded<T: Send + 'static>(
        &self,
        timeout: Duration,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let done = tokio::time::timeout(timeout + GRACE, self.wire.thread.run(work)).await;
        done.unwrap_or(Err(Failure::Timeout(timeout)))
    }
}

impl Wire {
    async fn exchange(&self, call: Call) -> Result<Answer, Failure> {
        let Call { request, timeout, body_limit } = call;
        let turn = turn(&request);
        let request = self.request(request)?;
        // Waiting for a descriptor of our own takes nothing from the time that the other side has.
        let _descriptor = self.share.take().await;
        let begun = busy();
        let answered = async {
            let (response, deadline) = self.begin(request, timeout).await?;
            received(response, body_limit, timeout, deadline, &turn).await
        };
        let answered = answered.await;
        if busy().saturating_sub(begun) > BUSIEST {
            self.thread.note_busy();
        }
        answered
    }

    /// The answer up to its body.
    ///
    /// The client reads interim answers (`103 Early Hints`) for as long as they come. Who sends them without an end keeps
    /// this thread busy, which tells it from an answer that is merely slow, unless others keep the thread busy too.
    async fn head(&self, request: reqwest::Request, timeout: Duration) -> Result<reqwest::Response, Failure> {
        let answer = self.client.execute(request);
        tokio::pin!(answer);
        let begun = busy();
        loop {
            tokio::select! {
                answer = &mut answer => return answer.map_err(|error| failure(&error, timeout)),
                () = tokio::time::sleep(BUSY_CHECK) => {
                    if busy().saturating_sub(begun) > BUSIEST && !self.thread.is_shared() {
                        return Err(Failure::BadResponse);
                    }
                }
            }
        }
    }

    /// The request, once the address is allowed.
    fn request(&self, request: http::Request<Bytes>) -> Result<reqwest::Request, Failure> {
        let request = reqwest::Request::try_from(request)
            .map_err(|_| Failure::BadRequest("the URL cannot be read".to_owned()))?;
        self.guard.check_literal(request.url())?;
        Ok(request)
    }

    /// Sends a request whose body is at hand; the beginning of the answer, and until when the rest must have come.
    ///
    /// Descriptors that other parts of the process take all of are waited for: the other side has not been asked yet.
    async fn begin(
        &self,
        request: reqwest::Request,
        timeout: Duration,
    ) -> Result<(reqwest::Response, Instant), Failure> {
        let patience = Instant::now() + DESCRIPTOR_TIMEOUT;
        loop {
            let deadline = Instant::now() + timeout;
            let again = request.try_clone();
            let sent = timeout_at(deadline, self.head(again.ok_or_else(unrepeatable)?, timeout));
            match sent.await.map_err(|_| Failure::Timeout(timeout))? {
                Ok(response) => return Ok((response, deadline)),
                Err(Failure::NoDescriptors) if Instant::now() < patience => {
                    tokio::time::sleep(DESCRIPTOR_PAUSE).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn stream_out(&self, call: Call, body: Outgoing) -> Result<Answer, Failure> {
        let Call { request, timeout, body_limit } = call;
        let turn = turn(&request);
        let mut request = self.request(request)?;
        let _descriptor = self.share.take().await;
        let trouble: Arc<Mutex<Option<Failure>>> = Arc::default();
        let moved = Arc::new(Notify::new());
        let pieces = {
            let (trouble, moved) = (Arc::clone(&trouble), Arc::clone(&moved));
            body.pieces.inspect(move |piece| {
                moved.notify_one();
                if let Err(error) = piece {
                    *lock(&trouble) = Some(unreadable(error));
                }
            })
        };
        // A length that is told keeps the body from being sent in chunks, which storage services refuse.
        request.headers_mut().insert(CONTENT_LENGTH, body.length.into());
        *request.body_mut() = Some(reqwest::Body::wrap_stream(pieces));
        let sending = async {
            let response = self.client.execute(request).await.map_err(|error| failure(&error, timeout))?;
            received(response, body_limit, timeout, Instant::now() + timeout, &turn).await
        };
        tokio::pin!(sending);
        // As long as the other side takes the body on, it is alive.
        let result = loop {
            tokio::select! {
                result = &mut sending => break result,
                () = moved.notified() => {}
                () = tokio::time::sleep(timeout) => break Err(Failure::Timeout(timeout)),
            }
        };
        let trouble = lock(&trouble).take();
        trouble.map_or(result, Err)
    }

    async fn stream_in(&self, call: Call) -> Result<Incoming, Failure> {
        let timeout = call.timeout;
        let request = self.request(call.request)?;
        let descriptor = self.share.take().await;
        let (response, _) = self.begin(request, timeout).await?;
        let (status, mut headers) = (response.status(), dated(response.headers().clone()));
        let coding = Coding::of(&headers);
        if status.is_success()
            && let Some(failure) = coding.refusal()
        {
            return Err(failure);
        }
        let state = Some((response, descriptor));
        let pieces = futures_util::stream::unfold(state, move |state| async move {
            let (mut response, descriptor) = state?;
            let piece = match tokio::time::timeout(timeout, response.chunk()).await {
                Ok(Ok(Some(piece))) => return Some((Ok(piece), Some((response, descriptor)))),
                Ok(Ok(None)) => return None,
                Ok(Err(error)) => failure(&error, timeout),
                Err(_) => Failure::Timeout(timeout),
            };
            Some((Err(piece), None))
        });
        if coding != Coding::Gzip {
            return Ok(Incoming { status, headers, pieces: pieces.boxed() });
        }
        encoding::unpacked(&mut headers);
        Ok(Incoming { status, headers, pieces: unpacked(pieces.boxed()).boxed() })
    }
}

/// The pieces of a body that arrives packed.
fn unpacked(
    packed: BoxStream<'static, Result<Bytes, Failure>>,
) -> impl Stream<Item = Result<Bytes, Failure>> {
    let state = Some((packed, Unpacker::default(), Bytes::new()));
    futures_util::stream::unfold(state, async |state| {
        let (mut packed, mut unpacker, mut rest) = state?;
        loop {
            if rest.is_empty() {
                rest = match packed.next().await {
                    Some(Ok(piece)) => piece,
                    Some(Err(failure)) => return Some((Err(failure), None)),
                    None => return Some((unpacker.finish(), None)),
                };
            }
            let piece = rest.split_to(rest.len().min(encoding::PIECE));
            match unpacker.push(&piece) {
                Ok(plain) if plain.is_empty() => {}
                Ok(plain) => return Some((Ok(plain), Some((packed, unpacker, rest)))),
                Err(failure) => return Some((Err(failure), None)),
            }
        }
    })
}

/// In whose turn the answer to `request` is read.
fn turn(request: &http::Request<Bytes>) -> Turn {
    request.extensions().get::<Turn>().cloned().unwrap_or_else(|| Turn::of(&memory::Share::default()))
}

/// The answer that begins with `response`, as much of it as is wanted.
async fn received(
    response: reqwest::Response,
    limit: BodyLimit,
    timeout: Duration,
    deadline: Instant,
    turn: &Turn,
) -> Result<Answer, Failure> {
    let (status, headers) = (response.status(), dated(response.headers().clone()));
    let (body, cut) = match limit {
        BodyLimit::Whole(most) if status.is_success() => {
            let body = timeout_at(deadline, whole(response, most, timeout, turn)).await;
            (body.map_err(|_| Failure::Timeout(timeout))??, false)
        }
        // Of a refusal the status counts, and the first words.
        BodyLimit::Whole(most) => beginning(response, most.min(limits::REFUSAL_BODY), deadline).await,
        BodyLimit::Beginning(most) => beginning(response, most, deadline).await,
    };
    plain(Answer { status, headers, body, cut }, limit, turn).await
}

/// A whole answer with its body unpacked. Of the beginning of one nothing is: it is only kept to be shown.
async fn plain(mut answer: Answer, limit: BodyLimit, turn: &Turn) -> Result<Answer, Failure> {
    let BodyLimit::Whole(most) = limit else { return Ok(answer) };
    let coding = Coding::of(&answer.headers);
    let unpacked = match coding.refusal() {
        Some(failure) => Err(failure),
        None if coding == Coding::Gzip && !answer.body.is_empty() => {
            unpack(&answer.body, most, turn).await.map(Some)
        }
        None => Ok(None),
    };
    match unpacked {
        Ok(Some(body)) => {
            encoding::unpacked(&mut answer.headers);
            answer.body = body;
        }
        Ok(None) => {}
        Err(failure) if answer.status.is_success() => return Err(failure),
        // The status line tells enough, and the words cannot be read.
        Err(_) => answer.body = Bytes::new(),
    }
    Ok(answer)
}

/// The whole of a packed body, at most `most` bytes of it.
async fn unpack(packed: &Bytes, most: usize, turn: &Turn) -> Result<Bytes, Failure> {
    let mut unpacker = Unpacker::default();
    let mut whole = BytesMut::new();
    let mut pieces = packed.chunks(encoding::PIECE);
    loop {
        let piece = pieces.next();
        let plain = match piece {
            Some(piece) => unpacker.push(piece)?,
            None => unpacker.finish()?,
        };
        take_in(&mut whole, &plain, most, turn).await?;
        if piece.is_none() {
            return Ok(whole.freeze());
        }
        tokio::task::consume_budget().await;
    }
}

/// Adds `piece` to `body`, once there is room for as much.
async fn take_in(body: &mut BytesMut, piece: &[u8], most: usize, turn: &Turn) -> Result<(), Failure> {
    let length = body.len() + piece.len();
    if length > most {
        return Err(Failure::TooLarge(most));
    }
    if length > memory::SMALL {
        turn.wait().await;
        body.reserve(memory::LONG.saturating_sub(body.len()));
    }
    body.extend_from_slice(piece);
    Ok(())
}

impl Transport for ReqwestTransport {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        let (wire, timeout) = (self.wire.clone(), call.timeout);
        Box::pin(self.bounded(timeout, async move { wire.exchange(call).await }))
    }

    fn upload(&self, call: Call, body: Outgoing) -> BoxFuture<'_, Result<Answer, Failure>> {
        let wire = self.wire.clone();
        Box::pin(self.wire.thread.run(async move { wire.stream_out(call, body).await }))
    }

    fn open(&self, call: Call) -> BoxFuture<'_, Result<Incoming, Failure>> {
        let (wire, timeout) = (self.wire.clone(), call.timeout);
        Box::pin(self.bounded(timeout, async move { wire.stream_in(call).await }))
    }
}

fn unrepeatable() -> Failure {
    Failure::BadRequest("its body can be read only once".to_owned())
}

/// The body that was to be sent could not be read.
fn unreadable(error: &io::Error) -> Failure {
    Failure::BadRequest(format!("its body cannot be read: {error}"))
}

/// With the time of arrival if the answer has no date: a wish such as `Retry-After` is measured against it.
fn dated(mut headers: HeaderMap) -> HeaderMap {
    if !headers.contains_key(DATE) {
        let now = DateTimePrinter::new().timestamp_to_rfc9110_string(&Clock::system().now());
        headers.extend(now.ok().and_then(|now| now.parse().ok()).map(|now: HeaderValue| (DATE, now)));
    }
    headers
}

/// Once a process, not once a client.
fn warn_of_no_roots() {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(
            "this machine has no CA certificates: every https request will fail until the package ca-certificates is \
             installed or `http.ca_file` names a bundle, and batchd is restarted"
        );
    });
}

/// How long this thread has computed, rather than waited.
fn busy() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Into::into)
}

/// How much computing the head of an answer may cost. One that ends costs milliseconds.
const BUSIEST: Duration = Duration::from_secs(1);
/// How much later than the work itself its time is found to be over from outside.
const GRACE: Duration = Duration::from_millis(500);
const BUSY_CHECK: Duration = Duration::from_millis(200);

/// Traffic is sparse: a connection kept longer is closed by the other side, and its next use a false failure.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The same where descriptors are scarce: long enough for the next page of a list.
const SCARCE_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a descriptor is waited for …
const DESCRIPTOR_TIMEOUT: Duration = Duration::from_secs(30);
/// … with such pauses.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(250);

/// The whole body, or a failure.
async fn whole(
    mut response: reqwest::Response,
    most: usize,
    timeout: Duration,
    turn: &Turn,
) -> Result<Bytes, Failure> {
    let announced = response.content_length().unwrap_or(0);
    if usize::try_from(announced).map_or(true, |announced| announced > most) {
        return Err(Failure::TooLarge(most));
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failure(&error, timeout))? {
        take_in(&mut body, &chunk, most, turn).await?;
    }
    Ok(body.freeze())
}

/// As much of the body as comes in time and fits, and whether there was more to it. The rest is left on the wire
/// and the connection with it.
async fn beginning(mut response: reqwest::Response, most: usize, deadline: Instant) -> (Bytes, bool) {
    let mut body = BytesMut::new();
    loop {
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) if body.len() + chunk.len() <= most => body.extend_from_slice(&chunk),
            Ok(Ok(Some(chunk))) => {
                body.extend_from_slice(&chunk[..most - body.len()]);
                return (body.freeze(), true);
            }
            Ok(Ok(None)) => return (body.freeze(), false),
            Ok(Err(_)) | Err(_) => return (body.freeze(), true),
        }
    }
}

/// The files' contents, each of which holds at least one certificate.
fn certificates(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, TransportProblem> {
    let mut certificates = Vec::new();
    for path in files {
        let problem = |what: String| TransportProblem::CaFile { path: path.clone(), what };
        let pem = std::fs::read(path).map_err(|error| problem(error.to_string()))?;
        let found = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|_| problem("it is not in PEM form".to_owned()))?;
        if found.is_empty() {
            return Err(problem("there is no certificate in it".to_owned()));
        }
        certificates.push(pem);
    }
    Ok(certificates)
}

/// The hosts of the proxies in use: names that the guard is lenient with.
fn proxy_hosts(proxy: &Proxy) -> BTreeSet<String> {
    let host = |url: &str| {
        let url: reqwest::Url = url.parse().or_else(|_| format!("http://{url}").parse()).ok()?;
        url.host_str().map(str::to_owned)
    };
    match proxy {
        Proxy::None => BTreeSet::new(),
        Proxy::Url(url) => host(url.expose_secret()).into_iter().collect(),
        Proxy::Env => ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
            .into_iter()
            .filter_map(|name| host(&std::env::var(name).ok()?))
            .collect(),
    }
}

/// What an error of the client means. Its own text is never used: it holds the URL.
fn failure(error: &reqwest::Error, timeout: Duration) -> Failure {
    let connecting = error.is_connect();
    if error.is_builder() {
        return Failure::BadRequest("the URL must begin with https:// or http://".to_owned());
    }
    if let Some(failure) = error.source().and_then(|source| cause(source, connecting)) {
        return failure;
    }
    match (connecting, error.is_timeout()) {
        (true, true) => Failure::ConnectTimeout,
        (true, false) => Failure::Connect(String::new()),
        (false, true) => Failure::Timeout(timeout),
        (false, false) if error.is_decode() => Failure::BadResponse,
        (false, false) => Failure::Reset,
    }
}

/// The deepest cause that says something.
fn cause(error: &(dyn Error + 'static), connecting: bool) -> Option<Failure> {
    if let Some(Unresolved(failure)) = error.downcast_ref() {
        return Some(failure.clone());
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return Some(io_failure(error, connecting));
    }
    if let Some(failure) = error.source().and_then(|source| cause(source, connecting)) {
        return Some(failure);
    }
    let error = error.downcast_ref::<hyper::Error>()?;
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        Some(Failure::Reset)
    } else if error.is_timeout() {
        None
    } else {
        Some(Failure::BadResponse)
    }
}

fn io_failure(error: &io::Error, connecting: bool) -> Failure {
    // An `io::Error` does not count what it wraps as its source.
    let wrapped = error.get_ref().map(|inner| inner as &(dyn Error + 'static));
    if let Some(failure) = wrapped.and_then(|inner| cause(inner, connecting)) {
        return failure;
    }
    if error.raw_os_error().is_some_and(|code| code == EMFILE || code == ENFILE) {
        return Failure::NoDescriptors;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::ConnectRefused,
        io::ErrorKind::TimedOut if connecting => Failure::ConnectTimeout,
        // Only TLS finds fault with data before the connection stands.
        io::ErrorKind::InvalidData if connecting => {
            Failure::Tls(wrapped.map_or_else(|| "the handshake failed".to_owned(), ToString::to_string))
        }
        io::ErrorKind::UnexpectedEof if connecting => Failure::Tls("the handshake was cut off".to_owned()),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput if !connecting => Failure::BadResponse,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            Failure::Reset
        }
        _ if connecting => {
            // The system's own words; what others wrap into an `io::Error` might hold more than is wanted.
            let words = error.raw_os_error().map(io::Error::from_raw_os_error);
            Failure::Connect(words.map_or_else(String::new, |words| format!(": {words}")))
        }
        _ => Failure::Reset,
    }
}

/// The system's codes for "no descriptor is free": in this process, on this machine.
const EMFILE: i32 = nix::errno::Errno::EMFILE as i32;
const ENFILE: i32 = nix::errno::Errno::ENFILE as i32;

/// The text of what lies deepest: no layer below the client's own knows the URL.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    if deepest.is::<reqwest::Error>() { "for an unknown reason".to_owned() } else { deepest.to_string() }
}
