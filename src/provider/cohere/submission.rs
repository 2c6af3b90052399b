//! Cohere's way to a batch: the input becomes a dataset, which is validated, then a batch reads it
//! (`docs/providers/cohere.md`).

use super::Cohere;
use crate::http::call::Answer;
use crate::http::failure::Failure;
use crate::provider::answer::shorten;
use crate::provider::openai::megabytes;
use crate::provider::read::Reader;
use crate::provider::request::segment;
use crate::provider::submit::{
    Created, Framing, IdRule, Intake, Job, LineForm, ModelPlace, Submission, SubmitStep, Upload, marked_name,
    only_a_day, patient,
};
use http::Method;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Between two checks of a dataset that is new; it is validated within seconds if it is short.
const FIRST_INTERVAL: Duration = Duration::from_secs(2);
/// So many checks are made in that time.
const FIRST_CHECKS: u32 = 30;
/// Between two checks afterwards.
const INTERVAL: Duration = Duration::from_secs(15);
/// After so many checks, half an hour, a dataset never becomes valid.
const MAX_CHECKS: u32 = 150;

/// Lines of an id and a body; the model is the batch's.
pub(super) const INTAKE: Intake = Intake {
    framing: Framing::Lines,
    own: LineForm {
        id: "custom_id",
        id_needed: true,
        body: "body",
        model: ModelPlace::Job,
        tells: &[
            ("messages", super::CHAT),
            ("inputs", super::EMBED),
            ("texts", super::EMBED),
            ("images", super::EMBED),
        ],
    },
    takes_openai: false,
    max_requests: None,
    // What a dataset may hold.
    max_bytes: Some(megabytes(1500)),
    max_line_bytes: None,
    custom_id: IdRule { longest: None, plain: false },
    one_model: true,
    endpoints: &["/v1/chat/completions", "/v1/embeddings", super::CHAT, super::EMBED],
    marks: true,
};

/// What a dataset of requests for `endpoint` is called.
fn dataset_type(endpoint: &str) -> &'static str {
    if endpoint.contains("/embed") { "batch-embed-v2-input" } else { "batch-chat-v2-input" }
}

#[derive(Debug)]
pub(super) struct DatasetThenBatch {
    adapter: Cohere,
    job: Job,
    model: String,
    /// The dataset, once it is there.
    dataset: String,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Begin,
    Uploading,
    Waiting(u32),
    Checking(u32),
    Creating,
}

impl DatasetThenBatch {
    pub(super) fn begin(adapter: Cohere, job: Job) -> Result<Box<dyn Submission>, Failure> {
        if !job.metadata.is_empty() {
            return Err(Failure::Unsupported(
                "this kind of provider keeps no metadata; use --label, which batchd keeps".to_owned(),
            ));
        }
        only_a_day(&job)?;
        let model = job.model.clone().ok_or_else(|| {
            Failure::BadRequest("a batch at Cohere is for one model; give it with --model".to_owned())
        })?;
        Ok(Box::new(Self { adapter, job, model, dataset: String::new(), stage: Stage::Begin }))
    }

    /// The original is kept, so that its own lines can be read again.
    fn upload(&self) -> Result<SubmitStep, Failure> {
        let query = [
            ("name", self.job.marker.as_str()),
            ("type", dataset_type(&self.job.endpoint)),
            ("keep_original_file", "true"),
        ];
        let call = patient(self.adapter.datasets.to(Method::POST, "/datasets", &query)?);
        // The ending tells Cohere how the file is written.
        let file = format!("{}.jsonl", self.job.marker);
        Ok(SubmitStep::Upload(Upload::form_with("data", call, &[], &file, &self.job.marker)))
    }

    fn check(&self) -> Result<SubmitStep, Failure> {
        let path = format!("/datasets/{}", segment(&self.dataset)?);
        Ok(SubmitStep::Send(self.adapter.datasets.get(&path, &[])?))
    }

    fn create(&self) -> Result<SubmitStep, Failure> {
        let name = self.job.name.as_deref().unwrap_or(&self.job.file_name);
        let body = json!({
            "name": marked_name(name, &self.job.marker),
            "input_dataset_id": self.dataset,
            "model": self.model,
        });
        Ok(SubmitStep::Create(self.adapter.requests.post("/batches", Some(&body))?))
    }

    /// What follows from how far the validation is.
    fn judge(&self, dataset: &Map<String, Value>, checks: u32) -> Result<(SubmitStep, Stage), Failure> {
        let mut reader = Reader::new(dataset);
        let status = reader.text("validation_status").unwrap_or_default().to_lowercase();
        match status.as_str() {
            "failed" | "skipped" => {
                let why = reader.text("validation_error").unwrap_or_else(|| format!("it was {status}"));
                Err(Failure::BadRequest(format!(
                    "Cohere does not take the requests as a dataset: {}",
                    shorten(&why)
                )))
            }
            "unknown" | "queued" | "processing" if checks >= MAX_CHECKS => Err(Failure::Malformed(format!(
                "the dataset `{}` is not validated within half an hour",
                self.dataset
            ))),
            "unknown" | "queued" | "processing" => {
                let wait = if checks < FIRST_CHECKS { FIRST_INTERVAL } else { INTERVAL };
                Ok((SubmitStep::Wait(wait), Stage::Waiting(checks)))
            }
            // `validated`, or a server that keeps no states.
            _ => Ok((self.create()?, Stage::Creating)),
        }
    }
}

impl Submission for DatasetThenBatch {
    fn next(&mut self, answer: Option<&Answer>) -> Result<SubmitStep, Failure> {
        let datasets = &self.adapter.datasets;
        let (step, stage) = match (&self.stage, answer) {
            (Stage::Uploading, Some(answer)) => {
                let object = datasets.object(answer)?;
                self.dataset = Reader::new(&object)
                    .id("id")
                    .ok_or_else(|| Failure::Malformed("there is no `id` of the dataset in it".to_owned()))?;
                (self.check()?, Stage::Checking(1))
            }
            (Stage::Waiting(checks), None) => (self.check()?, Stage::Checking(checks + 1)),
            (Stage::Checking(checks), Some(answer)) => {
                self.judge(&super::dataset_in(datasets.object(answer)?), *checks)?
            }
            (Stage::Creating, Some(answer)) => {
                let object = self.adapter.requests.object(answer)?;
                return Created::seen(self.adapter.sighting(&object));
            }
            _ => (self.upload()?, Stage::Uploading),
        };
        self.stage = stage;
        Ok(step)
    }
}
