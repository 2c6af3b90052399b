//! Deliveries and their attempts, as they are listed and counted.

use super::super::column::{Pk, count, event_type, instant, maybe_at, word};
use super::super::error::StoreError;
use super::super::state::Store;
use super::super::value::Value;
use crate::domain::event::EventType;
use crate::domain::tracked::BatchKey;
use jiff::Timestamp;
use std::fmt::Write;
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
    /// When its event was recorded.
    pub created_at: Timestamp,
    /// When the last attempt began.
    pub last_attempt_at: Option<Timestamp>,
    /// When it was last accepted.
    pub delivered_at: Option<Timestamp>,
    /// The code of the answer to the last attempt, if one came.
    pub last_status_code: Option<u16>,
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
    pub batch: Option<BatchKey>,
    /// Only those whose last attempt was answered with this code.
    pub code: Option<u16>,
    /// Only what comes after this one.
    pub after: Option<Pk>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// How much a webhook is owed; what was delivered is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
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
    /// Lists deliveries; the flag says whether there are more.
    pub async fn deliveries(&self, filter: DeliveryFilter) -> Result<(Vec<Delivery>, bool), StoreError> {
        let limit = filter.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let (rest, values) = filter.sql();
        let mut found = self
            .read(move |connection| {
                connection.rows(&format!(
                    "SELECT deliveries.pk AS pk, events.id AS event_id, type, batch_id, provider, webhook, state, attempts, due_at,
                       last_error, deliveries.recorded_at AS recorded_at, last.started_at AS last_attempt_at, last.http_status AS last_status_code,
                       (SELECT max(finished_at) FROM attempts WHERE delivery = deliveries.pk AND outcome = 'delivered')
                         AS delivered_at
                     FROM deliveries JOIN events USING (sequence)
                     LEFT JOIN attempts AS last ON last.delivery = deliveries.pk AND last.number = deliveries.attempts {rest}"
                ), values.as_slice(), |row| {
                    let state = word(row, "state", DeliveryState::from_word)?;
                    Ok(Delivery {
                        pk: row.get("pk")?,
                        event_id: row.get("event_id")?,
                        kind: event_type(row, "type")?,
                        batch_id: row.get("batch_id")?,
                        provider: row.get("provider")?,
                        webhook: row.get("webhook")?,
                        state,
                        attempts: row.get("attempts")?,
                        created_at: instant(row, "recorded_at")?,
                        last_attempt_at: maybe_at(row, "last_attempt_at")?,
                        delivered_at: maybe_at(row, "delivered_at")?,
                        last_status_code: row.get("last_status_code")?,
                        next_attempt_at: maybe_at(row, "due_at")?
                            .filter(|_| state == DeliveryState::Pending),
                        last_error: row.get("last_error")?,
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
            connection.rows(
                "SELECT number, started_at, finished_at, trigger, outcome, http_status, error, excerpt
                 FROM attempts WHERE delivery = ?1 ORDER BY number",
                [delivery],
                |row| {
                    Ok(Attempt {
                        number: row.get("number")?,
                        started_at: instant(row, "started_at")?,
                        finished_at: maybe_at(row, "finished_at")?,
                        trigger: word(row, "trigger", Trigger::from_word)?,
                        outcome: row.get("outcome")?,
                        http_status: row.get("http_status")?,
                        error: row.get("error")?,
                        excerpt: row.get("excerpt")?,
                    })
                },
            )
        })
        .await
    }

    /// How much each webhook is owed.
    pub async fn backlogs(&self) -> Result<Vec<(String, Backlog)>, StoreError> {
        self.read(|connection| {
            let rows = connection.rows(
                "SELECT webhook, state, count(*) AS count, min(recorded_at) AS oldest FROM deliveries
                 WHERE state <> 'delivered' GROUP BY webhook, state ORDER BY webhook, state",
                [],
                |row| {
                    let state = word(row, "state", DeliveryState::from_word)?;
                    let webhook: String = row.get("webhook")?;
                    Ok((webhook, state, count(row, "count")?, instant(row, "oldest")?))
                },
            )?;
            let mut backlogs: Vec<(String, Backlog)> = Vec::new();
            for (webhook, state, count, oldest) in rows {
                if backlogs.last().is_none_or(|(last, _)| *last != webhook) {
                    backlogs.push((webhook, Backlog::default()));
                }
                let Some((_, backlog)) = backlogs.last_mut() else { continue };
                backlog.counts.push((state, count));
                if state != DeliveryState::Dead {
                    backlog.oldest = Some(backlog.oldest.map_or(oldest, |known| known.min(oldest)));
                }
            }
            Ok(backlogs)
        })
        .await
    }

    /// Wakes whenever a delivery to `webhook` was added or made due.
    ///
    /// Of a store that was opened for reading only it never wakes.
    pub fn watch_deliveries(&self, webhook: &str) -> watch::Receiver<u64> {
        match &self.0.daemon {
            Some(daemon) => daemon.writer.core.watch_deliveries(webhook.to_owned()),
            None => watch::Sender::new(0).subscribe(),
        }
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
        if let Some(code) = self.code {
            sql.push_str(" AND last.http_status = ?");
            values.push(i64::from(code).into());
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

/// The webhook of the row is configured and switched on, as far as is known.
pub(in super::super) const REACHABLE: &str = "NOT EXISTS (
     SELECT 1 FROM webhooks WHERE name = deliveries.webhook AND (configured = 0 OR disabled IS NOT NULL))";
