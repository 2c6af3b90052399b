//! A creation that is passed on as it came, to a provider that has the input already.

use super::Account;
use crate::domain::tracked::Lineage;
use crate::http::call::{Answer, BodyLimit, Call};
use crate::http::failure::Failure;
use crate::provider::answer::refusal;
use crate::provider::bounds::bounded;
use crate::provider::salvage;
use crate::provider::submit::{Created, Submission, SubmitStep};
use crate::store::creations::Asked;
use crate::sync::lock;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A request that creates a batch from a file of the provider's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOn {
    pub provider: String,
    /// The body of the request, as it came.
    pub body: String,
    /// The type of the body.
    pub content_type: String,
    /// The provider's own id of the input: by it the batch is found if the answer is lost.
    pub input_file: String,
    /// As the request says; absent, the kind's usual one.
    pub endpoint: Option<String>,
    /// What the request attaches.
    pub metadata: BTreeMap<String, String>,
    /// The user of the machine who asks, where the socket tells.
    pub owner: Option<String>,
    /// How it came about.
    pub lineage: Lineage,
    /// What whoever asks again is known by.
    #[serde(skip)]
    pub asked: Option<Asked>,
    /// Where an answer is put that shows no batch: the client is given it as it is.
    #[serde(skip)]
    pub answered: Answered,
}

/// An answer that shows no batch, once there is one. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Answered(Arc<Mutex<Option<Answer>>>);

impl Answered {
    pub fn take(&self) -> Option<Answer> {
        lock(&self.0).take()
    }

    fn put(&self, answer: &Answer) {
        *lock(&self.0) = Some(answer.clone());
    }
}

/// What was answered makes no difference to what is asked for.
impl PartialEq for Answered {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Answered {}

impl PassedOn {
    /// The request, whole.
    pub(super) fn call(&self, account: &Account) -> Result<Call, Failure> {
        let mut call = account.adapter.pass(&Method::POST, "/batches", None)?;
        let kind = HeaderValue::try_from(&self.content_type)
            .map_err(|_| Failure::BadRequest("the type of the body is no text".to_owned()))?;
        call.request.headers_mut().insert(CONTENT_TYPE, kind);
        *call.request.body_mut() = self.body.clone().into();
        call.body_limit = BodyLimit::Whole(MAX_ANSWER);
        Ok(call)
    }
}

/// How much of an answer is read, in bytes.
pub const MAX_ANSWER: usize = 1 << 20;

/// The one step on the way to such a batch.
pub(super) struct OneCreation {
    pub(super) call: Option<Call>,
    pub(super) account: Arc<Account>,
    pub(super) answered: Answered,
}

impl std::fmt::Debug for OneCreation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OneCreation").field("call", &self.call).finish_non_exhaustive()
    }
}

impl Submission for OneCreation {
    fn next(&mut self, answer: Option<&Answer>) -> Result<SubmitStep, Failure> {
        let Some(answer) = answer else {
            let call = self.call.take();
            return call
                .map(SubmitStep::Create)
                .ok_or_else(|| Failure::BadRequest("the batch was asked for already".to_owned()));
        };
        if !answer.status.is_success() {
            self.answered.put(answer);
            return Err(refusal(answer));
        }
        let Some(id) = id_in(answer) else {
            self.answered.put(answer);
            return Err(Failure::Malformed("there is no id of a batch in it".to_owned()));
        };
        let sighting = self.account.read(answer, |adapter| adapter.retrieved(&id, answer)).ok();
        Ok(SubmitStep::Done(Created { id, sighting }))
    }
}

/// The id of the batch that an answer shows.
fn id_in(answer: &Answer) -> Option<String> {
    let object = salvage::value(&bounded(&answer.body, None))?;
    let id = ["id", "batch_id"].iter().find_map(|key| object.get(*key)?.as_str());
    id.or_else(|| object.pointer("/job/id")?.as_str()).filter(|id| !id.is_empty()).map(str::to_owned)
}
