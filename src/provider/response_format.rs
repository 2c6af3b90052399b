//! The form that a chat completion's answer must have, read once for every translation: each key is taken, or told of.

use super::fields::{Fields, refuse};
use super::submit::Untranslatable;
use serde_json::{Map, Value};

/// What `response_format` asks for.
#[derive(Debug)]
pub(super) enum ResponseFormat {
    /// Anything.
    Text,
    /// Some JSON.
    JsonObject,
    /// JSON of this schema, which has the format's name and description as its own unless it has some already.
    Schema(Map<String, Value>),
}

/// Takes `response_format`.
///
/// `strict` is taken for granted: where a schema can be given at all, the services hold the answer to it.
pub(super) fn take(fields: &mut Fields) -> Result<ResponseFormat, Untranslatable> {
    let mut format = match fields.take("response_format") {
        None => return Ok(ResponseFormat::Text),
        Some(Value::Object(format)) => format,
        Some(_) => return refuse("its `response_format` is no object"),
    };
    let kind = format.shift_remove("type").unwrap_or_default();
    let read = match kind.as_str().unwrap_or("?") {
        "text" => ResponseFormat::Text,
        "json_object" => ResponseFormat::JsonObject,
        "json_schema" => match format.shift_remove("json_schema") {
            Some(Value::Object(given)) => ResponseFormat::Schema(schema(fields, given)?),
            _ => return refuse("its `response_format` has no `json_schema`"),
        },
        kind => return refuse(format!("the `response_format` `{kind}` has no counterpart")),
    };
    fields.note_rest("`response_format`", &format);
    Ok(read)
}

fn schema(fields: &mut Fields, mut given: Map<String, Value>) -> Result<Map<String, Value>, Untranslatable> {
    let Some(Value::Object(mut schema)) = given.shift_remove("schema") else {
        return refuse("its `response_format` has no `schema`");
    };
    given.shift_remove("strict");
    for (key, own) in [("name", "title"), ("description", "description")] {
        if let Some(text) = given.shift_remove(key).filter(Value::is_string) {
            schema.entry(own).or_insert(text);
        }
    }
    fields.note_rest("`json_schema`", &given);
    Ok(schema)
}
