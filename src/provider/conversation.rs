//! The messages of a chat completion, read once for every translation: each of their keys is taken, or told of.

use super::fields::{Address, Fields, address, refuse};
use super::submit::Untranslatable;
use serde_json::{Map, Value};

/// What a service takes of the keys that not everybody has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Takes {
    /// `cache_control` of messages, parts and tools.
    pub cache_control: bool,
    /// `extra_content.google.thought_signature` of messages and tool calls.
    pub thought_signatures: bool,
    /// The `filename` of a file.
    pub file_names: bool,
}

/// The messages of a request.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// What `system` and `developer` say; texts only.
    pub system: Vec<Part>,
    /// Everything else, in its order. There is a user's turn or a function's result among them.
    pub turns: Vec<Turn>,
}

/// One message, or the results of all calls of one message.
#[derive(Debug)]
pub(super) enum Turn {
    /// Not empty.
    User(Vec<Part>),
    /// Parts that are texts, and calls; not both empty.
    Assistant(Vec<Part>, Vec<Call>),
    /// A result for each call of the turn before, in the order of the calls.
    Results(Vec<CallResult>),
}

/// A part of a message.
#[derive(Debug)]
pub(super) struct Part {
    pub content: Content,
    /// Its `cache_control`.
    pub cache: Option<Value>,
    /// Its thought signature.
    pub signature: Option<Value>,
}

/// What a part of a message is.
#[derive(Debug)]
pub(super) enum Content {
    /// Not blank.
    Text(String),
    /// Inline, or at a URL.
    Image(Address),
    /// In base64.
    Audio {
        /// `wav` or `mp3`.
        format: String,
        /// Its bytes.
        data: String,
    },
    /// In base64.
    File {
        /// Its media type.
        kind: String,
        /// Its bytes.
        data: String,
        /// Its name, where the service takes one.
        name: Option<String>,
    },
}

/// A call of a function.
#[derive(Debug)]
pub(super) struct Call {
    /// What its result names; may be empty.
    pub id: String,
    /// The function.
    pub name: String,
    /// An object.
    pub arguments: Value,
    /// Its `cache_control`.
    pub cache: Option<Value>,
    /// Its thought signature.
    pub signature: Option<Value>,
}

/// What a call of a function gave.
#[derive(Debug)]
pub(super) struct CallResult {
    /// The call's id.
    pub id: String,
    /// The function.
    pub name: String,
    /// May be empty.
    pub text: String,
    /// Its `cache_control`.
    pub cache: Option<Value>,
}

/// A call whose result is still to come, or has come.
struct OpenCall {
    id: String,
    name: String,
    result: Option<CallResult>,
}

/// Takes the messages of a request.
pub(super) fn take(fields: &mut Fields, takes: Takes) -> Result<Conversation, Untranslatable> {
    let Some(given) = fields.take_list("messages")? else { return refuse("it has no `messages`") };
    let mut reader =
        Reader { fields, takes, read: Conversation::default(), open: Vec::new(), system_role: String::new() };
    for message in given {
        let Value::Object(message) = message else { return refuse("a message is no object") };
        reader.message(message)?;
    }
    reader.finish()
}

impl Content {
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

struct Reader<'f> {
    fields: &'f mut Fields,
    takes: Takes,
    read: Conversation,
    /// The calls of the last turn.
    open: Vec<OpenCall>,
    /// The role whose words are in `read.system`.
    system_role: String,
}

impl Reader<'_> {
    fn message(&mut self, mut message: Map<String, Value>) -> Result<(), Untranslatable> {
        let content = message.shift_remove("content").unwrap_or_default();
        let Some(Value::String(role)) = message.shift_remove("role") else {
            return refuse("a message has no `role`");
        };
        if role != "tool" {
            self.close_calls()?;
        }
        let cache = self.cache(&mut message);
        match role.as_str() {
            "system" | "developer" => {
                if !self.read.turns.is_empty() {
                    self.fields.drop_note(format!(
                        "a `{role}` message inside the conversation was moved to its beginning"
                    ));
                }
                let parts = self.parts(content, &role, cache)?;
                self.read.system.extend(parts);
                self.system_role = role;
            }
            "user" => {
                let parts = self.parts(content, &role, cache)?;
                if parts.is_empty() {
                    self.fields.drop_note("an empty message was left out".to_owned());
                } else {
                    self.read.turns.push(Turn::User(parts));
                }
            }
            "assistant" => self.assistant(&mut message, content, cache)?,
            "tool" => self.result(&mut message, content, cache)?,
            "function" => {
                return refuse("a message of the role `function` has no counterpart; `tool` has");
            }
            other => return refuse(format!("a message of the role `{other}` has no counterpart")),
        }
        self.fields.note_rest("a message", &message);
        Ok(())
    }

    fn assistant(
        &mut self,
        message: &mut Map<String, Value>,
        mut content: Value,
        cache: Option<Value>,
    ) -> Result<(), Untranslatable> {
        for key in ["function_call", "audio"] {
            if message.get(key).is_some_and(|value| !value.is_null()) {
                return refuse(format!("the `{key}` of an assistant's message has no counterpart"));
            }
        }
        if content.is_null() {
            content = message.shift_remove("refusal").unwrap_or_default();
        }
        let mut parts = self.parts(content, "assistant", None)?;
        let calls = match message.shift_remove("tool_calls").unwrap_or_default() {
            Value::Null => Vec::new(),
            Value::Array(calls) => calls,
            _ => return refuse("the `tool_calls` of a message are no list"),
        };
        let mut calls = calls.into_iter().map(|call| self.call(call)).collect::<Result<Vec<_>, _>>()?;
        // The message's own marks belong to its text, or to its first call; a mark of what is cached, to its end.
        if let Some(signature) = self.signature(message, "a message") {
            match (parts.last_mut(), calls.first_mut()) {
                (Some(part), _) => part.signature = Some(signature),
                (None, Some(call)) => call.signature = Some(signature),
                (None, None) => {}
            }
        }
        if let Some(cache) = cache {
            match (calls.last_mut(), parts.last_mut()) {
                (Some(call), _) => call.cache = Some(cache),
                (None, Some(part)) => part.cache = Some(cache),
                (None, None) => {}
            }
        }
        if parts.is_empty() && calls.is_empty() {
            self.fields.drop_note("an empty message was left out".to_owned());
            return Ok(());
        }
        self.open = calls
            .iter()
            .map(|call| OpenCall { id: call.id.clone(), name: call.name.clone(), result: None })
            .collect();
        self.read.turns.push(Turn::Assistant(parts, calls));
        Ok(())
    }

    fn call(&mut self, call: Value) -> Result<Call, Untranslatable> {
        let Value::Object(mut call) = call else { return refuse("a tool call is no object") };
        let kind = call.shift_remove("type").unwrap_or_default();
        if !kind.is_null() && kind != "function" {
            return refuse(format!("a tool call of the type `{}` has no counterpart", word(&kind)));
        }
        let id = text(call.shift_remove("id"));
        let Some(Value::Object(mut function)) = call.shift_remove("function") else {
            return refuse("a tool call is of no function");
        };
        let name = text(function.shift_remove("name"));
        if name.is_empty() {
            return refuse("a tool call is of no function");
        }
        let arguments = arguments(&name, function.shift_remove("arguments").unwrap_or_default())?;
        let cache = self.cache(&mut call);
        let signature = self.signature(&mut call, "a tool call");
        self.fields.note_rest("a tool call", &call);
        self.fields.note_rest("the function of a tool call", &function);
        Ok(Call { id, name, arguments, cache, signature })
    }

    fn result(
        &mut self,
        message: &mut Map<String, Value>,
        content: Value,
        mut cache: Option<Value>,
    ) -> Result<(), Untranslatable> {
        let Some(Value::String(id)) = message.shift_remove("tool_call_id") else {
            return refuse("a message of the role `tool` has no `tool_call_id`");
        };
        // The call tells the function's name too.
        message.shift_remove("name");
        let Some(place) = self.open.iter().position(|call| call.id == id && call.result.is_none()) else {
            return refuse(
                "a message of the role `tool` answers no call of the message before, or one that has its answer",
            );
        };
        let mut texts = Vec::new();
        for part in self.parts(content, "tool", None)? {
            cache = cache.or(part.cache);
            texts.extend(part.content.text().map(str::to_owned));
        }
        let open = &mut self.open[place];
        open.result = Some(CallResult { id, name: open.name.clone(), text: texts.join("\n"), cache });
        Ok(())
    }

    /// The next message is no result: all results must be there.
    fn close_calls(&mut self) -> Result<(), Untranslatable> {
        let mut results = Vec::with_capacity(self.open.len());
        for call in self.open.drain(..) {
            match call.result {
                Some(result) => results.push(result),
                None => return refuse(format!("the call of `{}` has no answer", call.name)),
            }
        }
        if !results.is_empty() {
            self.read.turns.push(Turn::Results(results));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Conversation, Untranslatable> {
        self.close_calls()?;
        let mut read = self.read;
        if read.turns.is_empty() && !read.system.is_empty() {
            self.fields.drop_note(format!(
                "a request with nothing but a `{}` message was sent as the user's",
                self.system_role
            ));
            read.turns.push(Turn::User(std::mem::take(&mut read.system)));
        }
        if !read.turns.iter().any(|turn| matches!(turn, Turn::User(_) | Turn::Results(_))) {
            return refuse("it has no message of the role `user` that says anything");
        }
        Ok(read)
    }

    /// The parts of a message's content but for blank texts, the last of them with the message's own mark.
    fn parts(
        &mut self,
        content: Value,
        role: &str,
        cache: Option<Value>,
    ) -> Result<Vec<Part>, Untranslatable> {
        let mut parts = Vec::new();
        match content {
            Value::Null => {}
            Value::String(text) => parts.push(Part::of(Content::Text(text))),
            Value::Array(given) => {
                parts.reserve(given.len());
                for part in given {
                    let Value::Object(part) = part else { return refuse("a part of a message is no object") };
                    parts.push(self.part(part, role)?);
                }
            }
            _ => {
                return refuse(format!(
                    "the `content` of a message of the role `{role}` is neither text nor parts"
                ));
            }
        }
        // No service but OpenAI takes them.
        parts.retain(|part| part.content.text().is_none_or(|text| !text.trim().is_empty()));
        if let (Some(last), true) = (parts.last_mut(), cache.is_some()) {
            last.cache = cache;
        }
        Ok(parts)
    }

    fn part(&mut self, mut part: Map<String, Value>, role: &str) -> Result<Part, Untranslatable> {
        let kind = part.shift_remove("type").unwrap_or_default();
        let kind = kind.as_str().unwrap_or(if kind.is_null() { "text" } else { "?" });
        let content = match (kind, role) {
            ("text", _) => match part.shift_remove("text") {
                Some(Value::String(text)) => Content::Text(text),
                _ => return refuse("a part of the type `text` has no `text`"),
            },
            ("refusal", "assistant") => Content::Text(text(part.shift_remove("refusal"))),
            ("image_url", "user") => Content::Image(self.image(part.shift_remove("image_url"))?),
            ("input_audio", "user") => self.audio(part.shift_remove("input_audio"))?,
            ("file", "user") => self.file(part.shift_remove("file"))?,
            (kind, "user") => return refuse(format!("a part of the type `{kind}` has no counterpart")),
            (kind, role) => {
                return refuse(format!(
                    "a message of the role `{role}` has a part of the type `{kind}`, which is no text"
                ));
            }
        };
        let cache = self.cache(&mut part);
        let signature =
            if role == "assistant" { self.signature(&mut part, "a part of a message") } else { None };
        self.fields.note_rest("a part of a message", &part);
        Ok(Part { content, cache, signature })
    }

    fn image(&mut self, image: Option<Value>) -> Result<Address, Untranslatable> {
        let mut image = match image {
            Some(Value::Object(image)) => image,
            Some(Value::String(url)) => return address(url),
            _ => Map::new(),
        };
        let Some(Value::String(url)) = image.shift_remove("url") else {
            return refuse("an `image_url` part has no `url`");
        };
        if image.get("detail").is_some_and(|detail| detail == "auto") {
            image.shift_remove("detail");
        }
        self.fields.note_rest("an image", &image);
        address(url)
    }

    fn audio(&mut self, audio: Option<Value>) -> Result<Content, Untranslatable> {
        let Some(Value::Object(mut audio)) = audio else {
            return refuse("an `input_audio` part lacks its `data` or `format`");
        };
        let (data, format) = (text(audio.shift_remove("data")), text(audio.shift_remove("format")));
        if data.is_empty() || format.is_empty() {
            return refuse("an `input_audio` part lacks its `data` or `format`");
        }
        self.fields.note_rest("an `input_audio` part", &audio);
        Ok(Content::Audio { format, data })
    }

    fn file(&mut self, file: Option<Value>) -> Result<Content, Untranslatable> {
        if let Some(Value::Object(mut file)) = file
            && let Some(Value::String(data)) = file.shift_remove("file_data")
            && let Address::Data { kind, data } = address(data)?
        {
            let name = if self.takes.file_names { file.shift_remove("filename") } else { None };
            self.fields.note_rest("a file", &file);
            return Ok(Content::File {
                kind,
                data,
                name: name.and_then(|name| name.as_str().map(str::to_owned)),
            });
        }
        refuse(
            "a `file` that is not given by its data (`file_data` as `data:TYPE;base64,DATA`) belongs to OpenAI alone",
        )
    }

    fn cache(&self, object: &mut Map<String, Value>) -> Option<Value> {
        if !self.takes.cache_control {
            return None;
        }
        object.shift_remove("cache_control").filter(|mark| !mark.is_null())
    }

    /// The thought signature in `extra_content`, as Google's own interface in OpenAI's form writes it.
    fn signature(&mut self, object: &mut Map<String, Value>, what: &str) -> Option<Value> {
        if !self.takes.thought_signatures {
            return None;
        }
        let extra = object.get_mut("extra_content")?.as_object_mut()?;
        let google = extra.get_mut("google")?.as_object_mut()?;
        let signature = google.shift_remove("thought_signature").filter(Value::is_string)?;
        self.fields.note_rest(&format!("the `extra_content` of {what}"), google);
        extra.shift_remove("google");
        Some(signature)
    }
}

impl Part {
    fn of(content: Content) -> Self {
        Self { content, cache: None, signature: None }
    }
}

/// The arguments of a call, which OpenAI writes as a text.
fn arguments(name: &str, arguments: Value) -> Result<Value, Untranslatable> {
    match arguments {
        Value::String(text) if text.trim().is_empty() => Ok(Value::Object(Map::new())),
        Value::String(text) => serde_json::from_str(&text).ok().filter(Value::is_object).ok_or_else(|| {
            Untranslatable(format!("the arguments of the call of `{name}` are no JSON object"))
        }),
        object @ Value::Object(_) => Ok(object),
        _ => refuse(format!("the call of `{name}` has no arguments")),
    }
}

fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::String(text)) => text,
        _ => String::new(),
    }
}

/// A value that should be a word, for a message.
fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
