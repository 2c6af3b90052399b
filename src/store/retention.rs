//! How old things are by the rule of `domain::retention`, and how many ended batches it holds back.

use super::column::ms;
use super::error::StoreError;
use super::pruning::OWED;
use super::reckoning::Reckoning;
use super::state::Store;
use super::telling;
use crate::domain::duration::human;
use crate::domain::event::{Draft, EventType};
use crate::domain::retention::Retention;
use crate::domain::route::Routes;
use crate::domain::time::earlier;
use rusqlite::Connection;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::MutexGuard;

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
        self.reckoned().await.map(drop)
    }

    /// Which times of the wall clock are longer ago than `retain`, in Unix milliseconds.
    pub async fn expired(&self, retain: Duration) -> Result<Vec<Range<i64>>, StoreError> {
        let reckoned = self.reckoned().await?;
        Ok(reckoned.as_ref().map(|reckoning| reckoning.retention.expired(retain)).unwrap_or_default())
    }

    /// Deletes what is over for longer than `retain`, as much of it as an hour has room for. Returns how many batches
    /// went. That some are held back is told once an episode.
    pub async fn prune_expired(&self, retain: Duration, routes: Arc<Routes>) -> Result<u64, StoreError> {
        let (expired, most) = {
            let mut reckoned = self.reckoned().await?;
            let Some(reckoning) = reckoned.as_mut() else { return Ok(0) };
            let expired = reckoning.retention.expired(retain);
            let parts = expired.clone();
            let (total, old) =
                self.read(move |connection| Ok((count_all(connection)?, count(connection, &parts)?))).await?;
            let most = reckoning.retention.allowance(total).min(old);
            // Noted before it is done: whoever dies meanwhile has had his share.
            reckoning.retention.spend(most);
            self.save(reckoning).await?;
            (expired, most)
        };
        let gone = self.prune(expired, most).await?;
        self.tell_held(retain, routes).await?;
        Ok(gone)
    }

    /// How many ended batches were held back when pruning ran last.
    pub fn held_back(&self) -> u64 {
        self.0.daemon.as_ref().map_or(0, |daemon| daemon.held_back.load(Ordering::Relaxed))
    }

    async fn tell_held(&self, retain: Duration, routes: Arc<Routes>) -> Result<(), StoreError> {
        let mut reckoned = self.reckoned().await?;
        let (Some(reckoning), Some(daemon)) = (reckoned.as_mut(), &self.0.daemon) else { return Ok(()) };
        let now = daemon.clock.now();
        let expired = reckoning.retention.expired(retain);
        let nearly = reckoning.retention.expired(retain.mul_f64(0.9));
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
        match (held == Held::default(), reckoning.told_since) {
            (true, Some(_)) => {
                reckoning.told_since = None;
                self.save(reckoning).await
            }
            (false, None) => {
                reckoning.told_since = Some(ms(now));
                let draft = Draft::about_batchd(EventType::PruningHeld, &held.message(retain), now, now);
                let reckoning = reckoning.clone();
                self.write(move |tx| {
                    telling::record(tx, &draft, None, &routes)?;
                    reckoning.write(tx)
                })
                .await
            }
            _ => Ok(()),
        }
    }

    /// The reckoning as it stands now; `None`: opened for reading only.
    async fn reckoned(&self) -> Result<MutexGuard<'_, Option<Reckoning>>, StoreError> {
        let daemon = self.0.daemon.as_ref().ok_or(StoreError::ReadOnly)?;
        let mut guard = daemon.reckoning.lock().await;
        let (now, steady) = (ms(daemon.clock.now()), daemon.clock.steady());
        let (mut reckoning, is_ours) = match guard.take() {
            Some(reckoning) => (reckoning, true),
            None => (self.begin_reckoning(now).await?, false),
        };
        if reckoning.observe(now, steady, daemon.clock.boot(), is_ours) {
            reckoning.saved = None;
        }
        let is_due = reckoning.saved.is_none_or(|saved| steady.saturating_sub(saved) >= SAVED_EVERY);
        let reckoning = guard.insert(reckoning);
        if is_due {
            self.save(reckoning).await?;
            reckoning.saved = Some(steady);
        }
        Ok(guard)
    }

    /// As it was written last; a state that has none begins with the newest time that stands in it.
    async fn begin_reckoning(&self, now: i64) -> Result<Reckoning, StoreError> {
        let (written, newest) = self
            .read(|connection| {
                let newest: Option<i64> = connection.query_row(
                    "SELECT max(coalesce((SELECT max(recorded_at) FROM events), 0),
                       coalesce((SELECT max(finished_at) FROM jobs), 0),
                       coalesce((SELECT max(tracked_at) FROM batches), 0)) AS newest",
                    [],
                    |row| row.get("newest"),
                )?;
                Ok((Reckoning::read(connection)?, newest.filter(|newest| *newest > 0)))
            })
            .await?;
        if let Some(written) = written {
            return Ok(written);
        }
        let begun = newest.filter(|newest| *newest < now).unwrap_or(now);
        Ok(Reckoning::of(Retention::beginning(begun)))
    }

    async fn save(&self, reckoning: &Reckoning) -> Result<(), StoreError> {
        let reckoning = reckoning.clone();
        self.write_freeing(move |tx| reckoning.write(tx)).await
    }

    /// Writes the reckoning, for the next start.
    pub(super) async fn keep_reckoning(&self) -> Result<(), StoreError> {
        let Some(daemon) = &self.0.daemon else { return Ok(()) };
        if daemon.reckoning.lock().await.is_none() {
            return Ok(());
        }
        let reckoned = self.reckoned().await?;
        match reckoned.as_ref() {
            Some(reckoning) => self.save(reckoning).await,
            None => Ok(()),
        }
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

fn count_all(connection: &Connection) -> Result<u64, StoreError> {
    let all: i64 =
        connection.query_row("SELECT count(*) AS count FROM batches", [], |row| row.get("count"))?;
    Ok(all.unsigned_abs())
}

/// How many batches were over in `parts` and are owed to nobody.
fn count(connection: &Connection, parts: &[Range<i64>]) -> Result<u64, StoreError> {
    let mut query = connection.prepare_cached(&format!(
        "SELECT count(*) AS count FROM batches WHERE over_at >= ?1 AND over_at < ?2 AND NOT EXISTS (
           SELECT 1 FROM events WHERE events.batch = batches.pk AND {OWED})"
    ))?;
    let mut all = 0;
    for part in parts {
        all += query.query_row((part.start, part.end), |row| row.get::<_, i64>("count"))?.unsigned_abs();
    }
    Ok(all)
}

/// How often the reckoning is written where nothing else calls for it.
const SAVED_EVERY: Duration = Duration::from_mins(15);
