//! OpenAI's way to a batch: the input becomes a file, then the batch is created from it (`providers.md` §3.1).

use super::OpenAi;
use crate::http::call::Answer;
use crate::http::failure::Failure;
use crate::provider::read::Reader;
use crate::provider::submit::{Created, Job, MARKER, Submission, SubmitStep, Upload, patient};
use serde_json::{Map, Value, json};

/// The steps of one submission.
#[derive(Debug)]
pub(in crate::provider) struct FileThenBatch {
    adapter: OpenAi,
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
    /// [`Failure::Unsupported`] for metadata that OpenAI does not take.
    pub fn new(adapter: OpenAi, job: Job) -> Result<Self, Failure> {
        // The mark is one of the sixteen that there may be.
        let fits =
            |(key, value): (&String, &String)| key.chars().count() <= 64 && value.chars().count() <= 512;
        if job.metadata.len() > 15 || !job.metadata.iter().all(fits) {
            return Err(Failure::Unsupported(
                "this kind of provider takes at most 15 entries of metadata, of keys up to 64 and values up to 512 characters"
                    .to_owned(),
            ));
        }
        Ok(Self { adapter, job, stage: Stage::Begin })
    }
}

impl Submission for FileThenBatch {
    fn next(&mut self, answer: Option<&Answer>) -> Result<SubmitStep, Failure> {
        let requests = &self.adapter.requests;
        match (&self.stage, answer) {
            (Stage::Uploading, Some(answer)) => {
                let file = requests.object(answer)?;
                let Some(file) = Reader::new(&file).id("id") else {
                    return Err(Failure::Malformed("there is no `id` of the file in it".to_owned()));
                };
                let mut metadata: Map<String, Value> = self
                    .job
                    .metadata
                    .iter()
                    .map(|(key, value)| (key.clone(), value.as_str().into()))
                    .collect();
                metadata.insert(MARKER.to_owned(), self.job.marker.as_str().into());
                let batch = json!({
                    "input_file_id": file,
                    "endpoint": self.job.endpoint,
                    "completion_window": self.job.completion_window,
                    "metadata": metadata,
                });
                let create = requests.post("/batches", Some(&batch))?;
                self.stage = Stage::Creating;
                Ok(SubmitStep::Create(create))
            }
            (Stage::Creating, Some(answer)) => {
                let sighting = self.adapter.sighting(&requests.object(answer)?);
                Created::seen(sighting)
            }
            _ => {
                let call = patient(requests.post("/files", None)?);
                self.stage = Stage::Uploading;
                let upload =
                    Upload::form(call, &[("purpose", "batch")], &self.job.file_name, &self.job.marker);
                Ok(SubmitStep::Upload(upload))
            }
        }
    }
}
