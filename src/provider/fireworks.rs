//! Fireworks' batch inference jobs (`docs/providers/fireworks.md`): everything below an account, requests and results in datasets.

mod results;
mod submission;

use super::read::{self, Reader};
use super::request::{Credential, Requests, segment};
use super::results::{Fetch, OutputLine, Part, Record};
use super::submit::{Intake, Job, RequestLine, Submission, Translated, Untranslatable, split_name};
use super::{Account, Kind, Listing, Page, PageRequest, Provider, about, results_id, sightings};
use crate::config::KindFacts;
use crate::domain::batch::{Batch, InputTokensDetails, OutputTokensDetails, RequestCounts, Usage};
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use serde_json::{Map, Value};

pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "fireworks",
        key_env: &["FIREWORKS_API_KEY"],
        base_url_env: Some("FIREWORKS_BASE_URL"),
        base_url: Some("https://api.fireworks.ai"),
        options: &["account"],
        required: &["account"],
        option_env: &[("account", &["FIREWORKS_ACCOUNT_ID"])],
        ..KindFacts::NONE
    },
    claims: |id| {
        let parts: Vec<&str> = id.split('/').collect();
        matches!(parts.as_slice(), ["accounts", account, "batchInferenceJobs", job] if !account.is_empty() && !job.is_empty())
    },
    words: &[
        ("JOB_STATE_UNSPECIFIED", Status::Validating),
        ("JOB_STATE_CREATING", Status::Validating),
        ("JOB_STATE_VALIDATING", Status::Validating),
        ("JOB_STATE_CREATING_INPUT_DATASET", Status::Validating),
        ("JOB_STATE_PENDING", Status::InProgress),
        ("JOB_STATE_RUNNING", Status::InProgress),
        ("JOB_STATE_RE_QUEUEING", Status::InProgress),
        ("JOB_STATE_IDLE", Status::InProgress),
        ("JOB_STATE_PAUSED", Status::InProgress),
        ("JOB_STATE_WRITING_RESULTS", Status::Finalizing),
        ("JOB_STATE_COMPLETED", Status::Completed),
        ("JOB_STATE_EARLY_STOPPED", Status::Completed),
        ("JOB_STATE_FAILED", Status::Failed),
        ("JOB_STATE_EXPIRED", Status::Expired),
        ("JOB_STATE_CANCELLING", Status::Cancelling),
        ("JOB_STATE_CANCELLED", Status::Cancelled),
        // A job that is being deleted never comes back.
        ("JOB_STATE_DELETING", Status::Cancelled),
        ("JOB_STATE_DELETING_CLEANING_UP", Status::Cancelled),
    ],
    hook: None,
    build: |account| Box::new(Fireworks::new(account)),
};

/// The most batches on a page.
const PAGE: u32 = 200;

#[derive(Clone, Debug)]
struct Fireworks {
    requests: Requests,
    provider: String,
    account: String,
}

impl Fireworks {
    fn new(account: &Account) -> Self {
        let name = account.config.options.get("account").map(String::as_str).unwrap_or_default();
        Self {
            requests: Requests::new(account, Credential::Bearer, &[]).versioned("v1"),
            provider: account.config.name.clone(),
            // Both ways of writing it are in use.
            account: name.trim_start_matches("accounts/").to_owned(),
        }
    }

    /// The path of everything of the account.
    fn own(&self) -> Result<String, Failure> {
        Ok(format!("/accounts/{}", segment(&self.account)?))
    }

    fn sighting(&self, object: &Map<String, Value>) -> Sighting {
        Reader::sighting(object, |reader| {
            let id = reader.text("name").unwrap_or_default();
            let provider_status = reader.word(&["state"]);
            let status = provider_status.as_deref().and_then(|word| read::status(word, KIND.words));
            let name = reader.text("displayName");
            let (display_name, marker) = name.as_deref().map(split_name).unzip();
            let ended = status.is_some_and(Status::is_terminal);
            let created_at = reader.time("createTime");
            let request_counts = counts(reader);
            // The dataset is named from the beginning, and filled at the end.
            let succeeded = status == Some(Status::Completed)
                || request_counts.is_some_and(|counts| counts.completed > 0);
            let has_output = reader.has("outputDatasetId") && ended && succeeded;
            Sighting {
                output_file_id: has_output.then(|| results_id(&self.provider, &id)),
                id,
                status,
                provider_status,
                model: reader.text("model"),
                display_name: display_name.map(str::to_owned),
                marker: marker.flatten().map(str::to_owned),
                input_file_id: reader.text("inputDatasetId"),
                errors: reader.errors("status").filter(|_| status == Some(Status::Failed)),
                created_at,
                // A job is given a day; nothing in the answer says so.
                expires_at: created_at.map(|created| created.saturating_add(86_400)),
                ended_at: reader.time("updateTime").filter(|_| ended),
                request_counts,
                usage: usage(reader).filter(|_| ended),
                ..Sighting::default()
            }
        })
    }
}

/// Requests that were never worked on, as in a job that was stopped early, have neither succeeded nor failed.
fn counts(reader: &mut Reader<'_>) -> Option<RequestCounts> {
    if !reader.is_object("jobProgress") {
        return None;
    }
    reader.whole(|reader| {
        let [total, completed, failed] =
            ["totalInputRequests", "successfullyProcessedRequests", "failedRequests"]
                .map(|field| reader.count(&format!("jobProgress.{field}")));
        read::counts(total, completed, failed)
    })
}

fn usage(reader: &mut Reader<'_>) -> Option<Usage> {
    if !reader.is_object("jobProgress") {
        return None;
    }
    reader.whole(|reader| {
        let [input, output, cached] = ["inputTokens", "outputTokens", "cachedInputTokenCount"]
            .map(|field| reader.count(&format!("jobProgress.{field}")));
        if input.is_none() && output.is_none() {
            return None;
        }
        let (input_tokens, output_tokens) = (input.unwrap_or(0), output.unwrap_or(0));
        Some(Usage {
            input_tokens,
            input_tokens_details: InputTokensDetails {
                cached_tokens: cached.unwrap_or(0),
                ..InputTokensDetails::default()
            },
            output_tokens,
            output_tokens_details: OutputTokensDetails::default(),
            total_tokens: input_tokens.saturating_add(output_tokens),
        })
    })
}

impl Provider for Fireworks {
    fn retrieve(&self, id: &str) -> Result<Call, Failure> {
        self.requests.get(&self.job(id)?, &[])
    }

    fn retrieved(&self, id: &str, answer: &Answer) -> Result<Sighting, Failure> {
        let object = self.requests.object(answer)?;
        let is_same = |told: &str| self.canonical_id(told) == self.canonical_id(id);
        let sighting =
            about(&self.canonical_id(id), "name", object, is_same, |object| self.sighting(object))?;
        Ok(Sighting { id: self.canonical_id(id), ..sighting })
    }

    fn listing(&self) -> Option<Listing> {
        Some(Listing::pages(PAGE))
    }

    fn list(&self, page: &PageRequest) -> Result<Call, Failure> {
        let size = page.limit.clamp(1, PAGE).to_string();
        let mut query = vec![("pageSize", size.as_str()), ("orderBy", "created_time desc")];
        query.extend(page.cursor.as_deref().map(|token| ("pageToken", token)));
        self.requests.get(&format!("{}/batchInferenceJobs", self.own()?), &query)
    }

    fn listed(&self, page: &PageRequest, answer: &Answer) -> Result<Page, Failure> {
        let (items, around) = self.requests.list(answer, "batchInferenceJobs")?;
        let sightings = sightings(&items, |object| self.sighting(object));
        let next =
            Reader::new(&around).text("nextPageToken").filter(|token| page.cursor.as_ref() != Some(token));
        Ok(Page { sightings, next })
    }

    /// A job is known by its whole name, and by the last part of it within the account.
    fn canonical_id(&self, id: &str) -> String {
        if id.contains('/') { id.to_owned() } else { format!("accounts/{}/{JOBS}/{id}", self.account) }
    }

    fn default_endpoint(&self) -> &'static str {
        "/v1/chat/completions"
    }

    fn console_url(&self, id: &str) -> Option<String> {
        let job = segment(id.rsplit('/').next()?).ok()?;
        let page = format!("https://app.fireworks.ai/dashboard/batch-inference/{job}");
        self.requests.goes_to("api.fireworks.ai").then_some(page)
    }

    fn intake(&self, _endpoint: &str) -> Result<Intake, Failure> {
        Ok(submission::INTAKE)
    }

    fn translate(&self, line: RequestLine) -> Result<Translated, Untranslatable> {
        submission::translate(line)
    }

    fn submit(&self, job: &Job) -> Result<Box<dyn Submission>, Failure> {
        submission::DatasetThenJob::begin(self.clone(), job.clone())
    }

    fn results(&self, batch: &Batch, part: Part) -> Result<Option<Box<dyn Fetch>>, Failure> {
        if batch.output_file_id.is_none() {
            return Ok(None);
        }
        results::Output::begin(self.clone(), batch, part).map(Some)
    }

    fn input(&self, batch: &Batch) -> Result<Box<dyn Fetch>, Failure> {
        results::Output::of_input(self.clone(), batch)
    }

    fn output_line(&self, record: Record<'_>) -> Result<OutputLine, String> {
        results::output_line(record)
    }
}

impl Fireworks {
    /// The path of a job. Only the account's own are asked for, whatever account the id names.
    fn job(&self, id: &str) -> Result<String, Failure> {
        let own = format!("accounts/{}/{JOBS}/", self.account);
        let job = id.strip_prefix(&own).unwrap_or(id);
        if job.starts_with("accounts/") && job.contains(JOBS) {
            return Err(Failure::BadRequest(format!(
                "the id belongs to another account than `{}`; give one of its own",
                self.account
            )));
        }
        Ok(format!("{}/{JOBS}/{}", self.own()?, segment(job)?))
    }
}

const JOBS: &str = "batchInferenceJobs";
