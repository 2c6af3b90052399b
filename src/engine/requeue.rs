//! Batches that wait for quota and whose provider took them, and failed them for that quota afterwards: their requests are
//! queued again (`docs/contract.md#waiting-for-quota`).

use super::queue::{QueuedRequest, Shown};
use super::submit::{RESUBMITS, SubmitRequest};
use super::{Engine, ProviderError, SubmitError};
use crate::domain::status::Status;
use crate::domain::time::{earlier, later, since};
use crate::domain::tracked::{BatchKey, Lineage, QuotaWait, Tracked, WaitingFor};
use crate::domain::user_fields::{UserFields, name_again};
use crate::failpoint;
use crate::http::failure::Quota;
use crate::provider::quota;
use crate::provider::submit::MARKER;
use crate::store::StoreError;
use crate::store::batches::BatchFilter;
use jiff::Timestamp;
use std::time::Duration;

/// Which quota a batch was failed for before anything of it ran; `None`: it was not.
pub(super) fn failed_for_quota(tracked: &Tracked) -> Option<Quota> {
    let batch = &tracked.batch;
    let has_run = batch.request_counts.is_some_and(|counts| counts.completed > 0) || batch.has_output();
    if batch.status != Status::Failed || has_run {
        return None;
    }
    batch.errors.as_ref().and_then(quota::of_batch)
}

impl Engine {
    /// Batches that may have been failed for their quota while nobody was there to queue them again.
    pub(super) async fn failed_lately(&self) -> Result<Vec<BatchKey>, StoreError> {
        let begin = earlier(self.shared.clock.now(), GIVE_UP_AFTER * 2).as_second();
        let filter = BatchFilter {
            statuses: vec![Status::Failed],
            created_since: Some(begin),
            ..BatchFilter::default()
        };
        let failed = self.shared.store.list(filter).await?.0.into_iter().map(|(_, tracked)| tracked);
        let waits = |tracked: &Tracked| tracked.lineage.quota_wait.is_some();
        Ok(failed
            .filter(|tracked| waits(tracked) && failed_for_quota(tracked).is_some())
            .map(|tracked| tracked.key)
            .collect())
    }

    /// Queues again those of the batches that were failed for their quota; one with which that does not work is kept for
    /// the next time.
    pub(super) async fn queue_failed(&self, batches: Vec<BatchKey>) {
        for key in batches {
            match Box::pin(self.queue_if_failed(&key)).await {
                Ok(()) => continue,
                Err(error @ SubmitError::Provider(ProviderError::NoProvider(_))) => {
                    tracing::debug!(batch = key.id, "{key} is not queued again for now: {error}");
                }
                Err(error) => tracing::error!(%error, "cannot queue {key} again; trying again"),
            }
            self.shared.room.failed_again(key);
        }
    }

    async fn queue_if_failed(&self, key: &BatchKey) -> Result<(), SubmitError> {
        let Some((_, tracked)) = self.shared.store.get(key.clone()).await? else { return Ok(()) };
        match failed_for_quota(&tracked) {
            Some(quota) => self.queue_again(&tracked, quota).await,
            None => Ok(()),
        }
    }

    async fn queue_again(&self, tracked: &Tracked, quota: Quota) -> Result<(), SubmitError> {
        let Tracked { key, lineage, .. } = tracked;
        let (Some(quota_wait), true) = (&lineage.quota_wait, tracked.resubmitted_by.is_empty()) else {
            return Ok(());
        };
        if tracked.untracked_at.is_some() || self.is_being_repeated(key).await? {
            return Ok(());
        }
        let now = self.shared.clock.now();
        let given_up = |why: &str| {
            tracing::warn!(
                provider = key.provider,
                batch = key.id,
                "{key} failed for its quota and is not queued again: {why}"
            );
        };
        if since(quota_wait.since, now) > GIVE_UP_AFTER {
            given_up("it has been tried for a day");
            return Ok(());
        }
        let file = match &tracked.uploaded_file {
            Some(file) => self.shared.store.file(file.clone(), Timestamp::UNIX_EPOCH).await?,
            None => None,
        };
        let Some(file) = file else {
            given_up("its input is not kept here any more");
            return Ok(());
        };
        failpoint::reach("queue.again", || key.provider.clone());
        let request = again(tracked, quota_wait, file.name, now);
        let shown = Shown {
            endpoint: Some(quota_wait.endpoint.clone()),
            model: quota_wait.model.clone(),
            input_file: None,
            requests: tracked.batch.request_counts.map(|counts| counts.total).filter(|total| *total > 0),
        };
        let mut words = tracked.batch.errors.iter().flat_map(|errors| &errors.data);
        let words = words.find_map(|error| error.message.as_deref()).unwrap_or("its quota was used up");
        let waiting = WaitingFor {
            reason: format!("{} took it as {} and failed it: {words}", key.provider, key.id),
            limit: quota.limit,
            usage: quota.usage,
            since: quota_wait.since,
            tried_at: Some(now),
        };
        let line = (key.provider.clone(), quota_wait.model.clone().unwrap_or_default());
        let registered = self.queue_up(QueuedRequest::Kept(Box::new(request)), line, shown, waiting).await?;
        tracing::info!(
            provider = key.provider,
            batch = key.id,
            "{key} failed for its quota; it waits as {} to be created again",
            registered.tracked.key
        );
        Ok(())
    }

    /// Whether its requests are just being submitted again, by hand.
    async fn is_being_repeated(&self, key: &BatchKey) -> Result<bool, SubmitError> {
        let open = self.shared.store.submissions().await?;
        Ok(open
            .iter()
            .any(|one| one.provider == key.provider && one.lineage.resubmits.as_ref() == Some(&key.id)))
    }
}

/// The same once more, with all that the batch was given.
fn again(tracked: &Tracked, quota_wait: &QuotaWait, file_name: String, now: Timestamp) -> SubmitRequest {
    let mut metadata = tracked.batch.metadata.clone().unwrap_or_default();
    metadata.remove(MARKER);
    metadata.insert(RESUBMITS.to_owned(), tracked.key.id.clone());
    let tries = quota_wait.tries.saturating_add(1);
    let wait = FIRST_WAIT.saturating_mul(1 << tries.min(10)).min(MAX_WAIT);
    SubmitRequest {
        provider: tracked.key.provider.clone(),
        file_name,
        completion_window: tracked.batch.completion_window.clone(),
        metadata,
        user_fields: UserFields {
            name: tracked.name.as_deref().map(name_again),
            labels: tracked.labels.clone(),
            notify_also: tracked.notify.also.clone(),
            notify_nobody: tracked.notify.nobody.then_some(true),
            deadline: tracked.deadline,
        },
        owner: tracked.owner.clone(),
        output_expires_after: quota_wait.output_expires_after,
        params: quota_wait.params.clone(),
        uploaded_file: tracked.uploaded_file.clone(),
        lineage: Lineage {
            submission: None,
            resubmits: Some(tracked.key.id.clone()),
            quota_wait: Some(Box::new(QuotaWait {
                tries,
                not_before: Some(later(now, wait)),
                ..quota_wait.clone()
            })),
            ..tracked.lineage.clone()
        },
        asked: None,
    }
}

/// For how long it is tried: in a day everything ends that was in its way.
const GIVE_UP_AFTER: Duration = Duration::from_hours(24);
/// After how long it is created again, unless another batch ends before; each time it is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(30);
const MAX_WAIT: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::batch::{BatchError, BatchErrors, RequestCounts};
    use crate::domain::tracked::Origin;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn failed(code: &str) -> Tracked {
        let key = BatchKey { provider: "openai".to_owned(), id: "batch_1".to_owned() };
        let mut tracked = Tracked::new(key, "openai", "/v1/chat/completions", Origin::Hand, NOW);
        tracked.batch.status = Status::Failed;
        let message =
            "Enqueued token limit reached for m-1 in organization org-1. Limit: 90,000 enqueued tokens.";
        let error = BatchError {
            code: Some(code.to_owned()),
            message: Some(message.to_owned()),
            ..BatchError::default()
        };
        tracked.batch.errors = Some(BatchErrors { data: vec![error], ..BatchErrors::default() });
        let quota_wait = QuotaWait::new(&SubmitRequest::default().params, None, "/v1/x", Some("m-1"), NOW);
        tracked.lineage.quota_wait = Some(Box::new(quota_wait));
        tracked
    }

    #[test]
    fn only_what_failed_for_a_quota_and_never_ran_is_meant() {
        let tracked = failed("token_limit_exceeded");
        assert_eq!(failed_for_quota(&tracked).unwrap().limit, Some(90_000));
        let mut ran = tracked.clone();
        ran.batch.request_counts = Some(RequestCounts { total: 2, completed: 1, failed: 1 });
        assert_eq!(failed_for_quota(&ran), None);
        let mut other = tracked.clone();
        other.batch.errors.as_mut().unwrap().data[0].message = Some("line 3 is no JSON".to_owned());
        other.batch.errors.as_mut().unwrap().data[0].code = Some("invalid_json_line".to_owned());
        assert_eq!(failed_for_quota(&other), None);
        let mut expired = tracked;
        expired.batch.status = Status::Expired;
        assert_eq!(failed_for_quota(&expired), None);
    }

    #[test]
    fn each_time_it_waits_longer_and_keeps_what_it_was_given() {
        let mut tracked = failed("token_limit_exceeded");
        tracked.name = Some("nightly".to_owned());
        tracked.uploaded_file = Some("file-1".to_owned());
        let mut waits = Vec::new();
        for _ in 0..7 {
            let quota_wait = tracked.lineage.quota_wait.clone().unwrap();
            let request = again(&tracked, &quota_wait, "in.jsonl".to_owned(), NOW);
            assert_eq!(request.lineage.resubmits.as_deref(), Some("batch_1"));
            assert_eq!(
                (request.lineage.submission.as_ref(), request.uploaded_file.as_deref()),
                (None, Some("file-1"))
            );
            let quota_wait = request.lineage.quota_wait.clone().unwrap();
            assert_eq!(quota_wait.since, NOW);
            waits.push(since(NOW, quota_wait.not_before.unwrap()).as_secs());
            tracked.name = request.user_fields.name;
            tracked.lineage = request.lineage;
        }
        assert_eq!(waits, [60, 120, 240, 480, 600, 600, 600]);
        assert_eq!(tracked.name.as_deref(), Some("nightly-again-7"));
    }
}
