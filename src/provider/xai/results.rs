//! xAI's results (`docs/providers/xai.md#lines`): pages, in which an answer is named after its kind.

use super::{Xai, meant};
use crate::domain::batch::Batch;
use crate::http::call::Answer;
use crate::http::failure::Failure;
use crate::provider::bounds::bounded;
use crate::provider::lenient;
use crate::provider::openai_results::{error_of, failure_in, usage};
use crate::provider::read::Reader;
use crate::provider::records::Splitter;
use crate::provider::request::segment;
use crate::provider::results::{Fetch, FetchStep, Form, OutputLine, Record, RequestResult};
use bytes::Bytes;
use serde_json::Value;

/// The pages of results, one after another.
#[derive(Debug)]
pub(super) struct Pages {
    adapter: Xai,
    path: String,
    /// Where the next page begins.
    next: Next,
    /// Where the last one that was asked for began; empty for the first.
    last: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    First,
    Asked,
    After(String),
    None,
}

impl Pages {
    /// Begins with the first.
    pub(super) fn begin(adapter: Xai, batch: &Batch) -> Result<Box<dyn Fetch>, Failure> {
        let path = format!("/batches/{}/results", segment(&batch.id)?);
        Ok(Box::new(Self { adapter, path, next: Next::First, last: String::new() }))
    }

    /// The results on a page as they are written there, and where the next page begins.
    fn page(&self, answer: &Answer) -> Result<(Vec<Bytes>, Option<String>), Failure> {
        let is_page = answer.status.is_success() && !answer.cut;
        // Only what stands around the results is read here; they may be long.
        let around = match lenient::object(&bounded(&answer.body, Some("results"))) {
            Ok(around) if is_page && around.contains_key("results") => around,
            Err(_) if is_page && answer.body.trim_ascii_start().starts_with(b"{") => {
                // One broken result must not cost the others.
                let token = lenient::find_text(&answer.body, &["pagination_token"]);
                return Ok((records(answer)?, token.filter(|token| !token.is_empty())));
            }
            // The results alone.
            Err(_) if is_page && answer.body.trim_ascii_start().starts_with(b"[") => {
                return Ok((records(answer)?, None));
            }
            _ => {
                let (items, around) = self.adapter.requests.list(answer, "results")?;
                let records = items.iter().map(|item| Bytes::from(item.to_string())).collect();
                return Ok((records, Reader::new(&around).text("pagination_token")));
            }
        };
        Ok((records(answer)?, Reader::new(&around).text("pagination_token")))
    }
}

/// Each as it is written.
fn records(answer: &Answer) -> Result<Vec<Bytes>, Failure> {
    let mut splitter = Splitter::new(Form::Array(&[&["results"], &[]]));
    let records = splitter.push(&answer.body).and_then(|mut records| {
        records.extend(splitter.finish()?);
        Ok(records)
    });
    records.map_err(|bad| Failure::Malformed(bad.to_string()))
}

/// Results on a page.
const PAGE: &str = "100";

impl Fetch for Pages {
    fn next(&mut self, answer: Option<&Answer>) -> Result<FetchStep, Failure> {
        let ask = |token: Option<&str>| {
            let mut query = vec![("limit", PAGE)];
            query.extend(token.map(|token| ("pagination_token", token)));
            self.adapter.requests.get(&self.path, &query).map(FetchStep::Send)
        };
        match std::mem::replace(&mut self.next, Next::None) {
            Next::First => {
                let step = ask(None)?;
                self.next = Next::Asked;
                Ok(step)
            }
            Next::After(token) => {
                let step = ask(Some(&token))?;
                self.next = Next::Asked;
                Ok(step)
            }
            Next::Asked => {
                let answer = answer
                    .ok_or_else(|| Failure::Malformed("there is no answer to go on from".to_owned()))?;
                let (records, token) = self.page(&meant(answer))?;
                if let Some(token) = token.filter(|token| !records.is_empty() && *token != self.last) {
                    self.last.clone_from(&token);
                    self.next = Next::After(token);
                }
                Ok(FetchStep::Records(records))
            }
            Next::None => Ok(FetchStep::Done),
        }
    }
}

/// One result: the answer is the one value in `response`, whatever it is called.
pub(super) fn output_line(record: Record<'_>) -> Result<OutputLine, String> {
    let mut reader = Reader::new(record.object);
    let custom_id = reader.id("batch_request_id").or_else(|| reader.id("custom_id"));
    let line = |result, usage| Ok(OutputLine { id: None, custom_id: custom_id.clone(), result, usage });
    let result = reader.value("batch_result").unwrap_or(&Value::Null);
    let error = result.get("error").or_else(|| record.object.get("error")).filter(|error| !error.is_null());
    // Code 0 is Google's word for well, which the error has beside an answer.
    let error = error.filter(|error| error.get("code").is_none_or(|code| code != 0 && code != "0"));
    let message = reader.text("error_message");
    if error.is_some() || message.is_some() {
        let code = error.and_then(|error| error.get("code"));
        let is_cancelled = code.is_some_and(|code| code == 1 || code == "cancelled" || code == "CANCELLED");
        let mut result = error_of(error.unwrap_or(&Value::Null));
        if let RequestResult::Error { code, message: told } = &mut result {
            if is_cancelled {
                *code = Some("batch_cancelled".to_owned());
            }
            if let Some(message) = message {
                *told = message;
            }
        }
        return line(result, None);
    }
    let response = result.get("response").or_else(|| record.object.get("response"));
    let body = match response {
        Some(Value::Object(one)) if one.len() == 1 && one.values().all(Value::is_object) => {
            one.values().next().cloned().unwrap_or_default()
        }
        Some(Value::Object(body)) if !body.is_empty() => Value::Object(body.clone()),
        _ => return Err("it has neither a response nor an error".to_owned()),
    };
    if let Some(failure) = failure_in(&body) {
        return line(failure, None);
    }
    let usage = usage(&body);
    line(RequestResult::Response { status_code: 200, request_id: None, body }, usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::batch::Batch;
    use crate::provider::results::Part;
    use http::{HeaderMap, StatusCode};
    use serde_json::json;

    #[test]
    fn results_are_taken_from_a_page_as_they_are_written() {
        let body =
            Bytes::from_static(br#"{"results":[{"a":1.10,"t":"\ud83d"},{'oops'}],"pagination_token":"t"}"#);
        let answer = Answer { status: StatusCode::OK, headers: HeaderMap::new(), body, cut: false };
        let records = records(&answer).unwrap();
        assert_eq!(records, [&br#"{"a":1.10,"t":"\ud83d"}"#[..], b"{'oops'}"]);
    }

    #[test]
    fn a_failure_in_the_place_of_an_answer_is_a_failed_request() {
        let object = json!({"batch_request_id": "a", "batch_result": {"response": {
            "chat_get_completion": {"code": "invalid-argument", "error": "no such model"}}}});
        let Value::Object(object) = object else { panic!() };
        let batch = Batch::unseen("b", "/v1/chat/completions", 0);
        let read =
            output_line(Record { object: &object, index: 0, part: Part::Output, batch: &batch }).unwrap();
        let expected = RequestResult::Error {
            code: Some("invalid-argument".to_owned()),
            message: "no such model".to_owned(),
        };
        assert_eq!(read.result, expected);
    }
}
