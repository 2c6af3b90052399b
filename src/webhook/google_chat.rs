//! Google Chat's incoming webhooks: one card, threaded by what it is about, told twice at most once
//! (`docs/webhooks/google-chat.md`).

use super::chat::{CHAT, Channel, Chat};
use super::escape::{BYTES, GOOGLE_CHAT, GOOGLE_CHAT_TEXT};
#[cfg(test)]
use super::expected::{Expected, Meaning, list};
use super::message::{Fact, List, Message};
use super::post::Post;
use super::text::{clean, cut};
use super::{DeliveryOutcome, Kind, answered};
use crate::config::WebhookFacts;
use crate::http::call::{Answer, Call};
use crate::http::failure::{Failure, status_line};
use http::StatusCode;
use serde_json::{Value, json};

/// `kind = "google-chat"`
pub static KIND: Kind = Kind {
    facts: WebhookFacts { name: "google-chat", hosts: &["chat.googleapis.com"], ..CHAT },
    build: |target| {
        let channel = Channel { escape: GOOGLE_CHAT_TEXT, call, outcome };
        Chat::build(target, channel)
    },
    #[cfg(test)]
    expected: &EXPECTED,
};

/// `id` is the same at every attempt: a message that is there already is not made again.
fn call(post: &Post, message: &Message, id: &str, plain: bool) -> Result<Call, Failure> {
    let mut payload = match &message.text {
        Some(text) => json!({"text": cut(text, TEXT, str::len)}),
        None if plain => {
            let lines = message.lines();
            let lines = lines.iter().map(|line| GOOGLE_CHAT_TEXT.all(line));
            json!({"text": GOOGLE_CHAT_TEXT.join(lines, TEXT)})
        }
        None => json!({
            "fallbackText": GOOGLE_CHAT_TEXT.fit(&message.line, LINE),
            "cardsV2": [{"cardId": id, "card": card(message)}],
        }),
    };
    let mut query = vec![("requestId", id)];
    if let Some(topic) = &message.topic {
        payload["thread"] = json!({"threadKey": BYTES.fit(&clean(topic), THREAD)});
        query.push(("messageReplyOption", "REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD"));
    }
    post.json_with(&query, &payload)
}

/// What the answer means.
fn outcome(answer: &Answer) -> DeliveryOutcome {
    if answer.status == StatusCode::OK {
        return answered::whole(answer);
    }
    let body = answered::json(answer);
    let said = format!("{}{}", status_line(answer.status), answered::words(&body["error"]["message"]));
    match answer.status.as_u16() {
        400 => DeliveryOutcome::Simplify(said),
        401 | 403 | 404 => DeliveryOutcome::Gone(format!(
            "{said}; the webhook was removed or its space is gone; make a new one and configure its URL"
        )),
        _ => DeliveryOutcome::of_status(answer),
    }
}

/// Of a message without a card, in bytes; Google allows 32,000 of all together.
const TEXT: usize = 4000;
const LINE: usize = 1500;
/// Of the card's title and subtitle.
const TITLE: usize = 400;
/// Of a fact's value, an error, a note.
const VALUE: usize = 800;
const LISTS: usize = 9000;
/// Of a thread's key; Google allows 4,000 characters.
const THREAD: usize = 1000;

fn card(message: &Message) -> Value {
    let mut widgets: Vec<Value> =
        message.lead().iter().map(|line| paragraph(&GOOGLE_CHAT.fit(line, LINE))).collect();
    widgets.extend(message.facts.iter().map(fact));
    if !message.errors.is_empty() {
        let errors = message.errors.iter().map(|error| format!("• {}", GOOGLE_CHAT.fit(error, VALUE)));
        widgets.push(paragraph(&format!("<b>Errors</b>\n{}", errors.collect::<Vec<_>>().join("\n"))));
    }
    let share = LISTS / message.lists.len().max(1);
    widgets.extend(message.lists.iter().map(|list| paragraph(&section(list, share))));
    widgets.extend(message.notes.iter().map(|note| paragraph(&GOOGLE_CHAT.fit(note, VALUE))));
    if let Some(link) = &message.link {
        let open = json!({"openLink": {"url": link.url}});
        let button = json!({"text": GOOGLE_CHAT.fit(&link.text, TITLE), "onClick": open});
        widgets.push(json!({"buttonList": {"buttons": [button]}}));
    }
    // No markup is read in the header.
    let mut header = json!({"title": GOOGLE_CHAT_TEXT.fit(&message.headline(), TITLE)});
    if let Some(topic) = &message.topic {
        header["subtitle"] = GOOGLE_CHAT_TEXT.fit(&clean(topic), TITLE).into();
    }
    json!({"header": header, "sections": [{"widgets": widgets}]})
}

fn paragraph(text: &str) -> Value {
    json!({"textParagraph": {"text": text}})
}

fn fact(fact: &Fact) -> Value {
    json!({"decoratedText": {"topLabel": fact.name, "text": GOOGLE_CHAT.fit(&fact.value, VALUE), "wrapText": true}})
}

fn section(list: &List, room: usize) -> String {
    let title = list.title().map(|title| format!("<b>{title}</b>"));
    let lines = list.lines(room, str::len, |entry| {
        let text = GOOGLE_CHAT.fit(&entry.text, VALUE);
        match &entry.url {
            Some(url) => {
                let url = GOOGLE_CHAT.all(url).replace('"', "&quot;");
                format!("{} <a href=\"{url}\">{text}</a>", entry.tone.icon())
            }
            None => format!("{} {text}", entry.tone.icon()),
        }
    });
    title.into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
const EXPECTED: Expected = Expected {
    answers: &[
        (200, r#"{"name":"spaces/A/messages/B"}"#, Meaning::Delivered),
        (
            400,
            r#"{"error":{"code":400,"message":"Message cannot be empty.","status":"INVALID_ARGUMENT"}}"#,
            Meaning::Simplify,
        ),
        (403, "", Meaning::Gone),
        (404, r#"{"error":{"code":404,"status":"NOT_FOUND"}}"#, Meaning::Gone),
        (429, r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}"#, Meaning::Snooze(None)),
        (503, "", Meaning::Trouble),
    ],
    limits: |payload| {
        let bytes = payload.to_string().len();
        assert!(bytes <= 32_000, "{bytes}");
        assert!(list(payload, "/cardsV2/0/card/sections/0/widgets").len() <= 100);
    },
    forbidden: |_, _| &["<users/all>"],
    names_messages: true,
    ..Expected::CHANNEL
};
