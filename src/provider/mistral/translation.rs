//! OpenAI's requests as Mistral's (`docs/providers/mistral.md#lines`): nearly the same, with a few other names. Mistral
//! refuses keys that it does not know, so none is passed on unseen.

use crate::provider::conversation::Takes;
use crate::provider::effort;
use crate::provider::fields::{Fields, Request, refuse};
use crate::provider::submit::{RequestLine, Translated, Untranslatable};
use crate::provider::tools::{self, Choice};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const TAKES: Takes = Takes { cache_control: false, thought_signatures: false, file_names: false };

/// Fields that are the same, or have another name: OpenAI's, then Mistral's own (mistralai 3.7, 2026-11-27).
const SAME: [(&str, &str); 20] = [
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("stop", "stop"),
    ("seed", "random_seed"),
    ("n", "n"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("logprobs", "logprobs"),
    ("top_logprobs", "top_logprobs"),
    ("metadata", "metadata"),
    ("prompt_cache_key", "prompt_cache_key"),
    ("random_seed", "random_seed"),
    ("safe_prompt", "safe_prompt"),
    ("prompt_mode", "prompt_mode"),
    ("top_k", "top_k"),
    ("min_tokens", "min_tokens"),
    ("repetition_penalty", "repetition_penalty"),
    ("prompt_logprobs", "prompt_logprobs"),
    ("top_prompt_logprobs", "top_prompt_logprobs"),
    ("guardrails", "guardrails"),
];

/// The ids of calls; Mistral's are nine letters and digits.
#[derive(Default)]
struct CallIds {
    /// What stands for each.
    own: BTreeMap<String, String>,
    count: usize,
}

impl CallIds {
    /// What is to stand for the id of another call.
    fn note(&mut self, id: String) -> String {
        let is_fit = id.len() == 9 && id.bytes().all(|c| c.is_ascii_alphanumeric());
        let own = if is_fit { id.clone() } else { format!("call{:05}", self.count) };
        self.count += 1;
        self.own.insert(id, own.clone());
        own
    }
}

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
    let Some(given) = fields.take_list("messages")? else { return refuse("it has no `messages`") };
    let mut messages = Vec::with_capacity(given.len());
    let mut ids = CallIds::default();
    for message in given {
        let Value::Object(message) = message else { return refuse("a message is no object") };
        messages.push(self::message(fields, &mut ids, message)?);
    }
    ends(fields, &mut messages);
    body.insert("messages".to_owned(), messages.into());
    if let Some(most) = fields.take_max_tokens()? {
        body.insert("max_tokens".to_owned(), most.into());
    }
    for (key, name) in SAME {
        fields.rename(key, body, name);
    }
    if let Some(word) = fields.take_word("reasoning_effort")?.filter(|word| word != "auto") {
        if word != "none" && !effort::is_amount(&word) {
            return refuse(format!("the `reasoning_effort` `{word}` has no counterpart"));
        }
        body.insert("reasoning_effort".to_owned(), word.into());
    }
    response_format(fields, body)?;
    if let Some(prediction) = fields.take("prediction") {
        body.insert("prediction".to_owned(), self::prediction(fields, prediction)?);
    }
    add_tools(fields, body)
}

/// What the first and the last message must be.
fn ends(fields: &mut Fields, messages: &mut [Value]) {
    if !messages.is_empty() && messages.iter().all(|message| message["role"] == "system") {
        fields.drop_note("a request with nothing but a `system` message was sent as the user's".to_owned());
        for message in messages.iter_mut() {
            message["role"] = "user".into();
        }
    }
    if let Some(Value::Object(last)) = messages.last_mut()
        && last.get("role").is_some_and(|role| role == "assistant")
        && !last.contains_key("tool_calls")
    {
        last.insert("prefix".to_owned(), true.into());
    }
}

fn message(
    fields: &mut Fields,
    ids: &mut CallIds,
    mut message: Map<String, Value>,
) -> Result<Value, Untranslatable> {
    let mut made = Map::new();
    let role = match message.shift_remove("role").unwrap_or_default().as_str().unwrap_or_default() {
        "system" | "developer" => "system",
        "user" => "user",
        "assistant" => "assistant",
        "tool" => "tool",
        other => return refuse(format!("a message of the role `{other}` has no counterpart")),
    };
    made.insert("role".to_owned(), role.into());
    for key in ["function_call", "audio"] {
        if message.get(key).is_some_and(|value| !value.is_null()) {
            return refuse(format!("the `{key}` of a message has no counterpart"));
        }
    }
    let mut content = message.shift_remove("content").unwrap_or_default();
    if content.is_null() && role == "assistant" {
        content = message.shift_remove("refusal").unwrap_or_default();
    }
    made.insert("content".to_owned(), self::content(fields, content)?);
    match role {
        "assistant" => {
            match message.shift_remove("tool_calls").unwrap_or_default() {
                Value::Null => {}
                Value::Array(calls) if calls.is_empty() => {}
                Value::Array(calls) => {
                    let calls = calls.into_iter().map(|call| self::call(fields, ids, call));
                    made.insert("tool_calls".to_owned(), calls.collect::<Result<Value, _>>()?);
                }
                _ => return refuse("the `tool_calls` of a message are no list"),
            }
            // Mistral's own.
            made.extend(message.shift_remove("prefix").map(|prefix| ("prefix".to_owned(), prefix)));
        }
        "tool" => {
            let Some(Value::String(id)) = message.shift_remove("tool_call_id") else {
                return refuse("a message of the role `tool` has no `tool_call_id`");
            };
            let Some(id) = ids.own.get(&id) else {
                return refuse("a message of the role `tool` answers a call that is not in the conversation");
            };
            made.insert("tool_call_id".to_owned(), id.as_str().into());
            made.extend(message.shift_remove("name").map(|name| ("name".to_owned(), name)));
        }
        _ => {}
    }
    fields.note_rest("a message", &message);
    Ok(made.into())
}

fn content(fields: &mut Fields, content: Value) -> Result<Value, Untranslatable> {
    let Value::Array(parts) = content else { return Ok(content) };
    parts.into_iter().map(|part| self::part(fields, part)).collect()
}

fn part(fields: &mut Fields, part: Value) -> Result<Value, Untranslatable> {
    let Value::Object(mut part) = part else { return refuse("a part of a message is no object") };
    let kind = part.get("type").and_then(Value::as_str).unwrap_or("?");
    let key = match kind {
        "text" => "text",
        "refusal" => "refusal",
        "image_url" => "image_url",
        // Mistral's own.
        "document_url" | "thinking" | "reference" => return Ok(part.into()),
        kind => return refuse(format!("a part of the type `{kind}` has no counterpart")),
    };
    let kind = if key == "refusal" { "text" } else { key };
    let mut value = part.shift_remove(key).unwrap_or_default();
    part.shift_remove("type");
    fields.note_rest("a part of a message", &part);
    if key == "image_url" {
        value = image(fields, value)?;
    }
    Ok(json!({ "type": kind, kind: value }))
}

fn image(fields: &mut Fields, image: Value) -> Result<Value, Untranslatable> {
    /// Many write it so; it is no media type.
    fn right(url: Value) -> Value {
        match url.as_str().and_then(|url| url.strip_prefix("data:image/jpg;")) {
            Some(rest) => format!("data:image/jpeg;{rest}").into(),
            None => url,
        }
    }
    let mut image = match image {
        url @ Value::String(_) => return Ok(right(url)),
        Value::Object(image) => image,
        _ => return refuse("an `image_url` part has no `url`"),
    };
    let Some(url) = image.shift_remove("url").filter(Value::is_string) else {
        return refuse("an `image_url` part has no `url`");
    };
    let mut made = Map::from_iter([("url".to_owned(), right(url))]);
    made.extend(image.shift_remove("detail").map(|detail| ("detail".to_owned(), detail)));
    fields.note_rest("an image", &image);
    Ok(made.into())
}

fn call(fields: &mut Fields, ids: &mut CallIds, call: Value) -> Result<Value, Untranslatable> {
    let Value::Object(mut call) = call else { return refuse("a tool call is no object") };
    let kind = call.shift_remove("type").unwrap_or_default();
    let kind = kind.as_str().unwrap_or("function");
    let Some(Value::Object(mut function)) = call.shift_remove("function") else {
        return refuse(format!("a tool call of the type `{kind}` has no counterpart"));
    };
    if kind != "function" {
        return refuse(format!("a tool call of the type `{kind}` has no counterpart"));
    }
    let id = match call.shift_remove("id").unwrap_or_default() {
        Value::String(id) => id,
        _ => String::new(),
    };
    let mut made = Map::new();
    for key in ["name", "arguments"] {
        made.extend(function.shift_remove(key).map(|value| (key.to_owned(), value)));
    }
    fields.note_rest("a tool call", &call);
    fields.note_rest("the function of a tool call", &function);
    let own = ids.note(id);
    Ok(json!({ "id": own, "type": "function", "function": made }))
}

fn response_format(fields: &mut Fields, body: &mut Map<String, Value>) -> Result<(), Untranslatable> {
    let mut format = match fields.take("response_format") {
        None => return Ok(()),
        Some(Value::Object(format)) => format,
        Some(_) => return refuse("its `response_format` is no object"),
    };
    let mut made = Map::new();
    made.extend(format.shift_remove("type").map(|kind| ("type".to_owned(), kind)));
    if let Some(Value::Object(mut given)) = format.shift_remove("json_schema") {
        let mut schema = Map::new();
        for key in ["name", "description", "schema", "strict"] {
            schema.extend(given.shift_remove(key).map(|value| (key.to_owned(), value)));
        }
        fields.note_rest("`json_schema`", &given);
        made.insert("json_schema".to_owned(), schema.into());
    }
    fields.note_rest("`response_format`", &format);
    body.insert("response_format".to_owned(), made.into());
    Ok(())
}

/// What the answer is expected to be, which Mistral wants as one text.
fn prediction(fields: &mut Fields, prediction: Value) -> Result<Value, Untranslatable> {
    let Value::Object(mut prediction) = prediction else { return refuse("its `prediction` is no object") };
    let content = match prediction.shift_remove("content").unwrap_or_default() {
        Value::Array(parts) => {
            let mut texts = Vec::with_capacity(parts.len());
            for part in parts {
                let Value::Object(mut part) = part else { return refuse("its `prediction` is no text") };
                let Some(Value::String(text)) = part.shift_remove("text") else {
                    return refuse("its `prediction` is no text");
                };
                part.shift_remove("type");
                fields.note_rest("a part of the `prediction`", &part);
                texts.push(text);
            }
            texts.join("").into()
        }
        text @ Value::String(_) => text,
        _ => return refuse("its `prediction` is no text"),
    };
    prediction.shift_remove("type");
    fields.note_rest("the `prediction`", &prediction);
    Ok(json!({ "type": "content", "content": content }))
}

fn add_tools(fields: &mut Fields, body: &mut Map<String, Value>) -> Result<(), Untranslatable> {
    let tools = tools::take(fields, TAKES)?;
    if tools.functions.is_empty() {
        return Ok(());
    }
    let functions = tools.functions.into_iter().map(|function| {
        let mut made = Map::from_iter([("name".to_owned(), Value::String(function.name))]);
        made.extend(function.description.map(|text| ("description".to_owned(), text.into())));
        let schema = function.parameters.unwrap_or_else(|| json!({ "type": "object", "properties": {} }));
        made.insert("parameters".to_owned(), schema);
        if function.strict {
            made.insert("strict".to_owned(), true.into());
        }
        json!({ "type": "function", "function": made })
    });
    body.insert("tools".to_owned(), functions.collect());
    let choice = tools.choice.map(|choice| match choice {
        Choice::Auto => "auto".into(),
        Choice::No => "none".into(),
        Choice::Any => "any".into(),
        Choice::One(name) => json!({ "type": "function", "function": { "name": name } }),
    });
    body.extend(choice.map(|choice| ("tool_choice".to_owned(), choice)));
    body.extend(tools.parallel.map(|parallel| ("parallel_tool_calls".to_owned(), parallel.into())));
    Ok(())
}
