//! What goes over the API (`docs/contract.md#http-api`): the shapes that server and client share.
//!
//! Batches and events travel as JSON values: their shape is `docs/contract.md#the-batch-shape` and `docs/contract.md#body`.

use crate::domain::status::Status;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What may be said of a batch when it is tracked: one of the `items` of `POST /v1/batches/track`, and the body of
/// `PUT /v1/batches/{id}`, whose path names the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackItem {
    /// The id, or `PROVIDER:ID`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The provider's name; if absent it is found by the rules of `docs/contract.md#ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Webhooks that get its events besides those whose filters match.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub notify: BTreeSet<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_notify: bool,
    /// How long after now it should be over, such as `"6h"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// Ask the provider before registering; the default is `true` for up to 100 at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<bool>,
}

/// The body of `POST /v1/batches/track`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackMany {
    pub items: Vec<TrackItem>,
}

/// One answer of `POST /v1/batches/track`, in the order of the items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackAnswer {
    pub id: String,
    /// The provider that has it; null if it could not be tracked.
    pub provider: Option<String>,
    /// Its status; null if it could not be tracked.
    pub status: Option<Status>,
    /// Whether it was not known before.
    pub new: bool,
    /// Why it could not be tracked.
    pub error: Option<ErrorObject>,
}

/// A list, as OpenAI's API gives lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing<T> {
    /// Always `"list"`.
    pub object: String,
    pub data: Vec<T>,
    /// The first entry's cursor.
    pub first_id: Option<String>,
    /// The last entry's cursor: `after` for the next page.
    pub last_id: Option<String>,
    /// Whether there is a next page.
    pub has_more: bool,
}

impl<T> Listing<T> {
    /// A complete list, each entry known by its `id`.
    pub fn whole(data: Vec<T>, id: impl Fn(&T) -> String) -> Self {
        Self {
            object: "list".to_owned(),
            first_id: data.first().map(&id),
            last_id: data.last().map(&id),
            data,
            has_more: false,
        }
    }
}

/// The body of every answer that is not a success: OpenAI's error object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: ErrorObject,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// For people.
    pub message: String,
    /// OpenAI's family of errors (`invalid_request_error`, …).
    #[serde(rename = "type")]
    pub kind: String,
    /// The parameter at fault.
    #[serde(default)]
    pub param: Option<String>,
    /// For programs: what the exit code follows from.
    #[serde(default)]
    pub code: Option<ErrorCode>,
    /// What to do about it, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// Everything that is wrong with a file of requests, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<InputFault>,
}

/// Something that is wrong with a file of requests, in the form of the errors of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFault {
    /// Always `"invalid_input"`.
    pub code: String,
    /// The first line that has it, from 1; null if it is the file as a whole.
    pub line: Option<u64>,
    /// What is wrong, with all lines that have it.
    pub message: String,
    pub param: Option<String>,
}

/// The errors that a client can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// No such batch, here or at the provider (404; exit 66).
    BatchNotFound,
    /// No such delivery, webhook, or path (404; exit 1).
    NotFound,
    /// No such file, here or at the provider (404; exit 1).
    FileNotFound,
    /// The file is known, and its content is not there (410; exit 1).
    FileMissing,
    /// A batch that was created from the file still runs (409; exit 1).
    FileInUse,
    /// There is no room for the file (507; exit 1).
    StorageFull,
    /// The same `Idempotency-Key` came with something else (409; exit 1).
    IdempotencyKeyReused,
    /// The same creation was asked for before, and it is not known yet what became of it (409; exit 1).
    CreationInProgress,
    /// The batch has ended, and what was asked for needs a live one (409; exit 1).
    AlreadyEnded,
    /// The delivery is being sent at this moment (409; exit 1).
    DeliveryInFlight,
    /// The id means several batches, or could be several providers' (409; exit 2).
    AmbiguousId,
    /// No provider of that name (400; exit 2).
    UnknownProvider,
    /// No webhook of that name (400; exit 2).
    UnknownWebhook,
    /// The request is not what it should be (400; exit 2).
    InvalidRequest,
    /// A file of requests is not what it should be (400; exit 1).
    InvalidInput,
    /// The provider refuses the key (502; exit 77).
    ProviderRefused,
    /// The provider does not answer as it should (502, 504; exit 1).
    ProviderFailed,
    /// The new configuration is refused (422; exit 78).
    ConfigRefused,
    /// The token is missing or wrong (401; exit 77).
    Unauthorized,
    /// TCP without a token is read-only; a foreign `Origin` (403; exit 77).
    Forbidden,
    /// A `Host` that is not this server's (421; exit 1).
    Misdirected,
    /// The log of events ends before the number that was named (409; exit 1).
    BeyondEnd,
    /// Too much of it is asked for at the moment; `Retry-After` says when to ask again (429; exit 1).
    Busy,
    /// As much waits already at the provider as the account may have waiting (429; exit 1).
    QuotaExceeded,
    /// Every request of the batch has succeeded (409; exit 1).
    NothingToResubmit,
    /// The batch was resubmitted before (409; exit 1).
    AlreadyResubmitted,
    /// The batch has not ended (409; exit 1).
    NotEnded,
    /// The batch failed as a whole, so it has no results (409; exit 3).
    BatchFailed,
    /// The batch expired without any results (409; exit 4).
    BatchExpired,
    /// The batch was cancelled without any results (409; exit 5).
    BatchCancelled,
    /// The provider gives fewer results than there should be (502; exit 1).
    ResultsIncomplete,
    /// The provider or the kind cannot do that (501; exit 1).
    NotSupported,
    /// The state cannot be written now (503; exit 73).
    StateUnwritable,
    /// The state is damaged (503; exit 65).
    StateDamaged,
    /// The daemon cannot start or is stopping (503; exit 69).
    Unavailable,
    /// A defect of batchd (500; exit 70).
    Internal,
    /// A code of a later version.
    #[serde(other)]
    Other,
}

/// The body of `POST /v1/discover`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoverRequest {
    /// Only this provider's list.
    pub provider: Option<String>,
    /// Back to batches that were created so long ago, such as `"7d"`, which is the default.
    pub since: Option<String>,
    /// Track what has not ended.
    pub track: bool,
}

/// The answer of `POST /v1/discover`: a list of batches, newest first, and what kept some provider from giving its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoverAnswer {
    /// The batches; `tracked_at` under `batchd` is null if one is not tracked.
    #[serde(flatten)]
    pub batches: Listing<Value>,
    /// How many of them are tracked from now on.
    pub tracked: u64,
    /// The providers whose list could not be had.
    pub errors: Vec<DiscoverError>,
}

/// What went wrong at one provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoverError {
    pub provider: String,
    pub error: ErrorObject,
}

/// Something that was left out of a file's requests in translation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitWarning {
    /// Always `"submission.warning"`.
    pub object: String,
    /// For people.
    pub message: String,
}

impl SubmitWarning {
    pub fn new(message: &str) -> Self {
        Self { object: "submission.warning".to_owned(), message: message.to_owned() }
    }
}

/// A file was judged and may be submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitChecked {
    /// Always `"submission.checked"`.
    pub object: String,
    pub requests: u64,
    /// The endpoint of all of them.
    pub endpoint: String,
    /// The one model of all of them, where there is one.
    pub model: Option<String>,
}

impl SubmitChecked {
    pub fn new(requests: u64, endpoint: &str, model: Option<&str>) -> Self {
        let (object, model) = ("submission.checked".to_owned(), model.map(str::to_owned));
        Self { object, requests, endpoint: endpoint.to_owned(), model }
    }
}

/// How far a submission is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitProgress {
    /// Always `"submission.progress"`.
    pub object: String,
    /// `uploading creating searching`
    pub phase: String,
    /// How many bytes have left.
    pub bytes: Option<u64>,
    pub total: Option<u64>,
}

impl SubmitProgress {
    pub fn new(phase: &str, bytes: Option<u64>, total: Option<u64>) -> Self {
        Self { object: "submission.progress".to_owned(), phase: phase.to_owned(), bytes, total }
    }
}

/// A batch whose creation was not answered: it may exist, and is searched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSubmission {
    pub provider: String,
    pub file_name: String,
    pub requests: u64,
    /// When the provider was asked, RFC 3339.
    pub begun_at: String,
    /// Ids of the batches that it may be, where a person has to say which.
    pub candidates: Vec<String>,
    pub trouble: Option<String>,
}

/// What stands behind a stream of results, for clients that say `TE: trailers`. To others a stream that fails is a
/// connection that breaks.
pub mod trailer {
    /// Why the stream ends early, as the JSON of an [`ErrorObject`](super::ErrorObject).
    pub const ERROR: &str = "batchd-error";
    pub const LINES: &str = "batchd-lines";
    /// How many of them are of requests that did not succeed; absent where that was not counted.
    pub const FAILED: &str = "batchd-failed";
    /// How many of them nobody can read.
    pub const UNREADABLE: &str = "batchd-unreadable";
    /// How many of them do not tell which request they belong to.
    pub const WITHOUT_ID: &str = "batchd-without-id";
    /// How the batch ended.
    pub const OUTCOME: &str = "batchd-outcome";
}

/// The answer of `POST /v1/poll`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollAnswer {
    /// How many batches are due now.
    pub due: u64,
}

/// The body of `POST /v1/deliveries/retry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryDead {
    /// Only what this webhook is owed.
    pub webhook: Option<String>,
}

/// The answer of `POST /v1/deliveries/retry`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryAnswer {
    /// How many deliveries are sent again.
    pub retried: u64,
}

/// A delivery (`docs/contract.md#delivery-objects`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryView {
    /// Its number, as text.
    pub id: String,
    /// Always `"delivery"`.
    pub object: String,
    pub event_id: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// The batch that it is about.
    pub batch_id: Option<String>,
    /// The provider that it is about.
    pub provider: Option<String>,
    pub webhook: String,
    /// `pending inflight delivered dead held`
    pub state: String,
    /// Attempts so far; in `show`, [`AttemptView`]s stand under `log`.
    pub attempts: u32,
    /// When its event was recorded; all times are RFC 3339.
    #[serde(default)]
    pub created_at: Option<String>,
    /// When the last attempt began.
    #[serde(default)]
    pub last_attempt_at: Option<String>,
    /// When it was last accepted.
    #[serde(default)]
    pub delivered_at: Option<String>,
    /// The code of the answer to the last attempt.
    #[serde(default)]
    pub last_status_code: Option<u16>,
    /// When it is tried next.
    pub next_attempt_at: Option<String>,
    /// What went wrong the last time.
    pub last_error: Option<String>,
    /// The attempts one by one, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Vec<AttemptView>>,
}

/// One attempt at a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptView {
    /// From 1.
    pub number: u32,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub finished_at: Option<String>,
    /// `schedule manual startup`
    pub trigger: String,
    /// One word.
    pub outcome: Option<String>,
    pub http_status: Option<u16>,
    pub error: Option<String>,
    pub excerpt: Option<String>,
}

/// A webhook and its health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookReport {
    pub name: String,
    pub kind: String,
    /// Scheme and host of where it points; the rest may be secret.
    pub target: String,
    /// Types of events that it gets.
    pub events: Vec<String>,
    /// Its floor of severity.
    pub severity: String,
    pub signed: bool,
    /// Whether only batches that name it reach it.
    pub on_request: bool,
    /// `ok`, `failing`, `paused`, `disabled`
    pub health: String,
    /// Why it is disabled or paused.
    pub reason: Option<String>,
    /// Failures in a row.
    pub failures: u32,
    /// RFC 3339.
    pub failing_since: Option<String>,
    /// What went wrong the last time; `None` after a success.
    pub last_error: Option<String>,
    /// When that was, RFC 3339.
    pub last_failure_at: Option<String>,
    /// RFC 3339.
    pub paused_until: Option<String>,
    /// RFC 3339.
    pub last_success_at: Option<String>,
    /// How much it is owed, by state.
    pub backlog: BTreeMap<String, u64>,
}

/// The body of `POST /v1/webhooks/{name}/test`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TestRequest {
    /// The type of event whose body is sent; `batch.completed` if absent.
    pub event: Option<String>,
}

/// What a test brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestAnswer {
    /// Whether the receiver accepted it.
    pub delivered: bool,
    /// The id that was sent.
    pub event_id: String,
    pub http_status: Option<u16>,
    pub error: Option<String>,
    pub excerpt: Option<String>,
    pub milliseconds: u64,
}

/// A provider and its health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderReport {
    pub name: String,
    pub kind: String,
    pub base_url: String,
    pub key: bool,
    pub active: u64,
    /// `ok`, `untried`, `refused`, `unreachable`, `held`; `unknown` where the state was read without a daemon
    pub health: String,
    /// What went wrong the last time.
    pub last_error: Option<String>,
    /// RFC 3339.
    pub last_success_at: Option<String>,
    /// Until when it asked not to be polled, RFC 3339.
    pub held_until: Option<String>,
    pub in_flight: u64,
}

/// The body of `POST /v1/providers/check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckRequest {
    /// Only this one.
    pub name: Option<String>,
}

/// What a live call to a provider brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckAnswer {
    pub name: String,
    /// Whether it answered as it should.
    pub ok: bool,
    pub refused: bool,
    pub error: Option<String>,
    pub hint: Option<String>,
    pub milliseconds: u64,
}

/// The daemon's health in one answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    pub version: String,
    /// Null, like the next two, where the state was read without a daemon.
    pub pid: Option<u32>,
    /// RFC 3339.
    pub started_at: Option<String>,
    pub uptime_seconds: Option<u64>,
    /// The configuration file; null if there is none.
    pub config_file: Option<String>,
    pub state_dir: String,
    pub ready: bool,
    /// What keeps it from being healthy, one sentence each.
    pub troubles: Vec<String>,
    pub batches: BTreeMap<String, u64>,
    pub active: u64,
    /// Active batches that are due now.
    pub due: u64,
    /// How late the latest of them is, in seconds.
    pub late_seconds: u64,
    pub events: i64,
    /// When a backup was last read to its end.
    #[serde(default)]
    pub last_backup_at: Option<String>,
    /// Warnings about the configuration.
    pub warnings: Vec<String>,
    /// Why the last reload was refused.
    pub reload_error: Option<String>,
    /// Providers that batches belong to but the configuration has not, with how many.
    pub orphans: BTreeMap<String, u64>,
    /// Deliveries that are owed to webhooks which the configuration no longer has, by the webhook.
    #[serde(default)]
    pub removed_webhooks: BTreeMap<String, u64>,
    /// Batches whose creation was not answered.
    #[serde(default)]
    pub submissions: Vec<OpenSubmission>,
    /// Batches whose results could not be downloaded as they should be, the newest hundred.
    #[serde(default)]
    pub failed_downloads: Vec<String>,
    /// What the batches cost that ended this month.
    #[serde(default)]
    pub cost: Option<CostReport>,
    /// Ended batches that are old and were kept when pruning ran last: the clock is in doubt, or it is too much at once.
    #[serde(default)]
    pub held_from_pruning: u64,
    pub providers: Vec<ProviderReport>,
    pub webhooks: Vec<WebhookReport>,
    /// The last run of each maintenance job.
    pub jobs: Vec<Value>,
    /// The PostgreSQL server that holds the state: `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The daemons that share the state; left out where it is this one's alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberReport>,
    /// Where numbers of events were left out last, as the server may have lost commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_step: Option<LogStepReport>,
}

/// A gap in the numbers of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStepReport {
    /// The highest number that had been seen before it.
    pub behind: i64,
    /// The first number after it.
    pub goes_on: i64,
    /// RFC 3339.
    pub at: String,
}

/// A daemon that shares the state with others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    pub name: String,
    pub version: String,
    /// The machine and the directory that it runs in.
    pub place: String,
    /// RFC 3339, by its own clock: when it began, and when it wrote last.
    pub joined_at: String,
    pub seen_at: String,
    /// By how many milliseconds its clock is ahead of the server's.
    pub clock_offset_ms: i64,
    /// What it does: `account:NAME`, `webhook:NAME`, `keeper`.
    pub scopes: Vec<String>,
    /// How its configuration differs from that of most daemons, a sentence each.
    #[serde(default)]
    pub differs: Vec<String>,
    /// Whether it is the one that answers.
    pub this: bool,
}

/// What the batches cost that ended since a month began, in US dollars.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostReport {
    /// The month, in UTC: `2026-11`.
    pub month: String,
    pub currency: String,
    pub amount: Number,
    pub providers: BTreeMap<String, Number>,
    /// By `KEY=VALUE`; a batch with several labels counts for each.
    pub labels: BTreeMap<String, Number>,
    /// Ended batches without a price for their tokens, by `PROVIDER/MODEL`.
    pub unpriced: BTreeMap<String, u64>,
}

/// The answer of `GET /v1/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigReport {
    /// The configuration file; null if there is none.
    pub file: Option<String>,
    /// What is in force, as TOML, secrets redacted.
    pub toml: String,
    /// What a reload would change.
    pub pending: Vec<String>,
    /// Why a reload would be refused.
    pub error: Option<String>,
}

/// The answer of `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// Always true; a refusal is an error.
    pub reloaded: bool,
    /// What is different now, key by key.
    #[serde(default)]
    pub changes: Vec<String>,
    /// Warnings about the new configuration.
    pub warnings: Vec<String>,
    /// Keys that changed and need a restart.
    pub restart_needed: Vec<String>,
}

impl ProviderReport {
    /// A provider of which only the name is known.
    pub fn unknown(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: String::new(),
            base_url: String::new(),
            key: false,
            active: 0,
            health: "unknown".to_owned(),
            last_error: None,
            last_success_at: None,
            held_until: None,
            in_flight: 0,
        }
    }
}

impl ReloadAnswer {
    /// What has changed, in a line.
    pub fn summary(&self) -> String {
        match self.changes.as_slice() {
            [] => "reloaded: nothing has changed".to_owned(),
            changes => format!("reloaded: {}", changes.join(", ")),
        }
    }
}
