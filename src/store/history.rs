//! What ended batches took, for the schedule: the newest of each class, so that it stays small.

#![expect(clippy::cast_precision_loss, reason = "Unix seconds and counts are far below 2^52")]

use super::column::{Pk, ms, word};
use super::error::StoreError;
use super::given::Given;
use super::row;
use super::sql::{Row, Sql};
use super::state::Store;
use super::value::named;
use crate::domain::batch::Batch;
use crate::domain::hazard::Span;
use crate::domain::history::{Class, Lesson, Stage, lessons};
use crate::domain::tracked::BatchKey;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// The spans of a provider's batches that are known, of every class.
#[derive(Clone, Debug, Default)]
pub struct History {
    ended: Vec<Past>,
    running: Vec<Past>,
}

/// One batch's stretch of life.
#[derive(Clone, Debug)]
struct Past {
    class: Class,
    span: Span,
    /// Unix seconds.
    began_at: f64,
}

impl History {
    /// The classes of which an end is known.
    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.ended.iter().map(|past| &past.class)
    }

    /// What is known of `class`: its newest ends, and those that went on beside them and still do.
    pub fn spans(&self, class: &Class) -> Vec<Span> {
        let of_class = |past: &&Past| class.holds(&past.class);
        let ended: Vec<&Past> = self.ended.iter().filter(of_class).take(KEPT).collect();
        // What began before all of them is here because it is slow: its quicker fellows are forgotten.
        let first = ended.iter().map(|past| past.began_at).fold(f64::INFINITY, f64::min);
        let running = self.running.iter().filter(of_class).filter(|past| past.began_at >= first);
        ended.into_iter().chain(running).map(|past| past.span).collect()
    }
}

impl Store {
    /// What is known of how long a provider's batches take, newest first, and how long those have run at `now` that
    /// still do.
    pub async fn history(&self, provider: String, now: Timestamp) -> Result<History, StoreError> {
        self.read(move |connection| {
            let ended = ended(connection, &provider)?;
            // Without an end there is nothing that they could be compared with.
            let running = if ended.is_empty() { Vec::new() } else { running(connection, &provider, now)? };
            Ok(History { ended, running })
        })
        .await
    }

    /// Learns from batches that a provider's list told of, and notes that this is done if it is. Those that are
    /// known already teach nothing new.
    pub async fn learn(&self, provider: String, listed: Vec<Batch>, done: bool) -> Result<(), StoreError> {
        self.write(move |tx| {
            for batch in &listed {
                learn(tx, &BatchKey { provider: provider.clone(), id: batch.id.clone() }, batch)?;
            }
            if done {
                note(tx, &provider, tx.now)?;
            }
            Ok(())
        })
        .await
    }

    /// Whether the provider's own list has been learnt from.
    pub async fn has_learnt(&self, provider: String) -> Result<bool, StoreError> {
        self.read(move |connection| is_noted(connection, &provider)).await
    }
}

/// Learns from `batch` if it has ended; each batch teaches once.
pub(super) fn learn(connection: &Sql<'_>, key: &BatchKey, batch: &Batch) -> Result<(), StoreError> {
    learn_all(connection, std::iter::once((key, batch)))
}

/// The same of many.
pub(super) fn learn_all<'b>(
    connection: &Sql<'_>,
    batches: impl Iterator<Item = (&'b BatchKey, &'b Batch)>,
) -> Result<(), StoreError> {
    let mut taught = Vec::new();
    for (key, batch) in batches {
        taught.extend(lessons(&key.provider, batch).into_iter().map(|lesson| (key, batch, lesson)));
    }
    if taught.is_empty() {
        return Ok(());
    }
    let numbers = numbers(connection, taught.iter().map(|(key, _, lesson)| kind(key, lesson)))?;
    let mut given = Given::default();
    for (key, batch, lesson) in &taught {
        let Some(class) = numbers.get(&kind(key, lesson)) else { continue };
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds, at most 60 days of them")]
        let seconds = lesson.seconds as i64;
        given.push(vec![
            (*class).into(),
            lesson.class.stage.as_str().to_owned().into(),
            key.id.clone().into(),
            batch.ended_at().into(),
            seconds.into(),
            lesson.ended.into(),
        ]);
    }
    let new: BTreeSet<(Pk, String)> = connection
        .rows_of(
            "INSERT INTO durations (class, stage, id, ended_at, seconds, ended)
             SELECT given.class, given.stage, given.id, given.ended_at, given.seconds, given.ended
             FROM given(class INT, stage TEXT, id TEXT, ended_at INT, seconds INT, ended INT)
             WHERE TRUE ON CONFLICT DO NOTHING RETURNING class, stage",
            &given,
            |row| Ok((row.get("class")?, row.get("stage")?)),
        )?
        .into_iter()
        .collect();
    for (class, stage) in new {
        connection.send(
            &format!(
                "DELETE FROM durations WHERE (class, stage, id) IN (
                   SELECT class, stage, id FROM durations
                   WHERE class = ?1 AND stage = ?2 ORDER BY ended_at DESC LIMIT {ALL} OFFSET {KEPT})"
            ),
            (class, stage),
        )?;
    }
    Ok(())
}

/// What of a class has a number: provider, endpoint, model and size.
type Kind = (String, String, String, u8);

fn kind(key: &BatchKey, Lesson { class, .. }: &Lesson) -> Kind {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (key.provider.clone(), text(&class.endpoint), text(&class.model), class.size.unwrap_or_default())
}

/// The numbers of these, which those get that have none.
fn numbers(
    connection: &Sql<'_>,
    kinds: impl Iterator<Item = Kind>,
) -> Result<BTreeMap<Kind, Pk>, StoreError> {
    let mut seen = BTreeSet::new();
    let kinds: Vec<Kind> = kinds.filter(|kind| seen.insert(kind.clone())).collect();
    let given = |kinds: &[Kind]| {
        let row = |(provider, endpoint, model, size): &Kind| {
            vec![provider.clone().into(), endpoint.clone().into(), model.clone().into(), (*size).into()]
        };
        kinds.iter().map(row).collect::<Given>()
    };
    let read = |row: &Row<'_>| {
        let kind = (row.get("provider")?, row.get("endpoint")?, row.get("model")?, row.get("size")?);
        Ok((kind, row.get("pk")?))
    };
    let known = connection.rows_of(
        "SELECT classes.pk AS pk, classes.provider AS provider, classes.endpoint AS endpoint, classes.model AS model,
           classes.size AS size
         FROM classes, given(provider TEXT, endpoint TEXT, model TEXT, size INT)
         WHERE classes.provider = given.provider AND classes.endpoint = given.endpoint AND classes.model = given.model
           AND classes.size = given.size",
        &given(&kinds),
        read,
    )?;
    let mut numbers: BTreeMap<Kind, Pk> = known.into_iter().collect();
    let new: Vec<Kind> = kinds.into_iter().filter(|kind| !numbers.contains_key(kind)).collect();
    numbers.extend(connection.rows_of(
        "INSERT INTO classes (provider, endpoint, model, size)
         SELECT given.provider, given.endpoint, given.model, given.size
         FROM given(provider TEXT, endpoint TEXT, model TEXT, size INT)
         WHERE TRUE RETURNING pk, provider, endpoint, model, size",
        &given(&new),
        read,
    )?);
    Ok(numbers)
}

/// Forgets what the batch taught.
pub(super) fn forget(connection: &Sql<'_>, key: &BatchKey) -> Result<(), StoreError> {
    connection.send(
        "DELETE FROM durations WHERE id = ?2 AND class IN (SELECT pk FROM classes WHERE provider = ?1)",
        (&key.provider, &key.id),
    )?;
    Ok(())
}

/// Learns, once, from what ended before there was a history.
///
/// In a transaction of the caller's.
pub(super) fn begin(connection: &Sql<'_>, now: Timestamp) -> Result<(), StoreError> {
    let ended = row::select(&format!(
        "WHERE over_at IS NOT NULL AND status IN ('completed', 'failed', 'expired', 'cancelled')
         ORDER BY over_at DESC LIMIT {MAX_LEARNT_AT_START}"
    ));
    for (_, tracked) in connection.rows(&ended, [], row::read)?.iter().rev() {
        learn(connection, &tracked.key, &tracked.batch)?;
    }
    note(connection, OWN, now)
}

/// Whether [`begin`] has been done.
pub(super) fn has_begun(connection: &Sql<'_>) -> Result<bool, StoreError> {
    is_noted(connection, OWN)
}

fn is_noted(connection: &Sql<'_>, provider: &str) -> Result<bool, StoreError> {
    let noted = connection.row("SELECT 1 FROM learnt WHERE provider = ?1", [provider], |_| Ok(()))?;
    Ok(noted.is_some())
}

fn note(connection: &Sql<'_>, provider: &str, now: Timestamp) -> Result<(), StoreError> {
    connection.send(
        "INSERT INTO learnt (provider, at) VALUES (:provider, :at) ON CONFLICT DO NOTHING",
        named! { ":provider": provider, ":at": ms(now) },
    )?;
    Ok(())
}

fn ended(connection: &Sql<'_>, provider: &str) -> Result<Vec<Past>, StoreError> {
    connection.rows(
        "SELECT endpoint, model, size, stage, seconds, ended, ended_at
         FROM durations JOIN classes ON classes.pk = durations.class
         WHERE provider = ?1 ORDER BY ended_at DESC",
        [provider],
        |row| {
            let (seconds, ended_at): (f64, f64) =
                (row.get::<i64>("seconds")? as f64, row.get::<i64>("ended_at")? as f64);
            Ok(Past {
                class: Class {
                    provider: provider.to_owned(),
                    stage: word(row, "stage", Stage::from_word)?,
                    endpoint: Some(row.get("endpoint")?),
                    model: Some(row.get("model")?),
                    size: Some(row.get("size")?),
                },
                span: Span { seconds, ended: row.get("ended")?, weight: 1.0 },
                began_at: ended_at - seconds,
            })
        },
    )
}

/// Of very many that run, every so-manieth stands for all.
fn running(connection: &Sql<'_>, provider: &str, now: Timestamp) -> Result<Vec<Past>, StoreError> {
    let count: i64 = connection.one(
        "SELECT count(*) AS count FROM batches WHERE provider = ?1 AND status = 'in_progress'",
        [provider],
        |row| row.get("count"),
    )?;
    let every = (count / RUNNING + 1).max(1);
    connection.rows(
        "SELECT batch ->> '$.endpoint' AS endpoint, coalesce(batch ->> '$.model', '') AS model,
           coalesce(CAST(batch ->> '$.request_counts.total' AS BIGINT), 0) AS total,
           CAST(batch ->> '$.created_at' AS BIGINT) AS began_at
         FROM batches WHERE provider = ?1 AND status = 'in_progress' AND active = 1 AND pk % ?2 = 0",
        (provider, every),
        |row| {
            let began_at = row.get::<i64>("began_at")? as f64;
            let total: i64 = row.get("total")?;
            Ok(Past {
                class: Class {
                    provider: provider.to_owned(),
                    stage: Stage::Work,
                    endpoint: Some(row.get("endpoint")?),
                    model: Some(row.get("model")?),
                    size: Some(Class::size_of(total.unsigned_abs())),
                },
                span: Span {
                    seconds: (now.as_second() as f64 - began_at).max(1.0),
                    ended: false,
                    weight: every as f64,
                },
                began_at,
            })
        },
    )
}

/// A limit that is none.
const ALL: i64 = i64::MAX;
/// So many ends of each class are kept; older ones say less of today.
const KEPT: usize = 500;
/// How many batches that run are compared with those that ended.
const RUNNING: i64 = 2000;
/// How many ended batches the first start learns from.
const MAX_LEARNT_AT_START: usize = 5000;
/// What stands for batchd's own record among the providers' names, of which none is empty.
const OWN: &str = "";
