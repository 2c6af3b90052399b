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
use std::borrow::Cow;

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
    let text = serde_json::to_string(value);
    let text = text.map_err(|error| StoreError::Internal(format!("a value is no JSON: {error}")))?;
    Ok(without_escaped_nul(text.into()).into_owned())
}

/// JSON in which U+FFFD stands for each U+0000 that is written as an escape: PostgreSQL reads no value out of JSON that
/// has one anywhere. See [`super::sql::without_nul`], which is for what is not escaped.
pub(super) fn without_escaped_nul(json: Cow<'_, str>) -> Cow<'_, str> {
    if !json.contains(ESCAPED_NUL) {
        return json;
    }
    let mut kept = String::with_capacity(json.len());
    let mut rest = &*json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        kept.push_str(before);
        let length = if let Some(after) = escape.strip_prefix(ESCAPED_NUL) {
            kept.push(char::REPLACEMENT_CHARACTER);
            escape.len() - after.len()
        } else {
            // Of two backslashes the second begins nothing.
            let length = escape.chars().take(2).map(char::len_utf8).sum();
            kept.push_str(&escape[..length]);
            length
        };
        rest = &escape[length..];
    }
    kept.push_str(rest);
    kept.into()
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

const ESCAPED_NUL: &str = "\\u0000";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_backslash_before_the_digits_is_no_escape() {
        for (json, kept) in [
            (r#""a\u0000b""#, "\"a\u{fffd}b\""),
            (r#""\\u0000""#, r#""\\u0000""#),
            (r#""\\\u0000\u0000""#, "\"\\\\\u{fffd}\u{fffd}\""),
            (r#"{"\"\u0000":"\u0001"}"#, "{\"\\\"\u{fffd}\":\"\\u0001\"}"),
        ] {
            assert_eq!(without_escaped_nul(json.into()), kept, "{json}");
        }
    }

    proptest! {
        #[test]
        fn json_means_the_same_but_for_the_character_that_no_database_keeps(
            text in prop::collection::vec(prop_oneof![Just("\0"), Just("\\"), Just("u0000"), Just("\""), Just("é")], 0..12),
        ) {
            let text = text.concat();
            let read: String = serde_json::from_str(&json(&text).unwrap()).unwrap();
            prop_assert_eq!(read, text.replace('\0', "\u{fffd}"));
        }
    }
}
