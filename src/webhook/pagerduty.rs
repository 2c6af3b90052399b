//! PagerDuty's Events API v2: an alert for what went wrong, and its end (`docs/webhooks/pagerduty.md`).

use super::chat::CHAT;
use super::escape::PLAIN;
use super::event_reader::EventReader;
#[cfg(test)]
use super::expected::{Expected, Meaning, length};
use super::message::Message;
use super::post::Post;
use super::text::{clean, cut, utf16};
use super::{BadTarget, DeliveryOutcome, EventBody, Kind, Target, Webhook, answered};
use crate::config::WebhookFacts;
use crate::domain::event::{EventType, Subject};
use crate::domain::outcome::Severity;
use crate::http::address::BadAddress;
use crate::http::call::{Answer, Call};
use crate::http::failure::{Failure, status_line};
use http::StatusCode;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// `kind = "pagerduty"`
pub static KIND: Kind = Kind {
    facts: WebhookFacts {
        name: "pagerduty",
        hosts: &["pagerduty.com"],
        url: Some("https://events.pagerduty.com"),
        severity: Severity::Warning,
        needs: &["routing_key"],
        ..CHAT
    },
    build: |target| Ok(Box::new(PagerDuty::new(target)?)),
    #[cfg(test)]
    expected: &EXPECTED,
};

#[derive(Debug)]
struct PagerDuty {
    post: Post,
    routing_key: SecretString,
}

impl PagerDuty {
    fn new(target: &Target) -> Result<Self, BadTarget> {
        let mut url: url::Url =
            target.url.expose_secret().trim().parse().map_err(|_| BadAddress::Unreadable)?;
        if url.path() == "/" {
            url.set_path(ENQUEUE);
        }
        let post = Post::to(&SecretString::from(url.as_str()), target, PLAIN)?;
        Ok(Self { post, routing_key: target.needed("routing_key")?.clone() })
    }
}

impl Webhook for PagerDuty {
    fn render(&self, event: &EventBody<'_>, plain: bool, now: Timestamp) -> Result<Call, Failure> {
        let message = self.post.message(event, plain, now)?;
        let body: Value = serde_json::from_str(event.body)
            .map_err(|error| Failure::Malformed(format!("the stored event is not JSON: {error}")))?;
        let reader = EventReader::new(&body, None);
        let alert = Alert::of(&reader, event.id);
        let mut payload = json!({
            "routing_key": self.routing_key.expose_secret(),
            "event_action": alert.action,
            "dedup_key": alert.key,
        });
        // An end needs no more than the key.
        if alert.action == TRIGGER {
            payload["client"] = "batchd".into();
            payload["payload"] = details(&reader, &message, &body);
            if let Some(link) = &message.link {
                payload["client_url"] = link.url.as_str().into();
                payload["links"] = json!([{"href": link.url, "text": link.text}]);
            }
        }
        self.post.json(&payload)
    }

    fn outcome(&self, answer: &Answer) -> DeliveryOutcome {
        let is_imitation = answer.status.is_success() && answered::says_accepted(answer);
        if answer.status == StatusCode::ACCEPTED || is_imitation {
            return DeliveryOutcome::Delivered;
        }
        let body = answered::json(answer);
        let errors: Vec<&str> =
            body["errors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let reason = if errors.is_empty() { body["message"].clone() } else { errors.join(", ").into() };
        let said = format!("{}{}", status_line(answer.status), answered::words(&reason));
        match answer.status.as_u16() {
            400 if said.contains("routing_key") || said.to_lowercase().contains("routing key") => {
                DeliveryOutcome::Gone(format!("{said}; see `routing_key`"))
            }
            400 => DeliveryOutcome::Dead(said),
            403 | 404 => DeliveryOutcome::Gone(format!("{said}; see `routing_key` and `url`")),
            _ if answer.status.is_success() => {
                DeliveryOutcome::Trouble(format!("{said}: the answer is not PagerDuty's; is `url` right?"))
            }
            _ => DeliveryOutcome::of_status(answer),
        }
    }

    /// An end that overtakes its beginning is dropped, and leaves an alert open for ever.
    fn keeps_order(&self) -> bool {
        true
    }

    fn concurrency(&self) -> usize {
        1
    }
}

/// What an event does to which alert.
struct Alert {
    action: &'static str,
    key: String,
}

impl Alert {
    fn of(event: &EventReader<'_>, id: &str) -> Self {
        let ends = match event.kind {
            _ if event.is_test() => false,
            Some(EventType::Batch(status)) => status.is_terminal() && event.severity() == Severity::Info,
            Some(kind) => kind.is_good_news(),
            None => false,
        };
        // What neither goes on nor ends is an alert of its own: a digest, a step on the way, a try-out.
        let lasts = !event.is_test()
            && match event.kind {
                Some(EventType::Batch(status)) => status.is_terminal(),
                Some(kind) => kind.subject() != Subject::Nothing,
                None => false,
            };
        let topic = event.topic().filter(|_| lasts);
        let key = topic.map_or_else(
            || format!("batchd/{id}"),
            |topic| {
                // Results that are about to go are another matter than how the batch went.
                let results = event.kind.map(EventType::subject) == Some(Subject::Results);
                format!("batchd/{topic}{}", if results { "/results" } else { "" })
            },
        );
        Self { action: if ends { RESOLVE } else { TRIGGER }, key: short(&key) }
    }
}

/// `key`, or the beginning of it with a hash of the whole.
fn short(key: &str) -> String {
    let clean = clean(key);
    if clean == key && utf16(key) <= KEY {
        return clean;
    }
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(key.as_bytes()));
    format!("{}/{}", cut(&clean, KEY - 33, utf16), &hash[..32])
}

fn details(event: &EventReader<'_>, message: &Message, body: &Value) -> Value {
    let mut more = Map::new();
    more.insert("line".to_owned(), message.line.as_str().into());
    for fact in &message.facts {
        more.insert(fact.name.to_lowercase().replace(' ', "_"), fact.value.as_str().into());
    }
    if !message.errors.is_empty() {
        more.insert("errors".to_owned(), message.errors.clone().into());
    }
    for list in &message.lists {
        let lines: Vec<String> = list.lines(DETAILS, str::len, super::message::Entry::line);
        more.insert(list.heading.to_lowercase(), lines.into());
    }
    if !message.notes.is_empty() {
        more.insert("notes".to_owned(), message.notes.clone().into());
    }
    let severity = match event.severity() {
        // A try-out pages nobody.
        _ if event.is_test() => Severity::Info,
        severity => severity,
    };
    let provider = event.provider();
    let source = if event.data["provider"].is_string() { provider.as_str() } else { "batchd" };
    let mut payload = json!({
        "summary": match &message.text {
            Some(text) => cut(&clean(text), SUMMARY, utf16),
            None => PLAIN.fit(&summary(event, message), SUMMARY),
        },
        "source": source,
        "severity": severity,
        "component": source,
        "group": "batchd",
        "class": clean(body["type"].as_str().unwrap_or_default()),
        "custom_details": more,
    });
    if let Some(at) = message.at {
        payload["timestamp"] = at.to_string().into();
    }
    payload
}

/// The line, with the account where it does not name it.
fn summary(event: &EventReader<'_>, message: &Message) -> String {
    let provider = event.provider();
    if event.data["provider"].is_string() && !message.line.contains(&provider) {
        format!("{} · {provider}", message.line)
    } else {
        message.line.clone()
    }
}

/// Where events go below an address without a path.
const ENQUEUE: &str = "/v2/enqueue";
const TRIGGER: &str = "trigger";
const RESOLVE: &str = "resolve";

/// Of a key, in characters.
const KEY: usize = 255;
/// Of a summary, in characters.
const SUMMARY: usize = 1024;
/// Of a list, in bytes; the whole event has at most 512 KB.
const DETAILS: usize = 16_000;

#[cfg(test)]
const EXPECTED: Expected = Expected {
    answers: &[
        (202, r#"{"status":"success","message":"Event processed","dedup_key":"x"}"#, Meaning::Delivered),
        (200, "<html>", Meaning::Trouble),
        (
            400,
            r#"{"status":"invalid event","message":"Event object is invalid","errors":["'routing_key' is invalid"]}"#,
            Meaning::Gone,
        ),
        (
            400,
            r#"{"status":"invalid event","message":"Event object is invalid","errors":["'payload.summary' is missing"]}"#,
            Meaning::Dead,
        ),
        (403, "", Meaning::Gone),
        (404, "", Meaning::Gone),
        (429, "", Meaning::Snooze(None)),
        (500, "", Meaning::Trouble),
    ],
    limits: |payload| {
        assert!(payload.to_string().len() <= 512_000 && length(payload, "/payload/summary") <= 1024);
        assert!((1..=255).contains(&length(payload, "/dedup_key")));
    },
    groups: false,
    escapes_values: false,
    ..Expected::CHANNEL
};
