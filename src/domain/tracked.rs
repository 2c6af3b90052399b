//! A batch that batchd watches: the batch itself and what batchd knows besides.

use super::batch::Batch;
use super::cost::Cost;
use super::outcome::Outcome;
use super::progress::Trail;
use super::status::Status;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a `completed` without its files is shown as `finalizing`.
pub const HOLD: Duration = Duration::from_mins(1);
/// How long files that a `completed` batch does not name are waited for.
pub const LATE_FILES: Duration = Duration::from_hours(24);

/// Which batch: ids are unique at one provider only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BatchKey {
    /// The provider's name in the configuration.
    pub provider: String,
    /// The provider's id for the batch, verbatim.
    pub id: String,
}

impl std::fmt::Display for BatchKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.provider, self.id)
    }
}

/// How a batch came to be watched; it decides whether an end that is already past is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Somebody tracked or submitted it: its end is told even if it is past.
    Hand,
    /// It stood in a provider's list at the first round of discovery: an end that is past is old news.
    Baseline,
    /// It appeared in a provider's list since the round before, or a provider's own webhook named it.
    Found,
}

/// Whom a batch's events are told to, beyond what the webhooks' filters say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// Webhooks that this batch names: they get its events even if they are `on_request`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub also: BTreeSet<String>,
    /// Events are recorded, nobody is told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nobody: bool,
}

/// A watched batch with everything that is stored of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    pub key: BatchKey,
    /// The provider's kind when it was last configured.
    pub kind: String,
    /// The batch as last seen.
    pub batch: Batch,
    /// The provider's own status word.
    pub provider_status: Option<String>,
    /// What the user (or the provider's display name) calls it.
    pub name: Option<String>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// The user who tracked it, where the socket told.
    pub owner: Option<String>,
    /// The file that a client had uploaded here before it was created from that.
    pub uploaded_file: Option<String>,
    /// How it came from a submission.
    pub lineage: Lineage,
    /// The batches that repeat requests of this one, the oldest first.
    pub resubmitted_by: Vec<String>,
    /// What it waits for, while it is a submission and no batch yet.
    pub waiting_for: Option<WaitingFor>,
    /// Whom to tell.
    pub notify: Notify,
    /// How it came to be watched.
    pub origin: Origin,
    /// The provider's page about it, for people.
    pub console_url: Option<String>,
    /// When it was registered.
    pub tracked_at: Timestamp,
    /// Since when nobody polls it any more because a user said so (`untrack`).
    pub untracked_at: Option<Timestamp>,
    /// The first answer of the provider that showed it.
    pub first_seen_at: Option<Timestamp>,
    /// When its present status was first observed.
    pub status_since: Timestamp,
    /// When its counts last moved.
    pub progress_at: Option<Timestamp>,
    /// How they moved.
    pub trail: Trail,
    /// The last time the provider was asked.
    pub last_polled_at: Option<Timestamp>,
    /// When it will be asked next; `None`: never by itself.
    pub next_poll_at: Option<Timestamp>,
    /// What went wrong the last time, if it did.
    pub last_error: Option<String>,
    /// Failed checks in a row.
    pub failures: u32,
    /// Since when, and how often in a row, the provider has not known the id.
    pub missing: Option<Missing>,
    /// Since when it counts as lost.
    pub lost_since: Option<Timestamp>,
    /// Since when it counts as stalled.
    pub stalled_since: Option<Timestamp>,
    /// When its user wants it to be over.
    pub deadline: Option<Timestamp>,
    /// When it is expected to end.
    pub eta: Option<Eta>,
    /// When the provider deletes its results.
    pub results_expire_at: Option<Timestamp>,
    /// Since when a `completed` without files is shown as `finalizing`.
    pub held_since: Option<Timestamp>,
    /// A second check after the end has been had, or is not needed.
    pub settled: bool,
    /// What has been warned of already, so that each is said once.
    pub warned: BTreeSet<String>,
    /// What it cost, once it has ended and tokens and price are known.
    pub cost: Option<Cost>,
    /// The copy of its results that batchd keeps.
    pub results: Option<SavedResults>,
    /// Why there is no copy, or one that is not as it should be, once fetching it has failed.
    pub results_error: Option<String>,
}

/// What the ids of submissions begin with that wait for their provider's quota.
pub const SUBMISSION_PREFIX: &str = "sub_";

/// Whether `id` is that of a submission.
pub fn is_submission(id: &str) -> bool {
    id.starts_with(SUBMISSION_PREFIX)
}

/// How a batch came from a submission.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lineage {
    /// The id by which it was known while it waited for quota (`sub_…`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submission: Option<String>,
    /// The batch at the same provider whose requests it repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resubmits: Option<String>,
    /// The endpoint that was given in place of what the lines name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The model that was given in place of what the lines name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What was taken off the beginning of the models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_prefix: Option<String>,
    /// That it waits for quota, also if its provider takes it and fails it for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_wait: Option<Box<QuotaWait>>,
}

/// For how long a submission has waited for quota, and what it is created with that nothing else keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaWait {
    /// When it was submitted.
    pub since: Timestamp,
    /// How often it was created and failed.
    pub tries: u32,
    /// Before that it is created again only if another batch of its provider has ended.
    pub not_before: Option<Timestamp>,
    pub endpoint: String,
    pub model: Option<String>,
    /// Seconds after its creation at which the provider is to delete the output.
    pub output_expires_after: Option<u64>,
    /// What is added to the request that creates the batch.
    pub params: Map<String, Value>,
}

impl QuotaWait {
    /// Of a submission that was not created yet.
    pub fn new(
        params: &Map<String, Value>,
        output_expires_after: Option<u64>,
        endpoint: &str,
        model: Option<&str>,
        since: Timestamp,
    ) -> Self {
        Self {
            since,
            tries: 0,
            not_before: None,
            endpoint: endpoint.to_owned(),
            model: model.map(str::to_owned),
            output_expires_after,
            params: params.clone(),
        }
    }
}

/// What a submission waits for that its provider has refused for now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingFor {
    /// The provider's words, or that others wait before it.
    pub reason: String,
    /// How much the provider allows, where it says.
    pub limit: Option<u64>,
    /// How much of that is taken, where it says.
    pub usage: Option<u64>,
    /// Since when it waits.
    pub since: Timestamp,
    /// When the provider was last asked to create it.
    pub tried_at: Option<Timestamp>,
}

/// Results that have been downloaded, in OpenAI's form, output and errors in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedResults {
    pub path: String,
    /// Its digest, in hexadecimal digits.
    pub sha256: String,
    /// How long it is.
    pub bytes: u64,
    /// How many lines it has.
    pub lines: u64,
}

/// A run of "no such batch" answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The first of them.
    pub since: Timestamp,
    /// How many in a row.
    pub count: u32,
}

/// A status transition that was observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// The status before; `None` when the batch is seen for the first time.
    pub from: Option<Status>,
    /// The status now.
    pub to: Status,
    /// The provider's own word.
    pub provider_status: Option<String>,
    /// The provider's time of it, where it tells one.
    pub occurred_at: Option<Timestamp>,
    /// When batchd saw it.
    pub observed_at: Timestamp,
}

/// When a live batch is likely to end: with a chance of one half by `at`, with four in five between the other two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eta {
    /// As likely before as after.
    pub at: Timestamp,
    /// One of ten such batches ends before.
    pub earliest: Timestamp,
    /// One of ten ends after.
    pub latest: Timestamp,
}

impl Tracked {
    /// A batch at the moment of its registration: nobody has checked it, and it is due at once.
    pub fn new(
        key: BatchKey,
        kind: impl Into<String>,
        endpoint: impl Into<String>,
        origin: Origin,
        now: Timestamp,
    ) -> Self {
        let batch = Batch::unseen(key.id.clone(), endpoint, now.as_second());
        Self {
            key,
            kind: kind.into(),
            batch,
            provider_status: None,
            name: None,
            labels: BTreeMap::new(),
            owner: None,
            uploaded_file: None,
            lineage: Lineage::default(),
            resubmitted_by: Vec::new(),
            waiting_for: None,
            notify: Notify::default(),
            origin,
            console_url: None,
            tracked_at: now,
            untracked_at: None,
            first_seen_at: None,
            status_since: now,
            progress_at: None,
            trail: Trail::default(),
            last_polled_at: None,
            next_poll_at: Some(now),
            last_error: None,
            failures: 0,
            missing: None,
            lost_since: None,
            stalled_since: None,
            deadline: None,
            eta: None,
            results_expire_at: None,
            held_since: None,
            settled: false,
            warned: BTreeSet::new(),
            cost: None,
            results: None,
            results_error: None,
        }
    }

    /// How the batch really ended; `None` while it lives.
    pub fn outcome(&self) -> Option<Outcome> {
        Outcome::of(&self.batch, &self.kind)
    }

    /// Whether batchd still watches it.
    pub fn is_active(&self) -> bool {
        self.untracked_at.is_none() && !self.batch.status.is_terminal()
    }

    /// Whether it has to be retrieved even if a page of the list shows it: it has ended and its record may get richer,
    /// its files are waited for, or the provider has said that it does not know it.
    pub fn is_close(&self) -> bool {
        self.batch.status.is_terminal() || self.held_since.is_some() || self.missing.is_some()
    }

    /// Seconds from creation to end, if both are known.
    pub fn duration_seconds(&self) -> Option<i64> {
        self.batch.ended_at().map(|end| (end - self.batch.created_at).max(0))
    }
}
