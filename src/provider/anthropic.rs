//! Anthropic's Message Batches (`docs/providers/anthropic.md`): one word for every end, told apart by the counters.

pub(super) mod models;
mod one_pass;
mod results;
pub(super) mod sampling;
mod schema;
mod submission;
mod thinking;
mod translation;

use super::given_line::GivenLine;
use super::openai_results::OneStream;
use super::read::{self, Reader};
use super::request::{Credential, Requests, segment};
use super::results::{Fetch, OutputLine, Part, Record};
use super::submit::{
    Framing, IdRule, Intake, Job, LineForm, ModelPlace, ReadCreated, RequestLine, Submission, Translated,
    Untranslatable, only_a_day, patient,
};
use super::{Account, Kind, Listing, Page, PageRequest, Provider, about, after_last, results_id, sightings};
use crate::config::{KindFacts, SignedPlace};
use crate::domain::batch::{Batch, RequestCounts};
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use crate::http::authorize::{AwsSource, Issuer};
use crate::http::call::{Answer, Call, Grant};
use crate::http::failure::Failure;
use serde_json::{Map, Value};
use submission::OneRequest;

pub(super) use results::completion;
pub(super) use translation::line as translated;

/// Anthropic's Message Batches.
pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "anthropic",
        key_env: &["ANTHROPIC_API_KEY"],
        key_header: "x-api-key",
        token_env: &["ANTHROPIC_AUTH_TOKEN"],
        base_url_env: Some("ANTHROPIC_BASE_URL"),
        base_url: Some("https://api.anthropic.com"),
        options: &["access_key_id", "profile", "region"],
        // Claude Platform on AWS.
        signed_place: Some(SignedPlace {
            option: "region",
            base_url: "https://aws-external-anthropic.{region}.api.aws",
        }),
        ..KindFacts::NONE
    },
    claims: |id| {
        id.strip_prefix("msgbatch_")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_alphanumeric()))
    },
    words: &[
        ("in_progress", Status::InProgress),
        ("canceling", Status::Cancelling),
        ("ended", Status::Completed),
        ("ended", Status::Expired),
        ("ended", Status::Cancelled),
    ],
    hook: None,
    build: |account| Box::new(Anthropic::new(account)),
};

/// The path that every request of a batch goes to.
const ENDPOINT: &str = "/v1/messages";

/// The name that requests to Claude Platform on AWS are signed for (`docs/providers/anthropic.md#claude-platform-on-aws`).
const AWS_SERVICE: &str = "aws-external-anthropic";

/// The most batches on a page.
const PAGE: u32 = 1000;

/// Seconds from creation to the deletion of the results.
const RESULTS_LIVE: i64 = 29 * 86_400;

/// What a batch may hold: 256 MB, taken as generously as may be.
const MAX_BYTES: u64 = 256 << 20;

/// What one request may hold: 32 MB, as generously.
const MAX_REQUEST_BYTES: u64 = 32 << 20;

#[derive(Clone, Debug)]
struct Anthropic {
    requests: Requests,
    provider: String,
    /// Whose credentials sign each request; `None`: it bears a key or a token.
    source: Option<AwsSource>,
}

/// Requests by fate, as Anthropic counts them.
#[derive(Clone, Copy)]
struct Fates {
    processing: u64,
    succeeded: u64,
    errored: u64,
    canceled: u64,
    expired: u64,
}

impl Anthropic {
    fn new(account: &Account) -> Self {
        // Every imitation knows this one; 2026-10-21 also refuses the sampling parameters that older models take.
        let headers = [("anthropic-version", "2023-06-01")];
        let option = |name: &str| account.config.options.get(name).cloned();
        let fixed = option("access_key_id").zip(account.api_key.clone());
        let bears_one = fixed.is_none() && (account.api_key.is_some() || account.auth_token.is_some());
        let source = option("region").filter(|_| !bears_one).map(|region| AwsSource {
            region,
            profile: option("profile"),
            fixed,
        });
        let key = account.api_key.clone().filter(|_| source.is_none());
        let account = &Account { api_key: key, ..account.clone() };
        Self {
            requests: Requests::new(account, Credential::Header("x-api-key"), &headers).versioned("v1"),
            provider: account.config.name.clone(),
            source,
        }
    }

    /// `call` with the need for a signature, unless it bears a key or a token.
    fn signed(&self, call: Call) -> Call {
        match &self.source {
            Some(AwsSource { region, .. }) => {
                call.granted(Grant::Aws { service: AWS_SERVICE, region: region.clone() })
            }
            None => call,
        }
    }

    fn sighting(&self, object: &Map<String, Value>) -> Sighting {
        Reader::sighting(object, |reader| {
            let id = reader.id("id").unwrap_or_default();
            let provider_status = reader.word(&["processing_status", "status"]);
            let fates = Fates::read(reader);
            let cancelling_at = reader.time("cancel_initiated_at");
            let status =
                provider_status.as_deref().and_then(|word| status(word, fates, cancelling_at.is_some()));
            let ended = status.is_some_and(Status::is_terminal);
            let created_at = reader.time("created_at");
            let archived_at = reader.time("archived_at");
            Sighting {
                // Archived: the results are gone. Failed: Anthropic never says so, and an imitation has none.
                output_file_id: (ended && status != Some(Status::Failed) && archived_at.is_none())
                    .then(|| results_id(&self.provider, &id)),
                id,
                status,
                provider_status,
                endpoint: Some(ENDPOINT.to_owned()),
                completion_window: Some("24h".to_owned()),
                created_at,
                // Work begins at once, or nobody tells otherwise.
                in_progress_at: created_at,
                expires_at: reader.time("expires_at"),
                cancelling_at,
                ended_at: reader.time("ended_at").filter(|_| ended),
                request_counts: fates.map(Fates::counts).or_else(|| reader.counts("request_counts")),
                results_expire_at: archived_at
                    .or_else(|| created_at.map(|created| created.saturating_add(RESULTS_LIVE))),
                ..Sighting::default()
            }
        })
    }
}

impl Fates {
    /// `None` if the answer has none of the five, or one that cannot be read.
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        if !reader.is_object("request_counts") {
            return None;
        }
        reader.whole(|reader| {
            let fates = ["processing", "succeeded", "errored", "canceled", "expired"]
                .map(|fate| reader.count(&format!("request_counts.{fate}")));
            if fates.iter().all(Option::is_none) {
                return None;
            }
            let [processing, succeeded, errored, canceled, expired] = fates.map(Option::unwrap_or_default);
            Some(Self { processing, succeeded, errored, canceled, expired })
        })
    }

    fn counts(self) -> RequestCounts {
        let failed = self.errored.saturating_add(self.canceled).saturating_add(self.expired);
        let total = self.processing.saturating_add(self.succeeded).saturating_add(failed);
        RequestCounts { total, completed: self.succeeded, failed }
    }
}

/// What `word` means: for `ended` the counters decide (`docs/providers/anthropic.md`).
fn status(word: &str, fates: Option<Fates>, cancelled: bool) -> Option<Status> {
    if read::status(word, &[("ended", Status::Completed)]).is_none() {
        // An imitation may say the end outright.
        return read::status(word, &read::OPENAI_WORDS);
    }
    Some(match fates {
        Some(fates) if fates.canceled > 0 => Status::Cancelled,
        Some(fates) if fates.expired > 0 => Status::Expired,
        None if cancelled => Status::Cancelled,
        // Even if a cancellation was asked for: every request may have been past interruption when it came.
        Some(_) | None => Status::Completed,
    })
}

impl Provider for Anthropic {
    fn retrieve(&self, id: &str) -> Result<Call, Failure> {
        Ok(self.signed(self.requests.get(&format!("/messages/batches/{}", segment(id)?), &[])?))
    }

    fn retrieved(&self, id: &str, answer: &Answer) -> Result<Sighting, Failure> {
        let object = self.requests.object(answer)?;
        about(id, "id", object, |told| told == id, |object| self.sighting(object))
    }

    fn listing(&self) -> Option<Listing> {
        Some(Listing::behind_ids(PAGE))
    }

    fn list(&self, page: &PageRequest) -> Result<Call, Failure> {
        let limit = page.limit.clamp(1, PAGE).to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(page.cursor.as_deref().map(|after| ("after_id", after)));
        Ok(self.signed(self.requests.get("/messages/batches", &query)?))
    }

    fn listed(&self, page: &PageRequest, answer: &Answer) -> Result<Page, Failure> {
        let (items, around) = self.requests.list(answer, "data")?;
        let sightings = sightings(&items, |object| self.sighting(object));
        let mut reader = Reader::new(&around);
        let more = reader.flag("has_more").unwrap_or(false);
        let next = if more { after_last(page, reader.id("last_id"), &sightings) } else { None };
        Ok(Page { sightings, next })
    }

    fn default_endpoint(&self) -> &'static str {
        ENDPOINT
    }

    /// The console shows a workspace's batches on one page; nothing in an answer tells the workspace.
    fn console_url(&self, _id: &str) -> Option<String> {
        self.requests
            .goes_to("api.anthropic.com")
            .then(|| "https://platform.claude.com/workspaces/default/batches".to_owned())
    }

    fn issuer(&self) -> Option<Issuer> {
        self.source.clone().map(Issuer::Aws)
    }

    fn models_of(&self) -> Option<&'static str> {
        Some("Anthropic")
    }

    fn intake(&self, _endpoint: &str) -> Result<Intake, Failure> {
        Ok(Intake {
            framing: Framing::Array,
            own: LineForm {
                id: "custom_id",
                id_needed: true,
                body: "params",
                model: ModelPlace::Request,
                tells: &[("messages", ENDPOINT)],
            },
            takes_openai: false,
            max_requests: Some(100_000),
            max_bytes: Some(MAX_BYTES),
            max_line_bytes: Some(MAX_REQUEST_BYTES),
            custom_id: IdRule { longest: Some(64), plain: true },
            one_model: false,
            endpoints: &[ENDPOINT, "/v1/chat/completions"],
            // The batch object has neither metadata nor a name.
            marks: false,
        })
    }

    fn translate(&self, line: RequestLine) -> Result<Translated, Untranslatable> {
        translation::line(line)
    }

    fn submit(&self, job: &Job) -> Result<Box<dyn Submission>, Failure> {
        only_a_day(job)?;
        let call = patient(self.signed(self.requests.post("/messages/batches", None)?));
        let adapter = self.clone();
        let created = ReadCreated::new(move |answer| Ok(adapter.sighting(&adapter.requests.object(answer)?)));
        Ok(Box::new(OneRequest::new(call, created)))
    }

    fn cancel(&self, id: &str) -> Result<Call, Failure> {
        let path = format!("/messages/batches/{}/cancel", segment(id)?);
        Ok(self.signed(self.requests.post(&path, None)?))
    }

    /// The path is formed anew: the `results_url` of the answer could lead the key to another host.
    fn results(&self, batch: &Batch, part: Part) -> Result<Option<Box<dyn Fetch>>, Failure> {
        if part == Part::Errors || batch.output_file_id.is_none() {
            return Ok(None);
        }
        let path = format!("/messages/batches/{}/results", segment(&batch.id)?);
        Ok(Some(OneStream::lines(self.signed(self.requests.get(&path, &[])?))))
    }

    fn output_line(&self, record: Record<'_>) -> Result<OutputLine, String> {
        results::output_line(record)
    }

    fn write_line<'a>(&self, record: &'a [u8], batch: &'a Batch, out: &mut Vec<u8>) -> Option<GivenLine<'a>> {
        one_pass::write_line(record, batch, out)
    }
}
