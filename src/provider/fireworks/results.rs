//! Fireworks' results (`docs/providers/fireworks.md#lines`): files of a dataset, at signed addresses that the job leads to.

use super::Fireworks;
use crate::domain::batch::Batch;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use crate::provider::openai_results::{self, error_of, failure_in, usage};
use crate::provider::read::Reader;
use crate::provider::request::segment;
use crate::provider::results::{Fetch, FetchStep, Form, OutputLine, Part, Record, RequestResult};
use http::Method;
use serde_json::{Map, Value};

/// The way to the output: the job names the dataset, the dataset its files, whose addresses are signed.
#[derive(Debug)]
pub(super) struct Output {
    adapter: Fireworks,
    part: Part,
    state: State,
}

#[derive(Debug)]
enum State {
    Ask(Box<Call>),
    AskedJob,
    AskDataset(Box<Call>),
    AskedDataset,
    /// The last one first.
    Fetching(Vec<Call>),
}

impl Output {
    pub(super) fn begin(adapter: Fireworks, batch: &Batch, part: Part) -> Result<Box<dyn Fetch>, Failure> {
        let ask = adapter.requests.get(&adapter.job(&batch.id)?, &[])?;
        Ok(Box::new(Self { adapter, part, state: State::Ask(Box::new(ask)) }))
    }

    /// The files of the dataset that `batch` reads.
    pub(super) fn of_input(adapter: Fireworks, batch: &Batch) -> Result<Box<dyn Fetch>, Failure> {
        let ask = ask_for(&adapter, &batch.input_file_id)?;
        Ok(Box::new(Self { adapter, part: Part::Output, state: State::AskDataset(Box::new(ask)) }))
    }
}

/// Asks where the files of a dataset are, by its whole name or the last part of it.
fn ask_for(adapter: &Fireworks, dataset: &str) -> Result<Call, Failure> {
    let dataset = segment(dataset.rsplit('/').next().unwrap_or_default())?;
    adapter.requests.get(&format!("{}/datasets/{dataset}:getDownloadEndpoint", adapter.own()?), &[])
}

impl Fetch for Output {
    fn next(&mut self, answer: Option<&Answer>) -> Result<FetchStep, Failure> {
        let lost = || Failure::Malformed("there is no answer to go on from".to_owned());
        let requests = &self.adapter.requests;
        loop {
            match std::mem::replace(&mut self.state, State::AskedJob) {
                State::Ask(call) => return Ok(FetchStep::Send(*call)),
                State::AskedJob => {
                    let object = requests.object(answer.ok_or_else(lost)?)?;
                    let dataset = Reader::new(&object).text("outputDatasetId");
                    let dataset = dataset
                        .ok_or_else(|| Failure::Malformed("it names no dataset of the output".to_owned()))?;
                    self.state = State::AskedDataset;
                    return Ok(FetchStep::Send(ask_for(&self.adapter, &dataset)?));
                }
                State::AskDataset(call) => {
                    self.state = State::AskedDataset;
                    return Ok(FetchStep::Send(*call));
                }
                State::AskedDataset => {
                    let object = requests.object(answer.ok_or_else(lost)?)?;
                    let files = object.get("filenameToSignedUrls").and_then(Value::as_object);
                    let files = files.ok_or_else(|| Failure::Malformed("it names no files".to_owned()))?;
                    let mut calls = Vec::new();
                    for (name, url) in files.iter().rev().filter(|(name, _)| is_of(name, self.part)) {
                        let url = url.as_str().ok_or_else(|| {
                            Failure::Malformed(format!("the address of `{name}` is no text"))
                        })?;
                        calls.push(requests.elsewhere(Method::GET, url)?);
                    }
                    self.state = State::Fetching(calls);
                }
                State::Fetching(mut calls) => {
                    let call = calls.pop();
                    self.state = State::Fetching(calls);
                    return Ok(call.map_or(FetchStep::Done, |call| FetchStep::Stream(call, Form::Lines)));
                }
            }
        }
    }
}

/// The dataset holds a file of results and one of errors.
fn is_of(name: &str, part: Part) -> bool {
    let is_errors = name.rsplit('/').next().is_some_and(|name| name.to_lowercase().contains("error"));
    is_errors == (part == Part::Errors)
}

/// A line of the output: OpenAI's, or one whose response is the body itself.
pub(super) fn output_line(record: Record<'_>) -> Result<OutputLine, String> {
    let object = record.object;
    let is_bare = |response: &Map<String, Value>| {
        !response.contains_key("body") && !response.contains_key("status_code")
    };
    match (object.get("response"), object.get("error").filter(|error| !error.is_null())) {
        (Some(Value::Object(response)), None) if is_bare(response) => {
            let body = Value::Object(response.clone());
            let usage = usage(&body);
            let result = failure_in(&body).unwrap_or(RequestResult::Response {
                status_code: 200,
                request_id: None,
                body,
            });
            Ok(OutputLine { id: None, custom_id: Reader::new(object).id("custom_id"), result, usage })
        }
        (Some(Value::Null) | None, Some(error)) => Ok(OutputLine {
            id: None,
            custom_id: Reader::new(object).id("custom_id"),
            result: error_of(error),
            usage: None,
        }),
        _ => openai_results::output_line(object),
    }
}
