//! Tracked batches: registering, recording, listing and forgetting them.

use super::column::{Pk, count, instant, maybe_at, maybe_status, ms, status};
use super::error::StoreError;
use super::given::Given;
use super::recording::{self, Check, Registered, Registration};
use super::state::Store;
use super::touch::Touch;
use super::value::{Value, named};
use super::{discovery, history, queue, row, submissions, telling};
use crate::domain::route::Routes;
use crate::domain::status::Status;
use crate::domain::tracked::{BatchKey, Origin, Tracked, Transition, is_submission};
use crate::domain::transition::Step;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// Which batches to list; newest registered first.
#[derive(Clone, Debug, Default)]
pub struct BatchFilter {
    /// Only those still watched.
    pub active_only: bool,
    /// Only those that make no progress, or that their provider no longer knows.
    pub stuck_only: bool,
    /// Only these statuses; empty: all.
    pub statuses: Vec<Status>,
    /// Only this provider's.
    pub provider: Option<String>,
    /// Only those with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only this user's.
    pub owner: Option<String>,
    /// Only those of this model; `*` stands for any letters.
    pub model: Option<String>,
    /// Only those with this text in their id, name, model or labels, whatever the case of its ASCII letters.
    pub search: Option<String>,
    /// Only those created since, Unix seconds.
    pub created_since: Option<i64>,
    /// Only what comes after (was registered before) this one.
    pub after: Option<Pk>,
    pub order: BatchOrder,
    /// So many of the first are left out.
    pub offset: u32,
    /// At most so many.
    pub limit: Option<u32>,
}

/// In which order batches are listed; what is equal in it, newest registered first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchOrder {
    #[default]
    Registered,
    /// By name, or by id where there is none.
    Name,
    Status,
    Provider,
    Model,
    /// By when they are expected to end, the soonest first; then those that have ended or of which nothing is known.
    Expected,
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
            let by_hand =
                items.iter().map(|item| &item.tracked).filter(|tracked| tracked.origin == Origin::Hand);
            submissions::settle(tx, by_hand.map(|tracked| &tracked.key))?;
            recording::register_all(tx, items, &routes)
        })
        .await
    }

    /// Stores a check: state, transition, events and one delivery for each webhook that wants one, in one
    /// transaction. What only users change (name if set, labels, notify, deadline, untracked) is left alone; so is
    /// the next poll of a batch that is watched again since the check began.
    ///
    /// A check that was overtaken by another one, which saw the end, changes nothing. Returns how many events were
    /// new.
    pub async fn record(&self, pk: Pk, step: Step, routes: Arc<Routes>) -> Result<usize, StoreError> {
        self.write_in_set(Check { pk, step, routes }).await
    }

    /// Notes a check that changed nothing; written with the next commit, or within 30 s.
    pub fn touch(&self, pk: Pk, touch: Touch) {
        if let Some(daemon) = &self.0.daemon {
            daemon.writer.core.touch(pk, touch);
        }
    }

    /// The same of checks at `asked_at` that left what is expected of each batch as it was, with the time of the next.
    pub fn touch_times(&self, asked_at: Timestamp, batches: impl Iterator<Item = (Pk, Timestamp)>) {
        if let Some(daemon) = &self.0.daemon {
            daemon.writer.core.touch_times(asked_at, batches);
        }
    }

    /// The id of a batch that is on the schedule.
    pub async fn id_on_schedule(&self, pk: Pk) -> Result<Option<String>, StoreError> {
        self.read(move |connection| {
            connection.row(
                "SELECT id FROM checks JOIN batches ON pk = checks.batch WHERE pk = ?1",
                [pk],
                |row| row.get("id"),
            )
        })
        .await
    }

    /// One batch by its row.
    pub async fn load(&self, pk: Pk) -> Result<Option<Tracked>, StoreError> {
        let found = self.select("WHERE pk = ?1".to_owned(), vec![pk.into()]).await?;
        Ok(found.into_iter().next().map(|(_, tracked)| tracked))
    }

    /// The batch with this key; or the one that a submission of this id has become.
    pub async fn get(&self, key: BatchKey) -> Result<Option<(Pk, Tracked)>, StoreError> {
        let at = |column: &str| format!("WHERE provider = ?1 AND {column} = ?2");
        let values = vec![key.provider.into(), key.id.clone().into()];
        let mut found = self.select(at("id"), values.clone()).await?;
        if found.is_empty() && is_submission(&key.id) {
            found = self.select(at("submission"), values).await?;
        }
        Ok(found.into_iter().next())
    }

    /// Every batch with this id, at whatever provider; or what a submission of this id has become.
    pub async fn find(&self, id: String) -> Result<Vec<(Pk, Tracked)>, StoreError> {
        let mut found =
            self.select("WHERE id = ?1 ORDER BY provider".to_owned(), vec![id.clone().into()]).await?;
        if found.is_empty() && is_submission(&id) {
            found = self.select("WHERE submission = ?1".to_owned(), vec![id.into()]).await?;
        }
        Ok(found)
    }

    /// Of a provider's batches with these ids those that are to be checked some day.
    pub async fn watched(
        &self,
        provider: String,
        ids: Vec<String>,
    ) -> Result<Vec<(Pk, Tracked)>, StoreError> {
        let mut found = self
            .read(move |connection| {
                let given = ids.into_iter().map(|id| vec![provider.clone().into(), id.into()]);
                connection.rows_of(
                    &row::select(
                        ", given(at TEXT, wanted TEXT)
                         WHERE provider = given.at AND id = given.wanted AND next_poll_at IS NOT NULL",
                    ),
                    &given.collect(),
                    row::read,
                )
            })
            .await?;
        self.show_touches(&mut found);
        Ok(found)
    }

    /// The ids of these batches, in no particular order.
    pub async fn ids(&self, batches: Vec<Pk>) -> Result<Vec<String>, StoreError> {
        self.read(move |connection| {
            connection.rows_of(
                "SELECT id FROM batches, given(wanted INT) WHERE pk = given.wanted",
                &Given::each(batches),
                |row| row.get("id"),
            )
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
            let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
            let providers: Vec<(String, String)> = connection.rows_of(
                "SELECT given.wanted AS wanted, provider FROM batches, given(wanted TEXT)
                 WHERE id = given.wanted OR submission = given.wanted",
                &Given::each(ids),
                |row| Ok((row.get("wanted")?, row.get("provider")?)),
            )?;
            for (id, provider) in providers {
                found.entry(id).or_default().push(provider);
            }
            for providers in found.values_mut() {
                providers.sort_unstable();
            }
            Ok(found)
        })
        .await
    }

    /// Lists batches; the flag says whether there are more.
    pub async fn list(&self, filter: BatchFilter) -> Result<(Vec<(Pk, Tracked)>, bool), StoreError> {
        let limit = filter.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let (rest, values) = filter.page();
        let mut found = self.select(rest, values).await?;
        let more = limit.is_some_and(|limit| found.len() > limit);
        found.truncate(limit.unwrap_or(usize::MAX));
        Ok((found, more))
    }

    /// How many batches `filter` lets through, on whatever page.
    pub async fn count(&self, filter: BatchFilter) -> Result<u64, StoreError> {
        let (conditions, values) = filter.conditions();
        self.read(move |connection| {
            Ok(connection
                .one(
                    &format!("SELECT count(*) AS count FROM batches {conditions}"),
                    values.as_slice(),
                    |row| row.get::<i64>("count"),
                )?
                .unsigned_abs())
        })
        .await
    }

    /// The changes of status of one batch, oldest first.
    pub async fn transitions(&self, pk: Pk) -> Result<Vec<Transition>, StoreError> {
        self.read(move |connection| {
            connection.rows(
                "SELECT from_status, to_status, provider_status, occurred_at, observed_at
                 FROM transitions WHERE batch = ?1 ORDER BY pk",
                [pk],
                |row| {
                    Ok(Transition {
                        from: maybe_status(row, "from_status")?,
                        to: status(row, "to_status")?,
                        provider_status: row.get("provider_status")?,
                        occurred_at: maybe_at(row, "occurred_at")?,
                        observed_at: instant(row, "observed_at")?,
                    })
                },
            )
        })
        .await
    }

    /// Stops watching; the history stays.
    pub async fn untrack(&self, pk: Pk, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |tx| {
            let provider = tx.row(
                "UPDATE batches SET untracked_at = coalesce(untracked_at, :now),
                       last_polled_at = coalesce(
                         (SELECT last_polled_at FROM checks WHERE batch = :pk), last_polled_at)
                     WHERE pk = :pk RETURNING provider",
                named! { ":pk": pk, ":now": ms(now) },
                |row| row.get("provider"),
            )?;
            if let Some(provider) = provider {
                tx.send("DELETE FROM checks WHERE batch = ?1", [pk])?;
                tx.supersede(pk);
                tx.take_off_schedule(pk, provider);
            }
            Ok(())
        })
        .await
    }

    /// Deletes a batch with its transitions, events and deliveries.
    ///
    /// The ids of its events go too: tracked again, it is told again.
    pub async fn purge(&self, pk: Pk) -> Result<(), StoreError> {
        self.write_freeing(move |tx| {
            let found = tx.row(
                "SELECT provider, id, CAST(batch ->> '$.created_at' AS BIGINT) AS created_at FROM batches WHERE pk = ?1",
                [pk],
                |row| {
                    let key = BatchKey { provider: row.get("provider")?, id: row.get("id")? };
                    Ok((key, row.get("created_at")?))
                },
            )?;
            if let Some((key, created_at)) = found {
                discovery::pass_over(tx, &key.provider, &key.id, created_at)?;
                tx.send("DELETE FROM fences WHERE about = ?1", [telling::fence(&key)])?;
                history::forget(tx, &key)?;
                queue::forget(tx, &key.id)?;
                tx.send("DELETE FROM batches WHERE pk = ?1", [pk])?;
                tx.supersede(pk);
                tx.take_off_schedule(pk, key.provider);
            }
            Ok(())
        })
        .await
    }

    /// How many batches there are, by provider and status, active ones and ended ones.
    pub async fn counts(&self) -> Result<Vec<(String, Status, u64)>, StoreError> {
        self.read(|connection| {
            connection.rows(
                "SELECT provider, status, count(*) AS count FROM batches GROUP BY provider, status",
                [],
                |row| Ok((row.get("provider")?, status(row, "status")?, count(row, "count")?)),
            )
        })
        .await
    }

    /// The same, but a live batch counts under its status only while it is tracked; `None`: it was untracked.
    pub async fn counts_of_tracked(&self) -> Result<Vec<(String, Option<Status>, u64)>, StoreError> {
        let active = self.read(|connection| {
            let counts: Vec<(String, Status, u64)> = connection.rows("SELECT provider, status, count(*) AS count FROM batches WHERE active = 1 GROUP BY provider, status", [], |row| {
                Ok((row.get("provider")?, status(row, "status")?, count(row, "count")?))
            })?;
            Ok(counts)
        });
        let active = active.await?;
        let mut tracked = Vec::new();
        // Two reads: a batch that ends between them is missing from both, never counted twice.
        for (provider, status, all) in self.counts().await? {
            if status.is_terminal() {
                tracked.push((provider, Some(status), all));
                continue;
            }
            let is_it = |(at, its, _): &&(String, Status, u64)| *at == provider && *its == status;
            let watched = active.iter().find(is_it).map_or(0, |(.., count)| *count).min(all);
            if all > watched {
                tracked.push((provider.clone(), None, all - watched));
            }
            if watched > 0 {
                tracked.push((provider, Some(status), watched));
            }
        }
        Ok(tracked)
    }

    /// Reads batches, with what is known of their last checks and not written yet.
    pub(super) async fn select(
        &self,
        rest: String,
        values: Vec<Value>,
    ) -> Result<Vec<(Pk, Tracked)>, StoreError> {
        let mut found = self
            .read(move |connection| connection.rows(&row::select(&rest), values.as_slice(), row::read))
            .await?;
        self.show_touches(&mut found);
        Ok(found)
    }

    /// Shows in `batches` what is known of their last checks and not written yet.
    pub(super) fn show_touches(&self, batches: &mut [(Pk, Tracked)]) {
        let Some(daemon) = &self.0.daemon else { return };
        for (pk, tracked) in batches {
            if let Some(touch) = daemon.writer.core.touch_of(*pk) {
                touch.apply(tracked);
            }
        }
    }
}

impl BatchFilter {
    /// What follows `FROM batches`, and its values.
    fn page(self) -> (String, Vec<Value>) {
        let (order, offset, limit) = (self.order, self.offset, self.limit);
        let (mut sql, values) = self.conditions();
        let _ = write!(sql, " ORDER BY {}pk DESC", order.sql());
        if let Some(limit) = limit {
            // One more tells whether there are more.
            let _ = write!(sql, " LIMIT {} OFFSET {offset}", u64::from(limit) + 1);
        }
        (sql, values)
    }

    /// The conditions, and their values.
    fn conditions(self) -> (String, Vec<Value>) {
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
        if self.stuck_only {
            let condition = "(active = 1 AND (stalled_since IS NOT NULL OR lost_since IS NOT NULL))";
            and(&mut sql, condition, vec![]);
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
        if let Some(model) = self.model {
            // Of a pattern only `*` is meant to be one.
            let pattern = escaped(&model.to_ascii_lowercase()).replace('*', "%");
            and(&mut sql, r"lower(batch ->> '$.model') LIKE ? ESCAPE '\'", vec![pattern.into()]);
        }
        if let Some(text) = self.search {
            let text: Value = format!("%{}%", escaped(&text.to_ascii_lowercase())).into();
            let condition = r"(lower(id) LIKE ? ESCAPE '\' OR lower(name) LIKE ? ESCAPE '\'
                 OR lower(batch ->> '$.model') LIKE ? ESCAPE '\'
                 OR EXISTS (SELECT 1 FROM json_each(labels) AS label
                   WHERE lower(label.key || '=' || label.value) LIKE ? ESCAPE '\'))";
            and(&mut sql, condition, vec![text.clone(), text.clone(), text.clone(), text]);
        }
        if let Some(since) = self.created_since {
            and(&mut sql, "CAST(batch ->> '$.created_at' AS BIGINT) >= ?", vec![since.into()]);
        }
        if let Some(after) = self.after {
            and(&mut sql, "pk < ?", vec![after.into()]);
        }
        (sql, values)
    }
}

/// `text` as a pattern of `LIKE … ESCAPE '\'` that stands for itself.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_")
}

impl BatchOrder {
    /// What stands before the last word of `ORDER BY`.
    const fn sql(self) -> &'static str {
        match self {
            Self::Registered => "",
            Self::Name => "lower(coalesce(name, id)), ",
            Self::Status => "active DESC, status, ",
            Self::Provider => "provider, ",
            Self::Model => "batch ->> '$.model' IS NULL, batch ->> '$.model', ",
            Self::Expected => "active DESC, eta IS NULL, eta, ",
        }
    }
}
