//! Further keys that a user gives to the request that creates a batch, in the provider's own words.

use crate::http::failure::Failure;
use crate::provider::submit::SubmitStep;
use serde_json::{Map, Value};

/// The step with `params` in the request, if it is the one that creates the batch.
///
/// # Errors
///
/// [`Failure::Unsupported`] if that request is no JSON object, or has such a key that cannot be replaced.
pub(super) fn merged(step: SubmitStep, params: &Map<String, Value>) -> Result<SubmitStep, Failure> {
    if params.is_empty() {
        return Ok(step);
    }
    match step {
        SubmitStep::Create(mut call) => {
            let Ok(Value::Object(mut body)) = serde_json::from_slice(call.request.body()) else {
                return Err(no_object());
            };
            merge(&mut body, params);
            *call.request.body_mut() = Value::Object(body).to_string().into();
            Ok(SubmitStep::Create(call))
        }
        SubmitStep::CreateWith(mut upload) => {
            // The input follows what stands before it, so what is new comes first.
            let rest = upload.before.strip_prefix(b"{").ok_or_else(no_object)?;
            let taken = |key: &String| {
                let key = Value::from(key.as_str()).to_string();
                memchr::memmem::find(rest, key.as_bytes()).is_some()
            };
            if let Some(key) = params.keys().find(|key| taken(key)) {
                return Err(Failure::Unsupported(format!(
                    "`{key}` cannot be given to this kind of provider"
                )));
            }
            let mut before = Value::Object(params.clone()).to_string();
            before.pop();
            before.push(',');
            let mut before = before.into_bytes();
            before.extend_from_slice(rest);
            upload.before = before.into();
            Ok(SubmitStep::CreateWith(upload))
        }
        other => Ok(other),
    }
}

/// Objects are merged, everything else is replaced.
fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Value::Object(known)), Value::Object(more)) => merge(known, more),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

fn no_object() -> Failure {
    Failure::Unsupported("this kind of provider is given no further parameters".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::call::{BodyLimit, Call};
    use crate::provider::submit::Upload;
    use bytes::Bytes;
    use serde_json::json;
    use std::time::Duration;

    fn call(body: &'static str) -> Call {
        Call {
            request: http::Request::new(Bytes::from_static(body.as_bytes())),
            timeout: Duration::from_secs(1),
            body_limit: BodyLimit::Whole(1),
        }
    }

    fn params() -> Map<String, Value> {
        let Value::Object(params) = json!({"metadata": {"b": "2"}, "priority": 1}) else { unreachable!() };
        params
    }

    #[test]
    fn what_is_given_is_merged_into_the_creation() {
        let step = SubmitStep::Create(call(r#"{"metadata":{"batchd_id":"bd-1"},"priority":0}"#));
        let Ok(SubmitStep::Create(call)) = merged(step, &params()) else { panic!() };
        let body: Value = serde_json::from_slice(call.request.body()).unwrap();
        assert_eq!(body, json!({"metadata": {"batchd_id": "bd-1", "b": "2"}, "priority": 1}));
    }

    #[test]
    fn where_the_input_is_in_the_creation_it_comes_before_that() {
        let upload = |before: &'static [u8]| {
            let (before, after) = (Bytes::from_static(before), Bytes::from_static(b"]}"));
            SubmitStep::CreateWith(Upload { call: call(""), before, after })
        };
        let Ok(SubmitStep::CreateWith(made)) = merged(upload(b"{\"requests\":["), &params()) else {
            panic!()
        };
        let whole = [&made.before[..], b"1", &made.after[..]].concat();
        let body: Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!(body, json!({"metadata": {"b": "2"}, "priority": 1, "requests": [1]}));
        assert!(merged(upload(b"{\"priority\":0,\"requests\":["), &params()).is_err());
        assert!(merged(upload(b"--form"), &params()).is_err());
    }
}
