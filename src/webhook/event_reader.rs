//! One event's body with the questions that a message asks of it.

use super::message::{Fact, Link, Message, Tone};
use super::text::{clean, cut, instant, number, percent, utf16};
use crate::domain::cost::Usd;
use crate::domain::duration::human;
use crate::domain::event::EventType;
use crate::domain::outcome::{Outcome, Severity};
use crate::domain::status::Status;
use crate::domain::time::{from_seconds, since};
use crate::domain::tracked::BatchKey;
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

/// An event's body, read with care: it was written by this version or another.
pub struct EventReader<'a> {
    /// The type as it stands there.
    word: &'a str,
    /// The type, if this version knows it.
    pub kind: Option<EventType>,
    /// The `data` member.
    pub data: &'a Value,
    /// Where the dashboard is, if people reach it (`api.public_url`).
    pub pages: Option<&'a str>,
}

impl<'a> EventReader<'a> {
    pub fn new(event: &'a Value, pages: Option<&'a str>) -> Self {
        let word = event["type"].as_str().unwrap_or("event");
        Self { word, kind: EventType::from_word(word), data: &event["data"], pages }
    }

    /// Reads `data` as if it were that of an event of this type.
    pub const fn of(kind: EventType, data: &'a Value, pages: Option<&'a str>) -> Self {
        Self { word: kind.as_str(), kind: Some(kind), data, pages }
    }

    pub fn message(&self, now: Timestamp) -> Message {
        Message {
            tone: self.tone(),
            title: cut(&format!("{} — {}", self.subject(), self.headline()), TITLE, utf16),
            line: cut(&self.line(), LINE, utf16),
            facts: self.facts(),
            errors: self.errors(),
            lists: Vec::new(),
            notes: self.notes(now),
            link: self.link(),
            at: self.time("/observed_at"),
            topic: self.topic(),
            text: None,
        }
    }

    /// What it is about, the same for all that is told of it.
    pub fn topic(&self) -> Option<String> {
        let text = |pointer| self.data.pointer(pointer).and_then(Value::as_str);
        match (text("/id"), text("/provider"), text("/webhook")) {
            (Some(id), Some(provider), _) => Some(format!("{provider}/{id}")),
            (_, _, Some(webhook)) => Some(format!("webhook/{webhook}")),
            (None, Some(provider), None) => Some(format!("provider/{provider}")),
            _ => None,
        }
    }

    /// A text of `data`, clean and short; empty ones are none.
    pub fn text(&self, pointer: &str) -> Option<String> {
        let text = clean(self.data.pointer(pointer)?.as_str()?);
        (!text.is_empty()).then(|| cut(&text, VALUE, utf16))
    }

    fn count(&self, pointer: &str) -> Option<u64> {
        self.data.pointer(pointer)?.as_u64()
    }

    /// The first of these texts that is there.
    pub fn first(&self, pointers: &[&str]) -> Option<String> {
        pointers.iter().find_map(|pointer| self.text(pointer))
    }

    pub fn time(&self, pointer: &str) -> Option<Timestamp> {
        self.data.pointer(pointer)?.as_str()?.parse().ok()
    }

    /// Whether somebody tries the webhook out.
    pub fn is_test(&self) -> bool {
        self.data["test"] == true || self.kind == Some(EventType::Test)
    }

    /// How much it wants a person.
    pub fn severity(&self) -> Severity {
        self.data["severity"].as_str().and_then(|word| word.parse().ok()).unwrap_or_default()
    }

    /// How the batch really ended.
    pub fn outcome(&self) -> Option<Outcome> {
        serde_json::from_value(self.data["outcome"].clone()).ok().flatten()
    }

    pub fn provider(&self) -> String {
        self.text("/provider").unwrap_or_else(|| "the provider".to_owned())
    }

    /// What it is about: a batch by its name or else its id, a webhook, a provider.
    pub fn subject(&self) -> String {
        let subject = self.first(&["/name", "/batch/id", "/id", "/webhook", "/provider"]);
        cut(&subject.unwrap_or_else(|| "batchd".to_owned()), NAME, utf16)
    }

    pub fn tone(&self) -> Tone {
        let by_severity = match self.severity() {
            Severity::Info => Tone::Neutral,
            Severity::Warning => Tone::Warning,
            Severity::Error => Tone::Bad,
        };
        match self.kind {
            Some(EventType::Batch(status)) => match (status, self.severity()) {
                (Status::Completed, Severity::Info) => Tone::Good,
                (Status::Expired, _) => Tone::Expired,
                (Status::Cancelled, _) => Tone::Cancelled,
                _ => by_severity,
            },
            Some(kind) if kind.is_good_news() => Tone::Good,
            Some(_) | None => by_severity,
        }
    }

    /// The title's words after the name.
    pub fn headline(&self) -> &'a str {
        match (self.kind, self.outcome()) {
            (Some(EventType::Batch(Status::Completed)), Some(Outcome::Partial)) => "completed with errors",
            (Some(EventType::Batch(Status::Completed)), Some(Outcome::AllFailed)) => {
                "completed, every request failed"
            }
            (Some(EventType::Batch(Status::Expired)), Some(Outcome::ExpiredWithOutput)) => {
                "expired with some results"
            }
            (Some(EventType::Batch(Status::Cancelled)), Some(Outcome::CancelledWithOutput)) => {
                "cancelled with some results"
            }
            (Some(EventType::Batch(status)), _) => match status {
                Status::Validating => "validating",
                Status::InProgress => "in progress",
                Status::Finalizing => "finalizing",
                Status::Completed => "completed",
                Status::Failed => "failed",
                Status::Expired => "expired",
                Status::Cancelling => "cancelling",
                Status::Cancelled => "cancelled",
            },
            (Some(EventType::BatchStalled), _) => "no progress",
            (Some(EventType::BatchOverdue), _) => "late",
            (Some(EventType::BatchLost), _) => "lost",
            (Some(EventType::ResultsDownloaded), _) => "results downloaded",
            (Some(EventType::ResultsFailed), _) => "results not downloaded",
            (Some(EventType::ResultsExpiring), _) => "results about to be deleted",
            (Some(EventType::ProviderUnauthorized), _) => "key refused",
            (Some(EventType::ProviderUnreachable), _) => "no answer",
            (Some(EventType::ProviderRecovered), _) => "answers again",
            (Some(EventType::WebhookFailing), _) => "webhook failing",
            (Some(EventType::WebhookRecovered), _) => "webhook accepts again",
            (Some(EventType::PruningHeld), _) => "old batches are kept for now",
            (Some(EventType::LogStepped), _) => "commits may be lost",
            (Some(EventType::DeliveryDead), _) => "delivery given up",
            (Some(EventType::Digest), _) => "digest",
            (Some(EventType::Test), _) => "test",
            (None, _) => self.word,
        }
    }

    /// What a telephone shows.
    pub fn line(&self) -> String {
        let (name, provider) = (self.subject(), self.provider());
        let message = self.text("/message");
        let because = message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
        let progress = self.progress().map(|progress| format!(": {progress}")).unwrap_or_default();
        match self.kind {
            Some(EventType::Batch(status)) => self.status_line(status, &name, &progress),
            Some(EventType::BatchStalled) => format!("{name} makes no progress{progress}"),
            Some(EventType::BatchOverdue) => {
                let due = self
                    .time("/batch/batchd/deadline")
                    .or_else(|| from_seconds(self.data.pointer("/batch/expires_at")?.as_i64()?));
                let due = due.map(|due| format!(", due {}", instant(due))).unwrap_or_default();
                format!("{name} is late{due}{progress}")
            }
            Some(EventType::BatchLost) => format!("{provider} does not know {name} any more{because}"),
            Some(EventType::ResultsDownloaded) => format!("The results of {name} have been downloaded"),
            Some(EventType::ResultsFailed) => {
                format!("The results of {name} could not be downloaded{because}")
            }
            Some(EventType::ResultsExpiring) => {
                let at = self.time("/batch/batchd/results_expire_at");
                let at = at.map_or_else(|| "soon".to_owned(), |at| format!("at {}", instant(at)));
                format!("{provider} deletes the results of {name} {at}")
            }
            // What an event says of an account is a sentence with the name in it.
            Some(EventType::ProviderUnauthorized) => {
                message.unwrap_or_else(|| format!("{provider} refuses the key"))
            }
            Some(EventType::ProviderUnreachable) => {
                message.unwrap_or_else(|| format!("{provider} does not answer"))
            }
            Some(EventType::ProviderRecovered) => format!("{provider} answers again"),
            Some(EventType::WebhookFailing) => {
                message.unwrap_or_else(|| format!("Deliveries to webhook {name} fail"))
            }
            Some(EventType::WebhookRecovered) => format!("Webhook {name} accepts deliveries again"),
            Some(EventType::PruningHeld) => {
                message.unwrap_or_else(|| "batchd keeps old batches for now".to_owned())
            }
            Some(EventType::LogStepped) => {
                message.unwrap_or_else(|| "The server with batchd's state may have lost commits".to_owned())
            }
            Some(EventType::DeliveryDead) => {
                message.unwrap_or_else(|| format!("A delivery to webhook {name} was given up"))
            }
            Some(EventType::Digest | EventType::Test) | None => {
                message.unwrap_or_else(|| format!("{name}: {}", self.headline()))
            }
        }
    }

    fn status_line(&self, status: Status, name: &str, progress: &str) -> String {
        let took = self.duration().map(|took| format!(" in {took}")).unwrap_or_default();
        let first_error = self.errors().into_iter().next();
        match (status, self.requests()) {
            (Status::Completed, Some((_, failed, total))) if self.outcome() == Some(Outcome::AllFailed) => {
                let all = number(total.max(failed));
                format!("{name} completed, but none of {all} requests succeeded{took}")
            }
            (Status::Completed, Some((ok, failed, total))) => {
                let rate = percent(failed, total).filter(|_| failed > 0);
                let rate = rate.map(|rate| format!(" ({rate})")).unwrap_or_default();
                format!("{name} completed: {} ok, {} failed{rate}{took}", number(ok), number(failed))
            }
            (Status::Completed, None) => format!("{name} completed{took}"),
            (Status::Failed, _) => match first_error {
                Some(error) => format!("{name} failed{took}: {error}"),
                None => format!("{name} failed{took}{progress}"),
            },
            (Status::Expired, _) => format!("{name} expired{progress}"),
            (Status::Cancelled, _) => format!("{name} was cancelled{progress}"),
            (Status::Validating, _) => format!("{name} is being validated"),
            (Status::InProgress, _) => format!("{name} is in progress{progress}"),
            (Status::Finalizing, _) => format!("{name} is being finalized{progress}"),
            (Status::Cancelling, _) => format!("{name} is being cancelled{progress}"),
        }
    }

    /// Requests that succeeded, that failed, and all of them.
    pub fn requests(&self) -> Option<(u64, u64, u64)> {
        // A digest's entries hold no whole batch.
        let counts = ["/batch/request_counts", "/request_counts"].into_iter();
        let counts = counts.filter_map(|at| self.data.pointer(at)).find(|counts| counts.is_object())?;
        let count = |key: &str| counts[key].as_u64();
        let (ok, failed, total) = (count("completed")?, count("failed")?, count("total")?);
        (total > 0 || ok > 0 || failed > 0).then_some((ok, failed, total.max(ok.saturating_add(failed))))
    }

    /// `120 of 10,000 requests done`
    pub fn progress(&self) -> Option<String> {
        let (ok, failed, total) = self.requests()?;
        Some(format!("{} of {} requests done", number(ok.saturating_add(failed)), number(total)))
    }

    fn duration(&self) -> Option<String> {
        Some(human(Duration::from_secs(self.count("/duration_seconds")?)))
    }

    /// `3 h 12 m (usually 2 h 50 m)`, for a batch that has ended; for others what is usual.
    fn length(&self, ended: bool) -> Option<String> {
        let usual =
            ["/usual_seconds", "/batch/batchd/usual_seconds"].into_iter().find_map(|at| self.count(at));
        let usual = usual.map(|seconds| format!("usually {}", human(Duration::from_secs(seconds))));
        match (ended, self.duration(), usual) {
            (true, Some(took), Some(usual)) => Some(format!("{took} ({usual})")),
            (true, took, _) => Some(took.unwrap_or_else(|| UNKNOWN.to_owned())),
            (false, _, usual) => usual,
        }
    }

    /// Names and values, the most important first.
    pub fn facts(&self) -> Vec<Fact> {
        let mut facts = Vec::new();
        let mut add = |name, value: Option<String>| facts.extend(value.map(|value| Fact { name, value }));
        if self.data.get("batch").is_some_and(Value::is_object) {
            let ended = self.outcome().is_some();
            let requests = self.requests().map(|(ok, failed, total)| {
                format!("{} ok · {} failed · {} in all", number(ok), number(failed), number(total))
            });
            add("Requests", requests.or_else(|| Some(UNKNOWN.to_owned())));
            let rate = self
                .requests()
                .filter(|(ok, failed, _)| ended && ok.saturating_add(*failed) > 0)
                .and_then(|(_, failed, total)| percent(failed, total));
            add("Error rate", rate);
            add("Duration", self.length(ended));
            add("Model", self.text("/batch/model"));
            add("Tokens", self.tokens());
            add("Cost", self.cost("/batch/batchd/cost/amount"));
            add("Provider", self.text("/provider"));
            add("Batch", self.text("/batch/id"));
            add("Labels", self.labels());
            add("Reason", self.text("/message").filter(|_| self.kind.is_some_and(EventType::needs_a_person)));
        } else {
            add("Provider", self.text("/provider"));
            add("Webhook", self.text("/webhook"));
            add("Since", self.time("/since").map(instant));
            add("Reason", self.text("/message").filter(|reason| *reason != self.line()));
        }
        facts
    }

    fn tokens(&self) -> Option<String> {
        let part = |all: &str, detail: &str, what: &str| {
            let detail = self.count(detail).filter(|count| *count > 0);
            let detail = detail.map(|count| format!(" ({} {what})", number(count))).unwrap_or_default();
            Some(format!("{}{detail}", number(self.count(all)?)))
        };
        let input =
            part("/batch/usage/input_tokens", "/batch/usage/input_tokens_details/cached_tokens", "cached")?;
        let output = part(
            "/batch/usage/output_tokens",
            "/batch/usage/output_tokens_details/reasoning_tokens",
            "reasoning",
        )?;
        Some(format!("{input} in · {output} out"))
    }

    /// An amount of dollars.
    pub fn cost(&self, pointer: &str) -> Option<String> {
        let amount = self.data.pointer(pointer).filter(|amount| amount.is_number())?;
        Some(Usd::read(&amount.to_string())?.shown())
    }

    fn labels(&self) -> Option<String> {
        let labels = self.data["labels"].as_object()?.iter();
        let labels: Vec<String> = labels
            .filter_map(|(key, value)| Some(format!("{}={}", clean(key), clean(value.as_str()?))))
            .collect();
        (!labels.is_empty()).then(|| cut(&labels.join(", "), VALUE, utf16))
    }

    /// Errors of the batch itself, equal ones counted, the most frequent first.
    pub fn errors(&self) -> Vec<String> {
        let mut counted: Vec<(String, u64)> = Vec::new();
        for error in self.data.pointer("/batch/errors/data").and_then(Value::as_array).into_iter().flatten() {
            let part = |key: &str| error[key].as_str().map(clean).filter(|text| !text.is_empty());
            let text = match (part("code"), part("message")) {
                (Some(code), Some(message)) => format!("{code}: {message}"),
                (Some(text), None) | (None, Some(text)) => text,
                (None, None) => continue,
            };
            if let Some((_, count)) = counted.iter_mut().find(|(known, _)| *known == text) {
                *count += 1;
            } else if counted.len() < 100 {
                // Thousands of different errors must not make this slow.
                counted.push((text, 1));
            }
        }
        counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counted
            .into_iter()
            .take(MOST_ERRORS)
            .map(|(text, count)| {
                let text = cut(&text, VALUE, utf16);
                if count > 1 { format!("{}× {text}", number(count)) } else { text }
            })
            .collect()
    }

    fn notes(&self, now: Timestamp) -> Vec<String> {
        let ended = self.outcome().is_some() && self.kind != Some(EventType::ResultsExpiring);
        let until = self.time("/batch/batchd/results_expire_at").filter(|until| ended && *until > now);
        until
            .map(|until| {
                format!("Results are kept until {} (for {})", instant(until), human(since(now, until)))
            })
            .into_iter()
            .collect()
    }

    /// The dashboard's page of what it is about, if people reach that, else the provider's own.
    pub fn link(&self) -> Option<Link> {
        self.dashboard_link().or_else(|| self.console_link())
    }

    fn dashboard_link(&self) -> Option<Link> {
        let pages = self.pages?;
        let text = |pointer| self.data.pointer(pointer).and_then(Value::as_str);
        // What is tried out is about a batch that no page shows.
        let path = match (text("/id"), text("/provider"), text("/webhook")) {
            _ if self.is_test() => "/".to_owned(),
            (Some(id), Some(provider), _) => {
                BatchKey { provider: provider.to_owned(), id: id.to_owned() }.page()
            }
            (_, _, Some(_)) => "/webhooks".to_owned(),
            (None, Some(_), None) => "/providers".to_owned(),
            _ => "/".to_owned(),
        };
        let url = format!("{pages}{path}");
        (url.len() <= MAX_URL).then(|| Link { url, text: "Open in batchd".to_owned() })
    }

    /// The provider's page, if it is one that may be shown.
    fn console_link(&self) -> Option<Link> {
        let mut pages = ["/batch/batchd/console_url", "/console_url"].into_iter();
        let url = pages.find_map(|at| self.data.pointer(at)?.as_str())?;
        let usable = (url.starts_with("https://") || url.starts_with("http://"))
            && url.len() <= MAX_URL
            && url.chars().all(|c| c.is_ascii_graphic());
        usable.then(|| Link { url: url.to_owned(), text: format!("Open in {}", self.provider()) })
    }
}

/// Of a title, in UTF-16 units.
pub const TITLE: usize = 100;
/// Of a line, in UTF-16 units.
pub const LINE: usize = 500;
const NAME: usize = 60;
/// Of an address, in bytes.
const MAX_URL: usize = 1000;
const VALUE: usize = 200;
const MOST_ERRORS: usize = 3;
const UNKNOWN: &str = "–";

#[cfg(test)]
mod tests {
    use super::super::samples::{NOW, batch, reached, with_errors};
    use super::*;
    use crate::domain::event::{Draft, Occurrence};
    use crate::domain::tracked::Tracked;
    use crate::http::failure::Failure;
    use proptest::prelude::*;

    fn message(tracked: &Tracked) -> Message {
        Message::from_event(&reached(tracked), None, NOW).unwrap()
    }

    fn fact<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
        message.facts.iter().find(|fact| fact.name == name).map(|fact| fact.value.as_str())
    }

    #[test]
    fn a_partial_success_says_so_in_icon_word_and_number() {
        let message = message(&batch(Status::Completed, Some((10_000, 9_872, 128))));
        assert_eq!(message.tone, Tone::Warning);
        assert_eq!(message.headline(), "⚠️ nightly-eval — completed with errors");
        assert_eq!(message.line, "nightly-eval completed: 9,872 ok, 128 failed (1.3 %) in 3 h 12 m");
        let names: Vec<&str> = message.facts.iter().map(|fact| fact.name).collect();
        assert_eq!(
            names,
            ["Requests", "Error rate", "Duration", "Model", "Tokens", "Provider", "Batch", "Labels"]
        );
        assert_eq!(fact(&message, "Requests"), Some("9,872 ok · 128 failed · 10,000 in all"));
        assert_eq!(fact(&message, "Error rate"), Some("1.3 %"));
        assert_eq!(fact(&message, "Tokens"), Some("31,493,594 in · 1,978,624 out"));
        assert_eq!(fact(&message, "Labels"), Some("team=evals"));
        assert_eq!(message.notes, ["Results are kept until 2025-11-08 08:53 UTC (for 29 d 23 h)"]);
        let link = message.link.unwrap();
        assert_eq!(link.text, "Open in openai");
        assert_eq!(link.url, "https://platform.openai.com/batches/batch_abc123");
    }

    #[test]
    fn j6_completed_with_no_success_at_all_is_bad_news() {
        let message = message(&batch(Status::Completed, Some((9, 0, 9))));
        assert_eq!(message.tone, Tone::Bad);
        assert_eq!(message.headline(), "❌ nightly-eval — completed, every request failed");
        assert_eq!(message.line, "nightly-eval completed, but none of 9 requests succeeded in 3 h 12 m");
    }

    #[test]
    fn every_end_reads_well() {
        let line = |status, counts| message(&batch(status, counts)).line;
        let counts = Some((100, 10, 0));
        assert_eq!(
            line(Status::Completed, Some((1000, 1000, 0))),
            "nightly-eval completed: 1,000 ok, 0 failed in 3 h 12 m"
        );
        assert_eq!(line(Status::Completed, None), "nightly-eval completed in 3 h 12 m");
        assert_eq!(line(Status::Expired, counts), "nightly-eval expired: 10 of 100 requests done");
        assert_eq!(line(Status::Cancelled, counts), "nightly-eval was cancelled: 10 of 100 requests done");
        let failed = with_errors(
            batch(Status::Failed, None),
            &[
                ("rare", "once"),
                ("token_limit_exceeded", "too many tokens"),
                ("token_limit_exceeded", "too many tokens"),
            ],
        );
        let message = message(&failed);
        assert_eq!(message.line, "nightly-eval failed in 3 h 12 m: 2× token_limit_exceeded: too many tokens");
        assert_eq!(message.errors, ["2× token_limit_exceeded: too many tokens", "rare: once"]);
        assert_eq!(fact(&message, "Requests"), Some("–"), "unknown is not zero");
        let untouched = self::message(&batch(Status::Failed, Some((100, 0, 0))));
        assert_eq!(fact(&untouched, "Error rate"), None, "nothing done has no rate");
    }

    #[test]
    fn every_type_of_event_has_words_and_an_icon() {
        let tracked = batch(Status::InProgress, Some((100, 10, 0)));
        for kind in EventType::ALL {
            let body = match kind {
                EventType::Batch(status) => reached(&batch(status, Some((100, 10, 0)))),
                EventType::ProviderUnauthorized
                | EventType::ProviderUnreachable
                | EventType::ProviderRecovered => {
                    Draft::about_provider(kind, "openai", "401 Unauthorized", NOW, NOW).body(1)
                }
                _ => Occurrence::finding(kind, NOW, NOW).draft(&tracked).body(1),
            };
            let message = Message::from_event(&body, None, NOW).unwrap();
            assert!(message.headline().starts_with(message.tone.icon()), "{kind}: {}", message.title);
            assert!(
                !message.title.contains(kind.as_str()),
                "{kind} has no words of its own: {}",
                message.title
            );
            assert!(message.line.len() > 10, "{kind}: {}", message.line);
        }
        let words = "openai refuses the key (401: bad key); its batches are looked at less often";
        let refused = Draft::about_provider(EventType::ProviderUnauthorized, "openai", words, NOW, NOW);
        let refused = Message::from_event(&refused.body(1), None, NOW).unwrap();
        assert_eq!(refused.headline(), "❌ openai — key refused");
        assert_eq!(refused.line, words);
        let stalled = Occurrence::finding(EventType::BatchStalled, NOW, NOW).draft(&tracked);
        let stalled = Message::from_event(&stalled.body(1), None, NOW).unwrap();
        assert_eq!(stalled.line, "nightly-eval makes no progress: 10 of 100 requests done");
        assert_eq!(stalled.headline(), "⚠️ nightly-eval — no progress");
    }

    #[test]
    fn a_test_cannot_be_taken_for_news() {
        let tracked = batch(Status::Completed, Some((10, 10, 0)));
        let draft = Draft::test(&tracked, EventType::Batch(Status::Completed), "1", NOW);
        let message = Message::from_event(&draft.body(0), None, NOW).unwrap();
        assert_eq!(message.headline(), "✅ TEST: nightly-eval — completed");
        assert!(message.line.starts_with("Test message from batchd. No action needed."), "{}", message.line);
        assert!(message.notes.iter().any(|note| note.contains("test")));
    }

    #[test]
    fn g11_names_from_outside_neither_hide_nor_swell() {
        let mut tracked = batch(Status::Completed, Some((10, 10, 0)));
        tracked.name = Some(format!("a\r\nX: y \u{202e}{}", "z".repeat(10_000)));
        tracked.console_url = Some("javascript:alert(1)".to_owned());
        let message = message(&tracked);
        assert!(message.headline().starts_with("✅ a X: y zzz"), "{}", message.title);
        assert!(utf16(&message.title) <= 100 && message.title.ends_with("— completed"), "{}", message.title);
        assert!(message.line.ends_with("10 ok, 0 failed in 3 h 12 m"), "{}", message.line);
        assert_eq!(message.link, None);
    }

    #[test]
    fn a_body_that_is_no_event_is_a_failure_and_odd_fields_are_left_out() {
        assert!(matches!(Message::from_event("{", None, NOW), Err(Failure::Malformed(_))));
        for body in ["{}", "[]", "null", r#"{"type":7,"data":{"batch":{"request_counts":"many"},"name":9}}"#]
        {
            assert!(Message::from_event(body, None, NOW).is_ok(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(
            kind in prop::sample::select(EventType::ALL.to_vec()),
            name in "\\PC{0,50}", total: u64, completed: u64, failed: u64, seconds: u64,
        ) {
            let body = serde_json::json!({
                "type": kind.as_str(),
                "data": {"name": name, "duration_seconds": seconds, "outcome": "partial", "severity": "warning",
                    "batch": {"request_counts": {"total": total, "completed": completed, "failed": failed}}},
            });
            let message = Message::from_event(&body.to_string(), None, NOW).unwrap();
            prop_assert!(utf16(&message.title) <= TITLE && utf16(&message.line) <= LINE);
        }
    }
}
