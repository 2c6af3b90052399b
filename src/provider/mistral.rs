//! Mistral's batch jobs (`docs/providers/mistral.md`).

mod submission;
mod translation;

use super::openai_results::{OneStream, output_line};
use super::read::{self, Reader};
use super::request::{Credential, Requests, segment};
use super::results::{Fetch, OutputLine, Part, Record};
use super::submit::{
    Framing, IdRule, Intake, Job, LineForm, ModelPlace, ReadCreated, RequestLine, Submission, Translated,
    Untranslatable,
};
use super::{Account, Kind, Listing, Page, PageRequest, Provider, about, is_uuid, results_id, sightings};
use crate::config::KindFacts;
use crate::domain::batch::{Batch, RequestCounts};
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use serde_json::{Map, Value};
use submission::FileThenJob;

pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "mistral",
        key_env: &["MISTRAL_API_KEY"],
        base_url: Some("https://api.mistral.ai"),
        ..KindFacts::NONE
    },
    claims: is_uuid,
    words: &[
        ("QUEUED", Status::Validating),
        ("RUNNING", Status::InProgress),
        ("SUCCESS", Status::Completed),
        ("FAILED", Status::Failed),
        ("TIMEOUT_EXCEEDED", Status::Expired),
        ("CANCELLATION_REQUESTED", Status::Cancelling),
        ("CANCELLED", Status::Cancelled),
    ],
    hook: None,
    build: |account| Box::new(Mistral::new(account)),
};

/// The most jobs on a page.
const PAGE: u32 = 100;

/// The words of jobs that have not ended.
const LIVE: [&str; 3] = ["QUEUED", "RUNNING", "CANCELLATION_REQUESTED"];

/// What a job may be for.
const ENDPOINTS: [&str; 10] = [
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/fim/completions",
    "/v1/moderations",
    "/v1/chat/moderations",
    "/v1/ocr",
    "/v1/classifications",
    "/v1/chat/classifications",
    "/v1/conversations",
    "/v1/audio/transcriptions",
];

/// The longest input file: 512 MB.
const MAX_BYTES: u64 = 512 << 20;

#[derive(Clone, Debug)]
struct Mistral {
    requests: Requests,
    provider: String,
}

impl Mistral {
    fn new(account: &Account) -> Self {
        Self {
            requests: Requests::new(account, Credential::Bearer, &[]).versioned("v1"),
            provider: account.config.name.clone(),
        }
    }

    fn sighting(&self, object: &Map<String, Value>) -> Sighting {
        Reader::sighting(object, |reader| {
            let id = reader.id("id").unwrap_or_default();
            let provider_status = reader.word(&["status"]);
            let status = provider_status.as_deref().and_then(|word| read::status(word, KIND.words));
            let ended = status.is_some_and(Status::is_terminal);
            let created_at = reader.time("created_at");
            let hours = reader.count("timeout_hours").and_then(|hours| i64::try_from(hours).ok());
            let output_file = reader.id("output_file");
            let list = |value: Option<&Value>| value.and_then(Value::as_array).map(Vec::is_empty);
            let has_outputs = list(reader.value("outputs")) == Some(false);
            // What has no input file was given its requests with its creation, and has its outputs where they were.
            let is_inline = has_outputs || list(reader.value("input_files")) == Some(true);
            let mut sighting = Sighting {
                id,
                output_file_id: output_file,
                status,
                provider_status,
                endpoint: reader.text("endpoint"),
                model: reader.text("model"),
                input_file_id: reader.first_id("input_files"),
                completion_window: hours.map(|hours| format!("{hours}h")),
                error_file_id: reader.id("error_file"),
                errors: reader.errors("errors"),
                created_at,
                in_progress_at: reader.time("started_at"),
                // Known only where the answer repeats what the submitter asked for.
                expires_at: hours.and_then(|hours| created_at?.checked_add(hours.checked_mul(3600)?)),
                ended_at: reader.time("completed_at").filter(|_| ended),
                request_counts: counts(reader),
                metadata: reader.metadata("metadata"),
                ..Sighting::default()
            };
            // Requests that failed are in the error file where there is one.
            let apart = sighting.error_file_id.is_some();
            let has_results = has_outputs
                || sighting
                    .request_counts
                    .is_none_or(|counts| counts.completed > 0 || counts.done() > 0 && !apart);
            if ended && is_inline && has_results && sighting.output_file_id.is_none() {
                sighting.output_file_id = Some(results_id(&self.provider, &sighting.id));
            }
            sighting
        })
    }
}

/// Of the counts, `completed_requests` are those that were worked on, well or badly.
fn counts(reader: &mut Reader<'_>) -> Option<RequestCounts> {
    reader.whole(|reader| {
        let total = reader.count("total_requests");
        let failed = reader.count("failed_requests");
        let succeeded = reader
            .count("succeeded_requests")
            .or_else(|| Some(reader.count("completed_requests")?.saturating_sub(failed.unwrap_or(0))));
        read::counts(total, succeeded, failed)
    })
}

impl Provider for Mistral {
    fn retrieve(&self, id: &str) -> Result<Call, Failure> {
        // The outputs of a job whose requests came inline would be in the answer, all of them.
        self.requests.get(&format!("/batch/jobs/{}", segment(id)?), &[("inline", "false")])
    }

    fn retrieved(&self, id: &str, answer: &Answer) -> Result<Sighting, Failure> {
        let object = self.requests.object(answer)?;
        // A UUID is the same in capitals.
        let is_same = |told: &str| told.eq_ignore_ascii_case(id);
        let sighting = about(id, "id", object, is_same, |object| self.sighting(object))?;
        Ok(Sighting { id: id.to_owned(), ..sighting })
    }

    fn listing(&self) -> Option<Listing> {
        Some(Listing { live_only: true, ..Listing::pages(PAGE) })
    }

    fn list(&self, page: &PageRequest) -> Result<Call, Failure> {
        let number = page_number(page)?.to_string();
        let size = page_size(page).to_string();
        let mut query = vec![("page", number.as_str()), ("page_size", &size), ("order_by", "-created")];
        if page.live_only {
            query.extend(LIVE.map(|word| ("status", word)));
        }
        self.requests.get("/batch/jobs", &query)
    }

    fn listed(&self, page: &PageRequest, answer: &Answer) -> Result<Page, Failure> {
        let (items, around) = self.requests.list(answer, "data")?;
        let following = page_number(page)?.saturating_add(1);
        let size = u64::from(page_size(page));
        let sightings = sightings(&items, |object| self.sighting(object));
        let more = match Reader::new(&around).count("total") {
            Some(total) => following.saturating_mul(size) < total,
            None => items.len() as u64 >= size,
        };
        Ok(Page { sightings, next: more.then(|| following.to_string()) })
    }

    fn default_endpoint(&self) -> &'static str {
        "/v1/chat/completions"
    }

    /// Mistral's console has one page for all batches.
    fn console_url(&self, _id: &str) -> Option<String> {
        self.requests.goes_to("api.mistral.ai").then(|| "https://console.mistral.ai/build/batches".to_owned())
    }

    fn models_of(&self) -> Option<&'static str> {
        Some("Mistral")
    }

    fn intake(&self, _endpoint: &str) -> Result<Intake, Failure> {
        Ok(Intake {
            framing: Framing::Lines,
            own: LineForm {
                id: "custom_id",
                id_needed: true,
                body: "body",
                model: ModelPlace::Either,
                tells: &[
                    ("messages", "/v1/chat/completions"),
                    ("prompt", "/v1/fim/completions"),
                    ("document", "/v1/ocr"),
                    ("input", "/v1/embeddings"),
                    ("inputs", "/v1/embeddings"),
                ],
            },
            takes_openai: false,
            max_requests: Some(100_000),
            max_bytes: Some(MAX_BYTES),
            max_line_bytes: None,
            custom_id: IdRule::default(),
            one_model: true,
            endpoints: &ENDPOINTS,
            marks: true,
        })
    }

    fn translate(&self, line: RequestLine) -> Result<Translated, Untranslatable> {
        translation::line(line)
    }

    fn submit(&self, job: &Job) -> Result<Box<dyn Submission>, Failure> {
        let adapter = self.clone();
        let created = ReadCreated::new(move |answer| Ok(adapter.sighting(&adapter.requests.object(answer)?)));
        Ok(Box::new(FileThenJob::new(self.requests.clone(), job.clone(), created)?))
    }

    fn cancel(&self, id: &str) -> Result<Call, Failure> {
        self.requests.post(&format!("/batch/jobs/{}/cancel", segment(id)?), None)
    }

    /// What was created with its requests inline has its outputs inline, unless it was given a file.
    fn results(&self, batch: &Batch, part: Part) -> Result<Option<Box<dyn Fetch>>, Failure> {
        let file = match part {
            Part::Output => &batch.output_file_id,
            Part::Errors => &batch.error_file_id,
        };
        let Some(file) = file else { return Ok(None) };
        if *file == results_id(&self.provider, &batch.id) {
            let path = format!("/batch/jobs/{}", segment(&batch.id)?);
            let call = self.requests.get(&path, &[("inline", "true")])?;
            return Ok(Some(OneStream::array(call, &[&["outputs"]])));
        }
        Ok(Some(OneStream::lines(self.file_content(file)?)))
    }

    fn output_line(&self, record: Record<'_>) -> Result<OutputLine, String> {
        output_line(record.object)
    }

    fn gives_openai_lines(&self) -> bool {
        true
    }

    fn file_content(&self, file: &str) -> Result<Call, Failure> {
        self.requests.get(&format!("/files/{}/content", segment(file)?), &[])
    }
}

fn page_number(page: &PageRequest) -> Result<u64, Failure> {
    match page.cursor.as_deref() {
        None => Ok(0),
        Some(cursor) => cursor.parse().map_err(|_| {
            Failure::BadRequest("a page of Mistral's list is a number; begin at the first".to_owned())
        }),
    }
}

fn page_size(page: &PageRequest) -> u32 {
    page.limit.clamp(1, PAGE)
}
