//! Gemini's way to a batch: a resumable upload, then the batch is created from the file (`docs/providers/gemini.md`).

use crate::http::call::Answer;
use crate::http::failure::Failure;
use crate::provider::read::Reader;
use crate::provider::request::{Requests, segment};
use crate::provider::submit::{Job, ReadCreated, Submission, SubmitStep, Upload, marked_name, patient};
use bytes::Bytes;
use http::{HeaderValue, Method};
use serde_json::json;

#[derive(Debug)]
pub(super) struct UploadThenBatch {
    requests: Requests,
    job: Job,
    created: ReadCreated,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Begin,
    Starting,
    Uploading,
    Creating,
}

impl UploadThenBatch {
    pub const fn new(requests: Requests, job: Job, created: ReadCreated) -> Self {
        Self { requests, job, created, stage: Stage::Begin }
    }

    /// Says that bytes will come, and asks where they go.
    fn start(&self) -> Result<SubmitStep, Failure> {
        let version = self.requests.version().unwrap_or("v1beta");
        let file = json!({ "file": { "displayName": self.job.file_name } });
        let mut call = self.requests.post_beside(&format!("/upload/{version}/files"), &file)?;
        let headers = call.request.headers_mut();
        headers.insert("x-goog-upload-protocol", HeaderValue::from_static("resumable"));
        headers.insert("x-goog-upload-command", HeaderValue::from_static("start"));
        headers.insert("x-goog-upload-header-content-length", self.job.bytes.into());
        headers.insert("x-goog-upload-header-content-type", HeaderValue::from_static("application/jsonl"));
        Ok(SubmitStep::Send(call))
    }

    /// Sends the bytes where `answer` says; that address is no secret's place: it gets no key.
    fn upload(&self, answer: &Answer) -> Result<SubmitStep, Failure> {
        self.requests.success(answer)?;
        let url = answer
            .header("x-goog-upload-url")
            .ok_or_else(|| Failure::Malformed("it does not say where to upload to".to_owned()))?;
        let mut call = patient(self.requests.elsewhere(Method::POST, url)?);
        let headers = call.request.headers_mut();
        headers.insert("x-goog-upload-offset", HeaderValue::from_static("0"));
        headers.insert("x-goog-upload-command", HeaderValue::from_static("upload, finalize"));
        Ok(SubmitStep::Upload(Upload { call, before: Bytes::new(), after: Bytes::new() }))
    }

    fn create(&self, answer: &Answer) -> Result<SubmitStep, Failure> {
        let object = self.requests.object(answer)?;
        let Some(file) = Reader::new(&object).text("file.name") else {
            return Err(Failure::Malformed("there is no `name` of the file in it".to_owned()));
        };
        let name = self.job.name.as_deref().unwrap_or(&self.job.file_name);
        let batch = json!({
            "batch": {
                "displayName": marked_name(name, &self.job.marker),
                "inputConfig": { "fileName": file },
            },
        });
        let model = self.job.model.as_deref().unwrap_or_default();
        let (collection, model) = model.split_once('/').unwrap_or(("models", model));
        let method = if self.job.endpoint.ends_with("/embeddings") {
            "asyncBatchEmbedContent"
        } else {
            "batchGenerateContent"
        };
        let path = format!("/{}/{}:{method}", segment(collection)?, segment(model)?);
        Ok(SubmitStep::Create(self.requests.post(&path, Some(&batch))?))
    }
}

impl Submission for UploadThenBatch {
    fn next(&mut self, answer: Option<&Answer>) -> Result<SubmitStep, Failure> {
        let (step, stage) = match (&self.stage, answer) {
            (Stage::Starting, Some(answer)) => (self.upload(answer)?, Stage::Uploading),
            (Stage::Uploading, Some(answer)) => (self.create(answer)?, Stage::Creating),
            (Stage::Creating, Some(answer)) => {
                return self.created.done(answer);
            }
            _ => (self.start()?, Stage::Starting),
        };
        self.stage = stage;
        Ok(step)
    }
}
