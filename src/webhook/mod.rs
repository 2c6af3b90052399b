//! Floor 2: the formats of the places that events are told to, sans-IO, one file per kind.
//!
//! A new kind is one file here, one line in `registry.rs` and one block in `config.example.toml`.

pub mod discord;
pub mod generic;
pub mod google_chat;
pub mod mattermost;
pub mod message;
pub mod ntfy;
pub mod pagerduty;
pub mod registry;
pub mod signature;
pub mod slack;
pub mod teams;
pub mod telegram;
pub mod template;
pub mod text;

mod answered;
mod chat;
mod compose;
mod digest;
mod escape;
mod event_reader;
#[cfg(test)]
mod expected;
mod group;
mod post;
#[cfg(test)]
mod samples;
mod specimen;

use crate::config::WebhookFacts;
use crate::http::address::BadAddress;
use crate::http::call::{Answer, Call};
use crate::http::failure::{Failure, retry_after, status_line};
use http::StatusCode;
use jiff::Timestamp;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use signature::BadSecret;
use std::collections::BTreeMap;
use std::time::Duration;

/// One kind of destination: forms the request, judges the answer.
pub trait Webhook: Send + Sync + std::fmt::Debug {
    /// The request that tells `event`, for an attempt made at `now`.
    ///
    /// `plain`: the receiver refused the full form before; send the plainest text that tells it.
    fn render(&self, event: &EventBody<'_>, plain: bool, now: Timestamp) -> Result<Call, Failure>;

    /// Whether what follows an event within seconds may be told in one message with [`Self::render_group`], so that
    /// fifty endings are not fifty messages. A kind that programs read never groups.
    fn groups(&self) -> bool {
        false
    }

    /// The one request that tells all of `events`, in the order of the log, for an attempt made at `now`; as
    /// [`Self::render`] otherwise.
    ///
    /// The same events in the same order are the same message. Only kinds that [group](Self::groups) can do it.
    fn render_group(&self, events: &[EventBody<'_>], plain: bool, now: Timestamp) -> Result<Call, Failure> {
        match events {
            [event] => self.render(event, plain, now),
            _ => Err(Failure::BadRequest("this kind of webhook tells one event at a time".to_owned())),
        }
    }

    /// Whether events about the same batch, or the same provider, must come in their order: one that ends what another
    /// began is lost if it comes first (`docs/webhooks/pagerduty.md`).
    fn keeps_order(&self) -> bool {
        false
    }

    /// What the answer means.
    fn outcome(&self, answer: &Answer) -> DeliveryOutcome;

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

/// What a receiver's answer means (`docs/delivery.md#answers`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// It was accepted.
    Delivered,
    /// Not now: again after the wait (the receiver's `retry_after`) without using up an attempt.
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

impl DeliveryOutcome {
    /// What a status line means where the kind has no rule of its own (`docs/contract.md#deliveries`).
    ///
    /// 2xx is trouble here: a kind that takes it for success says so itself.
    pub fn of_status(answer: &Answer) -> Self {
        let status = answer.status;
        let retry_after = retry_after(&answer.headers);
        match status.as_u16() {
            429 => Self::Snooze(retry_after),
            503 if retry_after.is_some() => Self::Snooze(retry_after),
            410 => Self::Gone("410 Gone: the receiver wants no more".to_owned()),
            300..=399 => Self::Refused(redirect(answer)),
            400..=499 => Self::Refused(status_line(status)),
            _ => Self::Trouble(status_line(status)),
        }
    }
}

/// What a redirect is told as: the target's host and no more of it, since its path may be a secret.
fn redirect(answer: &Answer) -> String {
    let status = status_line(answer.status);
    if answer.status == StatusCode::NOT_MODIFIED {
        return status;
    }
    let host = answer.header("location").and_then(|location| {
        let location: http::Uri = location.parse().ok()?;
        location.authority().map(|authority| authority.host().to_owned())
    });
    match host {
        Some(host) => {
            format!("{status}: it redirects to {host}, and redirects are not followed; configure the new URL")
        }
        None => format!("{status}: it redirects, and redirects are not followed; configure the new URL"),
    }
}

/// A kind of destination, as the registry knows it.
#[derive(Debug)]
pub struct Kind {
    /// What the configuration needs to know.
    pub facts: WebhookFacts,
    /// Makes the adapter, or says what is wrong with the target.
    pub build: fn(&Target) -> Result<Box<dyn Webhook>, BadTarget>,
    /// What the tests of all kinds expect of it.
    #[cfg(test)]
    pub expected: &'static expected::Expected,
}

/// What an adapter is made from: the destination with its secrets resolved.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub url: SecretString,
    /// The signing secrets, newest first; none: unsigned.
    pub secrets: Vec<SecretString>,
    /// The kind's further keys (`routing_key`, `topic`, `token`, `chat`).
    pub options: BTreeMap<&'static str, SecretString>,
    /// The address of the dashboard, which messages link to; `None`: they link to the provider's console.
    pub pages: Option<String>,
    /// What replaces the text that the kind has of its own.
    pub template: Option<String>,
    /// For the whole exchange.
    pub timeout: Duration,
}

impl Target {
    /// One at `url` with nothing else to it and 15 s of time.
    pub fn new(name: &str, url: &str) -> Self {
        Self {
            name: name.to_owned(),
            url: SecretString::from(url),
            secrets: Vec::new(),
            options: BTreeMap::new(),
            pages: None,
            template: None,
            timeout: Duration::from_secs(15),
        }
    }

    /// A further key that the kind cannot do without.
    fn needed(&self, key: &'static str) -> Result<&SecretString, BadTarget> {
        self.options.get(key).ok_or(BadTarget::Missing(key))
    }
}

/// Why a target cannot be used. The texts hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    #[error("there is no webhook kind `{0}`")]
    Kind(String),
    #[error(transparent)]
    Address(#[from] BadAddress),
    #[error(transparent)]
    Secret(#[from] BadSecret),
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A further key cannot be sent.
    #[error("`{0}` holds a character that cannot be sent")]
    Unsendable(&'static str),
    /// The template cannot be used.
    #[error("`template` is broken: {0}")]
    Template(String),
}

/// What a message about several events is called where a receiver tells messages apart: the same for the same events.
fn group_id(events: &[EventBody<'_>]) -> String {
    let mut hash = Sha256::new();
    for event in events {
        hash.update(event.id.as_bytes());
        hash.update(b"\n");
    }
    let mut id = data_encoding::BASE32_NOPAD.encode(&hash.finalize()).to_ascii_lowercase();
    id.truncate(26);
    format!("grp_{id}")
}

#[cfg(test)]
mod tests;
