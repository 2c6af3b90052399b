//! Chat completions and embeddings as Gemini's requests (`docs/providers.md#gemini-lines`): what has a counterpart, and a word on
//! what has none.

use crate::provider::fields::{
    Address, Fields, Request, chosen_function, function_of, object, refuse, take_file, take_image, text_of,
    tool_call,
};
use crate::provider::submit::{RequestLine, Translated, Untranslatable};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A line in OpenAI's form as `{"key","request"}`.
pub(in crate::provider) fn line(line: RequestLine) -> Result<Translated, Untranslatable> {
    let Request { custom_id, url, mut fields } = Request::of(line, "Gemini")?;
    // The batch names it, once.
    fields.take("model");
    let request =
        if url.ends_with("/embeddings") { embedding(&mut fields)? } else { content_request(&mut fields)? };
    let object = Map::from_iter([("key".to_owned(), custom_id), ("request".to_owned(), request.into())]);
    fields.finish(object)
}

fn embedding(fields: &mut Fields) -> Result<Map<String, Value>, Untranslatable> {
    let text = match fields.take("input") {
        Some(Value::String(text)) => text,
        Some(Value::Array(mut items)) if items.len() == 1 && items[0].is_string() => match items.remove(0) {
            Value::String(text) => text,
            _ => String::new(),
        },
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            return refuse("Gemini embeds one text a request; write each in a line of its own");
        }
        _ => return refuse("its `input` is no text"),
    };
    let mut request = Map::from_iter([("content".to_owned(), json!({ "parts": [{ "text": text }] }))]);
    fields.rename("dimensions", &mut request, "outputDimensionality");
    if let Some(format) = fields.take("encoding_format")
        && format != "float"
    {
        fields.drop_note("the `encoding_format` is always `float` at Gemini".to_owned());
    }
    Ok(request)
}

/// A `GenerateContentRequest` for a chat completion.
pub(in crate::provider) fn content_request(
    fields: &mut Fields,
) -> Result<Map<String, Value>, Untranslatable> {
    let (system, contents) = conversation(fields)?;
    let mut request = Map::from_iter([("contents".to_owned(), Value::Array(contents))]);
    if !system.is_empty() {
        request.insert("systemInstruction".to_owned(), json!({ "parts": [{ "text": system }] }));
    }
    tools(fields, &mut request)?;
    let config = generation_config(fields)?;
    if !config.is_empty() {
        request.insert("generationConfig".to_owned(), config.into());
    }
    Ok(request)
}

fn generation_config(fields: &mut Fields) -> Result<Map<String, Value>, Untranslatable> {
    let mut config = Map::new();
    for (key, name) in [
        ("temperature", "temperature"),
        ("top_p", "topP"),
        ("top_k", "topK"),
        ("n", "candidateCount"),
        ("presence_penalty", "presencePenalty"),
        ("frequency_penalty", "frequencyPenalty"),
        ("seed", "seed"),
    ] {
        fields.rename(key, &mut config, name);
    }
    if let Some(most) = fields.take_max_tokens() {
        config.insert("maxOutputTokens".to_owned(), most);
    }
    if let Some(stop) = fields.take_stop() {
        config.insert("stopSequences".to_owned(), stop);
    }
    if fields.take("logprobs") == Some(Value::Bool(true)) {
        config.insert("responseLogprobs".to_owned(), true.into());
        fields.rename("top_logprobs", &mut config, "logprobs");
    }
    if let Some(effort) = fields.take("reasoning_effort") {
        let budget = match effort.as_str().unwrap_or_default() {
            "none" => 0,
            "minimal" | "low" => 1024,
            "medium" => 8192,
            "high" | "xhigh" => 24_576,
            other => return refuse(format!("the `reasoning_effort` `{other}` has no counterpart")),
        };
        config.insert("thinkingConfig".to_owned(), json!({ "thinkingBudget": budget }));
    }
    if let Some(format) = fields.take("response_format") {
        match format["type"].as_str().unwrap_or_default() {
            "text" => {}
            "json_object" => {
                config.insert("responseMimeType".to_owned(), "application/json".into());
            }
            "json_schema" if format["json_schema"]["schema"].is_object() => {
                let schema = &format["json_schema"]["schema"];
                config.insert("responseMimeType".to_owned(), "application/json".into());
                let key = if is_openapi(schema) { "responseSchema" } else { "responseJsonSchema" };
                config.insert(key.to_owned(), schema.clone());
            }
            kind => return refuse(format!("the `response_format` `{kind}` has no counterpart")),
        }
    }
    Ok(config)
}

/// Whether a schema keeps to what Gemini's own `Schema` (a part of `OpenAPI` 3.0) can say; it takes whole JSON Schemas
/// under other names.
fn is_openapi(schema: &Value) -> bool {
    match schema {
        Value::Object(object) => object.iter().all(|(key, value)| match key.as_str() {
            "type" => value.is_string(),
            "properties" => value.as_object().is_some_and(|all| all.values().all(is_openapi)),
            "items" => is_openapi(value),
            "anyOf" => value.as_array().is_some_and(|all| all.iter().all(is_openapi)),
            "enum" => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
            "title" | "description" | "format" | "nullable" | "required" | "default" | "example"
            | "minItems" | "maxItems" | "minLength" | "maxLength" | "minimum" | "maximum" | "pattern"
            | "minProperties" | "maxProperties" | "propertyOrdering" => true,
            _ => false,
        }),
        _ => false,
    }
}

/// The system's words, and the conversation in turns.
fn conversation(fields: &mut Fields) -> Result<(String, Vec<Value>), Untranslatable> {
    let Some(given) = fields.take_list("messages")? else { return refuse("it has no `messages`") };
    let mut system: Vec<String> = Vec::new();
    let mut contents: Vec<Value> = Vec::new();
    // A result names its call; Gemini wants the function's name.
    let mut called: BTreeMap<String, String> = BTreeMap::new();
    for mut message in given {
        if !message.is_object() {
            return refuse("a message is no object");
        }
        let content = message["content"].take();
        let role = message["role"].as_str().unwrap_or_default();
        if role != "tool" && message["name"].is_string() {
            fields.drop_note(
                "the `name` of a message has no counterpart at Gemini and was left out".to_owned(),
            );
        }
        match role {
            "system" | "developer" => {
                if !contents.is_empty() {
                    fields.drop_note(format!(
                        "a `{role}` message inside the conversation was moved to its beginning"
                    ));
                }
                system.push(text_of(&content, role)?);
            }
            "user" => {
                let parts = user_parts(fields, content)?;
                contents.push(object([("role", "user".into()), ("parts", parts.into())]));
            }
            "assistant" => {
                for key in ["function_call", "audio"] {
                    if !message[key].is_null() {
                        return refuse(format!("the `{key}` of an assistant's message has no counterpart"));
                    }
                }
                let mut parts = Vec::new();
                let text = text_of(if content.is_null() { &message["refusal"] } else { &content }, role)?;
                let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
                if !text.is_empty() || calls.is_empty() {
                    parts.push(json!({ "text": text }));
                }
                for call in calls {
                    let (id, name, arguments) = tool_call(call)?;
                    called.insert(id.to_owned(), name.to_owned());
                    parts.push(json!({ "functionCall": { "name": name, "args": arguments } }));
                }
                contents.push(json!({ "role": "model", "parts": parts }));
            }
            "tool" => {
                let id = message["tool_call_id"].as_str().unwrap_or_default();
                let Some(name) = called.get(id).map(String::as_str).or(message["name"].as_str()) else {
                    return refuse(
                        "a message of the role `tool` answers a call that is not in the conversation",
                    );
                };
                let text = text_of(&content, role)?;
                let answer = serde_json::from_str(&text).ok().filter(Value::is_object);
                let answer = answer.unwrap_or_else(|| json!({ "result": text }));
                let part = json!({ "functionResponse": { "name": name, "response": answer } });
                // The results of one turn stand together.
                match contents.last_mut().filter(|last| !last["parts"][0]["functionResponse"].is_null()) {
                    Some(last) => {
                        if let Some(parts) = last["parts"].as_array_mut() {
                            parts.push(part);
                        }
                    }
                    None => contents.push(json!({ "role": "user", "parts": [part] })),
                }
            }
            other => return refuse(format!("a message of the role `{other}` has no counterpart")),
        }
    }
    Ok((system.join("\n"), contents))
}

fn user_parts(fields: &mut Fields, content: Value) -> Result<Vec<Value>, Untranslatable> {
    let Value::Array(given) = content else {
        return Ok(vec![object([("text", text_of(&content, "user")?.into())])]);
    };
    let mut parts = Vec::with_capacity(given.len());
    for mut part in given {
        if !part.is_object() {
            return refuse("a part of a message is no object");
        }
        parts.push(match part["type"].as_str().unwrap_or_default() {
            "text" => object([("text", text_of(&Value::Array(vec![part]), "user")?.into())]),
            "image_url" => {
                if part["image_url"]["detail"].as_str().is_some_and(|detail| detail != "auto") {
                    let what = "the `detail` of an image has no counterpart at Gemini and was left out";
                    fields.drop_note(what.to_owned());
                }
                match take_image(&mut part)? {
                    Address::Data { kind, data } => inline(kind, data),
                    Address::Url(url) => {
                        let data = object([("mimeType", image_type(&url).into()), ("fileUri", url.into())]);
                        object([("fileData", data)])
                    }
                }
            }
            "input_audio" => {
                let format = part["input_audio"]["format"].as_str().map(|format| format!("audio/{format}"));
                let data = part.pointer_mut("/input_audio/data").map(Value::take);
                let (Some(format), Some(Value::String(data))) = (format, data) else {
                    return refuse("an `input_audio` part lacks its `data` or `format`");
                };
                inline(format, data)
            }
            "file" => {
                let (kind, data) = take_file(&mut part)?;
                inline(kind, data)
            }
            other => return refuse(format!("a part of the type `{other}` has no counterpart")),
        });
    }
    Ok(parts)
}

fn inline(kind: String, data: String) -> Value {
    object([("inlineData", object([("mimeType", kind.into()), ("data", data.into())]))])
}

/// What an image at `url` most likely is.
fn image_type(url: &str) -> &'static str {
    let path = url.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    match path.rsplit('.').next() {
        Some("png") => "image/png",
        Some("webp") => "image/webp",
        Some("gif") => "image/gif",
        Some("heic") => "image/heic",
        _ => "image/jpeg",
    }
}

fn tools(fields: &mut Fields, request: &mut Map<String, Value>) -> Result<(), Untranslatable> {
    let choice = fields.take("tool_choice");
    fields.ignore_if("parallel_tool_calls", |value| value == &Value::Bool(true));
    let Some(given) = fields.take_list("tools")?.filter(|tools| !tools.is_empty()) else {
        fields.take("parallel_tool_calls");
        return Ok(());
    };
    let mut declarations = Vec::with_capacity(given.len());
    for tool in &given {
        let function = function_of(tool)?;
        let mut made = Map::from_iter([("name".to_owned(), function["name"].clone())]);
        if let Some(description) = function.get("description").filter(|text| text.is_string()) {
            made.insert("description".to_owned(), description.clone());
        }
        if let Some(schema) = function.get("parameters").filter(|schema| schema.is_object()) {
            let has_properties = schema["properties"].as_object().is_some_and(|all| !all.is_empty());
            // A function without parameters has no schema there.
            if has_properties || schema.get("properties").is_none() {
                let key = if is_openapi(schema) { "parameters" } else { "parametersJsonSchema" };
                made.insert(key.to_owned(), schema.clone());
            }
        }
        if function.get("strict") == Some(&Value::Bool(true)) {
            fields.drop_note("`strict` of a tool has no counterpart at Gemini and was left out".to_owned());
        }
        declarations.push(Value::Object(made));
    }
    request.insert("tools".to_owned(), json!([{ "functionDeclarations": declarations }]));
    let config = match choice {
        None => return Ok(()),
        Some(Value::String(word)) => match word.as_str() {
            "auto" => json!({ "mode": "AUTO" }),
            "none" => json!({ "mode": "NONE" }),
            "required" => json!({ "mode": "ANY" }),
            _ => return refuse(format!("the `tool_choice` `{word}` has no counterpart")),
        },
        Some(choice) => json!({ "mode": "ANY", "allowedFunctionNames": [chosen_function(&choice)?] }),
    };
    request.insert("toolConfig".to_owned(), json!({ "functionCallingConfig": config }));
    Ok(())
}
