//! The way out for what is asked for by hand: within the account's ceiling and concurrency, like polls.

use super::budget::{Budget, HAND_TIMEOUT, Leave, PAID_TIMEOUT};
use crate::clock::Clock;
use crate::http::call::{Answer, Call, Incoming, OnlyWhile, Outgoing, Paid};
use crate::http::failure::Failure;
use crate::http::transport::Transport;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// Sends through another transport, each request once it is its turn.
pub(super) struct ByHand {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) budget: Arc<Budget>,
    pub(super) clock: Clock,
}

impl ByHand {
    async fn leave(&self, call: &Call) -> Result<Leave, Failure> {
        let paid = call.request.extensions().get::<Paid>().is_some();
        let timeout = if paid { PAID_TIMEOUT } else { HAND_TIMEOUT };
        let leave = self.budget.by_hand(&self.clock, timeout).await.map_err(Failure::Busy)?;
        match call.request.extensions().get::<OnlyWhile>() {
            Some(OnlyWhile(may_leave)) if !may_leave() => Err(Failure::Busy(Duration::ZERO)),
            _ => Ok(leave),
        }
    }
}

impl Transport for ByHand {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            let _leave = self.leave(&call).await?;
            let answer = self.transport.send(call).await?;
            self.budget.note(&answer, self.clock.now());
            Ok(answer)
        })
    }

    fn upload(&self, call: Call, body: Outgoing) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            let _leave = self.leave(&call).await?;
            self.transport.upload(call, body).await
        })
    }

    fn open(&self, call: Call) -> BoxFuture<'_, Result<Incoming, Failure>> {
        Box::pin(async move {
            let leave = self.leave(&call).await?;
            let Incoming { status, headers, pieces } = self.transport.open(call).await?;
            // Where there is one slot for all, what streams for long would keep the schedule waiting.
            let leave = (!self.budget.has_one_slot()).then_some(leave);
            let pieces = pieces.map(move |piece| {
                let _held = &leave;
                piece
            });
            Ok(Incoming { status, headers, pieces: pieces.boxed() })
        })
    }
}
