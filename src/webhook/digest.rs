//! A digest: what ended and how, what is running, what is stuck, one line each.

use super::group;
use super::message::{Entry, List, Message, Tone};
use super::text::{clean, cut, instant, number, utf16};
use super::told::{LINE, TITLE, Told};
use crate::domain::duration::human;
use crate::domain::event::EventType;
use crate::domain::outcome::{Outcome, Severity};
use crate::domain::status::Status;
use crate::domain::time::since;
use jiff::Timestamp;
use serde_json::Value;
use std::cmp::Reverse;

/// The message that tells a digest. Each of its batches is an object with the members that an event's `data` has,
/// as far as they are known; what is missing is left out.
pub fn message(told: &Told<'_>, now: Timestamp) -> Message {
    let mut ended: Vec<Told<'_>> = batches(told, "ended").collect();
    ended.sort_by_key(|batch| Reverse(batch.severity()));
    let worst = ended.first().map(|batch| (batch.severity(), batch.tone()));
    let ended = List::new("Ended", ended.iter().map(group::entry).collect(), missing(told, "ended"));
    let running = batches(told, "running").map(|batch| running(&batch, now)).collect();
    let running = List::new("Running", running, missing(told, "running"));
    let stuck =
        List::new("Stuck", batches(told, "stuck").map(|b| stuck(&b)).collect(), missing(told, "stuck"));

    let all = |list: &List| number((list.entries.len() + list.more) as u64);
    let line = format!("{} ended, {} running, {} stuck", all(&ended), all(&running), all(&stuck));
    let outcomes = outcomes(told);
    let how = format!("{} ended{outcomes}, {} running, {} stuck", all(&ended), all(&running), all(&stuck));
    let tone = match worst {
        Some((Severity::Error, tone)) => tone,
        _ if !stuck.entries.is_empty() => Tone::Warning,
        Some((Severity::Warning, tone)) => tone,
        Some(_) => Tone::Good,
        None => Tone::Neutral,
    };
    let name = told.first(&["/name"]).unwrap_or_else(|| "batchd".to_owned());
    // What needs somebody stands before what goes well.
    let lists = [stuck, ended, running].into_iter().filter(|list| !list.entries.is_empty()).collect();
    Message {
        tone,
        title: cut(&format!("{name} digest — {line}"), TITLE, utf16),
        line: cut(&format!("{name} digest: {how}"), LINE, utf16),
        facts: Vec::new(),
        errors: Vec::new(),
        lists,
        notes: (!outcomes.is_empty())
            .then(|| format!("Ended: {}", outcomes.trim_matches([' ', '(', ')'])))
            .into_iter()
            .chain(period(told))
            .collect(),
        link: None,
        at: told.time("/observed_at"),
        topic: None,
        text: None,
    }
}

/// The batches of one of the digest's lists.
fn batches<'a>(told: &Told<'a>, list: &str) -> impl Iterator<Item = Told<'a>> {
    let batches = told.data[list].as_array().map(Vec::as_slice).unwrap_or_default();
    batches.iter().map(|data| Told::of(EventType::Batch(status(data)), data))
}

/// How many of a list the digest counts and does not hold.
fn missing(told: &Told<'_>, list: &str) -> usize {
    let held = told.data[list].as_array().map_or(0, Vec::len);
    let all = told.data["counts"][list].as_u64().and_then(|all| usize::try_from(all).ok());
    all.unwrap_or(held).saturating_sub(held)
}

fn status(data: &Value) -> Status {
    let word = data["status"].as_str().or_else(|| data.pointer("/batch/status")?.as_str());
    word.and_then(Status::from_word).unwrap_or(Status::InProgress)
}

/// ` (1 failed, 41 succeeded)`, the worst first; empty if it is not told.
fn outcomes(told: &Told<'_>) -> String {
    let counts = told.data.pointer("/counts/outcomes").and_then(Value::as_object);
    let mut counts: Vec<(Severity, String)> = counts
        .into_iter()
        .flatten()
        .filter_map(|(word, count)| {
            let outcome: Outcome = serde_json::from_value(word.as_str().into()).ok()?;
            let words = outcome.as_str().replace('_', " ");
            Some((outcome.severity(), format!("{} {words}", number(count.as_u64()?))))
        })
        .collect();
    counts.sort_by_key(|(severity, _)| Reverse(*severity));
    let counts: Vec<String> = counts.into_iter().map(|(_, count)| count).collect();
    if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) }
}

/// `nightly-eval: 120 of 10,000 requests done, about 2 h to go · openai`
fn running(told: &Told<'_>, now: Timestamp) -> Entry {
    let mut entry = group::entry(told);
    if let Some(eta) = told.time("/eta").or_else(|| told.time("/batch/batchd/eta")) {
        let left = since(now, eta);
        let when = if left.is_zero() { "any moment".to_owned() } else { format!("in {}", human(left)) };
        entry.text = format!("{}, expected {when} ({})", entry.text, instant(eta));
    }
    entry
}

/// `nightly-eval: no progress for 7 h · openai`
fn stuck(told: &Told<'_>) -> Entry {
    let mut entry = group::entry(told);
    entry.tone = Tone::Warning;
    if let Some(reason) = told.first(&["/why", "/message"]) {
        entry.text = cut(&format!("{}: {reason}", told.subject()), ENTRY, utf16);
    }
    entry
}

/// The time that it tells of.
fn period(told: &Told<'_>) -> Option<String> {
    let since = told.time("/since")?;
    let until = told.time("/until").or_else(|| told.time("/observed_at"))?;
    Some(clean(&format!("{} to {}", instant(since), instant(until))))
}

/// Of an entry, in UTF-16 units.
const ENTRY: usize = 240;
