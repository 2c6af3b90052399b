//! OpenAI's batches (`docs/providers/openai.md`), and what every service that imitates them has in common.

mod inline;
mod submission;

use super::hook::Hook;
use super::lenient::string_end;
use super::openai_results::{OneStream, output_line};
use super::read::{self, Reader};
use super::request::{Credential, Requests, segment};
use super::results::{Fetch, OutputLine, Part, Record};
use super::submit::{Intake, Job, ReadCreated, RequestLine, Submission, Translated, Untranslatable};
use super::unsupported::{no_submit, unsupported};
use super::{Account, Kind, Listing, Page, PageRequest, Provider, about, after_last, results_id, sightings};
use crate::config::{KindFacts, ProviderConfig};
use crate::domain::batch::Batch;
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use crate::http::call::{Answer, BodyLimit, Call};
use crate::http::failure::Failure;
use crate::http::limits;
use http::Method;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use submission::as_it_is;

pub(super) use inline::RequestsWithin;
pub(super) use submission::{
    Creation, FormFields, Start, Way, bare, bare_creation, creation, creation_without_metadata,
    creation_without_window, metadata,
};

pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "openai",
        key_env: &["OPENAI_API_KEY"],
        base_url_env: Some("OPENAI_BASE_URL"),
        base_url: Some("https://api.openai.com/v1"),
        counts_live: true,
        options: &["organization", "project"],
        option_env: &[("organization", &["OPENAI_ORG_ID"]), ("project", &["OPENAI_PROJECT_ID"])],
        ..KindFacts::NONE
    },
    claims,
    words: &read::OPENAI_WORDS,
    hook: Some(Hook::OPENAI),
    build: |account| {
        let creation = Some(Creation { intake: INTAKE, ..Creation::OPENAI });
        let dialect = Dialect { file_retention_secs: Some(FILE_RETENTION_SECS), creation, ..Dialect::OPENAI };
        Box::new(OpenAi::of(account, &dialect))
    },
};

/// The eight words, and those of SiliconFlow and Novita for two of them (`docs/providers.md#status-mapping`): read at every service,
/// as gateways pass on what they are told.
pub(super) const WORDS: [(&str, Status); 10] = {
    let [validating, in_progress, finalizing, completed, failed, expired, cancelling, cancelled] =
        read::OPENAI_WORDS;
    [
        validating,
        in_progress,
        finalizing,
        completed,
        failed,
        expired,
        cancelling,
        cancelled,
        ("in_queue", Status::Validating),
        ("progress", Status::InProgress),
    ]
};

/// The most batches that OpenAI gives on a page.
const PAGE: u32 = 100;

/// Seconds that OpenAI keeps an output file unless the submitter said otherwise.
const FILE_RETENTION_SECS: i64 = 30 * 86_400;

/// So many megabytes, in bytes. Nobody says of how many bytes; so the larger megabyte counts, and a little more: a limit
/// that is too high here costs an upload that is refused, one that is too low a file that would have been taken.
pub(in crate::provider) const fn megabytes(count: u64) -> u64 {
    count * 1_050_000
}

/// What OpenAI's batches may be for.
const ENDPOINTS: [&str; 8] = [
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
];

/// What OpenAI takes.
const INTAKE: Intake = Intake {
    max_requests: Some(50_000),
    max_bytes: Some(megabytes(200)),
    endpoints: &ENDPOINTS,
    ..Intake::OPENAI
};

/// Reads a record of results.
pub(super) type LineReader = fn(&Map<String, Value>) -> Result<OutputLine, String>;

/// How a service's interface differs from OpenAI's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    /// What its list is good for.
    pub listing: Listing,
    /// How its list goes on.
    pub paging: Paging,
    pub results_location: ResultsLocation,
    /// What stands behind the address where only a host is configured, as some libraries want it; empty: nothing.
    pub root: &'static str,
    /// The path that a batch's requests go to where the service does not say. Its version is that of all paths.
    pub endpoint: &'static str,
    /// Seconds that output files are kept after the end, where that is known.
    pub file_retention_secs: Option<i64>,
    /// How batches are created there.
    pub creation: Option<Creation>,
    /// Whether a batch can be cancelled there.
    pub cancels: bool,
    /// Whether clients of OpenAI's own interface may upload files and create batches there.
    pub passthrough: bool,
    /// Reads a record of its results; `None`: they are in OpenAI's form.
    pub output_line: Option<LineReader>,
    /// Reads what stands elsewhere, or means something else, once the fields of OpenAI's object are read.
    pub amend: fn(&mut Reader<'_>, &mut Sighting),
}

/// How a list of batches goes on after a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paging {
    /// `limit` batches `after` the last one's id.
    After,
    /// From the `cursor` in `paging.next_cursor`; how many at a time is the service's choice.
    Cursor,
    /// All there are stand in one answer.
    Whole,
}

/// Where a service keeps results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResultsLocation {
    /// In files, whose ids the batch names.
    Files,
    Batch,
    /// In what is told of the batch itself, once it has ended.
    Retrieval,
}

impl Dialect {
    /// OpenAI's own interface.
    pub const OPENAI: Self = Self {
        listing: Listing::behind_ids(PAGE),
        paging: Paging::After,
        results_location: ResultsLocation::Files,
        root: "",
        endpoint: "/v1/chat/completions",
        file_retention_secs: None,
        creation: Some(Creation::OPENAI),
        cancels: true,
        passthrough: true,
        output_line: None,
        amend: |_, _| {},
    };
}

/// An account at a service with OpenAI's interface, or a dialect of it.
#[derive(Clone, Debug)]
pub(super) struct OpenAi {
    requests: Requests,
    provider: String,
    /// The kind's further keys, as configured.
    options: BTreeMap<String, String>,
    dialect: Dialect,
}

impl OpenAi {
    /// For `account`, whose key is a bearer's and who may name an organization and a project.
    pub fn of(account: &Account, dialect: &Dialect) -> Self {
        let headers: Vec<(&'static str, &str)> =
            [("openai-organization", "organization"), ("openai-project", "project")]
                .into_iter()
                .filter_map(|(header, option)| Some((header, account.config.options.get(option)?.as_str())))
                .collect();
        Self::new(account, Requests::new(account, Credential::Bearer, &headers).rooted(dialect.root), dialect)
    }

    /// For `account`, asked by `requests`.
    pub fn new(account: &Account, requests: Requests, dialect: &Dialect) -> Self {
        let ProviderConfig { name, options, .. } = account.config;
        Self { requests, provider: name.clone(), options: options.clone(), dialect: *dialect }
    }

    /// `path`, which is OpenAI's, with the version that the service's own paths have.
    fn own_path(&self, path: &str) -> String {
        let version = self.dialect.endpoint.split('/').nth(1).unwrap_or("v1");
        path.strip_prefix("/v1/").map_or_else(|| path.to_owned(), |rest| format!("/{version}/{rest}"))
    }

    /// The model that takes the place of what requests name, at services where that is the account's own affair.
    fn deployment(&self) -> Option<&String> {
        self.options.get("deployment")
    }

    pub(super) fn sighting(&self, object: &Map<String, Value>) -> Sighting {
        Reader::sighting(object, |reader| {
            let provider_status = reader.word(&["status", "state.status", "state"]);
            let status = provider_status.as_deref().and_then(|word| read::status(word, &WORDS));
            let mut sighting = Sighting {
                id: reader.id("id").unwrap_or_default(),
                status,
                provider_status,
                endpoint: reader.text("endpoint"),
                model: reader.text("model"),
                input_file_id: reader.id("input_file_id"),
                completion_window: reader.text("completion_window"),
                output_file_id: reader.id("output_file_id"),
                error_file_id: reader.id("error_file_id"),
                errors: reader.errors("errors"),
                created_at: reader.time("created_at"),
                in_progress_at: reader.time("in_progress_at"),
                expires_at: reader.time("expires_at"),
                finalizing_at: reader.time("finalizing_at"),
                completed_at: reader.time("completed_at"),
                failed_at: reader.time("failed_at"),
                expired_at: reader.time("expired_at"),
                cancelling_at: reader.time("cancelling_at"),
                cancelled_at: reader.time("cancelled_at"),
                request_counts: reader.counts("request_counts"),
                metadata: reader.metadata("metadata"),
                usage: reader.usage("usage"),
                ..Sighting::default()
            };
            (self.dialect.amend)(reader, &mut sighting);
            if self.dialect.results_location != ResultsLocation::Files {
                sighting.error_file_id = None;
                sighting.output_file_id =
                    has_results(&sighting).then(|| results_id(&self.provider, &sighting.id));
            }
            sighting.results_expire_at = self.results_expire_at(reader, &sighting);
            sighting
        })
    }

    /// When the output file goes: as it says itself if it is there whole, else a fixed time after the end.
    fn results_expire_at(&self, reader: &mut Reader<'_>, sighting: &Sighting) -> Option<i64> {
        if reader.value("output_file_id").is_some_and(Value::is_object)
            && let Some(at) = reader.time("output_file_id.expires_at")
        {
            return Some(at);
        }
        sighting.output_file_id.as_ref().or(sighting.error_file_id.as_ref())?;
        let end = match sighting.status? {
            Status::Completed => sighting.completed_at,
            Status::Expired => sighting.expired_at,
            Status::Cancelled => sighting.cancelled_at,
            _ => None,
        }
        .or(sighting.ended_at)?;
        Some(end.saturating_add(self.dialect.file_retention_secs?))
    }
}

impl Provider for OpenAi {
    fn retrieve(&self, id: &str) -> Result<Call, Failure> {
        let mut call = self.requests.get(&format!("/batches/{}", segment(id)?), &[])?;
        if self.dialect.results_location == ResultsLocation::Retrieval {
            // What follows is results.
            call.body_limit = BodyLimit::Beginning(limits::PROVIDER_BODY);
        }
        Ok(call)
    }

    fn retrieved(&self, id: &str, answer: &Answer) -> Result<Sighting, Failure> {
        let object = match self.dialect.results_location {
            ResultsLocation::Retrieval => self.requests.object(&without_results(answer))?,
            _ => self.requests.object(answer)?,
        };
        // A gateway that takes its own id for the batch may answer with the one it stands for.
        let is_same = |told: &str| told == id || is_routed(id);
        let sighting = about(id, "id", object, is_same, |object| self.sighting(object))?;
        Ok(Sighting { id: id.to_owned(), ..sighting })
    }

    fn listing(&self) -> Option<Listing> {
        Some(self.dialect.listing)
    }

    fn list(&self, page: &PageRequest) -> Result<Call, Failure> {
        let limit = page_size(page).to_string();
        let (mut query, onward) = match self.dialect.paging {
            Paging::After => (vec![("limit", limit.as_str())], "after"),
            Paging::Cursor | Paging::Whole => (Vec::new(), "cursor"),
        };
        query.extend(page.cursor.as_deref().map(|cursor| (onward, cursor)));
        if self.dialect.listing.by_id > 0 {
            query.extend(page.ids.iter().map(|id| ("id", id.as_str())));
        }
        self.requests.get("/batches", &query)
    }

    fn listed(&self, page: &PageRequest, answer: &Answer) -> Result<Page, Failure> {
        let (items, around) = self.requests.list(answer, "data")?;
        // Where nobody says whether there is more, a page that is not full is the last; a bare array is all there is.
        let full = !around.is_empty() && items.len() >= page_size(page) as usize;
        let sightings = sightings(&items, |object| self.sighting(object));
        let mut reader = Reader::new(&around);
        let next = match self.dialect.paging {
            Paging::After if reader.flag("has_more").unwrap_or(full) => {
                after_last(page, reader.id("last_id"), &sightings)
            }
            Paging::Cursor => {
                reader.text("paging.next_cursor").filter(|cursor| page.cursor.as_ref() != Some(cursor))
            }
            Paging::After | Paging::Whole => None,
        };
        Ok(Page { sightings, next })
    }

    fn default_endpoint(&self) -> &'static str {
        self.dialect.endpoint
    }

    fn hold_incomplete(&self) -> bool {
        true
    }

    fn console_url(&self, id: &str) -> Option<String> {
        if !self.requests.goes_to("api.openai.com") {
            return None;
        }
        Some(format!("https://platform.openai.com/batches/{}", segment(id).ok()?))
    }

    fn cancel(&self, id: &str) -> Result<Call, Failure> {
        if !self.dialect.cancels {
            return unsupported("cannot cancel a batch");
        }
        self.requests.post(&format!("/batches/{}/cancel", segment(id)?), None)
    }

    fn models_of(&self) -> Option<&'static str> {
        self.requests.goes_to("api.openai.com").then_some("OpenAI")
    }

    fn intake(&self, _endpoint: &str) -> Result<Intake, Failure> {
        let Some(Creation { intake, .. }) = self.dialect.creation else { return no_submit() };
        Ok(Intake { takes_openai: intake.takes_openai && self.deployment().is_none(), ..intake })
    }

    fn translate(&self, line: RequestLine) -> Result<Translated, Untranslatable> {
        let translate = self.dialect.creation.map_or(as_it_is as fn(_) -> _, |creation| creation.translate);
        let mut translated = translate(line)?;
        if let Some(Value::String(url)) = translated.object.get_mut("url") {
            *url = self.own_path(url);
        }
        if let Some(deployment) = self.deployment()
            && let Some(Value::Object(body)) = translated.object.get_mut("body")
        {
            body.insert("model".to_owned(), deployment.as_str().into());
        }
        Ok(translated)
    }

    fn submit(&self, job: &Job) -> Result<Box<dyn Submission>, Failure> {
        let Some(creation) = self.dialect.creation else { return no_submit() };
        let adapter = self.clone();
        (creation.begin)(Start {
            requests: self.requests.clone(),
            options: self.options.clone(),
            job: Job { endpoint: self.own_path(&job.endpoint), ..job.clone() },
            way: creation.way,
            created: ReadCreated::new(move |answer| Ok(adapter.sighting(&adapter.requests.object(answer)?))),
        })
    }

    fn file_content(&self, file: &str) -> Result<Call, Failure> {
        if self.dialect.results_location != ResultsLocation::Files {
            return unsupported("keeps results with their batch, and no files");
        }
        if let Some((place, _)) =
            file.strip_prefix("https://").map(|rest| rest.split_once('?').unwrap_or((rest, "")))
        {
            return Err(Failure::Unsupported(format!(
                "it is in storage of your own, at {place}, which only that storage's credentials open"
            )));
        }
        self.requests.get(&format!("/files/{}/content", segment(file)?), &[])
    }

    fn results(&self, batch: &Batch, part: Part) -> Result<Option<Box<dyn Fetch>>, Failure> {
        let path = match self.dialect.results_location {
            ResultsLocation::Files => None,
            ResultsLocation::Batch => Some(format!("/batches/{}/results", segment(&batch.id)?)),
            ResultsLocation::Retrieval => Some(format!("/batches/{}", segment(&batch.id)?)),
        };
        if let Some(path) = path {
            if part == Part::Errors || batch.output_file_id.is_none() {
                return Ok(None);
            }
            return Ok(Some(OneStream::array(self.requests.get(&path, &[])?, &[&["results"]])));
        }
        let file = match part {
            Part::Output => &batch.output_file_id,
            Part::Errors => &batch.error_file_id,
        };
        file.as_ref().map(|file| Ok(OneStream::lines(self.file_content(file)?))).transpose()
    }

    fn output_line(&self, record: Record<'_>) -> Result<OutputLine, String> {
        self.dialect.output_line.unwrap_or(output_line)(record.object)
    }

    fn gives_openai_lines(&self) -> bool {
        self.dialect.output_line.is_none()
    }

    fn pass(&self, method: &Method, path: &str, query: Option<&str>) -> Result<Call, Failure> {
        if !self.dialect.passthrough {
            return unsupported("does not have OpenAI's interface for files and creations");
        }
        self.requests.raw(method.clone(), path, query)
    }
}

/// `answer` with nothing in the place of its results, which are as long as the batch is. Where they go on beyond what was
/// read, so does all that follows them.
fn without_results(answer: &Answer) -> Cow<'_, Answer> {
    let Some(results) = results_in(&answer.body) else { return Cow::Borrowed(answer) };
    let (before, behind) =
        (&answer.body[..results.start], answer.body.get(results.end..).unwrap_or_default());
    let behind = if results.end < answer.body.len() { behind } else { b"}" };
    let body = [before, b"null", behind].concat().into();
    Cow::Owned(Answer { body, cut: answer.cut && results.end < answer.body.len(), ..answer.clone() })
}

/// Where the array `results` of the object in `text` stands, as far as it is there.
fn results_in(text: &[u8]) -> Option<Range<usize>> {
    let (mut at, mut depth, mut key, mut begun) = (0, 0_usize, &b""[..], None);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                let Some(end) = string_end(text, at) else { break };
                if depth == 1 {
                    key = &text[at + 1..end - 1];
                }
                at = end;
                continue;
            }
            b'[' | b'{' => {
                if depth == 1 && *byte == b'[' && key == b"results" {
                    begun = Some(at);
                }
                depth += 1;
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if let Some(start) = begun.filter(|_| depth == 1) {
                    return Some(start..at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    begun.map(|start| start..text.len())
}

/// Whether there is something to fetch of a batch that keeps its results to itself.
fn has_results(sighting: &Sighting) -> bool {
    sighting.status == Some(Status::Completed)
        || sighting.status.is_some_and(Status::is_terminal)
            && sighting.request_counts.is_some_and(|counts| counts.completed > 0)
}

fn page_size(page: &PageRequest) -> u32 {
    page.limit.clamp(1, PAGE)
}

/// OpenAI's own ids: 32 hexadecimal digits, in the older ones 24 letters and digits (`docs/providers.md#guessing-the-provider-from-an-id`).
fn claims(id: &str) -> bool {
    let Some(rest) = id.strip_prefix("batch_") else { return false };
    let is_hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    !is_routed(id)
        && (rest.len() == 32 && rest.bytes().all(is_hex)
            || rest.len() == 24 && rest.bytes().all(|c| c.is_ascii_alphanumeric()))
}

/// Whether a LiteLLM proxy made the id: base64 of a text that begins with its name (`docs/providers.md#guessing-the-provider-from-an-id`).
pub(super) fn is_routed(id: &str) -> bool {
    id.starts_with("batch_bGl0ZWxsbT") || id.starts_with("bGl0ZWxsbV9wcm94eT")
}
