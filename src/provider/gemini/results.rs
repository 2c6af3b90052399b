//! Gemini's results (`docs/providers/gemini.md#lines`): keyed lines of a file or inline ones by their place, contents that become
//! completions.

use crate::domain::batch::Usage;
use crate::provider::chat::{Choice, Completion, Tokens, ToolCall};
use crate::provider::openai_results::{self, error_of, failure_in};
use crate::provider::read::Reader;
use crate::provider::results::{OutputLine, Record, RequestResult};
use serde_json::{Map, Value, json};

/// Where inline results stand in the answer to `get`, whose operation some servers leave out.
pub const INLINE: &[&[&str]] = &[
    &["response", "inlinedResponses", "inlinedResponses"],
    &["response", "inlinedEmbedContentResponses", "inlinedResponses"],
    &["metadata", "output", "inlinedResponses", "inlinedResponses"],
    &["metadata", "output", "inlinedEmbedContentResponses", "inlinedResponses"],
    &["output", "inlinedResponses", "inlinedResponses"],
    &["output", "inlinedEmbedContentResponses", "inlinedResponses"],
];

/// Where the submitter's id stands, at any depth that the service or a library puts it.
pub(in crate::provider) const IDS: [&str; 9] = [
    "key",
    "custom_id",
    "metadata.key",
    "metadata.custom_id",
    "metadata.litellm_custom_id",
    "request.labels.custom_id",
    "request.labels.litellm_custom_id",
    "request.metadata.custom_id",
    "labels.litellm_custom_id",
];

/// A line of the results file, or an inline result.
///
/// Inline results come in the order of the requests, and for a long time without their keys: where there is none, the
/// place is the id. A file promises no order. Requests in OpenAI's form are answered in that form.
pub fn output_line(record: Record<'_>) -> Result<OutputLine, String> {
    let mut reader = Reader::new(record.object);
    let is_inline = record.batch.output_file_id.as_ref().is_none_or(|file| !file.starts_with("files/"));
    let custom_id = IDS
        .into_iter()
        .find_map(|path| reader.id(path))
        .or_else(|| is_inline.then(|| record.index.to_string()));
    let response = reader.value("response").and_then(Value::as_object);
    if response.is_some_and(is_openai_s) {
        let line = openai_results::output_line(record.object)?;
        return Ok(OutputLine { custom_id: line.custom_id.or(custom_id), ..line });
    }
    if let Some(response) = response {
        let (result, usage) = answered(response, record);
        return Ok(OutputLine { id: None, custom_id, result, usage });
    }
    // Older outputs call it `status`.
    let error = reader.value("error").or_else(|| reader.value("status"));
    let result = error_of(error.ok_or("it has neither a response nor an error")?);
    Ok(OutputLine { id: None, custom_id, result, usage: None })
}

/// Whether a response is in OpenAI's form, with the answer as its body.
pub(in crate::provider) fn is_openai_s(response: &Map<String, Value>) -> bool {
    response.contains_key("status_code") || response.contains_key("body")
}

/// The answer to a request, a `GenerateContentResponse` or an embedding; what is neither is passed on as it is.
pub(in crate::provider) fn answered(
    response: &Map<String, Value>,
    record: Record<'_>,
) -> (RequestResult, Option<Usage>) {
    let mut reader = Reader::new(response);
    let asked = record.batch.model.clone().unwrap_or_default();
    let model = reader.text("modelVersion").unwrap_or(asked);
    if let Some(values) = reader.value("embedding.values").or_else(|| reader.value("embedding")) {
        let prompt = reader
            .count("tokenCount")
            .or_else(|| reader.count("usageMetadata.promptTokenCount"))
            .unwrap_or(0);
        let body = json!({
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": values}],
            "model": model,
            "usage": {"prompt_tokens": prompt, "total_tokens": prompt},
        });
        let usage = Tokens { prompt, ..Tokens::default() }.usage();
        return (RequestResult::Response { status_code: 200, request_id: None, body }, Some(usage));
    }
    let tokens = tokens(|field| reader.count(&format!("usageMetadata.{field}")).unwrap_or(0));
    let tokens = reader.has("usageMetadata").then_some(tokens);
    let candidates = response.get("candidates").and_then(Value::as_array);
    let mut choices: Vec<Choice> = candidates
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(index, candidate)| choice(candidate, index))
        .collect();
    if choices.is_empty() {
        let body = Value::Object(response.clone());
        if let Some(failure) = failure_in(&body) {
            return (failure, None);
        }
        if !reader.has("promptFeedback") {
            let usage = tokens.map(Tokens::usage).or_else(|| openai_results::usage(&body));
            return (RequestResult::Response { status_code: 200, request_id: None, body }, usage);
        }
        // The prompt itself was refused: an answer without alternatives.
        choices.push(Choice { finish_reason: "content_filter".into(), ..Choice::default() });
    }
    let completion = Completion {
        id: reader.text("responseId").unwrap_or_default(),
        created: reader.time("createTime").unwrap_or(record.batch.created_at),
        model,
        choices,
        tokens,
    };
    (completion.into_result(), tokens.map(Tokens::usage))
}

/// The tokens of an answer, of what `count` finds within its `usageMetadata`.
pub(super) fn tokens(mut count: impl FnMut(&str) -> u64) -> Tokens {
    let reasoning = count("thoughtsTokenCount");
    Tokens {
        prompt: count("promptTokenCount").saturating_add(count("toolUsePromptTokenCount")),
        cached: count("cachedContentTokenCount"),
        completion: count("candidatesTokenCount").saturating_add(reasoning),
        reasoning,
        ..Tokens::default()
    }
}

/// The id of a call without one: its place among those of its alternative.
pub(super) fn call_id(index: usize, place: usize) -> String {
    format!("call_{index}_{place}")
}

fn choice(candidate: &Value, index: usize) -> Choice {
    let mut choice = Choice::default();
    let parts = candidate.pointer("/content/parts").and_then(Value::as_array);
    for part in parts.into_iter().flatten() {
        if let Some(call) = part.get("functionCall") {
            let text = |key: &str| call.get(key).and_then(Value::as_str).map(str::to_owned);
            choice.calls.push(ToolCall {
                // Gemini's calls have no ids of their own unless they run in parallel.
                id: text("id").unwrap_or_else(|| call_id(index, choice.calls.len())),
                name: text("name").unwrap_or_default(),
                arguments: call.get("args").cloned().unwrap_or_else(|| json!({})),
            });
        } else if let Some(text) = part.get("text").and_then(Value::as_str) {
            if part.get("thought") == Some(&Value::Bool(true)) {
                choice.think(text);
            } else {
                choice.say(text);
            }
        } else if let Some(picture) = picture(part) {
            choice.images.push(picture);
        } else {
            choice.others.push(part.clone());
        }
    }
    choice.end(candidate.get("finishReason").and_then(Value::as_str), &FINISH_REASONS);
    choice
}

/// The picture within a part, as an address that holds it.
fn picture(part: &Value) -> Option<String> {
    let data = part.get("inlineData").or_else(|| part.get("inline_data"))?;
    let kind = data.get("mimeType").or_else(|| data.get("mime_type"))?.as_str()?;
    let bytes = data.get("data")?.as_str()?;
    kind.starts_with("image/").then(|| format!("data:{kind};base64,{bytes}"))
}

pub(super) const FINISH_REASONS: [(&str, &str); 12] = [
    ("STOP", "stop"),
    ("MAX_TOKENS", "length"),
    ("SAFETY", "content_filter"),
    ("RECITATION", "content_filter"),
    ("BLOCKLIST", "content_filter"),
    ("PROHIBITED_CONTENT", "content_filter"),
    ("SPII", "content_filter"),
    ("LANGUAGE", "content_filter"),
    ("IMAGE_SAFETY", "content_filter"),
    ("IMAGE_PROHIBITED_CONTENT", "content_filter"),
    ("IMAGE_RECITATION", "content_filter"),
    ("MODEL_ARMOR", "content_filter"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::batch::Batch;
    use crate::provider::results::Part;

    fn line(object: Value, file: &str) -> OutputLine {
        let Value::Object(object) = object else { panic!() };
        let mut batch = Batch::unseen("batches/x", "/v1beta", 1_795_000_000);
        batch.output_file_id = Some(file.to_owned());
        output_line(Record { object: &object, index: 3, part: Part::Output, batch: &batch }).unwrap()
    }

    fn body(line: OutputLine) -> Value {
        let RequestResult::Response { status_code: 200, body, .. } = line.result else { panic!("{line:?}") };
        body
    }

    #[test]
    fn only_inline_results_are_known_by_their_place() {
        let response = json!({"candidates": []});
        let id = |object, file| line(object, file).custom_id;
        assert_eq!(id(json!({"response": response}), "results:gemini:batches/x").as_deref(), Some("3"));
        assert_eq!(id(json!({"response": response}), "files/out"), None);
        for named in [
            json!({"key": "k", "response": response}),
            json!({"metadata": {"custom_id": "k"}, "response": response}),
            json!({"request": {"labels": {"litellm_custom_id": "k"}}, "response": response}),
        ] {
            assert_eq!(id(named.clone(), "files/out").as_deref(), Some("k"), "{named}");
        }
    }

    #[test]
    fn an_answer_in_openai_s_form_is_read_in_it() {
        let read = line(
            json!({"custom_id": "a", "response": {"status_code": 200, "body": {"choices": [{"message": {"content": "hi"}}],
                "usage": {"promptTokens": 2, "completionTokens": 3, "totalTokens": 5}}}}),
            "files/out",
        );
        assert_eq!(read.usage.unwrap().total_tokens, 5);
        assert_eq!(body(read)["choices"][0]["message"]["content"], "hi");
    }

    #[test]
    fn why_an_answer_ended_is_told_as_it_is() {
        let reason = |word: Option<&str>, parts: Value| {
            let candidate = json!({"content": {"parts": parts}, "finishReason": word});
            body(line(json!({"key": "k", "response": {"candidates": [candidate]}}), "files/out"))["choices"]
                [0]["finish_reason"]
                .take()
        };
        for (word, told) in [
            ("STOP", "stop"),
            ("IMAGE_PROHIBITED_CONTENT", "content_filter"),
            ("MODEL_ARMOR", "content_filter"),
            ("MALFORMED_FUNCTION_CALL", "malformed_function_call"),
            ("OTHER", "other"),
            ("NO_IMAGE", "no_image"),
        ] {
            assert_eq!(reason(Some(word), json!([])), told);
        }
        let call = json!([{"functionCall": {"name": "f", "args": {}}}]);
        assert_eq!(reason(Some("STOP"), call.clone()), "tool_calls");
        assert_eq!(reason(Some("MALFORMED_RESPONSE"), call), "malformed_response");
        assert_eq!(reason(None, json!([{"text": "x"}])), "stop");
        assert_eq!(reason(None, json!([])), "unknown");
    }

    #[test]
    fn pictures_and_parts_of_other_kinds_are_passed_on() {
        let parts = json!([
            {"text": "Here:"},
            {"inlineData": {"mimeType": "image/png", "data": "iVBO"}},
            {"executableCode": {"code": "1"}},
        ]);
        let candidate = json!({"content": {"parts": parts}, "finishReason": "STOP"});
        let read = body(line(json!({"key": "k", "response": {"candidates": [candidate]}}), "files/out"));
        let message = &read["choices"][0]["message"];
        assert_eq!(message["images"][0]["image_url"]["url"], "data:image/png;base64,iVBO");
        assert_eq!(message["provider_content"], json!([{"executableCode": {"code": "1"}}]));
    }

    #[test]
    fn a_success_of_an_unknown_shape_is_passed_on_and_a_refused_prompt_is_told() {
        let answer = json!({"predictions": [1], "usageMetadata": {"promptTokenCount": 4}});
        let read = line(json!({"key": "k", "response": answer}), "files/out");
        assert_eq!(read.usage.unwrap().input_tokens, 4);
        assert_eq!(body(read), answer);
        let refused = json!({"promptFeedback": {"blockReason": "SAFETY"}});
        let read = body(line(json!({"key": "k", "response": refused}), "files/out"));
        assert_eq!(read["choices"][0]["finish_reason"], "content_filter");
    }
}
