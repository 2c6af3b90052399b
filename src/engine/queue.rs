//! Submissions that wait for quota: each is created in its turn, once the provider takes it
//! (`docs/contract.md#waiting-for-quota`).

use super::intake::Staged;
use super::passed_on::PassedOn;
use super::submit::{Progress, SubmitRequest};
use super::{Engine, ProviderError, SubmitError};
use crate::domain::batch::{BatchError, BatchErrors, RequestCounts};
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use crate::domain::time::{earlier, later, since};
use crate::domain::tracked::{BatchKey, Lineage, Origin, QuotaWait, SUBMISSION_PREFIX, Tracked, WaitingFor};
use crate::domain::transition::observe;
use crate::failpoint;
use crate::http::failure::Failure;
use crate::logging::Recurring;
use crate::provider::input_checker::Overrides;
use crate::store::creations::Asked;
use crate::store::queue::Queued;
use crate::store::recording::Registered;
use crate::store::{Pk, StoreError};
use crate::sync::lock;
use crate::tasks::Pulse;
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// What waits for the same quota: a provider and a model.
type Line = (String, String);

/// What is to be created, as it is queued.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum QueuedRequest {
    /// From a file that is kept here.
    Kept(Box<SubmitRequest>),
    /// From a file that the provider has, by a request that is passed on as it came.
    Passed(Box<PassedOn>),
}

impl QueuedRequest {
    fn lineage(&mut self) -> &mut Lineage {
        match self {
            Self::Kept(request) => &mut request.lineage,
            Self::Passed(creation) => &mut creation.lineage,
        }
    }

    fn asked(self) -> Option<Asked> {
        match self {
            Self::Kept(request) => request.asked,
            Self::Passed(creation) => creation.asked,
        }
    }
}

/// What is known of a batch that is not created yet.
pub(super) struct Shown {
    pub endpoint: Option<String>,
    pub model: Option<String>,
    pub input_file: Option<String>,
    pub requests: Option<u64>,
}

/// When the first of a line is tried next, and how often in a row it was.
#[derive(Clone, Copy, Debug)]
struct Retry {
    tries: u32,
    at: Timestamp,
}

/// What one attempt has come to.
#[derive(Clone, Copy, Debug)]
enum Tried {
    /// It is no longer in the queue.
    Over,
    /// It waits, and is tried again after so long at the latest.
    Waits(Option<Duration>),
}

/// The lines whose first is being tried, and what the attempts have come to.
#[derive(Debug, Default)]
struct Attempts {
    busy: BTreeSet<Line>,
    retries: BTreeMap<Line, Retry>,
}

impl Engine {
    /// Creates a batch from a file that is kept, as [`Engine::submit`] does; if its provider takes no more for now, or
    /// others wait for that already, it waits in the queue and is shown as a batch of its own.
    pub async fn submit_or_wait(
        &self,
        mut request: SubmitRequest,
        staged: Staged,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Registered, SubmitError> {
        let checked = &staged.checked;
        let shown = Shown {
            endpoint: Some(checked.endpoint.clone()),
            model: checked.model.clone(),
            input_file: None,
            requests: Some(checked.requests),
        };
        let quota_wait = QuotaWait::new(
            &request.params,
            request.output_expires_after,
            &checked.endpoint,
            checked.model.as_deref(),
            self.shared.clock.now(),
        );
        request.lineage.quota_wait.get_or_insert_with(|| Box::new(quota_wait));
        let line = (request.provider.clone(), shown.model.clone().unwrap_or_default());
        let waiting = match self.behind_others(&line).await? {
            Some(waiting) => waiting,
            None => match Box::pin(self.submit(request.clone(), staged, progress)).await {
                Err(error) if error.is_for_now() => self.refused_at_first(&error),
                done => return done,
            },
        };
        self.queue_up(QueuedRequest::Kept(Box::new(request)), line, shown, waiting).await
    }

    /// The same with a request that is passed on as it came, as [`Engine::pass_on`] does.
    pub async fn pass_on_or_wait(&self, creation: PassedOn) -> Result<Registered, SubmitError> {
        let line = (creation.provider.clone(), String::new());
        let waiting = match self.behind_others(&line).await? {
            Some(waiting) => waiting,
            None => match Box::pin(self.pass_on(creation.clone())).await {
                Err(error) if error.is_for_now() => self.refused_at_first(&error),
                done => return done,
            },
        };
        let shown = Shown {
            endpoint: creation.endpoint.clone(),
            model: None,
            input_file: Some(creation.input_file.clone()),
            requests: None,
        };
        self.queue_up(QueuedRequest::Passed(Box::new(creation)), line, shown, waiting).await
    }

    /// What is waited for if others of the line wait already.
    async fn behind_others(&self, (provider, model): &Line) -> Result<Option<WaitingFor>, StoreError> {
        let waits = self.shared.store.is_queued(provider.clone(), model.clone()).await?;
        Ok(waits.then(|| WaitingFor {
            reason: "other submissions wait for the same quota before it".to_owned(),
            limit: None,
            usage: None,
            since: self.shared.clock.now(),
            tried_at: None,
        }))
    }

    fn refused_at_first(&self, error: &SubmitError) -> WaitingFor {
        let now = self.shared.clock.now();
        refused_for_now(error, now, now)
    }

    pub(super) async fn queue_up(
        &self,
        mut request: QueuedRequest,
        (provider, model): Line,
        shown: Shown,
        waiting_for: WaitingFor,
    ) -> Result<Registered, SubmitError> {
        let rng = &self.shared.rng;
        let id = format!("{SUBMISSION_PREFIX}{:016x}{:08x}", rng.bits(), rng.bits() >> 32);
        request.lineage().submission = Some(id.clone());
        let tracked = self.waiting_batch(&request, &provider, &id, shown, waiting_for)?;
        let queued = Queued {
            submission: id,
            provider,
            model,
            request: serde_json::to_string(&request)
                .map_err(|error| StoreError::Internal(error.to_string()))?,
            is_being_created: false,
        };
        let asked = request.asked();
        let registered = self.shared.store.enqueue(queued, tracked, asked, self.routes()).await?;
        self.shared.room.wake();
        let key = &registered.tracked.key;
        let reason = registered.tracked.waiting_for.as_ref().map_or("", |waiting| &waiting.reason);
        tracing::info!(provider = key.provider, batch = key.id, "{key} waits to be created: {reason}");
        Ok(registered)
    }

    /// The batch as which a submission is shown while it waits.
    fn waiting_batch(
        &self,
        request: &QueuedRequest,
        provider: &str,
        id: &str,
        shown: Shown,
        waiting_for: WaitingFor,
    ) -> Result<Tracked, ProviderError> {
        let known = self.describe(provider, id)?;
        let key = BatchKey { provider: provider.to_owned(), id: id.to_owned() };
        let endpoint = shown.endpoint.unwrap_or_else(|| known.endpoint.to_owned());
        let mut tracked = Tracked::new(key, known.kind, endpoint, Origin::Hand, waiting_for.since);
        tracked.next_poll_at = None;
        let metadata = match request {
            QueuedRequest::Kept(request) => {
                tracked.owner.clone_from(&request.owner);
                tracked.uploaded_file.clone_from(&request.uploaded_file);
                tracked.lineage.clone_from(&request.lineage);
                request.user_fields.apply(&mut tracked);
                tracked.batch.completion_window.clone_from(&request.completion_window);
                &request.metadata
            }
            QueuedRequest::Passed(creation) => {
                tracked.owner.clone_from(&creation.owner);
                tracked.lineage.clone_from(&creation.lineage);
                &creation.metadata
            }
        };
        if !metadata.is_empty() {
            tracked.batch.metadata = Some(metadata.clone());
        }
        tracked.batch.model = shown.model;
        tracked.batch.input_file_id = shown.input_file.unwrap_or_default();
        let counts = |total| RequestCounts { total, completed: 0, failed: 0 };
        tracked.batch.request_counts = shown.requests.map(counts);
        tracked.waiting_for = Some(waiting_for);
        Ok(tracked)
    }

    /// Takes a submission out of the queue because somebody wants that. `false`: it does not wait any more, or its batch
    /// is being created at this moment.
    pub async fn cancel_wait(&self, pk: Pk, waiting: &Tracked) -> Result<bool, StoreError> {
        let now = self.shared.clock.now();
        let sighting = Sighting {
            status: Some(Status::Cancelled),
            cancelled_at: Some(now.as_second()),
            ..Sighting::default()
        };
        self.end_wait(pk, waiting, &sighting).await
    }

    async fn end_wait(&self, pk: Pk, waiting: &Tracked, sighting: &Sighting) -> Result<bool, StoreError> {
        let before = Tracked { waiting_for: None, ..waiting.clone() };
        let mut step = observe(&before, sighting, false, self.shared.clock.now());
        step.tracked.settled = true;
        step.warnings.clear();
        let ended = self.shared.store.end_wait(pk, step, self.routes()).await?;
        self.shared.room.wake();
        Ok(ended)
    }

    /// Has the submissions of a provider tried now.
    pub fn try_queue(&self, provider: &str) {
        self.shared.room.made(provider);
    }

    /// Creates what waits in the queue, for as long as the daemon runs.
    pub async fn work_queue(self, pulse: Pulse) {
        let stopping = self.shared.tasks.stopping();
        let attempts: Arc<Mutex<Attempts>> = Arc::default();
        let (mut is_start, mut has_searched) = (true, false);
        let mut searching = Recurring::new("read which batches have failed from the state");
        let mut reading = Recurring::new("read which submissions wait for quota from the state");
        loop {
            pulse.beat();
            let mut failed = self.shared.room.take_failed();
            if !has_searched && let Some(found) = searching.note(self.failed_lately().await) {
                failed.extend(found);
                has_searched = true;
            }
            Box::pin(self.queue_failed(failed)).await;
            let roomy = self.shared.room.take();
            lock(&attempts).retries.retain(|(provider, _), _| !roomy.contains(provider));
            let waits = match reading.note(self.shared.store.heads_of_queue().await) {
                Some(heads) => {
                    let is_urgent = |provider: &String| is_start || roomy.contains(provider);
                    self.begin_attempts(&heads, &attempts, is_urgent);
                    is_start = false;
                    !heads.is_empty()
                }
                None => true,
            };
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = self.shared.room.changed() => {}
                () = tokio::time::sleep(if waits { CHECK_INTERVAL } else { IDLE_INTERVAL }) => {}
            }
        }
    }

    fn begin_attempts(
        &self,
        heads: &[Queued],
        attempts: &Arc<Mutex<Attempts>>,
        is_urgent: impl Fn(&String) -> bool,
    ) {
        let now = self.shared.clock.now();
        let mut known = lock(attempts);
        for head in heads {
            // Who keeps the input creates the batch, where the others do not have it.
            if !self.shared.polls(&head.provider) && self.shared.store.has_files_in_common() {
                continue;
            }
            let line = (head.provider.clone(), head.model.clone());
            // A clock that was set back must not put it off for long.
            let retry = known.retries.get(&line).copied();
            let is_early = retry.is_some_and(|retry| retry.at > now && retry.at <= later(now, MAX_WAIT));
            // One that was refused before it was queued is not asked for again at once.
            let refused_since =
                (retry.is_none() && !is_urgent(&head.provider)).then(|| earlier(now, FIRST_WAIT));
            if head.is_being_created || is_early || !known.busy.insert(line.clone()) {
                continue;
            }
            let (engine, head, attempts) = (self.clone(), head.clone(), attempts.clone());
            self.shared.tasks.spawn_tracked(async move {
                let attempt = Attempt { engine: engine.clone(), attempts, line: line.clone() };
                let tried = Box::pin(engine.attempt(&head, refused_since)).await;
                attempt.conclude(tried.unwrap_or_else(|error| {
                    tracing::error!(%error, "cannot work on the submissions that wait for quota");
                    Tried::Waits(None)
                }));
            });
        }
    }

    /// Tries to create the batch of a submission, unless it was refused after `refused_since`.
    async fn attempt(&self, head: &Queued, refused_since: Option<Timestamp>) -> Result<Tried, StoreError> {
        let Queued { submission, provider, request, .. } = head;
        let key = BatchKey { provider: provider.clone(), id: submission.clone() };
        let store = &self.shared.store;
        let Some((pk, waiting)) = store.get(key).await? else { return Ok(Tried::Over) };
        let Some(waits) = waiting.waiting_for.clone() else { return Ok(Tried::Over) };
        if waits.tried_at.zip(refused_since).is_some_and(|(tried_at, since)| tried_at > since) {
            return Ok(Tried::Waits(None));
        }
        let now = self.shared.clock.now();
        let quota_wait = waiting.lineage.quota_wait.as_ref();
        if let (Some(not_before), Some(_)) =
            (quota_wait.and_then(|quota_wait| quota_wait.not_before), refused_since)
            && not_before > now
        {
            return Ok(Tried::Waits(Some(since(now, not_before))));
        }
        let request = serde_json::from_str::<QueuedRequest>(request);
        if let Ok(request) = &request
            && !self.is_to_create(provider, request).await?
        {
            return Ok(Tried::Waits(None));
        }
        failpoint::reach("queue.attempt", || provider.clone());
        let error = match request {
            Ok(request) => match Box::pin(self.create_queued(request)).await {
                Ok(registered) => {
                    let created = &registered.tracked.key;
                    tracing::info!(
                        provider,
                        batch = created.id,
                        "{submission} has waited long enough: it is {created} now"
                    );
                    return Ok(Tried::Over);
                }
                Err(error) => error,
            },
            Err(error) => StoreError::Internal(format!("what was queued cannot be read: {error}")).into(),
        };
        let now = self.shared.clock.now();
        if let Some(sighting) = final_refusal(&error, now) {
            if self.end_wait(pk, &waiting, &sighting).await? {
                tracing::warn!(provider, batch = submission, "{submission} was not created: {error}");
            }
            return Ok(Tried::Over);
        }
        let wait = match &error {
            // Reconciling finds out what became of it.
            SubmitError::Lost { .. } => return Ok(Tried::Over),
            SubmitError::Stopping | SubmitError::Abandoned => return Ok(Tried::Waits(None)),
            error => error.failure().and_then(|failure| match failure {
                Failure::Status { retry_after, .. } => *retry_after,
                _ => None,
            }),
        };
        let waiting_for = refused_for_now(&error, waits.since, now);
        if waiting_for.reason != waits.reason {
            tracing::info!(provider, batch = submission, "{submission} waits on: {error}");
        }
        store.note_wait(provider.clone(), submission.clone(), waiting_for).await?;
        Ok(Tried::Waits(wait))
    }

    /// Whether it is for this daemon to create what is queued: for the one that polls the account, unless daemons keep
    /// inputs that the others do not have.
    async fn is_to_create(&self, provider: &str, request: &QueuedRequest) -> Result<bool, StoreError> {
        let store = &self.shared.store;
        let id = match request {
            QueuedRequest::Kept(request) if !store.has_files_in_common() => request.uploaded_file.clone(),
            _ => return Ok(self.shared.polls(provider)),
        };
        let id = id.unwrap_or_default();
        match store.file(id.clone(), Timestamp::UNIX_EPOCH).await? {
            Some(file) => Ok(store.file_content(&id, file.bytes).await?.is_some()),
            None => Ok(self.shared.polls(provider)),
        }
    }

    async fn create_queued(&self, request: QueuedRequest) -> Result<Registered, SubmitError> {
        let store = &self.shared.store;
        let request = match request {
            QueuedRequest::Kept(request) => *request,
            QueuedRequest::Passed(creation) => return Box::pin(self.pass_on(*creation)).await,
        };
        let id = request.uploaded_file.clone().unwrap_or_default();
        // It is kept for as long as it is needed, whenever it was to expire.
        let content = match store.file(id.clone(), Timestamp::UNIX_EPOCH).await? {
            Some(file) => store.file_content(&id, file.bytes).await?,
            None => None,
        };
        let Some(content) = content else {
            return Err(SubmitError::Cut(format!("the file {id} that it was to be created from is gone")));
        };
        let pieces = content.pieces().map_err(|error| error.to_string()).boxed();
        let staged = self.take_in(&request.provider, overrides(&request.lineage), pieces).await?;
        // Nobody watches.
        let (progress, _watching) = mpsc::channel(1);
        Box::pin(self.submit(request, staged, progress)).await
    }
}

/// As long as it is held, the first of its line is being tried.
struct Attempt {
    engine: Engine,
    attempts: Arc<Mutex<Attempts>>,
    line: Line,
}

impl Attempt {
    fn conclude(self, tried: Tried) {
        let now = self.engine.shared.clock.now();
        let mut attempts = lock(&self.attempts);
        match tried {
            Tried::Over => {
                attempts.retries.remove(&self.line);
            }
            Tried::Waits(told) => {
                let before = attempts.retries.get(&self.line).map_or(0, |retry| retry.tries);
                let usual = FIRST_WAIT.saturating_mul(1 << before.min(10));
                let wait = told.map_or(usual, |told| usual.max(told)).min(MAX_WAIT);
                let retry = Retry { tries: before.saturating_add(1), at: later(now, wait) };
                attempts.retries.insert(self.line.clone(), retry);
            }
        }
        drop(attempts);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        lock(&self.attempts).busy.remove(&self.line);
        self.engine.shared.room.wake();
    }
}

/// What the lines of the input are read with.
pub fn overrides(lineage: &Lineage) -> Overrides {
    Overrides {
        endpoint: lineage.endpoint.clone(),
        model: lineage.model.clone(),
        model_prefix: lineage.model_prefix.clone(),
    }
}

/// What a submission waits for after this.
fn refused_for_now(error: &SubmitError, since: Timestamp, now: Timestamp) -> WaitingFor {
    let quota = error.failure().and_then(Failure::quota).copied().unwrap_or_default();
    WaitingFor {
        reason: error.to_string(),
        limit: quota.limit,
        usage: quota.usage,
        since,
        tried_at: Some(now),
    }
}

/// What it means for the batch that it will never be created; `None`: it may be yet.
fn final_refusal(error: &SubmitError, now: Timestamp) -> Option<Sighting> {
    let one = |code: &str, message: String| {
        vec![BatchError { code: Some(code.to_owned()), message: Some(message), ..BatchError::default() }]
    };
    let data = match error {
        SubmitError::Input(problems) => problems
            .iter()
            .map(|problem| BatchError {
                code: Some("invalid_input".to_owned()),
                line: problem.lines.first().map(|(first, _)| *first),
                message: Some(problem.to_string()),
                ..BatchError::default()
            })
            .collect(),
        SubmitError::Cut(what) => one("file_missing", what.clone()),
        error => match error.failure()? {
            Failure::Unsupported(what) => one("not_supported", what.clone()),
            failure @ Failure::Status { status, .. } => {
                let may_be_mended = matches!(status.as_u16(), 401..=403 | 408 | 429);
                if !status.is_client_error() || may_be_mended || failure.quota().is_some() {
                    return None;
                }
                one("provider_refused", failure.to_string())
            }
            _ => return None,
        },
    };
    Some(Sighting {
        status: Some(Status::Failed),
        failed_at: Some(now.as_second()),
        errors: Some(BatchErrors { data, ..BatchErrors::default() }),
        ..Sighting::default()
    })
}

/// Between two checks whether it is somebody's turn.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The same while nobody waits.
const IDLE_INTERVAL: Duration = Duration::from_secs(30);
/// After how long it is tried again the first time; each time it is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// It is tried at least so often.
const MAX_WAIT: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::failure::Quota;
    use http::{HeaderMap, StatusCode};

    fn refused(status: u16, quota: Option<Quota>) -> SubmitError {
        let mut failure =
            Failure::from_status(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), None);
        if let Failure::Status { quota: told, .. } = &mut failure {
            *told = quota;
        }
        ProviderError::Provider { provider: "openai".to_owned(), failure }.into()
    }

    #[test]
    fn only_what_nobody_can_mend_is_final() {
        let now = Timestamp::UNIX_EPOCH;
        for status in [400, 404, 413, 422] {
            let sighting = final_refusal(&refused(status, None), now).unwrap();
            assert_eq!(sighting.status, Some(Status::Failed), "{status}");
            assert_eq!(sighting.errors.unwrap().data.len(), 1);
            assert_eq!(final_refusal(&refused(status, Some(Quota::default())), now), None);
        }
        for status in [401, 402, 403, 429, 500, 503] {
            assert_eq!(final_refusal(&refused(status, None), now), None, "{status}");
        }
        assert!(final_refusal(&SubmitError::Cut("gone".to_owned()), now).is_some());
        assert_eq!(final_refusal(&SubmitError::Stopping, now), None);
    }

    #[test]
    fn what_a_quota_or_a_rate_refuses_is_for_now() {
        assert!(refused(400, Some(Quota::default())).is_for_now() && refused(429, None).is_for_now());
        assert!(!refused(400, None).is_for_now() && !SubmitError::Stopping.is_for_now());
    }
}
