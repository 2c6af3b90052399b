//! The query string of a request, read key by key with an error that names the key.

use super::api::TrackItem;
use super::api_error::ApiError;
use super::service::{DeliveryQuery, EventQuery, ListQuery};
use super::submit::SubmitOptions;
use crate::config::problem::{nearest, quote};
use crate::domain::duration;
use crate::domain::event::EventType;
use crate::engine::results::{Format, Wanted};
use crate::provider::input_checker::Overrides;
use axum::extract::{FromRequestParts, RawQuery};
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::str::FromStr;

/// The names of the query parameters that a route takes.
pub(super) type Parameters = &'static [&'static str];

/// Those of a route that takes none.
pub(super) const NOTHING: Parameters = &[];
/// Those of a list of batches, which [`Query::batches`] reads.
pub(super) const OF_BATCHES: Parameters =
    &["active", "status", "provider", "label", "owner", "model", "search", "since", "after", "limit"];
/// Those of a list of events, which [`Query::events`] reads, and `after`.
pub(super) const OF_EVENTS: Parameters = &["after", "since", "type", "newest", "limit"];
/// Those of a list of deliveries, which [`Query::deliveries`] reads.
pub(super) const OF_DELIVERIES: Parameters = &["state", "webhook", "code", "after", "limit"];
/// Those of a submission, which [`Query::submit`] reads.
pub(super) const OF_SUBMISSIONS: Parameters = &[
    "provider",
    "endpoint",
    "model",
    "completion_window",
    "metadata",
    "file_name",
    "name",
    "label",
    "notify",
    "no_notify",
    "deadline",
    "param",
    "wait",
    "split",
    "output_expires_after",
];
/// Those of a list of files.
pub(super) const OF_FILES: Parameters = &["after", "limit", "order", "purpose"];
/// Those of results, which [`Query::results`] reads, and `provider`.
pub(super) const OF_RESULTS: Parameters = &["format", "errors", "merged", "provider"];

/// The pairs of a query string.
pub struct Query {
    pairs: Vec<(String, String)>,
    /// What the route has declared, where it has: a key that is read and not among them is a defect.
    declared: Option<Parameters>,
}

/// The parameters of the route that a request has come to, beside its other extensions.
#[derive(Clone, Copy)]
pub(super) struct Declared(pub(super) Parameters);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let RawQuery(raw) = RawQuery::from_request_parts(parts, state).await?;
        let declared = parts.extensions.get::<Declared>().map(|Declared(names)| *names);
        Ok(Self { declared, ..Self::parse(raw.as_deref().unwrap_or_default()) })
    }
}

/// Refuses a query string in which a key is none of `parameters`, or one that is not percent-encoded text.
///
/// A misspelt filter that is passed over gives an answer to another question.
pub(super) fn judge(raw: &str, parameters: Parameters) -> Result<(), ApiError> {
    let text = |part: &str| {
        let bytes = part.as_bytes();
        let escaped = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%').all(|(at, _)| {
            bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        });
        escaped && percent_decode_str(part).decode_utf8().is_ok()
    };
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode_key(key);
        if !parameters.contains(&name.as_str()) {
            return Err(unknown(name, parameters));
        }
        if !text(key) || !text(value) {
            return Err(wrong(&name, "the value is not percent-encoded UTF-8 text"));
        }
    }
    Ok(())
}

/// There is no parameter `name` among `parameters`.
fn unknown(name: String, parameters: Parameters) -> ApiError {
    let instead = match (nearest(&name, parameters.iter().copied()), parameters) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, []) => "this route takes none".to_owned(),
        (None, names) => format!("this route takes {}", names.join(", ")),
    };
    ApiError::invalid(format!("there is no query parameter {}; {instead}", quote(&name))).param(name)
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// A key as it is known: `status[]=x` is how some clients write a list.
fn decode_key(key: &str) -> String {
    decode(key).trim_end_matches("[]").to_owned()
}

impl Query {
    /// The pairs that a client would send.
    pub fn of_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { pairs: pairs.into_iter().collect(), declared: None }
    }

    /// As a list of batches is asked for.
    pub fn batches(&self) -> Result<ListQuery, ApiError> {
        Ok(ListQuery {
            active: self.flag("active")?,
            statuses: self.all("status", |word| word.parse().map_err(|error| format!("{error}")))?,
            provider: self.text("provider"),
            labels: self.pairs("label")?,
            owner: self.text("owner"),
            model: self.text("model"),
            search: self.text("search"),
            since: self.text("since"),
            after: self.text("after"),
            limit: self.number("limit")?,
        })
    }

    /// As a list of events is asked for.
    pub fn events(&self) -> Result<EventQuery, ApiError> {
        let read = |pattern: &str| match EventType::matching(pattern) {
            types if types.is_empty() => Err(format!("`{pattern}` is no type of event")),
            types => Ok(types),
        };
        let types = self.all("type", read)?.concat();
        Ok(EventQuery {
            since: self.text("since"),
            types,
            newest: self.number("newest")?,
            limit: self.number("limit")?,
        })
    }

    /// As a list of deliveries is asked for.
    pub fn deliveries(&self) -> Result<DeliveryQuery, ApiError> {
        Ok(DeliveryQuery {
            state: self.text("state"),
            webhook: self.text("webhook"),
            code: self.number("code")?,
            after: self.text("after"),
            limit: self.number("limit")?,
        })
    }

    /// As a file is submitted.
    pub fn submit(&self) -> Result<SubmitOptions, ApiError> {
        let options = TrackItem {
            name: self.text("name"),
            labels: self.pairs("label")?,
            notify: self.all("notify", |name| Ok(name.to_owned()))?.into_iter().collect(),
            no_notify: self.flag("no_notify")?,
            deadline: self.text("deadline"),
            ..TrackItem::default()
        };
        Ok(SubmitOptions {
            provider: self.text("provider"),
            overrides: Overrides {
                endpoint: self.text("endpoint"),
                model: self.text("model"),
                model_prefix: None,
            },
            completion_window: self.text("completion_window"),
            metadata: self.pairs("metadata")?,
            output_expires_after: self.text("output_expires_after").map(|text| expiry(&text)).transpose()?,
            params: self.params()?,
            wait_for_quota: waits_for_quota(self.text("wait").as_deref(), "wait")?,
            split: self.flag("split")?,
            file_name: self.text("file_name"),
            options,
            ..SubmitOptions::default()
        })
    }

    /// Every `param`, each a `KEY=JSON`.
    fn params(&self) -> Result<Map<String, Value>, ApiError> {
        let json = |(key, text): (String, String)| match serde_json::from_str(&text) {
            Ok(value) => Ok((key, value)),
            Err(error) => Err(wrong("param", &format!("the value of `{key}` is not JSON: {error}"))),
        };
        self.pairs("param")?.into_iter().map(json).collect()
    }

    /// Nothing but `parameters` is there, for a handler whose route passes a query on at other providers.
    pub(super) fn only(&self, parameters: Parameters) -> Result<(), ApiError> {
        let other = self.pairs.iter().find(|(key, _)| !parameters.contains(&key.as_str()));
        other.map_or(Ok(()), |(key, _)| Err(unknown(key.clone(), parameters)))
    }

    /// As results are asked for.
    pub fn results(&self) -> Result<(Wanted, Format), ApiError> {
        let format = match self.text("format").as_deref() {
            None | Some("openai") => Format::OpenAi,
            Some("raw") => Format::Raw,
            Some(other) => {
                let message = format!("`{other}` is not a format of results; one of openai, raw");
                return Err(ApiError::invalid(message).param("format"));
            }
        };
        let wanted = if self.flag("errors")? { Wanted::Failures } else { Wanted::Output };
        Ok((wanted, format))
    }

    /// The pairs of a query string as it stands in an address.
    pub fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_key(key), decode(value))
        });
        Self { pairs: pairs.collect(), declared: None }
    }

    /// Holds what is read to what the route has declared.
    fn given(&self, key: &str) {
        debug_assert!(
            self.declared.is_none_or(|names| names.contains(&key)),
            "the route reads the query parameter `{key}` and does not declare it in its table"
        );
    }

    fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.given(key);
        self.pairs
            .iter()
            .filter(move |(name, value)| name == key && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// The last value of `key`; an empty one is none.
    pub fn text(&self, key: &str) -> Option<String> {
        self.values(key).last().map(str::to_owned)
    }

    /// Whether `key` is there and not false.
    pub fn flag(&self, key: &str) -> Result<bool, ApiError> {
        self.given(key);
        let last = self.pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        match last {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => Err(wrong(key, &format!("`{other}` is neither true nor false"))),
        }
    }

    /// The value of `key` as a number.
    pub fn number<T: FromStr>(&self, key: &str) -> Result<Option<T>, ApiError> {
        self.text(key)
            .map(|text| text.parse().map_err(|_| wrong(key, &format!("`{text}` is not a number that fits"))))
            .transpose()
    }

    /// Every value of `key`, each of which may be a list with commas.
    pub fn all<T>(&self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, ApiError> {
        self.values(key)
            .flat_map(|value| value.split(','))
            .map(|word| read(word).map_err(|error| wrong(key, &error)))
            .collect()
    }

    /// Every value of `key`, each a `NAME=VALUE`.
    pub fn pairs(&self, key: &str) -> Result<BTreeMap<String, String>, ApiError> {
        self.values(key)
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
                None => Err(wrong(key, &format!("`{pair}` is not NAME=VALUE"))),
            })
            .collect()
    }
}

/// Whether it is to wait for quota, which is all that it can wait for; `param` is where that stands.
pub(super) fn waits_for_quota(word: Option<&str>, param: &str) -> Result<bool, ApiError> {
    match word {
        None => Ok(false),
        Some(word) if word.trim().eq_ignore_ascii_case("quota") => Ok(true),
        Some(other) => {
            let message = format!("{param}: `{other}` is nothing to wait for; it is `quota`");
            Err(ApiError::invalid(message).param(param))
        }
    }
}

/// A duration in seconds.
fn expiry(text: &str) -> Result<u64, ApiError> {
    let duration =
        duration::parse(text).map_err(|error| wrong("output_expires_after", &error.to_string()))?;
    Ok(duration.as_secs())
}

fn wrong(key: &str, what: &str) -> ApiError {
    ApiError::invalid(format!("{key}: {what}")).param(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_with_their_types() {
        let query =
            Query::parse("status=completed&status=failed,expired&limit=20&label=team%3Devals&fetch&x=%zz+y");
        assert_eq!(
            query.all("status", |word| Ok(word.to_owned())).unwrap(),
            ["completed", "failed", "expired"]
        );
        assert_eq!(query.number::<u32>("limit").unwrap(), Some(20));
        assert_eq!(query.pairs("label").unwrap()["team"], "evals");
        assert!(query.flag("fetch").unwrap());
        assert!(!query.flag("detail").unwrap());
        assert_eq!(query.text("x").as_deref(), Some("%zz y"));
        assert_eq!(query.text("after"), None);
    }

    #[test]
    fn what_a_route_does_not_take_is_refused_with_what_it_does() {
        for fine in
            ["", "&", "limit=20&after=x", "fetch", "status%5B%5D=failed&status[]=expired", "after=a%20b+c%2B"]
        {
            assert!(judge(fine, &["limit", "after", "fetch", "status"]).is_ok(), "{fine}");
        }
        for (raw, param, told) in [
            ("limt=2", "limt", "there is no query parameter `limt`; did you mean `limit`?"),
            (
                "after=x&colour=red",
                "colour",
                "there is no query parameter `colour`; this route takes after, limit",
            ),
            ("Limit=2", "Limit", "did you mean `limit`?"),
            ("=2", "", "there is no query parameter ``"),
            ("limit%00=2", "limit\0", "did you mean `limit`?"),
            ("after=%ff", "after", "after: the value is not percent-encoded UTF-8 text"),
            ("after=100%", "after", "not percent-encoded"),
            ("after=%zz", "after", "not percent-encoded"),
        ] {
            let refusal = judge(raw, &["after", "limit"]).unwrap_err();
            assert_eq!(refusal.param.as_deref(), Some(param), "{raw}");
            assert!(refusal.message.contains(told), "{raw}: {}", refusal.message);
        }
        assert!(judge("x=1", NOTHING).unwrap_err().message.ends_with("this route takes none"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let query = Query::parse("limit=many&label=x&fetch=maybe");
        assert_eq!(query.number::<u32>("limit").unwrap_err().param.as_deref(), Some("limit"));
        assert_eq!(query.pairs("label").unwrap_err().param.as_deref(), Some("label"));
        assert!(query.flag("fetch").unwrap_err().message.contains("`maybe`"));
    }
}
