//! Chat completions as Anthropic's Messages (`docs/providers.md#anthropic-lines`): what has a counterpart, and a word on what has none.

use crate::provider::fields::{
    Address, Fields, Request, chosen_function, function_of, object, refuse, take_file, take_image, text_of,
    tool_call,
};
use crate::provider::submit::{RequestLine, Translated, Untranslatable};
use serde_json::{Map, Value, json};

/// A line in OpenAI's form as `{"custom_id","params"}`.
pub(in crate::provider) fn line(line: RequestLine) -> Result<Translated, Untranslatable> {
    let Request { custom_id, url, mut fields } = Request::of(line, "Anthropic")?;
    if url.ends_with("/messages") {
        // The body is what Anthropic takes already.
        let params = fields.take_all();
        let object =
            Map::from_iter([("custom_id".to_owned(), custom_id), ("params".to_owned(), params.into())]);
        return fields.finish(object);
    }
    let params = params(&mut fields)?;
    let object = Map::from_iter([("custom_id".to_owned(), custom_id), ("params".to_owned(), params.into())]);
    fields.finish(object)
}

/// The `params` of a chat completion.
pub(in crate::provider) fn params(fields: &mut Fields) -> Result<Map<String, Value>, Untranslatable> {
    let mut params = Map::new();
    fields.rename("model", &mut params, "model");
    let max_tokens = fields.take_max_tokens();
    let thinking = thinking(fields, max_tokens.as_ref())?;
    // Anthropic wants a bound, OpenAI's requests need not have one.
    let room = thinking.as_ref().and_then(|thinking| thinking["budget_tokens"].as_u64()).unwrap_or(0);
    params.insert("max_tokens".to_owned(), max_tokens.unwrap_or_else(|| (USUAL_MAX_TOKENS + room).into()));

    let (system, messages) = conversation(fields)?;
    if !system.is_empty() {
        params.insert("system".to_owned(), system.into());
    }
    params.insert("messages".to_owned(), messages.into());
    if let Some(temperature) = fields.take("temperature") {
        if temperature.as_f64().is_none_or(|value| !(0.0..=1.0).contains(&value)) {
            return refuse(format!(
                "the `temperature` {temperature} is not between 0 and 1, which is what Anthropic takes"
            ));
        }
        params.insert("temperature".to_owned(), temperature);
    }
    fields.rename("top_p", &mut params, "top_p");
    fields.rename("top_k", &mut params, "top_k");
    if let Some(stop) = fields.take_stop() {
        params.insert("stop_sequences".to_owned(), stop);
    }
    tools(fields, &mut params)?;
    if let Some(format) = fields.take("response_format") {
        output_format(&format, &mut params)?;
    }
    if let Some(thinking) = thinking {
        params.insert("thinking".to_owned(), thinking);
    }
    let user = fields.take("user");
    if let Some(user) = fields.take("safety_identifier").or(user) {
        params.insert("metadata".to_owned(), json!({ "user_id": user }));
    }
    Ok(params)
}

/// What is given where a request leaves its answer's length open; every model of today allows it.
const USUAL_MAX_TOKENS: u64 = 8192;

/// How much may be thought, for each effort that OpenAI knows; the numbers are any-llm's.
const BUDGETS: [(&str, u64); 5] =
    [("minimal", 1024), ("low", 2048), ("medium", 8192), ("high", 24_576), ("xhigh", 32_768)];

fn thinking(fields: &mut Fields, max_tokens: Option<&Value>) -> Result<Option<Value>, Untranslatable> {
    let Some(effort) = fields.take("reasoning_effort") else { return Ok(None) };
    let effort = effort.as_str().unwrap_or_default();
    if effort == "none" {
        return Ok(None);
    }
    let Some((_, budget)) = BUDGETS.iter().find(|(word, _)| *word == effort) else {
        return refuse(format!("the `reasoning_effort` `{effort}` has no counterpart"));
    };
    if max_tokens.and_then(Value::as_u64).is_some_and(|most| most <= *budget) {
        return refuse(format!(
            "the `reasoning_effort` `{effort}` takes {budget} tokens, and no more than {} are allowed in all",
            max_tokens.unwrap_or(&Value::Null)
        ));
    }
    Ok(Some(json!({ "type": "enabled", "budget_tokens": budget })))
}

/// The system's words, and the messages in turns.
fn conversation(fields: &mut Fields) -> Result<(String, Vec<Value>), Untranslatable> {
    let Some(given) = fields.take_list("messages")? else { return refuse("it has no `messages`") };
    let mut system: Vec<String> = Vec::new();
    let mut messages: Vec<Value> = Vec::new();
    for mut message in given {
        if message["name"].is_string() {
            fields.drop_note(
                "the `name` of a message has no counterpart at Anthropic and was left out".to_owned(),
            );
        }
        if !message.is_object() {
            return refuse("a message is no object");
        }
        let content = message["content"].take();
        let role = message["role"].as_str().unwrap_or_default();
        match role {
            "system" | "developer" => {
                if !messages.is_empty() {
                    fields.drop_note(format!(
                        "a `{role}` message inside the conversation was moved to its beginning"
                    ));
                }
                system.push(text_of(&content, role)?);
            }
            "user" => {
                let content = user_content(fields, content)?;
                messages.push(object([("role", "user".into()), ("content", content)]));
            }
            "assistant" => {
                let content = assistant_content(fields, &message, &content)?;
                messages.push(object([("role", "assistant".into()), ("content", content)]));
            }
            "tool" => {
                let Some(id) = message["tool_call_id"].as_str() else {
                    return refuse("a message of the role `tool` has no `tool_call_id`");
                };
                let result =
                    json!({ "type": "tool_result", "tool_use_id": id, "content": text_of(&content, role)? });
                // The results of one turn stand in one message.
                match messages.last_mut().filter(|last| last["content"][0]["type"] == "tool_result") {
                    Some(Value::Object(last)) => {
                        if let Some(Value::Array(results)) = last.get_mut("content") {
                            results.push(result);
                        }
                    }
                    _ => messages.push(json!({ "role": "user", "content": [result] })),
                }
            }
            other => return refuse(format!("a message of the role `{other}` has no counterpart")),
        }
    }
    Ok((system.join("\n"), messages))
}

fn user_content(fields: &mut Fields, content: Value) -> Result<Value, Untranslatable> {
    let Value::Array(parts) = content else {
        return text_of(&content, "user").map(Value::String);
    };
    let mut blocks = Vec::with_capacity(parts.len());
    for mut part in parts {
        if !part.is_object() {
            return refuse("a part of a message is no object");
        }
        blocks.push(match part["type"].as_str().unwrap_or_default() {
            "text" => object([
                ("type", "text".into()),
                ("text", text_of(&Value::Array(vec![part]), "user")?.into()),
            ]),
            "image_url" => {
                if part["image_url"]["detail"].as_str().is_some_and(|detail| detail != "auto") {
                    let what = "the `detail` of an image has no counterpart at Anthropic and was left out";
                    fields.drop_note(what.to_owned());
                }
                let source = match take_image(&mut part)? {
                    Address::Data { kind, data } => data_source(kind, data),
                    Address::Url(url) => object([("type", "url".into()), ("url", url.into())]),
                };
                object([("type", "image".into()), ("source", source)])
            }
            "file" => {
                let (kind, data) = take_file(&mut part)?;
                object([("type", "document".into()), ("source", data_source(kind, data))])
            }
            other => return refuse(format!("a part of the type `{other}` has no counterpart")),
        });
    }
    Ok(blocks.into())
}

fn data_source(kind: String, data: String) -> Value {
    object([("type", "base64".into()), ("media_type", kind.into()), ("data", data.into())])
}

fn assistant_content(fields: &mut Fields, message: &Value, content: &Value) -> Result<Value, Untranslatable> {
    for key in ["function_call", "audio"] {
        if !message[key].is_null() {
            return refuse(format!("the `{key}` of an assistant's message has no counterpart"));
        }
    }
    if !message["reasoning_content"].is_null() {
        fields.drop_note(
            "the `reasoning_content` of a message has no counterpart at Anthropic and was left out"
                .to_owned(),
        );
    }
    let text = if content.is_null() {
        text_of(&message["refusal"], "assistant")?
    } else {
        text_of(content, "assistant")?
    };
    let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
    if calls.is_empty() {
        return Ok(text.into());
    }
    let mut blocks = Vec::with_capacity(calls.len() + 1);
    if !text.is_empty() {
        blocks.push(json!({ "type": "text", "text": text }));
    }
    for call in calls {
        let (id, name, input) = tool_call(call)?;
        blocks.push(json!({ "type": "tool_use", "id": id, "name": name, "input": input }));
    }
    Ok(blocks.into())
}

fn tools(fields: &mut Fields, params: &mut Map<String, Value>) -> Result<(), Untranslatable> {
    let choice = fields.take("tool_choice");
    let parallel = fields.take("parallel_tool_calls");
    let Some(given) = fields.take_list("tools")?.filter(|tools| !tools.is_empty()) else { return Ok(()) };
    let mut tools = Vec::with_capacity(given.len());
    for tool in &given {
        let function = function_of(tool)?;
        let mut made = Map::from_iter([("name".to_owned(), function["name"].clone())]);
        if let Some(description) = function.get("description").filter(|text| text.is_string()) {
            made.insert("description".to_owned(), description.clone());
        }
        let parameters = function.get("parameters").filter(|schema| schema.is_object());
        let schema = parameters.cloned().unwrap_or_else(|| json!({ "type": "object", "properties": {} }));
        made.insert("input_schema".to_owned(), schema);
        if function.get("strict") == Some(&Value::Bool(true)) {
            fields
                .drop_note("`strict` of a tool has no counterpart at Anthropic and was left out".to_owned());
        }
        tools.push(Value::Object(made));
    }
    params.insert("tools".to_owned(), tools.into());
    let mut chosen = match choice {
        None => None,
        Some(Value::String(word)) => Some(match word.as_str() {
            "auto" => json!({ "type": "auto" }),
            "none" => json!({ "type": "none" }),
            "required" => json!({ "type": "any" }),
            _ => return refuse(format!("the `tool_choice` `{word}` has no counterpart")),
        }),
        Some(choice) => Some(json!({ "type": "tool", "name": chosen_function(&choice)? })),
    };
    if parallel == Some(Value::Bool(false)) && chosen.as_ref().is_none_or(|choice| choice["type"] != "none") {
        chosen.get_or_insert_with(|| json!({ "type": "auto" }))["disable_parallel_tool_use"] = true.into();
    }
    if let Some(chosen) = chosen {
        params.insert("tool_choice".to_owned(), chosen);
    }
    Ok(())
}

fn output_format(format: &Value, params: &mut Map<String, Value>) -> Result<(), Untranslatable> {
    match format["type"].as_str().unwrap_or_default() {
        "text" => Ok(()),
        "json_schema" if format["json_schema"]["schema"].is_object() => {
            let schema = &format["json_schema"]["schema"];
            let format = json!({ "format": { "type": "json_schema", "schema": schema } });
            params.insert("output_config".to_owned(), format);
            Ok(())
        }
        kind => refuse(format!("the `response_format` `{kind}` has no counterpart; `json_schema` has")),
    }
}
