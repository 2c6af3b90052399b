//! Watched batches and their transitions.

use super::column::{at, collect, count, from_json, json, maybe_at, maybe_json, ms, status, word};
use super::{
    Pk, Store, StoreError, Tx, directory, discovery, downloads, events, expiring, history, submissions,
};
use crate::domain::route::Routes;
use crate::domain::schedule::Eta;
use crate::domain::status::Status;
use crate::domain::time::to_millis;
use crate::domain::tracked::{BatchKey, Missing, Origin, Tracked};
use crate::domain::transition::{Step, Transition};
use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

/// One batch to register.
#[derive(Clone, Debug)]
pub struct Registration {
    /// What is stored if it is new.
    pub tracked: Tracked,
    /// The first look, if it has been had: stored with it, if it is new.
    pub first_look: Option<Step>,
    /// What the user gave, for a batch that is known already.
    pub user_fields: UserFields,
}

/// What a second `track` of a batch changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserFields {
    /// Replaces the name.
    pub name: Option<String>,
    /// Added to the labels, replacing those of the same key.
    pub labels: BTreeMap<String, String>,
    /// Added to the webhooks that it names.
    pub notify_also: BTreeSet<String>,
    /// `Some(true)`: `--no-notify`.
    pub notify_nobody: Option<bool>,
    /// Replaces the deadline.
    pub deadline: Option<Timestamp>,
}

/// A registered batch.
#[derive(Clone, Debug)]
pub struct Registered {
    /// Its row.
    pub pk: Pk,
    /// Whether it was new; a batch that had been untracked and is watched again is not.
    pub new: bool,
    /// As stored now.
    pub tracked: Tracked,
}

/// Which batches to list; newest registered first.
#[derive(Clone, Debug, Default)]
pub struct BatchFilter {
    /// Only those still watched.
    pub active_only: bool,
    /// Only these statuses; empty: all.
    pub statuses: Vec<Status>,
    /// Only this provider's.
    pub provider: Option<String>,
    /// Only those with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only this user's.
    pub owner: Option<String>,
    /// Only what comes after (was registered before) this one.
    pub after: Option<Pk>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// What the schedule keeps in memory of a watched batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleEntry {
    /// Its row.
    pub pk: Pk,
    /// Its provider.
    pub provider: Arc<str>,
    /// When it is due.
    pub next_poll_at: Timestamp,
    /// When it was created, Unix seconds; `None` until the provider has shown it.
    pub created_at: Option<i64>,
}

/// The times of a poll that changed nothing else: they ride on the next commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// When the provider was asked.
    pub last_polled_at: Timestamp,
    /// When it will be asked next.
    pub next_poll_at: Option<Timestamp>,
    /// When the batch is expected to end.
    pub eta: Option<Eta>,
}

/// A [`Touch`] as it waits: of many batches there are many, and instants in full would take twice the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedTouch {
    /// Unix milliseconds each; [`i64::MIN`]: none.
    last_polled_at: i64,
    next_poll_at: i64,
    /// When it is likely to end: the middle, the earliest, the latest.
    eta: [i64; 3],
}

impl From<Touch> for PackedTouch {
    fn from(touch: Touch) -> Self {
        Self {
            last_polled_at: ms(touch.last_polled_at),
            next_poll_at: touch.next_poll_at.map_or(i64::MIN, ms),
            eta: touch.eta.map_or([i64::MIN; 3], |eta| [eta.at, eta.earliest, eta.latest].map(ms)),
        }
    }
}

impl From<PackedTouch> for Touch {
    fn from(packed: PackedTouch) -> Self {
        let [middle, earliest, latest] = packed.eta;
        Self {
            last_polled_at: at(packed.last_polled_at),
            next_poll_at: (packed.next_poll_at != i64::MIN).then(|| at(packed.next_poll_at)),
            eta: (middle != i64::MIN).then(|| Eta {
                at: at(middle),
                earliest: at(earliest),
                latest: at(latest),
            }),
        }
    }
}

impl Store {
    /// Registers batches in one transaction, each by itself idempotent: a known one takes what was given and
    /// nothing else, and is watched again if it had been untracked. In the order of `items`.
    pub async fn register(
        &self,
        items: Vec<Registration>,
        routes: Arc<Routes>,
    ) -> Result<Vec<Registered>, StoreError> {
        self.write(move |tx| {
            let one = |item: Registration| {
                if item.tracked.origin == Origin::Hand {
                    submissions::settle(tx, &item.tracked.key)?;
                }
                register(tx, item, &routes)
            };
            items.into_iter().map(one).collect()
        })
        .await
    }

    /// Stores a look: state, transition, events and one delivery for each webhook that wants one, in one
    /// transaction. What only users change (name if set, labels, notify, deadline, untracked) is left alone; so is
    /// the next poll of a batch that is watched again since the look began.
    ///
    /// A look that was overtaken by another one, which saw the end, changes nothing. Returns how many events were
    /// new.
    pub async fn record(&self, pk: Pk, step: Step, routes: Arc<Routes>) -> Result<usize, StoreError> {
        self.write(move |tx| record(tx, pk, step, &routes)).await
    }

    /// Notes a look that changed nothing; written with the next commit, or within 30 s.
    pub fn touch(&self, pk: Pk, touch: Touch) {
        if let Some(daemon) = &self.0.daemon {
            daemon.writer.core.touch(pk, touch);
        }
    }

    /// One batch by its row.
    pub async fn load(&self, pk: Pk) -> Result<Option<Tracked>, StoreError> {
        let found = self.select("WHERE pk = ?1".to_owned(), vec![pk.into()]).await?;
        Ok(found.into_iter().next().map(|(_, tracked)| tracked))
    }

    /// One batch by its key.
    pub async fn get(&self, key: BatchKey) -> Result<Option<(Pk, Tracked)>, StoreError> {
        let found = self
            .select("WHERE provider = ?1 AND id = ?2".to_owned(), vec![key.provider.into(), key.id.into()])
            .await?;
        Ok(found.into_iter().next())
    }

    /// Every batch with this id, at whatever provider.
    pub async fn find(&self, id: String) -> Result<Vec<(Pk, Tracked)>, StoreError> {
        self.select("WHERE id = ?1 ORDER BY provider".to_owned(), vec![id.into()]).await
    }

    /// Of a provider's batches with these ids those that are to be looked at some day.
    pub async fn watched(
        &self,
        provider: String,
        ids: Vec<String>,
    ) -> Result<Vec<(Pk, Tracked)>, StoreError> {
        let mut found = self
            .read(move |connection| {
                let mut query = connection.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM batches
                     WHERE provider = ?1 AND id = ?2 AND (active = 1 OR next_poll_at IS NOT NULL)"
                ))?;
                let mut found = Vec::with_capacity(ids.len());
                for id in ids {
                    if let Some(row) = query.query((&provider, id))?.next()? {
                        found.push(tracked(row)?);
                    }
                }
                Ok(found)
            })
            .await?;
        self.show_touches(&mut found);
        Ok(found)
    }

    /// The ids of these batches, in no particular order.
    pub async fn ids(&self, batches: Vec<Pk>) -> Result<Vec<String>, StoreError> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached("SELECT id FROM batches WHERE pk = ?1")?;
            let ids = batches.into_iter().map(|pk| Ok(query.query_row([pk], |row| row.get(0)).optional()?));
            ids.filter_map(Result::transpose).collect()
        })
        .await
    }

    /// Every batch that names `file` as its output or its errors.
    pub async fn find_by_file(&self, file: String) -> Result<Vec<(Pk, Tracked)>, StoreError> {
        let rest = "WHERE output_file = ?1 OR error_file = ?1 ORDER BY provider, pk".to_owned();
        self.select(rest, vec![file.into()]).await
    }

    /// The providers that have a batch with each of these ids; an id that nobody has is left out.
    pub async fn providers_of(&self, ids: Vec<String>) -> Result<BTreeMap<String, Vec<String>>, StoreError> {
        self.read(move |connection| {
            let mut query =
                connection.prepare_cached("SELECT provider FROM batches WHERE id = ?1 ORDER BY provider")?;
            let mut found = BTreeMap::new();
            for id in ids {
                let providers: Vec<String> = collect(query.query([&id])?, |row| Ok(row.get(0)?))?;
                if !providers.is_empty() {
                    found.insert(id, providers);
                }
            }
            Ok(found)
        })
        .await
    }

    /// Lists batches; the flag says whether there are more.
    pub async fn list(&self, filter: BatchFilter) -> Result<(Vec<(Pk, Tracked)>, bool), StoreError> {
        let limit = filter.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let (rest, values) = filter.sql();
        let mut found = self.select(rest, values).await?;
        let more = limit.is_some_and(|limit| found.len() > limit);
        found.truncate(limit.unwrap_or(usize::MAX));
        Ok((found, more))
    }

    /// Every batch that is to be polled some day, for the schedule in memory.
    pub async fn schedule(&self) -> Result<Vec<ScheduleEntry>, StoreError> {
        let mut entries = self
            .read(|connection| {
                let mut query = connection.prepare_cached(
                    "SELECT pk, provider, next_poll_at, created_at FROM batches INDEXED BY batches_due
                     WHERE next_poll_at IS NOT NULL ORDER BY next_poll_at",
                )?;
                let mut names = BTreeSet::new();
                collect(query.query([])?, |row| {
                    Ok(ScheduleEntry {
                        pk: row.get(0)?,
                        provider: shared(
                            &mut names,
                            row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?,
                        ),
                        next_poll_at: at(row.get(2)?),
                        created_at: row.get(3)?,
                    })
                })
            })
            .await?;
        let Some(daemon) = &self.0.daemon else { return Ok(entries) };
        let mut touches = daemon.writer.core.all_touches();
        entries.retain_mut(|entry| match touches.remove(&entry.pk) {
            Some(touch) => touch.next_poll_at.map(|next| entry.next_poll_at = to_millis(next)).is_some(),
            None => true,
        });
        // Those that had no next poll before and have one now.
        for (pk, touch) in touches {
            if touch.next_poll_at.is_some()
                && let Some(tracked) = self.load(pk).await?
                && let Some(next_poll_at) = tracked.next_poll_at
            {
                let created_at = tracked.first_seen_at.map(|_| tracked.batch.created_at);
                let provider = tracked.key.provider.into();
                entries.push(ScheduleEntry { pk, provider, next_poll_at, created_at });
            }
        }
        Ok(entries)
    }

    /// The changes of status of one batch, oldest first.
    pub async fn transitions(&self, pk: Pk) -> Result<Vec<Transition>, StoreError> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT from_status, to_status, provider_status, occurred_at, observed_at
                 FROM transitions WHERE batch = ?1 ORDER BY pk",
            )?;
            collect(query.query([pk])?, |row| {
                let from = row.get::<_, Option<String>>(0)?.map(|_| status(row, 0)).transpose()?;
                Ok(Transition {
                    from,
                    to: status(row, 1)?,
                    provider_status: row.get(2)?,
                    occurred_at: maybe_at(row, 3)?,
                    observed_at: at(row.get(4)?),
                })
            })
        })
        .await
    }

    /// Stops watching; the history stays.
    pub async fn untrack(&self, pk: Pk, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.prepare_cached(
                "UPDATE batches SET untracked_at = coalesce(untracked_at, ?2), next_poll_at = NULL
                 WHERE pk = ?1",
            )?
            .execute((pk, ms(now)))?;
            tx.supersede(pk);
            Ok(())
        })
        .await
    }

    /// Deletes a batch with its transitions, events and deliveries.
    ///
    /// The ids of its events go too: tracked again, it is told again.
    pub async fn purge(&self, pk: Pk) -> Result<(), StoreError> {
        self.write_freeing(move |tx| {
            let found = tx
                .prepare_cached("SELECT provider, id, batch ->> '$.created_at' FROM batches WHERE pk = ?1")?
                .query_row([pk], |row| Ok((BatchKey { provider: row.get(0)?, id: row.get(1)? }, row.get(2)?)))
                .optional()?;
            if let Some((key, created_at)) = found {
                discovery::pass_over(tx, &key.provider, &key.id, created_at)?;
                tx.prepare_cached("DELETE FROM fences WHERE about = ?1")?.execute([events::fence(&key)])?;
                history::forget(tx, &key)?;
                tx.prepare_cached("DELETE FROM batches WHERE pk = ?1")?.execute([pk])?;
                tx.supersede(pk);
            }
            Ok(())
        })
        .await
    }

    /// How many batches there are, by provider and status, active ones and ended ones.
    pub async fn counts(&self) -> Result<Vec<(String, Status, u64)>, StoreError> {
        self.read(|connection| {
            let mut query = connection
                .prepare_cached("SELECT provider, status, count(*) FROM batches GROUP BY provider, status")?;
            collect(query.query([])?, |row| Ok((row.get(0)?, status(row, 1)?, count(row, 2)?)))
        })
        .await
    }

    /// Deletes what ended (or was untracked, or lost) before `before`, a few hundred rows a transaction; the ids of
    /// the events stay, so that nothing is told twice. Returns how many batches went.
    ///
    /// What a configured webhook is still owed stays, with its batch. On a full disk the ballast is given up first.
    pub async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        let before = ms(before);
        let mut pruned = 0;
        let mut after = Some((i64::MIN, 0));
        while let Some(from) = after {
            let chunk = self.write_freeing(move |tx| prune_batches(tx, from, before)).await?;
            pruned += chunk.deleted;
            after = chunk.last;
            // Whoever wants to write meanwhile comes first.
            tokio::task::yield_now().await;
        }
        while self.write_freeing(move |tx| prune_events_apart(tx, before)).await? > 0 {
            tokio::task::yield_now().await;
        }
        while self.write_freeing(give_pages_back).await? {
            tokio::task::yield_now().await;
        }
        let dir = self.0.dir.clone();
        super::off_thread(move || directory::set_ballast(&dir)).await?;
        Ok(pruned)
    }

    /// Reads batches, with what is known of their last looks and not written yet.
    async fn select(&self, rest: String, values: Vec<Value>) -> Result<Vec<(Pk, Tracked)>, StoreError> {
        let mut found = self
            .read(move |connection| {
                let mut query =
                    connection.prepare_cached(&format!("SELECT {COLUMNS} FROM batches {rest}"))?;
                collect(query.query(params_from_iter(values))?, tracked)
            })
            .await?;
        self.show_touches(&mut found);
        Ok(found)
    }

    /// Shows in `batches` what is known of their last looks and not written yet.
    fn show_touches(&self, batches: &mut [(Pk, Tracked)]) {
        let Some(daemon) = &self.0.daemon else { return };
        for (pk, tracked) in batches {
            if let Some(touch) = daemon.writer.core.touch_of(*pk) {
                touch.apply(tracked);
            }
        }
    }
}

/// One name for all batches of a provider: there may be many.
fn shared(names: &mut BTreeSet<Arc<str>>, name: &str) -> Arc<str> {
    if let Some(known) = names.get(name) {
        return Arc::clone(known);
    }
    let name: Arc<str> = name.into();
    names.insert(Arc::clone(&name));
    name
}

impl BatchFilter {
    /// What follows `FROM batches`, and its values.
    fn sql(self) -> (String, Vec<Value>) {
        let mut sql = String::new();
        let mut values: Vec<Value> = Vec::new();
        let mut and = |sql: &mut String, condition: &str, more: Vec<Value>| {
            sql.push_str(if sql.is_empty() { "WHERE " } else { " AND " });
            sql.push_str(condition);
            values.extend(more);
        };
        if self.active_only {
            and(&mut sql, "active = 1", vec![]);
        }
        if !self.statuses.is_empty() {
            let places = vec!["?"; self.statuses.len()].join(", ");
            let words = self.statuses.iter().map(|status| status.as_str().to_owned().into()).collect();
            and(&mut sql, &format!("status IN ({places})"), words);
        }
        if let Some(provider) = self.provider {
            and(&mut sql, "provider = ?", vec![provider.into()]);
        }
        for (key, value) in self.labels {
            let condition =
                "EXISTS (SELECT 1 FROM json_each(labels) AS label WHERE label.key = ? AND label.value = ?)";
            and(&mut sql, condition, vec![key.into(), value.into()]);
        }
        if let Some(owner) = self.owner {
            and(&mut sql, "owner = ?", vec![owner.into()]);
        }
        if let Some(after) = self.after {
            and(&mut sql, "pk < ?", vec![after.into()]);
        }
        sql.push_str(" ORDER BY pk DESC");
        if let Some(limit) = self.limit {
            // One more tells whether there are more.
            let _ = write!(sql, " LIMIT {}", u64::from(limit) + 1);
        }
        (sql, values)
    }
}

impl Touch {
    /// Shows the look in `tracked`, unless that knows a later one.
    fn apply(self, tracked: &mut Tracked) {
        let last_polled_at = to_millis(self.last_polled_at);
        if tracked.last_polled_at.is_some_and(|known| known > last_polled_at) {
            return;
        }
        tracked.last_polled_at = Some(last_polled_at);
        tracked.eta = self.eta;
        tracked.next_poll_at = self.next_poll_at.map(to_millis).filter(|_| tracked.untracked_at.is_none());
    }
}

/// Writes a look that changed nothing else.
pub(super) fn write_touch(connection: &Connection, pk: Pk, touch: PackedTouch) -> Result<(), StoreError> {
    let touch = Touch::from(touch);
    connection
        .prepare_cached(
            "UPDATE batches SET last_polled_at = ?2, eta = ?4, eta_earliest = ?5, eta_latest = ?6,
               next_poll_at = CASE WHEN untracked_at IS NULL THEN ?3 END
             WHERE pk = ?1",
        )?
        .execute((
            pk,
            ms(touch.last_polled_at),
            touch.next_poll_at.map(ms),
            touch.eta.map(|eta| ms(eta.at)),
            touch.eta.map(|eta| ms(eta.earliest)),
            touch.eta.map(|eta| ms(eta.latest)),
        ))?;
    Ok(())
}

pub(super) fn register(
    tx: &mut Tx<'_>,
    item: Registration,
    routes: &Routes,
) -> Result<Registered, StoreError> {
    let key = item.tracked.key.clone();
    let known = tx
        .prepare_cached(&format!("SELECT {COLUMNS} FROM batches WHERE provider = ?1 AND id = ?2"))?
        .query_and_then((&key.provider, &key.id), tracked)?
        .next()
        .transpose()?;
    if let Some((pk, mut tracked)) = known {
        give(tx, pk, &mut tracked, item.user_fields)?;
        return Ok(Registered { pk, new: false, tracked });
    }
    let (mut tracked, step) = match item.first_look {
        Some(step) => (step.tracked, Some((step.transition, step.events))),
        None => (item.tracked, None),
    };
    tracked.key = key;
    to_resolution(&mut tracked);
    let pk = insert(tx, &tracked)?;
    expiring::plan(tx, pk, &tracked)?;
    if let Some((transition, drafts)) = step {
        if let Some(transition) = transition {
            insert_transition(tx, pk, &transition)?;
            history::learn(tx, &tracked.key, &tracked.batch)?;
        }
        for draft in &drafts {
            events::record(tx, draft, Some((pk, &tracked)), routes)?;
        }
        downloads::want(tx, pk, &drafts)?;
    }
    Ok(Registered { pk, new: true, tracked })
}

/// What a second `track` changes of a known batch.
fn give(tx: &mut Tx<'_>, pk: Pk, tracked: &mut Tracked, user_fields: UserFields) -> Result<(), StoreError> {
    if user_fields != UserFields::default() {
        if user_fields.name.is_some() {
            tracked.name = user_fields.name;
        }
        tracked.labels.extend(user_fields.labels);
        tracked.notify.also.extend(user_fields.notify_also);
        tracked.notify.nobody = user_fields.notify_nobody.unwrap_or(tracked.notify.nobody);
        tracked.deadline = user_fields.deadline.map(to_millis).or(tracked.deadline);
        tx.prepare_cached(
            "UPDATE batches SET name = ?2, labels = ?3, notify = ?4, deadline = ?5 WHERE pk = ?1",
        )?
        .execute((
            pk,
            &tracked.name,
            json(&tracked.labels)?,
            json(&tracked.notify)?,
            tracked.deadline.map(ms),
        ))?;
    }
    if tracked.untracked_at.is_some() {
        tracked.untracked_at = None;
        // A finished record gets no richer, and its provider may have forgotten it by now.
        let over = tracked.batch.status.is_terminal() && tracked.settled;
        tracked.next_poll_at = (!over).then_some(tx.now);
        tx.prepare_cached("UPDATE batches SET untracked_at = NULL, next_poll_at = ?2 WHERE pk = ?1")?
            .execute((pk, tracked.next_poll_at.map(ms)))?;
        tx.supersede(pk);
    }
    Ok(())
}

fn insert(tx: &Tx<'_>, tracked: &Tracked) -> Result<Pk, StoreError> {
    let own: [Value; 11] = [
        tracked.key.provider.clone().into(),
        tracked.key.id.clone().into(),
        tracked.owner.clone().into(),
        json(&tracked.labels)?.into(),
        json(&tracked.notify)?.into(),
        origin_word(tracked.origin).to_owned().into(),
        ms(tracked.tracked_at).into(),
        tracked.untracked_at.map(ms).into(),
        tracked.deadline.map(ms).into(),
        tracked.name.clone().into(),
        tracked.next_poll_at.filter(|_| tracked.untracked_at.is_none()).map(ms).into(),
    ];
    tx.prepare_cached(&format!(
        "INSERT INTO batches ({SEEN}, provider, id, owner, labels, notify, origin, tracked_at, untracked_at,
           deadline, name, next_poll_at)
         VALUES ({SEEN_VALUES}, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34)"
    ))?
    .execute(params_from_iter(seen(tracked)?.into_iter().chain(own)))?;
    Ok(tx.last_insert_rowid())
}

fn record(tx: &mut Tx<'_>, pk: Pk, step: Step, routes: &Routes) -> Result<usize, StoreError> {
    let mut new = step.tracked;
    to_resolution(&mut new);
    let more: [Value; 5] = [
        pk.into(),
        new.name.clone().into(),
        new.next_poll_at.map(ms).into(),
        new.batch.status.is_terminal().into(),
        new.untracked_at.is_some().into(),
    ];
    // What users change meanwhile is read back, so that the webhooks are chosen by it.
    let kept = tx
        .prepare_cached(&format!(
            "UPDATE batches SET ({SEEN}) = ({SEEN_VALUES}), name = coalesce(name, ?25),
               next_poll_at = CASE WHEN untracked_at IS NULL THEN iif(?28, next_poll_at, ?26) END
             WHERE pk = ?24 AND (?27 OR status NOT IN ('completed', 'failed', 'expired', 'cancelled'))
             RETURNING labels, notify, provider, id"
        ))?
        .query_and_then(params_from_iter(seen(&new)?.into_iter().chain(more)), |row| {
            let key = BatchKey { provider: row.get(2)?, id: row.get(3)? };
            Ok::<_, StoreError>((from_json(row, 0)?, from_json(row, 1)?, key))
        })?
        .next()
        .transpose()?;
    let Some((labels, notify, key)) = kept else { return Ok(0) };
    (new.labels, new.notify, new.key) = (labels, notify, key);
    tx.supersede(pk);
    expiring::plan(tx, pk, &new)?;
    if let Some(transition) = step.transition {
        insert_transition(tx, pk, &transition)?;
        history::learn(tx, &new.key, &new.batch)?;
    }
    let mut recorded = 0;
    for draft in &step.events {
        recorded += usize::from(events::record(tx, draft, Some((pk, &new)), routes)?);
    }
    downloads::want(tx, pk, &step.events)?;
    Ok(recorded)
}

/// Two looks that saw the same change at once leave one transition.
fn insert_transition(tx: &Tx<'_>, pk: Pk, transition: &Transition) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO transitions (batch, from_status, to_status, provider_status, occurred_at, observed_at)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6
         WHERE ?3 IS NOT (SELECT to_status FROM transitions WHERE batch = ?1 ORDER BY pk DESC LIMIT 1)",
    )?
    .execute((
        pk,
        transition.from.map(Status::as_str),
        transition.to.as_str(),
        &transition.provider_status,
        transition.occurred_at.map(ms),
        ms(transition.observed_at),
    ))?;
    Ok(())
}

/// The columns that a look changes, and their values in the same order.
fn seen(tracked: &Tracked) -> Result<[Value; 23], StoreError> {
    Ok([
        tracked.kind.clone().into(),
        tracked.batch.status.as_str().to_owned().into(),
        json(&tracked.batch)?.into(),
        tracked.provider_status.clone().into(),
        tracked.console_url.clone().into(),
        tracked.first_seen_at.map(ms).into(),
        ms(tracked.status_since).into(),
        tracked.progress_at.map(ms).into(),
        tracked.last_polled_at.map(ms).into(),
        tracked.last_error.clone().into(),
        tracked.failures.into(),
        tracked.missing.map(|missing| ms(missing.since)).into(),
        tracked.missing.map_or(0, |missing| missing.count).into(),
        tracked.lost_since.map(ms).into(),
        tracked.stalled_since.map(ms).into(),
        tracked.eta.map(|eta| ms(eta.at)).into(),
        tracked.results_expire_at.map(ms).into(),
        tracked.held_since.map(ms).into(),
        tracked.settled.into(),
        json(&tracked.warned)?.into(),
        tracked.eta.map(|eta| ms(eta.earliest)).into(),
        tracked.eta.map(|eta| ms(eta.latest)).into(),
        json(&tracked.trail)?.into(),
    ])
}

/// Reads a row of [`COLUMNS`].
pub(super) fn tracked(row: &Row<'_>) -> Result<(Pk, Tracked), StoreError> {
    let missing_count = row.get(13)?;
    let missing = maybe_at(row, 12)?.map(|since| Missing { since, count: missing_count });
    let tracked = Tracked {
        kind: row.get(1)?,
        batch: from_json(row, 3)?,
        provider_status: row.get(4)?,
        console_url: row.get(5)?,
        first_seen_at: maybe_at(row, 6)?,
        status_since: at(row.get(7)?),
        progress_at: maybe_at(row, 8)?,
        last_polled_at: maybe_at(row, 9)?,
        last_error: row.get(10)?,
        failures: row.get(11)?,
        missing,
        lost_since: maybe_at(row, 14)?,
        stalled_since: maybe_at(row, 15)?,
        eta: eta(row)?,
        results_expire_at: maybe_at(row, 17)?,
        held_since: maybe_at(row, 18)?,
        settled: row.get(19)?,
        warned: from_json(row, 20)?,
        key: BatchKey { provider: row.get(21)?, id: row.get(22)? },
        owner: row.get(23)?,
        labels: from_json(row, 24)?,
        notify: from_json(row, 25)?,
        origin: word(row, 26, origin_of)?,
        tracked_at: at(row.get(27)?),
        untracked_at: maybe_at(row, 28)?,
        deadline: maybe_at(row, 29)?,
        name: row.get(30)?,
        next_poll_at: maybe_at(row, 31)?,
        results: maybe_json(row, 32)?,
        trail: from_json(row, 35)?,
        results_error: row.get(36)?,
    };
    Ok((row.get(0)?, tracked))
}

/// An expected end that an older batchd wrote has no bounds, and is none.
fn eta(row: &Row<'_>) -> Result<Option<Eta>, StoreError> {
    let (at, earliest, latest) = (maybe_at(row, 16)?, maybe_at(row, 33)?, maybe_at(row, 34)?);
    Ok(at.zip(earliest).zip(latest).map(|((at, earliest), latest)| Eta { at, earliest, latest }))
}

/// Cuts every instant to what is stored of it.
fn to_resolution(tracked: &mut Tracked) {
    for at in [&mut tracked.tracked_at, &mut tracked.status_since] {
        *at = to_millis(*at);
    }
    for at in [
        &mut tracked.untracked_at,
        &mut tracked.first_seen_at,
        &mut tracked.progress_at,
        &mut tracked.last_polled_at,
        &mut tracked.next_poll_at,
        &mut tracked.lost_since,
        &mut tracked.stalled_since,
        &mut tracked.deadline,
        &mut tracked.results_expire_at,
        &mut tracked.held_since,
    ] {
        *at = at.map(to_millis);
    }
    if let Some(missing) = &mut tracked.missing {
        missing.since = to_millis(missing.since);
    }
}

/// What one transaction of [`Store::prune`] did.
struct Pruned {
    deleted: u64,
    /// After which batch the next one goes on; `None`: there is no next.
    last: Option<(i64, Pk)>,
}

fn prune_batches(tx: &mut Tx<'_>, after: (i64, Pk), before: i64) -> Result<Pruned, StoreError> {
    let candidates: Vec<(Pk, i64, bool)> = tx
        .prepare_cached(&format!(
            "SELECT pk, over_at, EXISTS (SELECT 1 FROM events WHERE events.batch = batches.pk AND {OWED})
             FROM batches WHERE (over_at, pk) > (?1, ?2) AND over_at < ?3
             ORDER BY over_at, pk LIMIT {PRUNED_AT_ONCE}"
        ))?
        .query_map((after.0, after.1, before), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    let mut deleted = 0;
    for (pk, ..) in candidates.iter().filter(|(.., owed)| !owed) {
        tx.prepare_cached("DELETE FROM batches WHERE pk = ?1")?.execute([pk])?;
        tx.supersede(*pk);
        deleted += 1;
    }
    let last = candidates.last().map(|(pk, over_at, _)| (*over_at, *pk));
    Ok(Pruned { deleted, last: last.filter(|_| candidates.len() == PRUNED_AT_ONCE) })
}

/// Deletes events that are about no batch.
fn prune_events_apart(tx: &mut Tx<'_>, before: i64) -> Result<usize, StoreError> {
    Ok(tx
        .prepare_cached(&format!(
            "DELETE FROM events WHERE sequence IN (
               SELECT sequence FROM events WHERE batch IS NULL AND recorded_at < ?1 AND NOT {OWED} LIMIT 100)"
        ))?
        .execute([before])?)
}

/// Makes the file shorter by some of its empty pages; `false` if few are left.
fn give_pages_back(tx: &mut Tx<'_>) -> Result<bool, StoreError> {
    let free: i64 = tx.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    if free <= FREE_PAGES_KEPT {
        return Ok(false);
    }
    tx.execute_batch("PRAGMA incremental_vacuum(200)")?;
    let left: i64 = tx.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    // A database that was made without room for this shrinks by none.
    Ok(left < free)
}

const fn origin_word(origin: Origin) -> &'static str {
    match origin {
        Origin::Hand => "hand",
        Origin::Baseline => "baseline",
        Origin::Found => "found",
    }
}

fn origin_of(word: &str) -> Option<Origin> {
    [Origin::Hand, Origin::Baseline, Origin::Found].into_iter().find(|origin| origin_word(*origin) == word)
}

const SEEN: &str = "kind, status, batch, provider_status, console_url, first_seen_at, status_since, progress_at, \
     last_polled_at, last_error, failures, missing_since, missing_count, lost_since, stalled_since, eta, \
     results_expire_at, held_since, settled, warned, eta_earliest, eta_latest, trail";
const SEEN_VALUES: &str = "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, \
     ?22, ?23";
/// In the order in which [`tracked`] reads them.
pub(super) const COLUMNS: &str = "pk, kind, status, batch, provider_status, console_url, first_seen_at, status_since, \
     progress_at, last_polled_at, last_error, failures, missing_since, missing_count, lost_since, stalled_since, \
     eta, results_expire_at, held_since, settled, warned, provider, id, owner, labels, notify, origin, tracked_at, \
     untracked_at, deadline, name, next_poll_at, results, eta_earliest, eta_latest, trail, download_error";
/// Whether a webhook that is configured is still owed the event of the row.
const OWED: &str = "EXISTS (
     SELECT 1 FROM deliveries WHERE deliveries.sequence = events.sequence AND (
       state IN ('pending', 'inflight') OR (state = 'held' AND webhook NOT IN (
         SELECT name FROM webhooks WHERE configured = 0))))";
/// With what hangs on them a few hundred rows.
const PRUNED_AT_ONCE: usize = 40;
/// 1 MiB, for what comes next.
const FREE_PAGES_KEPT: i64 = 256;
