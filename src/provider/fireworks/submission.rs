//! Fireworks' way to a batch: the input becomes a dataset, then a job is created from it (`docs/providers/fireworks.md`).

use super::{Fireworks, JOBS};
use crate::http::call::Answer;
use crate::http::failure::Failure;
use crate::provider::openai::megabytes;
use crate::provider::read::Reader;
use crate::provider::request::segment;
use crate::provider::submit::{
    Created, Framing, IdRule, Intake, Job, LineForm, ModelPlace, RequestLine, Submission, SubmitStep,
    Translated, Untranslatable, Upload, marked_name, only_a_day, patient,
};
use bytes::Bytes;
use http::{HeaderValue, Method};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What a dataset may hold for a batch.
const MAX_BYTES: u64 = megabytes(500);

/// What a dataset takes in a form; more goes to a signed address.
const MAX_FORM_BYTES: u64 = 150_000_000;

/// Between two checks of a dataset that is not ready.
const STATE_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// After so many checks a dataset never becomes ready.
const MAX_STATE_CHECKS: u32 = 150;

/// Lines of an id and a body; the model is the job's.
pub(super) const INTAKE: Intake = Intake {
    framing: Framing::Lines,
    own: LineForm {
        id: "custom_id",
        id_needed: false,
        body: "body",
        model: ModelPlace::Job,
        tells: &[("messages", "/v1/chat/completions"), ("prompt", "/v1/completions")],
    },
    takes_openai: false,
    max_requests: None,
    max_bytes: Some(MAX_BYTES),
    max_line_bytes: None,
    custom_id: IdRule { longest: None, plain: false },
    one_model: true,
    endpoints: &["/v1/chat/completions", "/v1/completions"],
    marks: true,
};

/// Leaves away what the job says once.
pub(super) fn translate(line: RequestLine) -> Result<Translated, Untranslatable> {
    let mut object = Map::new();
    let mut line = line.object;
    for key in ["custom_id", "body"] {
        object.extend(line.shift_remove(key).map(|value| (key.to_owned(), value)));
    }
    match object.get_mut("body") {
        Some(Value::Object(body)) => drop(body.shift_remove("model")),
        _ => return Err(Untranslatable("it has no `body`".to_owned())),
    }
    Ok(Translated { object, dropped: Vec::new() })
}

#[derive(Debug)]
pub(super) struct DatasetThenJob {
    adapter: Fireworks,
    job: Job,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Begin,
    Naming,
    /// It was asked where the input goes.
    Addressing,
    UploadingElsewhere,
    Uploading,
    Waiting(u32),
    Checking(u32),
    Creating,
}

impl DatasetThenJob {
    pub(super) fn begin(adapter: Fireworks, job: Job) -> Result<Box<dyn Submission>, Failure> {
        if !job.metadata.is_empty() {
            return Err(Failure::Unsupported(
                "this kind of provider keeps no metadata; use --label, which batchd keeps".to_owned(),
            ));
        }
        only_a_day(&job)?;
        if job.model.is_none() {
            return Err(Failure::BadRequest(
                "a job at Fireworks is for one model; give it with --model".to_owned(),
            ));
        }
        Ok(Box::new(Self { adapter, job, stage: Stage::Begin }))
    }

    /// The dataset is called like the marker: an id may have lower-case letters, digits and `-`.
    fn dataset(&self) -> Result<String, Failure> {
        Ok(format!("{}/datasets/{}", self.adapter.own()?, segment(&self.job.marker.to_lowercase())?))
    }

    fn check_state(&self) -> Result<SubmitStep, Failure> {
        Ok(SubmitStep::Send(self.adapter.requests.get(&self.dataset()?, &[])?))
    }

    /// Sends the input to the signed address in `answer`, which gets no key.
    fn upload_elsewhere(&self, answer: &Map<String, Value>) -> Result<SubmitStep, Failure> {
        let urls = answer.get("filenameToSignedUrls").and_then(Value::as_object);
        let url = urls.and_then(|urls| urls.values().next()).and_then(Value::as_str);
        let url = url.ok_or_else(|| Failure::Malformed("it does not say where to upload to".to_owned()))?;
        let mut call = patient(self.adapter.requests.elsewhere(Method::PUT, url)?);
        let bytes = self.job.bytes;
        let range = HeaderValue::try_from(format!("{bytes},{bytes}"))
            .map_err(|_| Failure::BadRequest("the input has no length".to_owned()))?;
        let headers = call.request.headers_mut();
        // Both are signed, so neither may differ.
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert("x-goog-content-length-range", range);
        Ok(SubmitStep::Upload(Upload { call, before: Bytes::new(), after: Bytes::new() }))
    }

    fn create(&self) -> Result<SubmitStep, Failure> {
        let name = self.job.name.as_deref().unwrap_or(&self.job.file_name);
        let body = json!({
            "displayName": marked_name(name, &self.job.marker),
            "model": self.job.model,
            "inputDatasetId": self.dataset()?.trim_start_matches('/'),
        });
        let path = format!("{}/{JOBS}", self.adapter.own()?);
        Ok(SubmitStep::Create(self.adapter.requests.post(&path, Some(&body))?))
    }
}

impl Submission for DatasetThenJob {
    fn next(&mut self, answer: Option<&Answer>) -> Result<SubmitStep, Failure> {
        let requests = &self.adapter.requests;
        let (step, stage) = match (&self.stage, answer) {
            (Stage::Naming, Some(answer)) if self.job.bytes > MAX_FORM_BYTES => {
                requests.object(answer)?;
                let mut sizes = Map::new();
                sizes.insert(self.job.file_name.clone(), self.job.bytes.to_string().into());
                let path = format!("{}:getUploadEndpoint", self.dataset()?);
                let ask = requests.post(&path, Some(&json!({"filenameToSize": sizes})))?;
                (SubmitStep::Send(ask), Stage::Addressing)
            }
            (Stage::Addressing, Some(answer)) => {
                (self.upload_elsewhere(&requests.object(answer)?)?, Stage::UploadingElsewhere)
            }
            (Stage::UploadingElsewhere, Some(answer)) => {
                requests.success(answer)?;
                let path = format!("{}:validateUpload", self.dataset()?);
                (SubmitStep::Send(requests.post(&path, Some(&json!({})))?), Stage::Uploading)
            }
            (Stage::Naming, Some(answer)) => {
                requests.object(answer)?;
                let call = patient(requests.post(&format!("{}:upload", self.dataset()?), None)?);
                let upload = Upload::form(call, &[], &self.job.file_name, &self.job.marker);
                (SubmitStep::Upload(upload), Stage::Uploading)
            }
            (Stage::Uploading, Some(answer)) => {
                requests.success(answer)?;
                (self.check_state()?, Stage::Checking(1))
            }
            (Stage::Waiting(checks), None) => (self.check_state()?, Stage::Checking(checks + 1)),
            (Stage::Checking(checks), Some(answer)) => {
                let state = Reader::new(&requests.object(answer)?).text("state").unwrap_or_default();
                match state.as_str() {
                    "UPLOADING" | "STATE_UNSPECIFIED" if *checks < MAX_STATE_CHECKS => {
                        (SubmitStep::Wait(STATE_CHECK_INTERVAL), Stage::Waiting(*checks))
                    }
                    "UPLOADING" | "STATE_UNSPECIFIED" => {
                        return Err(Failure::Malformed("the dataset does not become ready".to_owned()));
                    }
                    // `READY`, or a server that keeps no states.
                    _ => (self.create()?, Stage::Creating),
                }
            }
            (Stage::Creating, Some(answer)) => {
                return Created::seen(self.adapter.sighting(&requests.object(answer)?));
            }
            _ => {
                let id = self.job.marker.to_lowercase();
                let body = json!({
                    "datasetId": id,
                    "dataset": {"userUploaded": {}, "exampleCount": self.job.requests.to_string()},
                });
                let path = format!("{}/datasets", self.adapter.own()?);
                (SubmitStep::Send(requests.post(&path, Some(&body))?), Stage::Naming)
            }
        };
        self.stage = stage;
        Ok(step)
    }
}
