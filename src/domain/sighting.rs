//! What one check of a batch brought, already in batchd's words.

use super::batch::{BatchErrors, RequestCounts, Usage};
use super::status::Status;
use std::collections::BTreeMap;
use std::time::Duration;

/// One check of a batch: every field is what the provider said, `None` where it said nothing usable.
///
/// Times are Unix seconds. Adapters fill it; [`observe`](super::transition::observe) decides what it means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// The provider's id for the batch.
    pub id: String,
    /// The status, if the provider's word is known.
    pub status: Option<Status>,
    /// Whether the provider may take an end back, so that it counts only when it is seen twice in a row.
    pub revocable: bool,
    /// The provider's own word (or, where it has none, the one derived from its counters).
    pub provider_status: Option<String>,
    /// See [`Batch::endpoint`](super::batch::Batch::endpoint).
    pub endpoint: Option<String>,
    /// See [`Batch::model`](super::batch::Batch::model).
    pub model: Option<String>,
    /// The name that the provider keeps for the batch, where it has one (Gemini's `displayName`).
    pub display_name: Option<String>,
    /// What batchd marked the batch with when it created it, where that stands in neither metadata nor name.
    pub marker: Option<String>,
    /// See [`Batch::input_file_id`](super::batch::Batch::input_file_id).
    pub input_file_id: Option<String>,
    /// See [`Batch::completion_window`](super::batch::Batch::completion_window).
    pub completion_window: Option<String>,
    /// See [`Batch::output_file_id`](super::batch::Batch::output_file_id).
    pub output_file_id: Option<String>,
    /// See [`Batch::error_file_id`](super::batch::Batch::error_file_id).
    pub error_file_id: Option<String>,
    /// See [`Batch::errors`](super::batch::Batch::errors).
    pub errors: Option<BatchErrors>,
    /// See [`Batch::created_at`](super::batch::Batch::created_at).
    pub created_at: Option<i64>,
    /// It was created before this; known where a service tells a day and no time of day.
    pub created_before: Option<i64>,
    /// See [`Batch::in_progress_at`](super::batch::Batch::in_progress_at).
    pub in_progress_at: Option<i64>,
    /// See [`Batch::expires_at`](super::batch::Batch::expires_at).
    pub expires_at: Option<i64>,
    /// See [`Batch::finalizing_at`](super::batch::Batch::finalizing_at).
    pub finalizing_at: Option<i64>,
    /// See [`Batch::completed_at`](super::batch::Batch::completed_at).
    pub completed_at: Option<i64>,
    /// See [`Batch::failed_at`](super::batch::Batch::failed_at).
    pub failed_at: Option<i64>,
    /// See [`Batch::expired_at`](super::batch::Batch::expired_at).
    pub expired_at: Option<i64>,
    /// See [`Batch::cancelling_at`](super::batch::Batch::cancelling_at).
    pub cancelling_at: Option<i64>,
    /// See [`Batch::cancelled_at`](super::batch::Batch::cancelled_at).
    pub cancelled_at: Option<i64>,
    /// When the batch ended, where the provider has one time for every kind of end.
    pub ended_at: Option<i64>,
    /// See [`Batch::request_counts`](super::batch::Batch::request_counts).
    pub request_counts: Option<RequestCounts>,
    /// See [`Batch::metadata`](super::batch::Batch::metadata).
    pub metadata: Option<BTreeMap<String, String>>,
    /// See [`Batch::usage`](super::batch::Batch::usage).
    pub usage: Option<Usage>,
    /// When the provider deletes the results, where it is known.
    pub results_expire_at: Option<i64>,
    /// How long the provider wants not to be asked about this batch again (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// Fields that were there but could not be read, one short sentence each.
    pub unreadable: Vec<String>,
}

impl Sighting {
    /// About how much memory it takes, in bytes.
    pub fn size(&self) -> usize {
        let texts = [
            &self.provider_status,
            &self.endpoint,
            &self.model,
            &self.display_name,
            &self.marker,
            &self.input_file_id,
            &self.completion_window,
            &self.output_file_id,
            &self.error_file_id,
        ];
        let errors = self.errors.iter().flat_map(|errors| &errors.data);
        let errors = errors.flat_map(|error| [&error.code, &error.message, &error.param]);
        let metadata = self.metadata.iter().flatten().map(|(key, value)| key.len() + value.len());
        let texts = texts.into_iter().chain(errors).flatten().map(String::len);
        let notes = self.unreadable.iter().map(String::len);
        size_of::<Self>() + self.id.len() + texts.chain(metadata).chain(notes).sum::<usize>()
    }

    /// The latest time at which it may have been created, in Unix seconds.
    pub fn created_by(&self) -> Option<i64> {
        self.created_at.or(self.created_before)
    }
}
