//! Batches of the Gemini Developer API (`docs/providers/gemini.md`): long-running operations with the batch in `metadata`.

mod models;
mod one_pass;
mod results;
mod schema;
mod submission;
mod translation;

use super::given_line::GivenLine;
use super::hook::Hook;
use super::openai_results::OneStream;
use super::read::{self, Reader};
use super::request::{Credential, Requests, segment};
use super::results::{Fetch, OutputLine, Part, Record};
use super::submit::{
    Framing, IdRule, Intake, Job, LineForm, ModelPlace, ReadCreated, RequestLine, Submission, Translated,
    Untranslatable, only_a_day, split_name,
};
use super::{Account, Kind, Listing, Page, PageRequest, Provider, about, results_id, sightings};
use crate::config::KindFacts;
use crate::domain::batch::{Batch, RequestCounts};
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use serde_json::{Map, Value};
use submission::UploadThenBatch;

pub(super) use results::{IDS, answered, is_openai_s};
pub(super) use translation::line as translated;

pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "gemini",
        key_env: &["GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY"],
        key_header: "x-goog-api-key",
        base_url_env: Some("GOOGLE_GEMINI_BASE_URL"),
        base_url: Some("https://generativelanguage.googleapis.com/v1beta"),
        adds_version: true,
        ..KindFacts::NONE
    },
    claims: |id| {
        id.strip_prefix(PREFIX).is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-')
        })
    },
    words: &[
        ("BATCH_STATE_UNSPECIFIED", Status::Validating),
        ("BATCH_STATE_PENDING", Status::Validating),
        ("BATCH_STATE_RUNNING", Status::InProgress),
        ("BATCH_STATE_SUCCEEDED", Status::Completed),
        ("BATCH_STATE_FAILED", Status::Failed),
        ("BATCH_STATE_EXPIRED", Status::Expired),
        ("BATCH_STATE_CANCELLED", Status::Cancelled),
        // The SDK's words, which Vertex shares; only their prefix differs for the others.
        ("JOB_STATE_QUEUED", Status::Validating),
        ("JOB_STATE_UPDATING", Status::InProgress),
        ("JOB_STATE_PAUSED", Status::InProgress),
        ("JOB_STATE_PARTIALLY_SUCCEEDED", Status::Completed),
        ("JOB_STATE_CANCELLING", Status::Cancelling),
    ],
    hook: Some(Hook::GEMINI),
    build: |account| Box::new(Gemini::new(account)),
};

/// What every id begins with, in answers.
const PREFIX: &str = "batches/";

/// What every file's id begins with.
const FILES: &str = "files/";

/// What is asked of one batch: everything but `response`, which carries the whole results of a batch whose requests
/// were given inline, a gigabyte at worst.
///
/// `fields` is the partial response that every Google API knows (<https://cloud.google.com/apis/docs/system-parameters>).
/// It stops at `metadata`, whose type is `Any`: whether the mask may reach into one is documented nowhere, and a mask
/// that is refused would fail every poll. Where the results are, `metadata.output` says.
const FIELDS: &str = "name,metadata,done,error";

/// What a batch may be for, in OpenAI's words.
const CHAT: &str = "/v1/chat/completions";
const EMBEDDINGS: &str = "/v1/embeddings";

/// The longest input file: 2 GB.
const MAX_BYTES: u64 = 2 << 30;

/// The most batches that are asked for on a page.
const PAGE: u32 = 100;

/// Seconds after creation at which a batch that still waits or runs expires.
const WINDOW: i64 = 48 * 3600;

#[derive(Clone, Debug)]
struct Gemini {
    requests: Requests,
    provider: String,
}

impl Gemini {
    fn new(account: &Account) -> Self {
        Self {
            requests: Requests::new(account, Credential::Header("x-goog-api-key"), &[]).versioned("v1beta"),
            provider: account.config.name.clone(),
        }
    }

    fn sighting(&self, object: &Map<String, Value>) -> Sighting {
        Reader::sighting(object, |reader| {
            // Some give the batch itself where its operation belongs.
            let within = if reader.is_object("metadata") { "metadata." } else { "" };
            let at = |field: &str| format!("{within}{field}");
            let id = reader.text("name").or_else(|| reader.text(&at("name"))).unwrap_or_default();
            let provider_status = reader.word(&[&at("state"), "state"]);
            let done = reader.flag("done").unwrap_or(false);
            let status = match &provider_status {
                Some(word) => read::status(word, KIND.words),
                None if done && reader.has("error") => Some(Status::Failed),
                None if done => Some(Status::Completed),
                None => None,
            };
            let ended = status.is_some_and(Status::is_terminal);
            let request_counts = counts(reader, &at("batchStats"));
            let output_file_id = reader
                .id(&at("output.responsesFile"))
                .or_else(|| reader.id("response.responsesFile"))
                .or_else(|| {
                    let inline =
                        reader.has(&at("output.inlinedResponses")) || reader.has("response.inlinedResponses");
                    // What succeeded left its results somewhere, even if the answer does not say where.
                    let succeeded = status == Some(Status::Completed)
                        || request_counts.is_some_and(|counts| counts.completed > 0);
                    (ended && (inline || succeeded)).then(|| results_id(&self.provider, &id))
                });
            let model = reader.text(&at("model"));
            let is_embedding =
                reader.text(&at("@type")).is_some_and(|name| name.ends_with("EmbedContentBatch"));
            let created_at = reader.time(&at("createTime"));
            // There is no metadata: what marks the batch stands in its name.
            let name = reader.text(&at("displayName"));
            let (name, marker) = name.as_deref().map_or((None, None), |name| {
                let (name, marker) = split_name(name);
                (Some(name.to_owned()), marker.map(str::to_owned))
            });
            Sighting {
                id,
                status,
                provider_status,
                endpoint: model.as_deref().map(|model| self.endpoint(model, is_embedding)),
                model: model.map(|model| model.strip_prefix("models/").unwrap_or(&model).to_owned()),
                display_name: name,
                marker,
                input_file_id: reader.id(&at("inputConfig.fileName")),
                output_file_id,
                errors: reader.errors("error"),
                created_at,
                expires_at: created_at.map(|created| created.saturating_add(WINDOW)),
                ended_at: reader
                    .time(&at("endTime"))
                    .or_else(|| reader.time(&at("updateTime")))
                    .filter(|_| ended),
                request_counts,
                ..Sighting::default()
            }
        })
    }

    /// The path that a batch for `model` was created with.
    fn endpoint(&self, model: &str, is_embedding: bool) -> String {
        let version = self.requests.version().unwrap_or("v1beta");
        let collection = if model.contains('/') { "" } else { "models/" };
        let method = if is_embedding { "asyncBatchEmbedContent" } else { "batchGenerateContent" };
        format!("/{version}/{collection}{model}:{method}")
    }
}

/// Google leaves numbers out that are zero.
fn counts(reader: &mut Reader<'_>, path: &str) -> Option<RequestCounts> {
    if !reader.is_object(path) {
        return None;
    }
    reader.whole(|reader| {
        let [total, completed, failed, pending] =
            ["requestCount", "successfulRequestCount", "failedRequestCount", "pendingRequestCount"]
                .map(|field| reader.count(&format!("{path}.{field}")).unwrap_or(0));
        let known = completed.saturating_add(failed).saturating_add(pending);
        Some(RequestCounts { total: total.max(known), completed, failed })
    })
}

impl Provider for Gemini {
    fn retrieve(&self, id: &str) -> Result<Call, Failure> {
        let path = format!("/{PREFIX}{}", segment(bare(id))?);
        self.requests.get(&path, &[("fields", FIELDS)])
    }

    fn retrieved(&self, id: &str, answer: &Answer) -> Result<Sighting, Failure> {
        let object = self.requests.object(answer)?;
        let is_same = |told: &str| bare(told) == bare(id);
        about(&self.canonical_id(id), "name", object, is_same, |object| self.sighting(object))
    }

    /// An item lacks what [`FIELDS`] leaves out too, and nothing else.
    fn listing(&self) -> Option<Listing> {
        Some(Listing::pages(PAGE))
    }

    fn list(&self, page: &PageRequest) -> Result<Call, Failure> {
        let size = page.limit.clamp(1, PAGE).to_string();
        let mut query = vec![("pageSize", size.as_str())];
        query.extend(page.cursor.as_deref().map(|token| ("pageToken", token)));
        self.requests.get("/batches", &query)
    }

    fn listed(&self, page: &PageRequest, answer: &Answer) -> Result<Page, Failure> {
        let (items, around) = self.requests.list(answer, "operations")?;
        let sightings = sightings(&items, |object| self.sighting(object));
        let next =
            Reader::new(&around).text("nextPageToken").filter(|token| page.cursor.as_ref() != Some(token));
        Ok(Page { sightings, next })
    }

    fn canonical_id(&self, id: &str) -> String {
        format!("{PREFIX}{}", bare(id))
    }

    fn default_endpoint(&self) -> &'static str {
        "/v1beta/models/{model}:batchGenerateContent"
    }

    /// AI Studio has no address for a batch that is documented anywhere.
    fn console_url(&self, _id: &str) -> Option<String> {
        None
    }

    fn models_of(&self) -> Option<&'static str> {
        Some("Google")
    }

    fn intake(&self, _endpoint: &str) -> Result<Intake, Failure> {
        Ok(Intake {
            framing: Framing::Lines,
            own: LineForm {
                id: "key",
                id_needed: false,
                body: "request",
                model: ModelPlace::Job,
                tells: &[("contents", CHAT), ("content", EMBEDDINGS)],
            },
            takes_openai: false,
            max_requests: None,
            max_bytes: Some(MAX_BYTES),
            max_line_bytes: None,
            custom_id: IdRule::default(),
            one_model: true,
            endpoints: &[CHAT, EMBEDDINGS],
            marks: true,
        })
    }

    fn translate(&self, line: RequestLine) -> Result<Translated, Untranslatable> {
        translation::line(line)
    }

    fn submit(&self, job: &Job) -> Result<Box<dyn Submission>, Failure> {
        only_a_day(job)?;
        let adapter = self.clone();
        let created = ReadCreated::new(move |answer| Ok(adapter.sighting(&adapter.requests.object(answer)?)));
        Ok(Box::new(UploadThenBatch::new(self.requests.clone(), job.clone(), created)))
    }

    fn cancel(&self, id: &str) -> Result<Call, Failure> {
        self.requests.post(&format!("/{PREFIX}{}:cancel", segment(bare(id))?), None)
    }

    /// The answer is `{}`, whatever becomes of the batch.
    fn cancelled(&self, _id: &str, answer: &Answer) -> Result<Option<Sighting>, Failure> {
        self.requests.object(answer).map(|_| None)
    }

    fn results(&self, batch: &Batch, part: Part) -> Result<Option<Box<dyn Fetch>>, Failure> {
        let (Part::Output, Some(file)) = (part, &batch.output_file_id) else { return Ok(None) };
        if file.starts_with(FILES) {
            return Ok(Some(OneStream::lines(self.file_content(file)?)));
        }
        // Requests that came inline leave their results in the batch itself; without the mask they come along.
        let call = self.requests.get(&format!("/{PREFIX}{}", segment(bare(&batch.id))?), &[])?;
        Ok(Some(OneStream::array(call, results::INLINE)))
    }

    fn output_line(&self, record: Record<'_>) -> Result<OutputLine, String> {
        results::output_line(record)
    }

    fn write_line<'a>(&self, record: &'a [u8], batch: &'a Batch, out: &mut Vec<u8>) -> Option<GivenLine<'a>> {
        one_pass::write_line(record, batch, out)
    }

    fn file_content(&self, file: &str) -> Result<Call, Failure> {
        let file = segment(file.strip_prefix(FILES).unwrap_or(file))?;
        self.requests.get(&format!("/{FILES}{file}:download"), &[("alt", "media")])
    }
}

fn bare(id: &str) -> &str {
    id.strip_prefix(PREFIX).unwrap_or(id)
}
