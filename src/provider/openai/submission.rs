//! The way to a batch at OpenAI and most services shaped like it: the input becomes a file, then the batch is created
//! from it (`docs/providers/openai.md`).

use crate::domain::duration::{self, compact};
use crate::http::call::Answer;
use crate::http::failure::Failure;
use crate::provider::read::Reader;
use crate::provider::request::{Requests, segment};
use crate::provider::submit::{
    Intake, Job, MARKER, ReadCreated, RequestLine, Submission, SubmitStep, Translated, Untranslatable,
    Upload, patient,
};
use crate::provider::unsupported::unsupported;
use http::StatusCode;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a service takes, and the way to a batch there.
#[derive(Clone, Copy, Debug)]
pub(in crate::provider) struct Creation {
    pub intake: Intake,
    /// Makes a request of the local file the service's own, where it is not taken as it is.
    pub translate: fn(RequestLine) -> Result<Translated, Untranslatable>,
    /// What differs on the way.
    pub way: Way,
    /// Makes the steps.
    pub begin: fn(Start) -> Result<Box<dyn Submission>, Failure>,
}

/// What a submission sets out with.
#[derive(Debug)]
pub(in crate::provider) struct Start {
    /// How the account is asked.
    pub requests: Requests,
    /// The kind's further keys, as configured.
    pub options: BTreeMap<String, String>,
    pub job: Job,
    pub way: Way,
    /// Reads the answer to the creation.
    pub created: ReadCreated,
}

impl Creation {
    /// OpenAI's own way with whatever the service takes.
    pub const OPENAI: Self =
        Self { intake: Intake::OPENAI, translate: as_it_is, way: Way::OPENAI, begin: FileThenBatch::begin };
}

/// A request that needs no change.
#[expect(clippy::unnecessary_wraps, reason = "other services' translations may fail")]
pub(in crate::provider) fn as_it_is(line: RequestLine) -> Result<Translated, Untranslatable> {
    Ok(Translated { object: line.object, dropped: Vec::new() })
}

/// A request without the method and the address, for services whose lines are `{"custom_id", "body"}`.
#[expect(clippy::unnecessary_wraps, reason = "other services' translations may fail")]
pub(in crate::provider) fn bare(line: RequestLine) -> Result<Translated, Untranslatable> {
    let mut object = line.object;
    object.retain(|key, _| matches!(key.as_str(), "custom_id" | "body"));
    Ok(Translated { object, dropped: Vec::new() })
}

/// Names and values of a form's text fields.
pub(in crate::provider) type FormFields = &'static [(&'static str, &'static str)];

/// What differs on the way from one service to another.
#[derive(Clone, Copy, Debug)]
pub(in crate::provider) struct Way {
    /// Where files go: the first of these that is there.
    pub files: &'static [&'static str],
    /// What a file is said to be for.
    pub purpose: &'static str,
    /// Whether a file's name and type are told beside it.
    pub describes: bool,
    /// Whether the service is known to check a file before a batch may be created from it.
    pub inspects: bool,
    /// Further fields of the upload's form.
    pub upload_fields: fn(&BTreeMap<String, String>) -> FormFields,
    /// The shortest and the longest completion window, in hours, where the service says.
    pub windows: Option<(u64, u64)>,
    /// What a creation says, but for the file.
    pub creation: fn(&Job) -> Result<Map<String, Value>, Failure>,
}

impl Way {
    /// OpenAI's own.
    pub const OPENAI: Self = Self {
        files: &["/files"],
        purpose: "batch",
        describes: false,
        inspects: false,
        upload_fields: |_| &[],
        windows: None,
        creation,
    };
}

/// What a creation says at OpenAI: the mark is among the metadata.
pub(in crate::provider) fn creation(job: &Job) -> Result<Map<String, Value>, Failure> {
    // The mark is one of the sixteen that there may be.
    let fits = |(key, value): (&String, &String)| key.chars().count() <= 64 && value.chars().count() <= 512;
    if job.metadata.len() > 15 || !job.metadata.iter().all(fits) {
        return unsupported(
            "takes at most 15 entries of metadata, of keys up to 64 and values up to 512 characters",
        );
    }
    let mut metadata = metadata(job);
    metadata.insert(MARKER.to_owned(), job.marker.as_str().into());
    let mut creation = bare_creation(job);
    creation.insert("metadata".to_owned(), metadata.into());
    Ok(creation)
}

/// What a creation says at a service that keeps no metadata.
pub(in crate::provider) fn creation_without_metadata(job: &Job) -> Result<Map<String, Value>, Failure> {
    if !job.metadata.is_empty() {
        return unsupported("keeps no metadata with a batch; `--label` keeps it with batchd");
    }
    Ok(bare_creation(job))
}

/// What a creation says where the window is the service's choice.
pub(in crate::provider) fn creation_without_window(job: &Job) -> Result<Map<String, Value>, Failure> {
    let mut creation = creation_without_metadata(job)?;
    creation.remove("completion_window");
    Ok(creation)
}

/// The metadata that the user attaches.
pub(in crate::provider) fn metadata(job: &Job) -> Map<String, Value> {
    job.metadata.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect()
}

pub(in crate::provider) fn bare_creation(job: &Job) -> Map<String, Value> {
    let mut creation = Map::from_iter([
        ("endpoint".to_owned(), job.endpoint.as_str().into()),
        ("completion_window".to_owned(), job.completion_window.as_str().into()),
    ]);
    if let Some(seconds) = job.output_expires_after {
        let expiry = json!({"anchor": "created_at", "seconds": seconds});
        creation.insert("output_expires_after".to_owned(), expiry);
    }
    creation
}

#[derive(Debug)]
pub(in crate::provider) struct FileThenBatch {
    requests: Requests,
    job: Job,
    way: Way,
    created: ReadCreated,
    creation: Map<String, Value>,
    upload_fields: FormFields,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Begin,
    /// To the place of this number among [`Way::files`].
    Uploading(usize),
    /// Before the check of this number of the file.
    Waiting(String, u32),
    Checking(String, u32),
    Creating,
}

impl FileThenBatch {
    /// Begins one.
    ///
    /// # Errors
    ///
    /// [`Failure::Unsupported`] for what the service does not take beside the requests.
    pub fn begin(start: Start) -> Result<Box<dyn Submission>, Failure> {
        let Start { requests, options, job, way, created } = start;
        if let Some((least, most)) = way.windows {
            let hours = |hours: u64| Duration::from_secs(hours * 3600);
            let window = duration::parse(&job.completion_window).unwrap_or_default();
            if !(hours(least)..=hours(most)).contains(&window) {
                let (least, most) = (compact(hours(least)), compact(hours(most)));
                return unsupported(&format!("has completion windows from {least} to {most}"));
            }
        }
        let creation = (way.creation)(&job)?;
        let upload_fields = (way.upload_fields)(&options);
        Ok(Box::new(Self { requests, job, way, created, creation, upload_fields, stage: Stage::Begin }))
    }

    fn upload(&mut self, place: usize) -> Result<SubmitStep, Failure> {
        let call = patient(self.requests.post(self.way.files[place], None)?);
        let Job { file_name, marker, .. } = &self.job;
        let mut fields = vec![("purpose", self.way.purpose)];
        if self.way.describes {
            fields.extend([("file_name", file_name.as_str()), ("file_type", "jsonl")]);
        }
        fields.extend(self.upload_fields);
        let upload = Upload::form(call, &fields, file_name, marker);
        self.stage = Stage::Uploading(place);
        Ok(SubmitStep::Upload(upload))
    }

    /// The file is there: if it is said not to be ready, it is checked until it is.
    fn uploaded(&mut self, answer: &Answer, checks: u32) -> Result<SubmitStep, Failure> {
        let object = self.requests.object(answer)?;
        let mut reader = Reader::new(&object);
        let Some(file) = reader.id("id") else {
            return Err(Failure::Malformed("there is no `id` of the file in it".to_owned()));
        };
        match readiness(&mut reader) {
            Readiness::Refused(why) => {
                return Err(Failure::BadRequest(format!("the service does not take the file: {why}")));
            }
            // Where files are not checked, it may be the last that is said of one.
            Readiness::Uploaded if !self.way.inspects && checks >= MAX_UPLOADED_CHECKS => {}
            Readiness::Pending | Readiness::Uploaded if checks >= MAX_FILE_CHECKS => {
                return Err(Failure::BadRequest(format!(
                    "the service has not checked the file `{file}` yet; submit it again later"
                )));
            }
            Readiness::Pending | Readiness::Uploaded => {
                self.stage = Stage::Waiting(file, checks + 1);
                return Ok(SubmitStep::Wait(FILE_CHECK_INTERVAL));
            }
            Readiness::Ready => {}
        }
        self.create(&file)
    }

    fn create(&mut self, file: &str) -> Result<SubmitStep, Failure> {
        let mut creation = self.creation.clone();
        creation.insert("input_file_id".to_owned(), file.into());
        let create = self.requests.post("/batches", Some(&creation.into()))?;
        self.stage = Stage::Creating;
        Ok(SubmitStep::Create(create))
    }
}

impl Submission for FileThenBatch {
    fn next(&mut self, answer: Option<&Answer>) -> Result<SubmitStep, Failure> {
        match (&self.stage, answer) {
            (Stage::Uploading(place), Some(answer)) => {
                let following = place + 1;
                let is_elsewhere =
                    matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
                if is_elsewhere && following < self.way.files.len() {
                    return self.upload(following);
                }
                self.uploaded(answer, 0)
            }
            (Stage::Waiting(file, checks), _) => {
                let check = self.requests.get(&format!("/files/{}", segment(file)?), &[])?;
                self.stage = Stage::Checking(file.clone(), *checks);
                Ok(SubmitStep::Send(check))
            }
            (Stage::Checking(file, checks), Some(answer)) => {
                let (file, checks) = (file.clone(), *checks);
                let tells_nothing = matches!(
                    answer.status,
                    StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
                );
                // A gateway that tells nothing of its files cannot be waited for.
                if tells_nothing && !self.way.inspects {
                    self.create(&file)
                } else {
                    self.uploaded(answer, checks)
                }
            }
            (Stage::Creating, Some(answer)) => self.created.done(answer),
            _ => self.upload(0),
        }
    }
}

/// What is said of an uploaded file.
enum Readiness {
    Ready,
    /// It is there; some services say so before it is ready, others never say more.
    Uploaded,
    Pending,
    /// It is not taken, for this reason.
    Refused(String),
}

fn readiness(reader: &mut Reader<'_>) -> Readiness {
    let word = reader.value("status").and_then(Value::as_str).unwrap_or_default();
    let word: String = word.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    match word.as_str() {
        "error" | "failed" => Readiness::Refused(
            reader.text("status_details").unwrap_or_else(|| "it does not say why".to_owned()),
        ),
        "pending" | "running" | "processing" | "inprogress" | "queued" | "notrunning" | "validating"
        | "uploading" | "importing" => Readiness::Pending,
        "uploaded" => Readiness::Uploaded,
        // Together says it without a word.
        "" if reader.value("processed") == Some(&Value::Bool(false)) => Readiness::Uploaded,
        _ => Readiness::Ready,
    }
}

const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// A quarter of an hour in all.
const MAX_FILE_CHECKS: u32 = 180;

/// Half a minute in all.
const MAX_UPLOADED_CHECKS: u32 = 6;
