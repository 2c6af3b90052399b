//! Chat completions and embeddings as Gemini's requests (`docs/providers/gemini.md#lines`): what has a counterpart, and a
//! word on what has none.

use super::models::{self, Rules, Thinking};
use super::schema;
use crate::provider::conversation::{self, Call, CallResult, Content, Conversation, Part, Takes, Turn};
use crate::provider::effort;
use crate::provider::fields::{Address, Fields, Request, object, refuse};
use crate::provider::response_format::{self, ResponseFormat};
use crate::provider::submit::{RequestLine, Translated, Untranslatable};
use crate::provider::tools::{self, Choice, Function, Tools};
use serde_json::{Map, Value, json};

const TAKES: Takes = Takes { cache_control: false, thought_signatures: true, file_names: false };

/// What Google documents for a call that another model made, or whose signature is lost: models from 3 on refuse a call
/// that has none (<https://ai.google.dev/gemini-api/docs/thought-signatures>, 2026-11-27).
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// A line in OpenAI's form as `{"key","request"}`.
pub(in crate::provider) fn line(line: RequestLine) -> Result<Translated, Untranslatable> {
    let Request { custom_id, url, mut fields } = Request::of(line, "Gemini")?;
    // The batch names it, once.
    let model = fields.take_word("model")?.unwrap_or_default();
    let request = if url.ends_with("/embeddings") {
        embedding(&mut fields)?
    } else {
        content_request(&mut fields, &model)?
    };
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
fn content_request(fields: &mut Fields, model: &str) -> Result<Map<String, Value>, Untranslatable> {
    let (rules, is_known) = models::rules(model);
    if !is_known {
        fields.drop_note(format!(
            "the model `{model}` is not known to this version of batchd; its requests are written as the newest \
             Gemini models want them"
        ));
    }
    let Conversation { system, turns } = conversation::take(fields, TAKES)?;
    let contents = contents(fields, turns, rules);
    let mut request = Map::from_iter([("contents".to_owned(), Value::Array(contents))]);
    if !system.is_empty() {
        let texts: Vec<&str> = system.iter().filter_map(|part| part.content.text()).collect();
        request.insert("systemInstruction".to_owned(), json!({ "parts": [{ "text": texts.join("\n") }] }));
    }
    let tools = tools::take(fields, TAKES)?;
    add_tools(fields, tools, &mut request)?;
    let config = generation_config(fields, model, rules)?;
    if !config.is_empty() {
        request.insert("generationConfig".to_owned(), config.into());
    }
    Ok(request)
}

fn generation_config(
    fields: &mut Fields,
    model: &str,
    rules: Rules,
) -> Result<Map<String, Value>, Untranslatable> {
    let mut config = Map::new();
    for (key, name) in [("temperature", "temperature"), ("top_p", "topP"), ("top_k", "topK")] {
        let Some(value) = fields.take_number(key)? else { continue };
        if rules.sampling {
            config.insert(name.to_owned(), value.into());
        } else if value.as_f64() != Some(1.0) {
            fields.drop_note(format!("`{key}` changes nothing at `{model}` and was left out"));
        }
    }
    for (key, name) in [
        ("n", "candidateCount"),
        ("presence_penalty", "presencePenalty"),
        ("frequency_penalty", "frequencyPenalty"),
        ("seed", "seed"),
    ] {
        fields.rename(key, &mut config, name);
    }
    if let Some(most) = fields.take_max_tokens()? {
        config.insert("maxOutputTokens".to_owned(), most.into());
    }
    if let Some(stop) = fields.take_stop() {
        config.insert("stopSequences".to_owned(), stop);
    }
    if fields.take("logprobs") == Some(Value::Bool(true)) {
        config.insert("responseLogprobs".to_owned(), true.into());
        fields.rename("top_logprobs", &mut config, "logprobs");
    }
    if let Some(thinking) = thinking(fields, model, rules)? {
        config.insert("thinkingConfig".to_owned(), thinking);
    }
    match response_format::take(fields)? {
        ResponseFormat::Text => {}
        ResponseFormat::JsonObject => {
            config.insert("responseMimeType".to_owned(), "application/json".into());
        }
        ResponseFormat::Schema(schema) => {
            config.insert("responseMimeType".to_owned(), "application/json".into());
            add_schema(fields, schema, &mut config);
        }
    }
    Ok(config)
}

/// How much is to be thought: in tokens up to 2.5, in words from 3 on, never both.
fn thinking(fields: &mut Fields, model: &str, rules: Rules) -> Result<Option<Value>, Untranslatable> {
    let Some(word) = fields.take_word("reasoning_effort")?.filter(|word| word != "auto") else {
        return Ok(None);
    };
    let is_none = word == "none";
    if !is_none && !effort::is_amount(&word) {
        return refuse(format!("the `reasoning_effort` `{word}` has no counterpart"));
    }
    let (config, sent) = match rules.thinking {
        Thinking::No if is_none => return Ok(None),
        Thinking::No => {
            return refuse(format!(
                "the `reasoning_effort` `{word}` has no counterpart: `{model}` does not think"
            ));
        }
        Thinking::Budget { off: true, .. } if is_none => (json!({ "thinkingBudget": 0 }), word.clone()),
        Thinking::Budget { least, .. } if is_none => {
            (json!({ "thinkingBudget": least }), format!("{least} tokens"))
        }
        Thinking::Budget { least, most, .. } => {
            // As Google's own interface in OpenAI's form has it, and any-llm 1.40.2 (2026-11-27).
            let budget: u64 = match word.as_str() {
                "minimal" | "low" => 1024,
                "medium" => 8192,
                "high" => 24_576,
                _ => 32_768,
            };
            (json!({ "thinkingBudget": budget.clamp(least, most) }), word.clone())
        }
        Thinking::Levels(levels) => {
            let wanted = if is_none { "minimal" } else { word.as_str() };
            let level = effort::nearest(wanted, levels).unwrap_or("low");
            (json!({ "thinkingLevel": level }), level.to_owned())
        }
    };
    if sent != word {
        let why = if is_none { "always thinks".to_owned() } else { format!("does not take `{word}`") };
        fields.drop_note(format!("the `reasoning_effort` `{word}` is sent as `{sent}`: `{model}` {why}"));
    }
    Ok(Some(config))
}

/// The schema of an answer: Gemini's own form where it can be.
fn add_schema(fields: &mut Fields, schema: Map<String, Value>, config: &mut Map<String, Value>) {
    match schema::openapi(&schema) {
        Ok(converted) => {
            for key in converted.left_out {
                fields
                    .drop_note(format!("`{key}` of a schema has no counterpart at Gemini and was left out"));
            }
            config.insert("responseSchema".to_owned(), converted.schema);
        }
        Err(why) => {
            fields.drop_note(format!(
                "a schema was sent as `responseJsonSchema`, which Gemini's batches may not follow: {why}"
            ));
            config.insert("responseJsonSchema".to_owned(), schema.into());
        }
    }
}

/// The conversation in turns.
fn contents(fields: &mut Fields, turns: Vec<Turn>, rules: Rules) -> Vec<Value> {
    let mut contents = Vec::with_capacity(turns.len());
    for turn in turns {
        let (role, parts) = match turn {
            Turn::User(parts) => ("user", parts.into_iter().map(part).collect()),
            Turn::Assistant(parts, calls) => {
                let mut made: Vec<Value> = parts.into_iter().map(part).collect();
                made.extend(function_calls(fields, calls, rules));
                ("model", made)
            }
            Turn::Results(results) => ("user", results.into_iter().map(function_response).collect()),
        };
        contents.push(object([("role", role.into()), ("parts", parts.into())]));
    }
    contents
}

/// The calls of one turn. Only the first of several has a signature.
fn function_calls(fields: &mut Fields, mut calls: Vec<Call>, rules: Rules) -> Vec<Value> {
    let needs_one = matches!(rules.thinking, Thinking::Levels(_));
    if let Some(first) = calls.first_mut()
        && first.signature.is_none()
        && needs_one
    {
        first.signature = Some(NO_SIGNATURE.into());
        fields.drop_note(
            "a tool call without a `thought_signature` was sent with Google's mark for calls of other models"
                .to_owned(),
        );
    }
    let parts = calls.into_iter().map(|call| {
        let mut made = Map::new();
        if !call.id.is_empty() {
            made.insert("id".to_owned(), call.id.into());
        }
        made.insert("name".to_owned(), call.name.into());
        made.insert("args".to_owned(), call.arguments);
        signed(object([("functionCall", made.into())]), call.signature)
    });
    parts.collect()
}

/// The result of a call, which names the call: two calls of one function are told apart.
fn function_response(result: CallResult) -> Value {
    let answer = serde_json::from_str(&result.text).ok().filter(Value::is_object);
    let answer = answer.unwrap_or_else(|| json!({ "result": result.text }));
    let mut made = Map::new();
    if !result.id.is_empty() {
        made.insert("id".to_owned(), result.id.into());
    }
    made.insert("name".to_owned(), result.name.into());
    made.insert("response".to_owned(), answer);
    object([("functionResponse", made.into())])
}

fn part(part: Part) -> Value {
    let made = match part.content {
        Content::Text(text) => object([("text", text.into())]),
        Content::Image(Address::Data { kind, data }) | Content::File { kind, data, .. } => inline(kind, data),
        Content::Image(Address::Url(url)) => {
            let data = object([("mimeType", image_type(&url).into()), ("fileUri", url.into())]);
            object([("fileData", data)])
        }
        Content::Audio { format, data } => inline(format!("audio/{format}"), data),
    };
    signed(made, part.signature)
}

fn signed(mut part: Value, signature: Option<Value>) -> Value {
    if let Some(signature) = signature {
        part["thoughtSignature"] = signature;
    }
    part
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

fn add_tools(
    fields: &mut Fields,
    tools: Tools,
    request: &mut Map<String, Value>,
) -> Result<(), Untranslatable> {
    let Tools { functions, choice, parallel } = tools;
    if functions.is_empty() {
        return Ok(());
    }
    if parallel == Some(false) {
        return refuse(
            "`parallel_tool_calls` has no counterpart at Gemini: it may always call several functions",
        );
    }
    let declarations: Vec<Value> =
        functions.into_iter().map(|function| declaration(fields, function)).collect();
    request.insert("tools".to_owned(), json!([{ "functionDeclarations": declarations }]));
    let config = match choice {
        None => return Ok(()),
        Some(Choice::Auto) => json!({ "mode": "AUTO" }),
        Some(Choice::No) => json!({ "mode": "NONE" }),
        Some(Choice::Any) => json!({ "mode": "ANY" }),
        Some(Choice::One(name)) => json!({ "mode": "ANY", "allowedFunctionNames": [name] }),
    };
    request.insert("toolConfig".to_owned(), json!({ "functionCallingConfig": config }));
    Ok(())
}

fn declaration(fields: &mut Fields, function: Function) -> Value {
    let mut made = Map::from_iter([("name".to_owned(), Value::String(function.name))]);
    made.extend(function.description.map(|text| ("description".to_owned(), text.into())));
    if let Some(Value::Object(schema)) = function.parameters {
        // A function without parameters has no schema there.
        let has_none = schema.get("properties").and_then(Value::as_object).is_some_and(Map::is_empty);
        match schema::openapi(&schema) {
            _ if has_none => {}
            Ok(converted) if converted.left_out.is_empty() => {
                made.insert("parameters".to_owned(), converted.schema);
            }
            _ => {
                made.insert("parametersJsonSchema".to_owned(), schema.into());
            }
        }
    }
    if function.strict {
        fields.drop_note("the `strict` of a tool has no counterpart at Gemini and was left out".to_owned());
    }
    Value::Object(made)
}
