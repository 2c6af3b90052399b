//! Anthropic's results (`docs/providers.md#anthropic-lines`): one line a request whatever its fate, messages that become completions.

use crate::provider::chat::{Choice, Completion, Tokens, ToolCall};
use crate::provider::read::Reader;
use crate::provider::results::{OutputLine, Record, RequestResult};
use serde_json::{Map, Value};

/// A line of the results.
pub fn output_line(record: Record<'_>) -> Result<OutputLine, String> {
    let mut reader = Reader::new(record.object);
    let custom_id = reader.id("custom_id");
    let fate = reader.text("result.type").ok_or("it has no `result.type`")?;
    let mut usage = None;
    let result = match fate.as_str() {
        "succeeded" => {
            let message = reader.value("result.message").and_then(Value::as_object);
            let completion =
                completion(message.ok_or("it has no `result.message`")?, record.batch.created_at);
            usage = completion.tokens.map(Tokens::usage);
            completion.into_result()
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

/// A message as a chat completion. When it was made nobody tells: `created` stands for it.
pub(in crate::provider) fn completion(message: &Map<String, Value>, created: i64) -> Completion {
    let mut reader = Reader::new(message);
    let mut choice = Choice::default();
    for block in message.get("content").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| block.get(key).and_then(Value::as_str).unwrap_or_default();
        match text("type") {
            "text" => choice.say(text("text")),
            "thinking" => choice.think(text("thinking")),
            "tool_use" => choice.calls.push(ToolCall {
                id: text("id").to_owned(),
                name: text("name").to_owned(),
                arguments: block.get("input").cloned().unwrap_or_else(|| Value::Object(Map::new())),
            }),
            // Redacted thinking, and what the service's own tools did: OpenAI's form has no place for them.
            _ => {}
        }
    }
    choice.finish_reason = match reader.text("stop_reason").as_deref() {
        Some("max_tokens" | "model_context_window_exceeded") => "length",
        Some("tool_use") => "tool_calls",
        Some("refusal") => "content_filter",
        _ => "stop",
    };
    let mut count = |field: &str| reader.count(&format!("usage.{field}")).unwrap_or(0);
    let (input, written) = (count("input_tokens"), count("cache_creation_input_tokens"));
    let (cached, completion) = (count("cache_read_input_tokens"), count("output_tokens"));
    // Anthropic counts what goes to or comes from its cache apart.
    let tokens = Tokens { prompt: input + written + cached, cached, completion, reasoning: 0 };
    Completion {
        id: reader.text("id").unwrap_or_default(),
        created,
        model: reader.text("model").unwrap_or_default(),
        choices: vec![choice],
        tokens: reader.has("usage").then_some(tokens),
    }
}
