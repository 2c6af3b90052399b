//! Telegram: a bot's message in Telegram's HTML (`docs/webhooks/telegram.md`).

use super::chat::CHAT;
use super::escape::{PLAIN, TELEGRAM};
#[cfg(test)]
use super::expected::{Expected, Meaning, length};
use super::message::Message;
use super::post::Post;
use super::text::utf16;
use super::{BadTarget, DeliveryOutcome, EventBody, Kind, Target, Webhook, answered};
use crate::config::WebhookFacts;
use crate::http::address::BadAddress;
use crate::http::call::{Answer, Call};
use crate::http::failure::{Failure, status_line};
use http::StatusCode;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

/// `kind = "telegram"`
pub static KIND: Kind = Kind {
    facts: WebhookFacts {
        name: "telegram",
        hosts: &["api.telegram.org"],
        url: Some("https://api.telegram.org"),
        needs: &["chat", "token"],
        ..CHAT
    },
    build: |target| Ok(Box::new(Telegram::new(target)?)),
    #[cfg(test)]
    expected: &EXPECTED,
};

#[derive(Debug)]
struct Telegram {
    post: Post,
    chat: SecretString,
}

impl Telegram {
    fn new(target: &Target) -> Result<Self, BadTarget> {
        let token = target.needed("token")?.expose_secret();
        if !token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":_-".contains(&byte)) {
            return Err(BadTarget::Unsendable("token"));
        }
        let mut url: url::Url =
            target.url.expose_secret().trim().parse().map_err(|_| BadAddress::Unreadable)?;
        let path = format!("{}/bot{token}/sendMessage", url.path().trim_end_matches('/'));
        url.set_path(&path);
        let post = Post::to(&SecretString::from(url.as_str()), target, TELEGRAM)?;
        Ok(Self { post, chat: target.needed("chat")?.clone() })
    }

    fn call(&self, message: &Message, plain: bool) -> Result<Call, Failure> {
        let chat = self.chat.expose_secret().trim();
        // A number, or the `@name` of a channel.
        let chat = chat.parse::<i64>().map_or_else(|_| Value::from(chat), Value::from);
        let mut payload = json!({"chat_id": chat, "link_preview_options": {"is_disabled": true}});
        match message.text.as_ref().filter(|text| utf16(text) <= TEXT) {
            Some(text) => {
                payload["parse_mode"] = "HTML".into();
                payload["text"] = text.as_str().into();
            }
            None if plain => {
                payload["text"] =
                    PLAIN.join(message.lines().iter().map(|line| unmentioned(line)), TEXT).into();
            }
            None => {
                payload["parse_mode"] = "HTML".into();
                payload["text"] = text(message).into();
            }
        }
        self.post.json(&payload)
    }
}

impl Webhook for Telegram {
    fn render(&self, event: &EventBody<'_>, plain: bool, now: Timestamp) -> Result<Call, Failure> {
        self.call(&self.post.message(event, plain, now)?, plain)
    }

    fn groups(&self) -> bool {
        true
    }

    fn render_group(&self, events: &[EventBody<'_>], plain: bool, now: Timestamp) -> Result<Call, Failure> {
        self.call(&self.post.group(events, plain, now)?, plain)
    }

    fn outcome(&self, answer: &Answer) -> DeliveryOutcome {
        let body = answered::json(answer);
        if answer.status == StatusCode::OK {
            return match body["ok"] {
                Value::Bool(true) => DeliveryOutcome::Delivered,
                _ if answer.cut => answered::whole(answer),
                _ => DeliveryOutcome::Trouble(format!(
                    "{}: the answer is not Telegram's; is `url` right?",
                    status_line(answer.status)
                )),
            };
        }
        let words = body["description"].as_str().unwrap_or_default().to_ascii_lowercase();
        let said = format!("{}{}", status_line(answer.status), answered::words(&body["description"]));
        let parameters = &body["parameters"];
        match answer.status.as_u16() {
            429 => DeliveryOutcome::Snooze(
                answered::seconds(&parameters["retry_after"]).or_else(|| answered::retry_after_of(answer)),
            ),
            401 | 404 => DeliveryOutcome::Gone(format!("{said}; the bot's token is not valid: see `token`")),
            403 => DeliveryOutcome::Gone(format!(
                "{said}; let the bot into the chat again, or configure another `chat`"
            )),
            400 => match parameters["migrate_to_chat_id"].as_i64() {
                Some(moved) => DeliveryOutcome::Gone(format!(
                    "{said}; the group is now another chat: set chat = \"{moved}\""
                )),
                None if words.contains("chat not found") => {
                    DeliveryOutcome::Gone(format!("{said}; see `chat`, and write to the bot once"))
                }
                None if words.contains("parse entities") || words.contains("too long") => {
                    DeliveryOutcome::Simplify(said)
                }
                None => DeliveryOutcome::Dead(said),
            },
            _ => DeliveryOutcome::of_status(answer),
        }
    }

    fn concurrency(&self) -> usize {
        1
    }
}

/// Of a message; entities and tags are counted as they are written, so it is never too long once they are read.
const TEXT: usize = 4096;

fn text(message: &Message) -> String {
    let mut lines = vec![format!("{} <b>{}</b>", message.tone.icon(), TELEGRAM.all(&message.title))];
    lines.extend(message.lead().map(|line| TELEGRAM.all(line)));
    lines.extend(message.facts.iter().map(|fact| {
        let value = TELEGRAM.all(&fact.value);
        match fact.name {
            "Model" | "Batch" => format!("{}: <code>{value}</code>", fact.name),
            _ => format!("{}: {value}", fact.name),
        }
    }));
    lines.extend(message.errors.iter().map(|error| format!("• {}", TELEGRAM.all(error))));
    let share = (TEXT - 1500) / message.lists.len().max(1);
    for list in &message.lists {
        lines.extend(list.title().map(|title| format!("<b>{title}</b>")));
        lines.extend(list.lines(share, utf16, |entry| {
            let text = TELEGRAM.all(&entry.text);
            match &entry.url {
                Some(url) => format!("{} <a href=\"{}\">{text}</a>", entry.tone.icon(), attribute(url)),
                None => format!("{} {text}", entry.tone.icon()),
            }
        }));
    }
    lines.extend(message.notes.iter().map(|note| TELEGRAM.all(note)));
    lines.extend(
        message
            .link
            .as_ref()
            .map(|link| format!("<a href=\"{}\">{}</a>", attribute(&link.url), TELEGRAM.all(&link.text))),
    );
    TELEGRAM.join(lines, TEXT)
}

/// A URL between quotes.
fn attribute(url: &str) -> String {
    super::escape::SLACK.all(url).replace('"', "&quot;")
}

/// Without a parse mode there are no entities, but mentions there are.
fn unmentioned(line: &str) -> String {
    line.replace('@', "@\u{200b}")
}

#[cfg(test)]
const EXPECTED: Expected = Expected {
    answers: &[
        (200, r#"{"ok":true,"result":{"message_id":1}}"#, Meaning::Delivered),
        (200, r#"{"ok":false}"#, Meaning::Trouble),
        (
            400,
            r#"{"ok":false,"error_code":400,"description":"Bad Request: can't parse entities: unclosed tag"}"#,
            Meaning::Simplify,
        ),
        (400, r#"{"ok":false,"error_code":400,"description":"Bad Request: chat not found"}"#, Meaning::Gone),
        (
            400,
            r#"{"ok":false,"description":"Bad Request: group chat was upgraded","parameters":{"migrate_to_chat_id":-1009}}"#,
            Meaning::Gone,
        ),
        (400, r#"{"ok":false,"description":"Bad Request: something else"}"#, Meaning::Dead),
        (401, r#"{"ok":false,"error_code":401,"description":"Unauthorized"}"#, Meaning::Gone),
        (403, r#"{"ok":false,"description":"Forbidden: bot was kicked from the group chat"}"#, Meaning::Gone),
        (404, r#"{"ok":false,"description":"Not Found"}"#, Meaning::Gone),
        (
            429,
            r#"{"ok":false,"description":"Too Many Requests","parameters":{"retry_after":7}}"#,
            Meaning::Snooze(Some(7000)),
        ),
        (502, "", Meaning::Trouble),
    ],
    limits: |payload| {
        assert!((1..=4096).contains(&length(payload, "/text")));
    },
    forbidden: |payload, text| match text.contains('`') || text.contains("<code>") {
        // Without a mode nothing is read as HTML.
        _ if payload["parse_mode"].is_null() => &["@everyone", "@here"],
        false => &["@everyone", "@here", "<users"],
        true => &[],
    },
    ..Expected::CHANNEL
};
