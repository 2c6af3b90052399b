//! The four vendors that the sandbox plays, and how it tells which one a request means.

use super::refusal::Refusal;
use http::{HeaderMap, StatusCode, Uri, header};
use serde::Serialize;

/// One simulated service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    /// OpenAI's Batch and Files API.
    OpenAi,
    /// Anthropic's Message Batches.
    Anthropic,
    /// Google's Gemini Developer API.
    Gemini,
    /// Mistral's batch jobs and files.
    Mistral,
}

impl Vendor {
    /// Whose API `uri` belongs to; `None` for the sandbox's own pages. OpenAI and Mistral share `/v1/files`, where
    /// Mistral's SDK is known by its name; Gemini's `/v1` is known by Google's headers.
    pub fn of(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let path = uri.path();
        let under = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['/', ':']));
        if under("/v1beta")
            || under("/upload")
            || under("/download")
            || (under("/v1") && google(uri, headers))
        {
            return Some(Self::Gemini);
        }
        if under("/v1/messages") {
            return Some(Self::Anthropic);
        }
        let mistral = headers
            .get(header::USER_AGENT)
            .and_then(|agent| agent.to_str().ok())
            .is_some_and(|agent| agent.contains("mistral"));
        if under("/v1/batch") || (mistral && under("/v1")) {
            return Some(Self::Mistral);
        }
        under("/v1").then_some(Self::OpenAi)
    }

    /// Whether there is a key at all; any will do. The key is looked at nowhere else.
    pub fn admit(self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let filled = |name: &str| headers.get(name).is_some_and(|value| !value.is_empty());
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .is_some_and(|(scheme, key)| scheme.eq_ignore_ascii_case("bearer") && !key.trim().is_empty());
        let admitted = match self {
            Self::OpenAi | Self::Mistral => bearer,
            Self::Anthropic => bearer || filled("x-api-key"),
            Self::Gemini => bearer || filled("x-goog-api-key") || key_in_query(uri),
        };
        match self {
            _ if admitted => Ok(()),
            Self::OpenAi => Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "You didn't provide an API key. The sandbox takes any, in an Authorization header: Bearer KEY.",
            )
            .coded("invalid_api_key")),
            Self::Anthropic => {
                Err(Refusal::new(StatusCode::UNAUTHORIZED, "x-api-key header is required; the sandbox takes any"))
            }
            Self::Gemini => Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "Method doesn't allow unregistered callers. The sandbox takes any key, in x-goog-api-key.",
            )),
            Self::Mistral => Err(Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized")),
        }
    }
}

fn google(uri: &Uri, headers: &HeaderMap) -> bool {
    headers.contains_key("x-goog-api-key") || headers.contains_key("x-goog-api-client") || key_in_query(uri)
}

fn key_in_query(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| {
        query.split('&').any(|pair| pair.strip_prefix("key=").is_some_and(|key| !key.is_empty()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &'static str, header: Option<(&'static str, &'static str)>) -> Option<Vendor> {
        let headers = header
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<HeaderMap>();
        Vendor::of(&Uri::from_static(path), &headers)
    }

    #[test]
    fn one_address_four_vendors() {
        assert_eq!(of("/v1/batches", None), Some(Vendor::OpenAi));
        assert_eq!(of("/v1/messages/batches", None), Some(Vendor::Anthropic));
        assert_eq!(of("/v1/batch/jobs", None), Some(Vendor::Mistral));
        assert_eq!(of("/v1beta/batches/x", None), Some(Vendor::Gemini));
        assert_eq!(of("/upload/v1beta/files", None), Some(Vendor::Gemini));
        assert_eq!(of("/v1/batches/x", Some(("x-goog-api-key", "k"))), Some(Vendor::Gemini));
        assert_eq!(of("/v1/batches?key=k", None), Some(Vendor::Gemini));
        let agent = ("user-agent", "speakeasy-sdk/python 3.7.0 mistralai");
        assert_eq!(of("/v1/files", Some(agent)), Some(Vendor::Mistral));
        assert_eq!(of("/v1/files", None), Some(Vendor::OpenAi));
        assert_eq!(of("/sandbox/requests", None), None);
        assert_eq!(of("/", None), None);
    }
}
