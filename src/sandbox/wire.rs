//! What the handlers of every vendor read from a request and write into an answer.

use super::Sandbox;
use super::fields::FieldMask;
use super::refusal::Refusal;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderName, header};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::convert::Infallible;

pub type Answer = Result<Response, Refusal>;

/// The parameters after the question mark, in order.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    pub fn read(query: &str) -> Self {
        let decode =
            |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        Self(
            query
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The first value of `name` that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(found, value)| *found == name && !value.is_empty()).map(|(_, value)| value)
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(found, _)| *found == name).map(|(_, value)| value)
    }

    /// The number `name`, `default` if it is not there.
    ///
    /// # Errors
    ///
    /// It is no number from `least` to `most`.
    pub fn number(&self, name: &str, default: usize, least: usize, most: usize) -> Result<usize, Refusal> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(|| {
            Refusal::wrong(name, format!("`{name}` must be a number from {least} to {most}, not `{text}`"))
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::read(parts.uri.query().unwrap_or_default()))
    }
}

/// The address that the caller used, for the absolute ones in answers: `http://127.0.0.1:9399`.
#[derive(Clone, Debug)]
pub struct Base(pub String);

impl<S: Sync> FromRequestParts<S> for Base {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        Ok(Self(format!("http://{}", host.unwrap_or("127.0.0.1"))))
    }
}

/// Reads a JSON body; nothing at all is an empty object.
pub async fn json(sandbox: &Sandbox, body: Body) -> Result<Value, Refusal> {
    let content = sandbox.store().memory.read(body).await?;
    if content.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    serde_json::from_slice(&content).map_err(|error| {
        Refusal::invalid(format!("We could not parse the JSON body of your request: {error}"))
    })
}

/// Where the page of Gemini's that is asked for begins: below this serial.
pub fn page_token(params: &Params) -> Result<u64, Refusal> {
    params.get("pageToken").map_or(Ok(u64::MAX), |token| {
        token.parse().map_err(|_| Refusal::invalid("page_token is not one that a list gave"))
    })
}

/// Gemini's answer with what `fields` asks for.
pub fn masked(params: &Params, value: Value) -> Answer {
    let Some(text) = params.get("fields").or_else(|| params.get("$fields")) else {
        return Ok(answer(&value));
    };
    let mask = FieldMask::read(text)
        .ok_or_else(|| Refusal::invalid(format!("Request contains an invalid argument: fields `{text}`")))?;
    Ok(answer(&mask.pick(value)))
}

/// `value[camel]`, or as the snake case that Google takes too.
pub fn either<'a>(value: &'a Value, camel: &str, snake: &str) -> &'a Value {
    value.get(camel).unwrap_or_else(|| &value[snake])
}

/// A JSON answer.
pub fn answer(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// An answer of JSON lines, or of a file as it was uploaded.
pub fn file(media_type: &'static str, body: Body) -> Response {
    ([(header::CONTENT_TYPE, media_type)], body).into_response()
}

/// A lower-case header name that is known to be good.
pub const fn name(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

/// RFC 3339 with microseconds.
pub fn rfc3339(at: Timestamp) -> String {
    format!("{at:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_as_browsers_and_libraries_write_them() {
        let params = Params::read("status=QUEUED&status=RUNNING&after=&a%5Bb%5D=c+d%26&limit=7");
        assert_eq!(params.all("status").collect::<Vec<_>>(), ["QUEUED", "RUNNING"]);
        assert_eq!((params.get("after"), params.get("a[b]")), (None, Some("c d&")));
        assert_eq!(params.number("limit", 20, 1, 100), Ok(7));
        assert_eq!(params.number("none", 20, 1, 100), Ok(20));
        assert!(params.number("limit", 20, 1, 5).is_err());
        assert!(params.number("status", 20, 1, 5).is_err());
    }

    #[test]
    fn an_instant_on_the_wire() {
        assert_eq!(
            rfc3339(Timestamp::from_millisecond(1_800_000_000_120).unwrap()),
            "2027-01-15T08:00:00.120000Z"
        );
    }
}
