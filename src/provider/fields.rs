//! The fields of a request in OpenAI's form, taken one by one for a translation: what nobody takes is told by name.

use super::answer::shorten;
use super::submit::{RequestLine, Translated, Untranslatable};
use serde_json::{Map, Number, Value};

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

    /// Takes a field that is a word.
    pub fn take_word(&mut self, key: &str) -> Result<Option<String>, Untranslatable> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(word)) => Ok(Some(word)),
            Some(_) => refuse(format!("`{key}` is no text")),
        }
    }

    /// Takes a field that is a number.
    pub fn take_number(&mut self, key: &str) -> Result<Option<Number>, Untranslatable> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(number)),
            Some(_) => refuse(format!("`{key}` is no number")),
        }
    }

    /// Takes the bound on the answer's tokens, by its new name or its old one.
    pub fn take_max_tokens(&mut self) -> Result<Option<u64>, Untranslatable> {
        let (old, new) = (self.take("max_tokens"), self.take("max_completion_tokens"));
        if old.is_some() && new.is_some() && old != new {
            self.drop_note("`max_tokens` was left out beside `max_completion_tokens`".to_owned());
        }
        match new.or(old) {
            None => Ok(None),
            Some(value) => match value.as_u64().filter(|most| *most > 0) {
                None => refuse(format!("its bound on tokens, {value}, is no whole number above 0")),
                most => Ok(most),
            },
        }
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

    /// Notes what is left of an object inside the request, `what`, once all that is sent was taken from it.
    pub fn note_rest(&mut self, what: &str, rest: &Map<String, Value>) {
        for (key, _) in rest.iter().filter(|(_, value)| says_something(value)) {
            let key: String = shorten(key).chars().take(60).collect();
            self.drop_note(format!(
                "the `{key}` of {what} has no counterpart at {} and was left out",
                self.service
            ));
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
        self.ignore_if("top_logprobs", |value| value == 0);
        self.ignore_if("verbosity", |value| value == "medium");
        self.ignore_if("modalities", |value| {
            value.as_array().is_some_and(|all| all.iter().all(|one| one == "text"))
        });
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
const HARMLESS: [&str; 12] = [
    "stream",
    "stream_options",
    "store",
    "metadata",
    "service_tier",
    "user",
    "safety_identifier",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "seed",
];

/// Whether a value says anything: an empty one, or a `false`, is as good as none.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

/// Where an image or a file is.
#[derive(Debug)]
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
            let kind = match rest[..at].split(';').next().unwrap_or_default() {
                // Many write it so; no service but OpenAI takes it.
                "image/jpg" => "image/jpeg".to_owned(),
                kind => kind.to_owned(),
            };
            url.drain(.."data:".len() + at + MARK.len());
            Ok(Address::Data { kind, data: url })
        }
        _ => refuse("a `data:` address is not `data:TYPE;base64,DATA`"),
    }
}

/// An object of these fields; unlike `json!` it copies none of them.
pub(super) fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}
