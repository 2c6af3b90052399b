//! Mattermost's incoming webhooks: one attachment in Markdown (`docs/webhooks/mattermost.md`).

use super::chat::{CHAT, Channel, Chat};
use super::escape::{MARKDOWN, PLAIN};
#[cfg(test)]
use super::expected::{Expected, Meaning, length};
use super::message::{Fact, Message};
use super::text::{cut, utf16};
use super::{DeliveryOutcome, Kind, answered};
use crate::config::WebhookFacts;
use crate::http::call::Answer;
use crate::http::failure::status_line;
use http::StatusCode;
use serde_json::{Value, json};

/// `kind = "mattermost"`
pub static KIND: Kind = Kind {
    facts: WebhookFacts { name: "mattermost", ..CHAT },
    build: |target| {
        let channel = Channel {
            escape: MARKDOWN,
            call: |post, message, _, plain| post.json(&payload(message, plain)),
            outcome,
        };
        Chat::build(target, channel)
    },
    #[cfg(test)]
    expected: &EXPECTED,
};

/// What the answer means.
fn outcome(answer: &Answer) -> DeliveryOutcome {
    let status = status_line(answer.status);
    let body = String::from_utf8_lossy(&answer.body);
    if answer.status == StatusCode::OK {
        return match body.trim() {
            "ok" => DeliveryOutcome::Delivered,
            // Servers that imitate it.
            _ if answered::says_accepted(answer) => DeliveryOutcome::Delivered,
            _ if answer.cut => answered::whole(answer),
            _ => DeliveryOutcome::Trouble(format!(
                "{status}: the answer is not `ok`; is this the URL of an incoming webhook?"
            )),
        };
    }
    let body = answered::json(answer);
    let word = body["id"].as_str().unwrap_or_default();
    if let Some((_, what)) = GONE.iter().find(|(known, _)| *known == word) {
        return DeliveryOutcome::Gone(format!("{status}: {what}"));
    }
    match answer.status.as_u16() {
        400 | 413 => DeliveryOutcome::Simplify(format!("{status}{}", answered::words(&body["message"]))),
        401 | 403 | 404 => DeliveryOutcome::Gone(format!(
            "{status}: the webhook or its channel is gone or closed to it; make a new one and configure its URL"
        )),
        _ => DeliveryOutcome::of_status(answer),
    }
}

/// What the server says of a webhook that will never work again, and what to do.
const GONE: [(&str, &str); 4] = [
    (
        "web.incoming_webhook.invalid.app_error",
        "there is no such webhook any more; make a new one and configure its URL",
    ),
    (
        "web.incoming_webhook.disabled.app_error",
        "incoming webhooks are switched off on this server; ask its administrator",
    ),
    ("web.incoming_webhook.channel.app_error", "the channel is gone; make a webhook for another one"),
    (
        "web.incoming_webhook.channel_locked.app_error",
        "the webhook is locked to another channel; make one for this channel",
    ),
];

/// Of a post's text; the server allows 16,383, an old one 4,000.
const TEXT: usize = 4000;
/// Of an attachment's text.
const BODY: usize = 7000;
const TITLE: usize = 200;
const VALUE: usize = 400;

fn payload(message: &Message, plain: bool) -> Value {
    match &message.text {
        Some(text) => json!({"username": NAME, "text": cut(text, TEXT, utf16)}),
        None if plain => {
            let lines = message.lines();
            json!({"username": NAME, "text": MARKDOWN.join(lines.iter().map(|line| MARKDOWN.all(line)), TEXT)})
        }
        None => json!({"username": NAME, "attachments": [attachment(message)]}),
    }
}

fn attachment(message: &Message) -> Value {
    let mut attachment = json!({
        "fallback": PLAIN.fit(&message.line, VALUE),
        "color": message.tone.web_colour(),
        "title": title(message),
        "text": body(message),
    });
    if let Some(link) = &message.link {
        attachment["title_link"] = link.url.as_str().into();
    }
    let fields: Vec<Value> = message.facts.iter().map(field).collect();
    if !fields.is_empty() {
        attachment["fields"] = fields.into();
    }
    attachment
}

/// Read as Markdown only where it is no link.
fn title(message: &Message) -> String {
    let escape = if message.link.is_some() { PLAIN } else { MARKDOWN };
    escape.fit(&message.headline(), TITLE)
}

/// The line, the errors, the lists, the notes.
fn body(message: &Message) -> String {
    let errors = message.errors.iter().map(|error| format!("- {}", MARKDOWN.all(error)));
    let line = message.lead().map(|line| MARKDOWN.all(line));
    let mut lines: Vec<String> = line.into_iter().chain(errors).collect();
    let share = (BODY - 1500) / message.lists.len().max(1);
    for list in &message.lists {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(list.title().map(|title| format!("**{title}**")));
        lines.extend(list.lines(share.saturating_sub(TITLE), utf16, |entry| {
            let text = MARKDOWN.all(&entry.text);
            match &entry.url {
                Some(url) if !url.contains(['(', ')']) => format!("- {} [{text}]({url})", entry.tone.icon()),
                _ => format!("- {} {text}", entry.tone.icon()),
            }
        }));
    }
    lines.extend(message.notes.iter().map(|note| MARKDOWN.all(note)));
    MARKDOWN.join(lines, BODY)
}

fn field(fact: &Fact) -> Value {
    let value = match fact.name {
        "Model" | "Batch" => format!("`{}`", PLAIN.fit(&fact.value.replace('`', "'"), VALUE)),
        _ => MARKDOWN.fit(&fact.value, VALUE),
    };
    json!({"title": fact.name, "value": value, "short": fact.value.len() <= SHORT})
}

/// A longer value stands alone on its line.
const SHORT: usize = 40;

/// Who speaks; the server may not allow it and then names the webhook's maker.
const NAME: &str = "batchd";

#[cfg(test)]
const EXPECTED: Expected = Expected {
    answers: &[
        (200, "ok", Meaning::Delivered),
        (200, "<html>", Meaning::Trouble),
        (
            400,
            r#"{"id":"web.incoming_webhook.invalid.app_error","message":"Invalid webhook."}"#,
            Meaning::Gone,
        ),
        (400, r#"{"id":"web.incoming_webhook.parse.app_error","message":"no"}"#, Meaning::Simplify),
        (403, "", Meaning::Gone),
        (404, "", Meaning::Gone),
        (429, "", Meaning::Snooze(None)),
        (501, r#"{"id":"web.incoming_webhook.disabled.app_error"}"#, Meaning::Gone),
        (500, "", Meaning::Trouble),
    ],
    limits: |payload| {
        assert!(length(payload, "/text") <= 16_383);
        assert!(length(payload, "/attachments/0/text") <= 16_383);
    },
    forbidden: |payload, text| {
        // None of them is read as anything in a block of code, in the title or in the fallback.
        let is_plain = ["title", "fallback"].iter().any(|part| payload["attachments"][0][part] == text);
        if is_plain || text.contains('`') { &[] } else { &["@everyone", "@here", "[x](https"] }
    },
    ..Expected::CHANNEL
};
