//! The fields of a request in OpenAI's form, taken one by one for a translation: what nobody takes is told by name.

use super::submit::{RequestLine, Translated, Untranslatable};
use serde_json::{Map, Value};

/// A request that is being translated.
#[derive(Debug)]
pub(super) struct Fields {
    object: Map<String, Value>,
    dropped: Vec<String>,
    service: &'static str,
}

/// A request that was taken out of its line.
pub(super) struct Request {
    pub custom_id: Value,
    pub url: String,
    pub fields: Fields,
}

/// What fails a translation.
pub(super) fn refuse<T>(what: impl Into<String>) -> Result<T, Untranslatable> {
    Err(Untranslatable(what.into()))
}

impl Request {
    /// Takes `line` apart; `service` is what its new home is called.
    pub fn of(line: RequestLine, service: &'static str) -> Result<Self, Untranslatable> {
        let mut object = line.object;
        let custom_id = object.remove("custom_id").unwrap_or_default();
        let url = match object.remove("url") {
            Some(Value::String(url)) => url,
            _ => String::new(),
        };
        match object.remove("body") {
            Some(Value::Object(body)) => {
                Ok(Self { custom_id, url, fields: Fields { object: body, dropped: Vec::new(), service } })
            }
            _ => refuse("it has no `body`"),
        }
    }
}

impl Fields {
    /// Takes a field; `null` is as good as nothing.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        // `shift_remove` keeps the others in their order.
        self.object.shift_remove(key).filter(|value| !value.is_null())
    }

    pub fn take_all(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.object)
    }

    /// Takes a field that is a list.
    pub fn take_list(&mut self, key: &str) -> Result<Option<Vec<Value>>, Untranslatable> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => refuse(format!("`{key}` is no list")),
        }
    }

    /// Takes a field to be sent under another name, or the same.
    pub fn rename(&mut self, key: &str, to: &mut Map<String, Value>, name: &str) {
        if let Some(value) = self.take(key) {
            to.insert(name.to_owned(), value);
        }
    }

    /// Takes `stop`, which is one text or several, as a list.
    pub fn take_stop(&mut self) -> Option<Value> {
        self.take("stop").map(|stop| match stop {
            Value::String(_) => Value::Array(vec![stop]),
            other => other,
        })
    }

    /// Takes the bound on the answer's tokens, by its new name or its old one.
    pub fn take_max_tokens(&mut self) -> Option<Value> {
        let old = self.take("max_tokens");
        self.take("max_completion_tokens").or(old)
    }

    /// Leaves a field out if it says what is done anyway.
    pub fn ignore_if(&mut self, key: &str, is_usual: impl Fn(&Value) -> bool) {
        if self.object.get(key).is_some_and(is_usual) {
            self.object.shift_remove(key);
        }
    }

    /// Leaves fields out that change nothing in the answer, and says so.
    pub fn drop_harmless(&mut self, keys: &[&str]) {
        for key in keys {
            if self.take(key).is_some() {
                self.drop_note(format!("`{key}` has no counterpart at {} and was left out", self.service));
            }
        }
    }

    /// Notes something that was left out or changed.
    pub fn drop_note(&mut self, what: String) {
        if !self.dropped.contains(&what) {
            self.dropped.push(what);
        }
    }

    /// The translated line, if nothing was overlooked.
    pub fn finish(mut self, object: Map<String, Value>) -> Result<Translated, Untranslatable> {
        // A batch is answered as a whole, and how it is run and billed is the service's affair.
        self.ignore_if("stream", |value| value == &Value::Bool(false));
        self.ignore_if("store", |value| value == &Value::Bool(false));
        self.ignore_if("logprobs", |value| value == &Value::Bool(false));
        self.ignore_if("n", |value| value == 1);
        self.ignore_if("frequency_penalty", |value| value.as_f64() == Some(0.0));
        self.ignore_if("presence_penalty", |value| value.as_f64() == Some(0.0));
        self.ignore_if("logit_bias", |value| value.as_object().is_some_and(Map::is_empty));
        self.drop_harmless(&HARMLESS);
        self.object.retain(|_, value| !value.is_null());
        match self.object.keys().next() {
            None => Ok(Translated { object, dropped: self.dropped }),
            Some(key) => refuse(format!(
                "`{key}` has no counterpart at {}; leave it out, or write the line in that service's own form",
                self.service
            )),
        }
    }
}

/// Fields that change nothing in the answer.
const HARMLESS: [&str; 10] = [
    "stream",
    "stream_options",
    "store",
    "metadata",
    "service_tier",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "seed",
];

/// The text of a message's content, which may be in parts.
pub(super) fn text_of(content: &Value, role: &str) -> Result<String, Untranslatable> {
    match content {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Ok(String::new()),
        Value::Array(parts) => {
            let mut texts = Vec::with_capacity(parts.len());
            for part in parts {
                match (part["type"].as_str(), part["text"].as_str()) {
                    (Some("text") | None, Some(text)) => texts.push(text),
                    _ => return refuse(format!("a message of the role `{role}` has a part that is no text")),
                }
            }
            Ok(texts.join("\n"))
        }
        _ => refuse(format!("the `content` of a message of the role `{role}` is neither text nor parts")),
    }
}

/// Where an image or a file is.
pub(super) enum Address {
    /// In the request itself.
    Data {
        kind: String,
        /// Its bytes in base64.
        data: String,
    },
    Url(String),
}

/// What an address leads to. It may be most of a request, so nothing of it is copied.
pub(super) fn address(mut url: String) -> Result<Address, Untranslatable> {
    const MARK: &str = ";base64,";
    let Some(rest) = url.strip_prefix("data:") else { return Ok(Address::Url(url)) };
    match rest.find(MARK) {
        Some(at) if at > 0 && rest.len() > at + MARK.len() => {
            let kind = rest[..at].split(';').next().unwrap_or_default().to_owned();
            url.drain(.."data:".len() + at + MARK.len());
            Ok(Address::Data { kind, data: url })
        }
        _ => refuse("a `data:` address is not `data:TYPE;base64,DATA`"),
    }
}

/// The address in an `image_url` part.
pub(super) fn take_image(part: &mut Value) -> Result<Address, Untranslatable> {
    let url = match &mut part["image_url"] {
        Value::Object(image) => image.remove("url"),
        text @ Value::String(_) => Some(text.take()),
        _ => None,
    };
    match url {
        Some(Value::String(url)) => address(url),
        _ => refuse("an `image_url` part has no `url`"),
    }
}

/// The data in a `file` part.
pub(super) fn take_file(part: &mut Value) -> Result<(String, String), Untranslatable> {
    let data = part.pointer_mut("/file/file_data").map(Value::take);
    if let Some(Value::String(data)) = data
        && let Address::Data { kind, data } = address(data)?
    {
        return Ok((kind, data));
    }
    refuse("a file that is not given by its data belongs to OpenAI alone")
}

/// An object of these fields; unlike `json!` it copies none of them.
pub(super) fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// A tool call of an assistant's message: its id, the function's name and its arguments.
pub(super) fn tool_call(call: &Value) -> Result<(&str, &str, Value), Untranslatable> {
    let id = call["id"].as_str().unwrap_or_default();
    let function = &call["function"];
    let (Some(name), None | Some("function")) = (function["name"].as_str(), call["type"].as_str()) else {
        return refuse("a tool call is of no function");
    };
    let arguments = match &function["arguments"] {
        Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
        Value::String(text) => serde_json::from_str(text).ok().filter(Value::is_object).ok_or_else(|| {
            Untranslatable(format!("the arguments of the call of `{name}` are no JSON object"))
        })?,
        object @ Value::Object(_) => object.clone(),
        _ => return refuse(format!("the call of `{name}` has no arguments")),
    };
    Ok((id, name, arguments))
}

/// The function that a tool is.
pub(super) fn function_of(tool: &Value) -> Result<&Map<String, Value>, Untranslatable> {
    match (tool["type"].as_str(), tool["function"].as_object()) {
        (Some("function") | None, Some(function)) if function.get("name").is_some_and(Value::is_string) => {
            Ok(function)
        }
        (kind, _) => refuse(format!("a tool of the type `{}` has no counterpart", kind.unwrap_or("?"))),
    }
}

/// The one function that `tool_choice` names, if it is an object.
pub(super) fn chosen_function(choice: &Value) -> Result<&str, Untranslatable> {
    match (choice["type"].as_str(), choice["function"]["name"].as_str()) {
        (Some("function"), Some(name)) => Ok(name),
        _ => refuse("its `tool_choice` has no counterpart"),
    }
}
