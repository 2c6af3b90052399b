//! Taking in a file of requests: it is checked as it comes, and what will be sent of it is kept beside the state.

use super::submit_error::SubmitError;
use super::submit_request::SubmitRequest;
use super::upload_ahead::{Plan, UploadAhead};
use super::{Account, Engine, ProviderError};
use crate::provider::input_checker::{CheckedInput, InputChecker, Overrides, Piece};
use crate::store::spool::{Spool, Spooled};
use crate::store::{Store, StoreError};
use crate::tasks;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinError;

/// How many bytes are given to the thread that checks them at once.
const CHUNK: usize = 256 << 10;
/// For how long the rest of a file is read that is refused already.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(30);
/// What is smaller is uploaded once it was checked, in bytes.
const LEAST_AHEAD: u64 = 4 << 20;
const PANICKED: &str = "checking a file panicked; the log tells where";

/// A file that was taken in: checked, and ready to be sent.
#[derive(Debug)]
pub struct Staged {
    pub checked: CheckedInput,
    pub(super) spooled: Spooled,
    /// Its upload, where that began while it was checked.
    pub(super) ahead: Option<UploadAhead>,
}

impl Engine {
    /// Takes a file in: checks it as it comes, and keeps what will be sent of it on the disk that holds the state.
    ///
    /// A `body` that breaks off is an error; so is a file that the provider would not take, but only at its end, since
    /// most clients read no answer before they have sent all.
    pub async fn take_in(
        &self,
        provider: &str,
        overrides: Overrides,
        body: impl Stream<Item = Result<Bytes, String>> + Send + Unpin,
    ) -> Result<Staged, SubmitError> {
        self.stage(provider, overrides, body, None).await
    }

    /// The same for a submission that follows at once: where the provider takes the file as it is, a large one of `length`
    /// bytes is on its way there while it is checked.
    pub async fn take_in_ahead(
        &self,
        request: &SubmitRequest,
        overrides: Overrides,
        body: impl Stream<Item = Result<Bytes, String>> + Send + Unpin,
        length: Option<u64>,
    ) -> Result<Staged, SubmitError> {
        let plan = length.map(|length| Plan { request, length });
        self.stage(&request.provider, overrides, body, plan).await
    }

    async fn stage(
        &self,
        provider: &str,
        overrides: Overrides,
        mut body: impl Stream<Item = Result<Bytes, String>> + Send + Unpin,
        mut plan: Option<Plan<'_>>,
    ) -> Result<Staged, SubmitError> {
        let account = self.account(provider)?;
        let about = |failure| ProviderError::Provider { provider: provider.to_owned(), failure };
        let checker = match InputChecker::new(account.adapter.as_ref(), overrides) {
            Ok(checker) => checker,
            Err(failure) => {
                self.pass_over(&mut body).await;
                return Err(about(failure).into());
            }
        };
        let mut staging = Staging::begin(self.shared.store.clone(), account, checker);
        let mut ahead = None;
        let stopping = self.shared.tasks.stopping();
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut gathered = 0;
        loop {
            let piece = tokio::select! {
                biased;
                () = stopping.cancelled() => return Err(SubmitError::Stopping),
                piece = body.next() => piece,
            };
            match piece {
                Some(Ok(piece)) => {
                    gathered += piece.len();
                    pieces.push(piece);
                    if gathered < CHUNK {
                        continue;
                    }
                    gathered = 0;
                    let mut work = staging.done().await?;
                    if work.is_as_it_came() {
                        if work.spool.length() >= LEAST_AHEAD
                            && let Some(plan) = plan.take()
                        {
                            let endpoint = work.checker.endpoint().unwrap_or_default().to_owned();
                            let account = staging.account.clone();
                            ahead = self.upload_ahead(account, &plan, &endpoint, || work.spool.follow());
                        }
                    } else {
                        (ahead, plan) = (None, None);
                    }
                    if !staging.work(work, std::mem::take(&mut pieces)) {
                        self.pass_over(&mut body).await;
                        break;
                    }
                }
                Some(Err(error)) => return Err(SubmitError::Cut(error)),
                None => {
                    let work = staging.done().await?;
                    staging.work(work, pieces);
                    break;
                }
            }
        }
        staging.finish(ahead).await
    }

    /// Reads the rest and throws it away: most clients read no answer before they have sent all.
    pub async fn pass_over(&self, body: &mut (impl Stream<Item = Result<Bytes, String>> + Send + Unpin)) {
        let stopping = self.shared.tasks.stopping();
        let rest = async { while matches!(body.next().await, Some(Ok(_))) {} };
        tokio::select! {
            biased;
            () = stopping.cancelled() => {}
            () = rest => {}
            () = tokio::time::sleep(DISCARD_TIMEOUT) => {}
        }
    }
}

impl Engine {
    /// Checks a file that may be larger than one batch, and tells the batches that it has to be split into.
    pub async fn plan_pieces(
        &self,
        provider: &str,
        overrides: Overrides,
        content: &Spooled,
    ) -> Result<(CheckedInput, Vec<Piece>), SubmitError> {
        let account = self.account(provider)?;
        let about = |failure| ProviderError::Provider { provider: provider.to_owned(), failure };
        let mut checker = InputChecker::new(account.adapter.as_ref(), overrides).map_err(about)?;
        let mut input = Vec::new();
        let mut pieces = content.pieces();
        let stopping = self.shared.tasks.stopping();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(StoreError::from)?;
            let adapter = account.adapter.as_ref();
            let goes_on = tasks::in_place(2 * piece.len(), || {
                input.clear();
                checker.push(adapter, &piece, &mut input)
            });
            if stopping.is_cancelled() {
                return Err(SubmitError::Stopping);
            }
            if !goes_on {
                break;
            }
        }
        input.clear();
        checker.finish_in_pieces(account.adapter.as_ref(), &mut input).map_err(SubmitError::Input)
    }
}

/// Checks a file and keeps it, on a thread that may block; the next piece comes meanwhile.
struct Staging {
    account: Arc<Account>,
    busy: BoxFuture<'static, Result<Result<Work, StoreError>, JoinError>>,
}

/// What is handed to the thread and back.
struct Work {
    checker: InputChecker,
    spool: Spool,
    input: Vec<u8>,
    is_good: bool,
    /// How many bytes have come.
    came: u64,
}

impl Staging {
    fn begin(store: Store, account: Arc<Account>, checker: InputChecker) -> Self {
        let busy = tasks::begin_blocking(move || {
            Ok(Work { checker, spool: store.spool()?, input: Vec::new(), is_good: true, came: 0 })
        });
        Self { account, busy }
    }

    /// Gives the next pieces to the thread; `false`: it need not go on.
    fn work(&mut self, mut work: Work, pieces: Vec<Bytes>) -> bool {
        let is_good = work.is_good;
        let account = self.account.clone();
        self.busy = tasks::begin_blocking(move || {
            for piece in pieces {
                work.came += piece.len() as u64;
                work.is_good =
                    work.is_good && work.checker.push(account.adapter.as_ref(), &piece, &mut work.input);
                work.keep()?;
            }
            Ok(work)
        });
        is_good
    }

    /// What the thread gives back.
    async fn done(&mut self) -> Result<Work, StoreError> {
        match (&mut self.busy).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::Internal(PANICKED.to_owned())),
        }
    }

    async fn finish(mut self, ahead: Option<UploadAhead>) -> Result<Staged, SubmitError> {
        let mut work = self.done().await?;
        let account = self.account;
        let finished = tasks::begin_blocking(move || {
            let checked = work.checker.finish(account.adapter.as_ref(), &mut work.input);
            work.spool.add(&work.input)?;
            // Whoever follows a spool that is not finished gets no whole file.
            Ok::<_, StoreError>(checked.map(|checked| (checked, work.spool.finish())))
        });
        let finished = finished.await.map_err(|_| StoreError::Internal(PANICKED.to_owned()))?;
        let (checked, spooled) = finished?.map_err(SubmitError::Input)?;
        Ok(Staged { checked, spooled, ahead })
    }
}

impl Work {
    /// Whether what is sent is what has come, so far.
    fn is_as_it_came(&self) -> bool {
        self.is_good && self.came == self.spool.length() + self.checker.held()
    }

    fn keep(&mut self) -> Result<(), StoreError> {
        self.spool.add(&self.input)?;
        self.input.clear();
        // One long line must not keep its memory for ever.
        self.input.shrink_to(4 * CHUNK);
        Ok(())
    }
}
