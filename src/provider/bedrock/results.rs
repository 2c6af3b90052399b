//! Bedrock's results (`docs/providers/bedrock.md#lines`): files in S3 that the job leads to, and answers of Converse that become
//! completions.

use super::{Bedrock, meant};
use crate::domain::batch::Batch;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use crate::provider::chat::{Choice, Completion, Tokens, ToolCall};
use crate::provider::openai_results::{error_of, failure_in, usage};
use crate::provider::read::Reader;
use crate::provider::request::Requests;
use crate::provider::results::{Fetch, FetchStep, Form, OutputLine, Record, RequestResult};
use crate::provider::s3::{Location, S3, keys};
use crate::provider::{Provider as _, answer, anthropic};
use serde_json::{Map, Value, json};
use std::path::Path;

impl Bedrock {
    /// Where the output is, the job itself says.
    pub(super) fn output(&self, batch: &Batch) -> Result<Box<dyn Fetch>, Failure> {
        Ok(Box::new(Output {
            requests: self.requests.clone(),
            s3: self.s3.clone(),
            id: batch.id.rsplit('/').next().unwrap_or_default().to_owned(),
            state: State::Ask(Box::new(self.retrieve(&batch.id)?)),
        }))
    }
}

/// The way to the output: the job, the list of its objects unless its one input file tells the name, the objects.
#[derive(Debug)]
struct Output {
    requests: Requests,
    s3: S3,
    /// The last part of the job's ARN, a folder's name in the output.
    id: String,
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
                    let object = self.requests.object(&meant(answer.ok_or_else(lost)?))?;
                    let mut reader = Reader::new(&object);
                    let input = reader.text("inputDataConfig.s3InputDataConfig.s3Uri");
                    let output = reader.text("outputDataConfig.s3OutputDataConfig.s3Uri");
                    let folder = output.as_deref().and_then(Location::parse).map(|at| at.join(&self.id));
                    let folder = folder.ok_or_else(|| {
                        Failure::Malformed("it does not say where in S3 the output is".to_owned())
                    })?;
                    let input = input.as_deref().and_then(Location::parse);
                    let is_file = |input: &Location| {
                        Path::new(input.name())
                            .extension()
                            .is_some_and(|kind| kind.eq_ignore_ascii_case("jsonl"))
                    };
                    if let Some(input) = input.filter(is_file) {
                        let file = folder.join(&format!("{}.out", input.name()));
                        self.state = State::Fetching(vec![file]);
                    } else {
                        // A folder of input files has an output for each.
                        let call = self.s3.list(&folder, None)?;
                        self.state = State::Listing(folder);
                        return Ok(FetchStep::Send(call));
                    }
                }
                State::Listing(folder) => {
                    let answer = answer.ok_or_else(lost)?;
                    if !answer.status.is_success() {
                        return Err(answer::refusal(answer));
                    }
                    let (found, next) = keys(answer);
                    if next.is_some() {
                        return Err(Failure::Unsupported(
                            "the output has more than a thousand files; fetch them from S3 yourself"
                                .to_owned(),
                        ));
                    }
                    let files = found.into_iter().rev().filter(|key| key.ends_with(".jsonl.out"));
                    let at = |key| Location { bucket: folder.bucket.clone(), key };
                    self.state = State::Fetching(files.map(at).collect());
                }
                State::Fetching(mut files) => {
                    let Some(file) = files.pop() else {
                        self.state = State::Fetching(files);
                        return Ok(FetchStep::Done);
                    };
                    self.state = State::Fetching(files);
                    return Ok(FetchStep::Stream(self.s3.get(&file)?, Form::Lines));
                }
            }
        }
    }
}

pub(super) fn output_line(record: Record<'_>) -> Result<OutputLine, String> {
    let mut reader = Reader::new(record.object);
    let custom_id = reader.id("recordId").or_else(|| reader.id("custom_id"));
    let line = |result, usage| Ok(OutputLine { id: None, custom_id: custom_id.clone(), result, usage });
    if let Some(error) = reader.value("error") {
        return line(failed(error), None);
    }
    let output = reader.value("modelOutput").ok_or("it has neither a `modelOutput` nor an error")?;
    let model = record.batch.model.as_deref().unwrap_or_default();
    let created = record.batch.created_at;
    let answered = output.as_object().and_then(|output| {
        let is_claude_s = output.get("type").is_some_and(|kind| kind == "message");
        completion(output, model, created)
            .or_else(|| anthropic::completion(output, created).filter(|_| is_claude_s))
    });
    if let Some(completion) = answered {
        let tokens = completion.tokens.map(Tokens::usage);
        return line(completion.into_result(), tokens);
    }
    if let Some(failure) = failure_in(output) {
        return line(failure, None);
    }
    // What another model's own interface answers, which differs from model to model.
    let body = output.clone();
    line(RequestResult::Response { status_code: 200, request_id: None, body }, usage(output))
}

/// `{"errorCode": 400, "errorMessage": "…"}`
fn failed(error: &Value) -> RequestResult {
    let code = match error.get("errorCode") {
        Some(Value::Number(code)) => Some(code.to_string()),
        Some(Value::String(code)) => Some(code.clone()),
        _ => None,
    };
    let is_expired = error.get("expired").and_then(Value::as_bool).unwrap_or(false);
    match error.get("errorMessage").and_then(Value::as_str) {
        Some(message) => RequestResult::Error {
            code: if is_expired { Some("batch_expired".to_owned()) } else { code },
            message: message.to_owned(),
        },
        None => error_of(error),
    }
}

/// What Converse answered as a chat completion; `None`: the object is no answer of Converse.
fn completion(output: &Map<String, Value>, model: &str, created: i64) -> Option<Completion> {
    let mut reader = Reader::new(output);
    let content = reader.value("output.message.content").and_then(Value::as_array)?;
    let mut choice = Choice::default();
    for block in content {
        if let Some(text) = block.get("text").and_then(Value::as_str) {
            choice.say(text);
        } else if let Some(text) =
            block.pointer("/reasoningContent/reasoningText/text").and_then(Value::as_str)
        {
            choice.think(text);
        } else if let Some(call) = block.get("toolUse") {
            let text = |key: &str| call.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            choice.calls.push(ToolCall {
                id: text("toolUseId"),
                name: text("name"),
                arguments: call.get("input").cloned().unwrap_or_else(|| json!({})),
            });
        } else {
            choice.others.push(block.clone());
        }
    }
    choice.end(reader.text("stopReason").as_deref(), &STOP_REASONS);
    let mut count = |field: &str| reader.count(&format!("usage.{field}")).unwrap_or(0);
    let (cached, written) = (count("cacheReadInputTokens"), count("cacheWriteInputTokens"));
    // What goes to or comes from the cache is counted apart.
    let prompt = count("inputTokens").saturating_add(cached).saturating_add(written);
    let tokens = Tokens { prompt, cached, written, completion: count("outputTokens"), ..Tokens::default() };
    Some(Completion {
        id: String::new(),
        created,
        model: model.to_owned(),
        choices: vec![choice],
        tokens: reader.has("usage").then_some(tokens),
    })
}

const STOP_REASONS: [(&str, &str); 7] = [
    ("end_turn", "stop"),
    ("stop_sequence", "stop"),
    ("max_tokens", "length"),
    ("model_context_window_exceeded", "length"),
    ("tool_use", "tool_calls"),
    ("content_filtered", "content_filter"),
    ("guardrail_intervened", "content_filter"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_converse_is_a_completion() {
        let Value::Object(output) = json!({
            "output": {"message": {"role": "assistant", "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm"}}},
                {"text": "Let me look."},
                {"toolUse": {"toolUseId": "t1", "name": "look", "input": {"at": 1}}},
            ]}},
            "stopReason": "tool_use",
            "usage": {"inputTokens": 10, "outputTokens": 5, "totalTokens": 18, "cacheReadInputTokens": 3},
        }) else {
            panic!()
        };
        let completion = completion(&output, "m", 1_795_000_000).unwrap();
        assert_eq!(completion.tokens.unwrap().usage().total_tokens, 18);
        insta::assert_json_snapshot!(completion.into_json());
        assert!(super::completion(&Map::new(), "m", 0).is_none());
    }
}
