//! The way to a batch whose input is put into object storage first: two requests, known beforehand.

use super::answer;
use super::submit::{Created, Submission, SubmitStep, Upload};
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;

/// What the answer to the creation tells.
type Read = Box<dyn Fn(&Answer) -> Result<Created, Failure> + Send>;

/// Puts the input there, then creates the batch.
pub struct Staged {
    upload: Option<Upload>,
    create: Option<Call>,
    created: Read,
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staged")
            .field("upload", &self.upload)
            .field("create", &self.create)
            .finish_non_exhaustive()
    }
}

impl Staged {
    /// `call` takes the input as its body; `created` reads the answer to `create`.
    pub fn begin(
        call: Call,
        create: Call,
        created: impl Fn(&Answer) -> Result<Created, Failure> + Send + 'static,
    ) -> Box<dyn Submission> {
        let upload = Upload { call, before: bytes::Bytes::new(), after: bytes::Bytes::new() };
        Box::new(Self { upload: Some(upload), create: Some(create), created: Box::new(created) })
    }
}

impl Submission for Staged {
    fn next(&mut self, answer: Option<&Answer>) -> Result<SubmitStep, Failure> {
        if let Some(upload) = self.upload.take() {
            return Ok(SubmitStep::Upload(upload));
        }
        let answer =
            answer.ok_or_else(|| Failure::Malformed("there is no answer to go on from".to_owned()))?;
        if let Some(create) = self.create.take() {
            if !answer.status.is_success() {
                return Err(answer::refusal(answer));
            }
            return Ok(SubmitStep::Create(create));
        }
        (self.created)(answer).map(SubmitStep::Done)
    }
}
