//! Results in OpenAI's form (`docs/providers/openai.md#lines`), which most services share, and the ways to a file of them.

use super::read::Reader;
use super::results::{Fetch, FetchStep, Form, OutputLine, RequestResult};
use crate::domain::batch::{InputTokensDetails, OutputTokensDetails, Usage};
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use serde_json::{Map, Value};

/// Results that one request brings: a file, or an answer with an array in it.
#[derive(Debug)]
pub struct OneStream(Option<(Call, Form)>);

impl OneStream {
    /// A file of lines that `call` fetches.
    pub fn lines(call: Call) -> Box<dyn Fetch> {
        Box::new(Self(Some((call, Form::Lines))))
    }

    /// An array within the answer to `call`.
    pub fn array(call: Call, paths: &'static [&'static [&'static str]]) -> Box<dyn Fetch> {
        Box::new(Self(Some((call, Form::Array(paths)))))
    }
}

impl Fetch for OneStream {
    fn next(&mut self, _answer: Option<&Answer>) -> Result<FetchStep, Failure> {
        Ok(self.0.take().map_or(FetchStep::Done, |(call, form)| FetchStep::Stream(call, form)))
    }
}

/// A line of an output or error file.
///
/// The fields decide, not the file: HTTP errors stand in output files too. Some services give an error without a
/// response, others call its fields `error_code` and `error_message`, or put a failure's message where the body belongs.
pub fn output_line(object: &Map<String, Value>) -> Result<OutputLine, String> {
    let mut reader = Reader::new(object);
    let id = reader.id("id");
    let custom_id = reader.id("custom_id");
    if let Some(error) = reader.value("error") {
        return Ok(OutputLine { id, custom_id, result: error_of(error), usage: None });
    }
    let Some(response) = reader.value("response").and_then(Value::as_object) else {
        return Err("it has neither a response nor an error".to_owned());
    };
    let mut reader = Reader::new(response);
    let told = reader.count("status_code").and_then(|code| u16::try_from(code).ok());
    let request_id = reader.id("request_id");
    let body = match response.get("body") {
        Some(body) => body.clone(),
        None => match bare(response, told) {
            Ok(body) => body,
            Err(error) => return Ok(OutputLine { id, custom_id, result: error, usage: None }),
        },
    };
    // A service that tells no status tells an error by the body.
    let status_code = told
        .unwrap_or_else(|| if body.get("error").is_some_and(|error| !error.is_null()) { 400 } else { 200 });
    let usage = usage(&body);
    let result = RequestResult::Response { status_code, request_id, body };
    Ok(OutputLine { id, custom_id, result, usage })
}

/// What a response without a `body` holds: the body itself, or the error that it tells.
fn bare(response: &Map<String, Value>, status: Option<u16>) -> Result<Value, RequestResult> {
    let failed = status.is_some_and(|status| !(200..300).contains(&status));
    if !failed {
        let around = ["status_code", "request_id"];
        let only_around = response.keys().all(|key| around.contains(&key.as_str()));
        return Ok(if only_around { Value::Null } else { Value::Object(response.clone()) });
    }
    let told = response.get("error").filter(|error| !error.is_null());
    let mut error = error_of(told.unwrap_or(&Value::Object(response.clone())));
    if let RequestResult::Error { code: code @ None, .. } = &mut error {
        *code = status.map(|status| status.to_string());
    }
    Err(error)
}

/// The failure that stands where the body of an answer belongs (`{"code", "error"}`), at services that tell success by
/// nothing else.
pub fn failure_in(body: &Value) -> Option<RequestResult> {
    let answers = ["choices", "data", "output", "content", "results", "candidates", "embeddings"];
    let told = body.get("error").filter(|error| !error.is_null())?;
    if answers.iter().any(|key| body.get(*key).is_some_and(|value| !value.is_null())) {
        return None;
    }
    let mut error = error_of(told);
    if let (RequestResult::Error { code: code @ None, .. }, RequestResult::Error { code: around, .. }) =
        (&mut error, error_of(body))
    {
        *code = around;
    }
    Some(error)
}

/// An error, in any of the forms that services give one.
pub fn error_of(error: &Value) -> RequestResult {
    let text = |keys: &[&str]| {
        keys.iter().find_map(|key| match error.get(*key)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        })
    };
    let message = match error {
        Value::String(text) => text.clone(),
        _ => text(&["message", "error_message", "detail"]).unwrap_or_else(|| "no message".to_owned()),
    };
    RequestResult::Error { code: text(&["code", "error_code", "type"]), message }
}

/// The tokens that a body tells, under the names of chat completions, embeddings or responses, in snake or camel case.
pub fn usage(body: &Value) -> Option<Usage> {
    let usage = body.get("usage")?;
    tokens(|path| usage.pointer(path)?.as_u64())
}

/// The same, of what `told` finds at a path within `usage`.
pub(super) fn tokens(told: impl Fn(&str) -> Option<u64>) -> Option<Usage> {
    let count = |paths: &[&str]| paths.iter().find_map(|path| told(path));
    let input = count(&["/prompt_tokens", "/input_tokens", "/promptTokens", "/inputTokens"]);
    let output = count(&["/completion_tokens", "/output_tokens", "/completionTokens", "/outputTokens"]);
    let total = count(&["/total_tokens", "/totalTokens"]);
    if input.is_none() && output.is_none() && total.is_none() {
        return None;
    }
    let output_tokens = output.unwrap_or(0);
    // Embeddings are often told by their total alone.
    let input_tokens = input.or(total.map(|total| total.saturating_sub(output_tokens))).unwrap_or(0);
    let cached_tokens = count(&[
        "/prompt_tokens_details/cached_tokens",
        "/input_tokens_details/cached_tokens",
        "/promptTokensDetails/cachedTokens",
        "/inputTokensDetails/cachedTokens",
    ]);
    let reasoning_tokens = count(&[
        "/completion_tokens_details/reasoning_tokens",
        "/output_tokens_details/reasoning_tokens",
        "/completionTokensDetails/reasoningTokens",
        "/outputTokensDetails/reasoningTokens",
    ]);
    Some(Usage {
        input_tokens,
        input_tokens_details: InputTokensDetails {
            cached_tokens: cached_tokens.unwrap_or(0),
            ..InputTokensDetails::default()
        },
        output_tokens,
        output_tokens_details: OutputTokensDetails { reasoning_tokens: reasoning_tokens.unwrap_or(0) },
        total_tokens: total.unwrap_or(input_tokens.saturating_add(output_tokens)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(value: Value) -> Result<OutputLine, String> {
        let Value::Object(object) = value else { panic!("no object") };
        output_line(&object)
    }

    #[test]
    fn a_response_is_told_with_its_tokens() {
        let body = json!({"id": "chatcmpl-1", "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 2}}});
        let read = line(json!({"id": "batch_req_1", "custom_id": "a", "error": null,
            "response": {"status_code": 200, "request_id": "req_1", "body": body}}))
        .unwrap();
        assert!(read.result.is_success());
        let usage = read.usage.unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens, usage.total_tokens), (5, 7, 12));
        assert_eq!(usage.input_tokens_details.cached_tokens, 2);
        assert_eq!(
            read.into_json(),
            json!({"id": "batch_req_1", "custom_id": "a", "error": null,
                "response": {"status_code": 200, "request_id": "req_1", "body": body}})
        );
    }

    #[test]
    fn errors_of_every_service_are_read() {
        for (error, code, message) in [
            (json!({"code": "batch_expired", "message": "late"}), Some("batch_expired"), "late"),
            (json!({"error_code": "E1", "error_message": "bad"}), Some("E1"), "bad"),
            (json!({"code": 3, "message": "no"}), Some("3"), "no"),
            (json!("broken"), None, "broken"),
            (json!({}), None, "no message"),
        ] {
            let read = line(json!({"custom_id": "a", "error": error})).unwrap();
            let expected =
                RequestResult::Error { code: code.map(str::to_owned), message: message.to_owned() };
            assert_eq!(read.result, expected);
        }
    }

    #[test]
    fn a_failure_without_a_body_keeps_its_message_and_an_answer_without_one_is_the_body() {
        let error = |code: &str, message: &str| RequestResult::Error {
            code: Some(code.to_owned()),
            message: message.to_owned(),
        };
        let read = line(json!({"custom_id": "a", "response": {"status_code": 500, "message": "overloaded"}}));
        assert_eq!(read.unwrap().result, error("500", "overloaded"));
        let read = line(json!({"custom_id": "a", "response": {"status_code": 400,
            "error": {"code": "bad", "message": "no"}}}));
        assert_eq!(read.unwrap().result, error("bad", "no"));
        let answer =
            json!({"choices": [], "usage": {"promptTokens": 3, "completionTokens": 4, "totalTokens": 7}});
        let read = line(json!({"custom_id": "a", "response": answer})).unwrap();
        assert_eq!(read.usage.unwrap().total_tokens, 7);
        let RequestResult::Response { status_code: 200, body, .. } = read.result else { panic!() };
        assert_eq!(body, answer);
    }

    #[test]
    fn a_failure_in_the_place_of_an_answer_is_one() {
        let failed = failure_in(&json!({"code": "invalid-argument", "error": "no such model"}));
        let expected = RequestResult::Error {
            code: Some("invalid-argument".to_owned()),
            message: "no such model".to_owned(),
        };
        assert_eq!(failed, Some(expected));
        assert_eq!(failure_in(&json!({"output": [], "error": {"message": "x"}})), None);
        assert_eq!(failure_in(&json!({"choices": [], "error": null})), None);
        assert_eq!(failure_in(&json!("text")), None);
    }

    #[test]
    fn a_refused_request_is_no_success_and_a_line_without_either_is_none() {
        let refused = line(json!({"custom_id": "a", "response": {"status_code": 400, "body": {}}})).unwrap();
        assert!(!refused.result.is_success());
        let untold =
            line(json!({"custom_id": "a", "response": {"body": {"error": {"message": "x"}}}})).unwrap();
        assert!(!untold.result.is_success());
        assert!(line(json!({"custom_id": "a"})).is_err());
    }
}
