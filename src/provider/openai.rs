//! OpenAI's batches (`providers.md` §3.1), and every service that imitates them under another address.

use super::read::{self, Reader};
use super::request::{Credential, Requests, segment};
use super::{Account, Kind, Listing, Page, PageRequest, Provider, about, after_last, sightings};
use crate::config::KindFacts;
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use http::Method;
use serde_json::{Map, Value};

/// OpenAI itself.
pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "openai",
        key_env: &["OPENAI_API_KEY"],
        base_url_env: Some("OPENAI_BASE_URL"),
        base_url: Some("https://api.openai.com/v1"),
        key_optional: false,
        options: &["organization", "project"],
    },
    claims,
    words: &read::OPENAI_WORDS,
    build: |account| Box::new(OpenAi { files_live: Some(FILES_LIVE), ..OpenAi::new(account, KIND.words) }),
};

/// Any other service with OpenAI's interface.
pub const COMPATIBLE: Kind = Kind {
    facts: KindFacts {
        name: "openai-compatible",
        key_env: &[],
        base_url_env: None,
        base_url: None,
        key_optional: true,
        options: &["organization", "project"],
    },
    claims: |_| false,
    words: &IMITATORS_WORDS,
    build: |account| Box::new(OpenAi::new(account, COMPATIBLE.words)),
};

/// The eight words, and those of SiliconFlow and Novita for two of them (`providers.md` §2).
const IMITATORS_WORDS: [(&str, Status); 10] = {
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
const FILES_LIVE: i64 = 30 * 86_400;

#[derive(Debug)]
struct OpenAi {
    requests: Requests,
    words: &'static [(&'static str, Status)],
    /// Seconds that output files are kept after the end, where that is known.
    files_live: Option<i64>,
}

impl OpenAi {
    fn new(account: &Account, words: &'static [(&'static str, Status)]) -> Self {
        let headers: Vec<(&'static str, &str)> =
            [("openai-organization", "organization"), ("openai-project", "project")]
                .into_iter()
                .filter_map(|(header, option)| Some((header, account.config.options.get(option)?.as_str())))
                .collect();
        Self { requests: Requests::new(account, Credential::Bearer, &headers), words, files_live: None }
    }

    fn sighting(&self, object: &Map<String, Value>) -> Sighting {
        Reader::sighting(object, |reader| {
            let provider_status = reader.word(&["status", "state.status", "state"]);
            let status = provider_status.as_deref().and_then(|word| read::status(word, self.words));
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
        }?;
        Some(end.saturating_add(self.files_live?))
    }
}

impl Provider for OpenAi {
    fn retrieve(&self, id: &str) -> Result<Call, Failure> {
        self.requests.get(&format!("/batches/{}", segment(id)?), &[])
    }

    fn retrieved(&self, id: &str, answer: &Answer) -> Result<Sighting, Failure> {
        let object = self.requests.object(answer)?;
        // A gateway that takes its own id for the batch may answer with the one it stands for.
        let is_same = |told: &str| told == id || is_routed(id);
        let sighting = about(id, "id", object, is_same, |object| self.sighting(object))?;
        Ok(Sighting { id: id.to_owned(), ..sighting })
    }

    fn listing(&self) -> Option<Listing> {
        Some(Listing::pages(PAGE))
    }

    fn list(&self, page: &PageRequest) -> Result<Call, Failure> {
        let limit = page_size(page).to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(page.cursor.as_deref().map(|after| ("after", after)));
        self.requests.get("/batches", &query)
    }

    fn listed(&self, page: &PageRequest, answer: &Answer) -> Result<Page, Failure> {
        let (items, around) = self.requests.list(answer, "data")?;
        // Where nobody says whether there is more, a page that is not full is the last; a bare array is all there is.
        let full = !around.is_empty() && items.len() >= page_size(page) as usize;
        let sightings = sightings(&items, |object| self.sighting(object));
        let mut reader = Reader::new(&around);
        let more = reader.flag("has_more").unwrap_or(full);
        let next = if more { after_last(page, reader.id("last_id"), &sightings) } else { None };
        Ok(Page { sightings, next })
    }

    fn default_endpoint(&self) -> &'static str {
        "/v1/chat/completions"
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
        self.requests.post(&format!("/batches/{}/cancel", segment(id)?), None)
    }

    fn file_content(&self, file: &str) -> Result<Call, Failure> {
        self.requests.get(&format!("/files/{}/content", segment(file)?), &[])
    }

    fn pass(&self, method: &Method, path: &str, query: Option<&str>) -> Result<Call, Failure> {
        self.requests.raw(method.clone(), path, query)
    }
}

fn page_size(page: &PageRequest) -> u32 {
    page.limit.clamp(1, PAGE)
}

/// OpenAI's own ids: 32 hexadecimal digits, in the older ones 24 letters and digits (`providers.md` §2.1).
fn claims(id: &str) -> bool {
    let Some(rest) = id.strip_prefix("batch_") else { return false };
    let is_hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    !is_routed(id)
        && (rest.len() == 32 && rest.bytes().all(is_hex)
            || rest.len() == 24 && rest.bytes().all(|c| c.is_ascii_alphanumeric()))
}

/// Whether a LiteLLM proxy made the id: base64 of a text that begins with its name (`providers.md` §2.1).
fn is_routed(id: &str) -> bool {
    id.starts_with("batch_bGl0ZWxsbT") || id.starts_with("bGl0ZWxsbV9wcm94eT")
}
