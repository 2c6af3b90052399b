//! Forms the requests to one account: its address, its headers, its limits; no id leaves its path segment.

use super::reading::MAX_ID_BYTES;
use super::{Account, answer};
use crate::http::call::{Answer, BodyLimit, Call};
use crate::http::failure::Failure;
use crate::http::limits;
use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use std::time::Duration;

/// What every request to one account has in common. Its `Debug` shows no key.
#[derive(Clone, Debug)]
pub struct Requests {
    base_url: String,
    /// Ready to be sent, or what is wrong with the configured values.
    headers: Result<HeaderMap, String>,
    /// What the account has besides, for its own address alone.
    own_headers: HeaderMap,
    /// Encoded already, and sent with every request; empty: none.
    query: String,
    timeout: Duration,
}

/// How a service wants its key.
#[derive(Clone, Copy, Debug)]
pub enum Credential {
    /// `Authorization: Bearer KEY`
    Bearer,
    /// The bare key in a header of this name.
    Header(&'static str),
}

impl Requests {
    /// For `account`, whose key goes where `credential` says; `headers` are sent along, with names in lower case.
    pub fn new(account: &Account, credential: Credential, headers: &[(&'static str, &str)]) -> Self {
        Self {
            base_url: account.config.base_url.trim_end_matches('/').to_owned(),
            headers: form_headers(account, credential, headers),
            own_headers: account.headers.clone(),
            query: String::new(),
            timeout: account.config.polling.timeout,
        }
    }

    /// At another address, with the same key, but without the account's further headers: these are for its own address.
    #[must_use]
    pub fn at(mut self, base_url: &str) -> Self {
        self.own_headers.clear();
        base_url.trim_end_matches('/').clone_into(&mut self.base_url);
        self
    }

    /// With `/version` after the base address unless that ends in a version already: both are written.
    #[must_use]
    pub fn versioned(mut self, version: &str) -> Self {
        if self.version().is_none() {
            self.base_url = format!("{}/{version}", self.base_url);
        }
        self
    }

    /// With `path` behind the base address if that is a host alone, as some libraries want it written.
    #[must_use]
    pub fn rooted(mut self, path: &str) -> Self {
        if self.base_url.split_once("://").is_some_and(|(_, rest)| !rest.contains('/')) {
            self.base_url.push_str(path);
        }
        self
    }

    /// With `name=value` in the query of every request.
    #[must_use]
    pub fn with_query(mut self, name: &str, value: &str) -> Self {
        push_pair(&mut self.query, name, value);
        self
    }

    /// The last segment of the base address if it is a version, such as `v1beta`.
    pub fn version(&self) -> Option<&str> {
        let (_, path) = self.base_url.split_once("://")?.1.split_once('/')?;
        let last = path.rsplit('/').next()?;
        let digits = last.strip_prefix('v')?;
        let is_version = digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
        is_version.then_some(last)
    }

    /// Whether the base address is the vendor's own `host`, or a region's host below it.
    pub fn goes_to(&self, host: &str) -> bool {
        let configured = self.base_url.parse::<Uri>().ok();
        let Some(configured) = configured.as_ref().and_then(Uri::host) else { return false };
        let configured = configured.to_ascii_lowercase();
        configured == host || configured.strip_suffix(host).is_some_and(|region| region.ends_with('.'))
    }

    /// Asks for what is at `path`, which begins with a slash and is encoded already, with `query`.
    ///
    /// # Errors
    ///
    /// [`Failure::BadRequest`] for a configuration of which no request can be made.
    pub fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Call, Failure> {
        self.to(Method::GET, path, query)
    }

    /// Sends `body` as JSON to `path`, or nothing.
    pub fn post(&self, path: &str, body: Option<&Value>) -> Result<Call, Failure> {
        let mut call = self.to(Method::POST, path, &[])?;
        if let Some(body) = body {
            *call.request.body_mut() = body.to_string().into();
            let json = HeaderValue::from_static("application/json");
            call.request.headers_mut().insert(http::header::CONTENT_TYPE, json);
        }
        Ok(call)
    }

    /// A request to `path`, which begins with a slash and is encoded already, with `query` and without a body.
    pub fn to(&self, method: Method, path: &str, query: &[(&str, &str)]) -> Result<Call, Failure> {
        let mut encoded = String::new();
        for (name, value) in query {
            push_pair(&mut encoded, name, value);
        }
        self.raw(method, path, Some(encoded.as_str()).filter(|encoded| !encoded.is_empty()))
    }

    /// The same with a query that is encoded already.
    pub fn raw(&self, method: Method, path: &str, query: Option<&str>) -> Result<Call, Failure> {
        let mut url = format!("{}{path}", self.base_url);
        let queries = query.into_iter().chain([self.query.as_str()]).filter(|query| !query.is_empty());
        for (index, query) in queries.enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(query);
        }
        // The address may hold a password, so no text of it goes into the failure.
        let uri: Uri = url.parse().map_err(|_| {
            Failure::BadRequest("`base_url` is not an address; it looks like `https://HOST/PATH`".to_owned())
        })?;
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone().map_err(Failure::BadRequest)?;
        self.add_own_headers(&mut request);
        Ok(Call { request, timeout: self.timeout, body_limit: BodyLimit::Whole(limits::PROVIDER_BODY) })
    }

    /// Adds the account's further headers, which take the place of what the kind itself says under the same names.
    fn add_own_headers(&self, request: &mut Request<Bytes>) {
        for (name, value) in &self.own_headers {
            request.headers_mut().insert(name, value.clone());
        }
    }

    /// Sends `body` as JSON to `path` at the same host, which is not below the base address.
    pub fn post_beside(&self, path: &str, body: &Value) -> Result<Call, Failure> {
        let host = self
            .base_url
            .find("://")
            .and_then(|at| self.base_url[at + 3..].find('/').map(|end| at + 3 + end));
        let beside = Self {
            base_url: self.base_url[..host.unwrap_or(self.base_url.len())].to_owned(),
            ..self.clone()
        };
        beside.post(path, Some(body))
    }

    /// A request to an address that the service gave out, without the key: wherever it leads, that does not go there.
    /// The account's further headers go along only to its own address, where a gateway may ask for them.
    pub fn elsewhere(&self, method: Method, url: &str) -> Result<Call, Failure> {
        let uri: Uri = url.parse().map_err(|_| Failure::Malformed("the address in it is none".to_owned()))?;
        let is_safe = uri.scheme_str() == Some("https");
        if uri.host().is_none() || !is_safe && self.base_url.starts_with("https:") {
            return Err(Failure::Malformed("the address in it is not one of https".to_owned()));
        }
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        if self.is_own(url) {
            self.add_own_headers(&mut request);
        }
        Ok(Call { request, timeout: self.timeout, body_limit: BodyLimit::Whole(limits::PROVIDER_BODY) })
    }

    /// Whether `url` is at the account's own address: the same scheme, host and port.
    fn is_own(&self, url: &str) -> bool {
        let origin =
            |url: &str| url::Url::parse(url).ok().map(|url| url.origin()).filter(url::Origin::is_tuple);
        origin(url).is_some_and(|of| origin(&self.base_url) == Some(of))
    }

    /// What `answer` says if it is no success; see [`answer::refusal`].
    pub fn success(&self, answer: &Answer) -> Result<(), Failure> {
        if answer.status.is_success() { Ok(()) } else { Err(answer::refusal(answer)) }
    }

    /// The object in `answer`; see [`answer::object`].
    pub fn object(&self, answer: &Answer) -> Result<Map<String, Value>, Failure> {
        answer::object(answer)
    }

    /// The list in `answer`; see [`answer::list`].
    pub fn list(&self, answer: &Answer, key: &str) -> Result<(Vec<Value>, Map<String, Value>), Failure> {
        answer::list(answer, key)
    }
}

/// `id` as one segment of a path.
///
/// # Errors
///
/// [`Failure::BadRequest`] for an id that is empty, too long, or a step to another directory, however it is encoded.
pub fn segment(id: &str) -> Result<String, Failure> {
    let bad = |why: &str| Err(Failure::BadRequest(format!("{why}; give the id that the provider shows")));
    match id {
        "" => bad("the id is empty"),
        "." | ".." => bad("the id is a relative path"),
        _ if id.split('/').any(|step| matches!(step, "." | "..")) => bad("the id has a relative path in it"),
        _ if id.contains(|c: char| c == '\\' || c.is_control()) => {
            bad("the id holds a backslash or a control character")
        }
        _ if id.len() > MAX_ID_BYTES => bad("the id is longer than 512 bytes"),
        _ => Ok(utf8_percent_encode(id, SEGMENT).to_string()),
    }
}

fn push_pair(query: &mut String, name: &str, value: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    query.push_str(name);
    query.push('=');
    query.extend(utf8_percent_encode(value, QUERY));
}

fn form_headers(
    account: &Account,
    credential: Credential,
    others: &[(&'static str, &str)],
) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let bearer = account.auth_token.as_ref().map(|token| (token, Credential::Bearer));
    let key = account.api_key.as_ref().map(|key| (key, credential));
    for (key, credential) in bearer.into_iter().chain(key) {
        let key = key.expose_secret().trim();
        let (name, value) = match credential {
            Credential::Bearer => ("authorization", HeaderValue::try_from(format!("Bearer {key}"))),
            Credential::Header(name) => (name, HeaderValue::from_str(key)),
        };
        let mut value = value.map_err(|_| {
            "the API key holds characters that no header may carry; check where it comes from".to_owned()
        })?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
    }
    for (name, value) in others {
        let value = HeaderValue::from_str(value)
            .map_err(|_| format!("the value for `{name}` holds characters that no header may carry"))?;
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(headers)
}

/// Everything that could mean something in a path: only RFC 3986's unreserved characters stay.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// In a query a comma and a slash mean nothing either, and they keep a field mask readable.
const QUERY: &AsciiSet = &SEGMENT.remove(b',').remove(b'/');

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProviderConfig;
    use proptest::prelude::*;
    use secrecy::SecretString;

    fn requests(base_url: &str, key: &str) -> Requests {
        let config = ProviderConfig { name: "work".to_owned(), ..ProviderConfig::bare("openai", base_url) };
        let account = Account::new(&config, Some(SecretString::from(key)));
        Requests::new(&account, Credential::Bearer, &[("x-extra", "1")])
    }

    #[test]
    fn the_key_is_sent_and_never_shown() {
        let requests = requests("http://127.0.0.1/v1", "sk-very-secret");
        let call = requests.get("/batches", &[]).unwrap();
        let value = &call.request.headers()["authorization"];
        assert_eq!(value.as_bytes(), b"Bearer sk-very-secret");
        assert!(value.is_sensitive());
        for shown in [format!("{requests:?}"), format!("{call:?}")] {
            assert!(!shown.contains("very-secret"), "{shown}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_said_without_showing_it() {
        for (requests, what) in [
            (requests("http://127.0.0.1/v1", "sk\nsecret"), "API key"),
            (requests("not an address, secret", "k"), "base_url"),
        ] {
            let told = requests.get("/batches", &[]).unwrap_err().to_string();
            assert!(told.contains(what) && !told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn a_version_is_not_written_twice() {
        let base = |url: &str| requests(url, "k").versioned("v1").base_url;
        assert_eq!(base("https://api.example.com"), "https://api.example.com/v1");
        assert_eq!(base("https://api.example.com/"), "https://api.example.com/v1");
        assert_eq!(base("https://api.example.com/v1"), "https://api.example.com/v1");
        assert_eq!(base("https://api.example.com/v1beta"), "https://api.example.com/v1beta");
        assert_eq!(base("https://api.example.com/vendor"), "https://api.example.com/vendor/v1");
        assert_eq!(base("http://v2"), "http://v2/v1");
    }

    #[test]
    fn the_vendor_is_known_by_its_host() {
        let at = |url: &str| requests(url, "k").goes_to("api.openai.com");
        assert!(at("https://api.openai.com/v1"));
        assert!(at("https://eu.api.openai.com/v1"));
        assert!(!at("https://api.openai.com.example.com/v1"));
        assert!(!at("https://notapi.openai.com/v1"));
        assert!(!at("http://127.0.0.1:9399/v1"));
    }

    #[test]
    fn ids_that_are_none() {
        for id in ["", ".", "..", "../models", "a/../b", "a/.", "a\\b", "a\nb", "a\0", &"x".repeat(513)] {
            assert!(matches!(segment(id), Err(Failure::BadRequest(_))), "{id}");
        }
        assert_eq!(segment(&"x".repeat(512)).unwrap().len(), 512);
        assert_eq!(segment("batch_1").unwrap(), "batch_1");
        assert_eq!(segment("..files/?a#b c%2e.é").unwrap(), "..files%2F%3Fa%23b%20c%252e.%C3%A9");
    }

    proptest! {
        #[test]
        fn no_id_leaves_its_segment(id in "[\\PC./?#%&\\\\ ]{1,40}") {
            if let Ok(encoded) = segment(&id) {
                let call = requests("http://127.0.0.1/v1", "k").get(&format!("/batches/{encoded}"), &[]).unwrap();
                let uri = call.request.uri();
                prop_assert_eq!(uri.query(), None);
                // As the client reads it, which resolves dots, encoded or not.
                let url = url::Url::parse(&uri.to_string()).unwrap();
                let segments: Vec<&str> = url.path_segments().unwrap().collect();
                prop_assert_eq!(segments.len(), 3);
                let decoded = percent_encoding::percent_decode_str(segments[2]).decode_utf8().unwrap();
                prop_assert_eq!(decoded, id);
            }
        }
    }
}
