//! Between a file and a server: a backup of a server's state is a file, and a file's state can move to a server.
//!
//! Both have the same tables and columns; the file's say which.

use super::super::column::without_escaped_nul;
use super::super::error::StoreError;
use super::super::sql::Sql;
use super::super::value::Cell;
use super::session::Session;
use bytes::{BufMut as _, BytesMut};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params_from_iter};
use std::collections::BTreeMap;

/// In an order in which what is referred to comes first.
const TABLES: [&str; 22] = [
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
    "submissions",
    "discovery",
    "passed_over",
    "classes",
    "durations",
    "learnt",
    "retention",
    "files",
    "creations",
    "spending",
    "counted",
    "queue",
];

/// The columns that hold JSON, in whatever table. Files have U+0000 there from releases before this one.
const JSON: [&str; 12] = [
    "batch",
    "body",
    "candidates",
    "given",
    "labels",
    "lineage",
    "metadata",
    "notify",
    "results",
    "spent",
    "trail",
    "warned",
];

/// How many rows each table has.
pub(super) type Counts = BTreeMap<&'static str, u64>;

/// Copies what a server holds at one moment into `file`, whose tables are empty. In a transaction of the file's.
pub(super) fn from_server(session: &Session, file: &Connection) -> Result<(), StoreError> {
    session.control("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
    let copied = copy_all(session, file);
    let ended = session.control("ROLLBACK");
    copied.and(ended)
}

fn copy_all(session: &Session, file: &Connection) -> Result<(), StoreError> {
    let sql = Sql::Server(session);
    for table in TABLES {
        let columns = columns(file, table)?;
        let places = vec!["?"; columns.len()].join(", ");
        let names = columns.join(", ");
        let mut insert = file.prepare(&format!("INSERT INTO {table} ({names}) VALUES ({places})"))?;
        sql.each(&format!("SELECT {names} FROM {table}"), [], |row| {
            let cells = columns.iter().map(|column| row.cell(column)).collect::<Result<Vec<_>, _>>()?;
            let values = cells.into_iter().map(|cell| match cell {
                Cell::Null => rusqlite::types::Value::Null,
                Cell::Int(number) => number.into(),
                Cell::Text(text) => text.to_owned().into(),
            });
            insert.execute(params_from_iter(values))?;
            Ok(())
        })?;
    }
    let newest: i64 = sql.one("SELECT sequence FROM head", [], |row| row.get("sequence"))?;
    file.execute("DELETE FROM sqlite_sequence WHERE name = 'events'", [])?;
    file.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?1)", [newest])?;
    Ok(())
}

/// Copies everything in `file` to a server whose tables are empty, in one transaction. Returns how many rows each table
/// has, once both were found to be equal.
pub(super) fn to_server(file: &Connection, session: &Session) -> Result<Counts, StoreError> {
    session.control("BEGIN")?;
    let copied = move_all(file, session);
    match copied {
        Ok(counts) => session.control("COMMIT").map(|()| counts),
        Err(error) => {
            let _ = session.control("ROLLBACK");
            Err(error)
        }
    }
}

fn move_all(file: &Connection, session: &Session) -> Result<Counts, StoreError> {
    session.control("SELECT sequence FROM head FOR UPDATE")?;
    for table in ["batches", "events", "webhooks", "submissions", "files"] {
        if count(session, table)? > 0 {
            return Err(StoreError::Internal(format!(
                "the server holds a state already (its table {table} is not empty); name an empty schema"
            )));
        }
    }
    // What a start of a daemon has noted there meanwhile is what the file says better.
    session.control(
        &TABLES.iter().rev().map(|table| format!("DELETE FROM {table}")).collect::<Vec<_>>().join("; "),
    )?;
    let mut counts = Counts::new();
    for table in TABLES {
        let columns = columns(file, table)?;
        let sent = send(file, session, table, &columns)?;
        let arrived = count(session, table)?;
        if sent != arrived {
            return Err(StoreError::Internal(format!("of {sent} rows of {table} {arrived} arrived")));
        }
        if columns.iter().any(|column| column == "pk") {
            session.control(&format!(
                "SELECT setval(pg_get_serial_sequence('{table}', 'pk'), coalesce(max(pk), 0) + 1, false) FROM {table}"
            ))?;
        }
        counts.insert(table, sent);
    }
    let newest: Option<i64> = file
        .prepare("SELECT seq FROM sqlite_sequence WHERE name = 'events'")?
        .query_map([], |row| row.get(0))?
        .next()
        .transpose()?;
    session.control(&format!("UPDATE head SET sequence = {}", newest.unwrap_or(0)))?;
    Ok(counts)
}

/// Sends all rows of a table, in the text form of `COPY`.
fn send(file: &Connection, session: &Session, table: &str, columns: &[String]) -> Result<u64, StoreError> {
    let names = columns.join(", ");
    let mut all = file.prepare(&format!("SELECT {names} FROM {table}"))?;
    let mut rows = all.query([])?;
    let mut sent = 0;
    session.copy_in(&format!("COPY {table} ({names}) FROM STDIN"), || {
        let mut piece = BytesMut::with_capacity(PIECE + PIECE / 4);
        while piece.len() < PIECE {
            let Some(row) = rows.next()? else { break };
            for (at, column) in columns.iter().enumerate() {
                if at > 0 {
                    piece.put_u8(b'\t');
                }
                match row.get_ref(at)? {
                    ValueRef::Text(text) if JSON.contains(&column.as_str()) => {
                        let text = without_escaped_nul(String::from_utf8_lossy(text));
                        write(&mut piece, ValueRef::Text(text.as_bytes()));
                    }
                    other => write(&mut piece, other),
                }
            }
            piece.put_u8(b'\n');
            sent += 1;
        }
        Ok((!piece.is_empty()).then(|| piece.freeze()))
    })?;
    Ok(sent)
}

/// A value as `COPY` reads it; PostgreSQL stores no U+0000.
fn write(piece: &mut BytesMut, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => piece.put_slice(b"\\N"),
        ValueRef::Integer(number) => piece.put_slice(number.to_string().as_bytes()),
        ValueRef::Real(number) => piece.put_slice(number.to_string().as_bytes()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            for byte in bytes {
                match byte {
                    b'\\' => piece.put_slice(b"\\\\"),
                    b'\n' => piece.put_slice(b"\\n"),
                    b'\r' => piece.put_slice(b"\\r"),
                    b'\t' => piece.put_slice(b"\\t"),
                    0 => piece.put_slice("\u{fffd}".as_bytes()),
                    other => piece.put_u8(*other),
                }
            }
        }
    }
}

/// The columns that are stored, not reckoned from others.
fn columns(file: &Connection, table: &str) -> Result<Vec<String>, StoreError> {
    let mut query = file.prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0 ORDER BY cid")?;
    let names = query.query_map([table], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

fn count(session: &Session, table: &str) -> Result<u64, StoreError> {
    let count: i64 =
        Sql::Server(session)
            .one(&format!("SELECT count(*) AS count FROM {table}"), [], |row| row.get("count"))?;
    Ok(count.unsigned_abs())
}

/// Bytes in one message.
const PIECE: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_in_a_column_is_one_field_of_one_line() {
        let mut piece = BytesMut::new();
        write(&mut piece, ValueRef::Text(b"a\tb\\N\nc\r\0"));
        assert_eq!(&piece[..], b"a\\tb\\\\N\\nc\\r\xef\xbf\xbd");
        piece.clear();
        write(&mut piece, ValueRef::Null);
        assert_eq!(&piece[..], b"\\N");
    }
}
