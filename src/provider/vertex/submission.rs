//! Vertex's way to a batch: the input is put into Cloud Storage, then a job reads it there (`docs/providers/vertex.md`).

use super::Vertex;
use crate::http::call::Answer;
use crate::http::failure::Failure;
use crate::provider::gcs::Location;
use crate::provider::staged::Staged;
use crate::provider::submit::{
    Created, Framing, IdRule, Intake, Job, LineForm, ModelPlace, RequestLine, Submission, Translated,
    Untranslatable, marked_name, only_a_day, patient,
};
use crate::provider::{anthropic, gemini};
use serde_json::{Map, Value, json};

/// Vertex's own lines, and OpenAI's chat completions, which become Gemini's requests or Claude's.
pub(super) const INTAKE: Intake = Intake {
    framing: Framing::Lines,
    own: LineForm {
        id: "key",
        id_needed: false,
        body: "request",
        model: ModelPlace::Job,
        // Claude's requests have messages, Gemini's contents.
        tells: &[],
    },
    takes_openai: false,
    max_requests: None,
    max_bytes: None,
    max_line_bytes: None,
    custom_id: IdRule { longest: None, plain: false },
    one_model: true,
    endpoints: &[],
    marks: true,
};

/// What each request to Claude says of its form; only this one is documented.
const CLAUDE_VERSION: &str = "vertex-2023-10-16";

/// Gemini's form of a request, or Claude's; the key beside it comes back with the answer.
pub(super) fn translate(line: RequestLine) -> Result<Translated, Untranslatable> {
    let model = line.object.get("body").and_then(|body| body.get("model")).and_then(Value::as_str);
    if model.is_some_and(is_claude) {
        return to_claude(line);
    }
    if model.is_some_and(|model| !is_gemini(model)) {
        return Err(Untranslatable(
            "only requests to Gemini's and Claude's models are translated; write the line in the model's own form"
                .to_owned(),
        ));
    }
    if line.object.get("url").and_then(Value::as_str).is_some_and(|url| !url.ends_with("/chat/completions")) {
        return Err(Untranslatable("only chat completions have a counterpart at Vertex".to_owned()));
    }
    gemini::translated(line)
}

fn is_gemini(model: &str) -> bool {
    model.rsplit('/').next().is_some_and(|name| name.starts_with("gemini"))
}

fn is_claude(model: &str) -> bool {
    model.rsplit('/').next().is_some_and(|name| name.starts_with("claude-"))
}

/// Anthropic's form of a request, without the model, which the job names, and with the version that Vertex wants in its
/// place.
fn to_claude(line: RequestLine) -> Result<Translated, Untranslatable> {
    let url = line.object.get("url").and_then(Value::as_str).unwrap_or_default();
    if !url.ends_with("/chat/completions") && !url.ends_with("/messages") {
        return Err(Untranslatable("only chat completions have a counterpart at Vertex".to_owned()));
    }
    let Translated { mut object, dropped } = anthropic::translated(line)?;
    let Some(Value::Object(mut request)) = object.shift_remove("params") else {
        return Err(Untranslatable("it has no `body`".to_owned()));
    };
    request.shift_remove("model");
    request.entry("anthropic_version").or_insert_with(|| CLAUDE_VERSION.into());
    let custom_id = object.shift_remove("custom_id").unwrap_or_default();
    let object =
        Map::from_iter([("custom_id".to_owned(), custom_id), ("request".to_owned(), request.into())]);
    Ok(Translated { object, dropped })
}

/// The name of a model as a job has it: a publisher's, unless it is one's own.
fn resource(model: &str) -> String {
    match model.split('/').collect::<Vec<_>>().as_slice() {
        [name] => {
            let publisher = if is_claude(name) { "anthropic" } else { "google" };
            format!("publishers/{publisher}/models/{name}")
        }
        [publisher, name] => format!("publishers/{publisher}/models/{name}"),
        _ => model.to_owned(),
    }
}

impl Vertex {
    /// The input goes to `input_uri` under the marker's name; the job is named after it.
    pub(super) fn creation(&self, job: &Job) -> Result<Box<dyn Submission>, Failure> {
        only_a_day(job)?;
        let place = |key: &str| {
            self.places.get(key).map(|uri| {
                Location::parse(uri).ok_or_else(|| {
                    Failure::BadRequest(format!(
                        "`{key}` is no place in Cloud Storage; write it like \"gs://BUCKET/FOLDER\""
                    ))
                })
            })
        };
        let (input, output) = match (place("input_uri").transpose()?, place("output_uri").transpose()?) {
            (Some(input), Some(output)) => (input, output),
            (Some(both), None) | (None, Some(both)) => (both.clone(), both),
            (None, None) => {
                return Err(Failure::BadRequest(
                    "a job at Vertex needs `input_uri` in the provider's part of the configuration"
                        .to_owned(),
                ));
            }
        };
        let model = job.model.as_ref().ok_or_else(|| {
            Failure::BadRequest("a job at Vertex is for one model; give it with --model".to_owned())
        })?;
        let input = input.join(&format!("{}.jsonl", job.marker));
        let name = job.name.as_deref().unwrap_or(&job.file_name);
        let mut body = json!({
            "displayName": marked_name(name, &job.marker),
            "model": resource(model),
            "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [input.uri()]}},
            "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": output.uri()}},
        });
        if !job.metadata.is_empty() {
            if !job.metadata.iter().all(|(key, value)| is_label(key) && is_label(value)) {
                return Err(Failure::Unsupported(
                    "metadata become labels at Vertex, of at most 63 lower-case letters, digits, - and _"
                        .to_owned(),
                ));
            }
            body["labels"] = json!(job.metadata);
        }
        let create = self.granted(self.requests.post(&self.jobs()?, Some(&body))?);
        let adapter = self.clone();
        Ok(Staged::begin(patient(self.storage.put(&input)?), create, move |answer| adapter.created(answer)))
    }

    fn created(&self, answer: &Answer) -> Result<Created, Failure> {
        let sighting = self.sighting(&self.requests.object(answer)?);
        if sighting.id.is_empty() {
            return Err(Failure::Malformed("there is no `name` in it".to_owned()));
        }
        Ok(Created { id: sighting.id.clone(), sighting: Some(sighting) })
    }
}

fn is_label(text: &str) -> bool {
    text.chars().count() <= 63
        && text.chars().all(|c| c.is_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
}
