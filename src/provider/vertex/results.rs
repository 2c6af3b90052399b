//! Vertex's results (`docs/providers/vertex.md#lines`): files in Cloud Storage that the job leads to, answers that become completions.

use super::Vertex;
use crate::domain::batch::Batch;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use crate::provider::chat::Tokens;
use crate::provider::gcs::{CloudStorage, Location};
use crate::provider::openai_results::{self, error_of, failure_in};
use crate::provider::read::Reader;
use crate::provider::request::Requests;
use crate::provider::results::{Fetch, FetchStep, Form, OutputLine, Record, RequestResult};
use crate::provider::{anthropic, gemini};
use serde_json::{Map, Value};

impl Vertex {
    /// Where the output is, the job itself says.
    pub(super) fn output(&self, batch: &Batch) -> Result<Box<dyn Fetch>, Failure> {
        let ask = self.granted(self.requests.get(&self.job(&batch.id)?, &[])?);
        Ok(Box::new(Output {
            requests: self.requests.clone(),
            storage: self.storage.clone(),
            state: State::Ask(Box::new(ask)),
        }))
    }
}

/// The way to the output: the job, the list of its objects, the objects.
#[derive(Debug)]
struct Output {
    requests: Requests,
    storage: CloudStorage,
    state: State,
}

#[derive(Debug)]
enum State {
    Ask(Box<Call>),
    Asked,
    Listing(Location),
    /// The last one first.
    Fetching(Vec<Location>),
}

impl Fetch for Output {
    fn next(&mut self, answer: Option<&Answer>) -> Result<FetchStep, Failure> {
        let lost = || Failure::Malformed("there is no answer to go on from".to_owned());
        loop {
            match std::mem::replace(&mut self.state, State::Asked) {
                State::Ask(call) => return Ok(FetchStep::Send(*call)),
                State::Asked => {
                    let object = self.requests.object(answer.ok_or_else(lost)?)?;
                    let mut reader = Reader::new(&object);
                    if reader.has("outputInfo.bigqueryOutputTable") {
                        return Err(Failure::Unsupported(
                            "the results of this batch are in a table of BigQuery, which batchd does not read".to_owned(),
                        ));
                    }
                    let directory = reader.text("outputInfo.gcsOutputDirectory");
                    let directory = directory.as_deref().and_then(Location::parse).ok_or_else(|| {
                        Failure::Malformed("it does not say where in Cloud Storage the output is".to_owned())
                    })?;
                    let call = self.storage.list(&directory)?;
                    self.state = State::Listing(directory);
                    return Ok(FetchStep::Send(call));
                }
                State::Listing(directory) => {
                    let mut names = self.storage.names(answer.ok_or_else(lost)?)?;
                    names.retain(|name| is_predictions(name));
                    names.sort_by(|one, other| other.cmp(one));
                    let at = |object| Location { bucket: directory.bucket.clone(), object };
                    self.state = State::Fetching(names.into_iter().map(at).collect());
                }
                State::Fetching(mut files) => {
                    let file = files.pop();
                    self.state = State::Fetching(files);
                    return Ok(match file {
                        Some(file) => FetchStep::Stream(self.storage.get(&file)?, Form::Lines),
                        None => FetchStep::Done,
                    });
                }
            }
        }
    }
}

/// `predictions.jsonl`, or `prediction.results-00000-of-00002` of models of one's own.
fn is_predictions(object: &str) -> bool {
    let name = object.rsplit('/').next().unwrap_or_default();
    name.starts_with("predictions") || name.starts_with("prediction.results")
}

/// A line of the output (`docs/providers/vertex.md#lines`): a request without an answer has its failure in `status`.
///
/// Lines come in any order, so that the place of one that has no id says nothing.
pub(super) fn output_line(record: Record<'_>) -> Result<OutputLine, String> {
    let mut reader = Reader::new(record.object);
    let own = ["id", "instance.key", "instance.custom_id", "instance.id"];
    let custom_id = gemini::IDS.into_iter().chain(own).find_map(|path| reader.id(path));
    let line = |result, usage| Ok(OutputLine { id: None, custom_id: custom_id.clone(), result, usage });
    let answer = |body| RequestResult::Response { status_code: 200, request_id: None, body };
    // Claude's may stand in a text, or in the `body` of a response.
    let parsed =
        reader.value("response").and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok());
    let response = parsed.as_ref().or_else(|| reader.value("response")).and_then(Value::as_object);
    let response = response.map(message_in).filter(|response| !response.is_empty());
    match (response, reader.value("status").or_else(|| reader.value("error"))) {
        (None, Some(status)) if status != "" => line(error_of(&told(status)), None),
        // Models of one's own and those for embeddings answer with these.
        (None, _) if reader.has("predictions") || reader.has("prediction") => {
            line(answer(Value::Object(record.object.clone())), None)
        }
        (None, _) => Err("it has neither a response nor a failure".to_owned()),
        (Some(response), _) if gemini::is_openai_s(response) => {
            let read = openai_results::output_line(record.object)?;
            Ok(OutputLine { custom_id: read.custom_id.or(custom_id), ..read })
        }
        (Some(response), _)
            if response.contains_key("candidates") || response.contains_key("promptFeedback") =>
        {
            let (result, usage) = gemini::answered(response, record);
            line(result, usage)
        }
        (Some(response), _) => {
            let completion = anthropic::completion(response, record.batch.created_at);
            if let Some(completion) = completion.filter(|_| is_message(response)) {
                let usage = completion.tokens.map(Tokens::usage);
                return line(completion.into_result(), usage);
            }
            let body = Value::Object(response.clone());
            if let Some(failure) = failure_in(&body) {
                return line(failure, None);
            }
            let usage = openai_results::usage(&body);
            line(answer(body), usage)
        }
    }
}

/// Claude's message, if `response` has one as its body.
fn message_in(response: &Map<String, Value>) -> &Map<String, Value> {
    let body = response.get("body").and_then(Value::as_object);
    body.filter(|body| is_message(body)).unwrap_or(response)
}

fn is_message(response: &Map<String, Value>) -> bool {
    response.get("type").is_some_and(|kind| kind == "message")
        || response.get("role").is_some_and(|role| role == "assistant")
            && response.contains_key("stop_reason")
}

/// A failure in words, or in JSON within a text.
fn told(status: &Value) -> Value {
    let inner = status.as_str().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    match inner {
        Some(inner) => inner.get("error").cloned().unwrap_or(Value::Object(inner)),
        None => status.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::results::Part;
    use serde_json::json;

    #[test]
    fn only_files_of_predictions_are_fetched() {
        assert!(is_predictions("out/prediction-model-2026/predictions.jsonl"));
        assert!(is_predictions("out/prediction.results-00000-of-00002"));
        assert!(!is_predictions("out/prediction.errors_stats-00000-of-00001"));
        assert!(!is_predictions("out/manifest.json"));
    }

    #[test]
    fn a_line_is_known_by_an_id_that_it_bears_and_never_by_its_place() {
        let batch = Batch::unseen("1", "/v1/x", 0);
        let id = |object: Value| {
            let Value::Object(object) = object else { panic!() };
            output_line(Record { object: &object, index: 7, part: Part::Output, batch: &batch })
                .unwrap()
                .custom_id
        };
        let response =
            json!({"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}]});
        assert_eq!(id(json!({"response": response})), None);
        let labelled = json!({"request": {"labels": {"litellm_custom_id": "k"}}, "response": response});
        assert_eq!(id(labelled).as_deref(), Some("k"));
        assert_eq!(id(json!({"instance": {"key": "k"}, "predictions": [1]})).as_deref(), Some("k"));
    }

    #[test]
    fn a_failure_is_read_out_of_its_text() {
        assert_eq!(told(&json!("Bad Request: {no json")), json!("Bad Request: {no json"));
        assert_eq!(
            told(&json!(r#"{"error":{"code":400,"message":"m"}}"#)),
            json!({"code": 400, "message": "m"})
        );
        assert_eq!(told(&json!(r#"{"code":3,"message":"m"}"#)), json!({"code": 3, "message": "m"}));
    }
}
