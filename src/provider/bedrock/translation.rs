//! Chat completions as the input of Bedrock's Converse (`docs/providers/bedrock.md#lines`): what has a counterpart, and a word on what
//! has none.

use crate::provider::anthropic::{models, sampling};
use crate::provider::conversation::{self, Content, Conversation, Part, Takes, Turn};
use crate::provider::fields::{Address, Fields, Request, object, refuse};
use crate::provider::submit::{RequestLine, Translated, Untranslatable};
use serde_json::{Map, Value, json};

const TAKES: Takes = Takes { cache_control: false, thought_signatures: false, file_names: false };

/// A line in OpenAI's form as `{"recordId","modelInput"}`.
pub(super) fn line(line: RequestLine) -> Result<Translated, Untranslatable> {
    let Request { custom_id, url, mut fields } = Request::of(line, "Bedrock")?;
    if !url.ends_with("/chat/completions") {
        return refuse(format!("`{url}` has no counterpart at Bedrock; chat completions have"));
    }
    // The job names it, once.
    let model = fields.take_word("model")?.unwrap_or_default();
    for key in ["tools", "tool_choice"] {
        if fields.take(key).is_some_and(|value| value.as_array().is_none_or(|tools| !tools.is_empty())) {
            return refuse(format!("`{key}` has no counterpart: Bedrock's batches call no tools"));
        }
    }
    fields.drop_harmless(&["parallel_tool_calls"]);
    fields.ignore_if("response_format", |format| format["type"] == "text");
    if fields.take("response_format").is_some() {
        return refuse("`response_format` has no counterpart: Bedrock's batches hold answers to no form");
    }
    let Conversation { system, turns } = conversation::take(&mut fields, TAKES)?;
    let messages = messages(turns, &model)?;
    let mut input = Map::from_iter([("messages".to_owned(), messages.into())]);
    if !system.is_empty() {
        let system = system.into_iter().map(block).collect::<Result<Value, _>>()?;
        input.insert("system".to_owned(), system);
    }
    let mut inference = Map::new();
    sampled(&mut fields, &model, &mut inference)?;
    inference.extend(fields.take_max_tokens()?.map(|most| ("maxTokens".to_owned(), most.into())));
    inference.extend(fields.take_stop().map(|stop| ("stopSequences".to_owned(), stop)));
    if !inference.is_empty() {
        input.insert("inferenceConfig".to_owned(), inference.into());
    }
    let object =
        Map::from_iter([("recordId".to_owned(), custom_id), ("modelInput".to_owned(), input.into())]);
    fields.finish(object)
}

/// What is sampled; Claude's newer models refuse to be told.
fn sampled(
    fields: &mut Fields,
    model: &str,
    inference: &mut Map<String, Value>,
) -> Result<(), Untranslatable> {
    if is_claude(model) {
        let (rules, _) = models::rules(model);
        let sampled = sampling::take(fields, model, rules, false)?;
        if sampled.top_k.is_some() {
            return refuse("`top_k` has no counterpart at Bedrock");
        }
        inference.extend(sampled.temperature.map(|value| ("temperature".to_owned(), value.into())));
        inference.extend(sampled.top_p.map(|value| ("topP".to_owned(), value.into())));
    } else {
        fields.rename("temperature", inference, "temperature");
        fields.rename("top_p", inference, "topP");
    }
    Ok(())
}

fn is_claude(model: &str) -> bool {
    model.contains("anthropic.claude-")
}

/// The messages, of which no two in a row may be of the same role.
fn messages(given: Vec<Turn>, model: &str) -> Result<Vec<Value>, Untranslatable> {
    let mut turns: Vec<(&'static str, Vec<Value>)> = Vec::new();
    for turn in given {
        let (role, parts) = match turn {
            Turn::User(parts) => ("user", parts),
            Turn::Assistant(parts, calls) if calls.is_empty() => ("assistant", parts),
            Turn::Assistant(..) | Turn::Results(_) => {
                return refuse(
                    "the `tool_calls` of a message have no counterpart: Bedrock's batches call no tools",
                );
            }
        };
        let blocks = parts.into_iter().map(block).collect::<Result<Vec<_>, _>>()?;
        match turns.last_mut() {
            Some((last, before)) if *last == role => before.extend(blocks),
            _ => turns.push((role, blocks)),
        }
    }
    if turns.first().is_some_and(|(role, _)| *role != "user") {
        return refuse("its first message is of the role `assistant`; a conversation begins with the user's");
    }
    if turns.last().is_some_and(|(role, _)| *role == "assistant")
        && is_claude(model)
        && !models::rules(model).0.prefill
    {
        return refuse(format!(
            "its last message is of the role `assistant`, which `{model}` does not continue"
        ));
    }
    Ok(turns.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect())
}

fn block(part: Part) -> Result<Value, Untranslatable> {
    match part.content {
        Content::Text(text) => Ok(object([("text", text.into())])),
        Content::Image(Address::Data { kind, data }) => {
            let format = kind.strip_prefix("image/").unwrap_or(&kind);
            let source = object([("bytes", data.into())]);
            Ok(object([("image", object([("format", format.into()), ("source", source)]))]))
        }
        Content::Image(Address::Url(_)) => {
            refuse("Bedrock takes images inline only (`image_url` as `data:image/png;base64,…`)")
        }
        Content::Audio { .. } => refuse("a part of the type `input_audio` has no counterpart"),
        Content::File { .. } => refuse("a part of the type `file` has no counterpart"),
    }
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
                {"role": "assistant", "content": "A cat."},
                {"role": "user", "content": "Are you sure?"},
            ],
            "tools": [],
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
                json!({"messages": [{"role": "user", "content": "hi"}], "n": 2}),
                "`n` has no counterpart at Bedrock; leave it out, or write the line in that service's own form",
            ),
            (
                json!({"messages": [], "tools": [{"type": "function", "function": {"name": "look"}}]}),
                "`tools` has no counterpart: Bedrock's batches call no tools",
            ),
            (
                json!({"messages": [], "tool_choice": "required"}),
                "`tool_choice` has no counterpart: Bedrock's batches call no tools",
            ),
            (
                json!({"messages": [], "response_format": {"type": "json_object"}}),
                "`response_format` has no counterpart: Bedrock's batches hold answers to no form",
            ),
            (json!({"messages": [{"role": "critic"}]}), "a message of the role `critic` has no counterpart"),
            (
                user(json!([{"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}])),
                "Bedrock takes images inline only (`image_url` as `data:image/png;base64,…`)",
            ),
            (
                user(json!([{"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}])),
                "a part of the type `input_audio` has no counterpart",
            ),
        ] {
            assert_eq!(translated(&body).unwrap_err(), what);
        }
    }
}
