//! The store on real files: what is acknowledged is there, once, whatever happens.

mod creating;
mod damage;
mod delivering;
mod faults;
mod files;
mod findings;
mod fixture;
mod held_up;
mod history;
mod load;
mod mounted;
mod moving;
mod older_sqlite;
mod opening;
mod power;
mod pruning;
mod recording;
mod sets;
mod stage;
mod texts;

use batchd::clock::Clock;
use batchd::domain::batch::RequestCounts;
use batchd::domain::event::EventType;
use batchd::domain::outcome::Severity;
use batchd::domain::route::{Route, Routes};
use batchd::domain::sighting::Sighting;
use batchd::domain::status::Status;
use batchd::domain::tracked::{BatchKey, Origin, Tracked};
use batchd::domain::transition::{Step, observe};
use batchd::domain::user_fields::UserFields;
use batchd::store::recording::Registration;
use batchd::store::{Pk, Store};
use jiff::Timestamp;
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

const EPOCH: Timestamp = Timestamp::constant(1_795_000_000, 0);

fn seconds(after: i64) -> Timestamp {
    Timestamp::from_second(EPOCH.as_second() + after).unwrap()
}

/// A clock that stands at [`EPOCH`] while the test's runtime is paused.
fn still() -> Clock {
    Clock::simulated(EPOCH)
}

fn key(id: &str) -> BatchKey {
    BatchKey { provider: "openai".to_owned(), id: id.to_owned() }
}

fn unseen(id: &str) -> Tracked {
    Tracked::new(key(id), "openai", "/v1/responses", Origin::Hand, EPOCH)
}

fn registration(id: &str) -> Registration {
    Registration { tracked: unseen(id), first_look: None, user_fields: UserFields::default() }
}

/// The look at `before` that shows `status`.
fn look(before: &Tracked, status: Status, now: Timestamp) -> Step {
    let sighting = Sighting {
        id: before.key.id.clone(),
        status: Some(status),
        provider_status: Some(status.as_str().to_owned()),
        request_counts: Some(RequestCounts { total: 4, completed: 4, failed: 0 }),
        output_file_id: status.is_terminal().then(|| "file-out".to_owned()),
        ..Sighting::default()
    };
    let mut step = observe(before, &sighting, false, now);
    step.tracked.next_poll_at = (!status.is_terminal()).then(|| seconds(900));
    step
}

fn route(webhook: &str) -> Route {
    Route {
        webhook: webhook.to_owned(),
        events: EventType::ALL.into_iter().collect(),
        severity: Severity::Info,
        providers: BTreeSet::new(),
        labels: BTreeMap::new(),
        on_request: false,
        disabled: false,
    }
}

fn routes(webhooks: &[&str]) -> Arc<Routes> {
    Arc::new(Routes(webhooks.iter().map(|webhook| route(webhook)).collect()))
}

/// Registers one batch.
async fn track(store: &Store, id: &str) -> Pk {
    store.register(vec![registration(id)], routes(&[])).await.unwrap()[0].pk
}

/// Stores the look that shows `status`, at [`EPOCH`] and `after` seconds.
async fn see(store: &Store, pk: Pk, status: Status, after: i64, webhooks: &[&str]) -> usize {
    let before = store.load(pk).await.unwrap().unwrap();
    store.record(pk, look(&before, status, seconds(after)), routes(webhooks)).await.unwrap()
}

/// Deletes what was over before `before`; gives how many batches went.
async fn prune(store: &Store, before: Timestamp) -> u64 {
    store.prune(std::iter::once(i64::MIN..before.as_millisecond()).collect(), u64::MAX).await.unwrap()
}

/// The file itself, beside the store.
fn raw(dir: &Path) -> Connection {
    Connection::open(dir.join("batchd.db")).unwrap()
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The tables of what is watched and told, which do not tell one run from another.
const TABLES: [&str; 10] = [
    "batches",
    "checks",
    "transitions",
    "events",
    "fences",
    "deliveries",
    "attempts",
    "webhooks",
    "providers",
    "jobs",
];

/// Every row of them.
fn dump(dir: &Path) -> Vec<String> {
    dump_as(dir, dir)
}

/// The same, of those columns only that the database in `like` has too.
fn dump_as(dir: &Path, like: &Path) -> Vec<String> {
    let (connection, like) = (raw(dir), raw(like));
    let mut all = Vec::new();
    for table in TABLES {
        let columns = format!("SELECT group_concat(name) FROM pragma_table_info('{table}')");
        let columns: String = like.query_row(&columns, [], |row| row.get(0)).unwrap();
        let mut query = connection.prepare(&format!("SELECT {columns} FROM {table} ORDER BY 1, 2")).unwrap();
        let columns = query.column_count();
        let mut rows = query.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let cells: Vec<_> =
                (0..columns).map(|column| format!("{:?}", row.get_ref(column).unwrap())).collect();
            all.push(format!("{table} {}", cells.join(" ")));
        }
    }
    all
}

/// What must hold of every state at rest (`docs/delivery.md#fault-catalogue`, I1, I2, I8).
fn assert_sound(dir: &Path) {
    let connection = raw(dir);
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    assert_eq!(number(&connection, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
    for (what, sql) in UNSOUND {
        assert_eq!(number(&connection, sql), 0, "{what}");
    }
}

/// What must not be there, and the statements that count it.
const UNSOUND: [(&str, &str); 9] = [
        (
            "an ended batch without its event",
            "SELECT count(*) FROM batches WHERE first_seen_at IS NOT NULL
            AND status IN ('completed', 'failed', 'expired', 'cancelled') AND NOT EXISTS (
            SELECT 1 FROM events WHERE batch = batches.pk AND type = 'batch.' || batches.status)",
        ),
        ("an event told twice", "SELECT count(*) - count(DISTINCT id) FROM events"),
        (
            "an event without its fence",
            "SELECT count(*) FROM events WHERE batch IS NOT NULL
            AND id NOT IN (SELECT id FROM fences)",
        ),
        ("a transition that is none", "SELECT count(*) FROM transitions WHERE from_status = to_status"),
        (
            "an attempt that nobody makes",
            "SELECT count(*) FROM attempts JOIN deliveries ON deliveries.pk = delivery
            WHERE outcome IS NULL AND state <> 'inflight'",
        ),
        (
            "a body that is another event's",
            "SELECT count(*) FROM events
            WHERE body ->> 'id' <> id OR CAST(body ->> 'sequence' AS BIGINT) <> sequence OR body ->> 'type' <> type",
        ),
        (
            "a status that differs from its batch",
            "SELECT count(*) FROM batches WHERE batch ->> 'status' <> status",
        ),
        (
            "a watched batch without its place on the schedule",
            "SELECT count(*) FROM batches WHERE active = 1 AND lost_since IS NULL AND waiting_for IS NULL
            AND pk NOT IN (SELECT batch FROM checks)",
        ),
        (
            "a place on the schedule of what is not watched, or of another account",
            "SELECT count(*) FROM checks LEFT JOIN batches ON pk = checks.batch
            WHERE pk IS NULL OR untracked_at IS NOT NULL OR checks.provider <> batches.provider",
        ),
    ];
