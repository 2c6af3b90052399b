//! A template of the user's in place of a built-in text: judged before it is used, bounded while it runs.

use super::escape::{self, Escape};
use super::message::Message;
use super::specimen;
use super::text::clean;
use crate::config::problem::{nearest, quote};
use minijinja::value::{Serde, Value as Worth};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value, json};

/// A template that is ready to be used.
pub struct Template {
    webhook: String,
    environment: Environment<'static>,
    /// Whether what it makes must be JSON.
    json: bool,
}

/// Says what is wrong with the template of a kind that people read, if anything: it is tried on an event of each type.
pub fn judge(text: &str) -> Result<(), String> {
    Template::new("", text, escape::PLAIN)?.try_out()
}

/// The same for the generic kind, whose body it makes.
pub fn judge_body(text: &str) -> Result<(), String> {
    Template::body("", text)?.try_out()
}

impl Template {
    /// Takes a template whose values are escaped as the service wants it; what the template itself says is not.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as a fragment with the line.
    pub fn new(webhook: &str, text: &str, escape: Escape) -> Result<Self, String> {
        if text.len() > LONGEST_TEMPLATE {
            return Err(format!("it is longer than {} KiB", LONGEST_TEMPLATE / 1024));
        }
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_recursion_limit(DEEPEST);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| AutoEscape::Custom("service".into()));
        environment.set_formatter(move |out, state, value| {
            // What is not known is left out, whether it is missing or null.
            if value.is_undefined() || value.is_none() {
                return Ok(());
            }
            let text = value.to_string();
            let raw = value.is_safe() || matches!(state.auto_escape(), AutoEscape::None);
            let written = if raw { out.write_str(&text) } else { out.write_str(&escape.all(&text)) };
            written.map_err(Error::from)
        });
        environment.add_template_owned(NAME, text.to_owned()).map_err(|error| told(&error))?;
        let template = Self { webhook: webhook.to_owned(), environment, json: false };
        template.check_names()?;
        Ok(template)
    }

    /// Takes a template that makes a whole body: JSON if it begins like it, and then texts are escaped for it.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn body(webhook: &str, text: &str) -> Result<Self, String> {
        let begins = |mark: &str| text.trim_start().starts_with(mark);
        let json = (begins("{") || begins("[")) && !["{{", "{%", "{#"].into_iter().any(begins);
        let escape = if json { escape::JSON } else { escape::BYTES };
        Ok(Self { json, ..Self::new(webhook, text, escape)? })
    }

    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// What it makes of an event. `None`, with a line in the log: it fails, or says nothing.
    pub fn render(&self, body: &str, message: &Message) -> Option<String> {
        let event = serde_json::from_str(body).unwrap_or_default();
        match self.try_render(&event, message) {
            Ok(text) if text.trim().is_empty() => None,
            Ok(text) => Some(text),
            Err(reason) => {
                tracing::warn!(
                    webhook = %self.webhook,
                    "the template of webhook {} fails and the built-in text is sent: {reason}",
                    self.webhook
                );
                None
            }
        }
    }

    fn try_render(&self, event: &Value, message: &Message) -> Result<String, String> {
        let template = self.environment.get_template(NAME).map_err(|error| told(&error))?;
        let text =
            template.render(Worth::from(Serde(context(event, message)))).map_err(|error| told(&error))?;
        if text.len() > LONGEST_TEXT {
            return Err(format!("it makes more than {} KiB", LONGEST_TEXT / 1024));
        }
        if self.json && serde_json::from_str::<serde::de::IgnoredAny>(&text).is_err() {
            return Err("it begins like JSON, and what it makes is none".to_owned());
        }
        Ok(text)
    }

    /// Tries it on an event of each type.
    fn try_out(&self) -> Result<(), String> {
        for event in specimen::events() {
            let message = Message::of(&event, None, specimen::NOW);
            self.try_render(&event, &message).map_err(|reason| {
                format!("{reason} (for an event `{}`)", event["type"].as_str().unwrap_or_default())
            })?;
        }
        Ok(())
    }

    /// Whether every name that it begins with is one there is.
    fn check_names(&self) -> Result<(), String> {
        let template = self.environment.get_template(NAME).map_err(|error| told(&error))?;
        let mut unknown: Vec<String> = template
            .undeclared_variables(false)
            .into_iter()
            .filter(|name| !NAMES.contains(&name.as_str()))
            .filter(|name| !self.environment.globals().any(|(known, _)| known == name))
            .collect();
        unknown.sort();
        let Some(name) = unknown.first() else { return Ok(()) };
        let near = nearest(name, NAMES).map_or_else(
            || format!("there is {}", NAMES.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        Err(format!("it names {}, which there is not; {near}", quote(name)))
    }
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template").field("json", &self.json).finish_non_exhaustive()
    }
}

/// What a template may speak of. The event as it is stored, its parts by shorter names, and the built-in message.
fn context(event: &Value, message: &Message) -> Value {
    let event = cleaned(event);
    let data = &event["data"];
    let batch = &data["batch"];
    let id = if data["id"].is_null() { &batch["id"] } else { &data["id"] };
    let facts: Map<String, Value> = message
        .facts
        .iter()
        .map(|fact| (fact.name.to_lowercase().replace(' ', "_"), fact.value.clone().into()))
        .collect();
    let lists: Vec<Value> = message
        .lists
        .iter()
        .map(|list| {
            let entries: Vec<Value> = list
                .entries
                .iter()
                .map(|entry| json!({"icon": entry.tone.icon(), "text": entry.text, "url": entry.url}))
                .collect();
            json!({"heading": list.heading, "entries": entries, "more": list.more})
        })
        .collect();
    json!({
        "event": event,
        "type": event["type"],
        "sequence": event["sequence"],
        "timestamp": event["timestamp"],
        "data": data,
        "batch": batch,
        "counts": batch["request_counts"],
        "id": id,
        "name": data["name"],
        "provider": data["provider"],
        "webhook": data["webhook"],
        "status": data["status"],
        "previous_status": data["previous_status"],
        "outcome": data["outcome"],
        "severity": data["severity"],
        "labels": data["labels"],
        "message": data["message"],
        "duration_seconds": data["duration_seconds"],
        "duration": facts.get("duration"),
        "icon": message.tone.icon(),
        "title": message.title,
        "line": message.line,
        "text": message.lines().join("\n"),
        "facts": facts,
        "errors": message.errors,
        "lists": lists,
        "notes": message.notes,
        "url": message.link.as_ref().map(|link| &link.url),
    })
}

/// Every text in it on one line, without what hides or turns a text around.
fn cleaned(value: &Value) -> Value {
    match value {
        Value::String(text) => clean(text).into(),
        Value::Array(values) => values.iter().map(cleaned).collect(),
        Value::Object(members) => members.iter().map(|(key, value)| (clean(key), cleaned(value))).collect(),
        other => other.clone(),
    }
}

/// What went wrong, with the line and without the template's text.
fn told(error: &Error) -> String {
    let line = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
    let what = match error.kind() {
        ErrorKind::OutOfFuel => "it takes too long or makes too much".to_owned(),
        kind => match error.detail() {
            Some(detail) => format!("{kind}: {detail}"),
            None => kind.to_string(),
        },
    };
    format!("{line}{what}")
}

/// The names of [`context`].
const NAMES: [&str; 28] = [
    "batch",
    "counts",
    "data",
    "duration",
    "duration_seconds",
    "errors",
    "event",
    "facts",
    "icon",
    "id",
    "labels",
    "line",
    "lists",
    "message",
    "name",
    "notes",
    "outcome",
    "previous_status",
    "provider",
    "sequence",
    "severity",
    "status",
    "text",
    "timestamp",
    "title",
    "type",
    "url",
    "webhook",
];

/// What the engine calls the one template there is.
const NAME: &str = "template";

/// Of a template, in bytes.
const LONGEST_TEMPLATE: usize = 64 * 1024;

/// Of what it makes, in bytes; each kind cuts it to its own limit.
const LONGEST_TEXT: usize = 64 * 1024;

/// How much work it may be: about as many instructions, or 64 bytes of text for each.
const FUEL: u64 = 50_000;

/// How deep it may call itself.
const DEEPEST: usize = 50;
