//! Submissions whose creation was not answered: the batch is searched for in the provider's list, and never created again.

use super::submission_search::{Search, SubmissionSearch};
use super::{Engine, ProviderError};
use crate::domain::time::{later, since};
use crate::logging::Recurring;
use crate::provider::submit::Created;
use crate::store::StoreError;
use crate::store::recording::{Registered, Registration};
use crate::store::submissions::Submission;
use crate::tasks::Pulse;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// When a submission is checked next, and how often it was.
#[derive(Debug)]
struct Retry {
    tries: u32,
    at: Timestamp,
    search: SubmissionSearch,
}

impl Engine {
    /// Sees to it, for as long as the daemon runs, that every open submission is closed: its batch is found and
    /// registered, or known not to exist, or a person is told.
    pub async fn reconcile(self, pulse: Pulse) {
        let stopping = self.shared.tasks.stopping();
        let mut retries = BTreeMap::new();
        let mut reading = Recurring::new("read the open submissions from the state");
        loop {
            pulse.beat();
            reading.note(self.check_submissions(&mut retries, &pulse).await);
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = self.shared.lost.notified() => {}
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
            }
        }
    }

    async fn check_submissions(
        &self,
        retries: &mut BTreeMap<String, Retry>,
        pulse: &Pulse,
    ) -> Result<(), StoreError> {
        let mut open = self.shared.store.submissions_not_awaited_elsewhere().await?;
        open.retain(|submission| {
            !self.shared.active_submissions.has(&submission.marker) && self.shared.polls(&submission.provider)
        });
        retries.retain(|marker, _| open.iter().any(|submission| submission.marker == *marker));
        for mut submission in open {
            let now = self.shared.clock.now();
            let retry = retries.entry(submission.marker.clone()).or_insert_with(|| Retry {
                tries: 0,
                at: now,
                search: SubmissionSearch::default(),
            });
            // A clock that was set back must not put it off for long.
            if retry.at > now && retry.at < later(now, MAX_WAIT) {
                continue;
            }
            if submission.lost_at.is_none() {
                // Whoever waited for the answer died with the process before.
                self.shared.store.lose_submission(submission.marker.clone(), now).await?;
                submission.lost_at = Some(now);
            }
            retry.tries += 1;
            let wait = CHECK_INTERVAL.saturating_mul(1 << retry.tries.min(6)).min(MAX_WAIT);
            retry.at = later(now, wait);
            let read_before = retry.search.pages();
            let checking = self.check_submission(&submission, &mut retry.search);
            let checked = tokio::time::timeout(CHECK_TIMEOUT, checking).await;
            let trouble = match checked {
                Ok(Ok(())) => None,
                Ok(Err(ProviderError::Store(error))) => return Err(error),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) if retry.search.pages() > read_before => None,
                Err(_) => Some(format!("{}: reading its list takes too long", submission.provider)),
            };
            if retry.search.is_under_way() && retry.search.pages() > read_before {
                // A long list is read on in a moment, from where it is.
                (retry.tries, retry.at) = (0, now);
            }
            if let Some(trouble) = trouble {
                self.doubt(
                    &submission,
                    submission.candidates.clone(),
                    format!("cannot search for it: {trouble}"),
                )
                .await?;
            }
            pulse.beat();
        }
        Ok(())
    }

    /// Searches once for the batch of `submission`, and stores what that means.
    async fn check_submission(
        &self,
        submission: &Submission,
        search: &mut SubmissionSearch,
    ) -> Result<(), ProviderError> {
        let Submission { provider, marker, file_name, .. } = submission;
        let account = self.account(provider)?;
        match self.search(&account, submission, search).await? {
            Search::Found(sighting) => {
                let created = Created { id: sighting.id.clone(), sighting: Some(*sighting) };
                let registration = self.registration(&account, submission, created)?;
                let found = self.complete(submission, registration).await?;
                let key = &found.tracked.key;
                tracing::info!(
                    provider,
                    batch = key.id,
                    "found {key}, whose creation from {file_name} had not been answered; it is tracked now"
                );
            }
            Search::Nothing { as_of }
                if since(submission.lost_at.unwrap_or(as_of), as_of) >= GIVEN_UP_AFTER =>
            {
                self.shared.store.drop_submission(marker.clone()).await?;
                tracing::warn!(
                    provider,
                    "no batch was created from {file_name}: its creation was not answered, and it is not in the \
                     provider's list; submit it again"
                );
            }
            Search::Nothing { .. } | Search::Unsettled => {}
            Search::Several(candidates) => {
                let trouble = format!(
                    "the creation of a batch from {file_name} was not answered, and several batches may be it; \
                     `batchd track` the right one"
                );
                self.doubt(submission, candidates, trouble).await?;
            }
        }
        Ok(())
    }

    /// Records that a person may have to decide, and says so once.
    async fn doubt(
        &self,
        submission: &Submission,
        candidates: Vec<String>,
        trouble: String,
    ) -> Result<(), StoreError> {
        if submission.trouble.as_ref() == Some(&trouble) && submission.candidates == candidates {
            return Ok(());
        }
        let provider = &submission.provider;
        if candidates.is_empty() {
            tracing::warn!(provider, "{trouble}");
        } else {
            tracing::warn!(provider, "{trouble}: {}", candidates.join(", "));
        }
        self.shared.store.doubt_submission(submission.marker.clone(), candidates, Some(trouble)).await
    }

    /// Registers the batch of `submission`, and closes that.
    pub(super) async fn complete(
        &self,
        submission: &Submission,
        registration: Registration,
    ) -> Result<Registered, StoreError> {
        let marker = submission.marker.clone();
        // On the heap: whoever waits for it would carry several copies of what is registered.
        let completing = self.shared.store.complete_submission(marker, registration, self.routes());
        let registered = Box::pin(completing).await?;
        self.log_ends(std::slice::from_ref(&registered));
        let key = &registered.tracked.key;
        let status = registered.tracked.batch.status;
        tracing::info!(provider = key.provider, batch = key.id, %status, "submitted {key}");
        Ok(registered)
    }
}

/// Between two checks of all open submissions, and the first wait before one is checked again.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Each open submission is checked at least so often.
const MAX_WAIT: Duration = Duration::from_mins(5);
/// For checking one submission.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);
/// How long after the answer was lost a batch that is in no list may still come: the provider may have had all of the
/// request and work on it yet.
const GIVEN_UP_AFTER: Duration = Duration::from_mins(5);
