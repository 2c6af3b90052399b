//! AWS Bedrock's model invocation jobs (`docs/providers/bedrock.md`): signed requests, and requests and results in S3.

mod results;
mod submission;
mod translation;

use super::bounds::bounded;
use super::openai_results::OneStream;
use super::read::{self, Reader};
use super::request::{Credential, Requests, segment};
use super::results::{Fetch, OutputLine, Part, Record};
use super::s3::{Location, S3};
use super::salvage;
use super::submit::{Intake, Job, MARKER_PREFIX, RequestLine, Submission, Translated, Untranslatable};
use super::unsupported::unsupported;
use super::{Account, Kind, Listing, Page, PageRequest, Provider, about, results_id, sightings};
use crate::config::KindFacts;
use crate::domain::batch::{Batch, RequestCounts};
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use crate::http::authorize::{AwsSource, Issuer};
use crate::http::call::{Answer, Call, Grant};
use crate::http::failure::Failure;
use http::StatusCode;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "bedrock",
        key_env: &["AWS_BEARER_TOKEN_BEDROCK"],
        base_url_env: Some("AWS_ENDPOINT_URL_BEDROCK"),
        base_url: Some("https://bedrock.{region}.amazonaws.com"),
        key_optional: true,
        options: &[
            "access_key_id",
            "bucket_owner",
            "input_uri",
            "kms_key",
            "output_uri",
            "profile",
            "region",
            "role_arn",
            "security_group_ids",
            "storage_url",
            "subnet_ids",
        ],
        required: &["region"],
        option_env: &[("region", &["AWS_REGION", "AWS_DEFAULT_REGION"])],
        ..KindFacts::NONE
    },
    claims: is_arn,
    words: &[
        ("Submitted", Status::Validating),
        ("Validating", Status::Validating),
        ("Scheduled", Status::Validating),
        ("InProgress", Status::InProgress),
        ("Completed", Status::Completed),
        // The time ran out with some of the records done. As every gateway has it; the counts tell what was not done.
        ("PartiallyCompleted", Status::Completed),
        ("Failed", Status::Failed),
        ("Expired", Status::Expired),
        ("Stopping", Status::Cancelling),
        ("Stopped", Status::Cancelled),
    ],
    hook: None,
    build: |account| Box::new(Bedrock::new(account)),
};

/// The name that requests are signed for.
const SERVICE: &str = "bedrock";

/// The kind of resource that a job is, in its ARN.
const JOB: &str = "model-invocation-job/";

/// The most batches on a page.
const PAGE: u32 = 1000;

#[derive(Debug)]
struct Bedrock {
    requests: Requests,
    provider: String,
    source: AwsSource,
    s3: S3,
    /// Where in S3 input and output go, and who takes them there: what only a submission needs.
    places: BTreeMap<&'static str, String>,
    /// Whether the key is one of Bedrock's own, which stands in a header and signs nothing.
    bears_key: bool,
}

impl Bedrock {
    fn new(account: &Account) -> Self {
        let option = |name: &str| account.config.options.get(name).cloned();
        let fixed = option("access_key_id").zip(account.api_key.clone());
        let key = account.api_key.clone().filter(|_| fixed.is_none());
        let bears_key = key.is_some();
        let bearing = Account { api_key: key, ..account.clone() };
        Self {
            requests: Requests::new(&bearing, Credential::Bearer, &[]),
            provider: account.config.name.clone(),
            source: AwsSource {
                region: option("region").unwrap_or_default(),
                profile: option("profile"),
                fixed,
            },
            s3: S3::new(account, option("region").as_deref().unwrap_or_default()),
            places: submission::OPTIONS.into_iter().filter_map(|key| Some((key, option(key)?))).collect(),
            bears_key,
        }
    }

    /// `call` with the need for a signature, unless it bears a key.
    fn signed(&self, call: Call) -> Call {
        if self.bears_key {
            return call;
        }
        call.granted(Grant::Aws { service: SERVICE, region: self.source.region.clone() })
    }

    fn sighting(&self, object: &Map<String, Value>) -> Sighting {
        Reader::sighting(object, |reader| {
            let id = reader.text("jobArn").or_else(|| reader.id("id")).unwrap_or_default();
            let provider_status = reader.word(&["status"]);
            let status = provider_status.as_deref().and_then(|word| read::status(word, KIND.words));
            let ended = status.is_some_and(Status::is_terminal);
            let request_counts = counts(reader);
            let succeeded = match request_counts {
                Some(counts) => counts.completed > 0,
                // Only older answers are without counts.
                None => status == Some(Status::Completed),
            };
            let model = reader.text("modelId");
            let is_converse = reader.text("modelInvocationType").is_some_and(|kind| kind == "Converse");
            let hours = reader.count("timeoutDurationInHours");
            let (display_name, marker) = reader.text("jobName").map(split_name).unwrap_or_default();
            Sighting {
                output_file_id: (ended && succeeded).then(|| results_id(&self.provider, &id)),
                id,
                status,
                provider_status,
                endpoint: model.as_deref().map(|model| endpoint(model, is_converse)),
                model,
                display_name,
                marker,
                input_file_id: reader.text("inputDataConfig.s3InputDataConfig.s3Uri"),
                completion_window: hours.map(|hours| format!("{hours}h")),
                errors: reader.errors("message").filter(|_| ended),
                created_at: reader.time("submitTime").or_else(|| reader.time("creationTime")),
                expires_at: reader.time("jobExpirationTime"),
                ended_at: reader
                    .time("endTime")
                    .or_else(|| reader.time("lastModifiedTime"))
                    .filter(|_| ended),
                request_counts,
                ..Sighting::default()
            }
        })
    }
}

/// A job's name, which may begin with a marker: `bd-0123…-nightly`.
fn split_name(name: String) -> (Option<String>, Option<String>) {
    let Some(behind) = name.strip_prefix(MARKER_PREFIX) else { return (Some(name), None) };
    let (marker, rest) = behind.split_once('-').unwrap_or((behind, ""));
    ((!rest.is_empty()).then(|| rest.to_owned()), Some(format!("{MARKER_PREFIX}{marker}")))
}

/// The operation that the records are the input of.
fn endpoint(model: &str, is_converse: bool) -> String {
    format!("/model/{model}/{}", if is_converse { "converse" } else { "invoke" })
}

/// Records that were never worked on, as in a job that was cut short, have neither succeeded nor failed.
fn counts(reader: &mut Reader<'_>) -> Option<RequestCounts> {
    reader.whole(|reader| {
        let [total, completed, failed] =
            ["totalRecordCount", "successRecordCount", "errorRecordCount"].map(|field| reader.count(field));
        read::counts(total, completed, failed)
    })
}

/// What was answered, with the status that its words mean: AWS says "too many" and "expired" with 400 too, where others
/// say 429 and 401.
fn meant(answer: &Answer) -> Cow<'_, Answer> {
    if answer.status != StatusCode::BAD_REQUEST {
        return Cow::Borrowed(answer);
    }
    let told = answer.header("x-amzn-errortype").map(str::to_owned).or_else(|| {
        let body = salvage::value(&bounded(&answer.body, None))?;
        Some(body.get("__type")?.as_str()?.to_owned())
    });
    // `ThrottlingException:http://…`, `com.amazon.coral.service#ThrottlingException`
    let told = told.unwrap_or_default();
    let status = if told.contains("Throttling") || told.contains("TooManyRequests") {
        StatusCode::TOO_MANY_REQUESTS
    } else if told.contains("ExpiredToken") || told.contains("UnrecognizedClient") {
        StatusCode::UNAUTHORIZED
    } else {
        return Cow::Borrowed(answer);
    };
    Cow::Owned(Answer { status, ..answer.clone() })
}

impl Provider for Bedrock {
    fn retrieve(&self, id: &str) -> Result<Call, Failure> {
        Ok(self.signed(self.requests.get(&format!("/model-invocation-job/{}", segment(id)?), &[])?))
    }

    fn retrieved(&self, id: &str, answer: &Answer) -> Result<Sighting, Failure> {
        let object = self.requests.object(&meant(answer))?;
        // The last part of an ARN stands for the whole.
        let is_same = |told: &str| told == id || told.rsplit('/').next() == Some(id);
        let sighting = about(id, "jobArn", object, is_same, |object| self.sighting(object))?;
        Ok(Sighting { id: id.to_owned(), ..sighting })
    }

    fn listing(&self) -> Option<Listing> {
        Some(Listing::pages(PAGE))
    }

    fn list(&self, page: &PageRequest) -> Result<Call, Failure> {
        let size = page.limit.clamp(1, PAGE).to_string();
        let mut query =
            vec![("maxResults", size.as_str()), ("sortBy", "CreationTime"), ("sortOrder", "Descending")];
        query.extend(page.cursor.as_deref().map(|token| ("nextToken", token)));
        Ok(self.signed(self.requests.get("/model-invocation-jobs", &query)?))
    }

    fn listed(&self, page: &PageRequest, answer: &Answer) -> Result<Page, Failure> {
        let (items, around) = self.requests.list(&meant(answer), "invocationJobSummaries")?;
        let sightings = sightings(&items, |object| self.sighting(object));
        let next = Reader::new(&around).text("nextToken").filter(|token| page.cursor.as_ref() != Some(token));
        Ok(Page { sightings, next })
    }

    fn default_endpoint(&self) -> &'static str {
        "/model/{model}/invoke"
    }

    fn console_url(&self, id: &str) -> Option<String> {
        if !self.requests.goes_to("amazonaws.com") || !is_arn(id) {
            return None;
        }
        let region = &self.source.region;
        let arn = segment(id).ok()?;
        Some(format!(
            "https://{region}.console.aws.amazon.com/bedrock/home?region={region}#/batch-inference/{arn}"
        ))
    }

    fn issuer(&self) -> Option<Issuer> {
        Some(Issuer::Aws(self.source.clone()))
    }

    fn cancel(&self, id: &str) -> Result<Call, Failure> {
        let path = format!("/model-invocation-job/{}/stop", segment(id)?);
        Ok(self.signed(self.requests.post(&path, None)?))
    }

    fn cancelled(&self, _id: &str, answer: &Answer) -> Result<Option<Sighting>, Failure> {
        self.requests.object(&meant(answer)).map(|_| None)
    }

    fn intake(&self, _endpoint: &str) -> Result<Intake, Failure> {
        Ok(submission::INTAKE)
    }

    fn translate(&self, line: RequestLine) -> Result<Translated, Untranslatable> {
        translation::line(line)
    }

    fn submit(&self, job: &Job) -> Result<Box<dyn Submission>, Failure> {
        self.creation(job)
    }

    fn results(&self, batch: &Batch, part: Part) -> Result<Option<Box<dyn Fetch>>, Failure> {
        // What failed stands among the results; of a job on whose records nobody worked there are none.
        let is_empty =
            batch.status == Status::Failed || batch.request_counts.is_some_and(|counts| counts.done() == 0);
        if part == Part::Errors || is_empty { Ok(None) } else { self.output(batch).map(Some) }
    }

    fn input(&self, batch: &Batch) -> Result<Box<dyn Fetch>, Failure> {
        match Location::parse(&batch.input_file_id) {
            Some(at) if at.name().to_lowercase().ends_with(".jsonl") => {
                self.s3.get(&at).map(OneStream::lines)
            }
            _ => unsupported("gives the input of a batch only where that is one `.jsonl` file"),
        }
    }

    fn output_line(&self, record: Record<'_>) -> Result<OutputLine, String> {
        results::output_line(record)
    }
}

/// `arn:aws:bedrock:REGION:ACCOUNT:model-invocation-job/ID`
fn is_arn(id: &str) -> bool {
    let parts: Vec<&str> = id.splitn(6, ':').collect();
    let [arn, partition, service, region, account, resource] = parts.as_slice() else { return false };
    let is_word =
        |word: &str| word.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    let is_id = |id: &str| id.len() == 12 && id.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    *arn == "arn"
        && (*partition == "aws" || partition.starts_with("aws-"))
        && *service == "bedrock"
        && (1..=20).contains(&region.len())
        && is_word(region)
        && account.len() == 12
        && account.bytes().all(|c| c.is_ascii_digit())
        && resource.strip_prefix(JOB).is_some_and(is_id)
}
