//! OpenAI's requests as Mistral's (`docs/providers.md#mistral-lines`): nearly the same, with a few other names.

use crate::provider::fields::{Fields, Request, refuse};
use crate::provider::submit::{RequestLine, Translated, Untranslatable};
use serde_json::{Map, Value};

/// A line in OpenAI's form as `{"custom_id","body"}`.
pub(in crate::provider) fn line(line: RequestLine) -> Result<Translated, Untranslatable> {
    let Request { custom_id, url, mut fields } = Request::of(line, "Mistral")?;
    // The batch names it, once.
    fields.take("model");
    let mut body = Map::new();
    if url.ends_with("/chat/completions") {
        chat(&mut fields, &mut body)?;
    } else if url.ends_with("/embeddings") {
        for (key, name) in
            [("input", "input"), ("dimensions", "output_dimension"), ("encoding_format", "encoding_format")]
        {
            fields.rename(key, &mut body, name);
        }
    } else {
        // Mistral's own endpoints: whoever writes for them writes their form.
        body = fields.take_all();
    }
    let object = Map::from_iter([("custom_id".to_owned(), custom_id), ("body".to_owned(), body.into())]);
    fields.finish(object)
}

fn chat(fields: &mut Fields, body: &mut Map<String, Value>) -> Result<(), Untranslatable> {
    let Some(mut messages) = fields.take_list("messages")? else { return refuse("it has no `messages`") };
    for message in &mut messages {
        check(message)?;
        if message["role"] == "developer" {
            message["role"] = "system".into();
        }
        if message["role"] != "tool"
            && let Some(message) = message.as_object_mut()
            && message.shift_remove("name").is_some()
        {
            fields.drop_note(
                "the `name` of a message has no counterpart at Mistral and was left out".to_owned(),
            );
        }
        if let Some(message) = message.as_object_mut() {
            for key in ["refusal", "annotations", "audio", "function_call"] {
                message.shift_remove(key);
            }
        }
    }
    body.insert("messages".to_owned(), messages.into());
    if let Some(most) = fields.take_max_tokens() {
        body.insert("max_tokens".to_owned(), most);
    }
    for (key, name) in [
        ("temperature", "temperature"),
        ("top_p", "top_p"),
        ("stop", "stop"),
        ("seed", "random_seed"),
        ("n", "n"),
        ("presence_penalty", "presence_penalty"),
        ("frequency_penalty", "frequency_penalty"),
        ("response_format", "response_format"),
        ("parallel_tool_calls", "parallel_tool_calls"),
        ("reasoning_effort", "reasoning_effort"),
        // Mistral's own.
        ("safe_prompt", "safe_prompt"),
        ("random_seed", "random_seed"),
        ("prompt_mode", "prompt_mode"),
        ("prediction", "prediction"),
    ] {
        fields.rename(key, body, name);
    }
    let choice = fields.take("tool_choice");
    if let Some(tools) = fields.take_list("tools")?.filter(|tools| !tools.is_empty()) {
        if let Some(tool) = tools.iter().find(|tool| tool["type"] != "function") {
            let kind = tool["type"].as_str().unwrap_or("?");
            return refuse(format!("a tool of the type `{kind}` has no counterpart"));
        }
        body.insert("tools".to_owned(), tools.into());
        if let Some(choice) = choice {
            let choice = if choice == "required" { "any".into() } else { choice };
            body.insert("tool_choice".to_owned(), choice);
        }
    }
    Ok(())
}

/// Whether a message says only what Mistral's can say too.
fn check(message: &Value) -> Result<(), Untranslatable> {
    let role = message["role"].as_str().unwrap_or_default();
    if !["system", "developer", "user", "assistant", "tool"].contains(&role) {
        return refuse(format!("a message of the role `{role}` has no counterpart"));
    }
    for key in ["function_call", "audio"] {
        if !message[key].is_null() {
            return refuse(format!("the `{key}` of a message has no counterpart"));
        }
    }
    for part in message["content"].as_array().into_iter().flatten() {
        let kind = part["type"].as_str().unwrap_or_default();
        // The last three are Mistral's own.
        if !["text", "image_url", "document_url", "thinking", "reference"].contains(&kind) {
            return refuse(format!("a part of the type `{kind}` has no counterpart"));
        }
    }
    Ok(())
}
