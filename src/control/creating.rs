//! Creations that are under way: whoever asks for the same again waits for the one that was asked for first.

use super::api::ErrorCode;
use super::api_error::ApiError;
use crate::store::creations::Asked;
use crate::sync::lock;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The creations that are under way in this process. Cheap to clone; all clones are one set.
#[derive(Clone, Debug, Default)]
pub(super) struct Creating(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    under_way: Mutex<UnderWay>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct UnderWay {
    number: u64,
    asked: Vec<(u64, Asked)>,
}

/// As long as it is held, its creation is under way.
#[derive(Debug)]
pub(super) struct Turn {
    all: Creating,
    number: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.all.0.under_way).asked.retain(|(number, _)| *number != self.number);
        self.all.0.ended.notify_waiters();
    }
}

impl Creating {
    /// Begins once no creation with the same key is under way; for a retry without a key, none with the same request.
    ///
    /// # Errors
    ///
    /// The same key is under way with another request; or the daemon is `stopping`.
    pub(super) async fn begin(
        &self,
        asked: &Asked,
        is_retry: bool,
        stopping: &CancellationToken,
    ) -> Result<Turn, ApiError> {
        loop {
            let ended = self.0.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if let Some(turn) = self.try_begin(asked, is_retry)? {
                return Ok(turn);
            }
            tokio::select! {
                () = ended => {}
                () = stopping.cancelled() => {
                    return Err(ApiError::new(ErrorCode::Unavailable, "the daemon is stopping"));
                }
            }
        }
    }

    fn try_begin(&self, asked: &Asked, is_retry: bool) -> Result<Option<Turn>, ApiError> {
        let mut under_way = lock(&self.0.under_way);
        for (_, other) in &under_way.asked {
            match (&asked.key, &other.key) {
                (Some(key), Some(used)) if key == used => {
                    same_request(asked, &other.request)?;
                    return Ok(None);
                }
                (None, _) if is_retry && asked.request == other.request => return Ok(None),
                _ => {}
            }
        }
        under_way.number += 1;
        let number = under_way.number;
        under_way.asked.push((number, asked.clone()));
        Ok(Some(Turn { all: self.clone(), number }))
    }
}

/// Whether a key that was used for `request` is used for the same again.
pub(super) fn same_request(asked: &Asked, request: &str) -> Result<(), ApiError> {
    if asked.key.is_none() || asked.request == request {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::IdempotencyKeyReused,
        "this Idempotency-Key was used for another request within the last day",
    )
    .param("Idempotency-Key")
    .hint("use a new key for each batch"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn asked(key: Option<&str>, request: &str) -> Asked {
        Asked { key: key.map(str::to_owned), request: request.to_owned() }
    }

    #[tokio::test]
    async fn whoever_asks_for_the_same_again_waits_for_the_first() {
        let (creating, stopping) = (Creating::default(), CancellationToken::new());
        let begin = |asked: Asked, is_retry| {
            let (creating, stopping) = (creating.clone(), stopping.clone());
            async move { creating.begin(&asked, is_retry, &stopping).await }
        };
        let first = begin(asked(Some("k"), "a"), false).await.unwrap();
        let mut second = Box::pin(begin(asked(Some("k"), "a"), false));
        assert!(second.as_mut().now_or_never().is_none());
        let other = begin(asked(Some("k"), "b"), false).await.unwrap_err();
        assert_eq!(other.code, ErrorCode::IdempotencyKeyReused);
        begin(asked(Some("l"), "a"), false).await.unwrap();
        begin(asked(None, "a"), false).await.unwrap();
        let mut retry = Box::pin(begin(asked(None, "a"), true));
        assert!(retry.as_mut().now_or_never().is_none());
        drop(first);
        let second = second.await.unwrap();
        drop(second);
        retry.await.unwrap();
    }

    #[tokio::test]
    async fn a_stop_ends_the_waiting() {
        let (creating, stopping) = (Creating::default(), CancellationToken::new());
        let _first = creating.begin(&asked(Some("k"), "a"), false, &stopping).await.unwrap();
        stopping.cancel();
        let refused = creating.begin(&asked(Some("k"), "a"), false, &stopping).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unavailable);
    }
}
