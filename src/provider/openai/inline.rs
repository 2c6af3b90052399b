//! The way to a batch at services without files: the requests stand within the creation itself.

use super::Start;
use crate::http::call::Answer;
use crate::http::failure::Failure;
use crate::provider::submit::{Submission, SubmitStep, Upload, patient};
use serde_json::Value;

/// The one step of a submission.
#[derive(Debug)]
pub(in crate::provider) struct RequestsWithin {
    start: Start,
    around: fn(&Start) -> Result<Value, Failure>,
}

impl RequestsWithin {
    /// Begins one; `around` makes the object that the requests become the last field of.
    #[expect(clippy::unnecessary_wraps, reason = "other services' ways may be refused at once")]
    pub fn begin(
        start: Start,
        around: fn(&Start) -> Result<Value, Failure>,
    ) -> Result<Box<dyn Submission>, Failure> {
        Ok(Box::new(Self { start, around }))
    }

    fn create(&self) -> Result<SubmitStep, Failure> {
        let around = (self.around)(&self.start)?;
        let mut call = patient(self.start.requests.post("/batches", Some(&around))?);
        // The object is left open for the last of its fields.
        let mut before = around.to_string();
        before.pop();
        before.push_str(",\"requests\":[");
        call.request.body_mut().clear();
        Ok(SubmitStep::CreateWith(Upload { call, before: before.into(), after: "]}".into() }))
    }
}

impl Submission for RequestsWithin {
    fn next(&mut self, answer: Option<&Answer>) -> Result<SubmitStep, Failure> {
        match answer {
            None => self.create(),
            Some(answer) => self.start.created.done(answer),
        }
    }
}
