//! Gemini's results (`docs/providers.md#gemini-lines`): keyed lines of a file or inline ones by their place, contents that become
//! completions.

use crate::provider::chat::{Choice, Completion, Tokens, ToolCall};
use crate::provider::openai_results::error_of;
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

/// A line of the results file, or an inline result.
///
/// Inline results come in the order of the requests, and for a long time without their keys: where there is none, the
/// place is the id.
pub fn output_line(record: Record<'_>) -> Result<OutputLine, String> {
    let mut reader = Reader::new(record.object);
    let custom_id = reader
        .id("key")
        .or_else(|| reader.id("metadata.key"))
        .or_else(|| reader.id("custom_id"))
        .unwrap_or_else(|| record.index.to_string());
    let mut line = OutputLine {
        id: None,
        custom_id: Some(custom_id),
        result: RequestResult::Error { code: None, message: String::new() },
        usage: None,
    };
    if let Some(response) = reader.value("response").and_then(Value::as_object) {
        (line.result, line.usage) = answered(response, record);
        return Ok(line);
    }
    // Older outputs call it `status`.
    let error = reader.value("error").or_else(|| reader.value("status"));
    line.result = error_of(error.ok_or("it has neither a response nor an error")?);
    Ok(line)
}

/// The answer to a request, a `GenerateContentResponse` or an embedding.
pub(in crate::provider) fn answered(
    response: &Map<String, Value>,
    record: Record<'_>,
) -> (RequestResult, Option<crate::domain::batch::Usage>) {
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
    let candidates = response.get("candidates").and_then(Value::as_array);
    let mut choices: Vec<Choice> = candidates
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(index, candidate)| choice(candidate, index))
        .collect();
    if choices.is_empty() {
        // The prompt itself was refused: an answer without alternatives.
        choices.push(Choice { finish_reason: "content_filter", ..Choice::default() });
    }
    let mut count = |field: &str| reader.count(&format!("usageMetadata.{field}")).unwrap_or(0);
    let reasoning = count("thoughtsTokenCount");
    let tokens = Tokens {
        prompt: count("promptTokenCount") + count("toolUsePromptTokenCount"),
        cached: count("cachedContentTokenCount"),
        completion: count("candidatesTokenCount") + reasoning,
        reasoning,
    };
    let tokens = reader.has("usageMetadata").then_some(tokens);
    let completion = Completion {
        id: reader.text("responseId").unwrap_or_default(),
        created: reader.time("createTime").unwrap_or(record.batch.created_at),
        model,
        choices,
        tokens,
    };
    (completion.into_result(), tokens.map(Tokens::usage))
}

fn choice(candidate: &Value, index: usize) -> Choice {
    let mut choice = Choice::default();
    let parts = candidate.pointer("/content/parts").and_then(Value::as_array);
    for part in parts.into_iter().flatten() {
        if let Some(call) = part.get("functionCall") {
            let text = |key: &str| call.get(key).and_then(Value::as_str).map(str::to_owned);
            choice.calls.push(ToolCall {
                // Gemini's calls have no ids of their own unless they run in parallel.
                id: text("id").unwrap_or_else(|| format!("call_{index}_{}", choice.calls.len())),
                name: text("name").unwrap_or_default(),
                arguments: call.get("args").cloned().unwrap_or_else(|| json!({})),
            });
        } else if let Some(text) = part.get("text").and_then(Value::as_str) {
            if part.get("thought") == Some(&Value::Bool(true)) {
                choice.think(text);
            } else {
                choice.say(text);
            }
        }
    }
    choice.finish_reason = match candidate.get("finishReason").and_then(Value::as_str) {
        Some("MAX_TOKENS") => "length",
        Some(
            "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE"
            | "IMAGE_SAFETY",
        ) => "content_filter",
        _ if !choice.calls.is_empty() => "tool_calls",
        _ => "stop",
    };
    choice
}
