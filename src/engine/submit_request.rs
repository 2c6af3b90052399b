//! What a submission asks for, and the first of its steps.

use super::Account;
use crate::domain::tracked::Lineage;
use crate::domain::user_fields::UserFields;
use crate::http::failure::Failure;
use crate::provider::submit::{Job, MARKER_PREFIX, Submission as Steps};
use crate::rng::Rng;
use crate::store::creations::Asked;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What is submitted, beside the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitRequest {
    pub provider: String,
    /// The file's name, without a path.
    pub file_name: String,
    /// Such as `24h`.
    pub completion_window: String,
    /// What the provider is to keep with the batch.
    pub metadata: BTreeMap<String, String>,
    /// What batchd is to keep with it: name, labels, deadline, whom to notify.
    pub user_fields: UserFields,
    /// The user of the machine who submits, where the socket tells.
    pub owner: Option<String>,
    /// Seconds after its creation at which the provider is to delete the output.
    pub output_expires_after: Option<u64>,
    /// What is added to the request that creates the batch.
    pub params: Map<String, Value>,
    /// The file that a client uploaded before, if that is submitted.
    pub uploaded_file: Option<String>,
    /// How it came about, and what was given in place of what the lines name.
    pub lineage: Lineage,
    /// What whoever asks again is known by.
    #[serde(skip)]
    pub asked: Option<Asked>,
}

/// The key in a batch's metadata that names the batch whose requests it repeats.
pub const RESUBMITS: &str = "batchd_resubmits";

/// What is known of the input of a submission.
pub(super) struct Input<'a> {
    pub marker: &'a str,
    pub endpoint: &'a str,
    pub model: Option<&'a str>,
    /// As it is sent.
    pub bytes: u64,
    pub requests: u64,
}

impl SubmitRequest {
    /// The job that this is to its provider's adapter.
    pub(super) fn job(&self, input: &Input<'_>) -> Job {
        Job {
            marker: input.marker.to_owned(),
            name: self.user_fields.name.clone(),
            endpoint: input.endpoint.to_owned(),
            model: input.model.map(str::to_owned),
            completion_window: self.completion_window.clone(),
            output_expires_after: self.output_expires_after,
            metadata: self.metadata.clone(),
            file_name: self.file_name.clone(),
            bytes: input.bytes,
            requests: input.requests,
        }
    }
}

/// A mark for one creation.
pub(super) fn new_marker(rng: &Rng) -> String {
    format!("{MARKER_PREFIX}{:016x}{:016x}", rng.bits(), rng.bits())
}

/// The steps to the batch. That it repeats requests of another is told where the service keeps metadata, and has room.
pub(super) fn begin(account: &Account, mut job: Job) -> Result<Box<dyn Steps>, Failure> {
    match account.adapter.submit(&job) {
        Err(Failure::Unsupported(_)) if job.metadata.remove(RESUBMITS).is_some() => {
            account.adapter.submit(&job)
        }
        begun => begun,
    }
}
