//! Something worth telling: its type, its lasting id, and the body that every webhook gets.

use super::hazard::Usual;
use super::outcome::{Outcome, Severity};
use super::shape;
use super::status::Status;
use super::tracked::Tracked;
use super::transition::Transition;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The type of an event; its words are OpenAI's own where OpenAI has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    /// A batch reached this status.
    Batch(Status),
    /// A batch makes no progress.
    BatchStalled,
    /// A batch is past its deadline, or near the end of its window.
    BatchOverdue,
    /// The provider does not know the batch any more.
    BatchLost,
    /// A batch's results have been downloaded.
    ResultsDownloaded,
    /// A batch's results could not be downloaded as they should be.
    ResultsFailed,
    /// A batch's results will soon be deleted by the provider.
    ResultsExpiring,
    /// The provider refuses the key.
    ProviderUnauthorized,
    /// The provider has not answered for a while.
    ProviderUnreachable,
    /// The provider answers again.
    ProviderRecovered,
    /// A webhook has been failing for a while.
    WebhookFailing,
    /// A webhook accepts again.
    WebhookRecovered,
    /// A summary at a set time.
    Digest,
    /// A try-out, asked for by hand.
    Test,
}

impl EventType {
    /// Every type there is.
    pub const ALL: [Self; 21] = [
        Self::Batch(Status::Validating),
        Self::Batch(Status::InProgress),
        Self::Batch(Status::Finalizing),
        Self::Batch(Status::Completed),
        Self::Batch(Status::Failed),
        Self::Batch(Status::Expired),
        Self::Batch(Status::Cancelling),
        Self::Batch(Status::Cancelled),
        Self::BatchStalled,
        Self::BatchOverdue,
        Self::BatchLost,
        Self::ResultsDownloaded,
        Self::ResultsFailed,
        Self::ResultsExpiring,
        Self::ProviderUnauthorized,
        Self::ProviderUnreachable,
        Self::ProviderRecovered,
        Self::WebhookFailing,
        Self::WebhookRecovered,
        Self::Digest,
        Self::Test,
    ];

    /// The four that a webhook gets unless it asks for others.
    pub const ENDS: [Self; 4] = [
        Self::Batch(Status::Completed),
        Self::Batch(Status::Failed),
        Self::Batch(Status::Expired),
        Self::Batch(Status::Cancelled),
    ];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Batch(Status::Validating) => "batch.validating",
            Self::Batch(Status::InProgress) => "batch.in_progress",
            Self::Batch(Status::Finalizing) => "batch.finalizing",
            Self::Batch(Status::Completed) => "batch.completed",
            Self::Batch(Status::Failed) => "batch.failed",
            Self::Batch(Status::Expired) => "batch.expired",
            Self::Batch(Status::Cancelling) => "batch.cancelling",
            Self::Batch(Status::Cancelled) => "batch.cancelled",
            Self::BatchStalled => "batch.stalled",
            Self::BatchOverdue => "batch.overdue",
            Self::BatchLost => "batch.lost",
            Self::ResultsDownloaded => "batch.results_downloaded",
            Self::ResultsFailed => "batch.results_failed",
            Self::ResultsExpiring => "batch.results_expiring",
            Self::ProviderUnauthorized => "provider.unauthorized",
            Self::ProviderUnreachable => "provider.unreachable",
            Self::ProviderRecovered => "provider.recovered",
            Self::WebhookFailing => "webhook.failing",
            Self::WebhookRecovered => "webhook.recovered",
            Self::Digest => "batchd.digest",
            Self::Test => "batchd.test",
        }
    }

    /// The type that exactly `word` names, if any.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The findings whose end it is: whoever was told of one is told of its end too.
    pub const fn ends(self) -> &'static [Self] {
        match self {
            Self::Batch(Status::Completed | Status::Failed | Status::Expired | Status::Cancelled) => {
                &[Self::BatchStalled, Self::BatchOverdue, Self::BatchLost]
            }
            Self::ProviderRecovered => &[Self::ProviderUnauthorized, Self::ProviderUnreachable],
            Self::WebhookRecovered => &[Self::WebhookFailing],
            _ => &[],
        }
    }

    /// Whether it is a finding that needs a person: what chat webhooks get besides the four ends.
    pub const fn needs_a_person(self) -> bool {
        matches!(
            self,
            Self::BatchStalled
                | Self::BatchOverdue
                | Self::BatchLost
                | Self::ResultsFailed
                | Self::ResultsExpiring
                | Self::ProviderUnauthorized
                | Self::ProviderUnreachable
                | Self::ProviderRecovered
                | Self::WebhookFailing
                | Self::WebhookRecovered
        )
    }
}

impl std::fmt::Display for EventType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// An event before the log has given it its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// `evt_…`, the same wherever and however often the same thing is seen.
    pub id: String,
    /// What happened.
    pub kind: EventType,
    /// How much it wants a person.
    pub severity: Severity,
    /// The provider it is about, if any.
    pub provider: Option<String>,
    /// The batch it is about, if any.
    pub batch_id: Option<String>,
    /// When batchd saw it.
    pub observed_at: Timestamp,
    /// The `data` member of the body.
    pub data: Value,
}

impl Draft {
    /// The event of a change of status.
    pub fn status(tracked: &Tracked, transition: &Transition) -> Self {
        let kind = EventType::Batch(transition.to);
        let severity = tracked.outcome().map_or(Severity::Info, Outcome::severity);
        let key = &tracked.key;
        Self {
            id: event_id(&[&key.provider, &key.id, kind.as_str()]),
            kind,
            severity,
            provider: Some(key.provider.clone()),
            batch_id: Some(key.id.clone()),
            observed_at: transition.observed_at,
            data: batch_data(
                tracked,
                severity,
                transition.from,
                transition.occurred_at,
                transition.observed_at,
                None,
            ),
        }
    }

    /// A finding about a batch; the episode began at `since`.
    pub fn finding(kind: EventType, tracked: &Tracked, since: Timestamp, now: Timestamp) -> Self {
        let severity = match kind {
            EventType::BatchLost => Severity::Error,
            EventType::ResultsDownloaded => Severity::Info,
            _ => Severity::Warning,
        };
        let key = &tracked.key;
        Self {
            id: event_id(&[&key.provider, &key.id, kind.as_str(), &since.to_string()]),
            kind,
            severity,
            provider: Some(key.provider.clone()),
            batch_id: Some(key.id.clone()),
            observed_at: now,
            data: batch_data(
                tracked,
                severity,
                Some(tracked.batch.status),
                None,
                now,
                tracked.last_error.as_deref(),
            ),
        }
    }

    /// With the reason in words.
    #[must_use]
    pub fn because(mut self, why: &str) -> Self {
        self.data["message"] = Value::String(why.to_owned());
        self
    }

    /// With when the batch should end, and how long its like usually take: known only once the step is complete.
    pub fn foretell(&mut self, tracked: &Tracked, usual: Option<Usual>) {
        shape::foretell(&mut self.data["batch"]["batchd"], tracked);
        self.data["usual_seconds"] = usual.map_or(Value::Null, |usual| json!(usual.seconds));
        self.data["usual_of"] = usual.map_or(Value::Null, |usual| json!(usual.count));
    }

    /// A finding about a provider; the episode began at `since`.
    pub fn about_provider(
        kind: EventType,
        provider: &str,
        message: &str,
        since: Timestamp,
        now: Timestamp,
    ) -> Self {
        let severity = match kind {
            EventType::ProviderRecovered => Severity::Info,
            _ => Severity::Error,
        };
        Self {
            id: event_id(&[provider, "", kind.as_str(), &since.to_string()]),
            kind,
            severity,
            provider: Some(provider.to_owned()),
            batch_id: None,
            observed_at: now,
            data: json!({
                "id": null,
                "provider": provider,
                "severity": severity,
                "message": message,
                "since": since.to_string(),
                "observed_at": now.to_string(),
            }),
        }
    }

    /// A finding about a webhook; the episode began at `since`.
    pub fn about_webhook(
        kind: EventType,
        webhook: &str,
        message: &str,
        since: Timestamp,
        now: Timestamp,
    ) -> Self {
        let severity = if kind == EventType::WebhookRecovered { Severity::Info } else { Severity::Error };
        Self {
            id: event_id(&["", "", kind.as_str(), webhook, &since.to_string()]),
            kind,
            severity,
            provider: None,
            batch_id: None,
            observed_at: now,
            data: json!({
                "id": null,
                "provider": null,
                "webhook": webhook,
                "severity": severity,
                "message": message,
                "since": since.to_string(),
                "observed_at": now.to_string(),
            }),
        }
    }

    /// A digest called `name`, whose turn came `at`.
    pub fn digest(name: &str, at: Timestamp, now: Timestamp, data: Value) -> Self {
        Self {
            id: event_id(&["", name, EventType::Digest.as_str(), &at.to_string()]),
            kind: EventType::Digest,
            severity: Severity::Info,
            provider: None,
            batch_id: None,
            observed_at: now,
            data,
        }
    }

    /// A try-out for one webhook: the body of a real event of `sample`'s type, marked as a test.
    ///
    /// `nonce` tells one try-out from the next.
    pub fn test(sample: &Tracked, kind: EventType, nonce: &str, now: Timestamp) -> Self {
        let severity = sample.outcome().map_or(Severity::Info, Outcome::severity);
        let mut data = batch_data(sample, severity, Some(Status::InProgress), Some(now), now, None);
        data["test"] = Value::Bool(true);
        Self {
            id: event_id(&["", "", EventType::Test.as_str(), nonce]),
            kind,
            severity,
            provider: Some(sample.key.provider.clone()),
            batch_id: Some(sample.key.id.clone()),
            observed_at: now,
            data,
        }
    }

    /// The body that every generic webhook gets, byte for byte, once the log has given `sequence`.
    pub fn body(&self, sequence: i64) -> String {
        json!({
            "id": self.id,
            "object": "event",
            "type": self.kind.as_str(),
            "sequence": sequence,
            "created_at": self.observed_at.as_second(),
            "timestamp": self.observed_at.to_string(),
            "data": self.data,
        })
        .to_string()
    }
}

fn batch_data(
    tracked: &Tracked,
    severity: Severity,
    previous: Option<Status>,
    occurred_at: Option<Timestamp>,
    observed_at: Timestamp,
    message: Option<&str>,
) -> Value {
    let mut data = json!({
        "id": tracked.key.id,
        "provider": tracked.key.provider,
        "status": tracked.batch.status,
        "outcome": tracked.outcome(),
        "severity": severity,
        "previous_status": previous,
        "observed_at": observed_at.to_string(),
        "occurred_at": occurred_at.map(|at| at.to_string()),
        "duration_seconds": tracked.duration_seconds(),
        "name": tracked.name,
        "labels": tracked.labels,
        "batch": shape::batch(tracked),
    });
    if let Some(message) = message {
        data["message"] = Value::String(message.to_owned());
    }
    data
}

/// `evt_` and 26 characters of a hash over the fields, each with its length so that no two lists collide.
///
/// The same fields give the same id on every host and after every restore.
fn event_id(fields: &[&str]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"batchd/1");
    for field in fields {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field.as_bytes());
    }
    let mut id = data_encoding::BASE32_NOPAD.encode(&hash.finalize()).to_ascii_lowercase();
    id.truncate(26);
    format!("evt_{id}")
}
