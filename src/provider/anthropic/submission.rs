//! Anthropic's way to a batch: one request that holds them all (`docs/providers.md#anthropic`).

use super::Anthropic;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use crate::provider::submit::{Created, Submission, SubmitStep, Upload};
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

/// The one step of a submission, and what its answer says.
#[derive(Debug)]
pub(super) struct OneRequest {
    adapter: Anthropic,
    call: Option<Call>,
}

impl OneRequest {
    /// Begins one; `call` creates a batch and has no body yet.
    pub fn new(adapter: Anthropic, mut call: Call) -> Self {
        call.request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { adapter, call: Some(call) }
    }
}

impl Submission for OneRequest {
    fn next(&mut self, answer: Option<&Answer>) -> Result<SubmitStep, Failure> {
        if let Some(answer) = answer {
            return Created::seen(self.adapter.sighting(&self.adapter.requests.object(answer)?));
        }
        let Some(call) = self.call.take() else {
            return Err(Failure::BadRequest("the batch was asked for already".to_owned()));
        };
        Ok(SubmitStep::CreateWith(Upload {
            call,
            before: Bytes::from_static(br#"{"requests":["#),
            after: Bytes::from_static(b"]}"),
        }))
    }
}
