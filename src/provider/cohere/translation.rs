//! Chat completions and embeddings as lines of Cohere's datasets (`docs/providers/cohere.md#lines`): what has a
//! counterpart, and a word on what has none. A dataset has fewer fields than a request of Cohere's own interface, and its
//! messages are always lists of parts.

use crate::provider::conversation::{self, Call, Content, Conversation, Part, Takes, Turn};
use crate::provider::effort;
use crate::provider::fields::{Address, Fields, Request, object, refuse};
use crate::provider::lenient;
use crate::provider::submit::{RequestLine, Translated, Untranslatable};
use crate::provider::tools::{self, Choice};
use serde_json::{Map, Value, json};

const TAKES: Takes = Takes { cache_control: false, thought_signatures: false, file_names: false };

/// Fields that are the same, or have another name: OpenAI's, then Cohere's own.
const SAME: [(&str, &str); 12] = [
    ("temperature", "temperature"),
    ("top_p", "p"),
    ("top_k", "k"),
    ("seed", "seed"),
    ("frequency_penalty", "frequency_penalty"),
    ("presence_penalty", "presence_penalty"),
    ("logprobs", "logprobs"),
    ("p", "p"),
    ("k", "k"),
    ("thinking_budget", "thinking_budget"),
    ("max_input_tokens", "max_input_tokens"),
    ("return_prompt", "return_prompt"),
];

/// What texts are embedded for, where the request does not say.
const USUAL_INPUT_TYPE: &str = "search_document";

/// A line in OpenAI's form as `{"custom_id","body"}`.
pub(super) fn line(line: RequestLine) -> Result<Translated, Untranslatable> {
    let Request { custom_id, url, mut fields } = Request::of(line, "Cohere")?;
    // The batch names it, once.
    fields.take("model");
    let body = if url.ends_with("/chat/completions") {
        chat(&mut fields)?
    } else if url.ends_with("/embeddings") {
        embedding(&mut fields)?
    } else {
        // Cohere's own endpoints: whoever writes for them writes their form.
        fields.take_all()
    };
    let object = Map::from_iter([("custom_id".to_owned(), custom_id), ("body".to_owned(), body.into())]);
    fields.finish(object)
}

fn chat(fields: &mut Fields) -> Result<Map<String, Value>, Untranslatable> {
    let Conversation { system, turns } = conversation::take(fields, TAKES)?;
    let mut messages = Vec::with_capacity(turns.len() + 1);
    if !system.is_empty() {
        messages.push(message("system", parts(system)?));
    }
    // The ids of the last turn's calls, which the results have in the same order.
    let mut ids = Vec::new();
    for (place, turn) in turns.into_iter().enumerate() {
        match turn {
            Turn::User(given) => messages.push(message("user", parts(given)?)),
            Turn::Assistant(given, calls) => {
                ids = call_ids(&calls, place);
                messages.push(assistant(given, calls, &ids)?);
            }
            Turn::Results(results) => {
                for (result, id) in results.into_iter().zip(&ids) {
                    let content = json!([{"type": "text", "text": result.text}]);
                    let role: Value = "tool".into();
                    messages.push(object([
                        ("role", role),
                        ("tool_call_id", id.as_str().into()),
                        ("content", content),
                    ]));
                }
            }
        }
    }
    let mut body = Map::from_iter([("messages".to_owned(), messages.into())]);
    if let Some(most) = fields.take_max_tokens()? {
        body.insert("max_tokens".to_owned(), most.into());
    }
    for (key, name) in SAME {
        fields.rename(key, &mut body, name);
    }
    reasoning(fields, &mut body)?;
    fields.ignore_if("response_format", |format| format["type"] == "text");
    if fields.take("response_format").is_some() {
        return refuse("`response_format` has no counterpart: Cohere's batches hold answers to no form");
    }
    if fields.take_stop().is_some_and(|stop| stop.as_array().is_none_or(|words| !words.is_empty())) {
        return refuse("`stop` has no counterpart: Cohere's batches take no words to stop at");
    }
    add_tools(fields, &mut body)?;
    Ok(body)
}

fn message(role: &str, content: Value) -> Value {
    object([("role", role.into()), ("content", content)])
}

fn parts(given: Vec<Part>) -> Result<Value, Untranslatable> {
    given.into_iter().map(part).collect()
}

fn part(part: Part) -> Result<Value, Untranslatable> {
    let (kind, value) = match part.content {
        Content::Text(text) => ("text", text),
        Content::Image(Address::Url(url)) => ("image_url", url),
        Content::Image(Address::Data { kind, data }) => ("image_url", format!("data:{kind};base64,{data}")),
        Content::Audio { .. } => return refuse("a part of the type `input_audio` has no counterpart"),
        Content::File { .. } => return refuse("a part of the type `file` has no counterpart"),
    };
    Ok(object([("type", kind.into()), (kind, value.into())]))
}

/// The ids of a turn's calls; one that is empty or there twice is replaced.
fn call_ids(calls: &[Call], place: usize) -> Vec<String> {
    let mut ids: Vec<String> = Vec::with_capacity(calls.len());
    for (number, call) in calls.iter().enumerate() {
        let is_fit = !call.id.is_empty() && !ids.contains(&call.id);
        ids.push(if is_fit { call.id.clone() } else { format!("call_{place}_{number}") });
    }
    ids
}

fn assistant(given: Vec<Part>, calls: Vec<Call>, ids: &[String]) -> Result<Value, Untranslatable> {
    let mut made = Map::from_iter([("role".to_owned(), Value::from("assistant"))]);
    if !given.is_empty() {
        made.insert("content".to_owned(), parts(given)?);
    }
    if !calls.is_empty() {
        let calls = calls.into_iter().zip(ids).map(|(call, id)| {
            let arguments = lenient::text(&call.arguments);
            json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
        });
        made.insert("tool_calls".to_owned(), calls.collect());
    }
    Ok(made.into())
}

/// Whether the model thinks before it answers; how much is its own affair unless `thinking_budget` says.
fn reasoning(fields: &mut Fields, body: &mut Map<String, Value>) -> Result<(), Untranslatable> {
    fields.rename("reasoning", body, "reasoning");
    let Some(word) = fields.take_word("reasoning_effort")?.filter(|word| word != "auto") else {
        return Ok(());
    };
    let thinks = effort::is_amount(&word);
    if !thinks && word != "none" {
        return refuse(format!("the `reasoning_effort` `{word}` has no counterpart"));
    }
    if thinks {
        fields.drop_note(
            "`reasoning_effort` only lets the model think; how much, `thinking_budget` says (tokens)"
                .to_owned(),
        );
    }
    body.insert("reasoning".to_owned(), thinks.into());
    Ok(())
}

fn add_tools(fields: &mut Fields, body: &mut Map<String, Value>) -> Result<(), Untranslatable> {
    let tools = tools::take(fields, TAKES)?;
    if tools.functions.is_empty() {
        return Ok(());
    }
    match tools.choice {
        None | Some(Choice::Auto) => {}
        Some(_) => return refuse("`tool_choice` has no counterpart but `auto` in Cohere's batches"),
    }
    if tools.parallel == Some(false) {
        fields.drop_note("`parallel_tool_calls` has no counterpart at Cohere and was left out".to_owned());
    }
    if tools.functions.iter().any(|function| function.strict) {
        fields
            .drop_note("the `strict` of a function has no counterpart at Cohere and was left out".to_owned());
    }
    let functions = tools.functions.into_iter().map(|function| {
        let mut made = Map::from_iter([("name".to_owned(), Value::from(function.name))]);
        made.extend(function.description.map(|text| ("description".to_owned(), text.into())));
        // A dataset has it as a text.
        let schema = function.parameters.unwrap_or_else(|| json!({"type": "object", "properties": {}}));
        made.insert("parameters".to_owned(), lenient::text(&schema).into());
        json!({"type": "function", "function": made})
    });
    body.insert("tools".to_owned(), functions.collect());
    Ok(())
}

fn embedding(fields: &mut Fields) -> Result<Map<String, Value>, Untranslatable> {
    let texts = match fields.take("input") {
        Some(Value::String(text)) => vec![Value::String(text)],
        Some(Value::Array(items)) if !items.is_empty() && items.iter().all(Value::is_string) => items,
        _ => return refuse("its `input` is neither a text nor a list of texts"),
    };
    if fields.take("dimensions").is_some() {
        return refuse("`dimensions` has no counterpart: Cohere's batches embed in the model's own size");
    }
    if let Some(format) = fields.take("encoding_format")
        && format != "float"
    {
        fields.drop_note("the `encoding_format` is always `float` in Cohere's batches".to_owned());
    }
    let inputs = texts.into_iter().map(|text| json!({"content": [{"type": "text", "text": text}]}));
    let mut body = Map::from_iter([("inputs".to_owned(), inputs.collect())]);
    let input_type = fields.take_word("input_type")?.unwrap_or_else(|| {
        fields.drop_note(format!(
            "texts are embedded as `{USUAL_INPUT_TYPE}`; `input_type` in the `body` says otherwise"
        ));
        USUAL_INPUT_TYPE.to_owned()
    });
    body.insert("input_type".to_owned(), input_type.into());
    let types = fields.take("embedding_types").unwrap_or_else(|| json!(["float"]));
    body.insert("embedding_types".to_owned(), types);
    fields.rename("truncate", &mut body, "truncate");
    Ok(body)
}
