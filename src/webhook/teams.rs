//! Microsoft Teams by a workflow (Power Automate): one Adaptive Card (`docs/webhooks/teams.md`).

use super::chat::{CHAT, Channel, Chat};
use super::escape::{BYTES, TEAMS};
#[cfg(test)]
use super::expected::{Expected, Meaning};
use super::message::{Entry, Fact, List, Message, Tone};
use super::text::cut;
use super::{DeliveryOutcome, Kind, answered};
use crate::config::WebhookFacts;
use crate::http::call::Answer;
use crate::http::failure::status_line;
use serde_json::{Value, json};

/// `kind = "teams"`
pub static KIND: Kind = Kind {
    facts: WebhookFacts {
        name: "teams",
        hosts: &["logic.azure.com", "powerplatform.com", "powerautomate.com"],
        retired_hosts: &[
            ("webhook.office.com", MOVED),
            ("outlook.office.com", MOVED),
            ("outlook.office365.com", MOVED),
        ],
        ..CHAT
    },
    build: |target| {
        let channel = Channel {
            escape: TEAMS,
            call: |post, message, _, plain| post.json(&payload(message, plain)),
            outcome,
        };
        Chat::build(target, channel)
    },
    #[cfg(test)]
    expected: &EXPECTED,
};

/// What became of the connectors of Office 365.
const MOVED: &str = "Microsoft has retired connectors: make a workflow of the template \"When a Teams webhook request \
                     is received\" and configure its URL";

/// What the answer means.
fn outcome(answer: &Answer) -> DeliveryOutcome {
    let status = status_line(answer.status);
    let body = answered::json(answer);
    let said = format!("{status}{}", answered::words(&body["error"]["message"]));
    match answer.status.as_u16() {
        // It is taken; whether the workflow then posts it, nobody is told.
        200 | 202 => {
            let body = String::from_utf8_lossy(&answer.body);
            match body.contains(UNDELIVERED) {
                true if body.contains("429") => DeliveryOutcome::Snooze(answered::retry_after_of(answer)),
                true => {
                    DeliveryOutcome::Trouble(format!("{status}: the answer says that it was not delivered"))
                }
                false => DeliveryOutcome::Delivered,
            }
        }
        400 | 413 => DeliveryOutcome::Simplify(said),
        401 | 403 | 404 => DeliveryOutcome::Gone(format!(
            "{said}; the workflow is gone, switched off or has a new signature; copy its URL again"
        )),
        _ => DeliveryOutcome::of_status(answer),
    }
}

/// What gateways in front of Teams say with a status of success.
const UNDELIVERED: &str = "Webhook message delivery failed";

/// Of a title, in bytes.
const TITLE: usize = 400;
/// Of a line, a value, an error, in bytes.
const TEXT: usize = 1200;
/// Of the simplest card, in bytes.
const PLAIN: usize = 4000;
/// Of all lists, in bytes of JSON. Teams takes 28 KB after it has rewritten a card; a whole one here stays below 16.
const LISTS: usize = 6000;
/// Of a fact's value, in bytes.
const VALUE: usize = 400;

fn payload(message: &Message, plain: bool) -> Value {
    let body = match &message.text {
        // What a template says may be Markdown.
        Some(text) => vec![json!({"type": "TextBlock", "wrap": true, "text": cut(text, PLAIN, str::len)})],
        None if plain => {
            let lines = message.lines();
            vec![text(&BYTES.join(lines, PLAIN), &json!({}))]
        }
        None => body(message),
    };
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        // The highest that is drawn on desktop, web and telephone.
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": body,
    });
    if let Some(link) = message.link.as_ref().filter(|_| message.text.is_none()) {
        card["actions"] =
            json!([{"type": "Action.OpenUrl", "title": BYTES.fit(&link.text, TITLE), "url": link.url}]);
    }
    json!({
        "type": "message",
        "summary": BYTES.fit(&message.line, TITLE),
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": card,
        }],
    })
}

fn body(message: &Message) -> Vec<Value> {
    let title = text(&BYTES.fit(&message.headline(), TITLE), &json!({"size": "Medium", "weight": "Bolder"}));
    let mut body =
        vec![json!({"type": "Container", "style": style(message.tone), "bleed": true, "items": [title]})];
    body.extend(message.lead().map(|line| text(&BYTES.fit(line, TEXT), &json!({}))));
    let facts: Vec<Value> = message.facts.iter().map(fact).collect();
    if !facts.is_empty() {
        body.push(json!({"type": "FactSet", "facts": facts}));
    }
    body.extend(
        message.errors.iter().map(|error| text(&format!("• {}", BYTES.fit(error, VALUE)), &json!({}))),
    );
    let share = LISTS / message.lists.len().max(1);
    body.extend(message.lists.iter().flat_map(|list| section(list, share)));
    body.extend(message.notes.iter().map(|note| text(&BYTES.fit(note, VALUE), &json!({"isSubtle": true}))));
    body
}

/// A block in which no Markdown is read, so that nothing from outside is taken for it.
fn text(text: &str, look: &Value) -> Value {
    let mut run = json!({"type": "TextRun", "text": text});
    for (key, value) in look.as_object().into_iter().flatten() {
        run[key] = value.clone();
    }
    json!({"type": "RichTextBlock", "inlines": [run]})
}

/// Values are read as Markdown.
fn fact(fact: &Fact) -> Value {
    json!({"title": fact.name, "value": TEAMS.fit(&fact.value, VALUE)})
}

fn section(list: &List, room: usize) -> Vec<Value> {
    let mut blocks: Vec<Value> =
        list.title().iter().map(|title| text(title, &json!({"weight": "Bolder"}))).collect();
    let shown = list.fitting(room, |entry| block(entry).to_string().len());
    blocks.extend(list.entries.iter().take(shown).map(block));
    blocks.extend(list.rest(shown).map(|rest| text(&rest, &json!({"isSubtle": true}))));
    blocks
}

fn block(entry: &Entry) -> Value {
    let look = match &entry.url {
        Some(url) => json!({"selectAction": {"type": "Action.OpenUrl", "url": url}}),
        None => json!({}),
    };
    text(&BYTES.fit(&entry.line(), VALUE), &look)
}

/// The colour of the title's background.
const fn style(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Neutral | Tone::Cancelled => "emphasis",
        Tone::Warning => "warning",
        Tone::Bad | Tone::Expired => "attention",
    }
}

#[cfg(test)]
const EXPECTED: Expected = Expected {
    answers: &[
        (200, "", Meaning::Delivered),
        (202, "", Meaning::Delivered),
        (200, "Webhook message delivery failed with error: HTTP error 413", Meaning::Trouble),
        (200, "Webhook message delivery failed with error: HTTP error 429", Meaning::Snooze(None)),
        (400, r#"{"error":{"code":"InvalidRequestContent","message":"no"}}"#, Meaning::Simplify),
        (401, r#"{"error":{"code":"DirectApiAuthorizationRequired"}}"#, Meaning::Gone),
        (404, r#"{"error":{"code":"WorkflowNotFound"}}"#, Meaning::Gone),
        (413, "", Meaning::Simplify),
        (429, "", Meaning::Snooze(None)),
        (502, "", Meaning::Trouble),
    ],
    limits: |payload| {
        let bytes = payload.to_string().len();
        assert!(bytes <= 16 * 1024, "{bytes}");
    },
    escapes_values: false,
    ..Expected::CHANNEL
};
