//! Floor 2: the formats of the places that events are told to, sans-IO, one file per kind.
//!
//! A new kind is one file here, one line in [`KINDS`] and one block in `config.example.toml`.

pub mod generic;
pub mod message;
pub mod signature;
pub mod slack;

use crate::config::WebhookFacts;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use jiff::Timestamp;
use secrecy::SecretString;
use std::time::Duration;

/// One kind of destination: forms the request, judges the answer.
pub trait Webhook: Send + Sync + std::fmt::Debug {
    /// The request that tells `event`, for an attempt made at `now`.
    ///
    /// `plain`: the receiver refused the full form before; send the plainest text that tells it.
    fn render(&self, event: &EventBody<'_>, plain: bool, now: Timestamp) -> Result<Call, Failure>;

    /// What the answer means.
    fn judge(&self, answer: &Answer) -> Judgement;

    /// How many requests may be under way to one destination of this kind.
    fn concurrency(&self) -> usize;
}

/// A recorded event: its id and its frozen body.
#[derive(Clone, Copy, Debug)]
pub struct EventBody<'a> {
    /// `evt_…`
    pub id: &'a str,
    /// The generic body, byte for byte.
    pub body: &'a str,
}

/// What a receiver's answer means (`delivery.md` §3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It was accepted.
    Delivered,
    /// Not now: again after the wait (the receiver's wish) without using up an attempt.
    Snooze(Option<Duration>),
    /// The receiver or the way to it is in trouble: again.
    Trouble(String),
    /// The receiver refuses, which a repaired deploy may cure: again, fewer times.
    Refused(String),
    /// The receiver does not take this form: once more as plain text.
    Simplify(String),
    /// This message can never succeed; the destination is sound.
    Dead(String),
    /// The destination is gone: switch it off and keep what it is owed.
    Gone(String),
}

/// A kind of destination, as the registry knows it.
#[derive(Debug)]
pub struct Kind {
    /// What the configuration needs to know.
    pub facts: WebhookFacts,
    /// Makes the adapter.
    pub build: fn(&Target) -> Box<dyn Webhook>,
}

/// What an adapter is made from: the destination with its secrets resolved.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where to.
    pub url: SecretString,
    /// The signing secrets, newest first; none: unsigned.
    pub secrets: Vec<SecretString>,
    /// For the whole exchange.
    pub timeout: Duration,
}

/// Every kind of destination.
pub const KINDS: &[&Kind] = &[];

/// The kind called `name`.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.facts.name == name)
}
