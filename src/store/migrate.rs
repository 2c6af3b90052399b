//! Numbered migrations, each in its own transaction.

use super::database::{self, APPLICATION_ID, open_error};
use super::directory;
use super::error::OpenError;
use rusqlite::{Connection, TransactionBehavior};
use std::path::{Path, PathBuf};

/// The schemas, oldest first: the statements that lead from each to the next. Released ones never change.
pub(super) const SCHEMAS: &[&str] = &[
    include_str!("schema/0001.sql"),
    include_str!("schema/0002.sql"),
    include_str!("schema/0003.sql"),
    include_str!("schema/0004.sql"),
    include_str!("schema/0005.sql"),
    include_str!("schema/0006.sql"),
    include_str!("schema/0007.sql"),
    include_str!("schema/0008.sql"),
];

/// The number of the newest schema.
#[expect(clippy::cast_possible_wrap, reason = "there are a handful")]
pub(super) const fn newest() -> i64 {
    SCHEMAS.len() as i64
}

/// Brings the database of `dir` to the last of `schemas`, keeping a copy of an older one first.
///
/// Forward only. Each step is one transaction, so that a crash leaves the old schema or the new one, and a
/// step that was begun by another process is not done twice.
pub(super) fn migrate(connection: &mut Connection, schemas: &[&str], dir: &Path) -> Result<(), OpenError> {
    let failed = |error| open_error(dir, &error);
    let from = version(connection).map_err(failed)?;
    let done = usize::try_from(from).unwrap_or(0);
    if done > 0 && done < schemas.len() {
        keep_copy(connection, dir, from)?;
    }
    for (statements, number) in schemas.iter().zip(1_i64..).skip(done) {
        // A table can only be rebuilt while references are not enforced, and that cannot change in a transaction.
        connection.pragma_update(None, "foreign_keys", false).map_err(failed)?;
        step(connection, statements, number).map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        if done > 0 {
            tracing::info!(schema = number, "migrated the state database");
        }
    }
    if done == 0 && !schemas.is_empty() {
        tracing::info!("created the state database in {}", dir.display());
    }
    Ok(())
}

fn step(connection: &mut Connection, statements: &str, number: i64) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if version(&transaction)? >= number {
        return Ok(());
    }
    transaction.execute_batch(statements)?;
    let dangling: Option<String> = {
        let mut check = transaction.prepare("PRAGMA foreign_key_check")?;
        let mut rows = check.query([])?;
        rows.next()?.map(|row| row.get(0)).transpose()?
    };
    if let Some(table) = dangling {
        return Err(rusqlite::Error::ToSqlConversionFailure(
            format!("schema {number} leaves rows of {table} without what they refer to").into(),
        ));
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", number)?;
    transaction.commit()
}

fn version(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Keeps the database as it is beside itself, and the copy before this one; older ones go.
fn keep_copy(connection: &Connection, dir: &Path, from: i64) -> Result<(), OpenError> {
    let unwritable = |what: String| OpenError::Unwritable {
        dir: dir.to_owned(),
        what: format!("failed to keep a copy before the migration: {what}"),
    };
    let copy = copy_before(dir, from + 1);
    let unfinished = directory::copy_path(dir, 0);
    database::copy_to(connection, &unfinished).map_err(|error| unwritable(error.to_string()))?;
    std::fs::rename(&unfinished, &copy)
        .and_then(|()| directory::sync(dir))
        .map_err(|error| unwritable(error.to_string()))?;
    tracing::info!(copy = %copy.display(), "kept a copy of the state before its migration");
    for older in 0..from {
        let _ = std::fs::remove_file(copy_before(dir, older));
    }
    Ok(())
}

/// Where the copy is kept that was made before the migration to schema `to`.
fn copy_before(dir: &Path, to: i64) -> PathBuf {
    let mut name = database::file(dir).into_os_string();
    name.push(format!(".pre-v{to}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [&str; 4] = [
        "CREATE TABLE a (x INTEGER PRIMARY KEY) STRICT; INSERT INTO a VALUES (1);
         CREATE TABLE identity (run TEXT NOT NULL) STRICT; INSERT INTO identity VALUES ('r');",
        "ALTER TABLE a ADD COLUMN y TEXT NOT NULL DEFAULT 'two';",
        "CREATE TABLE b (x INTEGER REFERENCES a (x)) STRICT; INSERT INTO b VALUES (1);",
        "UPDATE a SET y = 'four';",
    ];

    fn connection(dir: &Path) -> Connection {
        let connection = Connection::open(database::file(dir)).unwrap();
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
        connection
    }

    fn text(connection: &Connection, sql: &str) -> String {
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn every_schema_leads_to_the_newest_and_keeps_what_was_there() {
        for from in 1..STEPS.len() {
            let dir = tempfile::tempdir().unwrap();
            let mut connection = connection(dir.path());
            migrate(&mut connection, &STEPS[..from], dir.path()).unwrap();
            assert!(!copy_before(dir.path(), 1).exists(), "a new file needs no copy");
            migrate(&mut connection, &STEPS, dir.path()).unwrap();
            assert_eq!(version(&connection).unwrap(), 4);
            assert_eq!(text(&connection, "SELECT x || y FROM a"), "1four");

            let copy = Connection::open(copy_before(dir.path(), i64::try_from(from).unwrap() + 1)).unwrap();
            assert_eq!(version(&copy).unwrap(), i64::try_from(from).unwrap());
            assert_eq!(text(&copy, "SELECT run FROM identity"), "", "a copy belongs to no run");
            assert_eq!(text(&copy, "PRAGMA integrity_check"), "ok");
        }
    }

    #[test]
    fn the_last_two_copies_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = connection(dir.path());
        for to in 1..=STEPS.len() {
            migrate(&mut connection, &STEPS[..to], dir.path()).unwrap();
        }
        let kept: Vec<_> = (0..5).filter(|to| copy_before(dir.path(), *to).exists()).collect();
        assert_eq!(kept, [3, 4]);
    }

    #[test]
    fn a7_a_step_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = connection(dir.path());
        migrate(&mut connection, &STEPS[..2], dir.path()).unwrap();
        for broken in [
            "CREATE TABLE c (x INTEGER) STRICT; INSERT INTO nowhere VALUES (1);",
            "CREATE TABLE b (x INTEGER REFERENCES a (x)) STRICT; INSERT INTO b VALUES (99);",
        ] {
            assert!(migrate(&mut connection, &[STEPS[0], STEPS[1], broken], dir.path()).is_err());
            assert!(connection.is_autocommit());
            assert_eq!(version(&connection).unwrap(), 2);
            let tables =
                text(&connection, "SELECT group_concat(name) FROM sqlite_schema WHERE type = 'table'");
            assert_eq!(tables, "a,identity");
        }
        migrate(&mut connection, &STEPS, dir.path()).unwrap();
        assert_eq!(version(&connection).unwrap(), 4);
    }
}
