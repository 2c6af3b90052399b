//! Cohere's results (`docs/providers/cohere.md#lines`): the Avro files of a dataset that the batch leads to, and answers
//! that become completions and embeddings.

use super::Cohere;
use crate::domain::batch::{Batch, InputTokensDetails, OutputTokensDetails, Usage};
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use crate::provider::chat::{Choice, Completion, Tokens, ToolCall};
use crate::provider::fields::object;
use crate::provider::lenient;
use crate::provider::openai_results::{self, error_of, failure_in};
use crate::provider::read::Reader;
use crate::provider::records::Splitter;
use crate::provider::request::segment;
use crate::provider::results::{Fetch, FetchStep, Form, OutputLine, Record, RequestResult};
use http::Method;
use serde_json::{Map, Value, json};

/// The way to the output: the batch names the dataset, the dataset its parts, whose addresses are signed.
#[derive(Debug)]
pub(super) struct Output {
    adapter: Cohere,
    /// Whether the lines are wanted that were uploaded, in place of the Avro files that were made of them.
    is_original: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Ask(Box<Call>),
    AskedBatch,
    AskDataset(Box<Call>),
    AskedDataset,
    /// The last one first.
    Fetching(Vec<Call>),
}

impl Output {
    pub(super) fn begin(adapter: Cohere, batch: &Batch) -> Result<Box<dyn Fetch>, Failure> {
        let ask = adapter.requests.get(&format!("/batches/{}", segment(&batch.id)?), &[])?;
        Ok(Box::new(Self { adapter, is_original: false, state: State::Ask(Box::new(ask)) }))
    }

    /// The same for what was uploaded as `dataset`.
    pub(super) fn original(adapter: Cohere, dataset: &str) -> Result<Box<dyn Fetch>, Failure> {
        let ask = adapter.datasets.get(&format!("/datasets/{}", segment(dataset)?), &[])?;
        Ok(Box::new(Self { adapter, is_original: true, state: State::AskDataset(Box::new(ask)) }))
    }

    /// The parts of a dataset, the last one first.
    fn parts(&self, dataset: &Map<String, Value>) -> Result<Vec<Call>, Failure> {
        let mut reader = Reader::new(dataset);
        let status = reader.text("validation_status").unwrap_or_default();
        let parts = reader.value("dataset_parts").and_then(Value::as_array).map(Vec::as_slice);
        let mut parts: Vec<&Value> = parts.unwrap_or_default().iter().collect();
        if parts.is_empty() {
            return Err(Failure::Malformed(match status.as_str() {
                "" | "validated" => "the dataset has no parts".to_owned(),
                status => format!("the dataset is not ready yet (`{status}`); try again soon"),
            }));
        }
        // Those without a place stay where they are.
        parts.sort_by_key(|part| part.get("index").and_then(Value::as_u64).unwrap_or(0));
        let key = if self.is_original { "original_url" } else { "url" };
        let mut urls = Vec::with_capacity(parts.len());
        for part in parts {
            match part.get(key).and_then(Value::as_str) {
                // Several parts may have been made of one file.
                Some(url) if self.is_original && urls.contains(&url) => {}
                Some(url) => urls.push(url),
                None if self.is_original => {
                    return Err(Failure::Unsupported(
                        "Cohere has not kept the lines of the dataset".to_owned(),
                    ));
                }
                None => return Err(Failure::Malformed("a part of the dataset has no address".to_owned())),
            }
        }
        urls.into_iter().rev().map(|url| self.adapter.datasets.elsewhere(Method::GET, url)).collect()
    }
}

impl Fetch for Output {
    fn next(&mut self, answer: Option<&Answer>) -> Result<FetchStep, Failure> {
        let lost = || Failure::Malformed("there is no answer to go on from".to_owned());
        let Cohere { requests, datasets, .. } = &self.adapter;
        loop {
            match std::mem::replace(&mut self.state, State::AskedBatch) {
                State::Ask(call) => return Ok(FetchStep::Send(*call)),
                State::AskedBatch => {
                    let batch = requests.object(answer.ok_or_else(lost)?)?;
                    let dataset = Reader::new(&batch).id("output_dataset_id");
                    let dataset = dataset
                        .ok_or_else(|| Failure::Malformed("it names no dataset of the output".to_owned()))?;
                    self.state = State::AskedDataset;
                    return Ok(FetchStep::Send(
                        datasets.get(&format!("/datasets/{}", segment(&dataset)?), &[])?,
                    ));
                }
                State::AskDataset(call) => {
                    self.state = State::AskedDataset;
                    return Ok(FetchStep::Send(*call));
                }
                State::AskedDataset => {
                    let dataset = super::dataset_in(datasets.object(answer.ok_or_else(lost)?)?);
                    self.state = State::Fetching(self.parts(&dataset)?);
                }
                State::Fetching(mut calls) => {
                    let call = calls.pop();
                    self.state = State::Fetching(calls);
                    let form = if self.is_original { Form::Lines } else { Form::Avro };
                    return Ok(call.map_or(FetchStep::Done, |call| FetchStep::Stream(call, form)));
                }
            }
        }
    }
}

/// A record of the output: `{custom_id, body, error}`, of which `body` or `error` is there.
pub(super) fn output_line(record: Record<'_>) -> Result<OutputLine, String> {
    let mut reader = Reader::new(record.object);
    let custom_id = reader.id("custom_id");
    let line = |result, usage| Ok(OutputLine { id: None, custom_id: custom_id.clone(), result, usage });
    if let Some(error) = reader.value("error").filter(|error| says_something(error)) {
        return line(error_of(&in_text(error)), None);
    }
    let Some(body) = reader.value("body").or_else(|| reader.value("response")).map(in_text) else {
        return Err("it has neither a body nor an error".to_owned());
    };
    let Value::Object(answered) = &body else {
        return Err("its body is no object".to_owned());
    };
    if let Some(failure) = failure_in(&body) {
        return line(failure, None);
    }
    let model = record.batch.model.as_deref().unwrap_or_default();
    if let Some(completion) = completion(answered, model, record.batch.created_at) {
        let usage = completion.tokens.map(Tokens::usage);
        return line(completion.into_result(), usage);
    }
    let usage = embedding_usage(answered).or_else(|| openai_results::usage(&body));
    let body = embeddings(answered, model, usage.as_ref()).unwrap_or(body);
    line(RequestResult::Response { status_code: 200, request_id: None, body }, usage)
}

fn says_something(error: &Value) -> bool {
    match error {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

/// An object that stands in a text.
fn in_text(value: &Value) -> Value {
    let inner = value.as_str().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    inner.map_or_else(|| value.clone(), Value::Object)
}

/// OpenAI's words for why an answer ended.
const ENDS: [(&str, &str); 4] =
    [("COMPLETE", "stop"), ("STOP_SEQUENCE", "stop"), ("MAX_TOKENS", "length"), ("TOOL_CALL", "tool_calls")];

/// A chat's answer as a chat completion; `None`: it is no answer of a chat.
fn completion(body: &Map<String, Value>, model: &str, created: i64) -> Option<Completion> {
    let mut reader = Reader::new(body);
    let message = reader.value("message")?.as_object()?;
    let mut choice = Choice::default();
    match message.get("content") {
        Some(Value::String(text)) => choice.say(text),
        Some(Value::Array(parts)) => {
            for part in parts {
                let text = |key: &str| part.get(key).and_then(Value::as_str);
                match (text("text"), text("thinking")) {
                    (Some(text), _) => choice.say(text),
                    (None, Some(thought)) => choice.think(thought),
                    (None, None) => choice.others.push(part.clone()),
                }
            }
        }
        _ => {}
    }
    if let Some(plan) = message.get("tool_plan").and_then(Value::as_str).filter(|plan| !plan.is_empty()) {
        choice.think(plan);
    }
    for call in message.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
        let text = |at: &str| call.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        choice.calls.push(ToolCall {
            id: text("/id"),
            name: text("/function/name"),
            arguments: in_text(call.pointer("/function/arguments").unwrap_or(&Value::Null)),
        });
    }
    choice.end(reader.text("finish_reason").as_deref(), &ENDS);
    Some(Completion {
        id: reader.id("id").unwrap_or_default(),
        created,
        model: model.to_owned(),
        choices: vec![choice],
        tokens: tokens(reader),
    })
}

/// The tokens that are billed, which are those that the batch counts; else those that the model read and wrote.
fn tokens(mut reader: Reader<'_>) -> Option<Tokens> {
    let mut count = |name: &str| {
        ["usage.billed_units", "usage.tokens"]
            .into_iter()
            .find_map(|at| reader.count(&format!("{at}.{name}")))
    };
    let (prompt, completion) = (count("input_tokens"), count("output_tokens"));
    if prompt.is_none() && completion.is_none() {
        return None;
    }
    Some(Tokens { prompt: prompt.unwrap_or(0), completion: completion.unwrap_or(0), ..Tokens::default() })
}

fn embedding_usage(body: &Map<String, Value>) -> Option<Usage> {
    let mut reader = Reader::new(body);
    let input_tokens =
        ["meta.billed_units.input_tokens", "meta.tokens.input_tokens", "usage.billed_units.input_tokens"]
            .into_iter()
            .find_map(|at| reader.count(at))?;
    Some(Usage {
        input_tokens,
        input_tokens_details: InputTokensDetails::default(),
        output_tokens: 0,
        output_tokens_details: OutputTokensDetails::default(),
        total_tokens: input_tokens,
    })
}

/// The members of a list, which is kept as it is written if it is long.
fn vectors(list: &Value) -> Option<Vec<Value>> {
    if let Value::Array(vectors) = list {
        return Some(vectors.clone());
    }
    let text = lenient::text(list);
    if !text.starts_with('[') {
        return None;
    }
    let vectors = Splitter::new(Form::Array(&[&[]])).push(&text.into()).ok()?;
    Some(vectors.iter().map(|vector| lenient::raw(vector)).collect())
}

/// Embeddings of numbers as OpenAI's list of them; `None`: there are others, for which it has no place.
fn embeddings(body: &Map<String, Value>, model: &str, usage: Option<&Usage>) -> Option<Value> {
    let numbers = match body.get("embeddings")? {
        Value::Object(kinds) => {
            let mut there =
                kinds.iter().filter(|(_, values)| says_something(values) && **values != json!([]));
            match (there.next(), there.next()) {
                (Some((kind, numbers)), None) if kind == "float" || kind == "float_" => vectors(numbers)?,
                _ => return None,
            }
        }
        numbers => vectors(numbers)?,
    };
    let data = numbers.into_iter().enumerate().map(|(index, numbers)| {
        object([("object", "embedding".into()), ("index", index.into()), ("embedding", numbers)])
    });
    let mut list = json!({"object": "list", "data": data.collect::<Vec<_>>(), "model": model});
    if let Some(usage) = usage {
        list["usage"] = json!({"prompt_tokens": usage.input_tokens, "total_tokens": usage.total_tokens});
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::results::Part;

    #[test]
    fn embeddings_become_a_list_however_many_they_are() {
        let batch = Batch::unseen("b", "/v2/embed", 0);
        for count in [1, 96] {
            let vectors: Vec<Vec<f64>> = (0..count)
                .map(|number| (0..1536).map(|place| f64::from(number * place) / 7.0).collect())
                .collect();
            let body = json!({"id": "e", "embeddings": {"float": vectors, "int8": null}, "texts": []});
            let record = json!({"custom_id": "a", "body": body, "error": null}).to_string();
            let is_long = count > 1;
            let read = if is_long { lenient::compact } else { lenient::object };
            let object = read(record.as_bytes()).unwrap();
            let record = Record { object: &object, index: 0, part: Part::Output, batch: &batch };
            let line = lenient::text(&output_line(record).unwrap().into_json());
            let line: Value = serde_json::from_str(&line).unwrap();
            let data = line["response"]["body"]["data"].as_array().unwrap();
            let expected = vectors
                .iter()
                .enumerate()
                .map(|(index, vector)| json!({"object": "embedding", "index": index, "embedding": vector}));
            assert_eq!(*data, expected.collect::<Vec<_>>(), "{count}");
        }
    }
}
