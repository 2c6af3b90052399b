//! ntfy: a push notification, published as JSON at the server's root (`docs/webhooks/ntfy.md`).

use super::chat::CHAT;
use super::escape::BYTES;
#[cfg(test)]
use super::expected::{Expected, Meaning};
use super::message::{Message, Tone};
use super::post::Post;
use super::text::cut;
use super::{BadTarget, DeliveryOutcome, EventBody, Kind, Target, Webhook, answered};
use crate::config::WebhookFacts;
use crate::http::address::BadAddress;
use crate::http::call::{Answer, Call};
use crate::http::failure::{Failure, status_line};
use http::StatusCode;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use std::time::Duration;

/// `kind = "ntfy"`
pub static KIND: Kind = Kind {
    facts: WebhookFacts {
        name: "ntfy",
        hosts: &["ntfy.sh"],
        url: Some("https://ntfy.sh"),
        needs: &["topic"],
        options: &["token"],
        ..CHAT
    },
    build: |target| Ok(Box::new(Ntfy::new(target)?)),
    #[cfg(test)]
    expected: &EXPECTED,
};

#[derive(Debug)]
struct Ntfy {
    post: Post,
    /// Whoever knows it reads along.
    topic: SecretString,
}

impl Ntfy {
    fn new(target: &Target) -> Result<Self, BadTarget> {
        let topic = target.needed("topic")?.clone();
        let mut url: url::Url =
            target.url.expose_secret().trim().parse().map_err(|_| BadAddress::Unreadable)?;
        // The address of the topic is what people have at hand; JSON goes to the one above.
        let path = url.path().trim_end_matches('/').to_owned();
        if let Some(above) = path.strip_suffix(topic.expose_secret()).filter(|above| above.ends_with('/')) {
            url.set_path(above);
        }
        let mut post = Post::to(&SecretString::from(url.as_str()), target, BYTES)?;
        if let Some(token) = target.options.get("token") {
            post = post.authorized("token", token)?;
        }
        Ok(Self { post, topic })
    }

    /// `id` is the same at every attempt: a telephone that gets it twice shows it once.
    fn call(&self, message: &Message, id: &str) -> Result<Call, Failure> {
        let (priority, tag) = urgency(message.tone);
        let text = match &message.text {
            Some(text) => cut(text, MESSAGE, str::len),
            None => text(message),
        };
        let mut payload = json!({
            "topic": self.topic.expose_secret(),
            "title": BYTES.fit(&message.title, TITLE),
            "message": text,
            "priority": priority,
            "tags": [tag],
            "sequence_id": id,
        });
        if let Some(link) = &message.link {
            payload["click"] = link.url.as_str().into();
        }
        self.post.json(&payload)
    }
}

impl Webhook for Ntfy {
    fn render(&self, event: &EventBody<'_>, plain: bool, now: Timestamp) -> Result<Call, Failure> {
        self.call(&self.post.message(event, plain, now)?, event.id)
    }

    fn groups(&self) -> bool {
        true
    }

    fn render_group(&self, events: &[EventBody<'_>], plain: bool, now: Timestamp) -> Result<Call, Failure> {
        self.call(&self.post.group(events, plain, now)?, &super::group_id(events))
    }

    fn outcome(&self, answer: &Answer) -> DeliveryOutcome {
        if answer.status == StatusCode::OK {
            return answered::whole(answer);
        }
        let body = answered::json(answer);
        let said = format!("{}{}", status_line(answer.status), answered::words(&body["error"]));
        match answer.status.as_u16() {
            400 | 413 => DeliveryOutcome::Dead(said),
            401 | 403 => DeliveryOutcome::Gone(format!("{said}; see `token` and who may write to the topic")),
            404 => DeliveryOutcome::Gone(format!("{said}; is this the address of an ntfy server?")),
            // What is used up for the day is not there again in a minute.
            429 if body["code"].as_u64() == Some(DAILY_QUOTA) => {
                DeliveryOutcome::Snooze(answered::retry_after_of(answer).or(Some(QUOTA_PAUSE)))
            }
            _ => DeliveryOutcome::of_status(answer),
        }
    }

    fn concurrency(&self) -> usize {
        1
    }
}

/// The line and what it leaves out.
fn text(message: &Message) -> String {
    let told = ["Duration", "Model", "Provider", "Batch"];
    let facts = message.facts.iter().filter(|fact| told.contains(&fact.name));
    let facts: Vec<String> = facts.map(|fact| format!("{}: {}", fact.name, fact.value)).collect();
    let mut lines = vec![message.line.clone()];
    if !facts.is_empty() {
        lines.push(facts.join(" · "));
    }
    lines.extend(message.errors.iter().map(|error| format!("• {error}")));
    let share = MESSAGE.saturating_sub(1400) / message.lists.len().max(1);
    for list in &message.lists {
        lines.extend(list.title());
        lines.extend(list.lines(share, str::len, super::message::Entry::line));
    }
    lines.extend(message.notes.iter().cloned());
    BYTES.join(lines, MESSAGE)
}

/// How loud it is, 1 to 5, and the emoji before the title.
const fn urgency(tone: Tone) -> (u8, &'static str) {
    match tone {
        Tone::Good => (3, "white_check_mark"),
        Tone::Neutral => (3, "information_source"),
        Tone::Warning => (4, "warning"),
        Tone::Bad => (5, "x"),
        Tone::Expired => (5, "no_entry"),
        Tone::Cancelled => (2, "no_entry_sign"),
    }
}

/// Of a message, in bytes; a longer one would become a file.
const MESSAGE: usize = 4096;

/// Of a title, in bytes.
const TITLE: usize = 250;

/// What the server calls the end of a day's messages.
const DAILY_QUOTA: u64 = 42_908;

/// How long it is left alone then.
const QUOTA_PAUSE: Duration = Duration::from_hours(1);

#[cfg(test)]
const EXPECTED: Expected = Expected {
    answers: &[
        (200, r#"{"id":"x","event":"message"}"#, Meaning::Delivered),
        (400, r#"{"code":40024,"http":400,"error":"invalid request: topic invalid"}"#, Meaning::Dead),
        (401, r#"{"code":40101,"http":401,"error":"unauthorized"}"#, Meaning::Gone),
        (403, r#"{"code":40301,"http":403,"error":"forbidden"}"#, Meaning::Gone),
        (404, "", Meaning::Gone),
        (413, "", Meaning::Dead),
        (
            429,
            r#"{"code":42901,"http":429,"error":"limit reached: too many requests"}"#,
            Meaning::Snooze(None),
        ),
        (
            429,
            r#"{"code":42908,"http":429,"error":"limit reached: daily message quota reached"}"#,
            Meaning::Snooze(Some(3_600_000)),
        ),
        (507, "", Meaning::Trouble),
    ],
    limits: |payload| {
        assert!((1..=4096).contains(&payload["message"].as_str().unwrap().len()));
    },
    names_messages: true,
    escapes_values: false,
    ..Expected::CHANNEL
};
