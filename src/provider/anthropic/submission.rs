//! Anthropic's way to a batch: one request that holds them all (`docs/providers/anthropic.md`).

use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use crate::provider::submit::{ReadCreated, Submission, SubmitStep, Upload};
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

/// The one step of a submission, and what its answer says.
#[derive(Debug)]
pub(super) struct OneRequest {
    call: Option<Call>,
    created: ReadCreated,
}

impl OneRequest {
    /// Begins one; `call` creates a batch and has no body yet.
    pub fn new(mut call: Call, created: ReadCreated) -> Self {
        call.request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { call: Some(call), created }
    }
}

impl Submission for OneRequest {
    fn next(&mut self, answer: Option<&Answer>) -> Result<SubmitStep, Failure> {
        if let Some(answer) = answer {
            return self.created.done(answer);
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
