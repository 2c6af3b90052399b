//! Submitting: a batch is created, once, from a file that was taken in.

use super::creation_params::merged;
use super::intake::Staged;
use super::passed_on::{OneCreation, PassedOn};
use super::submission_search::{Search, SubmissionSearch};
use super::submit_error::SubmitError;
use super::submit_request::{Input, begin, new_marker};
pub use super::submit_request::{RESUBMITS, SubmitRequest};
use super::upload_ahead::UploadAhead;
use super::{Account, Engine, ProviderError};
use crate::domain::tracked::{BatchKey, Origin, Tracked};
use crate::domain::user_fields::UserFields;
use crate::failpoint;
use crate::http::call::{Answer, BodyHash, Call, OnlyWhile, Outgoing, Paid};
use crate::http::failure::Failure;
use crate::provider::submit::{Created, Submission as Steps, SubmitStep, Upload};
use crate::store::creations::Asked;
use crate::store::recording::{Registered, Registration};
use crate::store::spool::Spooled;
use crate::store::submissions::Submission;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// How far a submission is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes were sent, of so many.
    Uploading(u64, u64),
    /// The batch is being created.
    Creating,
    /// The answer to its creation was lost; it is searched for in the provider's list.
    Searching,
}

impl Engine {
    /// Creates a batch from a file that was taken in, and registers it.
    ///
    /// Until the creation itself nothing is done that could not be repeated, and it ends as soon as nobody listens to
    /// `progress` any more or the daemon stops. The creation is written down before the provider is asked; if its answer
    /// is lost, the batch is searched for in the provider's list, now and later ([`Engine::reconcile`]).
    pub async fn submit(
        &self,
        request: SubmitRequest,
        staged: Staged,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Registered, SubmitError> {
        let account = self.account(&request.provider)?;
        let rng = &self.shared.rng;
        let Staged { checked, spooled, ahead } = staged;
        let marker = ahead.as_ref().map_or_else(|| new_marker(rng), |ahead| ahead.marker.clone());
        let job = request.job(&Input {
            marker: &marker,
            endpoint: &checked.endpoint,
            model: checked.model.as_deref(),
            bytes: spooled.length(),
            requests: checked.requests,
        });
        let submission = Submission {
            marker,
            provider: request.provider,
            endpoint: checked.endpoint,
            model: checked.model,
            requests: checked.requests,
            file_name: request.file_name,
            uploaded_file: request.uploaded_file,
            input_file: None,
            lineage: request.lineage,
            metadata: request.metadata,
            user_fields: request.user_fields,
            owner: request.owner,
            begun_at: self.shared.clock.now(),
            lost_at: None,
            candidates: Vec::new(),
            trouble: None,
        };
        let steps = begin(&account, job).map_err(|failure| about(&submission.provider, failure))?;
        let run = SubmissionRun {
            engine: self,
            account,
            spooled: Some(spooled),
            ahead,
            submission,
            asked: request.asked,
            params: request.params,
            progress,
            paid: false,
            creation: None,
        };
        run.attended(steps).await
    }

    /// Creates a batch by a request that is passed on as it came, and registers it: the creation is written down first
    /// here too.
    pub async fn pass_on(&self, creation: PassedOn) -> Result<Registered, SubmitError> {
        let account = self.account(&creation.provider)?;
        let call = creation.call(&account).map_err(|failure| about(&creation.provider, failure))?;
        let PassedOn { provider, input_file, endpoint, metadata, owner, lineage, asked, answered, .. } =
            creation;
        let rng = &self.shared.rng;
        let submission = Submission {
            marker: new_marker(rng),
            provider,
            endpoint: endpoint.unwrap_or_else(|| account.adapter.default_endpoint().to_owned()),
            model: None,
            requests: 0,
            file_name: input_file.clone(),
            uploaded_file: None,
            input_file: Some(input_file),
            lineage,
            metadata,
            user_fields: UserFields::default(),
            owner,
            begun_at: self.shared.clock.now(),
            lost_at: None,
            candidates: Vec::new(),
            trouble: None,
        };
        // Nobody watches; what changes something runs to its end whether or not its client stays.
        let (progress, _watching) = mpsc::channel(1);
        let steps = OneCreation { call: Some(call), account: account.clone(), answered };
        let run = SubmissionRun {
            engine: self,
            account,
            spooled: None,
            ahead: None,
            submission,
            asked,
            params: Map::new(),
            progress,
            paid: true,
            creation: None,
        };
        run.attended(Box::new(steps)).await
    }

    /// How a batch that was created by a submission is registered.
    pub(super) fn registration(
        &self,
        account: &Account,
        submission: &Submission,
        created: Created,
    ) -> Result<Registration, ProviderError> {
        let provider = &submission.provider;
        let id = self.canonical_id(provider, &created.id);
        let known = self.describe(provider, &id)?;
        let key = BatchKey { provider: provider.clone(), id };
        let mut tracked =
            Tracked::new(key, known.kind, known.endpoint, Origin::Hand, self.shared.clock.now());
        tracked.console_url = known.console_url;
        tracked.owner.clone_from(&submission.owner);
        tracked.uploaded_file.clone_from(&submission.uploaded_file);
        tracked.lineage.clone_from(&submission.lineage);
        let user_fields = submission.user_fields.clone();
        user_fields.apply(&mut tracked);
        // What the provider does not tell is known all the same.
        tracked.batch.model.clone_from(&submission.model);
        if !submission.metadata.is_empty() {
            tracked.batch.metadata = Some(submission.metadata.clone());
        }
        if account.adapter.intake(&submission.endpoint).is_ok_and(|intake| intake.own.body == "body") {
            tracked.batch.endpoint.clone_from(&submission.endpoint);
        }
        let first_look = match created.sighting {
            Some(sighting) => Some(self.first_step(&tracked, &sighting)?),
            None => None,
        };
        Ok(Registration { tracked, first_look, user_fields })
    }
}

/// A submission whose steps are being taken.
struct SubmissionRun<'e> {
    engine: &'e Engine,
    account: Arc<Account>,
    /// What is sent; `None`: the provider has it.
    spooled: Option<Spooled>,
    /// The upload that is under way already.
    ahead: Option<UploadAhead>,
    submission: Submission,
    asked: Option<Asked>,
    params: Map<String, Value>,
    progress: mpsc::Sender<Progress>,
    /// Something was sent that would have been sent for nothing if what follows were not.
    paid: bool,
    /// What a creation that was written down leaves under only.
    creation: Option<Intent>,
}

/// A creation that was written down: it is to be asked for only as long as no other daemon, which shares the state, can have
/// taken this one for dead and searched for the batch in vain.
#[derive(Clone)]
struct Intent {
    store: Store,
    standing: Option<u64>,
    is_withdrawn: Arc<AtomicBool>,
}

impl Intent {
    /// Right before the creation is asked for.
    fn holds(&self) -> bool {
        let holds = self.standing.is_some() && self.store.standing() == self.standing;
        self.is_withdrawn.fetch_or(!holds, Ordering::Relaxed);
        holds
    }
}

impl SubmissionRun<'_> {
    /// Takes the steps, in whose time nobody else takes care of the submission.
    async fn attended(self, steps: Box<dyn Steps>) -> Result<Registered, SubmitError> {
        let attendance = self.engine.shared.active_submissions.begin(&self.submission.marker);
        let registered = Box::pin(self.run(steps)).await;
        drop(attendance);
        registered
    }

    /// A request that waits for its turn as long as it takes, once something was paid for.
    fn due(&self, mut call: Call) -> Call {
        if self.paid {
            call.request.extensions_mut().insert(Paid);
        }
        if let Some(intent) = self.creation.clone() {
            call.request.extensions_mut().insert(OnlyWhile(Arc::new(move || intent.holds())));
        }
        call
    }

    async fn run(mut self, mut steps: Box<dyn Steps>) -> Result<Registered, SubmitError> {
        let mut answer: Option<Answer> = None;
        let mut asked_for = false;
        loop {
            let step = steps.next(answer.as_ref()).and_then(|step| merged(step, &self.params));
            let step = match step {
                Ok(step) => step,
                Err(failure) => return Box::pin(self.failed(failure, asked_for)).await,
            };
            answer = match step {
                SubmitStep::Send(call) => {
                    Some(self.unless_given_up(asked_for, self.account.send(self.due(call))).await?)
                }
                SubmitStep::Upload(upload) => {
                    let ahead = self.ahead.take();
                    let answer = self.unless_given_up(asked_for, self.upload(upload, ahead)).await?;
                    self.paid = true;
                    Some(answer)
                }
                SubmitStep::Wait(time) => {
                    let waited = async {
                        tokio::time::sleep(time).await;
                        Ok(())
                    };
                    self.unless_given_up(asked_for, waited).await?;
                    None
                }
                SubmitStep::Done(created) => return self.enter(created).await,
                creation @ (SubmitStep::Create(_) | SubmitStep::CreateWith(_)) => {
                    asked_for = true;
                    self.submission.begun_at = self.engine.shared.clock.now();
                    let (submission, asked) = (self.submission.clone(), self.asked.clone());
                    let store = self.engine.shared.store.clone();
                    let standing = store.standing();
                    failpoint::reach("submit.uploaded", || submission.provider.clone());
                    if !store.open_submission(submission, asked).await? {
                        return Err(SubmitError::Abandoned);
                    }
                    failpoint::reach("submit.intended", || self.submission.provider.clone());
                    let _ = self.progress.try_send(Progress::Creating);
                    let intent = Intent { store, standing, is_withdrawn: Arc::default() };
                    self.creation = Some(intent.clone());
                    let sent = match creation {
                        SubmitStep::CreateWith(upload) => self.send_input(upload).await,
                        SubmitStep::Create(call) => self.account.send(self.due(call)).await,
                        _ => Err(Failure::BadRequest("no creation".to_owned())),
                    };
                    self.creation = None;
                    failpoint::reach("submit.answered", || self.submission.provider.clone());
                    if intent.is_withdrawn.load(Ordering::Relaxed) {
                        return Err(self.withdrawn().await);
                    }
                    match sent {
                        Ok(answer) => Some(answer),
                        Err(failure) => return Box::pin(self.failed(failure, true)).await,
                    }
                }
            };
        }
    }

    /// Sends the input within `upload`, or waits for the answer to the same that was sent `ahead`.
    async fn upload(&self, upload: Upload, ahead: Option<UploadAhead>) -> Result<Answer, Failure> {
        let answered = match ahead.filter(|ahead| ahead.is(&upload)) {
            Some(ahead) => ahead.answered().await,
            None => None,
        };
        let Some(answer) = answered else { return self.send_input(upload).await };
        if let Some(spooled) = &self.spooled {
            let _ = self.progress.try_send(Progress::Uploading(spooled.length(), spooled.length()));
        }
        answer
    }

    /// Sends the input within `upload`.
    async fn send_input(&self, upload: Upload) -> Result<Answer, Failure> {
        let Some(spooled) = &self.spooled else {
            return Err(Failure::BadRequest("there is no input to send".to_owned()));
        };
        let total = spooled.length();
        let length = upload.length(total);
        let Upload { call, before, after } = upload;
        let mut call = self.due(call);
        if call.signs_body() {
            call.request.extensions_mut().insert(hash_of(&before, spooled, &after).await?);
        }
        let progress = self.progress.clone();
        let mut sent = 0;
        let mut told = 0;
        let input = spooled.pieces().inspect(move |piece| {
            sent += piece.as_ref().map_or(0, |piece| piece.len() as u64);
            if sent - told >= PROGRESS_STEP || sent == total {
                told = sent;
                // Whoever watches sees the next one.
                let _ = progress.try_send(Progress::Uploading(sent, total));
            }
        });
        let around = |bytes: Bytes| stream::once(async move { Ok(bytes) });
        let pieces = around(before).chain(input).chain(around(after));
        let pieces = pieces.filter(|piece| {
            let is_empty = piece.as_ref().is_ok_and(Bytes::is_empty);
            async move { !is_empty }
        });
        self.account.upload(call, Outgoing { length, pieces: pieces.boxed() }).await
    }

    /// Does what creates nothing yet, for as long as somebody waits for it.
    async fn unless_given_up<T>(
        &self,
        asked_for: bool,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, SubmitError> {
        let done = if asked_for {
            work.await
        } else {
            let stopping = self.engine.shared.tasks.stopping();
            tokio::select! {
                biased;
                done = work => done,
                () = stopping.cancelled() => return Err(SubmitError::Stopping),
                () = self.progress.closed() => return Err(SubmitError::Abandoned),
            }
        };
        done.map_err(|failure| about(&self.submission.provider, failure).into())
    }

    /// The creation was written down and not asked for.
    async fn withdrawn(&self) -> SubmitError {
        let Submission { provider, marker, .. } = &self.submission;
        tracing::warn!(
            provider,
            submission = marker,
            "a batch was not created: this daemon was silent for too long, and another may have searched for the batch already"
        );
        // If this cannot be written, another daemon finds that there is none.
        let _ = self.engine.shared.store.drop_submission(marker.clone()).await;
        StoreError::GivenUp.into()
    }

    /// Registers the batch and closes the submission.
    async fn enter(&self, created: Created) -> Result<Registered, SubmitError> {
        let registration = self.engine.registration(&self.account, &self.submission, created)?;
        let registered = self.engine.complete(&self.submission, registration).await?;
        failpoint::reach("submit.registered", || self.submission.provider.clone());
        Ok(registered)
    }

    /// What it means that a step failed: once the creation was asked for, the batch may be there.
    async fn failed(self, failure: Failure, asked_for: bool) -> Result<Registered, SubmitError> {
        let Submission { provider, marker, .. } = self.submission.clone();
        if !asked_for {
            return Err(about(&provider, failure).into());
        }
        let store = &self.engine.shared.store;
        if !failure.may_have_arrived() {
            store.drop_submission(marker).await?;
            return Err(about(&provider, failure).into());
        }
        tracing::warn!(
            provider,
            submission = marker,
            "the answer to the creation of a batch was lost ({failure}); searching the provider's list for the batch"
        );
        let _ = self.progress.try_send(Progress::Searching);
        let mut submission = self.submission.clone();
        let lost_at = self.engine.shared.clock.now();
        submission.lost_at = Some(lost_at);
        // If this cannot be written, the next start does it.
        if let Err(error) = store.lose_submission(marker.clone(), lost_at).await {
            tracing::error!(%error, "cannot record that the answer to the creation of a batch was lost");
        }
        let stopping = self.engine.shared.tasks.stopping();
        let mut search = SubmissionSearch::default();
        for wait in SEARCHES {
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => {}
                () = stopping.cancelled() => break,
            }
            let searching = self.engine.search(&self.account, &submission, &mut search);
            // It is read on from where it is.
            let Ok(searched) = tokio::time::timeout(SEARCH_TIMEOUT, searching).await else { continue };
            match searched {
                Ok(Search::Found(sighting)) => {
                    return self.enter(Created { id: sighting.id.clone(), sighting: Some(*sighting) }).await;
                }
                Ok(Search::Several(_)) => break,
                Ok(Search::Nothing { .. } | Search::Unsettled) => {}
                Err(error) => {
                    tracing::debug!(provider, "cannot search the provider's list for the batch: {error}");
                }
            }
        }
        self.engine.shared.lost.notify_one();
        Err(SubmitError::Lost { provider, failure })
    }
}

/// The hash of a whole body, for which the input is read once more than it is sent.
async fn hash_of(before: &Bytes, input: &Spooled, after: &Bytes) -> Result<BodyHash, Failure> {
    let mut hash = Sha256::new_with_prefix(before);
    let mut pieces = input.pieces();
    while let Some(piece) = pieces.next().await {
        let unreadable = |error| Failure::BadRequest(format!("its body cannot be read: {error}"));
        hash.update(piece.map_err(unreadable)?);
    }
    hash.update(after);
    Ok(BodyHash(HEXLOWER.encode(&hash.finalize())))
}

/// A failure at `provider`, before anything was created.
fn about(provider: &str, failure: Failure) -> ProviderError {
    ProviderError::Provider { provider: provider.to_owned(), failure }
}

/// After how many bytes an upload's progress is told again.
const PROGRESS_STEP: u64 = 1 << 20;
/// For one search.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(20);
/// When a batch is searched for after the answer to its creation was lost, each counted from the one before.
const SEARCHES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(10),
    Duration::from_secs(15),
];
