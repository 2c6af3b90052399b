//! From owed to accepted: what is due, attempts that are logged before they are made, how they ended, and what a crash
//! or a clock that was set leaves to put right.

use super::super::column::{Pk, at, event_type, instant, length, ms};
use super::super::error::StoreError;
use super::super::sql::Row;
use super::super::state::Store;
use super::super::transaction::Tx;
use super::super::value::named;
use super::delivery::{DeliveryState, REACHABLE};
use super::recovering::{TOLD_OF, shorten_waits};
use super::webhooks::{WebhookState, hold, load_webhook, save_webhook};
use crate::domain::event::EventType;
use crate::domain::suspect::SUSPECT;
use jiff::Timestamp;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A delivery that is due.
#[derive(Clone, Debug)]
pub struct Due {
    /// Its row.
    pub pk: Pk,
    /// `evt_…`
    pub event_id: String,
    /// What happened.
    pub kind: EventType,
    /// The frozen body.
    pub body: String,
    /// Attempts that counted so far.
    pub attempts: u32,
    /// The full form was refused before: send it plain.
    pub plain: bool,
    /// When the event was recorded.
    pub recorded_at: Timestamp,
    /// The event's number in the log.
    pub sequence: i64,
}

/// How an attempt ended, and what becomes of the delivery.
#[derive(Clone, Debug)]
pub struct AttemptEnd {
    pub at: Timestamp,
    /// One word: `delivered`, or a failure's class.
    pub outcome: String,
    /// The answer's code, if one came.
    pub http_status: Option<u16>,
    /// What went wrong, for people; no secrets.
    pub error: Option<String>,
    /// The beginning of the answer, without secrets.
    pub excerpt: Option<String>,
    /// What becomes of the delivery.
    pub next: Next,
}

/// What becomes of a delivery after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is done.
    Delivered,
    /// Again after `wait`; `counts`: the attempt used up one of its tries.
    Again {
        at: Timestamp,
        /// The wait that led there: a clock that is set back never lengthens it.
        wait: Duration,
        /// Whether a try was used up.
        counts: bool,
        /// From now on in plain form.
        plain: bool,
    },
    /// It is given up.
    Dead,
    /// The webhook is switched off: this and all that it is owed is held.
    Hold,
}

impl Store {
    /// What `webhook` is owed and due at `now`, soonest first; without what is suspected of killing the process.
    pub async fn due(&self, webhook: String, now: Timestamp, limit: u32) -> Result<Vec<Due>, StoreError> {
        self.follow_clock(now).await?;
        self.read(move |connection| {
            connection.rows(
                &format!("{DUE} AND crashes < {SUSPECT} ORDER BY due_at, deliveries.pk LIMIT ?3"),
                (webhook, ms(now), limit),
                read_due,
            )
        })
        .await
    }

    /// The same without what must wait for an earlier event about the same batch, or the same provider, that this webhook
    /// has not taken yet.
    pub async fn due_in_order(
        &self,
        webhook: String,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Due>, StoreError> {
        self.follow_clock(now).await?;
        self.read(move |connection| {
            connection.rows(
                &format!(
                    "{DUE} AND crashes < {SUSPECT} AND NOT EXISTS (
                   SELECT 1 FROM deliveries AS before JOIN events AS begun ON begun.sequence = before.sequence
                   WHERE before.webhook = ?1 AND before.state IN ('pending', 'inflight')
                     AND before.state <> 'delivered' AND before.sequence < deliveries.sequence
                     AND begun.provider IS NOT DISTINCT FROM events.provider AND begun.batch_id IS NOT DISTINCT FROM events.batch_id)
                 ORDER BY due_at, deliveries.pk LIMIT ?3"
                ),
                (webhook, ms(now), limit),
                read_due,
            )
        })
        .await
    }

    /// The delivery to `webhook` that is due at `now` and in which three processes in a row have died, if there is one
    /// (`docs/delivery.md#suspects`): to be sent alone.
    pub async fn suspect(&self, webhook: String, now: Timestamp) -> Result<Option<Due>, StoreError> {
        self.read(move |connection| {
            Ok(connection
                .rows(
                    &format!("{DUE} AND crashes >= {SUSPECT} ORDER BY due_at, deliveries.pk LIMIT 1"),
                    (webhook, ms(now)),
                    read_due,
                )?
                .pop())
        })
        .await
    }

    /// When the next delivery to `webhook` is due, seen from `now`: never later than its stored wait allows.
    pub async fn next_due(&self, webhook: String, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.follow_clock(now).await?;
        self.read(move |connection| {
            let next: Option<i64> = connection.row(
                "SELECT due_at FROM deliveries WHERE webhook = ?1 AND state = 'pending'
                     ORDER BY due_at LIMIT 1",
                [webhook],
                |row| row.get("due_at"),
            )?;
            Ok(next.map(at))
        })
        .await
    }

    /// Logs attempts before they are sent; a delivery that is not pending any more gives `None`.
    pub async fn begin_attempts(
        &self,
        deliveries: Vec<Pk>,
        now: Timestamp,
    ) -> Result<Vec<Option<Pk>>, StoreError> {
        self.write(move |tx| {
            deliveries.into_iter().map(|delivery| begin_attempt(tx, delivery, now)).collect()
        })
        .await
    }

    /// Logs how an attempt ended, moves its delivery on, and saves the webhook's state with it.
    ///
    /// An attempt never switches a webhook on: one that was switched off meanwhile stays off. An attempt whose
    /// batch was purged meanwhile leaves nothing.
    pub async fn finish_attempt(
        &self,
        attempt: Pk,
        end: AttemptEnd,
        webhook: WebhookState,
    ) -> Result<(), StoreError> {
        self.write(move |tx| finish_attempt(tx, attempt, end, webhook)).await
    }

    /// Notes that the process stops in an orderly way while these attempts to `webhook` are under way: should it be killed
    /// before they have ended, it did not die of them.
    pub async fn expect_stop(&self, webhook: String) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE attempts SET outcome = 'interrupted' WHERE outcome IS NULL
                   AND delivery IN (SELECT pk FROM deliveries WHERE webhook = ?1 AND state = 'inflight'
                     AND state <> 'delivered')",
                [webhook],
            )?;
            Ok(())
        })
        .await
    }

    /// Makes due at the next start what is under way to `webhook` while the process stops: attempts that are cut off use
    /// up nothing and are held against nobody.
    pub async fn interrupt(&self, webhook: String, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE attempts SET outcome = 'interrupted', finished_at = :now
                 WHERE (outcome IS NULL OR outcome = 'interrupted' AND finished_at IS NULL)
                   AND delivery IN (SELECT pk FROM deliveries WHERE webhook = :webhook AND state = 'inflight'
                     AND state <> 'delivered')",
                named! { ":webhook": webhook, ":now": ms(now) },
            )?;
            tx.execute(
                &format!(
                    "UPDATE deliveries SET state = CASE WHEN {REACHABLE} THEN 'pending' ELSE 'held' END,
                   due_at = :now, wait = 0, trigger = 'startup'
                 WHERE webhook = :webhook AND state = 'inflight' AND state <> 'delivered'"
                ),
                named! { ":webhook": webhook, ":now": ms(now) },
            )?;
            Ok(())
        })
        .await
    }

    /// Makes deliveries due now with a new budget, under the same event id; `false` where there is none such.
    ///
    /// Nor can one be sent again that is under way, or whose webhook is switched off or gone.
    pub async fn retry(&self, deliveries: Vec<Pk>, now: Timestamp) -> Result<Vec<bool>, StoreError> {
        self.write(move |tx| {
            let mut retried = Vec::with_capacity(deliveries.len());
            for delivery in deliveries {
                let webhook: Option<String> = tx.row(
                    &format!(
                        "{RETRY} WHERE pk = :pk AND state <> 'inflight' AND {REACHABLE} RETURNING webhook"
                    ),
                    named! { ":pk": delivery, ":now": ms(now) },
                    |row| row.get("webhook"),
                )?;
                retried.push(webhook.is_some());
                if let Some(webhook) = webhook {
                    tx.tell_webhook(&webhook);
                }
            }
            Ok(retried)
        })
        .await
    }

    /// The same for all that was given up, of one webhook or of all. Returns how many.
    pub async fn retry_dead(&self, webhook: Option<String>, now: Timestamp) -> Result<u64, StoreError> {
        self.write(move |tx| {
            let retried: Vec<String> = tx.rows(
                &format!(
                    "{RETRY} WHERE state = 'dead' AND state <> 'delivered' AND webhook = coalesce(:webhook, webhook)
                       AND {REACHABLE} RETURNING webhook"
                ),
                named! { ":webhook": webhook, ":now": ms(now) },
                |row| row.get("webhook"),
            )?;
            for webhook in &retried {
                tx.tell_webhook(webhook);
            }
            Ok(retried.len() as u64)
        })
        .await
    }

    /// Where the clock was set forward by `step` after `before`, moves every wait that had begun with it: it takes as
    /// long as it would have taken.
    pub async fn follow_step(&self, before: Timestamp, step: Duration) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE deliveries SET due_at = due_at + :step
                 WHERE state = 'pending' AND state <> 'delivered' AND due_at > :before AND due_at - wait <= :before",
                named! { ":before": ms(before), ":step": length(step) },
            )?;
            tx.tell_all_webhooks();
            Ok(())
        })
        .await
    }

    /// Where the clock was set back, counts every wait from `now` again: it never gets longer than it was.
    async fn follow_clock(&self, now: Timestamp) -> Result<(), StoreError> {
        let Some(daemon) = &self.0.daemon else { return Ok(()) };
        let before = daemon.asked_at.swap(ms(now), Ordering::Relaxed);
        // Callers that read the clock a moment apart may come in any order.
        if ms(now) >= before.saturating_sub(CLOCK_STEP) {
            return Ok(());
        }
        let followed = self
            .write(move |tx| {
                tx.tell_all_webhooks();
                shorten_waits(tx, now)
            })
            .await;
        if followed.is_err() {
            daemon.asked_at.store(before, Ordering::Relaxed);
        }
        followed
    }
}

fn begin_attempt(tx: &mut Tx<'_>, delivery: Pk, now: Timestamp) -> Result<Option<Pk>, StoreError> {
    let begun: Option<(i64, String)> = tx.row(
        "UPDATE deliveries SET state = 'inflight', attempts = attempts + 1
             WHERE pk = ?1 AND state = 'pending' RETURNING attempts, trigger",
        [delivery],
        |row| Ok((row.get("attempts")?, row.get("trigger")?)),
    )?;
    let Some((number, trigger)) = begun else { return Ok(None) };
    let attempt = tx.one(
        "INSERT INTO attempts (delivery, number, started_at, trigger)
         VALUES (:delivery, :number, :started_at, :trigger) RETURNING pk",
        named! {
            ":delivery": delivery,
            ":number": number,
            ":started_at": ms(now),
            ":trigger": trigger,
        },
        |row| row.get("pk"),
    )?;
    Ok(Some(attempt))
}

fn finish_attempt(
    tx: &mut Tx<'_>,
    attempt: Pk,
    end: AttemptEnd,
    mut state: WebhookState,
) -> Result<(), StoreError> {
    let error = end.error.map(shortened);
    let delivery: Option<Pk> = tx.row(
        "UPDATE attempts SET finished_at = :finished_at, outcome = :outcome, http_status = :http_status,
               error = :error, excerpt = :excerpt
             WHERE pk = :pk AND (outcome IS NULL OR outcome = 'interrupted' AND finished_at IS NULL)
             RETURNING delivery",
        named! {
            ":pk": attempt,
            ":finished_at": ms(end.at),
            ":outcome": end.outcome,
            ":http_status": end.http_status,
            ":error": error,
            ":excerpt": end.excerpt.map(shortened),
        },
        |row| row.get("delivery"),
    )?;
    let Some(delivery) = delivery else { return Ok(()) };
    let webhook: String =
        tx.one("SELECT webhook FROM deliveries WHERE pk = ?1", [delivery], |row| row.get("webhook"))?;

    if let Some(stored) = load_webhook(tx, &webhook)? {
        let stays_off = stored.disabled.is_some() && (state.disabled.is_none() || stored.by_hand);
        // It was switched on meanwhile, which whoever sends has not heard yet; only what this attempt shows counts.
        let stays_on = stored.disabled.is_none() && end.next != Next::Hold;
        if stays_off || stays_on {
            (state.disabled, state.by_hand) = (stored.disabled, stored.by_hand);
        }
    }
    save_webhook(tx, &webhook, &state)?;

    let (new, counts, plain, due_at, wait) = match end.next {
        Next::Delivered => (DeliveryState::Delivered, true, false, end.at, Duration::ZERO),
        Next::Again { at, wait, counts, plain } => (DeliveryState::Pending, counts, plain, at, wait),
        Next::Dead => (DeliveryState::Dead, true, false, end.at, Duration::ZERO),
        Next::Hold => (DeliveryState::Held, false, false, end.at, Duration::ZERO),
    };
    let last_error = (new != DeliveryState::Delivered).then(|| error.unwrap_or(end.outcome));
    tx.execute(
        &format!(
            "UPDATE deliveries SET
           state = CASE WHEN :state = 'pending' AND NOT {REACHABLE} THEN 'held' ELSE :state END,
           counted = counted + :counts, plain = CASE WHEN :plain > plain THEN :plain ELSE plain END, due_at = :due_at, wait = :wait,
           last_error = :last_error, crashes = 0, trigger = 'schedule',
           untold = CASE WHEN :state = 'dead' THEN {TOLD_OF} ELSE 0 END
         WHERE pk = :pk AND state = 'inflight'"
        ),
        named! {
            ":pk": delivery,
            ":state": new.as_str(),
            ":counts": counts,
            ":plain": plain,
            ":due_at": ms(due_at),
            ":wait": length(wait),
            ":last_error": last_error,
        },
    )?;
    if state.disabled.is_some() || end.next == Next::Hold {
        hold(tx, &webhook)?;
    }
    Ok(())
}

fn read_due(row: &Row<'_>) -> Result<Due, StoreError> {
    Ok(Due {
        pk: row.get("pk")?,
        event_id: row.get("event_id")?,
        kind: event_type(row, "type")?,
        body: row.get("body")?,
        attempts: row.get("counted")?,
        plain: row.get("plain")?,
        recorded_at: instant(row, "recorded_at")?,
        sequence: row.get("sequence")?,
    })
}

/// What of an answer or an error is kept.
fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text
}

const DUE: &str = "SELECT deliveries.pk AS pk, id AS event_id, type, body, counted, plain, events.recorded_at AS recorded_at, sequence
     FROM deliveries JOIN events USING (sequence) WHERE webhook = ?1 AND state = 'pending' AND due_at <= ?2";
const RETRY: &str =
    "UPDATE deliveries SET state = 'pending', due_at = :now, wait = 0, counted = 0, crashes = 0,
     untold = 0, trigger = 'manual'";
/// Bytes of an answer or an error.
const MAX_TEXT: usize = 2048;
/// Milliseconds by which the clock must go back to count as set back.
const CLOCK_STEP: i64 = 1000;
