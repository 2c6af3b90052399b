//! The log's line of an attempt, and the word that metrics have for its end.

use super::deliver::Exchange;
use crate::domain::duration::human;
use crate::domain::time::since;
use crate::store::outbox::{Due, Next};
use jiff::Timestamp;

/// Every word that [`fate`] gives.
pub(super) const FATES: [&str; 5] = ["delivered", "retried", "snoozed", "dead", "held"];

/// The word for what becomes of a delivery, in metrics.
pub(super) const fn fate(next: Next) -> &'static str {
    match next {
        Next::Delivered => "delivered",
        Next::Again { counts: true, .. } => "retried",
        Next::Again { counts: false, .. } => "snoozed",
        Next::Dead => "dead",
        Next::Hold => "held",
    }
}

/// One line an attempt.
pub(super) fn attempt(webhook: &str, due: &Due, exchange: &Exchange, next: Next, now: Timestamp) {
    let attempt = due.attempts.saturating_add(1);
    let ms = u64::try_from(exchange.took.as_millis()).unwrap_or(u64::MAX);
    let error = exchange.error.as_deref().unwrap_or_default();
    let fields = (due.kind, due.event_id.as_str(), exchange.result);
    macro_rules! line {
        ($level:ident, $next:expr, $($words:tt)+) => {
            tracing::$level!(
                event = %fields.1, delivery = due.pk, webhook, attempt, outcome = fields.2,
                status = exchange.status, ms, next = $next, $($words)+
            )
        };
    }
    match next {
        Next::Delivered => line!(info, "delivered", "delivered {} to webhook {webhook}", fields.0),
        Next::Again { at, .. } => {
            let wait = human(since(now, at));
            let at = at.to_string();
            line!(
                warn,
                at.as_str(),
                "webhook {webhook} did not accept {}: {error}; trying again in {wait}",
                fields.0
            );
        }
        Next::Dead => {
            line!(
                error,
                "dead",
                "webhook {webhook} did not accept {}: {error}; given up after {attempt} attempts; to send it again: batchd deliveries retry {}",
                fields.0,
                due.pk
            );
        }
        Next::Hold => line!(
            warn,
            "held",
            "webhook {webhook} did not accept {}: {error}; held until the webhook is enabled",
            fields.0
        ),
    }
}
