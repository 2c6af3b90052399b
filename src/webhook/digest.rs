//! A digest: what ended and how, what is running, what is stuck, one line each.

use super::event_reader::{EventReader, LINE, TITLE};
use super::group;
use super::message::{Entry, List, Message, Tone};
use super::text::{clean, cut, instant, number, utf16};
use crate::domain::cost::Usd;
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
pub fn message(event: &EventReader<'_>, now: Timestamp) -> Message {
    let mut ended: Vec<EventReader<'_>> = batches(event, "ended").collect();
    ended.sort_by_key(|batch| Reverse(batch.severity()));
    let worst = ended.first().map(|batch| (batch.severity(), batch.tone()));
    let ended = List::new("Ended", ended.iter().map(group::entry).collect(), missing(event, "ended"));
    let running = batches(event, "running").map(|batch| running(&batch, now)).collect();
    let running = List::new("Running", running, missing(event, "running"));
    let stuck =
        List::new("Stuck", batches(event, "stuck").map(|b| stuck(&b)).collect(), missing(event, "stuck"));

    let all = |list: &List| number((list.entries.len() + list.more) as u64);
    let line = format!("{} ended, {} running, {} stuck", all(&ended), all(&running), all(&stuck));
    let outcomes = outcomes(event);
    let how = format!("{} ended{outcomes}, {} running, {} stuck", all(&ended), all(&running), all(&stuck));
    let tone = match worst {
        Some((Severity::Error, tone)) => tone,
        _ if !stuck.entries.is_empty() => Tone::Warning,
        Some((Severity::Warning, tone)) => tone,
        Some(_) => Tone::Good,
        None => Tone::Neutral,
    };
    let name = event.first(&["/name"]).unwrap_or_else(|| "batchd".to_owned());
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
            .chain(cost(event))
            .chain(period(event))
            .collect(),
        link: event.pages.map(group::overview),
        at: event.time("/observed_at"),
        topic: None,
        text: None,
    }
}

/// The batches of one of the digest's lists.
fn batches<'a>(event: &EventReader<'a>, list: &str) -> impl Iterator<Item = EventReader<'a>> {
    let batches = event.data[list].as_array().map(Vec::as_slice).unwrap_or_default();
    batches.iter().map(move |data| EventReader::of(EventType::Batch(status(data)), data, event.pages))
}

/// How many of a list the digest counts and does not hold.
fn missing(event: &EventReader<'_>, list: &str) -> usize {
    let held = event.data[list].as_array().map_or(0, Vec::len);
    let all = event.data["counts"][list].as_u64().and_then(|all| usize::try_from(all).ok());
    all.unwrap_or(held).saturating_sub(held)
}

fn status(data: &Value) -> Status {
    let word = data["status"].as_str().or_else(|| data.pointer("/batch/status")?.as_str());
    word.and_then(Status::from_word).unwrap_or(Status::InProgress)
}

/// ` (1 failed, 41 succeeded)`, the worst first; empty if it is not event.
fn outcomes(event: &EventReader<'_>) -> String {
    let counts = event.data.pointer("/counts/outcomes").and_then(Value::as_object);
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
fn running(event: &EventReader<'_>, now: Timestamp) -> Entry {
    let mut entry = group::entry(event);
    if let Some(eta) = event.time("/eta").or_else(|| event.time("/batch/batchd/eta")) {
        let left = since(now, eta);
        let when = if left.is_zero() { "any moment".to_owned() } else { format!("in {}", human(left)) };
        entry.text = format!("{}, expected {when} ({})", entry.text, instant(eta));
    }
    entry
}

/// `nightly-eval: no progress for 7 h · openai`
fn stuck(event: &EventReader<'_>) -> Entry {
    let mut entry = group::entry(event);
    entry.tone = Tone::Warning;
    if let Some(reason) = event.first(&["/why", "/message"]) {
        entry.text = cut(&format!("{}: {reason}", event.subject()), ENTRY, utf16);
    }
    entry
}

/// `Cost: $12.30 (anthropic $10.05, openai $2.25); 3 batches without a price`
fn cost(event: &EventReader<'_>) -> Option<String> {
    let all = event.cost("/cost/amount")?;
    let by_provider = event.data["cost"]["providers"].as_object()?;
    let mut shares: Vec<(Usd, String)> = by_provider
        .iter()
        .filter_map(|(provider, amount)| Some((Usd::read(&amount.to_string())?, clean(provider))))
        .collect();
    shares.sort_by_key(|(amount, _)| Reverse(*amount));
    let shares: Vec<String> =
        shares.iter().map(|(amount, provider)| format!("{provider} {}", amount.shown())).collect();
    let unpriced = match event.data["cost"]["unpriced"].as_u64().unwrap_or_default() {
        0 => String::new(),
        1 => "; 1 batch without a price".to_owned(),
        several => format!("; {} batches without a price", number(several)),
    };
    Some(cut(&format!("Cost: {all} ({}){unpriced}", shares.join(", ")), ENTRY, utf16))
}

/// The time that it tells of.
fn period(event: &EventReader<'_>) -> Option<String> {
    let since = event.time("/since")?;
    let until = event.time("/until").or_else(|| event.time("/observed_at"))?;
    Some(clean(&format!("{} to {}", instant(since), instant(until))))
}

/// Of an entry, in UTF-16 units.
const ENTRY: usize = 240;
