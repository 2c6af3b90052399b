//! Batches and events as people read them, out of their JSON.

use super::quantity::count;
use super::style::{Style, Tone};
use super::table::{shorten, shorten_middle};
use crate::domain::cost::Usd;
use crate::domain::duration::human;
use crate::domain::printable::clean;
use crate::domain::status::Status;
use crate::domain::time::since;
use crate::provider::registry;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use std::fmt::Write as _;
use std::time::Duration;
use unicode_width::UnicodeWidthStr as _;

/// A batch in the shape of `docs/contract.md#the-batch-shape`. What is missing or of another type reads as unknown.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a>(pub &'a Value);

/// An event in the shape of `docs/contract.md#body`.
#[derive(Clone, Copy, Debug)]
pub struct EventView<'a>(pub &'a Value);

/// How many requests a batch has and how they fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub total: u64,
    pub completed: u64,
    pub failed: u64,
}

impl<'a> BatchView<'a> {
    /// The id, verbatim.
    pub fn id(self) -> &'a str {
        self.0["id"].as_str().unwrap_or_default()
    }

    /// The provider's name; empty if the batch is not batchd's.
    pub fn provider(self) -> &'a str {
        self.added("provider").as_str().unwrap_or_default()
    }

    /// `PROVIDER:ID`
    pub fn key(self) -> String {
        format!("{}:{}", self.provider(), self.id())
    }

    pub fn status(self) -> &'a str {
        self.0["status"].as_str().unwrap_or("unknown")
    }

    /// When it was created; of one that nobody has seen yet, when it was tracked.
    pub fn created_at(self) -> Option<Timestamp> {
        self.stamp("created_at")
    }

    /// How long it took, once it has ended.
    pub fn duration(self) -> Option<Duration> {
        Some(since(self.created_at()?, self.ended_at()?))
    }

    /// Whether nobody watches it any more.
    pub fn is_untracked(self) -> bool {
        !self.added("untracked_at").is_null()
    }

    /// How it ended; `None` while it lives.
    pub fn outcome(self) -> Option<&'a str> {
        self.added("outcome").as_str()
    }

    pub fn is_over(self) -> bool {
        Status::from_word(self.status()).is_some_and(Status::is_terminal)
    }

    /// One of OpenAI's fields.
    pub fn field(self, name: &str) -> &'a Value {
        &self.0[name]
    }

    /// One of the fields under `batchd`.
    pub fn added(self, name: &str) -> &'a Value {
        &self.0["batchd"][name]
    }

    /// A part of what it cost.
    pub fn cost(self, part: &str) -> Option<Usd> {
        Some(&self.added("cost")[part])
            .filter(|amount| amount.is_number())
            .and_then(|amount| Usd::read(&amount.to_string()))
    }

    /// One of OpenAI's times.
    pub fn stamp(self, name: &str) -> Option<Timestamp> {
        self.0[name].as_i64().and_then(crate::domain::time::from_seconds)
    }

    /// One of batchd's times.
    pub fn time(self, name: &str) -> Option<Timestamp> {
        time(self.added(name))
    }

    /// The counts, where there are any.
    pub fn counts(self) -> Option<Counts> {
        let counts = self.0["request_counts"].as_object()?;
        let number = |name: &str| counts.get(name).and_then(Value::as_u64).unwrap_or(0);
        let counts =
            Counts { total: number("total"), completed: number("completed"), failed: number("failed") };
        (counts.total > 0 || counts.done() > 0).then_some(counts)
    }

    /// How far it is, in a few letters: `120/400 30%`, or `98 ok · 22 failed` once it has ended with failures. A
    /// dash where the service counts nothing before the end; nothing where no count is known.
    pub fn progress(self) -> String {
        match self.counts() {
            Some(counts) if self.is_over() && counts.failed > 0 => counts.ends(),
            Some(_) if self.is_uncounted() => UNCOUNTED.to_owned(),
            Some(counts) if counts.failed > 0 => {
                format!("{} · {} failed", counts.progress(), count(counts.failed))
            }
            Some(counts) => counts.progress(),
            None if self.is_over() => String::new(),
            None => UNCOUNTED.to_owned(),
        }
    }

    /// The same ever more shortly, the first with a bar.
    pub fn progress_forms(self) -> [String; 3] {
        let text = self.progress();
        match self.counts().filter(|_| !self.is_uncounted()) {
            Some(counts) if self.is_over() && counts.failed > 0 => {
                let short = format!("{}/{} ok", count(counts.completed), count(counts.total));
                [format!("{} {text}", counts.bar()), text, short]
            }
            Some(counts) => [format!("{} {text}", counts.bar()), text, format!("{}%", counts.percent())],
            None => [text.clone(), text.clone(), text],
        }
    }

    /// Whether the service's zeros mean nothing: the batch runs, and the service is not known to count before the end.
    pub fn is_uncounted(self) -> bool {
        let kind = self.added("kind").as_str().unwrap_or_default();
        let none_done = self.counts().is_some_and(|counts| counts.done() == 0);
        none_done && !self.is_over() && !registry::counts_live(kind)
    }

    pub fn ended_at(self) -> Option<Timestamp> {
        self.is_over().then(|| self.stamp(&format!("{}_at", self.status()))).flatten()
    }
}

impl Counts {
    pub fn done(self) -> u64 {
        self.completed.saturating_add(self.failed)
    }

    /// How many of a hundred are over; never 100 before all are.
    pub fn percent(self) -> u64 {
        match self.total {
            0 => 0,
            total => {
                let percent = u128::from(self.done()) * 100 / u128::from(total);
                u64::try_from(percent.min(100)).unwrap_or(100)
            }
        }
    }

    /// `120/400 30%`
    fn progress(self) -> String {
        format!("{}/{} {:>3}%", count(self.done()), count(self.total), self.percent())
    }

    /// `98 ok · 22 failed`
    fn ends(self) -> String {
        format!("{} ok · {} failed", count(self.completed), count(self.failed))
    }

    /// How much is over, as a bar: `██░░░░░░`; full only once all is.
    pub fn bar(self) -> String {
        let filled = usize::try_from(self.percent()).unwrap_or(0) * BAR / 100;
        "█".repeat(filled) + &"░".repeat(BAR - filled)
    }

    /// `398 of 400 succeeded, 2 failed`
    pub fn sentence(self) -> String {
        let open = self.total.saturating_sub(self.done());
        let mut text = format!("{} of {} succeeded", count(self.completed), count(self.total));
        if self.failed > 0 {
            let _ = write!(text, ", {} failed", count(self.failed));
        }
        if open > 0 {
            let _ = write!(text, ", {} open", count(open));
        }
        text
    }
}

impl<'a> EventView<'a> {
    /// Its number in the log.
    pub fn sequence(self) -> i64 {
        self.0["sequence"].as_i64().unwrap_or(0)
    }

    pub fn kind(self) -> &'a str {
        self.0["type"].as_str().unwrap_or("unknown")
    }

    /// The batch that it is about.
    pub fn batch(self) -> Option<BatchView<'a>> {
        let batch = &self.0["data"]["batch"];
        batch.is_object().then_some(BatchView(batch))
    }

    /// Provider and id of the batch that it is about.
    pub fn key(self) -> Option<(&'a str, &'a str)> {
        Some((self.0["data"]["provider"].as_str()?, self.0["data"]["id"].as_str()?))
    }

    /// One line that is no wider than the stream: number, time, type, what it is about, and how that stands.
    pub fn line(self, zone: &TimeZone, style: Style) -> String {
        let data = &self.0["data"];
        let room = style.width.map_or(usize::MAX, usize::from);
        let at = self.0["timestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let at = at.and_then(|at| match room {
            WIDE.. => Some(local(at, zone)),
            NARROW.. => Some(at.to_zoned(zone.clone()).strftime("%m-%d %H:%M %Z").to_string()),
            _ => None,
        });
        let about = match (data["provider"].as_str(), data["id"].as_str(), data["webhook"].as_str()) {
            (Some(provider), Some(id), _) => format!("{provider}:{id}"),
            (_, _, Some(webhook)) => webhook.to_owned(),
            (provider, id, _) => provider.or(id).unwrap_or("-").to_owned(),
        };
        let kind = clean(self.kind());
        let (number, kind) = match room {
            WIDE.. => (format!("{:>6}", self.sequence()), format!("{kind:<24}")),
            NARROW.. => (format!("{:>6}", self.sequence()), format!("{kind:<17}")),
            _ => (self.sequence().to_string(), kind.into_owned()),
        };
        let facts = self.facts(room >= WIDE);
        let mut pieces = vec![(Tone::Plain, number), (severity_tone(data["severity"].as_str()), kind)];
        if let Some(at) = at {
            pieces.insert(1, (Tone::Faint, at));
        }
        let taken: usize = pieces.iter().map(|(_, text)| text.width() + 2).sum();
        let left = room.saturating_sub(taken);
        let (about, facts) = (clean(&about), clean(&facts));
        // What happened is short; what it is about gives way before it.
        let for_facts = facts.width().min((left / 2).max(left.saturating_sub(2 + MIN_ABOUT)));
        let for_about = left.saturating_sub(if for_facts > 0 { for_facts + 2 } else { 0 });
        let about = shorten_middle(&about, for_about).into_owned();
        let for_facts = left.saturating_sub(about.width() + 2);
        pieces.push((Tone::Plain, about));
        pieces.push((Tone::Plain, shorten(&facts, for_facts).into_owned()));
        let mut line = String::new();
        let mut used = 0;
        for (tone, text) in pieces {
            let gap = if used == 0 { 0 } else { 2 };
            let text = shorten(&text, room.saturating_sub(used + gap));
            if text.trim().is_empty() {
                continue;
            }
            line.extend(std::iter::repeat_n(' ', gap));
            line.push_str(&style.paint(tone, &text));
            used += gap + text.width();
        }
        line.truncate(line.trim_end().len());
        line
    }

    /// How what it is about stands; more shortly where the counts say it.
    fn facts(self, wide: bool) -> String {
        let data = &self.0["data"];
        let mut facts = Vec::new();
        if let Some(outcome) = data["outcome"].as_str() {
            // `batch.failed  failed` says nothing twice.
            let counted = !wide && self.batch().and_then(BatchView::counts).is_some();
            let told = counted || self.kind().strip_prefix("batch.") == Some(outcome);
            facts.extend((!told).then(|| outcome.to_owned()));
        }
        if let Some(counts) = self.batch().and_then(BatchView::counts) {
            if self.batch().is_some_and(BatchView::is_over) && counts.failed > 0 {
                facts.push(counts.ends());
            } else if self.batch().is_some_and(BatchView::is_over) {
                facts.push(format!("{}/{}", count(counts.completed), count(counts.total)));
            } else if !self.batch().is_some_and(BatchView::is_uncounted) {
                facts.push(format!("{}/{}", count(counts.done()), count(counts.total)));
            }
        }
        if let Some(message) = data["message"].as_str() {
            facts.push(message.to_owned());
        }
        if data["test"].as_bool() == Some(true) {
            facts.push("test".to_owned());
        }
        facts.join(", ")
    }
}

/// In fewer columns nobody knows again what an event is about.
const MIN_ABOUT: usize = 13;

/// From here on there is room for whole times.
const WIDE: usize = 110;

/// With less room there is none for times at all.
const NARROW: usize = 44;

/// Where a service counts nothing before the end.
const UNCOUNTED: &str = "–";

/// How many letters a bar has.
const BAR: usize = 8;

/// How a status with its outcome is meant.
pub fn tone(status: &str, outcome: Option<&str>) -> Tone {
    match outcome.unwrap_or(status) {
        "succeeded" | "completed" => Tone::Good,
        "partial" | "expired_with_output" | "cancelling" => Tone::Warning,
        "all_failed" | "failed" | "expired" => Tone::Bad,
        "cancelled" | "cancelled_with_output" => Tone::Faint,
        _ => Tone::Plain,
    }
}

/// How an event of this severity is meant.
fn severity_tone(severity: Option<&str>) -> Tone {
    match severity {
        Some("warning") => Tone::Warning,
        Some("error") => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// Texts side by side, each filled up to its width; the last is not filled.
pub fn columns(cells: &[(&str, usize)]) -> String {
    let mut line = String::new();
    for (place, (text, width)) in cells.iter().enumerate() {
        line.push_str(text);
        if place + 1 < cells.len() {
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(text.width()) + 2));
        }
    }
    line
}

/// RFC 3339, read.
pub fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// An instant in the reader's own time zone: `2026-11-22 17:46:40 CET`.
pub fn local(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// An instant with its distance: `2026-11-22 17:46:40 CET (3 h 12 m ago)`.
pub fn local_and_ago(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    format!("{} ({})", local(at, zone), distance(at, now))
}

/// `in 3 m`, `3 h 12 m ago`, `now`
pub fn distance(at: Timestamp, now: Timestamp) -> String {
    let ahead = since(now, at);
    let behind = since(at, now);
    if ahead.max(behind) < Duration::from_secs(1) {
        "now".to_owned()
    } else if ahead > Duration::ZERO {
        format!("in {}", human(ahead))
    } else {
        format!("{} ago", human(behind))
    }
}

/// `3 h 12 m ago`, and more shortly `3 h ago`.
pub fn short_distance(distance: &str) -> [String; 2] {
    let words: Vec<&str> = distance.split(' ').collect();
    let short = match words.as_slice() {
        [number, unit, .., "ago"] if words.len() > 3 => format!("{number} {unit} ago"),
        _ => distance.to_owned(),
    };
    [distance.to_owned(), short]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    #[test]
    fn an_event_is_one_line() {
        let event = json!({
            "id": "evt_1", "object": "event", "type": "batch.completed", "sequence": 812,
            "timestamp": "2026-11-22T16:46:40.123Z",
            "data": {"id": "batch_1", "provider": "openai", "outcome": "partial", "severity": "warning",
                "batch": {"id": "batch_1", "status": "completed",
                    "request_counts": {"total": 400, "completed": 398, "failed": 2}}}
        });
        let plain = Style::default();
        insta::assert_snapshot!(
            EventView(&event).line(&TimeZone::UTC, plain),
            @"   812  2026-11-22 16:46:40 UTC  batch.completed           openai:batch_1  partial, 398 ok · 2 failed"
        );
        let finding = json!({
            "type": "provider.unauthorized", "sequence": 3, "timestamp": "2026-11-22T16:46:40.123Z",
            "data": {"id": null, "provider": "openai", "severity": "error", "message": "401:\nno key"}
        });
        insta::assert_snapshot!(
            EventView(&finding).line(&TimeZone::UTC, plain),
            @r"     3  2026-11-22 16:46:40 UTC  provider.unauthorized     openai  401:\nno key"
        );
    }

    #[test]
    fn an_event_fits_the_terminal() {
        let event = json!({
            "type": "batch.completed", "sequence": 812, "timestamp": "2026-11-22T16:46:40.123Z",
            "data": {"id": "batch_68fd8e2f1c0c8190a1b2c3d4e5f60718", "provider": "openai", "outcome": "partial",
                "batch": {"status": "completed", "request_counts": {"total": 4000, "completed": 3998, "failed": 2}}}
        });
        for width in [1_u16, 20, 60, 80, 100, 120] {
            let style = Style { width: Some(width), ..Style::default() };
            let line = EventView(&event).line(&TimeZone::UTC, style);
            assert!(line.width() <= usize::from(width), "{width}: {line}");
        }
        let narrow = Style { width: Some(20), ..Style::default() };
        assert_eq!(EventView(&event).line(&TimeZone::UTC, narrow), "812  batch.completed");
        let style = Style { width: Some(80), ..Style::default() };
        insta::assert_snapshot!(
            EventView(&event).line(&TimeZone::UTC, style),
            @"   812  11-22 16:46 UTC  batch.completed    openai:…5f60718  3,998 ok · 2 failed"
        );
    }

    #[test]
    fn distances_have_a_direction() {
        let at = |seconds| Timestamp::from_second(NOW.as_second() + seconds).unwrap();
        assert_eq!(distance(at(0), NOW), "now");
        assert_eq!(distance(at(185), NOW), "in 3 m 5 s");
        assert_eq!(distance(at(-7200), NOW), "2 h ago");
    }

    #[test]
    fn what_is_missing_is_unknown() {
        let view = json!({"id": 7, "request_counts": {"total": 0}});
        let view = BatchView(&view);
        assert_eq!((view.id(), view.provider(), view.status()), ("", "", "unknown"));
        assert_eq!((view.counts(), view.ended_at(), view.time("eta")), (None, None, None));
    }

    proptest! {
        #[test]
        fn a_hundred_percent_means_all(completed in 0_u64..u64::MAX, failed: u64, total in 1_u64..u64::MAX) {
            let counts = Counts { total, completed, failed };
            prop_assert!(counts.percent() <= 100);
            prop_assert_eq!(counts.percent() == 100, counts.done() >= total);
        }
    }
}
