//! An upload that is under way while its file is still coming and being checked.
//!
//! The end of its body is held back until the file was checked to its end, and a body of the promised length is whole with
//! that end only: a provider never gets a file that was not accepted. Whatever goes wrong before, the file is uploaded in the
//! usual way, once it was checked.

use super::submit_request::{Input, SubmitRequest, begin, new_marker};
use super::{Account, Engine};
use crate::http::call::{Answer, Outgoing};
use crate::http::failure::Failure;
use crate::provider::submit::{SubmitStep, Upload};
use crate::store::spool::Following;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Uri};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What is to be uploaded.
pub(super) struct Plan<'a> {
    pub request: &'a SubmitRequest,
    /// How long the file is that is coming, in bytes.
    pub length: u64,
}

/// An upload that was begun; dropped, it is broken off.
#[derive(Debug)]
pub(super) struct UploadAhead {
    /// The mark of its submission.
    pub marker: String,
    uri: Uri,
    headers: HeaderMap,
    before: Bytes,
    after: Bytes,
    /// Whether its body was sent to its end.
    is_sent: Arc<AtomicBool>,
    answer: oneshot::Receiver<Result<Answer, Failure>>,
    _break_off: DropGuard,
}

impl Engine {
    /// Begins to upload what `follow` gives, if that is the first step to a batch of this account. The model and the number
    /// of the requests are not known yet.
    pub(super) fn upload_ahead(
        &self,
        account: Arc<Account>,
        plan: &Plan<'_>,
        endpoint: &str,
        follow: impl FnOnce() -> Following,
    ) -> Option<UploadAhead> {
        let (request, length) = (plan.request, plan.length);
        let marker = new_marker(&self.shared.rng);
        let input = Input { marker: &marker, endpoint, model: None, bytes: length, requests: 0 };
        let Ok(SubmitStep::Upload(upload)) = begin(&account, request.job(&input)).ok()?.next(None) else {
            return None;
        };
        if upload.call.signs_body() {
            return None;
        }
        let whole = upload.length(length);
        let Upload { call, before, after } = upload;
        let (uri, headers) = (call.request.uri().clone(), call.request.headers().clone());
        let is_sent = Arc::<AtomicBool>::default();
        let (break_off, broken_off) = (CancellationToken::new(), self.shared.tasks.stopping());
        let (told, answer) = oneshot::channel();
        let pieces = {
            let (before, after, is_sent) = (before.clone(), after.clone(), Arc::clone(&is_sent));
            let end = stream::once(async move {
                is_sent.store(true, Ordering::Release);
                Ok(after)
            });
            stream::once(async { Ok(before) }).chain(follow().pieces(length, PATIENCE)).chain(end).boxed()
        };
        let given_up = break_off.clone();
        self.shared.tasks.spawn_tracked(async move {
            let sent = tokio::select! {
                biased;
                () = given_up.cancelled() => return,
                () = broken_off.cancelled() => return,
                sent = account.upload(call, Outgoing { length: whole, pieces }) => sent,
            };
            // Nobody may want it any more.
            let _ = told.send(sent);
        });
        Some(UploadAhead {
            marker,
            uri,
            headers,
            before,
            after,
            is_sent,
            answer,
            _break_off: break_off.drop_guard(),
        })
    }
}

impl UploadAhead {
    /// Whether it is the same request as `upload`.
    pub fn is(&self, upload: &Upload) -> bool {
        let request = &upload.call.request;
        self.uri == *request.uri()
            && self.headers == *request.headers()
            && self.before == upload.before
            && self.after == upload.after
    }

    /// Its answer, once it has come; `None`: it did not get so far, and has left nothing at the provider.
    pub async fn answered(self) -> Option<Result<Answer, Failure>> {
        let answer = self.answer.await.ok()?;
        self.is_sent.load(Ordering::Acquire).then_some(answer)
    }
}

/// For as long it waits for more of a file: it holds one of its account's slots.
const PATIENCE: Duration = Duration::from_secs(2);
