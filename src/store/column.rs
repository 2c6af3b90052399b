//! How values stand in columns: instants as Unix milliseconds, words as text, the rest as JSON. Columns are read by name.

use super::error::StoreError;
use super::sql::Row;
use super::value::{Cell, unreadable};
use crate::domain::event::EventType;
use crate::domain::status::Status;
use crate::domain::time;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A row's own number.
pub type Pk = i64;

/// An instant, as it is stored.
pub(super) fn ms(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// A stored instant.
pub(super) fn at(millis: i64) -> Timestamp {
    time::from_millis(millis)
}

/// A column that holds an instant.
pub(super) fn instant(row: &Row<'_>, column: &str) -> Result<Timestamp, StoreError> {
    Ok(at(row.get(column)?))
}

/// A length of time in milliseconds, as it is stored.
pub(super) fn length(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// A column that may be empty and holds an instant.
pub(super) fn maybe_at(row: &Row<'_>, column: &str) -> Result<Option<Timestamp>, StoreError> {
    Ok(row.get::<Option<i64>>(column)?.map(at))
}

/// A column that holds how many there are.
pub(super) fn count(row: &Row<'_>, column: &str) -> Result<u64, StoreError> {
    Ok(row.get::<i64>(column)?.unsigned_abs())
}

/// A value as JSON text.
pub(super) fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Internal(format!("a value is no JSON: {error}")))
}

/// A column that holds JSON.
pub(super) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T, StoreError> {
    serde_json::from_str(row.text(column)?).map_err(|error| unreadable(column, &error.to_string()))
}

/// A column that may be empty and holds JSON.
pub(super) fn maybe_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<Option<T>, StoreError> {
    if row.cell(column)? == Cell::Null {
        return Ok(None);
    }
    from_json(row, column).map(Some)
}

/// A column that holds one of a closed set of words.
pub(super) fn word<T>(
    row: &Row<'_>,
    column: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, StoreError> {
    let text: String = row.get(column)?;
    read(&text).ok_or_else(|| unreadable(column, &format!("`{text}` is not one of its words")))
}

/// A column that holds a status.
pub(super) fn status(row: &Row<'_>, column: &str) -> Result<Status, StoreError> {
    word(row, column, Status::from_word)
}

/// A column that may be empty and holds a status.
pub(super) fn maybe_status(row: &Row<'_>, column: &str) -> Result<Option<Status>, StoreError> {
    if row.cell(column)? == Cell::Null { Ok(None) } else { status(row, column).map(Some) }
}

/// A column that holds a type of event.
pub(super) fn event_type(row: &Row<'_>, column: &str) -> Result<EventType, StoreError> {
    word(row, column, EventType::from_word)
}
