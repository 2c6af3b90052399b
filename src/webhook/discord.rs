//! Discord's webhooks: one embed, waited for until it is saved (`docs/webhooks/discord.md`).

use super::chat::{CHAT, Channel, Chat};
use super::escape::{MARKDOWN, PLAIN};
#[cfg(test)]
use super::expected::{Expected, Meaning, length, list};
use super::message::{Fact, List, Message};
use super::text::{cut, utf16};
use super::{DeliveryOutcome, Kind, answered};
use crate::config::WebhookFacts;
use crate::http::call::Answer;
use crate::http::failure::status_line;
use http::StatusCode;
use serde_json::{Value, json};

/// `kind = "discord"`
pub static KIND: Kind = Kind {
    facts: WebhookFacts { name: "discord", hosts: &["discord.com", "discordapp.com"], ..CHAT },
    build: |target| {
        let channel = Channel {
            escape: MARKDOWN,
            // Without `wait` it answers before it knows whether the message can be saved.
            call: |post, message, _, plain| post.json_with(&[("wait", "true")], &payload(message, plain)),
            outcome,
        };
        Chat::build(target, channel)
    },
    #[cfg(test)]
    expected: &EXPECTED,
};

/// What the answer means.
fn outcome(answer: &Answer) -> DeliveryOutcome {
    if answer.status == StatusCode::OK {
        return answered::whole(answer);
    }
    let status = status_line(answer.status);
    let body = answered::json(answer);
    match (answer.status.as_u16(), body["code"].as_u64()) {
        // Thousands of refused requests would have the whole address banned.
        (404, Some(10_015)) => gone(&status, "the webhook was deleted; make a new one and configure its URL"),
        (401 | 403, _) => gone(&status, "the webhook's URL is not valid; copy it again"),
        // Of a whole invalid message, whatever is wrong with it.
        (400, _) => DeliveryOutcome::Simplify(format!("{status}{}", answered::words(&body["message"]))),
        // To the millisecond, where the header is rounded.
        (429, _) => DeliveryOutcome::Snooze(
            answered::seconds(&body["retry_after"]).or_else(|| answered::retry_after_of(answer)),
        ),
        _ => DeliveryOutcome::of_status(answer),
    }
}

fn gone(status: &str, what: &str) -> DeliveryOutcome {
    DeliveryOutcome::Gone(format!("{status}: {what}"))
}

/// Of a message's own text.
const CONTENT: usize = 2000;
/// Of an embed's title.
const TITLE: usize = 256;
/// Of an embed's description; Discord allows 4,096, and 6,000 of the whole embed.
const DESCRIPTION: usize = 3400;
/// Of a list's heading.
const HEADING: usize = 60;
/// Fields of an embed; Discord allows 25.
const FIELDS: usize = 12;
/// Of a field's value; Discord allows 1,024.
const VALUE: usize = 140;
/// Of an embed's footer; Discord allows 2,048.
const FOOTER: usize = 200;

fn payload(message: &Message, plain: bool) -> Value {
    let content = match &message.text {
        Some(text) => cut(text, CONTENT, utf16),
        None if plain => MARKDOWN.join(message.lines().iter().map(|line| MARKDOWN.all(line)), CONTENT),
        None => {
            return json!({"username": NAME, "allowed_mentions": {"parse": []}, "embeds": [embed(message)]});
        }
    };
    json!({"username": NAME, "allowed_mentions": {"parse": []}, "content": content})
}

fn embed(message: &Message) -> Value {
    let mut embed = json!({
        "title": MARKDOWN.fit(&message.headline(), TITLE),
        "color": message.tone.colour(),
        "description": description(message),
    });
    let fields: Vec<Value> = message.facts.iter().take(FIELDS).map(field).collect();
    if !fields.is_empty() {
        embed["fields"] = fields.into();
    }
    if let Some(link) = &message.link {
        embed["url"] = link.url.as_str().into();
    }
    if let Some(topic) = &message.topic {
        // No markup is read there.
        embed["footer"] = json!({"text": PLAIN.fit(&super::text::clean(topic), FOOTER)});
    }
    if let Some(at) = message.at {
        embed["timestamp"] = at.to_string().into();
    }
    embed
}

/// The line, the errors, the lists, the notes.
fn description(message: &Message) -> String {
    let errors = message.errors.iter().map(|error| format!("• {}", MARKDOWN.all(error)));
    let notes = message.notes.iter().map(|note| MARKDOWN.all(note));
    let line = message.lead().map(|line| MARKDOWN.all(line));
    let head: Vec<String> = line.into_iter().chain(errors).chain(notes).collect();
    let head = MARKDOWN.join(head, DESCRIPTION);
    let mut left = DESCRIPTION - utf16(&head);
    let mut text = head;
    let lists = message.lists.len().max(1);
    for list in &message.lists {
        // Each has its share, so that a long one hides no other.
        let room = ((DESCRIPTION - 600) / lists).min(left.saturating_sub(2));
        let part = MARKDOWN.join(section(list, room.saturating_sub(HEADING)), room);
        left = left.saturating_sub(utf16(&part) + 2);
        text = if text.is_empty() { part } else { format!("{text}\n\n{part}") };
    }
    text
}

fn section(list: &List, room: usize) -> Vec<String> {
    let title = list.title().map(|title| format!("**{title}**"));
    let lines = list.lines(room, utf16, |entry| {
        let text = MARKDOWN.all(&entry.text);
        match &entry.url {
            // What would end the link early.
            Some(url) if !url.contains(['(', ')']) => format!("{} [{text}]({url})", entry.tone.icon()),
            _ => format!("{} {text}", entry.tone.icon()),
        }
    });
    title.into_iter().chain(lines).collect()
}

fn field(fact: &Fact) -> Value {
    let value = match fact.name {
        "Model" | "Batch" => format!("`{}`", PLAIN.fit(&fact.value.replace('`', "'"), VALUE)),
        _ => MARKDOWN.fit(&fact.value, VALUE),
    };
    json!({"name": fact.name, "value": value, "inline": fact.value.len() <= INLINE})
}

/// A longer value stands alone on its line.
const INLINE: usize = 40;

/// Who speaks.
const NAME: &str = "batchd";

#[cfg(test)]
const EXPECTED: Expected = Expected {
    answers: &[
        (200, r#"{"id":"1"}"#, Meaning::Delivered),
        (204, "", Meaning::Trouble),
        (400, r#"{"message":"Invalid Form Body","code":50035}"#, Meaning::Simplify),
        (401, r#"{"message":"401: Unauthorized","code":0}"#, Meaning::Gone),
        (404, r#"{"message":"Unknown Webhook","code":10015}"#, Meaning::Gone),
        (404, "", Meaning::Refused),
        (
            429,
            r#"{"message":"You are being rate limited.","retry_after":0.376,"global":false}"#,
            Meaning::Snooze(Some(376)),
        ),
        (429, "", Meaning::Snooze(None)),
        (502, "", Meaning::Trouble),
    ],
    limits: |payload| {
        assert_eq!(payload["allowed_mentions"], json!({"parse": []}));
        assert!(length(payload, "/content") <= 2000);
        let embeds = list(payload, "/embeds");
        assert!(embeds.len() <= 10);
        let mut all = 0;
        for embed in embeds {
            let texts = ["/title", "/description", "/footer/text"].map(|at| length(embed, at));
            assert!(texts[0] <= 256 && texts[1] <= 4096 && texts[2] <= 2048);
            let fields = list(embed, "/fields");
            assert!(fields.len() <= 25);
            for field in fields {
                let (name, value) = (length(field, "/name"), length(field, "/value"));
                assert!((1..=256).contains(&name) && (1..=1024).contains(&value), "{field}");
                all += name + value;
            }
            all += texts.iter().sum::<usize>();
        }
        assert!(all <= 6000, "{all}");
        assert!(all > 0 || length(payload, "/content") > 0, "an empty message is refused");
    },
    forbidden: |_, text| if text.contains('`') { &[] } else { &["@everyone", "@here", "[x](https"] },
    ..Expected::CHANNEL
};
