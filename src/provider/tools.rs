//! The functions that a chat completion may call, read once for every translation: each key is taken, or told of.

use super::conversation::Takes;
use super::fields::{Fields, refuse};
use super::submit::Untranslatable;
use serde_json::{Map, Value};

/// The functions, and which of them is to be called.
#[derive(Debug)]
pub(super) struct Tools {
    /// May be empty.
    pub functions: Vec<Function>,
    /// What `tool_choice` says; `None` without functions.
    pub choice: Option<Choice>,
    /// What `parallel_tool_calls` says; `None` without functions.
    pub parallel: Option<bool>,
}

/// A function that may be called.
#[derive(Debug)]
pub(super) struct Function {
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// The schema of its arguments, an object.
    pub parameters: Option<Value>,
    /// Whether its arguments must keep to the schema.
    pub strict: bool,
    /// Its `cache_control`.
    pub cache: Option<Value>,
}

/// Whether functions are to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// As the model decides.
    Auto,
    /// None.
    No,
    /// At least one.
    Any,
    /// This one.
    One(String),
}

impl Choice {
    /// Whether the model must call a function.
    pub fn is_forced(&self) -> bool {
        matches!(self, Self::Any | Self::One(_))
    }
}

/// Takes `tools`, `tool_choice` and `parallel_tool_calls`.
pub(super) fn take(fields: &mut Fields, takes: Takes) -> Result<Tools, Untranslatable> {
    let given = fields.take_list("tools")?.unwrap_or_default();
    let choice = fields.take("tool_choice");
    let parallel = fields.take("parallel_tool_calls");
    if given.is_empty() {
        for (key, value) in [("tool_choice", &choice), ("parallel_tool_calls", &parallel)] {
            if value.is_some() {
                fields.drop_note(format!("`{key}` was left out, as there are no `tools`"));
            }
        }
        return Ok(Tools { functions: Vec::new(), choice: None, parallel: None });
    }
    let functions =
        given.into_iter().map(|tool| function(fields, takes, tool)).collect::<Result<Vec<_>, _>>()?;
    let choice = choice.map(|choice| chosen(fields, choice)).transpose()?;
    let parallel = match parallel {
        None => None,
        Some(Value::Bool(parallel)) => Some(parallel),
        Some(_) => return refuse("`parallel_tool_calls` is neither true nor false"),
    };
    Ok(Tools { functions, choice, parallel })
}

fn function(fields: &mut Fields, takes: Takes, tool: Value) -> Result<Function, Untranslatable> {
    let Value::Object(mut tool) = tool else { return refuse("a tool is no object") };
    let kind = tool.shift_remove("type").unwrap_or_default();
    let kind = kind.as_str().unwrap_or(if kind.is_null() { "function" } else { "?" });
    if kind != "function" {
        return refuse(format!("a tool of the type `{kind}` has no counterpart"));
    }
    let Some(Value::Object(mut function)) = tool.shift_remove("function") else {
        return refuse("a tool has no `function`");
    };
    let Some(Value::String(name)) = function.shift_remove("name") else {
        return refuse("a tool's function has no `name`");
    };
    let description = match function.shift_remove("description").unwrap_or_default() {
        Value::Null => None,
        Value::String(text) => Some(text).filter(|text| !text.is_empty()),
        _ => return refuse(format!("the `description` of the function `{name}` is no text")),
    };
    let parameters = match function.shift_remove("parameters").unwrap_or_default() {
        Value::Null => None,
        schema @ Value::Object(_) => Some(schema),
        _ => return refuse(format!("the `parameters` of the function `{name}` are no schema")),
    };
    let strict = function.shift_remove("strict").unwrap_or_default() == true;
    let cache = if takes.cache_control {
        tool.shift_remove("cache_control").or_else(|| function.shift_remove("cache_control"))
    } else {
        None
    };
    fields.note_rest("a tool", &tool);
    fields.note_rest("a tool's function", &function);
    Ok(Function { name, description, parameters, strict, cache: cache.filter(|mark| !mark.is_null()) })
}

fn chosen(fields: &mut Fields, choice: Value) -> Result<Choice, Untranslatable> {
    let mut choice = match choice {
        Value::String(word) => {
            return match word.as_str() {
                "auto" => Ok(Choice::Auto),
                "none" => Ok(Choice::No),
                "required" => Ok(Choice::Any),
                _ => refuse(format!("the `tool_choice` `{word}` has no counterpart")),
            };
        }
        Value::Object(choice) => choice,
        _ => return refuse("its `tool_choice` has no counterpart"),
    };
    let kind = choice.shift_remove("type").unwrap_or_default();
    let mut function = match choice.shift_remove("function") {
        Some(Value::Object(function)) if kind == "function" => function,
        _ => {
            let kind = kind.as_str().unwrap_or("?");
            return refuse(format!("a `tool_choice` of the type `{kind}` has no counterpart"));
        }
    };
    let Some(Value::String(name)) = function.shift_remove("name") else {
        return refuse("its `tool_choice` names no function");
    };
    let rest: Map<String, Value> = choice.into_iter().chain(function).collect();
    fields.note_rest("`tool_choice`", &rest);
    Ok(Choice::One(name))
}
