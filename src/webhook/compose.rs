//! Makes the message that tells an event, or several together.

use super::EventBody;
use super::event_reader::EventReader;
use super::message::Message;
use super::{digest, group};
use crate::domain::event::EventType;
use crate::http::failure::Failure;
use jiff::Timestamp;
use serde_json::Value;

impl Message {
    /// Reads an event's frozen body; what is missing or odd in it is left out. With `pages`, the address of the
    /// dashboard, it links to the page there.
    pub fn from_event(body: &str, pages: Option<&str>, now: Timestamp) -> Result<Self, Failure> {
        Ok(Self::of(&parse(body)?, pages, now))
    }

    /// One message for several events, the worst first.
    pub fn from_group(
        events: &[EventBody<'_>],
        pages: Option<&str>,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let events: Vec<Value> = events.iter().map(|event| parse(event.body)).collect::<Result<_, _>>()?;
        Ok(match events.as_slice() {
            [event] => Self::of(event, pages, now),
            events => group::message(events, pages),
        })
    }

    pub(super) fn of(event: &Value, pages: Option<&str>, now: Timestamp) -> Self {
        let event = EventReader::new(event, pages);
        let mut message = match event.kind {
            Some(EventType::Digest) => digest::message(&event, now),
            _ => event.message(now),
        };
        if event.is_test() {
            message.title = format!("TEST: {}", message.title);
            message.line = format!("Test message from batchd. No action needed. {}", message.line);
            message.notes.push("This is a test message; the batch in it does not exist.".to_owned());
        }
        message
    }
}

fn parse(body: &str) -> Result<Value, Failure> {
    serde_json::from_str(body)
        .map_err(|error| Failure::Malformed(format!("the stored event is not JSON: {error}")))
}
