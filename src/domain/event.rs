//! Something worth telling: its type, its lasting id, and the body that every webhook gets.

use super::body;
use super::hazard::Usual;
use super::outcome::{Outcome, Severity};
use super::shape;
use super::status::Status;
use super::tracked::{BatchKey, Tracked, Transition};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Declares the types of events that are not a status of a batch, each with its word on the wire. The enum, the list of
/// all of them and their words come from this one declaration: whatever else a type needs, the compiler asks for.
macro_rules! event_types {
    ($($(#[$doc:meta])+ $name:ident => $word:literal,)+) => {
        /// The type of an event; its words are OpenAI's own where OpenAI has one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum EventType {
            /// A batch reached this status.
            Batch(Status),
            $($(#[$doc])+ $name,)+
        }

        impl EventType {
            /// Every type there is.
            pub const ALL: [Self; Status::ALL.len() + [$($word),+].len()] = [
                Self::Batch(Status::Validating),
                Self::Batch(Status::InProgress),
                Self::Batch(Status::Finalizing),
                Self::Batch(Status::Completed),
                Self::Batch(Status::Failed),
                Self::Batch(Status::Expired),
                Self::Batch(Status::Cancelling),
                Self::Batch(Status::Cancelled),
                $(Self::$name,)+
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
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

event_types! {
    /// A batch makes no progress.
    BatchStalled => "batch.stalled",
    /// A batch is past its deadline, or near the end of its window.
    BatchOverdue => "batch.overdue",
    /// The provider does not know the batch any more.
    BatchLost => "batch.lost",
    /// A batch's results have been downloaded.
    ResultsDownloaded => "batch.results_downloaded",
    /// A batch's results could not be downloaded as they should be.
    ResultsFailed => "batch.results_failed",
    /// A batch's results will soon be deleted by the provider.
    ResultsExpiring => "batch.results_expiring",
    /// The provider refuses the key.
    ProviderUnauthorized => "provider.unauthorized",
    /// The provider has not answered for a while.
    ProviderUnreachable => "provider.unreachable",
    /// The provider answers again.
    ProviderRecovered => "provider.recovered",
    /// A webhook has been failing for a while.
    WebhookFailing => "webhook.failing",
    /// A webhook accepts again.
    WebhookRecovered => "webhook.recovered",
    /// What is old is kept for now: the clock is in doubt, or it is too much at once.
    PruningHeld => "batchd.pruning_held",
    /// Numbers of events were left out: the server that holds the state may have lost commits.
    LogStepped => "batchd.log_stepped",
    /// A delivery to a webhook was given up.
    DeliveryDead => "webhook.delivery_dead",
    /// A summary at a set time.
    Digest => "batchd.digest",
    /// A try-out, asked for by hand.
    Test => "batchd.test",
}

impl EventType {
    /// The four that a webhook gets unless it asks for others.
    pub const ENDS: [Self; 4] = [
        Self::Batch(Status::Completed),
        Self::Batch(Status::Failed),
        Self::Batch(Status::Expired),
        Self::Batch(Status::Cancelled),
    ];

    /// The type that exactly `word` names, if any.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The types that `pattern` means: the one of that name, or with `batch.*` all that begin so; none if there is no such
    /// type.
    pub fn matching(pattern: &str) -> Vec<Self> {
        let beginning = pattern.strip_suffix('*').filter(|beginning| beginning.ends_with('.'));
        let fits = |kind: &Self| match beginning {
            Some(beginning) => kind.as_str().starts_with(beginning),
            None => kind.as_str() == pattern,
        };
        Self::ALL.into_iter().filter(fits).collect()
    }

    /// The findings whose end it is: whoever was told of one is told of its end too.
    pub const fn ends(self) -> &'static [Self] {
        match self {
            Self::Batch(Status::Completed | Status::Failed | Status::Expired | Status::Cancelled) => {
                &[Self::BatchStalled, Self::BatchOverdue, Self::BatchLost]
            }
            Self::ProviderRecovered => &[Self::ProviderUnauthorized, Self::ProviderUnreachable],
            Self::WebhookRecovered => &[Self::WebhookFailing],
            Self::Batch(
                Status::Validating | Status::InProgress | Status::Finalizing | Status::Cancelling,
            )
            | Self::BatchStalled
            | Self::BatchOverdue
            | Self::BatchLost
            | Self::ResultsDownloaded
            | Self::ResultsFailed
            | Self::ResultsExpiring
            | Self::ProviderUnauthorized
            | Self::ProviderUnreachable
            | Self::WebhookFailing
            | Self::PruningHeld
            | Self::LogStepped
            | Self::DeliveryDead
            | Self::Digest
            | Self::Test => &[],
        }
    }

    /// Whether it is a finding that needs a person: what chat webhooks get besides the four ends.
    pub const fn needs_a_person(self) -> bool {
        match self {
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
            | Self::PruningHeld
            | Self::LogStepped
            | Self::DeliveryDead => true,
            Self::Batch(_) | Self::ResultsDownloaded | Self::Digest | Self::Test => false,
        }
    }

    /// Whether it is good news whatever else the event says: it closes an alert, if there is one.
    pub const fn is_good_news(self) -> bool {
        match self {
            Self::ProviderRecovered | Self::WebhookRecovered | Self::ResultsDownloaded => true,
            Self::Batch(_)
            | Self::BatchStalled
            | Self::BatchOverdue
            | Self::BatchLost
            | Self::ResultsFailed
            | Self::ResultsExpiring
            | Self::ProviderUnauthorized
            | Self::ProviderUnreachable
            | Self::WebhookFailing
            | Self::PruningHeld
            | Self::LogStepped
            | Self::DeliveryDead
            | Self::Digest
            | Self::Test => false,
        }
    }

    /// What it is about.
    pub const fn subject(self) -> Subject {
        match self {
            Self::Batch(_) | Self::BatchStalled | Self::BatchOverdue | Self::BatchLost => Subject::Batch,
            Self::ResultsDownloaded | Self::ResultsFailed | Self::ResultsExpiring => Subject::Results,
            Self::ProviderUnauthorized | Self::ProviderUnreachable | Self::ProviderRecovered => {
                Subject::Provider
            }
            Self::WebhookFailing | Self::WebhookRecovered | Self::DeliveryDead => Subject::Webhook,
            Self::PruningHeld | Self::LogStepped | Self::Digest | Self::Test => Subject::Nothing,
        }
    }

    /// How severe a finding of this type is. How severe a status is, the batch's outcome says.
    const fn severity(self) -> Severity {
        match self {
            Self::BatchLost
            | Self::ProviderUnauthorized
            | Self::ProviderUnreachable
            | Self::WebhookFailing
            | Self::LogStepped
            | Self::DeliveryDead => Severity::Error,
            Self::BatchStalled
            | Self::BatchOverdue
            | Self::ResultsFailed
            | Self::ResultsExpiring
            | Self::PruningHeld => Severity::Warning,
            Self::Batch(_)
            | Self::ResultsDownloaded
            | Self::ProviderRecovered
            | Self::WebhookRecovered
            | Self::Digest
            | Self::Test => Severity::Info,
        }
    }
}

/// What a type of event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// How a batch gets on.
    Batch,
    Results,
    Provider,
    Webhook,
    /// Nothing that goes on or ends: such an event is never put into one message with others.
    Nothing,
}

impl std::fmt::Display for EventType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What occurred to a batch: a plain value, of which the event is made once the batch's state is final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occurrence {
    /// Its status changed.
    Status(Transition),
    /// Something was found out about it.
    Finding(Finding),
}

/// See [`Occurrence::Finding`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was found out.
    pub kind: EventType,
    /// When the episode began: a later one is another event.
    pub since: Timestamp,
    /// When batchd saw it.
    pub observed_at: Timestamp,
    /// The reason in words; `None`: the batch's last error, if it has one.
    pub message: Option<String>,
}

impl Occurrence {
    /// A finding about a batch; the episode began at `since`.
    pub const fn finding(kind: EventType, since: Timestamp, now: Timestamp) -> Self {
        Self::Finding(Finding { kind, since, observed_at: now, message: None })
    }

    /// A finding with its reason in words.
    pub const fn finding_because(kind: EventType, since: Timestamp, now: Timestamp, why: String) -> Self {
        Self::Finding(Finding { kind, since, observed_at: now, message: Some(why) })
    }

    pub const fn kind(&self) -> EventType {
        match self {
            Self::Status(transition) => EventType::Batch(transition.to),
            Self::Finding(finding) => finding.kind,
        }
    }

    /// Its event, `tracked` being the batch in the state that is stored with it.
    pub fn draft(&self, tracked: &Tracked) -> Draft {
        let (id, kind, key) = (self.id(&tracked.key), self.kind(), &tracked.key);
        let (severity, observed_at) = match self {
            Self::Status(transition) => {
                (tracked.outcome().map_or(Severity::Info, Outcome::severity), transition.observed_at)
            }
            Self::Finding(finding) => (kind.severity(), finding.observed_at),
        };
        let data = match self {
            Self::Status(Transition { from, occurred_at, .. }) => {
                batch_data(tracked, severity, *from, *occurred_at, observed_at, None)
            }
            Self::Finding(finding) => {
                let message = finding.message.as_deref().or(tracked.last_error.as_deref());
                batch_data(tracked, severity, Some(tracked.batch.status), None, observed_at, message)
            }
        };
        Draft {
            id,
            kind,
            severity,
            provider: Some(key.provider.clone()),
            batch_id: Some(key.id.clone()),
            observed_at,
            data,
        }
    }

    /// Its event where it came of a check of the batch: it says how long batches like it usually take too.
    pub fn draft_of_check(&self, tracked: &Tracked, usual: Option<Usual>) -> Draft {
        let mut draft = self.draft(tracked);
        draft.data["usual_seconds"] = json!(usual.map(|usual| usual.seconds));
        draft.data["usual_of"] = json!(usual.map(|usual| usual.count));
        draft
    }

    /// The id of its event: the same whenever and however often it is seen.
    fn id(&self, key: &BatchKey) -> String {
        let word = self.kind().as_str();
        match self {
            Self::Status(_) => event_id(&[&key.provider, &key.id, word]),
            Self::Finding(finding) => event_id(&[&key.provider, &key.id, word, &finding.since.to_string()]),
        }
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
    /// A finding about a provider; the episode began at `since`.
    pub fn about_provider(
        kind: EventType,
        provider: &str,
        message: &str,
        since: Timestamp,
        now: Timestamp,
    ) -> Self {
        let severity = kind.severity();
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
        let severity = kind.severity();
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

    /// A finding about batchd itself; the episode began at `since`.
    pub fn about_batchd(kind: EventType, message: &str, since: Timestamp, now: Timestamp) -> Self {
        let severity = kind.severity();
        Self {
            id: event_id(&["", "", kind.as_str(), &since.to_string()]),
            kind,
            severity,
            provider: None,
            batch_id: None,
            observed_at: now,
            data: json!({
                "id": null,
                "provider": null,
                "severity": severity,
                "message": message,
                "since": since.to_string(),
                "observed_at": now.to_string(),
            }),
        }
    }

    /// That the numbers of events go on at `goes_on` after `behind`, since `at`.
    pub fn about_log_step(behind: i64, goes_on: i64, at: Timestamp) -> Self {
        let message = format!(
            "the PostgreSQL server is another one, or an older copy, and may have lost commits that had been answered; \
             batchd has left out the numbers of events between {behind} and {goes_on}, finds again what has ended \
             since, and knows nothing of what was registered since: register it again"
        );
        let kind = EventType::LogStepped;
        let mut draft = Self::about_batchd(kind, &message, at, at);
        draft.id = event_id(&["", "", kind.as_str(), &goes_on.to_string(), &at.to_string()]);
        draft.data["behind"] = json!(behind);
        draft.data["goes_on"] = json!(goes_on);
        draft
    }

    /// That deliveries to a webhook were given up; `last`: the last of them and its number of attempts, which no other
    /// finding about it has.
    pub fn about_dead_deliveries(
        webhook: &str,
        last: (&str, u32),
        count: u64,
        message: &str,
        since: Timestamp,
        now: Timestamp,
    ) -> Self {
        let kind = EventType::DeliveryDead;
        let (event, attempts) = last;
        let mut draft = Self::about_webhook(kind, webhook, message, since, now);
        draft.id = event_id(&["", "", kind.as_str(), webhook, event, &attempts.to_string()]);
        draft.data["deliveries"] = json!(count);
        draft.data["event_id"] = json!(event);
        draft
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
        body::bounded(json!({
            "id": self.id,
            "object": "event",
            "type": self.kind.as_str(),
            "sequence": sequence,
            "created_at": self.observed_at.as_second(),
            "timestamp": self.observed_at.to_string(),
            "data": self.data,
        }))
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
        "batch": shape::batch_in_event(tracked),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tracked::{Eta, Origin};

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    #[test]
    fn an_event_shows_the_state_that_is_stored_with_it_and_no_plan() {
        let key = BatchKey { provider: "openai".to_owned(), id: "batch_1".to_owned() };
        let mut tracked = Tracked::new(key, "openai", "/v1/responses", Origin::Hand, NOW);
        let found = Occurrence::finding(EventType::BatchStalled, NOW, NOW);
        let id = found.draft(&tracked).id;
        tracked.name = Some("given meanwhile".to_owned());
        tracked.stalled_since = Some(NOW);
        tracked.eta = Some(Eta { at: NOW, earliest: NOW, latest: NOW });
        let Draft { id: same, data, .. } = found.draft_of_check(&tracked, None);
        assert_eq!(same, id);
        assert_eq!((&data["name"], &data["usual_seconds"]), (&json!("given meanwhile"), &Value::Null));
        let added = &data["batch"]["batchd"];
        assert_eq!(added["stalled"], true);
        assert_eq!(added["eta"], NOW.to_string());
        assert_eq!(added["next_poll_at"], Value::Null);
        assert_eq!(shape::batch(&tracked)["batchd"]["next_poll_at"], NOW.to_string());
    }

    #[test]
    fn every_word_round_trips() {
        for kind in EventType::ALL {
            assert_eq!(EventType::from_word(kind.as_str()), Some(kind));
        }
        assert_eq!(EventType::from_word("batch.Completed"), None);
    }
}
