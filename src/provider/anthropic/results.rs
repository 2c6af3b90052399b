//! Anthropic's results (`docs/providers/anthropic.md#lines`): one line a request whatever its fate, messages that become completions.

use crate::provider::chat::{Choice, Completion, Tokens, ToolCall};
use crate::provider::read::Reader;
use crate::provider::results::{OutputLine, Record, RequestResult};
use serde_json::{Map, Value};

pub fn output_line(record: Record<'_>) -> Result<OutputLine, String> {
    let mut reader = Reader::new(record.object);
    let custom_id = reader.id("custom_id");
    let fate = reader.text("result.type").ok_or("it has no `result.type`")?;
    let mut usage = None;
    let result = match fate.as_str() {
        "succeeded" => {
            let message = reader.value("result.message").and_then(Value::as_object);
            let message = message.ok_or("it has no `result.message`")?;
            match completion(message, record.batch.created_at) {
                Some(completion) => {
                    usage = completion.tokens.map(Tokens::usage);
                    completion.into_result()
                }
                // A success whose shape is not known is passed on as it is.
                None => RequestResult::Response {
                    status_code: 200,
                    request_id: None,
                    body: Value::Object(message.clone()),
                },
            }
        }
        // The error's own envelope stands around it.
        "errored" => RequestResult::Error {
            code: reader.text("result.error.error.type").or_else(|| reader.text("result.error.type")),
            message: reader
                .text("result.error.error.message")
                .or_else(|| reader.text("result.error.message"))
                .unwrap_or_else(|| "no message".to_owned()),
        },
        "canceled" | "cancelled" => RequestResult::Error {
            code: Some("batch_cancelled".to_owned()),
            message: "the batch was cancelled before this request ran".to_owned(),
        },
        "expired" => RequestResult::Error {
            code: Some("batch_expired".to_owned()),
            message: "the batch expired before this request ran".to_owned(),
        },
        other => RequestResult::Error {
            code: Some(other.to_owned()),
            message: "the request did not succeed".to_owned(),
        },
    };
    let id = reader.text("result.error.request_id");
    Ok(OutputLine { id, custom_id, result, usage })
}

/// A message as a chat completion; `None`: it has no content, not even none. When it was made nobody tells: `created`
/// stands for it.
pub(in crate::provider) fn completion(message: &Map<String, Value>, created: i64) -> Option<Completion> {
    let mut reader = Reader::new(message);
    let mut choice = Choice::default();
    for block in message.get("content")?.as_array()? {
        let text = |key: &str| block.get(key).and_then(Value::as_str).unwrap_or_default();
        match text("type") {
            "text" => choice.say(text("text")),
            "thinking" => choice.think(text("thinking")),
            "tool_use" => choice.calls.push(ToolCall {
                id: text("id").to_owned(),
                name: text("name").to_owned(),
                arguments: block.get("input").cloned().unwrap_or_else(|| Value::Object(Map::new())),
            }),
            // Redacted thinking, and what the service's own tools did.
            _ => choice.others.push(block.clone()),
        }
    }
    choice.end(reader.text("stop_reason").as_deref(), &STOP_REASONS);
    let tokens = tokens(|field| reader.count(&format!("usage.{field}")).unwrap_or(0));
    Some(Completion {
        id: reader.text("id").unwrap_or_default(),
        created,
        model: reader.text("model").unwrap_or_default(),
        choices: vec![choice],
        tokens: reader.has("usage").then_some(tokens),
    })
}

/// The tokens of a message, of what `count` finds at a path within its `usage`.
pub(super) fn tokens(mut count: impl FnMut(&str) -> u64) -> Tokens {
    let (input, written) = (count("input_tokens"), count("cache_creation_input_tokens"));
    let (cached, completion) = (count("cache_read_input_tokens"), count("output_tokens"));
    let reasoning = count("output_tokens_details.thinking_tokens");
    let written_1h = count("cache_creation.ephemeral_1h_input_tokens").min(written);
    // Anthropic counts what goes to or comes from its cache apart.
    let prompt = input.saturating_add(written).saturating_add(cached);
    Tokens { prompt, cached, written: written - written_1h, written_1h, completion, reasoning }
}

pub(super) const STOP_REASONS: [(&str, &str); 6] = [
    ("end_turn", "stop"),
    ("stop_sequence", "stop"),
    ("max_tokens", "length"),
    ("model_context_window_exceeded", "length"),
    ("tool_use", "tool_calls"),
    ("refusal", "content_filter"),
];
