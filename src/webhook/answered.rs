//! What is read out of a receiver's answer, which may be anything.

use super::DeliveryOutcome;
use super::text::{clean, cut, utf16};
use crate::http::call::Answer;
use crate::http::failure::{retry_after, status_line};
use serde_json::Value;
use std::time::Duration;

/// Delivered, if the answer came to its end: one that did not may still bring an error.
pub fn whole(answer: &Answer) -> DeliveryOutcome {
    if answer.cut {
        // Whether it was posted cannot be known: rather twice than never.
        DeliveryOutcome::Trouble(format!("{}: the answer did not end in time", status_line(answer.status)))
    } else {
        DeliveryOutcome::Delivered
    }
}

/// The body as JSON; null if it is none.
pub fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// Whether the body says that the message was taken, in the words of servers that imitate another: `{"ok":true}`,
/// `{"success":true}`, `{"result":"success"}`, `{"status":"ok"}`.
pub fn says_accepted(answer: &Answer) -> bool {
    let Value::Object(body) = json(answer) else { return false };
    let says = |key: &str| match body.get(key) {
        Some(Value::Bool(flag)) => Some(*flag),
        Some(Value::String(word)) => match word.to_ascii_lowercase().as_str() {
            "ok" | "success" | "true" => Some(true),
            _ => Some(false),
        },
        _ => None,
    };
    let said: Vec<bool> = ["ok", "success", "result", "status"].into_iter().filter_map(says).collect();
    said.contains(&true) && !said.contains(&false) && !answer.cut
}

/// The receiver's own words, short and behind a colon; nothing if there are none.
pub fn words(text: &Value) -> String {
    match text.as_str().map(clean) {
        Some(text) if !text.is_empty() => format!(": {}", cut(&text, WORDS, utf16)),
        _ => String::new(),
    }
}

/// How long the header asks for.
pub fn retry_after_of(answer: &Answer) -> Option<Duration> {
    retry_after(&answer.headers)
}

/// A number of seconds in the body, to the millisecond; no more than six hours.
pub fn seconds(number: &Value) -> Option<Duration> {
    let seconds = number.as_f64().filter(|seconds| *seconds > 0.0)?;
    let wait = Duration::try_from_secs_f64(seconds).unwrap_or(MAX_WAIT).min(MAX_WAIT);
    Some(Duration::from_millis(u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)))
}

/// Of the receiver's words, in UTF-16 units.
const WORDS: usize = 200;

/// However long a receiver asks for.
const MAX_WAIT: Duration = Duration::from_hours(6);
