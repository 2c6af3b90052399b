//! What webhooks are owed: deliveries, their attempts, and the state of each webhook.

use super::column::{at, collect, count, event_type, length, maybe_at, ms, word};
use super::{Pk, Store, StoreError, Tx};
use crate::domain::event::EventType;
use crate::domain::route::Route;
use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// It waits for its time.
    Pending,
    /// An attempt is under way.
    Inflight,
    /// It was accepted.
    Delivered,
    /// It was given up.
    Dead,
    /// Its webhook is switched off or gone.
    Held,
}

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
}

/// Why an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Its time had come.
    Schedule,
    /// Somebody asked.
    Manual,
    /// The process before died with it in flight.
    Startup,
}

/// How an attempt ended, and what becomes of the delivery.
#[derive(Clone, Debug)]
pub struct AttemptEnd {
    /// When.
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
        /// When.
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

/// A delivery as it is shown.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its row.
    pub pk: Pk,
    /// `evt_…`
    pub event_id: String,
    /// What happened.
    pub kind: EventType,
    /// The batch that it is about, if any.
    pub batch_id: Option<String>,
    /// The provider that it is about, if any.
    pub provider: Option<String>,
    /// To whom.
    pub webhook: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// Attempts so far, all of them.
    pub attempts: u32,
    /// When it is tried next.
    pub next_attempt_at: Option<Timestamp>,
    /// What went wrong the last time.
    pub last_error: Option<String>,
}

/// One attempt as it is shown.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; `None`: it is under way, or the process died in it.
    pub finished_at: Option<Timestamp>,
    /// Why it was made.
    pub trigger: Trigger,
    /// One word; `unknown_crash` if the process died in it.
    pub outcome: Option<String>,
    /// The answer's code.
    pub http_status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// The beginning of the answer.
    pub excerpt: Option<String>,
}

/// Which deliveries to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    /// Only in this state.
    pub state: Option<DeliveryState>,
    /// Only to this webhook.
    pub webhook: Option<String>,
    /// Only of events about this batch.
    pub batch: Option<crate::domain::tracked::BatchKey>,
    /// Only what comes after this one.
    pub after: Option<Pk>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// What is remembered of a webhook across restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookState {
    /// Why it is switched off, if it is.
    pub disabled: Option<String>,
    /// Whether it was switched off by a person (who alone switches it on again).
    pub by_hand: bool,
    /// Failures in a row.
    pub failures: u32,
    /// Since when it fails.
    pub failing_since: Option<Timestamp>,
    /// Until when its receiver wants to be left alone.
    pub paused_until: Option<Timestamp>,
    /// When it last accepted something.
    pub last_success_at: Option<Timestamp>,
    /// A short keyed hash of where it points: if that changes, what was held is sent there.
    pub fingerprint: Option<String>,
}

/// How much a webhook is owed; what was delivered is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// By state.
    pub counts: Vec<(DeliveryState, u64)>,
    /// The oldest that is neither delivered nor dead.
    pub oldest: Option<Timestamp>,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Inflight, Self::Delivered, Self::Dead, Self::Held];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Inflight => "inflight",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Held => "held",
        }
    }

    /// Whether a delivery in it is still owed.
    pub const fn is_owed(self) -> bool {
        matches!(self, Self::Pending | Self::Inflight | Self::Held)
    }

    /// The state that exactly `word` names, if any.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl Trigger {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Manual => "manual",
            Self::Startup => "startup",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Schedule, Self::Manual, Self::Startup].into_iter().find(|trigger| trigger.as_str() == word)
    }
}

impl Store {
    /// What `webhook` is owed and due at `now`, soonest first.
    pub async fn due(&self, webhook: String, now: Timestamp, limit: u32) -> Result<Vec<Due>, StoreError> {
        self.follow_clock(now).await?;
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT deliveries.pk, id, type, body, counted, plain, events.recorded_at
                 FROM deliveries JOIN events USING (sequence)
                 WHERE webhook = ?1 AND state = 'pending' AND due_at <= ?2 ORDER BY due_at, deliveries.pk LIMIT ?3",
            )?;
            collect(query.query((webhook, ms(now), limit))?, |row| {
                Ok(Due {
                    pk: row.get(0)?,
                    event_id: row.get(1)?,
                    kind: event_type(row, 2)?,
                    body: row.get(3)?,
                    attempts: row.get(4)?,
                    plain: row.get(5)?,
                    recorded_at: at(row.get(6)?),
                })
            })
        })
        .await
    }

    /// When the next delivery to `webhook` is due, seen from `now`: never later than its stored wait allows.
    pub async fn next_due(&self, webhook: String, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.follow_clock(now).await?;
        self.read(move |connection| {
            let next: Option<i64> = connection
                .prepare_cached(
                    "SELECT min(due_at) FROM deliveries WHERE webhook = ?1 AND state = 'pending'",
                )?
                .query_row([webhook], |row| row.get(0))?;
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

    /// Lists deliveries; the flag says whether there are more.
    pub async fn deliveries(&self, filter: DeliveryFilter) -> Result<(Vec<Delivery>, bool), StoreError> {
        let limit = filter.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let (rest, values) = filter.sql();
        let mut found = self
            .read(move |connection| {
                let mut query = connection.prepare_cached(&format!(
                    "SELECT deliveries.pk, events.id, type, batch_id, provider, webhook, state, attempts, due_at,
                       last_error
                     FROM deliveries JOIN events USING (sequence) {rest}"
                ))?;
                collect(query.query(params_from_iter(values))?, |row| {
                    let state = word(row, 6, DeliveryState::from_word)?;
                    Ok(Delivery {
                        pk: row.get(0)?,
                        event_id: row.get(1)?,
                        kind: event_type(row, 2)?,
                        batch_id: row.get(3)?,
                        provider: row.get(4)?,
                        webhook: row.get(5)?,
                        state,
                        attempts: row.get(7)?,
                        next_attempt_at: maybe_at(row, 8)?.filter(|_| state == DeliveryState::Pending),
                        last_error: row.get(9)?,
                    })
                })
            })
            .await?;
        let more = limit.is_some_and(|limit| found.len() > limit);
        found.truncate(limit.unwrap_or(usize::MAX));
        Ok((found, more))
    }

    /// The attempts at one delivery, oldest first.
    pub async fn attempts(&self, delivery: Pk) -> Result<Vec<Attempt>, StoreError> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT number, started_at, finished_at, trigger, outcome, http_status, error, excerpt
                 FROM attempts WHERE delivery = ?1 ORDER BY number",
            )?;
            collect(query.query([delivery])?, |row| {
                Ok(Attempt {
                    number: row.get(0)?,
                    started_at: at(row.get(1)?),
                    finished_at: maybe_at(row, 2)?,
                    trigger: word(row, 3, Trigger::from_word)?,
                    outcome: row.get(4)?,
                    http_status: row.get(5)?,
                    error: row.get(6)?,
                    excerpt: row.get(7)?,
                })
            })
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
                let changed = tx
                    .prepare_cached(&format!(
                        "{RETRY} WHERE pk = ?2 AND state <> 'inflight' AND {REACHABLE}"
                    ))?
                    .execute((ms(now), delivery))?;
                retried.push(changed > 0);
            }
            if retried.contains(&true) {
                tx.tell_deliveries();
            }
            Ok(retried)
        })
        .await
    }

    /// The same for all that was given up, of one webhook or of all. Returns how many.
    pub async fn retry_dead(&self, webhook: Option<String>, now: Timestamp) -> Result<u64, StoreError> {
        self.write(move |tx| {
            let changed = tx
                .prepare_cached(&format!(
                    "{RETRY} WHERE state = 'dead' AND state <> 'delivered' AND webhook = coalesce(?2, webhook)
                       AND {REACHABLE}"
                ))?
                .execute((ms(now), webhook))?;
            if changed > 0 {
                tx.tell_deliveries();
            }
            Ok(changed as u64)
        })
        .await
    }

    /// What is remembered of every webhook.
    pub async fn webhook_states(&self) -> Result<Vec<(String, WebhookState)>, StoreError> {
        self.read(|connection| {
            let mut query =
                connection.prepare_cached(&format!("SELECT {STATE}, name FROM webhooks ORDER BY name"))?;
            collect(query.query([])?, |row| Ok((row.get(7)?, webhook_state(row)?)))
        })
        .await
    }

    /// Saves what is to be remembered of `webhook`. Switching it off holds what is pending, switching it on
    /// releases what is held, in the same transaction.
    pub async fn set_webhook_state(
        &self,
        webhook: String,
        state: WebhookState,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let was_off = load_webhook(tx, &webhook)?.is_some_and(|state| state.disabled.is_some());
            save_webhook(tx, &webhook, &state)?;
            if state.disabled.is_some() {
                hold(tx, &webhook)?;
            } else if was_off {
                release(tx, now)?;
            }
            Ok(())
        })
        .await
    }

    /// Holds what is owed to webhooks that are not in `configured`, and releases what is held of those that are and
    /// are not switched off.
    pub async fn align_webhooks(&self, configured: Vec<String>, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |tx| {
            // Those of which nothing is remembered but that they are owed something get a row too.
            tx.execute(
                "INSERT INTO webhooks (name) SELECT DISTINCT webhook FROM deliveries
                 WHERE state <> 'delivered' ON CONFLICT DO NOTHING",
                [],
            )?;
            tx.execute("UPDATE webhooks SET configured = 0", [])?;
            for webhook in &configured {
                tx.prepare_cached(
                    "INSERT INTO webhooks (name) VALUES (?1) ON CONFLICT (name) DO UPDATE SET configured = 1",
                )?
                .execute([webhook])?;
            }
            tx.execute(
                "UPDATE deliveries SET state = 'held' WHERE state = 'pending' AND state <> 'delivered'
                   AND webhook NOT IN (SELECT name FROM webhooks WHERE configured = 1 AND disabled IS NULL)",
                [],
            )?;
            release(tx, now)
        })
        .await
    }

    /// How much each webhook is owed.
    pub async fn backlogs(&self) -> Result<Vec<(String, Backlog)>, StoreError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT webhook, state, count(*), min(recorded_at) FROM deliveries
                 WHERE state <> 'delivered' GROUP BY webhook, state ORDER BY webhook, state",
            )?;
            let mut backlogs: Vec<(String, Backlog)> = Vec::new();
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let webhook: String = row.get(0)?;
                if backlogs.last().is_none_or(|(last, _)| *last != webhook) {
                    backlogs.push((webhook, Backlog::default()));
                }
                let Some((_, backlog)) = backlogs.last_mut() else { continue };
                let state = word(row, 1, DeliveryState::from_word)?;
                backlog.counts.push((state, count(row, 2)?));
                if state != DeliveryState::Dead {
                    let oldest = at(row.get(3)?);
                    backlog.oldest = Some(backlog.oldest.map_or(oldest, |known| known.min(oldest)));
                }
            }
            Ok(backlogs)
        })
        .await
    }

    /// Wakes whenever a delivery was added or made due.
    ///
    /// Of a store that was opened for reading only it never wakes.
    pub fn watch_deliveries(&self) -> watch::Receiver<u64> {
        match &self.0.daemon {
            Some(daemon) => daemon.writer.core.watch_deliveries(),
            None => watch::Sender::new(0).subscribe(),
        }
    }

    /// Where the clock was set back, counts every wait from `now` again: it never gets longer than it was.
    async fn follow_clock(&self, now: Timestamp) -> Result<(), StoreError> {
        let Some(daemon) = &self.0.daemon else { return Ok(()) };
        let before = daemon.asked_at.swap(ms(now), Ordering::Relaxed);
        // Callers that looked at the clock a moment apart may come in any order.
        if ms(now) >= before.saturating_sub(CLOCK_STEP) {
            return Ok(());
        }
        let followed = self
            .write(move |tx| {
                tx.tell_deliveries();
                shorten_waits(tx, now)
            })
            .await;
        if followed.is_err() {
            daemon.asked_at.store(before, Ordering::Relaxed);
        }
        followed
    }
}

impl DeliveryFilter {
    /// What follows the tables, and its values.
    fn sql(self) -> (String, Vec<Value>) {
        let mut sql = String::from("WHERE TRUE");
        let mut values: Vec<Value> = Vec::new();
        if let Some(state) = self.state {
            // Said in the words of the index.
            sql.push_str(" AND state = ?");
            if state != DeliveryState::Delivered {
                sql.push_str(" AND state <> 'delivered'");
            }
            values.push(state.as_str().to_owned().into());
        }
        if let Some(webhook) = self.webhook {
            sql.push_str(" AND webhook = ?");
            values.push(webhook.into());
        }
        if let Some(key) = self.batch {
            sql.push_str(
                " AND events.batch = (SELECT pk FROM batches WHERE batches.provider = ? AND batches.id = ?)",
            );
            values.extend([key.provider.into(), key.id.into()]);
        }
        if let Some(after) = self.after {
            sql.push_str(" AND deliveries.pk < ?");
            values.push(after.into());
        }
        sql.push_str(" ORDER BY deliveries.pk DESC");
        if let Some(limit) = self.limit {
            // One more tells whether there are more.
            let _ = write!(sql, " LIMIT {}", u64::from(limit) + 1);
        }
        (sql, values)
    }
}

/// Notes that the webhook of `route` is owed an event.
pub(super) fn owe(tx: &mut Tx<'_>, sequence: i64, route: &Route) -> Result<(), StoreError> {
    // A route may be older than the last switch; the row never is.
    let reachable: Option<bool> = tx
        .prepare_cached("SELECT configured = 1 AND disabled IS NULL FROM webhooks WHERE name = ?1")?
        .query_row([&route.webhook], |row| row.get(0))
        .optional()?;
    let state =
        if reachable.unwrap_or(!route.disabled) { DeliveryState::Pending } else { DeliveryState::Held };
    tx.prepare_cached(
        "INSERT INTO deliveries (sequence, webhook, state, due_at, recorded_at) VALUES (?1, ?2, ?3, ?4, ?4)
         ON CONFLICT DO NOTHING",
    )?
    .execute((sequence, &route.webhook, state.as_str(), ms(tx.now)))?;
    tx.tell_deliveries();
    Ok(())
}

/// Makes due at once what was under way when the process before died, whatever the clock says.
///
/// A delivery in which ten processes in a row have died comes a minute later, then two, then four, up to about an
/// hour: if it is what kills them, it does not keep the daemon from everything else.
pub(super) fn recover(connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    connection.execute("UPDATE attempts SET outcome = 'unknown_crash' WHERE outcome IS NULL", [])?;
    connection.execute(
        "UPDATE deliveries SET
           state = CASE WHEN webhook IN (SELECT name FROM webhooks WHERE disabled IS NOT NULL)
             THEN 'held' ELSE 'pending' END,
           crashes = crashes + 1,
           wait = CASE WHEN crashes < 9 THEN 0 ELSE 60000 << min(crashes - 9, 6) END,
           due_at = ?1 + CASE WHEN crashes < 9 THEN 0 ELSE 60000 << min(crashes - 9, 6) END,
           trigger = 'startup'
         WHERE state = 'inflight' AND state <> 'delivered'",
        [ms(now)],
    )?;
    shorten_waits(connection, now)
}

/// Where a wait ends later than it can have begun by `now`, it begins now (`delivery.md` §4.9).
fn shorten_waits(connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE deliveries SET due_at = ?1 + wait
         WHERE state = 'pending' AND state <> 'delivered' AND due_at > ?1 + wait",
        [ms(now)],
    )?;
    Ok(())
}

fn begin_attempt(tx: &mut Tx<'_>, delivery: Pk, now: Timestamp) -> Result<Option<Pk>, StoreError> {
    let begun: Option<(i64, String)> = tx
        .prepare_cached(
            "UPDATE deliveries SET state = 'inflight', attempts = attempts + 1
             WHERE pk = ?1 AND state = 'pending' RETURNING attempts, trigger",
        )?
        .query_row([delivery], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((number, trigger)) = begun else { return Ok(None) };
    tx.prepare_cached(
        "INSERT INTO attempts (delivery, number, started_at, trigger) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute((delivery, number, ms(now), trigger))?;
    Ok(Some(tx.last_insert_rowid()))
}

fn finish_attempt(
    tx: &mut Tx<'_>,
    attempt: Pk,
    end: AttemptEnd,
    mut state: WebhookState,
) -> Result<(), StoreError> {
    let error = end.error.map(shortened);
    let delivery: Option<Pk> = tx
        .prepare_cached(
            "UPDATE attempts SET finished_at = ?2, outcome = ?3, http_status = ?4, error = ?5, excerpt = ?6
             WHERE pk = ?1 AND outcome IS NULL RETURNING delivery",
        )?
        .query_row(
            (attempt, ms(end.at), &end.outcome, end.http_status, &error, end.excerpt.map(shortened)),
            |row| row.get(0),
        )
        .optional()?;
    let Some(delivery) = delivery else { return Ok(()) };
    let webhook: String = tx
        .prepare_cached("SELECT webhook FROM deliveries WHERE pk = ?1")?
        .query_row([delivery], |row| row.get(0))?;

    if let Some(stored) = load_webhook(tx, &webhook)?
        && stored.disabled.is_some()
        && (state.disabled.is_none() || stored.by_hand)
    {
        (state.disabled, state.by_hand) = (stored.disabled, stored.by_hand);
    }
    save_webhook(tx, &webhook, &state)?;

    let (new, counts, plain, due_at, wait) = match end.next {
        Next::Delivered => (DeliveryState::Delivered, true, false, end.at, Duration::ZERO),
        Next::Again { at, wait, counts, plain } => (DeliveryState::Pending, counts, plain, at, wait),
        Next::Dead => (DeliveryState::Dead, true, false, end.at, Duration::ZERO),
        Next::Hold => (DeliveryState::Held, false, false, end.at, Duration::ZERO),
    };
    let last_error = (new != DeliveryState::Delivered).then(|| error.unwrap_or(end.outcome));
    tx.prepare_cached(&format!(
        "UPDATE deliveries SET state = CASE WHEN ?2 = 'pending' AND NOT {REACHABLE} THEN 'held' ELSE ?2 END,
           counted = counted + ?3, plain = max(plain, ?4), due_at = ?5, wait = ?6, last_error = ?7,
           crashes = 0, trigger = 'schedule'
         WHERE pk = ?1 AND state = 'inflight'"
    ))?
    .execute((delivery, new.as_str(), counts, plain, ms(due_at), length(wait), last_error))?;
    if state.disabled.is_some() || end.next == Next::Hold {
        hold(tx, &webhook)?;
    }
    Ok(())
}

/// Holds what is pending of `webhook`.
fn hold(tx: &Tx<'_>, webhook: &str) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE deliveries SET state = 'held' WHERE webhook = ?1 AND state = 'pending'")?
        .execute([webhook])?;
    Ok(())
}

/// Makes due what is held of webhooks that are configured and switched on.
fn release(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    let released = tx
        .prepare_cached(&format!(
            "UPDATE deliveries SET state = 'pending', due_at = ?1, wait = 0
             WHERE state = 'held' AND state <> 'delivered' AND {REACHABLE}"
        ))?
        .execute([ms(now)])?;
    if released > 0 {
        tx.tell_deliveries();
    }
    Ok(())
}

fn load_webhook(connection: &Connection, webhook: &str) -> Result<Option<WebhookState>, StoreError> {
    connection
        .prepare_cached(&format!("SELECT {STATE} FROM webhooks WHERE name = ?1"))?
        .query_and_then([webhook], webhook_state)?
        .next()
        .transpose()
}

fn save_webhook(connection: &Connection, webhook: &str, state: &WebhookState) -> Result<(), StoreError> {
    connection
        .prepare_cached(&format!(
            "INSERT INTO webhooks ({STATE}, name) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (name) DO UPDATE SET ({STATE}) = (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
        ))?
        .execute((
            &state.disabled,
            state.by_hand,
            state.failures,
            state.failing_since.map(ms),
            state.paused_until.map(ms),
            state.last_success_at.map(ms),
            &state.fingerprint,
            webhook,
        ))?;
    Ok(())
}

/// Reads a row of [`STATE`].
fn webhook_state(row: &rusqlite::Row<'_>) -> Result<WebhookState, StoreError> {
    Ok(WebhookState {
        disabled: row.get(0)?,
        by_hand: row.get(1)?,
        failures: row.get(2)?,
        failing_since: maybe_at(row, 3)?,
        paused_until: maybe_at(row, 4)?,
        last_success_at: maybe_at(row, 5)?,
        fingerprint: row.get(6)?,
    })
}

/// What of an answer or an error is kept.
fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MOST_TEXT));
    text
}

const STATE: &str = "disabled, by_hand, failures, failing_since, paused_until, last_success_at, fingerprint";
/// The webhook of the row is configured and switched on, as far as is known.
const REACHABLE: &str = "NOT EXISTS (
     SELECT 1 FROM webhooks WHERE name = deliveries.webhook AND (configured = 0 OR disabled IS NOT NULL))";
const RETRY: &str =
    "UPDATE deliveries SET state = 'pending', due_at = ?1, wait = 0, counted = 0, crashes = 0,
     trigger = 'manual'";
/// Bytes of an answer or an error.
const MOST_TEXT: usize = 2048;
/// Milliseconds by which the clock must go back to count as set back.
const CLOCK_STEP: i64 = 1000;
