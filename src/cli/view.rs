//! Batches and events as people read them, out of their JSON.

use super::style::Tone;
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

    /// One of OpenAI's times.
    pub fn stamp(self, name: &str) -> Option<Timestamp> {
        self.0[name].as_i64().and_then(crate::domain::time::from_seconds)
    }

    /// One of batchd's times.
    pub fn time(self, name: &str) -> Option<Timestamp> {
        time(self.added(name))
    }

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
            Some(counts) if self.is_over() && counts.failed > 0 => {
                format!("{} ok · {} failed", counts.completed, counts.failed)
            }
            Some(_) if self.is_uncounted() => "–".to_owned(),
            Some(counts) => counts.progress(),
            None => String::new(),
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
        format!("{}/{} {:>3}%", self.done(), self.total, self.percent())
    }

    /// `398 of 400 succeeded, 2 failed`
    pub fn sentence(self) -> String {
        let open = self.total.saturating_sub(self.done());
        let mut text = format!("{} of {} succeeded", self.completed, self.total);
        if self.failed > 0 {
            let _ = write!(text, ", {} failed", self.failed);
        }
        if open > 0 {
            let _ = write!(text, ", {open} open");
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

    /// One line: number, time, type, what it is about, and how that stands.
    pub fn line(self, zone: &TimeZone, paint: impl Fn(Tone, &str) -> String) -> String {
        let data = &self.0["data"];
        let at = self.0["timestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let about = match (data["provider"].as_str(), data["id"].as_str(), data["webhook"].as_str()) {
            (Some(provider), Some(id), _) => format!("{provider}:{id}"),
            (_, _, Some(webhook)) => webhook.to_owned(),
            (provider, id, _) => provider.or(id).unwrap_or("-").to_owned(),
        };
        let tone = severity_tone(data["severity"].as_str());
        let mut line = format!(
            "{:>6}  {}  {}  {}",
            self.sequence(),
            paint(Tone::Faint, &at.map_or_else(|| " ".repeat(19), |at| local(at, zone))),
            paint(tone, &format!("{:<24}", clean(self.kind()))),
            clean(&about)
        );
        let mut facts = Vec::new();
        if let Some(outcome) = data["outcome"].as_str() {
            facts.push(outcome.to_owned());
        }
        if let Some(counts) = self.batch().and_then(BatchView::counts) {
            if self.batch().is_some_and(BatchView::is_over) {
                facts.push(counts.sentence());
            } else if !self.batch().is_some_and(BatchView::is_uncounted) {
                facts.push(format!("{}/{}", counts.done(), counts.total));
            }
        }
        if let Some(message) = data["message"].as_str() {
            facts.push(message.to_owned());
        }
        if data["test"].as_bool() == Some(true) {
            facts.push("test".to_owned());
        }
        if !facts.is_empty() {
            line.push_str("  ");
            line.push_str(&clean(&facts.join(", ")));
        }
        line
    }
}

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
    use unicode_width::UnicodeWidthStr;
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

/// An instant in the reader's own time zone: `2026-11-22 17:46:40`.
pub fn local(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// An instant with its distance: `2026-11-22 17:46:40 (3 h 12 m ago)`.
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
        let plain = |_: Tone, text: &str| text.to_owned();
        insta::assert_snapshot!(
            EventView(&event).line(&TimeZone::UTC, plain),
            @"   812  2026-11-22 16:46:40  batch.completed           openai:batch_1  partial, 398 of 400 succeeded, 2 failed"
        );
        let finding = json!({
            "type": "provider.unauthorized", "sequence": 3, "timestamp": "2026-11-22T16:46:40.123Z",
            "data": {"id": null, "provider": "openai", "severity": "error", "message": "401:\nno key"}
        });
        insta::assert_snapshot!(
            EventView(&finding).line(&TimeZone::UTC, plain),
            @r"     3  2026-11-22 16:46:40  provider.unauthorized     openai  401:\nno key"
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
