//! Chat completions as the input of Bedrock's Converse (`docs/providers.md#bedrock-lines`): what has a counterpart, and a word on what
//! has none.

use crate::provider::fields::{
    Address, Fields, Request, chosen_function, function_of, refuse, take_image, text_of, tool_call,
};
use crate::provider::submit::{RequestLine, Translated, Untranslatable};
use serde_json::{Map, Value, json};

/// A line in OpenAI's form as `{"recordId","modelInput"}`.
pub(super) fn line(line: RequestLine) -> Result<Translated, Untranslatable> {
    let Request { custom_id, url, mut fields } = Request::of(line, "Bedrock")?;
    if !url.ends_with("/chat/completions") {
        return refuse(format!("`{url}` has no counterpart at Bedrock; chat completions have"));
    }
    // The job names it, once.
    fields.take("model");
    let (messages, system) = conversation(&mut fields)?;
    let mut input = Map::from_iter([("messages".to_owned(), messages.into())]);
    if !system.is_empty() {
        input.insert("system".to_owned(), system.into());
    }
    let mut inference = Map::new();
    fields.rename("temperature", &mut inference, "temperature");
    fields.rename("top_p", &mut inference, "topP");
    inference.extend(fields.take_max_tokens().map(|most| ("maxTokens".to_owned(), most)));
    inference.extend(fields.take_stop().map(|stop| ("stopSequences".to_owned(), stop)));
    if !inference.is_empty() {
        input.insert("inferenceConfig".to_owned(), inference.into());
    }
    if let Some(tools) = tools(&mut fields)? {
        input.insert("toolConfig".to_owned(), tools);
    }
    fields.ignore_if("response_format", |format| format["type"] == "text");
    let object =
        Map::from_iter([("recordId".to_owned(), custom_id), ("modelInput".to_owned(), input.into())]);
    fields.finish(object)
}

/// The messages, of which no two in a row may be of the same role, and what the system says apart.
fn conversation(fields: &mut Fields) -> Result<(Vec<Value>, Vec<Value>), Untranslatable> {
    let Some(given) = fields.take_list("messages")? else { return refuse("it has no `messages`") };
    let mut turns: Vec<(&'static str, Vec<Value>)> = Vec::new();
    let mut system = Vec::new();
    for message in given {
        let content = &message["content"];
        let (role, blocks) = match message["role"].as_str().unwrap_or_default() {
            role @ ("system" | "developer") => {
                system.push(json!({"text": text_of(content, role)?}));
                continue;
            }
            "user" => ("user", blocks(content)?),
            "assistant" => {
                let mut said = blocks(content)?;
                for call in message["tool_calls"].as_array().into_iter().flatten() {
                    let (id, name, arguments) = tool_call(call)?;
                    said.push(json!({"toolUse": {"toolUseId": id, "name": name, "input": arguments}}));
                }
                ("assistant", said)
            }
            "tool" => {
                let text = json!([{"text": text_of(content, "tool")?}]);
                ("user", vec![json!({"toolResult": {"toolUseId": message["tool_call_id"], "content": text}})])
            }
            other => return refuse(format!("a message of the role `{other}` has no counterpart")),
        };
        match turns.last_mut() {
            Some((last, before)) if *last == role => before.extend(blocks),
            _ => turns.push((role, blocks)),
        }
    }
    let messages = turns.into_iter().map(|(role, content)| json!({"role": role, "content": content}));
    Ok((messages.collect(), system))
}

/// The content of a message as a list of blocks.
fn blocks(content: &Value) -> Result<Vec<Value>, Untranslatable> {
    match content {
        Value::Null => Ok(Vec::new()),
        // Converse takes no empty text.
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        Value::String(text) => Ok(vec![json!({"text": text})]),
        Value::Array(parts) => parts.iter().map(block).collect(),
        _ => refuse("the `content` of a message is neither text nor parts"),
    }
}

fn block(part: &Value) -> Result<Value, Untranslatable> {
    match part["type"].as_str() {
        Some("text") => Ok(json!({"text": part["text"]})),
        Some("image_url") => match take_image(&mut part.clone())? {
            Address::Data { kind, data } => {
                let format = kind.strip_prefix("image/").unwrap_or(&kind).replace("jpg", "jpeg");
                Ok(json!({"image": {"format": format, "source": {"bytes": data}}}))
            }
            Address::Url(_) => refuse("Bedrock takes images inline only (`data:image/png;base64,…`)"),
        },
        kind => refuse(format!("a part of the type `{}` has no counterpart", kind.unwrap_or("?"))),
    }
}

/// The functions that may be called, unless none may.
fn tools(fields: &mut Fields) -> Result<Option<Value>, Untranslatable> {
    let tools = fields.take_list("tools")?.unwrap_or_default();
    let choice = fields.take("tool_choice");
    let mut specs = Vec::with_capacity(tools.len());
    for tool in &tools {
        let function = function_of(tool)?;
        let mut spec = Map::new();
        for key in ["name", "description"] {
            spec.extend(function.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        let schema = function.get("parameters").cloned().unwrap_or_else(|| json!({"type": "object"}));
        spec.insert("inputSchema".to_owned(), json!({"json": schema}));
        specs.push(json!({"toolSpec": spec}));
    }
    let mut config = json!({"tools": specs});
    match choice {
        None => {}
        Some(Value::String(word)) => match word.as_str() {
            "none" => return Ok(None),
            "auto" => config["toolChoice"] = json!({"auto": {}}),
            "required" => config["toolChoice"] = json!({"any": {}}),
            other => return refuse(format!("the `tool_choice` `{other}` has no counterpart")),
        },
        Some(choice) => config["toolChoice"] = json!({"tool": {"name": chosen_function(&choice)?}}),
    }
    Ok((!tools.is_empty()).then_some(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(body: &Value) -> Result<Translated, String> {
        let Value::Object(object) =
            json!({"custom_id": "row-1", "method": "POST", "url": "/v1/chat/completions", "body": body})
        else {
            panic!("no object")
        };
        line(RequestLine { object, number: 1 }).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_conversation_with_everything_is_converse_s() {
        let made = translated(&json!({
            "model": "m", "max_completion_tokens": 64, "temperature": 0.2, "top_p": 0.9, "stop": "END", "seed": 7, "n": 1,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": "In English."},
                {"role": "user", "content": "What is it?"},
                {"role": "user", "content": [
                    {"type": "text", "text": "Look:"},
                    {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,AAAA"}},
                ]},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":1}"}},
                ]},
                {"role": "tool", "tool_call_id": "call_1", "content": "a cat"},
            ],
            "tools": [{"type": "function", "function": {"name": "look", "description": "d", "parameters": {"type": "object"}}}],
            "tool_choice": "required",
        }))
        .unwrap();
        insta::assert_json_snapshot!(made.object);
        assert_eq!(made.dropped, ["`seed` has no counterpart at Bedrock and was left out"]);
    }

    #[test]
    fn what_has_no_counterpart_is_refused() {
        let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
        for (body, what) in [
            (json!({}), "it has no `messages`"),
            (
                json!({"messages": [], "n": 2}),
                "`n` has no counterpart at Bedrock; leave it out, or write the line in that service's own form",
            ),
            (json!({"messages": [{"role": "critic"}]}), "a message of the role `critic` has no counterpart"),
            (
                user(json!([{"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}])),
                "Bedrock takes images inline only (`data:image/png;base64,…`)",
            ),
            (user(json!([{"type": "input_audio"}])), "a part of the type `input_audio` has no counterpart"),
        ] {
            assert_eq!(translated(&body).unwrap_err(), what);
        }
    }
}
