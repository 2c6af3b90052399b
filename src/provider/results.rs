//! Results: where a service keeps them, step by step, and what one line of them says, sans-IO.

use crate::domain::batch::{Batch, Usage};
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use bytes::Bytes;
use serde_json::{Map, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// What the service keeps as output; where it keeps no errors apart, the errors too.
    Output,
    /// What the service keeps apart as errors.
    Errors,
}

/// The way to one part of a batch's results, one step after another. It holds no connection.
pub trait Fetch: Send + std::fmt::Debug {
    /// The next step, given the answer to the last [`FetchStep::Send`] (`None` at the beginning and after a stream).
    ///
    /// An answer that is a failure is the adapter's to read: it gives back the [`Failure`] that it tells.
    fn next(&mut self, answer: Option<&Answer>) -> Result<FetchStep, Failure>;
}

#[derive(Debug)]
pub enum FetchStep {
    /// Send this, and bring the whole (short) answer.
    Send(Call),
    /// Send this; the body of its answer is results, of any length.
    Stream(Call, Form),
    /// These are results, one record each.
    Records(Vec<Bytes>),
    /// There are no more.
    Done,
}

/// How the records stand in the body of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON object a line.
    Lines,
    /// The elements of the array at the first of these paths that is there, in one JSON document of any length.
    Array(&'static [&'static [&'static str]]),
    /// The records of an Avro file.
    Avro,
}

#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub object: &'a Map<String, Value>,
    /// Its place in its part, from 0: where a service keeps no ids, the order of the requests.
    pub index: u64,
    /// Which part it stands in.
    pub part: Part,
    pub batch: &'a Batch,
}

/// A record in the form of a line of OpenAI's output and error files (`docs/providers/openai.md#lines`).
#[derive(Clone, Debug, PartialEq)]
pub struct OutputLine {
    /// The service's id for the request within the batch.
    pub id: Option<String>,
    /// The submitter's id for the request.
    pub custom_id: Option<String>,
    pub result: RequestResult,
    /// Tokens that the request used, where its body tells.
    pub usage: Option<Usage>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RequestResult {
    /// It was answered: with success, or with an HTTP error.
    Response {
        status_code: u16,
        /// The service's id for the exchange.
        request_id: Option<String>,
        /// The body, in the form of the batch's endpoint.
        body: Value,
    },
    /// It was not answered.
    Error {
        /// One word (`batch_expired`, `batch_cancelled`, the service's own).
        code: Option<String>,
        /// For people.
        message: String,
    },
}

impl RequestResult {
    /// The model that answered, where the body names it.
    pub fn model(&self) -> Option<&str> {
        match self {
            Self::Response { body, .. } => body.get("model")?.as_str(),
            Self::Error { .. } => None,
        }
    }

    pub fn is_success(&self) -> bool {
        matches!(self, Self::Response { status_code, .. } if (200..300).contains(status_code))
    }
}

impl OutputLine {
    /// As JSON, every key present.
    pub fn into_json(self) -> Value {
        let (response, error) = match self.result {
            RequestResult::Response { status_code, request_id, body } => {
                let mut response = serde_json::json!({"status_code": status_code, "request_id": request_id});
                response["body"] = body;
                (response, Value::Null)
            }
            RequestResult::Error { code, message } => {
                (Value::Null, serde_json::json!({"code": code, "message": message}))
            }
        };
        let mut line = serde_json::json!({"id": self.id, "custom_id": self.custom_id});
        line["response"] = response;
        line["error"] = error;
        line
    }
}

/// Whether `object`, of which `line` was read, says all of it under the same names: then it is in OpenAI's form already.
pub fn is_written_in(line: &Value, object: &Map<String, Value>) -> bool {
    let Value::Object(fields) = line else { return false };
    let failed = line["response"].is_null();
    fields.iter().all(|(key, value)| match object.get(key) {
        // A response beside an error is more than the line says.
        Some(told) if key == "response" && failed => told.is_null() || told.is_object(),
        Some(told) => says(told, value),
        None => false,
    })
}

/// Whether `told` has every field of `value`, with the same values.
fn says(told: &Value, value: &Value) -> bool {
    match (told, value) {
        (Value::Object(told), Value::Object(fields)) => {
            fields.iter().all(|(key, value)| told.get(key) == Some(value))
        }
        _ => told == value,
    }
}
