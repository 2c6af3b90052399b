//! Several events in one message: how many of which, and a line for each, the worst first.

use super::message::{Entry, List, Message};
use super::text::{cut, number, utf16};
use super::told::{LINE, TITLE, Told};
use crate::domain::event::EventType;
use crate::domain::outcome::Severity;
use serde_json::Value;
use std::cmp::Reverse;

/// The message that tells `events`, which are in the order of the log.
pub fn message(events: &[Value]) -> Message {
    let mut told: Vec<Told<'_>> = events.iter().map(Told::new).collect();
    // What is equally bad stays in the order of the log.
    told.sort_by_key(|told| Reverse(told.severity()));
    let counts = counts(&told);
    let all = format!("{} {}", number(told.len() as u64), what(&told));
    let worst = told.first();
    let line = match worst {
        Some(worst) if worst.severity() > Severity::Info => format!("{all}: {counts}; {}", worst.line()),
        _ => format!("{all}: {counts}"),
    };
    let mut message = Message {
        tone: worst.map_or(super::message::Tone::Neutral, Told::tone),
        title: cut(&format!("{all} — {counts}"), TITLE, utf16),
        line: cut(&line, LINE, utf16),
        facts: Vec::new(),
        errors: Vec::new(),
        lists: vec![List::new("", told.iter().map(entry).collect(), 0)],
        notes: Vec::new(),
        link: None,
        at: told.iter().filter_map(|told| told.time("/observed_at")).max(),
        topic: None,
        text: None,
    };
    if told.iter().any(Told::is_test) {
        message.title = format!("TEST: {}", message.title);
        message.notes.push("This is a test message; some of what it tells has not happened.".to_owned());
    }
    message
}

/// One event on one line.
pub fn entry(told: &Told<'_>) -> Entry {
    let mut text = told.line();
    // Where the line names the account already, once is enough.
    let provider = told.provider();
    if told.data["provider"].is_string() && !text.contains(&provider) {
        text = format!("{text} · {provider}");
    }
    if told.is_test() {
        text = format!("TEST: {text}");
    }
    Entry { tone: told.tone(), text: cut(&text, ENTRY, utf16), url: told.link().map(|link| link.url) }
}

/// `2 failed, 48 completed`, the worst first.
fn counts(told: &[Told<'_>]) -> String {
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for told in told {
        let headline = told.headline();
        match counts.iter_mut().find(|(known, _)| *known == headline) {
            Some((_, count)) => *count += 1,
            None => counts.push((headline, 1)),
        }
    }
    let counts: Vec<String> =
        counts.into_iter().map(|(headline, count)| format!("{} {headline}", number(count))).collect();
    counts.join(", ")
}

/// What they are: batches, if each tells of the end of one.
fn what(told: &[Told<'_>]) -> &'static str {
    let ends = told.iter().all(|told| told.kind.is_some_and(|kind| EventType::ENDS.contains(&kind)));
    if ends { "batches" } else { "events" }
}

/// Of an entry, in UTF-16 units.
const ENTRY: usize = 240;
