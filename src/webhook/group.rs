//! Several events in one message: how many of which, and a line for each, the worst first.

use super::event_reader::{EventReader, LINE, TITLE};
use super::message::{Entry, Link, List, Message};
use super::text::{cut, number, utf16};
use crate::domain::event::EventType;
use crate::domain::outcome::Severity;
use serde_json::Value;
use std::cmp::Reverse;

/// The message that tells `events`, which are in the order of the log.
pub fn message(events: &[Value], pages: Option<&str>) -> Message {
    let mut readers: Vec<EventReader<'_>> =
        events.iter().map(|event| EventReader::new(event, pages)).collect();
    // What is equally bad stays in the order of the log.
    readers.sort_by_key(|event| Reverse(event.severity()));
    let counts = counts(&readers);
    let all = format!("{} {}", number(readers.len() as u64), what(&readers));
    let worst = readers.first();
    let line = match worst {
        Some(worst) if worst.severity() > Severity::Info => format!("{all}: {counts}; {}", worst.line()),
        _ => format!("{all}: {counts}"),
    };
    let mut message = Message {
        tone: worst.map_or(super::message::Tone::Neutral, EventReader::tone),
        title: cut(&format!("{all} — {counts}"), TITLE, utf16),
        line: cut(&line, LINE, utf16),
        facts: Vec::new(),
        errors: Vec::new(),
        lists: vec![List::new("", readers.iter().map(entry).collect(), 0)],
        notes: Vec::new(),
        link: pages.map(overview),
        at: readers.iter().filter_map(|event| event.time("/observed_at")).max(),
        topic: None,
        text: None,
    };
    if readers.iter().any(EventReader::is_test) {
        message.title = format!("TEST: {}", message.title);
        message.notes.push("This is a test message; some of what it tells has not happened.".to_owned());
    }
    message
}

/// One event on one line.
pub fn entry(event: &EventReader<'_>) -> Entry {
    let mut text = event.line();
    // Where the line names the account already, once is enough.
    let provider = event.provider();
    if event.data["provider"].is_string() && !text.contains(&provider) {
        text = format!("{text} · {provider}");
    }
    if event.is_test() {
        text = format!("TEST: {text}");
    }
    Entry { tone: event.tone(), text: cut(&text, ENTRY, utf16), url: event.link().map(|link| link.url) }
}

/// The dashboard, for a message that is about many things.
pub fn overview(pages: &str) -> Link {
    Link { url: format!("{pages}/"), text: "Open in batchd".to_owned() }
}

/// `2 failed, 48 completed`, the worst first.
fn counts(events: &[EventReader<'_>]) -> String {
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for event in events {
        let headline = event.headline();
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
fn what(events: &[EventReader<'_>]) -> &'static str {
    let ends = events.iter().all(|event| event.kind.is_some_and(|kind| EventType::ENDS.contains(&kind)));
    if ends { "batches" } else { "events" }
}

/// Of an entry, in UTF-16 units.
const ENTRY: usize = 240;
