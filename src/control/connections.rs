//! Serves the connections of one listener, within bounds: how many there are, how long each may keep silent, send no
//! more of a body or read no more of an answer. At the stop, a first request on its way is waited for.
//!
//! Without that, a connection that was accepted a moment before the stop would be closed before its request is read.
//! Clients that are not accepted yet wait for the next daemon in the queue of a socket that systemd keeps.

use super::api::ErrorCode;
use super::api_error::ApiError;
use super::guests::{Guests, Place, Serving};
use super::patience::{Attended, Patience};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::ConnectInfo;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::serve::Listener;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// What the connections of a listener may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// How many there may be.
    pub(super) connections: usize,
    /// How long a request's head may take, and how long a connection is kept without one.
    pub(super) head: Duration,
    /// How long a body may not go on.
    pub(super) body: Duration,
    /// How long an answer may not be read on.
    pub(super) answer: Duration,
}

/// How long the stop waits for clients that are connected and have sent nothing yet.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(1);

/// How many header fields a request may have …
const MAX_HEADERS: usize = 100;
/// … and how long all of its head may be, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// How much of an answer is handed over at once, in bytes; what is behind it waits until that is sent.
const SLICE: usize = 64 * 1024;
/// Answers up to this length, in bytes, need no leave.
const SMALL: u64 = 256 * 1024;
/// How much memory all longer answers that wait for their readers may hold together, in units of [`SMALL`].
const LARGE_ANSWERS: usize = 256;

/// How many clients for whom there is no place are answered at the same time; more are only let go.
const TURNED_AWAY: usize = 32;

/// Serves `app` to whoever connects, until `stopping`; `peer` says who that is.
pub(super) async fn serve<L: Listener, P: Clone + Send + Sync + 'static>(
    mut listener: L,
    app: Router,
    peer: impl Fn(&L::Io) -> P,
    bounds: Bounds,
    stopping: CancellationToken,
) {
    let guests = Guests::new(bounds.connections);
    let large = Arc::new(Semaphore::new(LARGE_ANSWERS));
    let (connections, silent) = (TaskTracker::new(), TaskTracker::new());
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY));
    let closing = CancellationToken::new();
    let mut full = false;
    loop {
        // Taken first: between the coming in and the counting there is no gap for a stop.
        let token = silent.token();
        let stream = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            (stream, _) = listener.accept() => stream,
        };
        let Some(place) = guests.admit() else {
            if !full {
                tracing::warn!(
                    connections = bounds.connections,
                    "every connection that the API may have is in use; further clients are turned away"
                );
            }
            full = true;
            if let Ok(permit) = turned_away.clone().try_acquire_owned() {
                connections.spawn(turn_away(stream, permit));
            }
            continue;
        };
        full = false;
        let peer = peer(&stream);
        let stream = Guarded { stream, silent: Some(token), patience: Patience::new(bounds.answer) };
        connections.spawn(connection(
            stream,
            app.clone(),
            peer,
            Connected { place, bounds, large: large.clone(), closing: closing.clone() },
        ));
    }
    drop(listener);
    silent.close();
    let _ = tokio::time::timeout(SILENCE_TIMEOUT, silent.wait()).await;
    closing.cancel();
    connections.close();
    connections.wait().await;
}

/// What one connection is served with.
struct Connected {
    place: Place,
    bounds: Bounds,
    large: Arc<Semaphore>,
    closing: CancellationToken,
}

async fn connection<S, P>(stream: Guarded<S>, app: Router, peer: P, connected: Connected)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Clone + Send + Sync + 'static,
{
    let Connected { place, bounds, large, closing } = connected;
    let app = TowerToHyperService::new(app);
    let leave = place.leave.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let serving = place.serve();
        let large = large.clone();
        let stalled = Arc::new(AtomicBool::new(false));
        let mut request = request.map(|body| Body::new(Attended::new(body, bounds.body, stalled.clone())));
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        let answering = app.call(request);
        async move {
            let mut response = answering.await?;
            if stalled.load(Ordering::Relaxed) {
                response = too_slow();
            }
            let permit = match room(&response, &large) {
                Ok(permit) => permit,
                Err(refusal) => {
                    response = refusal.into_response();
                    None
                }
            };
            Ok::<_, Infallible>(response.map(|body| Sliced {
                body,
                rest: Bytes::new(),
                _held: (serving, permit),
            }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_HEAD + SLICE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut closing = std::pin::pin!(closing.cancelled());
    let mut closed = false;
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!("a connection of the API ended: {error}");
                }
                return;
            }
            () = leave.cancelled() => return,
            () = &mut closing, if !closed => {
                closed = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Leave to hold an answer in memory until it is read, if it needs that.
fn room(response: &Response<Body>, large: &Arc<Semaphore>) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
    // What streams holds a piece at a time.
    let Some(length) = response.body().size_hint().exact().filter(|length| *length > SMALL) else {
        return Ok(None);
    };
    if response.headers().contains_key(header::CONTENT_LENGTH) {
        return Ok(None);
    }
    let units = usize::try_from(length.div_ceil(SMALL)).unwrap_or(usize::MAX).min(LARGE_ANSWERS);
    let units = u32::try_from(units).unwrap_or(u32::MAX);
    large.clone().try_acquire_many_owned(units).map(Some).map_err(|_| {
        ApiError::busy("too many long answers wait for their readers", Duration::from_secs(5))
            .hint("ask for fewer at once with `limit`, and read each answer to its end")
    })
}

fn too_slow() -> Response<Body> {
    let refusal = ApiError::invalid("the body of the request did not go on in time");
    let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
    (StatusCode::REQUEST_TIMEOUT, close, axum::Json(refusal.into_body())).into_response()
}

/// Tells a client for whom there is no place.
async fn turn_away(mut stream: impl AsyncRead + AsyncWrite + Unpin, _permit: OwnedSemaphorePermit) {
    /// Who says or reads nothing for so long gets no more.
    const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);
    let refusal = ApiError::new(ErrorCode::Unavailable, "every connection that the API may have is in use")
        .hint("try again in a moment; close connections that are not needed");
    let body = serde_json::to_string(&refusal.into_body()).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         retry-after: 1\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing over what it has sent would break the connection before it has read the answer.
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    let _ = tokio::time::timeout(CLIENT_TIMEOUT, exchange).await;
}

/// A stream whose other side must read on, and that is silent until it has sent something.
struct Guarded<S> {
    stream: S,
    silent: Option<TaskTrackerToken>,
    patience: Patience,
}

impl<S> Guarded<S> {
    /// What a write has come to, if that is in time.
    fn in_time<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(written) => {
                self.patience.moved(written.as_ref().map_or(0, bytes));
                Poll::Ready(written)
            }
            Poll::Pending if self.patience.poll_over(context).is_ready() => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.silent = None;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(written, |bytes| *bytes, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.in_time(written, |bytes| *bytes, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The body of an answer, in pieces that do not pile up behind a client that reads slowly.
struct Sliced {
    body: Body,
    /// What of a piece has not been handed over.
    rest: Bytes,
    /// Given back when the last piece has been handed over.
    _held: (Serving, Option<OwnedSemaphorePermit>),
}

impl http_body::Body for Sliced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let polled = Pin::new(&mut self.body).poll_frame(context);
            match polled {
                Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(|data| data.len() > SLICE) => {
                    self.rest = frame.into_data().unwrap_or_default();
                }
                other => return other,
            }
        }
        let length = self.rest.len().min(SLICE);
        let slice = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (behind, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(behind.lower() + rest);
        if let Some(upper) = behind.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::{get, post};
    use tokio::net::{UnixListener, UnixStream};

    const BOUNDS: Bounds = Bounds {
        connections: 2,
        head: Duration::from_millis(700),
        body: Duration::from_millis(700),
        answer: Duration::from_millis(700),
    };

    struct Server {
        path: std::path::PathBuf,
        stopping: CancellationToken,
        serving: tokio::task::JoinHandle<()>,
        _directory: tempfile::TempDir,
    }

    fn server() -> Server {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let app = Router::new()
            .route("/", get(async || "hello"))
            .route("/body", post(async |body: Bytes| body))
            .route("/long", get(async || Bytes::from(vec![b'x'; 20_000_000])));
        let stopping = CancellationToken::new();
        let listener = UnixListener::bind(&path).unwrap();
        let tracker = TaskTracker::new();
        let serving = tracker.spawn(serve(listener, app, |_| (), BOUNDS, stopping.clone()));
        Server { path, stopping, serving, _directory: directory }
    }

    impl Server {
        async fn guest(&self, says: &str) -> UnixStream {
            let mut guest = UnixStream::connect(&self.path).await.unwrap();
            guest.write_all(says.as_bytes()).await.unwrap();
            guest
        }

        async fn answer(&self, says: &str) -> String {
            all(self.guest(says).await).await
        }
    }

    async fn all(mut guest: UnixStream) -> String {
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), guest.read_to_end(&mut answer));
        let _ = read.await.expect("the connection is not closed");
        String::from_utf8_lossy(&answer).into_owned()
    }

    const HELLO: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn who_was_let_in_before_the_stop_is_answered_after_it() {
        let server = server();
        let mut guest = server.guest("").await;
        // Whoever is answered came after it, so it is in as well.
        assert!(server.answer(HELLO).await.ends_with("hello"));
        server.stopping.cancel();
        guest.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let answer = all(guest).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
        server.serving.await.unwrap();
    }

    #[tokio::test]
    async fn who_stays_silent_does_not_hold_up_the_stop_and_is_let_go_in_time() {
        let server = server();
        assert_eq!(all(server.guest("").await).await, "", "it is let go");
        assert_eq!(all(server.guest("GET / HTTP/1.1\r\nhos").await).await, "", "it is let go");
        let guest = server.guest("").await;
        assert!(server.answer(HELLO).await.ends_with("hello"));
        server.stopping.cancel();
        server.serving.await.unwrap();
        assert_eq!(all(guest).await, "", "it is let go");
    }

    #[tokio::test]
    async fn a_body_that_stops_is_answered_and_an_answer_that_nobody_reads_is_given_up() {
        let server = server();
        let answer = server.answer("POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc").await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        let guest = server.guest("GET /long HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        tokio::time::sleep(BOUNDS.answer * 3).await;
        let read = all(guest).await.len();
        assert!(read < 10_000_000, "{read} bytes came of an answer that should have been given up");
        let whole = server.answer("GET /long HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(whole.len() > 20_000_000 && whole.contains("content-length: 20000000"), "{}", whole.len());
    }

    #[tokio::test]
    async fn who_finds_no_place_is_told_and_the_silent_make_room() {
        let server = server();
        let silent = [server.guest("").await, server.guest("").await];
        let answer = server.answer(HELLO).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        tokio::time::sleep(Duration::from_millis(550)).await;
        assert!(server.answer(HELLO).await.ends_with("hello"));
        drop(silent);
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_and_other_protocols_are_refused() {
        let server = server();
        let long = format!("GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "x".repeat(MAX_HEAD));
        assert!(server.answer(&long).await.starts_with("HTTP/1.1 431"));
        let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS));
        assert!(server.answer(&many).await.starts_with("HTTP/1.1 431"));
        assert!(!server.answer("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.contains("200 OK"));
        let both = "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd";
        assert!(server.answer(both).await.starts_with("HTTP/1.1 400"));
    }
}
