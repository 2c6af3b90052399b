//! How old things are by the rule of `domain::retention`, and how many ended batches it holds back.

use super::column::ms;
use super::error::StoreError;
use super::pruning::OWED;
use super::reckoning::{Reckoner, Reckoning};
use super::sql::Sql;
use super::state::Store;
use super::telling;
use crate::domain::duration::human;
use crate::domain::event::{Draft, EventType};
use crate::domain::route::Routes;
use crate::domain::time::earlier;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Ended batches that are older than they may be, and are kept for now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    /// By the clock they are too old, but its age is in doubt.
    doubtful: u64,
    /// Their hour has not come.
    limited: u64,
}

impl Store {
    /// Notes how much time has passed; to be called every few seconds, and cheap.
    pub async fn reckon(&self) -> Result<(), StoreError> {
        let reckoner = self.reckoner()?;
        reckoner.follow();
        if reckoner.is_due() { self.write_freeing(|_| Ok(())).await } else { Ok(()) }
    }

    /// Which times of the wall clock are longer ago than `retain`, in Unix milliseconds.
    pub async fn expired(&self, retain: Duration) -> Result<Vec<Range<i64>>, StoreError> {
        self.reckon().await?;
        Ok(self.reckoner()?.now(|reckoning| reckoning.retention.expired(retain)))
    }

    /// Deletes what is over for longer than `retain`, as much of it as an hour has room for. Returns how many batches
    /// went. That some are held back is told once an episode.
    pub async fn prune_expired(&self, retain: Duration, routes: Arc<Routes>) -> Result<u64, StoreError> {
        let expired = self.expired(retain).await?;
        let parts = expired.clone();
        let (total, old) =
            self.read(move |connection| Ok((count_all(connection)?, count(connection, &parts)?))).await?;
        let most = self.reckoner()?.change(|reckoning| {
            let most = reckoning.retention.allowance(total).min(old);
            reckoning.retention.spend(most);
            most
        });
        // Written down before it is done: whoever dies meanwhile has had his share.
        self.reckon().await?;
        let gone = self.prune(expired, most).await?;
        self.tell_held(retain, routes).await?;
        Ok(gone)
    }

    /// How many ended batches were held back when pruning ran last.
    pub fn held_back(&self) -> u64 {
        self.0.daemon.as_ref().map_or(0, |daemon| daemon.held_back.load(Ordering::Relaxed))
    }

    async fn tell_held(&self, retain: Duration, routes: Arc<Routes>) -> Result<(), StoreError> {
        let daemon = self.0.daemon.as_ref().ok_or(StoreError::ReadOnly)?;
        let now = daemon.clock.now();
        let reckoner = self.reckoner()?;
        let (expired, nearly, told_since) = reckoner.now(|reckoning| {
            let Reckoning { retention, told_since, .. } = reckoning;
            (retention.expired(retain), retention.expired(retain.mul_f64(0.9)), *told_since)
        });
        let end = ms(earlier(now, retain)).saturating_add(1);
        let (held, all) = self
            .read(move |connection| {
                let (limited, by_clock_all) = (
                    count(connection, &expired)?,
                    count(connection, std::slice::from_ref(&(i64::MIN..end)))?,
                );
                let young = by_clock_all.saturating_sub(count(connection, &cut(&nearly, end))?);
                let unsure = by_clock_all.saturating_sub(count(connection, &cut(&expired, end))?);
                Ok((Held { doubtful: young, limited }, unsure + limited))
            })
            .await?;
        daemon.held_back.store(all, Ordering::Relaxed);
        let tell = |since: Option<i64>| reckoner.change(|reckoning| reckoning.told_since = since);
        match (held == Held::default(), told_since) {
            (true, Some(_)) => {
                tell(None);
                self.reckon().await
            }
            (false, None) => {
                let draft = Draft::about_batchd(EventType::PruningHeld, &held.message(retain), now, now);
                tell(Some(ms(now)));
                let told = self.write(move |tx| telling::record(tx, &draft, None, &routes).map(drop)).await;
                if told.is_err() {
                    tell(None);
                }
                told
            }
            _ => Ok(()),
        }
    }

    fn reckoner(&self) -> Result<&Reckoner, StoreError> {
        self.0.daemon.as_ref().map(|daemon| &*daemon.reckoner).ok_or(StoreError::ReadOnly)
    }

    /// Writes the reckoning, for the next start.
    pub(super) async fn keep_reckoning(&self) -> Result<(), StoreError> {
        let Ok(reckoner) = self.reckoner() else { return Ok(()) };
        reckoner.change(|_| ());
        self.reckon().await
    }
}

impl Held {
    fn message(self, retain: Duration) -> String {
        let Self { doubtful, limited } = self;
        let retain = human(retain);
        if doubtful > 0 {
            format!(
                "{doubtful} ended batches are older than state.retain ({retain}) by the clock, but the clock has \
                 leapt: they are kept until batchd has run for a day without its being set back"
            )
        } else {
            format!(
                "{limited} more ended batches are older than state.retain ({retain}): at most a tenth of all or 1,000 \
                 are deleted an hour, so that there is time to raise state.retain"
            )
        }
    }
}

/// The parts of `parts` before `end`.
fn cut(parts: &[Range<i64>], end: i64) -> Vec<Range<i64>> {
    parts.iter().map(|part| part.start..part.end.min(end)).filter(|part| !part.is_empty()).collect()
}

fn count_all(connection: &Sql<'_>) -> Result<u64, StoreError> {
    let all: i64 = connection.one("SELECT count(*) AS count FROM batches", [], |row| row.get("count"))?;
    Ok(all.unsigned_abs())
}

/// How many batches were over in `parts` and are owed to nobody.
fn count(connection: &Sql<'_>, parts: &[Range<i64>]) -> Result<u64, StoreError> {
    let mut all = 0;
    for part in parts {
        all += connection
            .one(
                &format!(
        "SELECT count(*) AS count FROM batches WHERE over_at >= ?1 AND over_at < ?2 AND NOT EXISTS (
           SELECT 1 FROM events WHERE events.batch = batches.pk AND {OWED})"
    ),
                (part.start, part.end),
                |row| row.get::<i64>("count"),
            )?
            .unsigned_abs();
    }
    Ok(all)
}
