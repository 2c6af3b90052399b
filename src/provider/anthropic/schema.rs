//! JSON Schemas as Anthropic's structured output takes them.

use crate::provider::fields::{Fields, refuse};
use crate::provider::submit::Untranslatable;
use serde_json::{Map, Value};

/// Keywords that stay as they are.
const KEPT: [&str; 8] = ["type", "enum", "const", "title", "description", "required", "$ref", "format"];

/// Keywords that bound a value. Anthropic refuses them; without them an answer may break the bound.
const BOUNDS: [&str; 14] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "propertyNames",
];

/// Keywords that say nothing about the answer.
const REMARKS: [&str; 10] = [
    "default",
    "$schema",
    "$id",
    "$comment",
    "examples",
    "example",
    "readOnly",
    "writeOnly",
    "deprecated",
    "propertyOrdering",
];

/// The formats of a text that are known.
const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"];

/// `schema` as Anthropic takes it (`anthropic` 2.14, `lib/_parse/_transform.py`, 2026-11-27): objects are closed, and
/// bounds are left out, which is noted.
pub(super) fn closed(
    fields: &mut Fields,
    schema: &Map<String, Value>,
) -> Result<Map<String, Value>, Untranslatable> {
    let mut made = Map::new();
    for (key, value) in schema {
        match key.as_str() {
            "format" if value.as_str().is_none_or(|format| !FORMATS.contains(&format)) => {
                left_out(fields, "format");
            }
            "minItems" if value == 0 || value == 1 => {
                made.insert(key.clone(), value.clone());
            }
            "properties" | "$defs" | "definitions" => {
                let Some(all) = value.as_object() else { return unfit(key) };
                let all = all
                    .iter()
                    .map(|(name, schema)| Ok((name.clone(), inner(fields, key, schema)?)))
                    .collect::<Result<Map<_, _>, Untranslatable>>()?;
                made.insert(key.clone(), all.into());
            }
            "items" => {
                made.insert(key.clone(), inner(fields, key, value)?);
            }
            "anyOf" | "oneOf" | "allOf" => {
                let Some(all) = value.as_array() else { return unfit(key) };
                let all =
                    all.iter().map(|schema| inner(fields, key, schema)).collect::<Result<Vec<_>, _>>()?;
                let key = if key == "allOf" { "allOf" } else { "anyOf" };
                made.insert(key.to_owned(), all.into());
            }
            "additionalProperties" => {
                if value.as_object().is_some_and(|schema| !schema.is_empty()) {
                    return unfit(key);
                }
            }
            known if KEPT.contains(&known) => {
                made.insert(key.clone(), value.clone());
            }
            bound if BOUNDS.contains(&bound) => left_out(fields, bound),
            remark if REMARKS.contains(&remark) => {}
            _ => return unfit(key),
        }
    }
    let is_object = made.get("type").is_some_and(|kind| {
        kind == "object" || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "object"))
    });
    if is_object || made.contains_key("properties") {
        made.insert("additionalProperties".to_owned(), false.into());
    }
    Ok(made)
}

fn inner(fields: &mut Fields, key: &str, schema: &Value) -> Result<Value, Untranslatable> {
    match schema {
        Value::Object(schema) => closed(fields, schema).map(Value::Object),
        _ => unfit(key),
    }
}

fn left_out(fields: &mut Fields, key: &str) {
    fields.drop_note(format!("`{key}` of a schema has no counterpart at Anthropic and was left out"));
}

fn unfit<T>(key: &str) -> Result<T, Untranslatable> {
    let key: String = key.chars().take(60).collect();
    refuse(format!("the `{key}` of its `response_format`'s schema has no counterpart at Anthropic"))
}
