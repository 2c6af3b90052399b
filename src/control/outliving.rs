//! Requests that change something run to their end once they have begun, whether or not their client stays
//! (`docs/contract.md#http-api`).

use super::api::ErrorCode;
use super::api_error::ApiError;
use crate::tasks::Tasks;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Answers a request; one that changes something on a task of its own, which a stop waits for.
///
/// A server drops what it does for a connection that has gone, between any two awaits: a reload would be half taken, a
/// batch created and never tracked. What only reads ends with its client; what it notes of the account on the way
/// (that it answers again) stays in memory, and is stored with the next check.
pub(super) async fn answer(tasks: Option<Tasks>, request: Request, next: Next) -> Response {
    let only_reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let Some(tasks) = tasks.filter(|_| !only_reads) else { return next.run(request).await };
    let client = Client::default();
    let gone = client.0.clone();
    let request = request.map(|body| Body::new(Attended { body, gone }));
    let response = tasks.run_to_end(next.run(request)).await;
    drop(client);
    response.unwrap_or_else(|| {
        ApiError::new(ErrorCode::Internal, "answering the request panicked; see the log").into_response()
    })
}

/// Says, once it is dropped, that nobody sends any more.
#[derive(Default)]
struct Client(Arc<AtomicBool>);

impl Drop for Client {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A body that does not pass for whole if its client went before it was: for the server, a body that nobody feeds any
/// more has simply ended.
struct Attended {
    body: Body,
    gone: Arc<AtomicBool>,
}

impl http_body::Body for Attended {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let whole = self.body.is_end_stream();
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) && !whole && self.gone.load(Ordering::Acquire) {
            return Poll::Ready(Some(Err(axum::Error::new(BrokenOff))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the client went before its request was complete")]
struct BrokenOff;

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::BodyExt as _;

    fn attended(body: Body) -> (Attended, Client) {
        let client = Client::default();
        let gone = client.0.clone();
        (Attended { body, gone }, client)
    }

    #[tokio::test]
    async fn a_body_whose_client_went_is_not_whole() {
        let pieces = || Body::from_stream(stream::iter([Ok::<_, std::io::Error>("[1, 2")]));
        let (body, client) = attended(pieces());
        drop(client);
        assert!(body.collect().await.is_err());
        let (body, client) = attended(pieces());
        assert_eq!(body.collect().await.unwrap().to_bytes(), "[1, 2");
        drop(client);
        // A length that was told and reached is the whole, whatever became of the client.
        let (body, client) = attended(Body::from("[1, 2]"));
        drop(client);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "[1, 2]");
    }
}
