//! How long a client is waited for that sends or reads too little: a request's body and the bytes of an answer.

use axum::BoxError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Moving fewer bytes than this within the time counts as moving none: a byte now and then keeps nothing open.
const FLOOR: usize = 4 * 1024;

/// The time that another side may take. Only what is spent waiting for it counts, not what we take ourselves.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    waited: Duration,
    moved: usize,
    since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, waited: Duration::ZERO, moved: 0, since: None, alarm: None }
    }

    /// The other side has sent or taken `bytes`.
    pub(super) fn moved(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
        self.moved += bytes;
        if self.moved >= FLOOR {
            self.moved = 0;
            self.waited = Duration::ZERO;
        }
    }

    /// Nothing moves; ready when that has been so for too long.
    pub(super) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            let until = now + self.limit.saturating_sub(self.waited);
            match &mut self.alarm {
                Some(alarm) => alarm.as_mut().reset(until),
                None => self.alarm = Some(Box::pin(tokio::time::sleep_until(until))),
            }
        }
        self.alarm.as_mut().map_or(Poll::Pending, |alarm| alarm.as_mut().poll(context))
    }
}

/// The body of a request, whose sender must go on sending.
pub(super) struct Attended<B> {
    body: B,
    patience: Patience,
    /// Set when it did not.
    stalled: Arc<AtomicBool>,
}

impl<B> Attended<B> {
    pub(super) fn new(body: B, limit: Duration, stalled: Arc<AtomicBool>) -> Self {
        Self { body, patience: Patience::new(limit), stalled }
    }
}

impl<B> Body for Attended<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                let bytes = match &frame {
                    Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
                    _ => 0,
                };
                self.patience.moved(bytes);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                if self.patience.poll_over(context).is_pending() {
                    return Poll::Pending;
                }
                self.stalled.store(true, Ordering::Relaxed);
                let error = io::Error::new(io::ErrorKind::TimedOut, "the body did not go on in time");
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};

    const LIMIT: Duration = Duration::from_secs(30);

    /// A body that sends `bytes` every `pause`; how long it was read, and whether that ended in a stall.
    async fn read(bytes: usize, pause: Duration, pieces: usize) -> (Duration, bool) {
        let pieces = stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, io::Error>(Frame::data(Bytes::from(vec![0; bytes])))
        });
        let stalled = Arc::new(AtomicBool::new(false));
        let begun = Instant::now();
        let mut body = Attended::new(StreamBody::new(Box::pin(pieces)), LIMIT, stalled.clone());
        while let Some(Ok(_)) = body.frame().await {}
        (begun.elapsed(), stalled.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_or_trickles_is_given_up_and_a_slow_one_is_not() {
        assert_eq!(read(1, Duration::from_hours(1), 1).await, (LIMIT, true));
        assert_eq!(read(1, Duration::from_secs(2), 1000).await, (LIMIT, true));
        assert_eq!(read(FLOOR, Duration::from_secs(20), 20).await, (Duration::from_secs(400), false));
        assert_eq!(read(1, Duration::from_secs(29), 1).await, (Duration::from_secs(29), false));
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_the_reader_takes_is_not_the_senders() {
        let pieces = stream::iter(0..10).map(|_| Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"x"))));
        let stalled = Arc::new(AtomicBool::new(false));
        let mut body = Attended::new(StreamBody::new(pieces), LIMIT, stalled.clone());
        while let Some(frame) = body.frame().await {
            frame.unwrap();
            tokio::time::sleep(LIMIT).await;
        }
        assert!(!stalled.load(Ordering::Relaxed));
    }
}
