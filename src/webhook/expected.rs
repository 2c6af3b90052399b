//! What the suite that every kind passes has to know of a kind. The kind says it in its own file.

use super::DeliveryOutcome;
use super::text::utf16;
use serde_json::Value;

/// What is expected of one kind.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Expected {
    /// Answers of the service, by status and body, and what they mean (`docs/delivery.md#answers`).
    pub answers: &'static [(u16, &'static str, Meaning)],
    /// Panics if a payload breaks one of the service's limits (`docs/delivery.md#webhook-kinds`), counted as the
    /// service counts; characters as UTF-16 units, which are never fewer.
    pub limits: fn(&Value),
    /// What may not stand in a text of a payload, as it would mention somebody or be taken for markup.
    pub forbidden: fn(payload: &Value, text: &str) -> &'static [&'static str],
    /// Whether it sends the event's own bytes, which are neither escaped nor cut.
    pub relays: bool,
    /// Whether it tells several events in one message.
    pub groups: bool,
    /// Whether a message has an id of its own, so that a group of one is not the same message as the event.
    pub names_messages: bool,
    /// Whether values in a template are escaped for the service's markup.
    pub escapes_values: bool,
}

impl Expected {
    /// A channel with markup of its own that people read.
    pub const CHANNEL: Self = Self {
        answers: &[],
        limits: |_| panic!("nobody says what the limits are"),
        forbidden: |_, _| &[],
        relays: false,
        groups: true,
        names_messages: false,
        escapes_values: true,
    };
}

/// What an answer means: [`DeliveryOutcome`] without its texts; a wait in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Delivered,
    Snooze(Option<u64>),
    Trouble,
    Refused,
    Simplify,
    Dead,
    Gone,
}

impl Meaning {
    pub fn of(outcome: &DeliveryOutcome) -> Self {
        match outcome {
            DeliveryOutcome::Delivered => Self::Delivered,
            DeliveryOutcome::Snooze(wait) => {
                Self::Snooze(wait.map(|wait| u64::try_from(wait.as_millis()).unwrap()))
            }
            DeliveryOutcome::Trouble(_) => Self::Trouble,
            DeliveryOutcome::Refused(_) => Self::Refused,
            DeliveryOutcome::Simplify(_) => Self::Simplify,
            DeliveryOutcome::Dead(_) => Self::Dead,
            DeliveryOutcome::Gone(_) => Self::Gone,
        }
    }
}

/// The length of the text at `pointer`, in UTF-16 units; 0 if there is none.
pub fn length(value: &Value, pointer: &str) -> usize {
    value.pointer(pointer).and_then(Value::as_str).map_or(0, utf16)
}

/// The list at `pointer`; empty if there is none.
pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
