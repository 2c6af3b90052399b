//! What is left of a refused request's body is read away, within bounds: a client that is still sending reads no answer,
//! and one whose connection is closed under it sees a broken connection in place of the refusal.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header;
use axum::response::Response;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// For how long a refused body is read.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(30);
/// For how long the body of a refused request is waited for that something else still reads.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
/// How much of it is read, in bytes: more than any provider takes as one file.
const MAX_DISCARDED: u64 = 1 << 30;

/// The way to what a handler leaves of a body.
pub(super) struct Leftover(Option<oneshot::Receiver<Body>>);

impl Leftover {
    /// The request with a body that comes back when whoever reads it lets go of it.
    pub(super) fn watch(request: Request) -> (Request, Self) {
        // Who asks first whether to send at all is told by the answer that it need not.
        if request.body().is_end_stream() || request.headers().contains_key(header::EXPECT) {
            return (request, Self(None));
        }
        let (back, receiver) = oneshot::channel();
        let watched = |body| Body::new(Watched { body: Some(body), back: Some(back) });
        (request.map(watched), Self(Some(receiver)))
    }

    /// Gives the answer of a request; that of a refused one only when its body has been read away.
    pub(super) async fn before(self, response: Response, stopping: &CancellationToken) -> Response {
        let status = response.status();
        if let Some(receiver) = self.0.filter(|_| status.is_client_error() || status.is_server_error())
            && let Ok(Ok(body)) = tokio::time::timeout(RELEASE_TIMEOUT, receiver).await
        {
            tokio::select! {
                biased;
                () = read_away(body) => {}
                () = tokio::time::sleep(DISCARD_TIMEOUT) => {}
                () = stopping.cancelled() => {}
            }
        }
        response
    }
}

async fn read_away(mut body: Body) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len) as u64;
        if read > MAX_DISCARDED {
            return;
        }
    }
}

/// A body that hands over what nobody has read of it.
struct Watched {
    /// `None`: it has come to its end.
    body: Option<Body>,
    back: Option<oneshot::Sender<Body>>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // Nobody waits for what is left of a request that was done.
            let _ = back.send(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use futures_util::{StreamExt as _, stream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A request of `pieces` pieces, and how many of them have been read.
    fn request(pieces: usize) -> (Request, Arc<AtomicUsize>) {
        let read = Arc::new(AtomicUsize::new(0));
        let count = read.clone();
        let body = stream::iter(0..pieces).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from_static(b"piece"))
        });
        (Request::new(Body::from_stream(body)), read)
    }

    #[tokio::test]
    async fn what_is_left_of_a_refused_body_is_read_before_the_answer() {
        for (status, pieces) in [(StatusCode::FORBIDDEN, 3), (StatusCode::OK, 1)] {
            let (request, read) = request(3);
            let (request, leftover) = Leftover::watch(request);
            let mut body = request.into_body();
            body.frame().await.unwrap().unwrap();
            drop(body);
            leftover.before(status.into_response(), &CancellationToken::new()).await;
            assert_eq!(read.load(Ordering::Relaxed), pieces, "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_without_an_end_keeps_no_answer() {
        let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let (request, leftover) = Leftover::watch(Request::new(body));
        drop(request);
        let begun = tokio::time::Instant::now();
        leftover.before(StatusCode::FORBIDDEN.into_response(), &CancellationToken::new()).await;
        assert_eq!(begun.elapsed(), DISCARD_TIMEOUT);
        let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![0; 1 << 24])));
        let (request, leftover) = Leftover::watch(Request::new(Body::from_stream(endless)));
        drop(request);
        leftover.before(StatusCode::FORBIDDEN.into_response(), &CancellationToken::new()).await;
    }

    #[test]
    fn who_asks_before_sending_is_answered_at_once() {
        let (mut request, _) = request(3);
        request.headers_mut().insert(header::EXPECT, "100-continue".parse().unwrap());
        assert!(Leftover::watch(request).1.0.is_none());
    }
}
