//! What a webhook is sent, and how: the values that only `[webhooks.NAME]` has.

use super::form::{Bounds, Form, list, plain, quoted};
use super::problem::{quote, suggestion};
use super::value::{self, Cell};
use crate::domain::duration::compact;
use crate::domain::event::EventType;
use crate::domain::outcome::Severity;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// `template`: a text, which was found sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The file that holds it; `None`: it stands in the configuration itself.
    pub file: Option<PathBuf>,
    pub text: String,
}

pub const EVENTS: Form<BTreeSet<EventType>> = plain("list of event types", events, |events| {
    Some(list(events.iter().map(|event| quoted(event.as_str()))))
});

pub const SEVERITY: Form<Severity> = plain(
    "`\"info\"`, `\"warning\"` or `\"error\"`",
    |cell| {
        let word = cell.as_text("text")?;
        let severity = word.parse().ok();
        if severity.is_none() {
            let message = format!("`{}` must be info, warning or error, not {}", cell.path, quote(&word));
            cell.wrong(message, suggestion(&word, ["info", "warning", "error"]));
        }
        severity
    },
    |severity| Some(quoted(severity.as_str())),
);

/// The delays between the attempts of a delivery.
pub const RETRY: Form<Vec<Duration>> =
    plain("list of durations", retry, |delays| Some(delays_as_toml(delays)));

/// A template that stands in the file itself, or the path of a file with one: no path has braces in it.
pub const TEMPLATE: Form<Template> = plain("text or path", template, |template| {
    Some(match &template.file {
        Some(file) => quoted(&file.to_string_lossy()),
        None => quoted(&template.text),
    })
});

pub fn delays_as_toml(delays: &[Duration]) -> String {
    list(delays.iter().map(|delay| quoted(&compact(*delay))))
}

fn events(cell: &mut Cell<'_, '_>) -> Option<BTreeSet<EventType>> {
    let events = cell.elements("a list of texts", event)?;
    not_empty(&events, cell, "leave the key out for the usual ones")?;
    Some(events.into_iter().map(Spanned::into_inner).collect())
}

fn event(cell: &mut Cell<'_, '_>) -> Option<EventType> {
    let word = cell.as_text("a list of texts")?;
    let event = EventType::from_word(&word);
    if event.is_none() {
        let message = format!("`{}` names no event: {}", cell.path, quote(&word));
        cell.wrong(message, suggestion(&word, EventType::ALL.map(EventType::as_str)));
    }
    event
}

fn retry(cell: &mut Cell<'_, '_>) -> Option<Vec<Duration>> {
    let delays = cell.elements("a list of durations", delay)?;
    not_empty(&delays, cell, "leave the key out for the usual delays")?;
    if delays.len() > MAX_RETRIES {
        let message = format!("`{}` has {} delays; there may be {MAX_RETRIES}", cell.path, delays.len());
        cell.wrong(message, None);
        return None;
    }
    Some(delays.into_iter().map(Spanned::into_inner).collect())
}

fn delay(cell: &mut Cell<'_, '_>) -> Option<Duration> {
    RETRY_DELAY.hold(value::duration(cell)?, cell)
}

fn template(cell: &mut Cell<'_, '_>) -> Option<Template> {
    let text = cell.as_text("text")?;
    if TEMPLATE_MARKS.iter().any(|mark| text.contains(mark)) {
        return Some(Template { file: None, text });
    }
    Some(Template { file: Some(cell.base.resolve(Path::new(&text))), text: String::new() })
}

fn not_empty<T>(list: &[T], cell: &mut Cell<'_, '_>, help: &str) -> Option<()> {
    if list.is_empty() {
        cell.wrong(format!("`{}` is an empty list", cell.path), help.to_owned());
        return None;
    }
    Some(())
}

/// Of the delays between attempts.
const MAX_RETRIES: usize = 100;

const RETRY_DELAY: Bounds<Duration> =
    Bounds::durations(Duration::from_millis(1), Duration::from_hours(30 * 24));

/// What makes a text a template, besides a line break.
const TEMPLATE_MARKS: [&str; 4] = ["{{", "{%", "{#", "\n"];
