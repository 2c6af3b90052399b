//! What is counted and measured for people to look at: deliveries by state, ends by day, how long batches took.

use super::column::{count, ms, status, word};
use super::directory;
use super::error::StoreError;
use super::outbox::DeliveryState;
use super::state::Store;
use super::value::named;
use crate::domain::status::Status;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::Path;

/// How many of a webhook's deliveries of a stretch of time were accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub delivered: u64,
    pub all: u64,
}

/// How many batches ended in one way on one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Days in UTC since the Unix epoch.
    pub day: i64,
    pub status: Status,
    pub count: u64,
}

/// A batch that ended, and how long it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Took {
    pub provider: String,
    pub id: String,
    pub name: Option<String>,
    pub model: Option<String>,
    pub endpoint: String,
    pub status: Status,
    /// Unix seconds.
    pub ended_at: i64,
    /// From its creation to its end.
    pub seconds: i64,
}

impl Store {
    /// How many deliveries are in each state; with `webhook`, only its own.
    pub async fn delivery_counts(
        &self,
        webhook: Option<String>,
    ) -> Result<BTreeMap<&'static str, u64>, StoreError> {
        self.read(move |connection| {
            // What was delivered is in no index: it is what all are besides the others, and those are few.
            let open = connection.rows(
                "SELECT state, count(*) AS count FROM deliveries
                 WHERE state <> 'delivered' AND (CAST(:webhook AS TEXT) IS NULL OR webhook = :webhook) GROUP BY state",
                named! { ":webhook": webhook },
                |row| Ok((word(row, "state", DeliveryState::from_word)?.as_str(), count(row, "count")?)),
            )?;
            let all = connection.one(
                "SELECT count(*) AS count FROM deliveries WHERE CAST(:webhook AS TEXT) IS NULL OR webhook = :webhook",
                named! { ":webhook": webhook },
                |row| row.get::<i64>("count"),
            )?;
            let mut counts: BTreeMap<&'static str, u64> = open.into_iter().collect();
            let delivered = all.unsigned_abs().saturating_sub(counts.values().sum());
            counts.insert(DeliveryState::Delivered.as_str(), delivered);
            Ok(counts)
        })
        .await
    }

    /// By webhook, how many of the deliveries recorded since were accepted; of very many, the newest.
    pub async fn delivered_since(&self, since: Timestamp) -> Result<BTreeMap<String, Share>, StoreError> {
        self.read(move |connection| {
            let shares = connection.rows(
                "SELECT webhook, count(*) AS every, count(*) FILTER (WHERE state = 'delivered') AS delivered
                 FROM (SELECT webhook, state, recorded_at FROM deliveries ORDER BY pk DESC LIMIT :most) AS newest
                 WHERE recorded_at >= :since GROUP BY webhook",
                named! { ":since": ms(since), ":most": MOST_COUNTED },
                |row| {
                    let share = Share { delivered: count(row, "delivered")?, all: count(row, "every")? };
                    Ok((row.get("webhook")?, share))
                },
            )?;
            Ok(shares.into_iter().collect())
        })
        .await
    }

    /// How many batches ended each day since, by how they ended.
    pub async fn ends_by_day(&self, since: Timestamp) -> Result<Vec<Ends>, StoreError> {
        self.read(move |connection| {
            connection.rows(
                &format!(
                    "SELECT over_at / 86400000 AS day, status, count(*) AS count FROM batches
                 WHERE over_at >= ?1 AND {ENDED} GROUP BY day, status ORDER BY day, status"
                ),
                [ms(since)],
                |row| {
                    Ok(Ends {
                        day: row.get("day")?,
                        status: status(row, "status")?,
                        count: count(row, "count")?,
                    })
                },
            )
        })
        .await
    }

    /// The newest ended batches of which it is known how long they took, newest first.
    pub async fn newest_durations(&self, limit: u32) -> Result<Vec<Took>, StoreError> {
        self.read(move |connection| {
            connection.rows(&format!(
                "SELECT provider, id, name, status, model, endpoint, ended_at, ended_at - created_at AS seconds
                 FROM (SELECT provider, id, name, status, over_at, batch ->> '$.model' AS model,
                         batch ->> '$.endpoint' AS endpoint, CAST(batch ->> '$.created_at' AS BIGINT) AS created_at,
                         CAST(coalesce(batch ->> '$.completed_at', batch ->> '$.failed_at', batch ->> '$.expired_at',
                           batch ->> '$.cancelled_at') AS BIGINT) AS ended_at
                       FROM batches WHERE over_at IS NOT NULL AND {ENDED} ORDER BY over_at DESC LIMIT ?1) AS newest
                 WHERE ended_at IS NOT NULL AND ended_at >= created_at"
            ), [limit], |row| {
                Ok(Took {
                    provider: row.get("provider")?,
                    id: row.get("id")?,
                    name: row.get("name")?,
                    model: row.get("model")?,
                    endpoint: row.get("endpoint")?,
                    status: status(row, "status")?,
                    ended_at: row.get("ended_at")?,
                    seconds: row.get("seconds")?,
                })
            })
        })
        .await
    }
}

/// How many bytes may still be written where `dir` is, if the system says.
pub fn free_space(dir: &Path) -> Option<u64> {
    directory::free_space(dir)
}

const ENDED: &str = "status IN ('completed', 'failed', 'expired', 'cancelled')";

/// Of more deliveries than this, the older ones say little of how a webhook fares.
const MOST_COUNTED: u32 = 20_000;
