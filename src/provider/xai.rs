//! xAI's batches (`docs/providers/xai.md`): no status word, so the counters and times tell; results in pages.

mod results;
mod submission;

use super::read::{self, Reader};
use super::request::{Credential, Requests, segment};
use super::results::{Fetch, OutputLine, Part, Record};
use super::submit::{Intake, Job, Submission, split_name};
use super::{Account, Kind, Listing, Page, PageRequest, Provider, about, results_id, sightings};
use crate::config::KindFacts;
use crate::domain::batch::{Batch, BatchError, BatchErrors, RequestCounts};
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use http::StatusCode;
use jiff::fmt::rfc2822;
use serde_json::{Map, Value};
use std::borrow::Cow;

pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "xai",
        key_env: &["XAI_API_KEY"],
        base_url: Some("https://api.x.ai/v1"),
        adds_version: true,
        ..KindFacts::NONE
    },
    claims: super::is_prefixed_uuid,
    // Derived, except at servers that give a word of their own.
    words: &read::OPENAI_WORDS,
    hook: None,
    build: |account| Box::new(Xai::new(account)),
};

/// The most batches on a page.
const PAGE: u32 = 100;

#[derive(Clone, Debug)]
struct Xai {
    requests: Requests,
    provider: String,
}

/// The counters, where there are any.
#[derive(Clone, Copy, Debug)]
struct State {
    requests: u64,
    pending: u64,
    counts: RequestCounts,
}

impl Xai {
    fn new(account: &Account) -> Self {
        Self {
            requests: Requests::new(account, Credential::Bearer, &[]).versioned("v1"),
            provider: account.config.name.clone(),
        }
    }

    /// `now`: Unix seconds of the answer, by the service's clock.
    fn sighting(&self, object: &Map<String, Value>, now: Option<i64>) -> Sighting {
        Reader::sighting(object, |reader| {
            let id = reader.id("batch_id").or_else(|| reader.id("id")).unwrap_or_default();
            let state = state(reader);
            // It may be a bare date, which is no time but says that it happened.
            let is_cancelled = reader.deadline("cancel_time").is_some();
            let cancelled_at = reader.time("cancel_time");
            // With this xAI itself ends a batch whose file is not good.
            let message = reader.text("cancel_by_xai_message");
            let is_past = reader.deadline("expire_time").zip(now).is_some_and(|(at, now)| now > at);
            let expires_at = reader.deadline("expire_time");
            let derived = match state {
                _ if is_cancelled && message.is_some() => Some(Status::Failed),
                Some(state) if is_cancelled && state.pending > 0 => Some(Status::Cancelling),
                _ if is_cancelled => Some(Status::Cancelled),
                None => None,
                Some(state) if state.requests == 0 => Some(Status::Validating),
                Some(state) if state.pending > 0 && is_past => Some(Status::Expired),
                Some(state) if state.pending > 0 => Some(Status::InProgress),
                Some(_) => Some(Status::Completed),
            };
            let (status, provider_status) = if let Some(status) = derived {
                (Some(status), Some(status.as_str().to_owned()))
            } else {
                let word = reader.word(&["state.status", "state", "status"]);
                (word.as_deref().and_then(|word| read::status(word, KIND.words)), word)
            };
            let name = reader.text("name");
            let (display_name, marker) = name.as_deref().map(split_name).unzip();
            let ended = status.is_some_and(Status::is_terminal);
            let request_counts = state.map(|state| state.counts);
            // Single requests that failed are told among the results too.
            let answered =
                request_counts.map_or(status == Some(Status::Completed), |counts| counts.done() > 0);
            Sighting {
                output_file_id: (ended && answered).then(|| results_id(&self.provider, &id)),
                id,
                status,
                provider_status,
                // More requests may be added after all of them are done.
                revocable: derived == Some(Status::Completed),
                display_name: display_name.map(str::to_owned),
                marker: marker.flatten().map(str::to_owned),
                input_file_id: reader.id("input_file_id"),
                errors: message.filter(|_| status == Some(Status::Failed)).map(|message| BatchErrors {
                    data: vec![BatchError { message: Some(message), ..BatchError::default() }],
                    ..BatchErrors::default()
                }),
                created_at: reader.time("create_time"),
                expires_at,
                cancelling_at: cancelled_at.filter(|_| status != Some(Status::Failed)),
                // The one time of an end that there is.
                ended_at: cancelled_at.filter(|_| ended),
                request_counts,
                results_expire_at: expires_at.filter(|_| ended && answered),
                ..Sighting::default()
            }
        })
    }
}

/// The counters; `None` if they are not there, which happens, or are not all readable.
fn state(reader: &mut Reader<'_>) -> Option<State> {
    let is_object = reader.value("state").is_some_and(Value::is_object);
    if !is_object || !reader.has("state.num_requests") {
        return None;
    }
    reader.whole(|reader| {
        let requests = reader.count("state.num_requests")?;
        let [pending, succeeded, failed, cancelled] =
            ["num_pending", "num_success", "num_error", "num_cancelled"]
                .map(|field| reader.count(&format!("state.{field}")));
        let failed = failed.unwrap_or(0).saturating_add(cancelled.unwrap_or(0));
        let completed = succeeded.unwrap_or(0);
        let pending = pending.unwrap_or_else(|| requests.saturating_sub(completed.saturating_add(failed)));
        let counts = read::counts(Some(requests), Some(completed), Some(failed))?;
        Some(State { requests, pending, counts })
    })
}

/// When the answer was given, by its own account, in Unix seconds.
fn answered_at(answer: &Answer) -> Option<i64> {
    Some(rfc2822::parse(answer.header("date")?).ok()?.timestamp().as_second())
}

/// What was answered, with the status that its words mean: xAI refuses a key with 400, where others say 401.
fn meant(answer: &Answer) -> Cow<'_, Answer> {
    let refuses_key = answer.status == StatusCode::BAD_REQUEST
        && memchr::memmem::find(&answer.body, b"Incorrect API key").is_some();
    if refuses_key {
        Cow::Owned(Answer { status: StatusCode::UNAUTHORIZED, ..answer.clone() })
    } else {
        Cow::Borrowed(answer)
    }
}

impl Provider for Xai {
    fn retrieve(&self, id: &str) -> Result<Call, Failure> {
        self.requests.get(&format!("/batches/{}", segment(id)?), &[])
    }

    fn retrieved(&self, id: &str, answer: &Answer) -> Result<Sighting, Failure> {
        let object = self.requests.object(&meant(answer))?;
        let now = answered_at(answer);
        about(id, "batch_id", object, |told| told == id, |object| self.sighting(object, now))
    }

    fn listing(&self) -> Option<Listing> {
        Some(Listing::pages(PAGE))
    }

    fn list(&self, page: &PageRequest) -> Result<Call, Failure> {
        let limit = page.limit.clamp(1, PAGE).to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(page.cursor.as_deref().map(|token| ("pagination_token", token)));
        self.requests.get("/batches", &query)
    }

    fn listed(&self, page: &PageRequest, answer: &Answer) -> Result<Page, Failure> {
        let (items, around) = self.requests.list(&meant(answer), "batches")?;
        let now = answered_at(answer);
        let sightings = sightings(&items, |object| self.sighting(object, now));
        let next =
            Reader::new(&around).text("pagination_token").filter(|token| page.cursor.as_ref() != Some(token));
        Ok(Page { sightings, next })
    }

    fn default_endpoint(&self) -> &'static str {
        "/v1/chat/completions"
    }

    /// xAI's console has no address for a batch that is documented anywhere.
    fn console_url(&self, _id: &str) -> Option<String> {
        None
    }

    fn cancel(&self, id: &str) -> Result<Call, Failure> {
        self.requests.post(&format!("/batches/{}:cancel", segment(id)?), None)
    }

    fn intake(&self, _endpoint: &str) -> Result<Intake, Failure> {
        Ok(submission::INTAKE)
    }

    fn submit(&self, job: &Job) -> Result<Box<dyn Submission>, Failure> {
        submission::FileThenBatch::begin(self.clone(), job.clone())
    }

    fn results(&self, batch: &Batch, part: Part) -> Result<Option<Box<dyn Fetch>>, Failure> {
        // What failed stands among the results.
        let is_empty = batch.output_file_id.is_none();
        if part == Part::Errors || is_empty {
            return Ok(None);
        }
        results::Pages::begin(self.clone(), batch).map(Some)
    }

    fn output_line(&self, record: Record<'_>) -> Result<OutputLine, String> {
        results::output_line(record)
    }
}
