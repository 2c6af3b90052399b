//! The query string of a request, read key by key with an error that names the key.

use super::api::TrackItem;
use super::api_error::ApiError;
use super::service::{DeliveryQuery, EventQuery, ListQuery};
use super::submit::SubmitOptions;
use crate::domain::event::EventType;
use crate::engine::results::{Format, Wanted};
use crate::provider::input_checker::Overrides;
use axum::extract::{FromRequestParts, RawQuery};
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::str::FromStr;

/// The pairs of a query string. Unknown keys are ignored: clients of OpenAI's API send some of their own.
pub struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let RawQuery(raw) = RawQuery::from_request_parts(parts, state).await?;
        Ok(Self::parse(raw.as_deref().unwrap_or_default()))
    }
}

impl Query {
    /// The pairs that a client would send.
    pub fn of_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().collect())
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
            overrides: Overrides { endpoint: self.text("endpoint"), model: self.text("model") },
            completion_window: self.text("completion_window"),
            metadata: self.pairs("metadata")?,
            file_name: self.text("file_name"),
            options,
        })
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
        let decode =
            |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        Self(
            raw.split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    // `status[]=x` is how some clients write a list.
                    (decode(key).trim_end_matches("[]").to_owned(), decode(value))
                })
                .collect(),
        )
    }

    fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
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
        let last = self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
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
    fn what_is_wrong_is_named() {
        let query = Query::parse("limit=many&label=x&fetch=maybe");
        assert_eq!(query.number::<u32>("limit").unwrap_err().param.as_deref(), Some("limit"));
        assert_eq!(query.pairs("label").unwrap_err().param.as_deref(), Some("label"));
        assert!(query.flag("fetch").unwrap_err().message.contains("`maybe`"));
    }
}
