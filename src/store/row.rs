//! A batch's row: each column is named once for reading and once for writing.

use super::checks::{self, BATCHES_AND_CHECKS};
use super::column::{Pk, from_json, instant, json, maybe_at, maybe_json, ms, word};
use super::error::StoreError;
use super::given::Given;
use super::sql::{Row, Sql};
use super::value::Value;
use crate::domain::time::to_millis;
use crate::domain::tracked::{BatchKey, Eta, Lineage, Missing, Origin, SUBMISSION_PREFIX, Tracked};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A column's name, its type, and what is written there.
type Column = (&'static str, &'static str, fn(&Tracked) -> Result<Value, StoreError>);

const INT: &str = "INT";
const TEXT: &str = "TEXT";

/// What every check of a batch writes.
const CHECKED: &[Column] = &[
    ("kind", TEXT, |tracked| Ok(tracked.kind.clone().into())),
    ("status", TEXT, |tracked| Ok(tracked.batch.status.as_str().to_owned().into())),
    ("batch", TEXT, |tracked| Ok(json(&tracked.batch)?.into())),
    ("provider_status", TEXT, |tracked| Ok(tracked.provider_status.clone().into())),
    ("console_url", TEXT, |tracked| Ok(tracked.console_url.clone().into())),
    ("first_seen_at", INT, |tracked| Ok(tracked.first_seen_at.map(ms).into())),
    ("status_since", INT, |tracked| Ok(ms(tracked.status_since).into())),
    ("progress_at", INT, |tracked| Ok(tracked.progress_at.map(ms).into())),
    ("last_polled_at", INT, |tracked| Ok(tracked.last_polled_at.map(ms).into())),
    ("last_error", TEXT, |tracked| Ok(tracked.last_error.clone().into())),
    ("failures", INT, |tracked| Ok(tracked.failures.into())),
    ("missing_since", INT, |tracked| Ok(tracked.missing.map(|missing| ms(missing.since)).into())),
    ("missing_count", INT, |tracked| Ok(tracked.missing.map_or(0, |missing| missing.count).into())),
    ("lost_since", INT, |tracked| Ok(tracked.lost_since.map(ms).into())),
    ("stalled_since", INT, |tracked| Ok(tracked.stalled_since.map(ms).into())),
    ("results_expire_at", INT, |tracked| Ok(tracked.results_expire_at.map(ms).into())),
    ("held_since", INT, |tracked| Ok(tracked.held_since.map(ms).into())),
    ("settled", INT, |tracked| Ok(tracked.settled.into())),
    ("warned", TEXT, |tracked| Ok(json(&tracked.warned)?.into())),
    ("trail", TEXT, |tracked| Ok(json(&tracked.trail)?.into())),
    ("cost", TEXT, |tracked| Ok(tracked.cost.as_ref().map(json).transpose()?.into())),
];

/// What registering a batch writes besides; later only users change it.
const REGISTERED: &[Column] = &[
    ("provider", TEXT, |tracked| Ok(tracked.key.provider.clone().into())),
    ("id", TEXT, |tracked| Ok(tracked.key.id.clone().into())),
    ("owner", TEXT, |tracked| Ok(tracked.owner.clone().into())),
    ("uploaded_file", TEXT, |tracked| Ok(tracked.uploaded_file.clone().into())),
    ("lineage", TEXT, |tracked| {
        let known = (tracked.lineage != Lineage::default()).then_some(&tracked.lineage);
        Ok(known.map(json).transpose()?.into())
    }),
    ("labels", TEXT, |tracked| Ok(json(&tracked.labels)?.into())),
    ("notify", TEXT, |tracked| Ok(json(&tracked.notify)?.into())),
    ("origin", TEXT, |tracked| Ok(origin_word(tracked.origin).to_owned().into())),
    ("tracked_at", INT, |tracked| Ok(ms(tracked.tracked_at).into())),
    ("untracked_at", INT, |tracked| Ok(tracked.untracked_at.map(ms).into())),
    ("deadline", INT, |tracked| Ok(tracked.deadline.map(ms).into())),
    ("name", TEXT, |tracked| Ok(tracked.name.clone().into())),
];

/// What [`read`] reads: every column above, the row's number, its place on the schedule, and what is known of the copy of
/// the results.
static COLUMNS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "pk, results, download_error, resubmitted_by, waiting_for, {}, {}, next_poll_at, eta, eta_earliest, eta_latest,
         coalesce(checked_at, last_polled_at) AS polled_at",
        names(&CHECKED.iter().collect::<Vec<_>>()),
        names(&REGISTERED.iter().collect::<Vec<_>>())
    )
});

pub(super) fn read(row: &Row<'_>) -> Result<(Pk, Tracked), StoreError> {
    let missing_count = row.get("missing_count")?;
    let missing = maybe_at(row, "missing_since")?.map(|since| Missing { since, count: missing_count });
    let tracked = Tracked {
        key: BatchKey { provider: row.get("provider")?, id: row.get("id")? },
        kind: row.get("kind")?,
        batch: from_json(row, "batch")?,
        provider_status: row.get("provider_status")?,
        name: row.get("name")?,
        labels: from_json(row, "labels")?,
        owner: row.get("owner")?,
        uploaded_file: row.get("uploaded_file")?,
        lineage: maybe_json(row, "lineage")?.unwrap_or_default(),
        resubmitted_by: maybe_json(row, "resubmitted_by")?.unwrap_or_default(),
        waiting_for: maybe_json(row, "waiting_for")?,
        notify: from_json(row, "notify")?,
        origin: word(row, "origin", origin_of)?,
        console_url: row.get("console_url")?,
        tracked_at: instant(row, "tracked_at")?,
        untracked_at: maybe_at(row, "untracked_at")?,
        first_seen_at: maybe_at(row, "first_seen_at")?,
        status_since: instant(row, "status_since")?,
        progress_at: maybe_at(row, "progress_at")?,
        trail: from_json(row, "trail")?,
        last_polled_at: maybe_at(row, "polled_at")?,
        next_poll_at: maybe_at(row, "next_poll_at")?,
        last_error: row.get("last_error")?,
        failures: row.get("failures")?,
        missing,
        lost_since: maybe_at(row, "lost_since")?,
        stalled_since: maybe_at(row, "stalled_since")?,
        deadline: maybe_at(row, "deadline")?,
        eta: eta(row)?,
        results_expire_at: maybe_at(row, "results_expire_at")?,
        held_since: maybe_at(row, "held_since")?,
        settled: row.get("settled")?,
        warned: from_json(row, "warned")?,
        cost: maybe_json(row, "cost")?,
        results: maybe_json(row, "results")?,
        results_error: row.get("download_error")?,
    };
    Ok((row.get("pk")?, tracked))
}

/// The statement that selects batches for [`read`]; `rest` follows the table's name.
pub(super) fn select(rest: &str) -> String {
    format!("SELECT {} FROM {BATCHES_AND_CHECKS} {rest}", *COLUMNS)
}

/// The same with another column, which the caller reads.
pub(super) fn select_with(column: &str, rest: &str) -> String {
    format!("SELECT {}, {column} FROM {BATCHES_AND_CHECKS} {rest}", *COLUMNS)
}

/// The batch with this number.
pub(super) fn load(connection: &Sql<'_>, pk: Pk) -> Result<Option<(Pk, Tracked)>, StoreError> {
    connection.row(&select("WHERE pk = ?1"), [pk], read)
}

/// Those with these numbers, in no particular order.
pub(super) fn load_all(connection: &Sql<'_>, batches: &[Pk]) -> Result<Vec<(Pk, Tracked)>, StoreError> {
    connection.rows_of(
        &select(", given(wanted INT) WHERE pk = given.wanted"),
        &Given::each(batches.iter().copied()),
        read,
    )
}

/// The batch with each of these keys, or the one that was submitted under this id.
pub(super) fn find_all<'k>(
    connection: &Sql<'_>,
    keys: impl Iterator<Item = &'k BatchKey> + Clone,
) -> Result<BTreeMap<BatchKey, (Pk, Tracked)>, StoreError> {
    let given = |key: &BatchKey| vec![key.provider.clone().into(), key.id.clone().into()];
    let by_id = connection.rows_of(
        &select(", given(at TEXT, wanted TEXT) WHERE provider = given.at AND id = given.wanted"),
        &keys.clone().map(given).collect(),
        read,
    )?;
    let mut found: BTreeMap<_, _> =
        by_id.into_iter().map(|(pk, tracked)| (tracked.key.clone(), (pk, tracked))).collect();
    let submitted =
        keys.filter(|key| key.id.starts_with(SUBMISSION_PREFIX) && !found.contains_key(*key)).map(given);
    let submitted = connection.rows_of(
        &select_with(
            "submission",
            ", given(at TEXT, wanted TEXT) WHERE provider = given.at AND submission = given.wanted",
        ),
        &submitted.collect(),
        |row| Ok((row.get("submission")?, read(row)?)),
    )?;
    for (id, (pk, tracked)) in submitted {
        let key = BatchKey { provider: tracked.key.provider.clone(), id };
        found.entry(key).or_insert((pk, tracked));
    }
    Ok(found)
}

/// The number of the batch with this key.
pub(super) fn number(connection: &Sql<'_>, key: &BatchKey) -> Result<Option<Pk>, StoreError> {
    connection.row(
        "SELECT pk FROM batches WHERE provider = ?1 AND id = ?2",
        (&key.provider, &key.id),
        |row| row.get("pk"),
    )
}

/// What a check or a registration plans besides for a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plans {
    /// Whether it is over, so that what follows is known.
    pub(super) is_over: bool,
    /// When it is to be told that its results will soon be deleted, if ever.
    pub(super) warn_at: Option<Timestamp>,
    /// Its end is told: when its results are due, unless they have been downloaded.
    pub(super) download_at: Option<Timestamp>,
}

/// Adds new batches; their numbers, in their order.
pub(super) fn insert_all(connection: &Sql<'_>, batches: &[(&Tracked, Plans)]) -> Result<Vec<Pk>, StoreError> {
    static INSERT: LazyLock<String> = LazyLock::new(|| {
        let columns: Vec<&Column> = CHECKED.iter().chain(REGISTERED).collect();
        format!(
            "INSERT INTO batches ({0}, results_warn_at, download_at)
             SELECT {1}, given.results_warn_at, given.download_at
             FROM given({2}, results_warn_at INT, download_at INT) WHERE TRUE RETURNING pk, provider, id",
            names(&columns),
            listed(&columns, |name, _| format!("given.{name}")),
            listed(&columns, |name, kind| format!("{name} {kind}")),
        )
    });
    let mut given = Given::default();
    for (tracked, plans) in batches {
        let mut row = values(CHECKED, tracked)?;
        row.extend(values(REGISTERED, tracked)?);
        row.extend([plans.warn_at, plans.download_at].map(|at| Value::from(at.map(ms))));
        given.push(row);
    }
    let added = connection.rows_of(&INSERT, &given, |row| {
        Ok((BatchKey { provider: row.get("provider")?, id: row.get("id")? }, row.get("pk")?))
    })?;
    let added: BTreeMap<BatchKey, Pk> = added.into_iter().collect();
    let numbered = batches.iter().map(|(tracked, _)| {
        let pk = added.get(&tracked.key).copied();
        pk.map(|pk| (pk, *tracked)).ok_or_else(|| StoreError::Internal("a new batch has no row".to_owned()))
    });
    let numbered: Vec<(Pk, &Tracked)> = numbered.collect::<Result<_, _>>()?;
    // What is new has no place that would have to go.
    let with_place = numbered.iter().copied().filter(|(_, tracked)| checks::has_place(tracked));
    checks::place_all(connection, with_place)?;
    Ok(numbered.into_iter().map(|(pk, _)| pk).collect())
}

/// What a check that found the row as it was `before` makes of it; `None` if another check has seen the end before this
/// one, which saw none.
///
/// What users alone change stays, and so does the next poll of a batch that is watched again since the check began.
pub(super) fn updated(before: Tracked, tracked: &Tracked) -> Option<Tracked> {
    if before.batch.status.is_terminal() && !tracked.batch.status.is_terminal() {
        return None;
    }
    let next_poll_at =
        if tracked.untracked_at.is_some() { before.next_poll_at } else { tracked.next_poll_at };
    let mut stored = Tracked {
        key: before.key,
        name: before.name.or_else(|| tracked.name.clone()),
        labels: before.labels,
        owner: before.owner,
        uploaded_file: before.uploaded_file,
        notify: before.notify,
        origin: before.origin,
        tracked_at: before.tracked_at,
        untracked_at: before.untracked_at,
        deadline: before.deadline,
        next_poll_at: next_poll_at.filter(|_| before.untracked_at.is_none()),
        results: before.results,
        results_error: before.results_error,
        ..tracked.clone()
    };
    stored.eta = stored.eta.filter(|_| stored.next_poll_at.is_some());
    to_resolution(&mut stored);
    Some(stored)
}

/// Writes what checks have changed.
pub(super) fn update_all(connection: &Sql<'_>, batches: &[(Pk, &Tracked, Plans)]) -> Result<(), StoreError> {
    static UPDATE: LazyLock<String> = LazyLock::new(|| {
        let columns: Vec<&Column> = CHECKED.iter().collect();
        format!(
            "UPDATE batches SET {}, name = given.name,
               results_warn_at = CASE WHEN given.is_over = 1 THEN given.warn_at ELSE batches.results_warn_at END,
               download_at = CASE WHEN given.due_at IS NOT NULL AND batches.results IS NULL THEN given.due_at
                 ELSE batches.download_at END
             FROM given({}, name TEXT, is_over INT, warn_at INT, due_at INT, written INT)
             WHERE batches.pk = given.written",
            listed(&columns, |name, _| format!("{name} = given.{name}")),
            listed(&columns, |name, kind| format!("{name} {kind}")),
        )
    });
    let mut given = Given::default();
    for (pk, stored, plans) in batches {
        let mut row = values(CHECKED, stored)?;
        row.extend([
            stored.name.clone().into(),
            plans.is_over.into(),
            plans.warn_at.map(ms).into(),
            plans.download_at.map(ms).into(),
            (*pk).into(),
        ]);
        given.push(row);
    }
    connection.set(&UPDATE, &given)?;
    checks::place_all(connection, batches.iter().map(|(pk, stored, _)| (*pk, *stored)))
}

/// The names of these columns, as a statement lists them.
fn names(columns: &[&Column]) -> String {
    listed(columns, |name, _| name.to_owned())
}

fn listed(columns: &[&Column], one: impl Fn(&str, &str) -> String) -> String {
    columns.iter().map(|(name, kind, _)| one(name, kind)).collect::<Vec<_>>().join(", ")
}

/// The values of these columns.
fn values(columns: &[Column], tracked: &Tracked) -> Result<Vec<Value>, StoreError> {
    columns.iter().map(|(.., value)| value(tracked)).collect()
}

/// An expected end that an older batchd wrote has no bounds, and is none.
fn eta(row: &Row<'_>) -> Result<Option<Eta>, StoreError> {
    let bounds = maybe_at(row, "eta_earliest")?.zip(maybe_at(row, "eta_latest")?);
    Ok(maybe_at(row, "eta")?.zip(bounds).map(|(at, (earliest, latest))| Eta { at, earliest, latest }))
}

/// Cuts every instant to what is stored of it.
pub(super) fn to_resolution(tracked: &mut Tracked) {
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
