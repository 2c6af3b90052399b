//! A record of the log as one line: text, text with journald's priorities, or JSON.

use crate::clock::Clock;
use crate::domain::printable::{clean, clean_json, is_unprintable};
use serde_json::{Map, Value};
use std::fmt::Write as _;
use tracing::Level;
use tracing::field::{Field, Visit};

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four independent properties of a line")]
pub(super) struct Shape {
    pub(super) json: bool,
    /// journald's `<N>` first; it has the time itself.
    pub(super) priorities: bool,
    pub(super) colour: bool,
    pub(super) targets: bool,
}

/// One record with the fields of the spans around it.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) at: String,
    pub(super) level: Level,
    pub(super) target: &'a str,
    pub(super) fields: Fields,
}

/// Fields in the order in which they were given; the message apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    pub(super) message: String,
    pub(super) pairs: Vec<(String, Value)>,
}

impl Shape {
    /// The record that says how many were dropped.
    pub(super) fn notice(self, count: u64, clock: &Clock) -> String {
        let message = "log records were dropped because stderr was not read".to_owned();
        let fields = Fields { message, pairs: vec![("dropped".to_owned(), count.into())] };
        self.render(&Line { at: stamp(clock), level: Level::WARN, target: module_path!(), fields })
    }

    pub(super) fn render(self, line: &Line<'_>) -> String {
        let mut text = String::new();
        if self.priorities {
            let _ = write!(text, "<{}>", priority(line.level));
        }
        if self.json {
            Self::render_json(line, &mut text);
        } else {
            self.render_text(line, &mut text);
        }
        text.push('\n');
        text
    }

    fn render_json(line: &Line<'_>, text: &mut String) {
        let mut object = Map::new();
        object.insert("timestamp".to_owned(), line.at.as_str().into());
        object.insert("level".to_owned(), line.level.as_str().to_ascii_lowercase().into());
        object.insert("target".to_owned(), line.target.into());
        object.insert("message".to_owned(), line.fields.message.as_str().into());
        for (name, value) in &line.fields.pairs {
            // A field never hides what every record has.
            let mut name = name.clone();
            while object.contains_key(&name) {
                name.push('_');
            }
            object.insert(name, value.clone());
        }
        text.push_str(&clean_json(&Value::Object(object).to_string()));
    }

    fn render_text(self, line: &Line<'_>, text: &mut String) {
        let paint = |code: &str, part: &str| {
            if self.colour { format!("\x1b[{code}m{part}\x1b[0m") } else { part.to_owned() }
        };
        if !self.priorities {
            let level = paint(colour_of(line.level), &format!("{:>5}", line.level.as_str()));
            let _ = write!(text, "{} {level} ", paint("2", &line.at));
        }
        if self.targets {
            let _ = write!(text, "{} ", paint("2", &format!("{}:", line.target)));
        }
        text.push_str(&clean(&line.fields.message));
        for (name, value) in &line.fields.pairs {
            let value = match value {
                Value::String(word) if is_plain(word) => word.clone(),
                Value::String(words) => quoted(words),
                other => clean(&other.to_string()).into_owned(),
            };
            let _ = write!(text, " {}{value}", paint("2", &format!("{}=", clean(name))));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let causes = std::iter::successors(Some(value), |error| error.source());
        self.add(field, causes.map(ToString::to_string).collect::<Vec<_>>().join(": ").into());
    }
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.message = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        } else if let Some((_, old)) = self.pairs.iter_mut().find(|(name, _)| name == field.name()) {
            *old = value;
        } else {
            self.pairs.push((field.name().to_owned(), value));
        }
    }
}

pub(super) fn stamp(clock: &Clock) -> String {
    format!("{:.3}", clock.now())
}

fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

fn colour_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "1;31",
        Level::WARN => "33",
        Level::INFO => "32",
        Level::DEBUG => "34",
        Level::TRACE => "35",
    }
}

fn is_plain(word: &str) -> bool {
    !word.is_empty()
        && !word.chars().any(|letter| {
            letter.is_whitespace() || is_unprintable(letter) || matches!(letter, '"' | '=' | '\\')
        })
}

fn quoted(words: &str) -> String {
    let escaped = words.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", clean(&escaped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(outside: &str) -> Line<'static> {
        let fields = Fields {
            message: format!("batch {outside} has ended"),
            pairs: vec![
                ("batch".to_owned(), outside.into()),
                ("error".to_owned(), format!("a {outside}").into()),
            ],
        };
        Line { at: "2026-11-22T10:00:00.000Z".to_owned(), level: Level::INFO, target: "batchd", fields }
    }

    #[test]
    fn text_from_outside_is_shown_not_obeyed() {
        let hostile = "\u{9b}2J\u{7f}\u{200b}\u{202e}\u{2028}\u{e0041}\x1b]0;x\x07\r\n<3>forged";
        let text = Shape { priorities: true, ..Shape::default() }.render(&line(hostile));
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.contains(
                r"batch \u{9b}2J\u{7f}\u{200b}\u{202e}\u{2028}\u{e0041}\u{1b}]0;x\u{7}\r\n<3>forged"
            ),
            "{text}"
        );
        let json = Shape { json: true, ..Shape::default() }.render(&line(hostile));
        assert!(
            json.contains(r"\u009b2J\u007f\u200b\u202e\u2028\udb40\udc41\u001b]0;x\u0007\r\n<3>forged"),
            "{json}"
        );
    }

    proptest! {
        #[test]
        fn a_record_is_one_line_of_printable_text_whatever_is_in_it(outside: String, priorities: bool, targets: bool) {
            for json in [false, true] {
                let text = Shape { json, priorities: priorities && !json, targets, colour: false }.render(&line(&outside));
                let text = text.strip_suffix('\n').unwrap();
                prop_assert!(!text.chars().any(is_unprintable), "{:?}", text);
                if json {
                    let read: Value = serde_json::from_str(text).unwrap();
                    prop_assert_eq!(read["batch"].as_str(), Some(outside.as_str()));
                }
            }
        }
    }
}
