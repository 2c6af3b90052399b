//! Mistral's way to a batch: the input becomes a file, then the job is created from it (`docs/providers/mistral.md`).

use crate::domain::duration;
use crate::http::call::Answer;
use crate::http::failure::Failure;
use crate::provider::read::Reader;
use crate::provider::request::Requests;
use crate::provider::submit::{
    Job, MARKER, ReadCreated, Submission, SubmitStep, Upload, patient, usual_expiry,
};
use serde_json::{Map, Value, json};

#[derive(Debug)]
pub(super) struct FileThenJob {
    requests: Requests,
    job: Job,
    created: ReadCreated,
    hours: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Begin,
    Uploading,
    Creating,
}

impl FileThenJob {
    /// Begins one.
    ///
    /// # Errors
    ///
    /// [`Failure::Unsupported`] for a window that is not 1 to 168 whole hours, and for a wish of when the output expires.
    pub fn new(requests: Requests, job: Job, created: ReadCreated) -> Result<Self, Failure> {
        const HOUR: u64 = 3600;
        let seconds = duration::parse(&job.completion_window).map_or(0, |window| window.as_secs());
        let hours = seconds / HOUR;
        if !seconds.is_multiple_of(HOUR) || !(1..=168).contains(&hours) {
            return Err(Failure::Unsupported(
                "this kind of provider has completion windows of 1 to 168 whole hours".to_owned(),
            ));
        }
        usual_expiry(&job)?;
        Ok(Self { requests, job, created, hours, stage: Stage::Begin })
    }
}

impl Submission for FileThenJob {
    fn next(&mut self, answer: Option<&Answer>) -> Result<SubmitStep, Failure> {
        let requests = &self.requests;
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
                let mut batch = json!({
                    "input_files": [file],
                    "endpoint": self.job.endpoint,
                    "metadata": metadata,
                    "timeout_hours": self.hours,
                });
                if let Some(model) = &self.job.model {
                    batch["model"] = model.as_str().into();
                }
                let create = requests.post("/batch/jobs", Some(&batch))?;
                self.stage = Stage::Creating;
                Ok(SubmitStep::Create(create))
            }
            (Stage::Creating, Some(answer)) => self.created.done(answer),
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
