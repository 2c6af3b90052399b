//! The head of a line of requests: what must be known of it without building what is in it.

use super::submit::{FILE_KEY, FILE_METHOD, LineForm};
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use std::borrow::Cow;
use std::fmt;

/// What stands at the top of a line: OpenAI's keys, and those of the service's own form.
#[derive(Debug, Default)]
pub(super) struct Head<'a> {
    pub id: Option<Text<'a>>,
    pub method: Option<Text<'a>>,
    pub url: Option<Text<'a>>,
    pub body: Option<Request<'a>>,
    /// The id in the service's own form.
    pub own_id: Option<Text<'a>>,
    /// The request in the service's own form.
    pub own_body: Option<Request<'a>>,
    /// A key that only another service's lines have.
    foreign: Option<&'static str>,
}

/// A text, or what stands in its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Text<'a> {
    Text(Cow<'a, str>),
    /// Something else, in words.
    Other(&'static str),
}

/// What must be known of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Request<'a> {
    pub is_object: bool,
    model: Option<Text<'a>>,
    /// Which of [`KEYS`] it has, a bit each.
    keys: u16,
}

/// The keys of requests that tell what they are for.
const KEYS: [&str; 13] = [
    "messages",
    "input",
    "prompt",
    "contents",
    "content",
    "inputs",
    "document",
    "instances",
    "conversation",
    "previous_response_id",
    "file",
    "query",
    "documents",
];

/// Whose lines a key at the top belongs to.
const FOREIGN: [(&str, &str); 4] = [
    ("params", "Anthropic's"),
    ("request", "Google's"),
    ("modelInput", "Bedrock's"),
    (
        "contents",
        "no batch's: it is a bare Gemini request, not one in a line with `key` and `request` as Google's",
    ),
];

impl<'a> Head<'a> {
    /// Reads the head of `line`, all of which must be one JSON object.
    pub fn read(line: &'a str, own: &LineForm) -> Result<Self, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_str(line);
        let head = HeadSeed(own).deserialize(&mut reader)?;
        reader.end()?;
        Ok(head)
    }

    /// The address of a request in OpenAI's form, once its method is right.
    pub fn address(&self) -> Result<&str, String> {
        match &self.method {
            Some(Text::Text(method)) if method == "POST" => {}
            Some(Text::Text(method)) => {
                let method: String = method.chars().take(20).collect();
                return Err(format!("has the method `{method}`; every request of a batch is a POST"));
            }
            Some(Text::Other(kind)) => return Err(format!("has a `method` that is {kind}, not \"POST\"")),
            None => return Err("has no `method`; it is \"POST\"".to_owned()),
        }
        match &self.url {
            Some(Text::Text(url)) if url.starts_with('/') && url.len() <= 200 => Ok(url),
            Some(Text::Text(_)) => {
                Err("has a `url` that is no path such as `/v1/chat/completions`".to_owned())
            }
            Some(Text::Other(kind)) => Err(format!("has a `url` that is {kind}, not a path")),
            None => Err("has no `url`; it is the endpoint, such as `/v1/chat/completions`".to_owned()),
        }
    }

    /// Whether it is a request about a file, in the form of services that have such.
    pub fn is_about_a_file(&self, own: &LineForm) -> bool {
        matches!(&self.method, Some(Text::Text(method)) if method == FILE_METHOD)
            && own.tells.iter().any(|(key, _)| *key == FILE_KEY)
    }

    /// What a line is that holds no request in any form that the service takes.
    pub fn no_request(&self, own: &LineForm) -> String {
        if let Some(whose) = self.foreign {
            return format!("is not a request for this provider; its form is {whose}");
        }
        if own.body == "body" {
            "has no `body`; a line is {\"custom_id\", \"method\", \"url\", \"body\"}".to_owned()
        } else {
            format!("has neither `{}` nor, as OpenAI's lines do, `method`, `url` and `body`", own.body)
        }
    }
}

impl Request<'_> {
    /// Whether it has this key, one of [`KEYS`].
    pub fn has(&self, key: &str) -> bool {
        KEYS.iter().position(|known| *known == key).is_some_and(|bit| self.keys & (1 << bit) != 0)
    }

    /// The model that it names.
    ///
    /// # Errors
    ///
    /// What stands there instead of a text.
    pub fn model(&self) -> Result<Option<&str>, &'static str> {
        match &self.model {
            Some(Text::Text(model)) if model.is_empty() => Ok(None),
            Some(Text::Text(model)) => Ok(Some(model)),
            Some(Text::Other("null")) | None => Ok(None),
            Some(Text::Other(kind)) => Err(kind),
        }
    }

    /// Why it cannot be for `endpoint`, where that is sure.
    pub fn misfit(&self, endpoint: &str) -> Option<String> {
        let lacks = |key: &str, others: [(&str, &str); 3]| {
            if self.has(key) {
                return None;
            }
            Some(match others.into_iter().find(|(other, _)| self.has(other)) {
                Some((other, of)) => format!("has `{other}` and no `{key}`, as one for {of}"),
                None => format!("has no `{key}`"),
            })
        };
        let (chat, gemini) = ("/v1/chat/completions", "Gemini");
        if endpoint.ends_with("/chat/completions") {
            lacks(
                "messages",
                [
                    ("input", "/v1/responses or /v1/embeddings"),
                    ("prompt", "/v1/completions"),
                    ("contents", gemini),
                ],
            )
        } else if endpoint.ends_with("/embeddings") {
            if self.has("inputs") {
                None
            } else {
                lacks("input", [("messages", chat), ("prompt", "/v1/completions"), ("content", gemini)])
            }
        } else if endpoint.ends_with("/v1/completions") {
            lacks(
                "prompt",
                [("messages", chat), ("input", "/v1/responses or /v1/embeddings"), ("contents", gemini)],
            )
        } else if endpoint.ends_with("/responses") && self.has("messages") {
            // Everything else may stand for the input.
            lacks("input", [("messages", chat); 3])
        } else {
            None
        }
    }
}

struct HeadSeed<'f>(&'f LineForm);

impl<'de> DeserializeSeed<'de> for HeadSeed<'_> {
    type Value = Head<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Head<'de>, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for HeadSeed<'_> {
    type Value = Head<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head<'de>, A::Error> {
        let own = self.0;
        let mut head = Head::default();
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            let key = key.as_ref();
            match key {
                "custom_id" => fill(&mut head.id, "custom_id", map.next_value()?)?,
                "method" => fill(&mut head.method, "method", map.next_value()?)?,
                "url" => fill(&mut head.url, "url", map.next_value()?)?,
                "body" => fill(&mut head.body, "body", map.next_value()?)?,
                _ if key == own.id => fill(&mut head.own_id, own.id, map.next_value()?)?,
                _ if key == own.body => fill(&mut head.own_body, own.body, map.next_value()?)?,
                _ => {
                    let foreign =
                        FOREIGN.iter().find(|(foreign, _)| *foreign == key).map(|(_, whose)| *whose);
                    head.foreign = head.foreign.or(foreign);
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if own.id == "custom_id" {
            head.own_id.clone_from(&head.id);
        }
        if own.body == "body" {
            head.own_body.clone_from(&head.body);
        }
        Ok(head)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Head<'de>, A::Error> {
        Err(de::Error::custom("is a JSON array, not an object"))
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Head<'de>, E> {
        Err(E::custom("is a text, not a JSON object"))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Head<'de>, E> {
        Err(E::custom("is a truth value, not a JSON object"))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Head<'de>, E> {
        Err(E::custom("is null, not a JSON object"))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Head<'de>, E> {
        Err(E::custom("is a number, not a JSON object"))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Head<'de>, E> {
        self.visit_u64(0)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Head<'de>, E> {
        self.visit_u64(0)
    }
}

/// A key that stands there twice means one thing to one reader and another to the next.
fn fill<T, E: de::Error>(place: &mut Option<T>, key: &str, value: T) -> Result<(), E> {
    if place.replace(value).is_some() {
        return Err(E::custom(format_args!("has the key `{key}` twice")));
    }
    Ok(())
}

/// A key, borrowed where it holds no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        reader.deserialize_str(KeyVisitor)
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_unit<E>(self) -> Result<Text<'de>, E> {
                Ok(Text::Other("null"))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Text<'de>, E> {
                Ok(Text::Other("a truth value"))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Text<'de>, E> {
                Ok(Text::Other("a number"))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Text<'de>, E> {
                Ok(Text::Other("a number"))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Text<'de>, E> {
                Ok(Text::Other("a number"))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Text<'de>, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Text::Other("a list"))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Text::Other("an object"))
            }
        }
        reader.deserialize_any(TextVisitor)
    }
}

impl<'de> Deserialize<'de> for Request<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct RequestVisitor;
        impl<'de> Visitor<'de> for RequestVisitor {
            type Value = Request<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a request")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Request<'de>, A::Error> {
                let mut request = Request { is_object: true, ..Request::default() };
                while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
                    if key == "model" {
                        fill(&mut request.model, "model", map.next_value()?)?;
                        continue;
                    }
                    if let Some(bit) = KEYS.iter().position(|known| *known == key) {
                        request.keys |= 1 << bit;
                    }
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(request)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Request<'de>, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Request::default())
            }
            fn visit_str<E>(self, _: &str) -> Result<Request<'de>, E> {
                Ok(Request::default())
            }
            fn visit_unit<E>(self) -> Result<Request<'de>, E> {
                Ok(Request::default())
            }
            fn visit_bool<E>(self, _: bool) -> Result<Request<'de>, E> {
                Ok(Request::default())
            }
            fn visit_u64<E>(self, _: u64) -> Result<Request<'de>, E> {
                Ok(Request::default())
            }
            fn visit_i64<E>(self, _: i64) -> Result<Request<'de>, E> {
                Ok(Request::default())
            }
            fn visit_f64<E>(self, _: f64) -> Result<Request<'de>, E> {
                Ok(Request::default())
            }
        }
        reader.deserialize_any(RequestVisitor)
    }
}
