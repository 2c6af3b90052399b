//! Requests to Google's Cloud Storage, for services that keep their input and output there.

use super::Account;
use super::request::{Requests, segment};
use crate::http::call::{Answer, Call, Grant};
use crate::http::failure::Failure;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::Value;

/// Where something is in Cloud Storage: `gs://BUCKET/OBJECT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub bucket: String,
    /// The object's name, or what the names of several begin with; no slash at its beginning or end.
    pub object: String,
}

impl Location {
    /// Reads `gs://BUCKET/OBJECT`.
    pub fn parse(uri: &str) -> Option<Self> {
        let rest = uri.trim().strip_prefix("gs://")?;
        let (bucket, object) = rest.split_once('/').unwrap_or((rest, ""));
        (!bucket.is_empty())
            .then(|| Self { bucket: bucket.to_owned(), object: object.trim_matches('/').to_owned() })
    }

    /// What is below it under `name`.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let object = if self.object.is_empty() { name.to_owned() } else { format!("{}/{name}", self.object) };
        Self { bucket: self.bucket.clone(), object }
    }

    /// As it is written.
    pub fn uri(&self) -> String {
        format!("gs://{}/{}", self.bucket, self.object)
    }
}

/// Cloud Storage, or what stands in its place (<https://cloud.google.com/storage/docs/json_api/v1>).
#[derive(Clone, Debug)]
pub struct CloudStorage {
    requests: Requests,
    bears_token: bool,
}

impl CloudStorage {
    /// With the credentials that `requests` are formed with; `bears_token`: they are in them already.
    pub fn new(account: &Account, requests: &Requests, bears_token: bool) -> Self {
        let address = account.config.options.get("storage_url").map_or(ADDRESS, String::as_str);
        Self { requests: requests.clone().at(address), bears_token }
    }

    pub fn get(&self, at: &Location) -> Result<Call, Failure> {
        let path = format!("/storage/v1/b/{}/o/{}", segment(&at.bucket)?, segment(&at.object)?);
        Ok(self.granted(self.requests.get(&path, &[("alt", "media")])?))
    }

    /// Puts an object there.
    pub fn put(&self, at: &Location) -> Result<Call, Failure> {
        let path = format!("/upload/storage/v1/b/{}/o", segment(&at.bucket)?);
        let query = [("uploadType", "media"), ("name", at.object.as_str())];
        let mut call = self.requests.to(Method::POST, &path, &query)?;
        call.request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
        Ok(self.granted(call))
    }

    /// Asks for the names below `at`.
    pub fn list(&self, at: &Location) -> Result<Call, Failure> {
        let path = format!("/storage/v1/b/{}/o", segment(&at.bucket)?);
        let prefix = format!("{}/", at.object);
        let query = [("prefix", prefix.as_str()), ("fields", "items/name,nextPageToken")];
        Ok(self.granted(self.requests.get(&path, &query)?))
    }

    /// The names in the answer to [`CloudStorage::list`].
    pub fn names(&self, answer: &Answer) -> Result<Vec<String>, Failure> {
        let object = self.requests.object(answer)?;
        if object.get("nextPageToken").is_some_and(Value::is_string) {
            return Err(Failure::Unsupported(
                "the output has more files than one page of a list; fetch them from Cloud Storage yourself"
                    .to_owned(),
            ));
        }
        let items = object.get("items").and_then(Value::as_array);
        let name = |item: &Value| item.get("name").and_then(Value::as_str).map(str::to_owned);
        Ok(items.into_iter().flatten().filter_map(name).collect())
    }

    fn granted(&self, call: Call) -> Call {
        if self.bears_token { call } else { call.granted(Grant::Google) }
    }
}

const ADDRESS: &str = "https://storage.googleapis.com";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_and_written() {
        let at = Location::parse("gs://bucket/a/b/").unwrap();
        assert_eq!((at.bucket.as_str(), at.object.as_str()), ("bucket", "a/b"));
        assert_eq!(at.join("c.jsonl").uri(), "gs://bucket/a/b/c.jsonl");
        assert_eq!(Location::parse("gs://bucket").unwrap().join("c").uri(), "gs://bucket/c");
        for bad in ["", "gs://", "gs:///o", "s3://bucket/o"] {
            assert_eq!(Location::parse(bad), None, "{bad}");
        }
    }
}
