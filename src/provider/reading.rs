//! What one JSON value says to somebody who wants a text, an id, a time, a count: the many forms in which services write
//! each, and how much of them is kept.

use super::salvage;
use crate::domain::batch::{BatchError, BatchErrors};
use crate::domain::time::from_seconds;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;
use std::collections::BTreeMap;

/// What a value holds, to somebody who wants a `T`.
pub(super) enum Reading<T> {
    Absent,
    Value(T),
    /// There was more than is kept.
    Part(T),
    /// It is what was wanted, and longer than it may be.
    TooLong,
    Unreadable,
}

/// Longer than any service's ids of batches, managed ones of gateways included. In bytes.
pub(super) const MAX_ID_BYTES: usize = 512;
/// The longest text or other id, in bytes: more than any service's addresses and names.
const MAX_TEXT: usize = 4096;
/// The longest message of an error, in bytes.
const MAX_MESSAGE: usize = 4096;
/// How many errors of a batch are kept.
const MAX_ERRORS: usize = 1000;
/// How many entries of its metadata are kept.
const MAX_ENTRIES: usize = 256;
/// How much of either is kept, in bytes: it is stored with the batch and sent with each of its events.
const MAX_KEPT: usize = 64 * 1024;

pub(super) fn text(value: &Value) -> Reading<String> {
    match value {
        Value::String(text) if text.trim().is_empty() => Reading::Absent,
        Value::String(text) if text.len() > MAX_TEXT => Reading::TooLong,
        Value::String(text) => Reading::Value(text.clone()),
        _ => Reading::Unreadable,
    }
}

/// An id: a text, a number, or an object that has one in `id`.
pub(super) fn id(value: &Value) -> Reading<String> {
    match value {
        Value::Number(number) => Reading::Value(number.to_string()),
        Value::Object(object) => match object.get("id").filter(|inner| !inner.is_object()).map(id) {
            Some(Reading::Value(id)) => Reading::Value(id),
            Some(Reading::TooLong) => Reading::TooLong,
            _ => Reading::Unreadable,
        },
        other => text(other),
    }
}

pub(super) fn time(value: &Value) -> Reading<i64> {
    let seconds = match value {
        Value::Number(number) => number.as_f64().and_then(seconds_of_number),
        Value::String(text) if text.trim().is_empty() => return Reading::Absent,
        Value::String(text) => seconds_of_text(text.trim()),
        _ => None,
    };
    match seconds {
        // Zero is how some say "never", and so is the first year of the calendar; nothing was batched before 1970.
        Some(seconds) if seconds <= 0 => Reading::Absent,
        Some(seconds) => Reading::Value(seconds),
        None => Reading::Unreadable,
    }
}

/// Seconds since 1970 of a number that may count milli-, micro- or nanoseconds too.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a whole number of seconds below the bound is exact in both types"
)]
fn seconds_of_number(mut number: f64) -> Option<i64> {
    /// As seconds this is the year 5138; what is larger counts something finer.
    const MOST_SECONDS: f64 = 1e11;
    for _ in 0..3 {
        if number > MOST_SECONDS {
            number /= 1000.0;
        }
    }
    (number.is_finite() && number <= MOST_SECONDS).then(|| number.floor() as i64)
}

fn seconds_of_text(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse::<f64>() {
        return seconds_of_number(number);
    }
    let at = text
        .parse::<Timestamp>()
        .ok()
        .or_else(|| TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok())?;
    // Before 1970 a fraction rounds towards the epoch; all of that is "never" anyway.
    from_seconds(at.as_second()).map(Timestamp::as_second)
}

pub(super) fn count(value: &Value) -> Reading<u64> {
    match value {
        Value::Number(number) => number.as_u64().map_or_else(
            || number.as_f64().and_then(whole).map_or(Reading::Unreadable, Reading::Value),
            Reading::Value,
        ),
        Value::String(text) if text.trim().is_empty() => Reading::Absent,
        Value::String(text) => text.trim().parse().map_or(Reading::Unreadable, Reading::Value),
        _ => Reading::Unreadable,
    }
}

/// A count that was written with a decimal point.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be whole, not negative and exact"
)]
fn whole(number: f64) -> Option<u64> {
    /// Beyond 2⁵³ a float skips whole numbers.
    const MOST_EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && (0.0..=MOST_EXACT).contains(&number)).then_some(number as u64)
}

/// The errors of a batch, in any of the forms that services give them.
pub(super) fn errors(value: &Value) -> Reading<BatchErrors> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        Value::Object(object) => match object.get("data") {
            Some(Value::Array(items)) => items.as_slice(),
            Some(Value::Null) => &[],
            Some(_) => return Reading::Unreadable,
            // `{"object":"list"}` alone lists nothing.
            None => std::slice::from_ref(value),
        },
        Value::String(text) if text.trim().is_empty() => &[],
        Value::String(_) => std::slice::from_ref(value),
        _ => return Reading::Unreadable,
    };
    let mut data = Vec::new();
    let mut room = MAX_KEPT;
    let mut is_part = false;
    for error in items.iter().filter_map(error) {
        let size =
            [&error.code, &error.message, &error.param].into_iter().flatten().map(String::len).sum::<usize>();
        if data.len() == MAX_ERRORS || size > room {
            is_part = true;
            break;
        }
        room -= size;
        data.push(error);
    }
    let errors = BatchErrors { data, ..BatchErrors::default() };
    match (errors.data.is_empty(), is_part) {
        (true, _) => Reading::Absent,
        (false, true) => Reading::Part(errors),
        (false, false) => Reading::Value(errors),
    }
}

/// What the submitter attached: a table, whose values become texts; those that cannot be read are left out.
pub(super) fn metadata(value: &Value) -> Reading<BTreeMap<String, String>> {
    let entries = match value {
        Value::Object(entries) => entries,
        // What some languages make of an empty table.
        Value::Array(items) if items.is_empty() => return Reading::Absent,
        Value::String(text) if text.is_empty() => return Reading::Absent,
        _ => return Reading::Unreadable,
    };
    let mut kept = BTreeMap::new();
    let mut room = MAX_KEPT;
    let mut is_part = false;
    for (key, value) in entries {
        let text = match value {
            Value::Null => continue,
            value if salvage::why_holds_broken(value).is_some() => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let size = key.len() + text.len();
        if kept.len() == MAX_ENTRIES || size > room {
            is_part = true;
            continue;
        }
        room -= size;
        kept.insert(key.clone(), text);
    }
    if is_part { Reading::Part(kept) } else { Reading::Value(kept) }
}

/// One error: an object, an object around it, or only words. `None` if it says nothing.
fn error(value: &Value) -> Option<BatchError> {
    match value {
        broken if salvage::is_broken(broken) => None,
        Value::String(message) if !message.trim().is_empty() => {
            Some(BatchError { message: Some(cut(message)), ..BatchError::default() })
        }
        Value::Object(object) => {
            let scalar = |field: &str| match object.get(field) {
                Some(broken) if salvage::is_broken(broken) => None,
                Some(Value::String(text)) if !text.is_empty() => Some(cut(text)),
                Some(Value::Number(number)) => Some(number.to_string()),
                _ => None,
            };
            let number = |field: &str| match object.get(field).map(count) {
                Some(Reading::Value(number)) => Some(number),
                _ => None,
            };
            let message = scalar("message").map(|message| match number("count") {
                // Mistral gives each message once, with how many requests it befell.
                Some(count) if count > 1 => format!("{message} ({count} requests)"),
                _ => message,
            });
            let error =
                BatchError { code: scalar("code"), line: number("line"), message, param: scalar("param") };
            if error == BatchError::default() {
                return object.get("error").filter(|inner| !inner.is_null()).and_then(self::error);
            }
            Some(error)
        }
        _ => None,
    }
}

/// The beginning of a text that may be too long to be kept.
fn cut(text: &str) -> String {
    if text.len() <= MAX_MESSAGE {
        return text.to_owned();
    }
    let mut end = MAX_MESSAGE - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}
