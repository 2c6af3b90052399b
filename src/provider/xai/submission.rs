//! xAI's way to a batch: the input becomes a file, then the batch is created from it (`docs/providers/xai.md`).

use super::{Xai, answered_at, meant};
use crate::http::call::Answer;
use crate::http::failure::Failure;
use crate::provider::openai::megabytes;
use crate::provider::read::Reader;
use crate::provider::submit::{
    Created, Framing, IdRule, Intake, Job, OPENAI_LINE, Submission, SubmitStep, Upload, marked_name,
    only_a_day, patient,
};
use serde_json::json;

/// OpenAI's own lines.
pub(super) const INTAKE: Intake = Intake {
    framing: Framing::Lines,
    own: OPENAI_LINE,
    takes_openai: true,
    max_requests: Some(50_000),
    max_bytes: Some(megabytes(200)),
    max_line_bytes: Some(megabytes(25)),
    custom_id: IdRule { longest: None, plain: false },
    one_model: false,
    endpoints: &[
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/videos/generations",
        "/v1/videos/edits",
        "/v1/videos/extensions",
    ],
    marks: true,
};

#[derive(Debug)]
pub(super) struct FileThenBatch {
    adapter: Xai,
    job: Job,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Begin,
    Uploading,
    Creating,
}

impl FileThenBatch {
    /// Begins one.
    ///
    /// # Errors
    ///
    /// [`Failure::Unsupported`] for metadata, for which xAI has no place.
    pub(super) fn begin(adapter: Xai, job: Job) -> Result<Box<dyn Submission>, Failure> {
        if !job.metadata.is_empty() {
            return Err(Failure::Unsupported(
                "this kind of provider keeps no metadata; use --label, which batchd keeps".to_owned(),
            ));
        }
        only_a_day(&job)?;
        Ok(Box::new(Self { adapter, job, stage: Stage::Begin }))
    }
}

impl Submission for FileThenBatch {
    fn next(&mut self, answer: Option<&Answer>) -> Result<SubmitStep, Failure> {
        let requests = &self.adapter.requests;
        match (&self.stage, answer) {
            (Stage::Uploading, Some(answer)) => {
                let file = requests.object(&meant(answer))?;
                let Some(file) = Reader::new(&file).id("id") else {
                    return Err(Failure::Malformed("there is no `id` of the file in it".to_owned()));
                };
                let name = self.job.name.as_deref().unwrap_or(&self.job.file_name);
                let batch = json!({"name": marked_name(name, &self.job.marker), "input_file_id": file});
                let create = requests.post("/batches", Some(&batch))?;
                self.stage = Stage::Creating;
                Ok(SubmitStep::Create(create))
            }
            (Stage::Creating, Some(answer)) => {
                let object = requests.object(&meant(answer))?;
                Created::seen(self.adapter.sighting(&object, answered_at(answer)))
            }
            _ => {
                let call = patient(requests.post("/files", None)?);
                self.stage = Stage::Uploading;
                let fields = [("purpose", "batch")];
                Ok(SubmitStep::Upload(Upload::form(call, &fields, &self.job.file_name, &self.job.marker)))
            }
        }
    }
}
