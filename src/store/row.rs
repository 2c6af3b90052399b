//! A batch's row: each column is named once for reading and once for writing.

use super::checks::{self, BATCHES_AND_CHECKS};
use super::column::{Pk, from_json, instant, json, maybe_at, maybe_json, ms, word};
use super::error::StoreError;
use super::sql::{Row, Sql};
use super::value::Value;
use crate::domain::time::to_millis;
use crate::domain::tracked::{BatchKey, Eta, Lineage, Missing, Origin, SUBMISSION_PREFIX, Tracked};
use std::sync::LazyLock;

/// The parameter of a column (`:` and its name), and what is written there.
type Column = (&'static str, fn(&Tracked) -> Result<Value, StoreError>);

/// What every check of a batch writes.
const CHECKED: &[Column] = &[
    (":kind", |tracked| Ok(tracked.kind.clone().into())),
    (":status", |tracked| Ok(tracked.batch.status.as_str().to_owned().into())),
    (":batch", |tracked| Ok(json(&tracked.batch)?.into())),
    (":provider_status", |tracked| Ok(tracked.provider_status.clone().into())),
    (":console_url", |tracked| Ok(tracked.console_url.clone().into())),
    (":first_seen_at", |tracked| Ok(tracked.first_seen_at.map(ms).into())),
    (":status_since", |tracked| Ok(ms(tracked.status_since).into())),
    (":progress_at", |tracked| Ok(tracked.progress_at.map(ms).into())),
    (":last_polled_at", |tracked| Ok(tracked.last_polled_at.map(ms).into())),
    (":last_error", |tracked| Ok(tracked.last_error.clone().into())),
    (":failures", |tracked| Ok(tracked.failures.into())),
    (":missing_since", |tracked| Ok(tracked.missing.map(|missing| ms(missing.since)).into())),
    (":missing_count", |tracked| Ok(tracked.missing.map_or(0, |missing| missing.count).into())),
    (":lost_since", |tracked| Ok(tracked.lost_since.map(ms).into())),
    (":stalled_since", |tracked| Ok(tracked.stalled_since.map(ms).into())),
    (":results_expire_at", |tracked| Ok(tracked.results_expire_at.map(ms).into())),
    (":held_since", |tracked| Ok(tracked.held_since.map(ms).into())),
    (":settled", |tracked| Ok(tracked.settled.into())),
    (":warned", |tracked| Ok(json(&tracked.warned)?.into())),
    (":trail", |tracked| Ok(json(&tracked.trail)?.into())),
    (":cost", |tracked| Ok(tracked.cost.as_ref().map(json).transpose()?.into())),
];

/// What registering a batch writes besides; later only users change it.
const REGISTERED: &[Column] = &[
    (":provider", |tracked| Ok(tracked.key.provider.clone().into())),
    (":id", |tracked| Ok(tracked.key.id.clone().into())),
    (":owner", |tracked| Ok(tracked.owner.clone().into())),
    (":uploaded_file", |tracked| Ok(tracked.uploaded_file.clone().into())),
    (":lineage", |tracked| {
        let known = (tracked.lineage != Lineage::default()).then_some(&tracked.lineage);
        Ok(known.map(json).transpose()?.into())
    }),
    (":labels", |tracked| Ok(json(&tracked.labels)?.into())),
    (":notify", |tracked| Ok(json(&tracked.notify)?.into())),
    (":origin", |tracked| Ok(origin_word(tracked.origin).to_owned().into())),
    (":tracked_at", |tracked| Ok(ms(tracked.tracked_at).into())),
    (":untracked_at", |tracked| Ok(tracked.untracked_at.map(ms).into())),
    (":deadline", |tracked| Ok(tracked.deadline.map(ms).into())),
    (":name", |tracked| Ok(tracked.name.clone().into())),
];

/// What [`read`] reads: every column above, the row's number, its place on the schedule, and what is known of the copy of
/// the results.
static COLUMNS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "pk, results, download_error, resubmitted_by, waiting_for, {}, {}, next_poll_at, eta, eta_earliest, eta_latest,
         coalesce(checked_at, last_polled_at) AS polled_at",
        names(CHECKED),
        names(REGISTERED)
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

/// The batch with this key, or the one that was submitted under this id.
pub(super) fn find(connection: &Sql<'_>, key: &BatchKey) -> Result<Option<(Pk, Tracked)>, StoreError> {
    if let Some(found) =
        connection.row(&select("WHERE provider = ?1 AND id = ?2"), (&key.provider, &key.id), read)?
    {
        return Ok(Some(found));
    }
    if !key.id.starts_with(SUBMISSION_PREFIX) {
        return Ok(None);
    }
    connection.row(&select("WHERE provider = ?1 AND submission = ?2"), (&key.provider, &key.id), read)
}

/// The number of the batch with this key.
pub(super) fn number(connection: &Sql<'_>, key: &BatchKey) -> Result<Option<Pk>, StoreError> {
    Ok(connection.row(
        "SELECT pk FROM batches WHERE provider = ?1 AND id = ?2",
        (&key.provider, &key.id),
        |row| row.get("pk"),
    )?)
}

/// Writes a new row.
pub(super) fn insert(connection: &Sql<'_>, tracked: &Tracked) -> Result<Pk, StoreError> {
    static INSERT: LazyLock<String> = LazyLock::new(|| {
        let parameters: Vec<&str> =
            CHECKED.iter().chain(REGISTERED).map(|(parameter, _)| *parameter).collect();
        format!(
            "INSERT INTO batches ({}, {}) VALUES ({}) RETURNING pk",
            names(CHECKED),
            names(REGISTERED),
            parameters.join(", ")
        )
    });
    let mut values = values(CHECKED, tracked)?;
    values.extend(self::values(REGISTERED, tracked)?);
    let pk = connection.one(&INSERT, values.as_slice(), |row| row.get("pk"))?;
    checks::place(connection, pk, tracked)?;
    Ok(pk)
}

/// Writes what a check changed in the row that was `before` in this transaction, and gives the batch as it then is;
/// `None` if another check has seen the end before this one, which saw none.
///
/// What users alone change stays, and so does the next poll of a batch that is watched again since the check began.
pub(super) fn update(
    connection: &Sql<'_>,
    pk: Pk,
    before: Tracked,
    tracked: &Tracked,
) -> Result<Option<Tracked>, StoreError> {
    static UPDATE: LazyLock<String> = LazyLock::new(|| {
        let assignments: Vec<String> =
            CHECKED.iter().map(|(parameter, _)| format!("{} = {parameter}", &parameter[1..])).collect();
        format!("UPDATE batches SET {}, name = :name WHERE pk = :pk", assignments.join(", "))
    });
    if before.batch.status.is_terminal() && !tracked.batch.status.is_terminal() {
        return Ok(None);
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
    let mut values = values(CHECKED, &stored)?;
    values.extend([(":pk", pk.into()), (":name", stored.name.clone().into())]);
    connection.execute(&UPDATE, values.as_slice())?;
    checks::place(connection, pk, &stored)?;
    Ok(Some(stored))
}

/// The names of these columns, as a statement lists them.
fn names(columns: &[Column]) -> String {
    columns.iter().map(|(parameter, _)| &parameter[1..]).collect::<Vec<_>>().join(", ")
}

/// The values of these columns, by their parameters.
fn values(columns: &[Column], tracked: &Tracked) -> Result<Vec<(&'static str, Value)>, StoreError> {
    columns.iter().map(|(parameter, value)| Ok((*parameter, value(tracked)?))).collect()
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
