//! Cohere's batches (`docs/providers/cohere.md`): datasets in, datasets out.

mod results;
mod submission;
mod translation;

use super::read::{self, Reader};
use super::request::{Credential, Requests, segment};
use super::results::{Fetch, OutputLine, Part, Record};
use super::submit::{Intake, Job, RequestLine, Submission, Translated, Untranslatable, split_name};
use super::{Account, Kind, Listing, Page, PageRequest, Provider, about, answer, results_id, sightings};
use crate::config::{KindFacts, ProviderConfig};
use crate::domain::batch::{Batch, InputTokensDetails, OutputTokensDetails, Usage};
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use serde_json::{Map, Value};

pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "cohere",
        key_env: &["CO_API_KEY", "COHERE_API_KEY"],
        base_url_env: Some("CO_API_URL"),
        base_url: Some("https://api.cohere.com"),
        counts_live: true,
        ..KindFacts::NONE
    },
    claims: |_| false,
    words: &[
        ("BATCH_STATUS_UNSPECIFIED", Status::Validating),
        ("BATCH_STATUS_QUEUED", Status::Validating),
        ("BATCH_STATUS_IN_PROGRESS", Status::InProgress),
        ("BATCH_STATUS_CANCELING", Status::Cancelling),
        ("BATCH_STATUS_COMPLETED", Status::Completed),
        ("BATCH_STATUS_FAILED", Status::Failed),
        ("BATCH_STATUS_CANCELED", Status::Cancelled),
    ],
    hook: None,
    build: |account| Box::new(Cohere::new(account)),
};

/// The path that chats go to.
const CHAT: &str = "/v2/chat";

/// The path that texts to be embedded go to.
const EMBED: &str = "/v2/embed";

/// The most batches on a page.
const PAGE: u32 = 1000;

#[derive(Clone, Debug)]
struct Cohere {
    requests: Requests,
    /// Datasets are of another version of the interface.
    datasets: Requests,
    provider: String,
}

impl Cohere {
    fn new(account: &Account) -> Self {
        let base = account.config.base_url.trim_end_matches('/');
        let root = ["/v1", "/v2"].iter().find_map(|version| base.strip_suffix(version)).unwrap_or(base);
        let of_datasets = ProviderConfig { base_url: root.to_owned(), ..account.config.clone() };
        let of_datasets = Account { config: &of_datasets, ..account.clone() };
        Self {
            requests: Requests::new(account, Credential::Bearer, &[]).versioned("v2"),
            datasets: Requests::new(&of_datasets, Credential::Bearer, &[]).versioned("v1"),
            provider: account.config.name.clone(),
        }
    }

    fn sighting(&self, object: &Map<String, Value>) -> Sighting {
        Reader::sighting(object, |reader| {
            let provider_status = reader.word(&["status"]);
            let status = provider_status.as_deref().and_then(|word| read::status(word, KIND.words));
            let ended = status.is_some_and(Status::is_terminal);
            let [total, succeeded, failed] = ["num_records", "num_successful_records", "num_failed_records"]
                .map(|field| reader.count(field));
            let id = reader.id("id").unwrap_or_default();
            let model = reader.text("model");
            // The batch does not say what it is for; the models for it do.
            let embeds = model.as_deref().is_some_and(|model| model.contains("embed"));
            let name = reader.text("name");
            let (display_name, marker) = name.as_deref().map(split_name).unzip();
            Sighting {
                output_file_id: reader.has("output_dataset_id").then(|| results_id(&self.provider, &id)),
                id,
                status,
                provider_status,
                endpoint: Some(if embeds { EMBED } else { CHAT }.to_owned()),
                model,
                display_name: display_name.map(str::to_owned),
                marker: marker.flatten().map(str::to_owned),
                input_file_id: reader.id("input_dataset_id"),
                errors: reader.errors("status_reason"),
                created_at: reader.time("created_at"),
                // Nothing else is changed of a batch that has ended.
                ended_at: reader.time("updated_at").filter(|_| ended),
                request_counts: read::counts(total, succeeded, failed),
                usage: usage(reader).filter(|_| ended),
                ..Sighting::default()
            }
        })
    }
}

/// The dataset in an answer.
fn dataset_in(mut answer: Map<String, Value>) -> Map<String, Value> {
    match answer.get_mut("dataset") {
        Some(Value::Object(dataset)) => std::mem::take(dataset),
        _ => answer,
    }
}

/// Tokens are counted in texts of digits.
fn usage(reader: &mut Reader<'_>) -> Option<Usage> {
    reader.whole(|reader| {
        let (input, output) = (reader.count("input_tokens"), reader.count("output_tokens"));
        if input.is_none() && output.is_none() {
            return None;
        }
        let (input_tokens, output_tokens) = (input.unwrap_or(0), output.unwrap_or(0));
        Some(Usage {
            input_tokens,
            input_tokens_details: InputTokensDetails::default(),
            output_tokens,
            output_tokens_details: OutputTokensDetails { reasoning_tokens: 0 },
            total_tokens: input_tokens.saturating_add(output_tokens),
        })
    })
}

impl Provider for Cohere {
    fn retrieve(&self, id: &str) -> Result<Call, Failure> {
        self.requests.get(&format!("/batches/{}", segment(id)?), &[])
    }

    fn retrieved(&self, id: &str, answer: &Answer) -> Result<Sighting, Failure> {
        about(id, "id", self.requests.object(answer)?, |told| told == id, |object| self.sighting(object))
    }

    fn listing(&self) -> Option<Listing> {
        Some(Listing::pages(PAGE))
    }

    fn list(&self, page: &PageRequest) -> Result<Call, Failure> {
        let size = page.limit.clamp(1, PAGE).to_string();
        let mut query = vec![("page_size", size.as_str())];
        query.extend(page.cursor.as_deref().map(|token| ("page_token", token)));
        self.requests.get("/batches", &query)
    }

    fn listed(&self, page: &PageRequest, answer: &Answer) -> Result<Page, Failure> {
        let (items, around) = self.requests.list(answer, "batches")?;
        let next =
            Reader::new(&around).text("next_page_token").filter(|token| page.cursor.as_ref() != Some(token));
        Ok(Page { sightings: sightings(&items, |object| self.sighting(object)), next })
    }

    fn default_endpoint(&self) -> &'static str {
        CHAT
    }

    /// The dashboard has no address for a batch that is documented anywhere.
    fn console_url(&self, _id: &str) -> Option<String> {
        None
    }

    fn cancel(&self, id: &str) -> Result<Call, Failure> {
        self.requests.post(&format!("/batches/{}:cancel", segment(id)?), None)
    }

    /// What the answer to a cancellation tells is not documented.
    fn cancelled(&self, _id: &str, answer: &Answer) -> Result<Option<Sighting>, Failure> {
        if answer.status.is_success() { Ok(None) } else { Err(answer::refusal(answer)) }
    }

    fn models_of(&self) -> Option<&'static str> {
        Some("Cohere")
    }

    fn intake(&self, _endpoint: &str) -> Result<Intake, Failure> {
        Ok(submission::INTAKE)
    }

    fn translate(&self, line: RequestLine) -> Result<Translated, Untranslatable> {
        translation::line(line)
    }

    fn submit(&self, job: &Job) -> Result<Box<dyn Submission>, Failure> {
        submission::DatasetThenBatch::begin(self.clone(), job.clone())
    }

    fn results(&self, batch: &Batch, part: Part) -> Result<Option<Box<dyn Fetch>>, Failure> {
        // What failed stands among the results.
        if part == Part::Errors || batch.output_file_id.is_none() {
            return Ok(None);
        }
        results::Output::begin(self.clone(), batch).map(Some)
    }

    fn input(&self, batch: &Batch) -> Result<Box<dyn Fetch>, Failure> {
        results::Output::original(self.clone(), &batch.input_file_id)
    }

    fn output_line(&self, record: Record<'_>) -> Result<OutputLine, String> {
        results::output_line(record)
    }
}
