//! A batch in the shape that every surface shows: OpenAI's `Batch`, every field present.

use super::status::Status;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A batch as OpenAI's SDK models it (`openai.types.Batch`); all times are Unix seconds.
///
/// The seven fields that the SDK requires are never null; the others serialise as `null` where unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The provider's id, verbatim.
    pub id: String,
    /// Always `"batch"`.
    pub object: BatchObject,
    /// The API path that every request of the batch goes to.
    pub endpoint: String,
    /// The model, where the provider tells it.
    pub model: Option<String>,
    /// The input file; `""` at a provider without input files.
    pub input_file_id: String,
    /// How long the provider allows itself, such as `"24h"`.
    pub completion_window: String,
    /// Where the batch stands.
    pub status: Status,
    /// The results, once there are any.
    pub output_file_id: Option<String>,
    /// What failed, once anything has and the provider keeps it apart.
    pub error_file_id: Option<String>,
    /// Why the batch itself failed.
    pub errors: Option<BatchErrors>,
    /// When the batch was created; until the provider has been asked, when it was tracked.
    pub created_at: i64,
    /// When work began.
    pub in_progress_at: Option<i64>,
    /// When the completion window ends.
    pub expires_at: Option<i64>,
    /// When the results began to be written.
    pub finalizing_at: Option<i64>,
    pub completed_at: Option<i64>,
    pub failed_at: Option<i64>,
    pub expired_at: Option<i64>,
    /// When the cancellation was asked for.
    pub cancelling_at: Option<i64>,
    /// When the cancellation was complete.
    pub cancelled_at: Option<i64>,
    /// How many requests there are and how they fared.
    pub request_counts: Option<RequestCounts>,
    /// What the submitter attached.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Tokens used, where the provider tells.
    pub usage: Option<Usage>,
}

/// The constant `"batch"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BatchObject {
    /// The only value there is.
    #[default]
    #[serde(rename = "batch")]
    Batch,
}

/// Requests of a batch by fate; `completed` are those that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCounts {
    /// All requests of the batch.
    pub total: u64,
    /// Those that succeeded.
    pub completed: u64,
    /// Those that failed, expired or were cancelled.
    pub failed: u64,
}

impl RequestCounts {
    /// How many requests are over, one way or the other.
    pub const fn done(self) -> u64 {
        self.completed.saturating_add(self.failed)
    }
}

/// The errors of the batch itself, not of its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchErrors {
    /// Always `"list"`.
    pub object: ListObject,
    /// One entry an error.
    pub data: Vec<BatchError>,
    /// How many more there were than are kept; left out if these are all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<u64>,
}

/// The constant `"list"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListObject {
    /// The only value there is.
    #[default]
    #[serde(rename = "list")]
    List,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchError {
    /// A machine's word for it.
    pub code: Option<String>,
    /// The line of the input file, from 1.
    pub line: Option<u64>,
    /// A person's words for it.
    pub message: Option<String>,
    /// The parameter at fault.
    pub param: Option<String>,
}

/// Tokens used by a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    pub input_tokens: u64,
    /// Of those, tokens served from a cache.
    pub input_tokens_details: InputTokensDetails,
    /// Tokens written.
    pub output_tokens: u64,
    /// Of those, tokens of reasoning.
    pub output_tokens_details: OutputTokensDetails,
    /// Both together.
    pub total_tokens: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        let add = |total: &mut u64, more: u64| *total = total.saturating_add(more);
        let (input, more_input) = (&mut self.input_tokens_details, more.input_tokens_details);
        add(&mut self.input_tokens, more.input_tokens);
        add(&mut input.cached_tokens, more_input.cached_tokens);
        add(&mut input.cache_write_tokens, more_input.cache_write_tokens);
        add(&mut input.cache_write_1h_tokens, more_input.cache_write_1h_tokens);
        add(&mut self.output_tokens, more.output_tokens);
        add(&mut self.output_tokens_details.reasoning_tokens, more.output_tokens_details.reasoning_tokens);
        add(&mut self.total_tokens, more.total_tokens);
    }
}

/// Part of [`Usage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputTokensDetails {
    /// Tokens served from a cache.
    pub cached_tokens: u64,
    /// Tokens written to a cache, where the provider bills that apart; left out if there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write_tokens: u64,
    /// Those that are kept there for an hour, which are not among the ones before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write_1h_tokens: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Part of [`Usage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputTokensDetails {
    pub reasoning_tokens: u64,
}

impl std::fmt::Display for BatchError {
    /// `code: message (line 3)`, as much as is known.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.code, &self.message) {
            (Some(code), Some(message)) => write!(f, "{code}: {message}")?,
            (Some(word), None) | (None, Some(word)) => f.write_str(word)?,
            (None, None) => f.write_str("no reason is told")?,
        }
        match (self.line, &self.param) {
            (Some(line), _) => write!(f, " (line {line})"),
            (None, Some(param)) => write!(f, " ({param})"),
            (None, None) => Ok(()),
        }
    }
}

impl Batch {
    /// A batch that nobody has checked yet: `validating`, created when it was tracked.
    pub fn unseen(id: impl Into<String>, endpoint: impl Into<String>, tracked_at: i64) -> Self {
        Self {
            id: id.into(),
            object: BatchObject::Batch,
            endpoint: endpoint.into(),
            model: None,
            input_file_id: String::new(),
            completion_window: "24h".to_owned(),
            status: Status::Validating,
            output_file_id: None,
            error_file_id: None,
            errors: None,
            created_at: tracked_at,
            in_progress_at: None,
            expires_at: None,
            finalizing_at: None,
            completed_at: None,
            failed_at: None,
            expired_at: None,
            cancelling_at: None,
            cancelled_at: None,
            request_counts: None,
            metadata: None,
            usage: None,
        }
    }

    /// The time that belongs to `status`, in Unix seconds.
    pub const fn stamp(&self, status: Status) -> Option<i64> {
        match status {
            Status::Validating => Some(self.created_at),
            Status::InProgress => self.in_progress_at,
            Status::Finalizing => self.finalizing_at,
            Status::Completed => self.completed_at,
            Status::Failed => self.failed_at,
            Status::Expired => self.expired_at,
            Status::Cancelling => self.cancelling_at,
            Status::Cancelled => self.cancelled_at,
        }
    }

    /// Where [`Batch::stamp`] of `status` is kept; `None` for `validating`, whose time is `created_at`.
    pub(super) const fn stamp_mut(&mut self, status: Status) -> Option<&mut Option<i64>> {
        Some(match status {
            Status::Validating => return None,
            Status::InProgress => &mut self.in_progress_at,
            Status::Finalizing => &mut self.finalizing_at,
            Status::Completed => &mut self.completed_at,
            Status::Failed => &mut self.failed_at,
            Status::Expired => &mut self.expired_at,
            Status::Cancelling => &mut self.cancelling_at,
            Status::Cancelled => &mut self.cancelled_at,
        })
    }

    /// When the batch ended, in Unix seconds, if it has and that is known.
    pub const fn ended_at(&self) -> Option<i64> {
        if self.status.is_terminal() { self.stamp(self.status) } else { None }
    }

    /// Whether it completed with successes and names no file of results: those of some services come late
    /// (`docs/contract.md#incomplete-answers`).
    pub fn lacks_files(&self) -> bool {
        self.status == Status::Completed
            && self.output_file_id.is_none()
            && self.error_file_id.is_none()
            && self.request_counts.is_some_and(|counts| counts.completed > 0)
    }

    /// Whether there is anything to fetch: a file, or requests that succeeded.
    pub fn has_output(&self) -> bool {
        self.output_file_id.is_some() || self.request_counts.is_some_and(|counts| counts.completed > 0)
    }
}
