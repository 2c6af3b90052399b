//! From owed to accepted: what is due, attempts that are logged before they are made, how they ended, and what a crash
//! or a clock that was set leaves to put right.

use super::super::column::{Pk, at, event_type, instant, length, ms};
use super::super::error::StoreError;
use super::super::given::Given;
use super::super::operations::Many;
use super::super::sql::Row;
use super::super::state::Store;
use super::super::transaction::Tx;
use super::super::value::{Value, named};
use super::delivery::{DeliveryState, REACHABLE};
use super::recovering::{TOLD_OF, shorten_waits};
use super::webhooks::{WebhookState, hold, load_webhooks, save_webhook};
use crate::domain::event::EventType;
use crate::domain::suspect::SUSPECT;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
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
        self.write_in_set(Beginning { deliveries, now }).await
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
        self.write_in_set(Ended { attempt, end, webhook }).await
    }

    /// Notes that the process stops in an orderly way while these attempts to `webhook` are under way: should it be killed
    /// before they have ended, it did not die of them.
    pub async fn expect_stop(&self, webhook: String) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.send(
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
            tx.send(
                "UPDATE attempts SET outcome = 'interrupted', finished_at = :now
                 WHERE (outcome IS NULL OR outcome = 'interrupted' AND finished_at IS NULL)
                   AND delivery IN (SELECT pk FROM deliveries WHERE webhook = :webhook AND state = 'inflight'
                     AND state <> 'delivered')",
                named! { ":webhook": webhook, ":now": ms(now) },
            )?;
            tx.send(
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
            tx.send(
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

/// Deliveries to which attempts are about to be sent.
struct Beginning {
    deliveries: Vec<Pk>,
    now: Timestamp,
}

impl Many for Beginning {
    type Answer = Vec<Option<Pk>>;

    fn key(&self) -> Option<Pk> {
        None
    }

    fn all(tx: &mut Tx<'_>, beginnings: &[Self]) -> Result<Vec<Self::Answer>, StoreError> {
        let mut known = BTreeSet::new();
        let begins =
            beginnings.iter().flat_map(|of| of.deliveries.iter().map(|delivery| (*delivery, of.now)));
        let begins: Vec<(Pk, Timestamp)> = begins.filter(|(delivery, _)| known.insert(*delivery)).collect();
        let begun = tx.rows_of(
            "UPDATE deliveries SET state = 'inflight', attempts = deliveries.attempts + 1
             FROM given(delivery INT) WHERE pk = given.delivery AND state = 'pending'
             RETURNING pk, attempts, trigger",
            &Given::each(begins.iter().map(|(delivery, _)| *delivery)),
            |row| Ok((row.get("pk")?, row.get::<i64>("attempts")?, row.get::<String>("trigger")?)),
        )?;
        let mut begun: BTreeMap<Pk, (i64, String)> =
            begun.into_iter().map(|(pk, number, trigger)| (pk, (number, trigger))).collect();
        let attempts = begins.into_iter().filter_map(|(delivery, now)| {
            let (number, trigger) = begun.remove(&delivery)?;
            Some(vec![delivery.into(), number.into(), ms(now).into(), trigger.into()])
        });
        let attempts = tx.rows_of(
            "INSERT INTO attempts (delivery, number, started_at, trigger)
             SELECT given.delivery, given.number, given.started_at, given.trigger
             FROM given(delivery INT, number INT, started_at INT, trigger TEXT) RETURNING pk, delivery",
            &attempts.collect(),
            |row| Ok((row.get("delivery")?, row.get("pk")?)),
        )?;
        // Of two that begin the same the first does.
        let mut attempts: BTreeMap<Pk, Pk> = attempts.into_iter().collect();
        let one = |of: &Self| of.deliveries.iter().map(|delivery| attempts.remove(delivery)).collect();
        Ok(beginnings.iter().map(one).collect())
    }
}

/// An attempt that has ended.
struct Ended {
    attempt: Pk,
    end: AttemptEnd,
    webhook: WebhookState,
}

impl Many for Ended {
    type Answer = ();

    fn key(&self) -> Option<Pk> {
        Some(self.attempt)
    }

    fn all(tx: &mut Tx<'_>, ended: &[Self]) -> Result<Vec<()>, StoreError> {
        let done = vec![(); ended.len()];
        let rows = ended.iter().map(|Self { attempt, end, .. }| {
            vec![
                (*attempt).into(),
                ms(end.at).into(),
                end.outcome.clone().into(),
                end.http_status.into(),
                end.error.clone().map(shortened).into(),
                end.excerpt.clone().map(shortened).into(),
            ]
        });
        let open = tx.rows_of(
            "UPDATE attempts SET finished_at = given.finished_at, outcome = given.outcome,
               http_status = given.http_status, error = given.error, excerpt = given.excerpt
             FROM given(attempt INT, finished_at INT, outcome TEXT, http_status INT, error TEXT, excerpt TEXT)
             WHERE pk = given.attempt
               AND (attempts.outcome IS NULL OR attempts.outcome = 'interrupted' AND attempts.finished_at IS NULL)
             RETURNING pk, delivery,
               (SELECT webhook FROM deliveries WHERE deliveries.pk = attempts.delivery) AS webhook",
            &rows.collect(),
            |row| Ok((row.get("pk")?, (row.get("delivery")?, row.get("webhook")?))),
        )?;
        let open: BTreeMap<Pk, (Pk, String)> = open.into_iter().collect();
        let ended: Vec<(&Self, Pk, &str)> = ended
            .iter()
            .filter_map(|of| {
                open.get(&of.attempt).map(|(delivery, webhook)| (of, *delivery, webhook.as_str()))
            })
            .collect();
        if ended.is_empty() {
            return Ok(done);
        }
        let off = save_webhooks(tx, &ended)?;
        let moved = ended.iter().map(|(Self { end, .. }, delivery, _)| moved_on(end, *delivery));
        tx.set(
            &format!(
                "UPDATE deliveries SET
                   state = CASE WHEN given.state = 'pending' AND NOT {REACHABLE} THEN 'held' ELSE given.state END,
                   counted = counted + given.counts,
                   plain = CASE WHEN given.plain > deliveries.plain THEN given.plain ELSE deliveries.plain END,
                   due_at = given.due_at, wait = given.wait, last_error = given.last_error, crashes = 0,
                   trigger = 'schedule', untold = CASE WHEN given.state = 'dead' THEN {TOLD_OF} ELSE 0 END
                 FROM given(delivery INT, state TEXT, counts INT, plain INT, due_at INT, wait INT, last_error TEXT)
                 WHERE pk = given.delivery AND deliveries.state = 'inflight'"
            ),
            &moved.collect(),
        )?;
        let held = ended.iter().filter(|(of, ..)| of.end.next == Next::Hold).map(|(.., webhook)| *webhook);
        for webhook in held.chain(off.iter().map(String::as_str)).collect::<BTreeSet<_>>() {
            hold(tx, webhook)?;
        }
        Ok(done)
    }
}

/// Saves how the webhooks stand after these attempts, each of which knows it as it was when it ended. Returns those that
/// are switched off.
fn save_webhooks(tx: &Tx<'_>, ended: &[(&Ended, Pk, &str)]) -> Result<Vec<String>, StoreError> {
    let names: BTreeSet<&str> = ended.iter().map(|(.., webhook)| *webhook).collect();
    let stored = load_webhooks(tx, names.into_iter())?;
    let mut states: BTreeMap<&str, WebhookState> = BTreeMap::new();
    for (Ended { webhook: state, end, .. }, _, webhook) in ended {
        let mut state = state.clone();
        if let Some(stored) = states.get(webhook).or_else(|| stored.get(*webhook)) {
            let stays_off = stored.disabled.is_some() && (state.disabled.is_none() || stored.by_hand);
            // It was switched on meanwhile, which whoever sends has not heard yet; only what this attempt shows counts.
            let stays_on = stored.disabled.is_none() && end.next != Next::Hold;
            if stays_off || stays_on {
                (state.disabled, state.by_hand) = (stored.disabled.clone(), stored.by_hand);
            }
        }
        states.insert(webhook, state);
    }
    for (webhook, state) in &states {
        save_webhook(tx, webhook, state)?;
    }
    let off = states.into_iter().filter(|(_, state)| state.disabled.is_some());
    Ok(off.map(|(webhook, _)| webhook.to_owned()).collect())
}

/// What becomes of a delivery after an attempt that has ended so.
fn moved_on(end: &AttemptEnd, delivery: Pk) -> Vec<Value> {
    let (new, counts, plain, due_at, wait) = match end.next {
        Next::Delivered => (DeliveryState::Delivered, true, false, end.at, Duration::ZERO),
        Next::Again { at, wait, counts, plain } => (DeliveryState::Pending, counts, plain, at, wait),
        Next::Dead => (DeliveryState::Dead, true, false, end.at, Duration::ZERO),
        Next::Hold => (DeliveryState::Held, false, false, end.at, Duration::ZERO),
    };
    let error = || end.error.clone().map_or_else(|| end.outcome.clone(), shortened);
    vec![
        delivery.into(),
        new.as_str().to_owned().into(),
        counts.into(),
        plain.into(),
        ms(due_at).into(),
        length(wait).into(),
        (new != DeliveryState::Delivered).then(error).into(),
    ]
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
