//! Vertex AI's batch prediction jobs (`docs/providers/vertex.md`): Google's credentials, and requests and results in Cloud
//! Storage.

mod results;
mod submission;

use super::gcs::{CloudStorage, Location};
use super::openai_results::OneStream;
use super::read::{self, Reader};
use super::request::{Credential, Requests, segment};
use super::results::{Fetch, OutputLine, Part, Record};
use super::submit::{Intake, Job, RequestLine, Submission, Translated, Untranslatable, split_name};
use super::unsupported::unsupported;
use super::{Account, Kind, Listing, Page, PageRequest, Provider, about, results_id, sightings};
use crate::config::{KindFacts, ProviderConfig};
use crate::domain::batch::{Batch, RequestCounts};
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use crate::http::authorize::{GoogleSource, Issuer};
use crate::http::call::{Answer, Call, Grant};
use crate::http::failure::Failure;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "vertex",
        base_url: Some("https://{location}-aiplatform.googleapis.com/v1"),
        adds_version: true,
        key_optional: true,
        options: &["credentials_file", "input_uri", "location", "output_uri", "project", "storage_url"],
        required: &["location", "project"],
        option_env: &[
            ("location", &["GOOGLE_CLOUD_LOCATION", "GOOGLE_CLOUD_REGION"]),
            ("project", &["GOOGLE_CLOUD_PROJECT"]),
        ],
        ..KindFacts::NONE
    },
    claims: |id| Name::parse(id).is_some(),
    words: &[
        ("JOB_STATE_UNSPECIFIED", Status::Validating),
        ("JOB_STATE_QUEUED", Status::Validating),
        ("JOB_STATE_PENDING", Status::Validating),
        ("JOB_STATE_RUNNING", Status::InProgress),
        ("JOB_STATE_UPDATING", Status::InProgress),
        ("JOB_STATE_PAUSED", Status::InProgress),
        ("JOB_STATE_SUCCEEDED", Status::Completed),
        ("JOB_STATE_PARTIALLY_SUCCEEDED", Status::Completed),
        ("JOB_STATE_FAILED", Status::Failed),
        ("JOB_STATE_EXPIRED", Status::Expired),
        ("JOB_STATE_CANCELLING", Status::Cancelling),
        ("JOB_STATE_CANCELLED", Status::Cancelled),
    ],
    hook: None,
    build: |account| Box::new(Vertex::new(account)),
};

const JOBS: &str = "batchPredictionJobs";

/// The whole name of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name<'a> {
    project: &'a str,
    location: &'a str,
    job: &'a str,
}

impl<'a> Name<'a> {
    fn parse(id: &'a str) -> Option<Self> {
        let parts: Vec<&str> = id.split('/').collect();
        match parts.as_slice() {
            ["projects", project, "locations", location, JOBS, job]
                if ![project, location, job].iter().any(|part| part.is_empty()) =>
            {
                Some(Self { project, location, job })
            }
            _ => None,
        }
    }
}

/// The most batches on a page.
const PAGE: u32 = 100;

#[derive(Clone, Debug)]
struct Vertex {
    requests: Requests,
    provider: String,
    project: String,
    location: String,
    source: GoogleSource,
    storage: CloudStorage,
    /// Where in Cloud Storage input and output go: what only a submission needs.
    places: BTreeMap<&'static str, String>,
    /// Whether the configured key is an access token, which nobody renews.
    bears_token: bool,
}

impl Vertex {
    fn new(account: &Account) -> Self {
        let option = |name: &str| account.config.options.get(name).cloned();
        let config = ProviderConfig {
            // The one location that has no place in the host's name.
            base_url: account.config.base_url.replace("//global-aiplatform.", "//aiplatform."),
            ..account.config.clone()
        };
        let at_its_place = Account { config: &config, ..account.clone() };
        let requests = Requests::new(&at_its_place, Credential::Bearer, &[]).versioned("v1");
        let bears_token = account.api_key.is_some();
        Self {
            storage: CloudStorage::new(account, &requests, bears_token),
            places: ["input_uri", "output_uri"]
                .into_iter()
                .filter_map(|key| Some((key, option(key)?)))
                .collect(),
            requests,
            provider: account.config.name.clone(),
            project: option("project").unwrap_or_default(),
            location: option("location").unwrap_or_default(),
            source: GoogleSource { file: option("credentials_file").map(Into::into) },
            bears_token,
        }
    }

    /// `call` with the need for a token, unless it bears one.
    fn granted(&self, call: Call) -> Call {
        if self.bears_token { call } else { call.granted(Grant::Google) }
    }

    /// The path of the jobs of the project.
    fn jobs(&self) -> Result<String, Failure> {
        jobs(&self.project, &self.location)
    }

    fn job(&self, id: &str) -> Result<String, Failure> {
        let id = self.canonical_id(id);
        match Name::parse(&id) {
            Some(Name { project, location, job }) => {
                Ok(format!("{}/{}", jobs(project, location)?, segment(job)?))
            }
            None => Ok(format!("{}/{}", self.jobs()?, segment(&id)?)),
        }
    }

    fn sighting(&self, object: &Map<String, Value>) -> Sighting {
        Reader::sighting(object, |reader| {
            let id = reader.text("name").map(|name| self.canonical_id(&name)).unwrap_or_default();
            let provider_status = reader.word(&["state"]);
            let status = provider_status.as_deref().and_then(|word| read::status(word, KIND.words));
            let ended = status.is_some_and(Status::is_terminal);
            let has_output =
                reader.has("outputInfo.gcsOutputDirectory") || reader.has("outputInfo.bigqueryOutputTable");
            let model = reader.text("model");
            let name = reader.text("displayName");
            let (display_name, marker) = name.as_deref().map(split_name).unzip();
            Sighting {
                output_file_id: (ended && has_output).then(|| results_id(&self.provider, &id)),
                id,
                status,
                provider_status,
                endpoint: model.as_deref().map(|model| endpoint(&self.requests, model)),
                model: model.map(|model| model.rsplit('/').next().unwrap_or_default().to_owned()),
                display_name: display_name.map(str::to_owned),
                marker: marker.flatten().map(str::to_owned),
                input_file_id: reader
                    .first_id("inputConfig.gcsSource.uris")
                    .or_else(|| reader.text("inputConfig.bigquerySource.inputUri")),
                errors: reader.errors("error").or_else(|| reader.errors("partialFailures")),
                created_at: reader.time("createTime"),
                in_progress_at: reader.time("startTime"),
                ended_at: reader.time("endTime").or_else(|| reader.time("updateTime")).filter(|_| ended),
                request_counts: counts(reader),
                metadata: reader.metadata("labels"),
                ..Sighting::default()
            }
        })
    }
}

fn jobs(project: &str, location: &str) -> Result<String, Failure> {
    Ok(format!("/projects/{}/locations/{}/{JOBS}", segment(project)?, segment(location)?))
}

/// The path that each request goes to.
fn endpoint(requests: &Requests, model: &str) -> String {
    let version = requests.version().unwrap_or("v1");
    let is_google_s = model.contains("publishers/google/") || !model.contains('/');
    format!("/{version}/{model}:{}", if is_google_s { "generateContent" } else { "rawPredict" })
}

/// Google leaves numbers out that are zero, and says -1 where it does not know. Of a job that was cut short, the
/// requests that were never worked on count as failed.
fn counts(reader: &mut Reader<'_>) -> Option<RequestCounts> {
    if !reader.is_object("completionStats") {
        return None;
    }
    let is_unknown = |value: &Value| value == "-1" || value.as_i64() == Some(-1);
    let open = match reader.value("completionStats.incompleteCount") {
        Some(value) if is_unknown(value) => 0,
        _ => reader.count("completionStats.incompleteCount").unwrap_or(0),
    };
    reader.whole(|reader| {
        let [completed, failed] = ["successfulCount", "failedCount"]
            .map(|field| reader.count(&format!("completionStats.{field}")).unwrap_or(0));
        let total = completed.saturating_add(failed).saturating_add(open);
        Some(RequestCounts { total, completed, failed })
    })
}

impl Provider for Vertex {
    fn retrieve(&self, id: &str) -> Result<Call, Failure> {
        Ok(self.granted(self.requests.get(&self.job(id)?, &[])?))
    }

    fn retrieved(&self, id: &str, answer: &Answer) -> Result<Sighting, Failure> {
        let object = self.requests.object(answer)?;
        let id = self.canonical_id(id);
        // The answer may have the project's number where the question had its name.
        let same = |one: &str, other: &str| match (Name::parse(one), Name::parse(other)) {
            (Some(one), Some(other)) => one.job == other.job && one.location == other.location,
            _ => one == other,
        };
        let sighting = about(&id, "name", object, |told| same(told, &id), |object| self.sighting(object))?;
        Ok(Sighting { id: id.clone(), ..sighting })
    }

    fn listing(&self) -> Option<Listing> {
        Some(Listing::pages(PAGE))
    }

    fn list(&self, page: &PageRequest) -> Result<Call, Failure> {
        let size = page.limit.clamp(1, PAGE).to_string();
        let mut query = vec![("pageSize", size.as_str())];
        query.extend(page.cursor.as_deref().map(|token| ("pageToken", token)));
        Ok(self.granted(self.requests.get(&self.jobs()?, &query)?))
    }

    fn listed(&self, page: &PageRequest, answer: &Answer) -> Result<Page, Failure> {
        let (items, around) = self.requests.list(answer, JOBS)?;
        let sightings = sightings(&items, |object| self.sighting(object));
        let next =
            Reader::new(&around).text("nextPageToken").filter(|token| page.cursor.as_ref() != Some(token));
        Ok(Page { sightings, next })
    }

    /// A job is known by its number, and by its whole name, in which Google puts the project's number where the
    /// configuration has its name.
    fn canonical_id(&self, id: &str) -> String {
        let own = |job: &str| format!("projects/{}/locations/{}/{JOBS}/{job}", self.project, self.location);
        match Name::parse(id) {
            Some(name)
                if name.project.bytes().all(|c| c.is_ascii_digit()) && name.location == self.location =>
            {
                own(name.job)
            }
            Some(_) => id.to_owned(),
            None if id.is_empty() || id.contains('/') => id.to_owned(),
            None => own(id),
        }
    }

    fn default_endpoint(&self) -> &'static str {
        "/v1/{model}:generateContent"
    }

    fn console_url(&self, id: &str) -> Option<String> {
        let canonical = self.canonical_id(id);
        let Name { project, location, job } = Name::parse(&canonical)?;
        let [project, location, job] = [segment(project).ok()?, segment(location).ok()?, segment(job).ok()?];
        self.requests.goes_to("googleapis.com").then(|| {
            format!(
                "https://console.cloud.google.com/vertex-ai/locations/{location}/batch-predictions/{job}?project={project}"
            )
        })
    }

    fn issuer(&self) -> Option<Issuer> {
        Some(Issuer::Google(self.source.clone()))
    }

    fn cancel(&self, id: &str) -> Result<Call, Failure> {
        Ok(self.granted(self.requests.post(&format!("{}:cancel", self.job(id)?), None)?))
    }

    fn cancelled(&self, _id: &str, answer: &Answer) -> Result<Option<Sighting>, Failure> {
        self.requests.object(answer).map(|_| None)
    }

    fn intake(&self, _endpoint: &str) -> Result<Intake, Failure> {
        Ok(submission::INTAKE)
    }

    fn translate(&self, line: RequestLine) -> Result<Translated, Untranslatable> {
        submission::translate(line)
    }

    fn submit(&self, job: &Job) -> Result<Box<dyn Submission>, Failure> {
        self.creation(job)
    }

    fn results(&self, batch: &Batch, part: Part) -> Result<Option<Box<dyn Fetch>>, Failure> {
        // What failed stands among the results.
        let is_empty = batch.output_file_id.is_none();
        if part == Part::Errors || is_empty { Ok(None) } else { self.output(batch).map(Some) }
    }

    fn input(&self, batch: &Batch) -> Result<Box<dyn Fetch>, Failure> {
        match Location::parse(&batch.input_file_id) {
            Some(at) => self.storage.get(&at).map(OneStream::lines),
            None => unsupported("keeps no input of this batch in Cloud Storage"),
        }
    }

    fn output_line(&self, record: Record<'_>) -> Result<OutputLine, String> {
        results::output_line(record)
    }
}
