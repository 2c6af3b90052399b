//! Chat completions as Anthropic's Messages (`docs/providers/anthropic.md#lines`): what has a counterpart, and a word on
//! what has none.

use super::models::{self, ForcedTools, Rules};
use super::thinking::{self, Thought};
use super::{sampling, schema};
use crate::provider::conversation::{self, Call, Content, Conversation, Part, Takes, Turn};
use crate::provider::fields::{Address, Fields, Request, object, refuse};
use crate::provider::response_format::{self, ResponseFormat};
use crate::provider::submit::{RequestLine, Translated, Untranslatable};
use crate::provider::tools::{self, Choice, Tools};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

const TAKES: Takes = Takes { cache_control: true, thought_signatures: false, file_names: true };

/// The types of images that Anthropic takes.
const IMAGES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

/// A line in OpenAI's form as `{"custom_id","params"}`.
pub(in crate::provider) fn line(line: RequestLine) -> Result<Translated, Untranslatable> {
    let Request { custom_id, url, mut fields } = Request::of(line, "Anthropic")?;
    let params = if url.ends_with("/messages") {
        // The body is what Anthropic takes already.
        fields.take_all()
    } else {
        params(&mut fields)?
    };
    let object = Map::from_iter([("custom_id".to_owned(), custom_id), ("params".to_owned(), params.into())]);
    fields.finish(object)
}

/// The `params` of a chat completion.
fn params(fields: &mut Fields) -> Result<Map<String, Value>, Untranslatable> {
    let mut params = Map::new();
    let model = fields.take_word("model")?.unwrap_or_default();
    let (rules, is_known) = models::rules(&model);
    if !is_known {
        fields.drop_note(format!(
            "the model `{model}` is not known to this version of batchd; its requests are written as the newest \
             Claude models want them"
        ));
    }
    params.insert("model".to_owned(), model.as_str().into());
    let thought = thinking::take(fields, &model, rules)?;
    params.insert("max_tokens".to_owned(), thought.max_tokens.into());

    let Conversation { system, turns } = conversation::take(fields, TAKES)?;
    if !system.is_empty() {
        params.insert("system".to_owned(), system_text(system));
    }
    params.insert("messages".to_owned(), messages(fields, turns, &model, rules, &thought)?.into());
    sampling::take(fields, &model, rules, thought.is_on)?.add_to(&mut params);
    if let Some(stop) = fields.take_stop() {
        params.insert("stop_sequences".to_owned(), stop);
    }
    let tools = tools::take(fields, TAKES)?;
    add_tools(fields, tools, &mut params, &model, rules, &thought)?;
    let mut output = Map::new();
    if let Some(format) = output_format(fields, &model, rules)? {
        output.insert("format".to_owned(), format);
    }
    if let Some(effort) = thought.effort {
        output.insert("effort".to_owned(), effort.into());
    }
    if !output.is_empty() {
        params.insert("output_config".to_owned(), output.into());
    }
    params.extend(thought.config.map(|config| ("thinking".to_owned(), config)));
    let (old, new) = (fields.take("user"), fields.take("safety_identifier"));
    if old.is_some() && new.is_some() && old != new {
        fields.drop_note("`user` was left out beside `safety_identifier`".to_owned());
    }
    if let Some(user) = new.or(old) {
        params.insert("metadata".to_owned(), json!({ "user_id": user }));
    }
    Ok(params)
}

/// The system's words: one text, or blocks where something marks them.
fn system_text(parts: Vec<Part>) -> Value {
    if parts.iter().any(|part| part.cache.is_some()) {
        let blocks = parts.into_iter().filter_map(|part| match part.content {
            Content::Text(text) => Some(marked([("type", "text".into()), ("text", text.into())], part.cache)),
            _ => None,
        });
        return blocks.collect();
    }
    let texts: Vec<&str> = parts.iter().filter_map(|part| part.content.text()).collect();
    texts.join("\n").into()
}

/// The conversation in turns.
fn messages(
    fields: &mut Fields,
    turns: Vec<Turn>,
    model: &str,
    rules: &Rules,
    thought: &Thought,
) -> Result<Vec<Value>, Untranslatable> {
    let last = turns.len().saturating_sub(1);
    // The ids of the last turn's calls, which the results have in the same order.
    let mut ids = Vec::new();
    let mut messages = Vec::with_capacity(turns.len());
    for (place, turn) in turns.into_iter().enumerate() {
        let (role, content) = match turn {
            Turn::User(parts) => ("user", contents(parts)?),
            Turn::Assistant(mut parts, calls) => {
                if place == last {
                    prefill(fields, &mut parts, model, rules, thought)?;
                }
                if calls.is_empty() {
                    ("assistant", contents(parts)?)
                } else {
                    let mut blocks = parts.into_iter().map(block).collect::<Result<Vec<_>, _>>()?;
                    ids = call_ids(&calls, place);
                    for (call, id) in calls.into_iter().zip(&ids) {
                        let fields = [
                            ("type", "tool_use".into()),
                            ("id", id.as_str().into()),
                            ("name", call.name.into()),
                            ("input", call.arguments),
                        ];
                        blocks.push(marked(fields, call.cache));
                    }
                    ("assistant", blocks.into())
                }
            }
            Turn::Results(results) => {
                let results = results.into_iter().zip(&ids).map(|(result, id)| {
                    let fields = [
                        ("type", "tool_result".into()),
                        ("tool_use_id", id.as_str().into()),
                        ("content", result.text.into()),
                    ];
                    marked(fields, result.cache)
                });
                ("user", results.collect())
            }
        };
        messages.push(object([("role", role.into()), ("content", content)]));
    }
    Ok(messages)
}

/// The ids of a turn's calls; one that Anthropic would refuse, as it takes letters, digits, `_` and `-`, or that is there
/// twice, is replaced.
fn call_ids(calls: &[Call], place: usize) -> Vec<String> {
    let mut ids: Vec<String> = Vec::with_capacity(calls.len());
    for (number, Call { id, .. }) in calls.iter().enumerate() {
        let is_plain = id.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'));
        let is_fit = is_plain && !id.is_empty() && !ids.contains(id);
        ids.push(if is_fit { id.clone() } else { format!("call_{place}_{number}") });
    }
    ids
}

/// The last message, where it is the assistant's.
fn prefill(
    fields: &mut Fields,
    parts: &mut [Part],
    model: &str,
    rules: &Rules,
    thought: &Thought,
) -> Result<(), Untranslatable> {
    if !rules.prefill {
        return refuse(format!(
            "its last message is of the role `assistant`, which `{model}` does not continue"
        ));
    }
    if thought.is_on {
        return refuse(format!(
            "its last message is of the role `assistant`, which `{model}` does not continue while it thinks"
        ));
    }
    if let Some(Part { content: Content::Text(text), .. }) = parts.last_mut()
        && text.ends_with(char::is_whitespace)
    {
        text.truncate(text.trim_end().len());
        fields.drop_note(
            "the white space at the end of a last message of the role `assistant` was left out".to_owned(),
        );
    }
    Ok(())
}

/// The parts of a message: one text as such.
fn contents(mut parts: Vec<Part>) -> Result<Value, Untranslatable> {
    if let [Part { content: Content::Text(text), cache: None, .. }] = parts.as_mut_slice() {
        return Ok(std::mem::take(text).into());
    }
    parts.into_iter().map(block).collect()
}

fn block(part: Part) -> Result<Value, Untranslatable> {
    let block = match part.content {
        Content::Text(text) => marked([("type", "text".into()), ("text", text.into())], part.cache),
        Content::Image(address) => {
            let source = match address {
                Address::Data { kind, .. } if !IMAGES.contains(&kind.as_str()) => {
                    return refuse(format!("an image of the type `{kind}` is not taken by Anthropic"));
                }
                Address::Data { kind, data } => source(kind, data),
                Address::Url(url) => object([("type", "url".into()), ("url", url.into())]),
            };
            marked([("type", "image".into()), ("source", source)], part.cache)
        }
        Content::File { kind, data, name } => {
            let source = match kind.as_str() {
                "application/pdf" => source(kind, data),
                "text/plain" => {
                    let text = STANDARD.decode(&data).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                    let Some(text) = text else {
                        return refuse("a `file` of the type `text/plain` is no text");
                    };
                    let kind = kind.into();
                    object([("type", "text".into()), ("media_type", kind), ("data", text.into())])
                }
                _ => return refuse(format!("a `file` of the type `{kind}` is not taken by Anthropic")),
            };
            let mut block = marked([("type", "document".into()), ("source", source)], part.cache);
            if let Some(name) = name {
                block["title"] = name.into();
            }
            block
        }
        Content::Audio { .. } => return refuse("a part of the type `input_audio` has no counterpart"),
    };
    Ok(block)
}

fn source(kind: String, data: String) -> Value {
    object([("type", "base64".into()), ("media_type", kind.into()), ("data", data.into())])
}

/// An object of these fields, and the mark that it is to be cached up to here.
fn marked<const N: usize>(fields: [(&str, Value); N], cache: Option<Value>) -> Value {
    let mut made = object(fields);
    if let Some(cache) = cache {
        made["cache_control"] = cache;
    }
    made
}

fn add_tools(
    fields: &mut Fields,
    tools: Tools,
    params: &mut Map<String, Value>,
    model: &str,
    rules: &Rules,
    thought: &Thought,
) -> Result<(), Untranslatable> {
    let Tools { functions, choice, parallel } = tools;
    if functions.is_empty() {
        return Ok(());
    }
    let mut made = Vec::with_capacity(functions.len());
    for function in functions {
        let mut tool = Map::from_iter([("name".to_owned(), Value::String(function.name))]);
        tool.extend(function.description.map(|text| ("description".to_owned(), text.into())));
        let schema = function.parameters.unwrap_or_else(|| json!({ "type": "object", "properties": {} }));
        tool.insert("input_schema".to_owned(), schema);
        if function.strict && rules.schemas {
            tool.insert("strict".to_owned(), true.into());
        } else if function.strict {
            fields.drop_note(format!("`strict` of a tool has no counterpart at `{model}` and was left out"));
        }
        tool.extend(function.cache.map(|mark| ("cache_control".to_owned(), mark)));
        made.push(Value::Object(tool));
    }
    params.insert("tools".to_owned(), made.into());
    if choice.as_ref().is_some_and(Choice::is_forced) {
        match rules.forced_tools {
            ForcedTools::Yes => {}
            ForcedTools::UnlessThinking if !thought.is_asked => {}
            ForcedTools::UnlessThinking => {
                return refuse(format!(
                    "`{model}` takes no `tool_choice` that forces a call while it thinks"
                ));
            }
            ForcedTools::No => return refuse(format!("`{model}` takes no `tool_choice` that forces a call")),
        }
    }
    let is_none = choice == Some(Choice::No);
    let mut chosen = choice.map(|choice| match choice {
        Choice::Auto => json!({ "type": "auto" }),
        Choice::No => json!({ "type": "none" }),
        Choice::Any => json!({ "type": "any" }),
        Choice::One(name) => json!({ "type": "tool", "name": name }),
    });
    if parallel == Some(false) && !is_none {
        chosen.get_or_insert_with(|| json!({ "type": "auto" }))["disable_parallel_tool_use"] = true.into();
    }
    params.extend(chosen.map(|chosen| ("tool_choice".to_owned(), chosen)));
    Ok(())
}

fn output_format(fields: &mut Fields, model: &str, rules: &Rules) -> Result<Option<Value>, Untranslatable> {
    match response_format::take(fields)? {
        ResponseFormat::Text => Ok(None),
        ResponseFormat::JsonObject => {
            refuse("the `response_format` `json_object` has no counterpart; `json_schema` has")
        }
        ResponseFormat::Schema(_) if !rules.schemas => {
            refuse(format!("the `response_format` `json_schema` has no counterpart at `{model}`"))
        }
        ResponseFormat::Schema(schema) => {
            let schema = schema::closed(fields, &schema)?;
            Ok(Some(json!({ "type": "json_schema", "schema": schema })))
        }
    }
}
