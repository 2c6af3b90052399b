//! Submitting: a file is taken in and judged, then a batch is created from it, once.

use super::reconcile::Search;
use super::{Account, Engine, ProviderError};
use crate::domain::tracked::{BatchKey, Origin, Tracked};
use crate::domain::user_fields::UserFields;
use crate::http::call::{Answer, Outgoing};
use crate::http::failure::Failure;
use crate::provider::input_checker::{CheckedInput, InputChecker, InputProblem, Overrides};
use crate::provider::submit::{Created, Job, MARKER_PREFIX, Submission as Steps, SubmitStep, Upload};
use crate::store::recording::{Registered, Registration};
use crate::store::spool::{Spool, Spooled};
use crate::store::submissions::Submission;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What is submitted, beside the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubmitRequest {
    /// At which provider.
    pub provider: String,
    /// The file's name, without a path.
    pub file_name: String,
    /// Such as `24h`.
    pub completion_window: String,
    /// What the user attaches.
    pub metadata: BTreeMap<String, String>,
    /// What the user says of the batch.
    pub user_fields: UserFields,
    /// Who submits.
    pub owner: Option<String>,
}

/// A file that was taken in: judged, and ready to be sent.
#[derive(Debug)]
pub struct Staged {
    /// What it is.
    pub judged: CheckedInput,
    spooled: Spooled,
}

/// How far a submission is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes of so many have left.
    Uploading(u64, u64),
    /// The batch is being created.
    Creating,
    /// Its creation was not answered; it is looked for.
    Searching,
}

/// Why nothing was submitted, or why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The provider said no, or could not be asked, or the state could not be written. No batch was created.
    #[error(transparent)]
    Look(#[from] ProviderError),
    /// The file is not accepted.
    #[error("the file is not accepted")]
    Input(Vec<InputProblem>),
    /// The file did not come to its end.
    #[error("the upload was cut off: {0}")]
    Cut(String),
    /// The daemon stops.
    #[error("the daemon is stopping")]
    Stopping,
    /// Nobody waits for it any more.
    #[error("it was given up")]
    Abandoned,
    /// The batch may exist.
    #[error("{provider}: the answer to the creation of the batch was lost: {failure}")]
    Lost {
        /// Where.
        provider: String,
        /// What went wrong.
        failure: Failure,
    },
}

impl From<StoreError> for SubmitError {
    fn from(error: StoreError) -> Self {
        Self::Look(error.into())
    }
}

/// The marks of the submissions that a task of this process sees to.
#[derive(Clone, Debug, Default)]
pub(crate) struct ActiveSubmissions(Arc<Mutex<BTreeSet<String>>>);

/// As long as it is held, a task sees to the submission.
struct Attendance {
    all: ActiveSubmissions,
    marker: String,
}

impl ActiveSubmissions {
    pub(super) fn has(&self, marker: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(marker)
    }

    fn begin(&self, marker: &str) -> Attendance {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(marker.to_owned());
        Attendance { all: self.clone(), marker: marker.to_owned() }
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.marker);
    }
}

impl Engine {
    /// Takes a file in: judges it as it comes, and keeps what is to be sent of it on the disk of the state.
    ///
    /// A `body` that breaks off is an error; so is a file that the provider would not take, once it has come to its
    /// end: whoever sends it then hears of it.
    pub async fn take_in(
        &self,
        provider: &str,
        overrides: Overrides,
        mut body: impl Stream<Item = Result<Bytes, String>> + Send + Unpin,
    ) -> Result<Staged, SubmitError> {
        let account = self.account(provider)?;
        let about = |failure| ProviderError::Provider { provider: provider.to_owned(), failure };
        let judge = match InputChecker::new(account.adapter.as_ref(), overrides) {
            Ok(judge) => judge,
            Err(failure) => {
                self.pass_over(&mut body).await;
                return Err(about(failure).into());
            }
        };
        let mut desk = Staging::begin(self.shared.store.clone(), account, judge);
        let stopping = self.shared.tasks.stopping();
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut gathered = 0;
        loop {
            let piece = tokio::select! {
                piece = body.next() => piece,
                () = stopping.cancelled() => return Err(SubmitError::Stopping),
            };
            match piece {
                Some(Ok(piece)) => {
                    gathered += piece.len();
                    pieces.push(piece);
                    if gathered < AT_ONCE {
                        continue;
                    }
                    gathered = 0;
                    if !desk.work(std::mem::take(&mut pieces)).await? {
                        self.pass_over(&mut body).await;
                        break;
                    }
                }
                Some(Err(error)) => return Err(SubmitError::Cut(error)),
                None => {
                    desk.work(pieces).await?;
                    break;
                }
            }
        }
        desk.finish().await
    }

    /// Reads on without looking: whoever sends hears an answer only once all is sent.
    pub async fn pass_over(&self, body: &mut (impl Stream<Item = Result<Bytes, String>> + Send + Unpin)) {
        let stopping = self.shared.tasks.stopping();
        let rest = async { while matches!(body.next().await, Some(Ok(_))) {} };
        tokio::select! {
            () = rest => {}
            () = stopping.cancelled() => {}
            () = tokio::time::sleep(REST) => {}
        }
    }

    /// Creates a batch from a file that was taken in, and registers it.
    ///
    /// Until the creation itself nothing is done that could not be repeated, and it ends as soon as nobody listens to
    /// `progress` any more or the daemon stops. The creation is written down before the provider is asked; if its answer
    /// is lost, the batch is looked for in the provider's list, now and later ([`Engine::reconcile`]).
    pub async fn submit(
        &self,
        order: SubmitRequest,
        staged: Staged,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Registered, SubmitError> {
        let account = self.account(&order.provider)?;
        let rng = &self.shared.rng;
        let marker = format!("{MARKER_PREFIX}{:016x}{:016x}", rng.bits(), rng.bits());
        let Staged { judged, spooled } = staged;
        let job = Job {
            marker: marker.clone(),
            name: order.user_fields.name.clone(),
            endpoint: judged.endpoint.clone(),
            model: judged.model.clone(),
            completion_window: order.completion_window,
            metadata: order.metadata.clone(),
            file_name: order.file_name.clone(),
            bytes: spooled.length(),
            requests: judged.requests,
        };
        let submission = Submission {
            marker: marker.clone(),
            provider: order.provider,
            endpoint: judged.endpoint,
            model: judged.model,
            requests: judged.requests,
            file_name: order.file_name,
            metadata: order.metadata,
            user_fields: order.user_fields,
            owner: order.owner,
            begun_at: self.shared.clock.now(),
            lost_at: None,
            candidates: Vec::new(),
            trouble: None,
        };
        let steps = account.adapter.submit(&job).map_err(|failure| about(&submission.provider, failure))?;
        let attendance = self.shared.active_submissions.begin(&marker);
        let under_way = SubmissionRun { engine: self, account, spooled, submission, progress };
        let registered = under_way.run(steps).await;
        drop(attendance);
        registered
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
    spooled: Spooled,
    submission: Submission,
    progress: mpsc::Sender<Progress>,
}

impl SubmissionRun<'_> {
    async fn run(mut self, mut steps: Box<dyn Steps>) -> Result<Registered, SubmitError> {
        let mut answer: Option<Answer> = None;
        let mut asked_for = false;
        loop {
            let step = match steps.next(answer.as_ref()) {
                Ok(step) => step,
                Err(failure) => return self.failed(failure, asked_for).await,
            };
            answer = match step {
                SubmitStep::Send(call) => {
                    Some(self.unless_given_up(asked_for, self.account.send(call)).await?)
                }
                SubmitStep::Upload(upload) => {
                    let sent = self.send_input(upload);
                    Some(self.unless_given_up(asked_for, sent).await?)
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
                    self.engine.shared.store.open_submission(self.submission.clone()).await?;
                    let _ = self.progress.try_send(Progress::Creating);
                    let sent = match creation {
                        SubmitStep::CreateWith(upload) => self.send_input(upload).await,
                        SubmitStep::Create(call) => self.account.send(call).await,
                        _ => Err(Failure::BadRequest("no creation".to_owned())),
                    };
                    match sent {
                        Ok(answer) => Some(answer),
                        Err(failure) => return self.failed(failure, true).await,
                    }
                }
            };
        }
    }

    /// Sends the input within `upload`.
    async fn send_input(&self, upload: Upload) -> Result<Answer, Failure> {
        let total = self.spooled.length();
        let length = upload.length(total);
        let Upload { call, before, after } = upload;
        let progress = self.progress.clone();
        let mut sent = 0;
        let mut told = 0;
        let input = self.spooled.pieces().inspect(move |piece| {
            sent += piece.as_ref().map_or(0, |piece| piece.len() as u64);
            if sent - told >= TELL_EVERY || sent == total {
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
                done = work => done,
                () = stopping.cancelled() => return Err(SubmitError::Stopping),
                () = self.progress.closed() => return Err(SubmitError::Abandoned),
            }
        };
        done.map_err(|failure| about(&self.submission.provider, failure).into())
    }

    /// Registers the batch and closes the submission.
    async fn enter(&self, created: Created) -> Result<Registered, SubmitError> {
        let registration = self.engine.registration(&self.account, &self.submission, created)?;
        Ok(self.engine.complete(&self.submission, registration).await?)
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
            "the answer to the creation of a batch was lost ({failure}); looking for the batch"
        );
        let _ = self.progress.try_send(Progress::Searching);
        let mut submission = self.submission.clone();
        let lost_at = self.engine.shared.clock.now();
        submission.lost_at = Some(lost_at);
        // If this cannot be written, the next start does it.
        if let Err(error) = store.lose_submission(marker.clone(), lost_at).await {
            tracing::error!(%error, "cannot note the lost answer");
        }
        let stopping = self.engine.shared.tasks.stopping();
        for wait in SEARCHES {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stopping.cancelled() => break,
            }
            match self.engine.search(&self.account, &submission).await {
                Ok(Search::Found(sighting)) => {
                    return self.enter(Created { id: sighting.id.clone(), sighting: Some(*sighting) }).await;
                }
                Ok(Search::Several(_)) => break,
                Ok(Search::Nothing | Search::Unsettled) => {}
                Err(error) => tracing::debug!(provider, "cannot look for the batch: {error}"),
            }
        }
        self.engine.shared.lost.notify_one();
        Err(SubmitError::Lost { provider, failure })
    }
}

/// A failure at `provider`, before anything was created.
fn about(provider: &str, failure: Failure) -> ProviderError {
    ProviderError::Provider { provider: provider.to_owned(), failure }
}

/// Where a file is judged and kept, on a thread that may block; the next piece comes meanwhile.
struct Staging {
    account: Arc<Account>,
    busy: JoinHandle<Result<Work, StoreError>>,
}

/// What goes to the thread and comes back.
struct Work {
    judge: InputChecker,
    spool: Spool,
    input: Vec<u8>,
    is_good: bool,
}

impl Staging {
    fn begin(store: Store, account: Arc<Account>, judge: InputChecker) -> Self {
        let busy = tokio::task::spawn_blocking(move || {
            Ok(Work { judge, spool: store.spool()?, input: Vec::new(), is_good: true })
        });
        Self { account, busy }
    }

    /// Gives the next pieces to the thread once it is done with those before; `false`: it need not go on.
    async fn work(&mut self, pieces: Vec<Bytes>) -> Result<bool, StoreError> {
        let mut work = self.done().await?;
        let is_good = work.is_good;
        let account = self.account.clone();
        self.busy = tokio::task::spawn_blocking(move || {
            for piece in pieces {
                work.is_good =
                    work.is_good && work.judge.push(account.adapter.as_ref(), &piece, &mut work.input);
                work.keep()?;
            }
            Ok(work)
        });
        Ok(is_good)
    }

    async fn done(&mut self) -> Result<Work, StoreError> {
        match (&mut self.busy).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::Internal("judging a file panicked; the log tells where".to_owned())),
        }
    }

    async fn finish(mut self) -> Result<Staged, SubmitError> {
        let mut work = self.done().await?;
        let account = self.account;
        let finished = tokio::task::spawn_blocking(move || {
            let judged = work.judge.finish(account.adapter.as_ref(), &mut work.input);
            work.spool.add(&work.input)?;
            Ok::<_, StoreError>((judged, work.spool.finish()))
        });
        let finished = finished
            .await
            .map_err(|_| StoreError::Internal("judging a file panicked; the log tells where".to_owned()))?;
        let (judged, spooled) = finished?;
        Ok(Staged { judged: judged.map_err(SubmitError::Input)?, spooled })
    }
}

impl Work {
    fn keep(&mut self) -> Result<(), StoreError> {
        self.spool.add(&self.input)?;
        self.input.clear();
        // One long line must not keep its memory for ever.
        self.input.shrink_to(4 * AT_ONCE);
        Ok(())
    }
}

/// What goes to the thread at once.
const AT_ONCE: usize = 256 << 10;
/// How much of a file is read on that is refused already, in time.
const REST: Duration = Duration::from_secs(30);
/// How often an upload's progress is told.
const TELL_EVERY: u64 = 1 << 20;
/// When a batch is looked for whose creation was not answered, each counted from the one before.
const SEARCHES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(10),
    Duration::from_secs(15),
];
