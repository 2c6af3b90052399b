//! A listener that answers every client it has accepted: at the stop, a first request on its way is waited for.
//!
//! Without it, a connection that was accepted a moment before the stop would be closed before its request is read.
//! Clients that are not accepted yet wait for the next daemon in the queue of a socket that systemd keeps.

use axum::serve::Listener;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long the stop waits for clients that are connected and have sent nothing yet.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(1);

/// Accepts until `stopping`.
pub(super) struct DrainingListener<L> {
    listener: L,
    stopping: CancellationToken,
    /// One token for each client that has sent nothing yet.
    silent: TaskTracker,
}

impl<L: Listener> DrainingListener<L> {
    pub(super) fn new(listener: L, stopping: CancellationToken) -> Self {
        Self { listener, stopping, silent: TaskTracker::new() }
    }

    /// Resolves when connections may be closed: none is accepted any more, and every client has sent something.
    pub(super) fn over(&self) -> impl Future<Output = ()> + Send + use<L> {
        let (stopping, silent) = (self.stopping.clone(), self.silent.clone());
        async move {
            stopping.cancelled().await;
            silent.close();
            let _ = tokio::time::timeout(SILENCE_TIMEOUT, silent.wait()).await;
        }
    }
}

impl<L: Listener> Listener for DrainingListener<L> {
    type Io = DrainingStream<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // Taken first: between the coming in and the counting there is no gap for a stop.
        let silent = self.silent.token();
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => {}
            (stream, address) = self.listener.accept() => {
                return (DrainingStream { stream, silent: Some(silent) }, address);
            }
        }
        drop(silent);
        std::future::pending().await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

pub(super) struct DrainingStream<S> {
    stream: S,
    silent: Option<TaskTrackerToken>,
}

impl<S> DrainingStream<S> {
    pub(super) fn stream(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for DrainingStream<S> {
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

impl<S: AsyncWrite + Unpin> AsyncWrite for DrainingStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
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
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{UnixListener, UnixStream};

    /// A server with one guest who has said nothing yet; its stop.
    async fn with_silent_guest() -> (UnixStream, CancellationToken, impl Future<Output = io::Result<()>>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let stopping = CancellationToken::new();
        let listener = DrainingListener::new(UnixListener::bind(&path).unwrap(), stopping.clone());
        let over = listener.over();
        let silent = listener.silent.clone();
        let app = Router::new().route("/", get(async || "hello"));
        let mut serving = Box::pin(axum::serve(listener, app).with_graceful_shutdown(over).into_future());
        let guest = UnixStream::connect(&path).await.unwrap();
        // In: its own token and that of the next.
        while silent.len() < 2 {
            tokio::select! {
                biased;
                _ = &mut serving => panic!("it ended by itself"),
                () = tokio::task::yield_now() => {}
            }
        }
        (guest, stopping, serving)
    }

    #[tokio::test]
    async fn who_was_let_in_before_the_stop_is_answered_after_it() {
        let (mut guest, stopping, serving) = with_silent_guest().await;
        stopping.cancel();
        let exchange = async {
            guest.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            guest.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let (served, answer) = tokio::join!(serving, exchange);
        served.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    }

    #[tokio::test]
    async fn who_stays_silent_does_not_hold_up_the_stop() {
        let (mut guest, stopping, serving) = with_silent_guest().await;
        stopping.cancel();
        serving.await.unwrap();
        assert_eq!(guest.read(&mut [0; 8]).await.unwrap(), 0, "it is let go");
    }
}
