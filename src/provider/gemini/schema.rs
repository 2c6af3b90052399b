//! JSON Schemas as Gemini's own `Schema`, a part of `OpenAPI` 3.0.
//!
//! Gemini takes whole JSON Schemas under other names, but its batches did not hold answers to them
//! (`docs/providers/gemini.md#lines`).

use serde_json::{Map, Value};

/// A schema that was converted.
#[derive(Debug)]
pub(super) struct Converted {
    /// Gemini's form of it.
    pub schema: Value,
    /// Keywords without a counterpart, which bounded some value; without them an answer may break the bound.
    pub left_out: Vec<&'static str>,
}

/// Keywords that are Gemini's too.
const KEPT: [&str; 15] = [
    "title",
    "description",
    "nullable",
    "required",
    "default",
    "example",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "pattern",
    "minProperties",
    "maxProperties",
];

/// Keywords that bound a value and are not Gemini's.
const BOUNDS: [&str; 5] = ["exclusiveMinimum", "exclusiveMaximum", "multipleOf", "uniqueItems", "format"];

/// Keywords that say nothing about the answer, or are taken elsewhere.
const REMARKS: [&str; 9] =
    ["$schema", "$id", "$comment", "$defs", "definitions", "examples", "readOnly", "writeOnly", "deprecated"];

/// The formats that Gemini knows; any other fails the request.
const FORMATS: [&str; 6] = ["date-time", "enum", "float", "double", "int32", "int64"];

/// How many schemas one may hold once its references are written out.
const MOST_SCHEMAS: usize = 2000;

/// `schema` as Gemini's own.
///
/// # Errors
///
/// What in it has no counterpart, as a fragment of a sentence.
pub(super) fn openapi(schema: &Map<String, Value>) -> Result<Converted, String> {
    let mut converter = Converter { root: schema, open: Vec::new(), count: 0, left_out: Vec::new() };
    let made = converter.object(schema)?;
    Ok(Converted { schema: made.into(), left_out: converter.left_out })
}

struct Converter<'s> {
    root: &'s Map<String, Value>,
    /// The references that led here.
    open: Vec<String>,
    count: usize,
    left_out: Vec<&'static str>,
}

impl Converter<'_> {
    fn value(&mut self, schema: &Value) -> Result<Map<String, Value>, String> {
        match schema {
            Value::Object(schema) => self.object(schema),
            _ => Err("it has a schema that is no object".to_owned()),
        }
    }

    fn object(&mut self, schema: &Map<String, Value>) -> Result<Map<String, Value>, String> {
        self.count += 1;
        if self.count > MOST_SCHEMAS {
            return Err("it is too large once its references are written out".to_owned());
        }
        if let Some(reference) = schema.get("$ref") {
            return self.reference(reference, schema);
        }
        let mut made = Map::new();
        for (key, value) in schema {
            self.keyword(&mut made, schema, key, value)?;
        }
        if !made.contains_key("type") && !made.contains_key("anyOf") {
            let kind = match () {
                () if made.contains_key("properties") => "object",
                () if made.contains_key("items") => "array",
                () if made.contains_key("enum") => "string",
                () => return Err("it has a schema without a `type`".to_owned()),
            };
            made.insert("type".to_owned(), kind.into());
        }
        let kind = made.get("type").and_then(Value::as_str).unwrap_or_default();
        let is_empty = made.get("properties").and_then(Value::as_object).is_none_or(Map::is_empty);
        if kind == "object" && is_empty {
            return Err("it has an object without `properties`".to_owned());
        }
        if made.contains_key("enum") && kind != "string" {
            return Err("it has an `enum` of values that are no texts".to_owned());
        }
        Ok(made)
    }

    fn keyword(
        &mut self,
        made: &mut Map<String, Value>,
        schema: &Map<String, Value>,
        key: &str,
        value: &Value,
    ) -> Result<(), String> {
        match key {
            "type" => kind(made, schema, value)?,
            "const" => values(made, std::slice::from_ref(value))?,
            "enum" => values(made, value.as_array().map(Vec::as_slice).unwrap_or_default())?,
            "properties" => {
                let Some(all) = value.as_object() else { return Err(unfit(key)) };
                let all = all
                    .iter()
                    .map(|(name, schema)| Ok((name.clone(), self.value(schema)?.into())))
                    .collect::<Result<Map<_, _>, String>>()?;
                made.insert(key.to_owned(), all.into());
            }
            "items" => {
                made.insert(key.to_owned(), self.value(value)?.into());
            }
            "anyOf" | "oneOf" => self.any_of(made, value)?,
            "allOf" => match value.as_array().map(Vec::as_slice) {
                Some([one]) => merge(made, self.value(one)?),
                _ => return Err(unfit(key)),
            },
            "additionalProperties" => {
                if value.as_object().is_some_and(|schema| !schema.is_empty()) {
                    return Err(unfit(key));
                }
            }
            "format" if value.as_str().is_some_and(|format| FORMATS.contains(&format)) => {
                made.insert(key.to_owned(), value.clone());
            }
            "propertyOrdering" => {
                made.insert(key.to_owned(), value.clone());
            }
            kept if KEPT.contains(&kept) => {
                made.insert(key.to_owned(), value.clone());
            }
            remark if REMARKS.contains(&remark) => {}
            other => match BOUNDS.iter().find(|bound| **bound == other) {
                Some(bound) if !self.left_out.contains(bound) => self.left_out.push(bound),
                Some(_) => {}
                None => return Err(unfit(key)),
            },
        }
        Ok(())
    }

    /// What a reference leads to, and what stands beside the reference.
    fn reference(
        &mut self,
        reference: &Value,
        beside: &Map<String, Value>,
    ) -> Result<Map<String, Value>, String> {
        let reference = reference.as_str().unwrap_or_default();
        if reference == "#" || self.open.iter().any(|open| open == reference) {
            return Err("it is recursive".to_owned());
        }
        let target = reference.strip_prefix("#/").and_then(|path| {
            let mut steps = path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~"));
            let first = steps.next()?;
            steps.try_fold(self.root.get(&first)?, |value, step| value.get(&step))
        });
        let Some(Value::Object(target)) = target else {
            return Err("it has a `$ref` that leads nowhere".to_owned());
        };
        let mut whole = target.clone();
        let beside = beside.iter().filter(|(key, _)| *key != "$ref");
        whole.extend(beside.map(|(key, value)| (key.clone(), value.clone())));
        self.open.push(reference.to_owned());
        let made = self.object(&whole);
        self.open.pop();
        made
    }

    /// Alternatives; `null` among them is Gemini's `nullable`.
    fn any_of(&mut self, made: &mut Map<String, Value>, given: &Value) -> Result<(), String> {
        let Some(given) = given.as_array() else { return Err(unfit("anyOf")) };
        let others: Vec<&Value> = given.iter().filter(|schema| !is_null(schema)).collect();
        if others.len() < given.len() {
            made.insert("nullable".to_owned(), true.into());
        }
        if let [one] = others.as_slice() {
            merge(made, self.value(one)?);
            return Ok(());
        }
        let others = others
            .into_iter()
            .map(|schema| self.value(schema).map(Value::Object))
            .collect::<Result<Vec<_>, _>>()?;
        made.insert("anyOf".to_owned(), others.into());
        Ok(())
    }
}

/// `type`, which JSON Schema allows to be several.
fn kind(made: &mut Map<String, Value>, schema: &Map<String, Value>, given: &Value) -> Result<(), String> {
    let kinds: Vec<&str> = match given {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return Err(unfit("type")),
    };
    let others: Vec<&str> = kinds.iter().copied().filter(|kind| *kind != "null").collect();
    if others.len() < kinds.len() && !others.is_empty() {
        made.insert("nullable".to_owned(), true.into());
    }
    match others.as_slice() {
        [] => drop(made.insert("type".to_owned(), "null".into())),
        [one] => drop(made.insert("type".to_owned(), (*one).into())),
        // Each of several types has keywords of its own, of which Gemini's form could not tell whose they are.
        several
            if schema
                .keys()
                .all(|key| matches!(key.as_str(), "type" | "title" | "description" | "default"))
                && several.iter().all(|kind| !matches!(*kind, "object" | "array")) =>
        {
            let several: Vec<Value> = several
                .iter()
                .map(|kind| Map::from_iter([("type".to_owned(), (*kind).into())]).into())
                .collect();
            made.insert("anyOf".to_owned(), several.into());
        }
        _ => return Err("it has a schema of several types".to_owned()),
    }
    Ok(())
}

/// `enum` or `const`: Gemini's are texts.
fn values(made: &mut Map<String, Value>, given: &[Value]) -> Result<(), String> {
    let texts: Vec<Value> = given.iter().filter(|value| !value.is_null()).cloned().collect();
    if texts.is_empty() || !texts.iter().all(Value::is_string) {
        return Err("it has an `enum` of values that are no texts".to_owned());
    }
    if texts.len() < given.len() {
        made.insert("nullable".to_owned(), true.into());
    }
    made.insert("enum".to_owned(), texts.into());
    Ok(())
}

/// Adds what `other` says; what is said already stands.
fn merge(made: &mut Map<String, Value>, other: Map<String, Value>) {
    for (key, value) in other {
        made.entry(key).or_insert(value);
    }
}

fn is_null(schema: &Value) -> bool {
    schema["type"] == "null" || schema.get("const").is_some_and(Value::is_null)
}

fn unfit(key: &str) -> String {
    let key: String = key.chars().take(60).collect();
    format!("it has `{key}`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn converted(schema: &Value) -> Result<(Value, Vec<&'static str>), String> {
        openapi(schema.as_object().unwrap()).map(|made| (made.schema, made.left_out))
    }

    #[test]
    fn a_strict_schema_of_openai_s_kind_becomes_gemini_s() {
        let (made, left_out) = converted(&json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object", "additionalProperties": false, "required": ["who", "kind", "more"],
            "properties": {
                "who": {"$ref": "#/$defs/person", "description": "the author"},
                "kind": {"const": "book"},
                "lang": {"enum": ["de", "en", null]},
                "note": {"type": ["string", "null"], "format": "email"},
                "more": {"anyOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]},
                "size": {"oneOf": [{"type": "integer", "multipleOf": 2}, {"type": "string", "format": "date-time"}]},
                "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": true},
                "any": {"type": ["string", "number"]},
            },
            "$defs": {"person": {
                "type": "object", "additionalProperties": false,
                "properties": {"name": {"type": "string"}}, "required": ["name"],
            }},
        }))
        .unwrap();
        insta::assert_json_snapshot!(made);
        assert_eq!(left_out, ["format", "multipleOf", "uniqueItems"]);
    }

    #[test]
    fn references_upon_references_have_an_end() {
        let mut defs = Map::new();
        for number in 0..40 {
            let next = json!({"$ref": format!("#/$defs/d{}", number + 1)});
            defs.insert(
                format!("d{number}"),
                json!({"type": "object", "properties": {"a": next, "b": next}}),
            );
        }
        defs.insert("d40".to_owned(), json!({"type": "string"}));
        let schema = json!({"$ref": "#/$defs/d0", "$defs": defs});
        assert_eq!(converted(&schema).unwrap_err(), "it is too large once its references are written out");
    }

    #[test]
    fn what_cannot_be_converted_is_named() {
        let node = json!({"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}});
        for (schema, why) in [
            (json!({"$ref": "#/$defs/node", "$defs": {"node": node}}), "it is recursive"),
            (json!({"type": "object", "properties": {"me": {"$ref": "#"}}}), "it is recursive"),
            (json!({"$ref": "#/$defs/gone"}), "it has a `$ref` that leads nowhere"),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                "it has `additionalProperties`",
            ),
            (json!({"type": "object"}), "it has an object without `properties`"),
            (json!({"enum": [1, 2]}), "it has an `enum` of values that are no texts"),
            (json!({"type": "integer", "enum": ["1"]}), "it has an `enum` of values that are no texts"),
            (json!({"type": "array", "prefixItems": []}), "it has `prefixItems`"),
            (json!({"type": "array", "items": true}), "it has a schema that is no object"),
            (json!({"description": "anything"}), "it has a schema without a `type`"),
            (json!({"type": ["object", "string"]}), "it has a schema of several types"),
            (json!({"allOf": [{"type": "string"}, {"type": "string"}]}), "it has `allOf`"),
        ] {
            assert_eq!(converted(&schema).unwrap_err(), why, "{schema}");
        }
    }
}
