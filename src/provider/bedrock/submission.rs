//! Bedrock's way to a batch: the input is put into S3, then a job reads it there (`docs/providers/bedrock.md`).

use super::{Bedrock, meant};
use crate::http::call::Answer;
use crate::http::failure::Failure;
use crate::provider::answer;
use crate::provider::read::Reader;
use crate::provider::request::Requests;
use crate::provider::s3::Location;
use crate::provider::staged::Staged;
use crate::provider::submit::{
    Created, Framing, IdRule, Intake, Job, LineForm, ModelPlace, Submission, patient,
};
use serde_json::{Value, json};

/// The further keys that a creation is made with.
pub(super) const OPTIONS: [&str; 7] =
    ["bucket_owner", "input_uri", "kms_key", "output_uri", "role_arn", "security_group_ids", "subnet_ids"];

/// Bedrock's own lines, and OpenAI's chat completions, which become Converse's.
pub(super) const INTAKE: Intake = Intake {
    framing: Framing::Lines,
    own: LineForm {
        id: "recordId",
        id_needed: false,
        body: "modelInput",
        model: ModelPlace::Job,
        tells: &[],
    },
    takes_openai: false,
    // Quotas differ from model to model and from account to account; Bedrock says itself what is too much.
    max_requests: None,
    max_bytes: None,
    max_line_bytes: None,
    custom_id: IdRule { longest: None, plain: false },
    one_model: true,
    endpoints: &[],
    marks: true,
};

impl Bedrock {
    /// The input goes to `input_uri` under the marker's name; the job is named after it.
    pub(super) fn creation(&self, job: &Job) -> Result<Box<dyn Submission>, Failure> {
        let missing = |key: &str| {
            Failure::BadRequest(format!(
                "a job at Bedrock needs `{key}` in the provider's part of the configuration"
            ))
        };
        let place = |key: &str| {
            self.places.get(key).map(|uri| {
                Location::parse(uri).ok_or_else(|| {
                    Failure::BadRequest(format!(
                        "`{key}` is no place in S3; write it like \"s3://BUCKET/FOLDER\""
                    ))
                })
            })
        };
        let (input, output) = match (place("input_uri").transpose()?, place("output_uri").transpose()?) {
            (Some(input), Some(output)) => (input, output),
            (Some(both), None) | (None, Some(both)) => (both.clone(), both),
            (None, None) => return Err(missing("input_uri")),
        };
        let role = self.places.get("role_arn").ok_or_else(|| missing("role_arn"))?;
        let model = job.model.as_ref().ok_or_else(|| {
            Failure::BadRequest("a job at Bedrock is for one model; give it with --model".to_owned())
        })?;
        let input = input.join(&format!("{}.jsonl", job.marker));
        // A folder: without the slash it would be the beginning of other names too.
        let output = format!("{}/", output.uri().trim_end_matches('/'));
        let mut body = json!({
            "jobName": job_name(job),
            "roleArn": role,
            "modelId": model,
            "clientRequestToken": job.marker,
            "inputDataConfig": {"s3InputDataConfig": {"s3Uri": input.uri(), "s3InputFormat": "JSONL"}},
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": output}},
            "modelInvocationType": if is_converse(&job.endpoint) { "Converse" } else { "InvokeModel" },
            "timeoutDurationInHours": hours(&job.completion_window)?,
        });
        let storage = [
            ("/inputDataConfig/s3InputDataConfig", "s3BucketOwner", "bucket_owner"),
            ("/outputDataConfig/s3OutputDataConfig", "s3BucketOwner", "bucket_owner"),
            ("/outputDataConfig/s3OutputDataConfig", "s3EncryptionKeyId", "kms_key"),
        ];
        for (at, field, key) in storage {
            if let (Some(Value::Object(into)), Some(value)) = (body.pointer_mut(at), self.places.get(key)) {
                into.insert(field.to_owned(), value.as_str().into());
            }
        }
        match (self.list("subnet_ids"), self.list("security_group_ids")) {
            (None, None) => {}
            (Some(subnets), Some(groups)) => {
                body["vpcConfig"] = json!({"subnetIds": subnets, "securityGroupIds": groups});
            }
            (Some(_), None) => return Err(missing("security_group_ids")),
            (None, Some(_)) => return Err(missing("subnet_ids")),
        }
        if !job.metadata.is_empty() {
            body["tags"] =
                job.metadata.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        }
        let create = self.signed(self.requests.post("/model-invocation-job", Some(&body))?);
        let requests = self.requests.clone();
        Ok(Staged::begin(patient(self.s3.put(&input)?), create, move |answer| created(&requests, answer)))
    }
}

impl Bedrock {
    /// The members of a further key that is a list.
    fn list(&self, key: &str) -> Option<Vec<&str>> {
        let members = self.places.get(key)?.split(',').map(str::trim).filter(|member| !member.is_empty());
        Some(members.collect())
    }
}

/// What is created tells its ARN and no more.
fn created(requests: &Requests, answer: &Answer) -> Result<Created, Failure> {
    let object = requests.object(&meant(answer))?;
    let id = Reader::new(&object).text("jobArn");
    let id = id.ok_or_else(|| Failure::Malformed("there is no `jobArn` in it".to_owned()))?;
    Ok(Created { id, sighting: None })
}

/// At most 63 letters, digits, `+`, `-` and `.`, with a letter or digit first: the marker, and as much of the name as
/// fits.
fn job_name(job: &Job) -> String {
    const MAX_NAME_CHARS: usize = 63;
    let mut name = job.marker.clone();
    if let Some(own) = &job.name {
        name.push('-');
        name.extend(own.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }));
    }
    name.chars().take(MAX_NAME_CHARS).collect::<String>().trim_end_matches('-').to_owned()
}

/// What is translated becomes Converse's; Bedrock's own lines are `InvokeModel`'s unless the user says otherwise.
fn is_converse(endpoint: &str) -> bool {
    endpoint.ends_with("/chat/completions") || endpoint.ends_with("/converse")
}

fn hours(window: &str) -> Result<u64, Failure> {
    let bad =
        || Failure::BadRequest(format!("Bedrock gives a job 24h to 168h, not {}", answer::shorten(window)));
    let window = crate::domain::duration::parse(window).map_err(|_| bad())?;
    let hours = window.as_secs().div_ceil(3600);
    if (24..=168).contains(&hours) { Ok(hours) } else { Err(bad()) }
}
