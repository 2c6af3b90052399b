//! The four vendors that the sandbox plays, and how it tells which one a request means.

use http::{HeaderMap, Uri, header};
use serde::Serialize;

/// One simulated service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    OpenAi,
    /// Anthropic's Message Batches.
    Anthropic,
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
}

fn google(uri: &Uri, headers: &HeaderMap) -> bool {
    headers.contains_key("x-goog-api-key") || headers.contains_key("x-goog-api-client") || key_in_query(uri)
}

/// Whether the query of `uri` holds a key, as Google takes it.
pub fn key_in_query(uri: &Uri) -> bool {
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
