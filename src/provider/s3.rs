//! Requests to S3, for services that keep their input and output there.

use super::Account;
use super::request::segment;
use crate::config::aws_domain;
use crate::http::authorize::S3 as SERVICE;
use crate::http::call::{Answer, BodyLimit, CONTENT_HASH, Call, Grant, UNSIGNED_PAYLOAD};
use crate::http::failure::Failure;
use crate::http::limits;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request};
use percent_encoding::percent_decode_str;
use std::time::Duration;

/// Where something is in S3: `s3://BUCKET/KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub bucket: String,
    /// The object's key, or what the keys of several begin with; no slash at its beginning or end.
    pub key: String,
}

impl Location {
    /// Reads `s3://BUCKET/KEY`.
    pub fn parse(uri: &str) -> Option<Self> {
        let (bucket, key) = uri
            .trim()
            .strip_prefix("s3://")?
            .split_once('/')
            .unwrap_or((uri.trim().strip_prefix("s3://")?, ""));
        (!bucket.is_empty())
            .then(|| Self { bucket: bucket.to_owned(), key: key.trim_matches('/').to_owned() })
    }

    /// What is below it under `name`.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let key = if self.key.is_empty() { name.to_owned() } else { format!("{}/{name}", self.key) };
        Self { bucket: self.bucket.clone(), key }
    }

    /// As it is written.
    pub fn uri(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    /// The last part of the key.
    pub fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }
}

/// S3 in one region, or what stands in its place.
#[derive(Clone, Debug)]
pub struct S3 {
    region: String,
    /// Another address than Amazon's, whose paths begin with the bucket.
    address: Option<String>,
    timeout: Duration,
}

impl S3 {
    /// For `account`, in `region`.
    pub fn new(account: &Account, region: &str) -> Self {
        let address = account.config.options.get("storage_url");
        Self {
            region: region.to_owned(),
            address: address.map(|address| address.trim_end_matches('/').to_owned()),
            timeout: account.config.polling.timeout,
        }
    }

    pub fn get(&self, at: &Location) -> Result<Call, Failure> {
        self.call(Method::GET, at, "")
    }

    /// Puts an object there whose bytes are sent as they are read.
    pub fn put(&self, at: &Location) -> Result<Call, Failure> {
        let mut call = self.call(Method::PUT, at, "")?;
        let headers = call.request.headers_mut();
        headers.insert(CONTENT_HASH, HeaderValue::from_static(UNSIGNED_PAYLOAD));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
        Ok(call)
    }

    /// Asks for the keys below `at`; `from`: where the page before ended.
    pub fn list(&self, at: &Location, from: Option<&str>) -> Result<Call, Failure> {
        // With keys encoded, the answer's XML holds no character that means anything to XML.
        let mut query = format!("?encoding-type=url&list-type=2&prefix={}%2F", segment(&at.key)?);
        if let Some(from) = from {
            query = format!("?continuation-token={}&{}", segment(from)?, &query[1..]);
        }
        let bucket = Location { bucket: at.bucket.clone(), key: String::new() };
        self.call(Method::GET, &bucket, &query)
    }

    fn call(&self, method: Method, at: &Location, query: &str) -> Result<Call, Failure> {
        let bad = || Failure::BadRequest(format!("`{}` cannot be asked for", at.uri()));
        let parts: Result<Vec<String>, Failure> = at
            .key
            .split('/')
            .map(|part| if part.is_empty() { Ok(String::new()) } else { segment(part) })
            .collect();
        let path = parts?.join("/");
        let bucket = segment(&at.bucket)?;
        let region = &self.region;
        let domain = aws_domain(region);
        let url = match &self.address {
            Some(address) => format!("{address}/{bucket}/{path}{query}"),
            // A bucket with a dot in its name has no certificate of its own.
            None if at.bucket.contains('.') => {
                format!("https://s3.{region}.{domain}/{bucket}/{path}{query}")
            }
            None => format!("https://{bucket}.s3.{region}.{domain}/{path}{query}"),
        };
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method;
        *request.uri_mut() = url.parse().map_err(|_| bad())?;
        let call =
            Call { request, timeout: self.timeout, body_limit: BodyLimit::Whole(limits::PROVIDER_BODY) };
        Ok(call.granted(Grant::Aws { service: SERVICE, region: region.clone() }))
    }
}

/// The most keys that S3 lists at once.
const MAX_KEYS: usize = 1000;

/// The keys in the answer to [`S3::list`], and where the next page begins.
pub fn keys(answer: &Answer) -> (Vec<String>, Option<String>) {
    let text = String::from_utf8_lossy(&answer.body);
    let all = |name: &str| {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        text.split(open.as_str())
            .skip(1)
            .take(MAX_KEYS)
            .filter_map(|rest| Some(rest.split_once(close.as_str())?.0.to_owned()))
            .collect::<Vec<String>>()
    };
    let decoded = |key: String| percent_decode_str(&key.replace('+', " ")).decode_utf8_lossy().into_owned();
    let next = all("NextContinuationToken").into_iter().next();
    (all("Key").into_iter().map(decoded).collect(), next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProviderConfig;
    use http::{HeaderMap, StatusCode};
    use std::collections::BTreeMap;

    fn s3(address: Option<&str>) -> S3 {
        let config = ProviderConfig {
            options: address
                .map(|address| ("storage_url".to_owned(), address.to_owned()))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            ..ProviderConfig::bare("bedrock", "")
        };
        S3::new(&Account::new(&config, None), "eu-central-1")
    }

    #[test]
    fn a_location_is_read_and_written() {
        let at = Location::parse("s3://bucket/a/b/").unwrap();
        assert_eq!((at.bucket.as_str(), at.key.as_str(), at.name()), ("bucket", "a/b", "b"));
        assert_eq!(at.join("c.jsonl").uri(), "s3://bucket/a/b/c.jsonl");
        assert_eq!(Location::parse("s3://bucket").unwrap().join("c").uri(), "s3://bucket/c");
        for bad in ["", "s3://", "s3:///key", "gs://bucket/key", "bucket/key"] {
            assert_eq!(Location::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_object_has_its_bucket_s_address() {
        let url =
            |s3: &S3, uri: &str| s3.get(&Location::parse(uri).unwrap()).unwrap().request.uri().to_string();
        assert_eq!(
            url(&s3(None), "s3://bucket/a/b c+.jsonl"),
            "https://bucket.s3.eu-central-1.amazonaws.com/a/b%20c%2B.jsonl"
        );
        assert_eq!(url(&s3(None), "s3://a.bucket/x"), "https://s3.eu-central-1.amazonaws.com/a.bucket/x");
        let local = s3(Some("http://127.0.0.1:4566/"));
        assert_eq!(url(&local, "s3://bucket/x"), "http://127.0.0.1:4566/bucket/x");
        assert!(local.get(&Location::parse("s3://bucket/a/../b").unwrap()).is_err());
        let list = local.list(&Location::parse("s3://bucket/out/ab").unwrap(), Some("t=")).unwrap();
        assert_eq!(
            list.request.uri().to_string(),
            "http://127.0.0.1:4566/bucket/?continuation-token=t%3D&encoding-type=url&list-type=2&prefix=out%2Fab%2F"
        );
    }

    #[test]
    fn keys_are_read_from_a_list() {
        let answer = |body: &'static str| Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: body.into(),
            cut: false,
        };
        let (found, next) = keys(&answer(
            "<ListBucketResult><Contents><Key>out/a%20b.jsonl.out</Key><Size>1</Size></Contents>\
             <Contents><Key>out/c+d%2B.out</Key></Contents><NextContinuationToken>1x=</NextContinuationToken></ListBucketResult>",
        ));
        assert_eq!(found, ["out/a b.jsonl.out", "out/c d+.out"]);
        assert_eq!(next.as_deref(), Some("1x="));
        assert_eq!(keys(&answer("<ListBucketResult/>")), (Vec::new(), None));
    }
}
