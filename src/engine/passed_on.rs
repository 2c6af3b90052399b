//! A creation that is passed on as it came, to a provider that has the input already.

use super::Account;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use crate::provider::answer::refusal;
use crate::provider::bounds::bounded;
use crate::provider::salvage;
use crate::provider::submit::{Created, Submission, SubmitStep};
use crate::store::creations::Asked;
use crate::sync::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A request that creates a batch from a file of the provider's own.
#[derive(Debug)]
pub struct PassedOn {
    pub provider: String,
    /// The request, whole.
    pub call: Call,
    /// The provider's own id of the input: by it the batch is found if the answer is lost.
    pub input_file: String,
    /// As the request says; absent, the kind's usual one.
    pub endpoint: Option<String>,
    /// What the request attaches.
    pub metadata: BTreeMap<String, String>,
    /// The user of the machine who asks, where the socket tells.
    pub owner: Option<String>,
    /// What whoever asks again is known by.
    pub asked: Asked,
    /// Where an answer is put that shows no batch: the client is given it as it is.
    pub answered: Arc<Mutex<Option<Answer>>>,
}

/// The one step on the way to such a batch.
pub(super) struct OneCreation {
    pub(super) call: Option<Call>,
    pub(super) account: Arc<Account>,
    pub(super) answered: Arc<Mutex<Option<Answer>>>,
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
            *lock(&self.answered) = Some(answer.clone());
            return Err(refusal(answer));
        }
        let Some(id) = id_in(answer) else {
            *lock(&self.answered) = Some(answer.clone());
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
