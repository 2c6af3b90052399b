//! Submissions whose creation was not answered: the batch is searched for in the provider's list, and never created again.

use super::{Account, Engine, ProviderError};
use crate::domain::sighting::Sighting;
use crate::domain::time::{later, since};
use crate::domain::tracked::{BatchKey, Origin};
use crate::domain::walk::{Onward, Walk};
use crate::provider::PageRequest;
use crate::provider::submit::{Created, is_marked};
use crate::store::StoreError;
use crate::store::recording::{Registered, Registration};
use crate::store::submissions::Submission;
use crate::tasks::Pulse;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// The result of searching for a batch.
#[derive(Debug)]
pub(super) enum Search {
    /// This is the one.
    Found(Box<Sighting>),
    /// It is not there (yet).
    Nothing,
    /// It may be any of these.
    Several(Vec<String>),
    /// Another submission that is under way may have to do with it.
    Unsettled,
}

/// When a submission is checked next, and how often it was.
#[derive(Clone, Copy, Debug)]
struct Retry {
    tries: u32,
    at: Timestamp,
}

impl Engine {
    /// Sees to it, for as long as the daemon runs, that every open submission is closed: its batch is found and
    /// registered, or known not to exist, or a person is told.
    pub async fn reconcile(self, pulse: Pulse) {
        let stopping = self.shared.tasks.stopping();
        let mut retries = BTreeMap::new();
        loop {
            pulse.beat();
            if let Err(error) = self.check_submissions(&mut retries, &pulse).await {
                tracing::error!(%error, "cannot read the open submissions from the state; trying again");
            }
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
        let mut open = self.shared.store.submissions().await?;
        open.retain(|submission| !self.shared.active_submissions.has(&submission.marker));
        retries.retain(|marker, _| open.iter().any(|submission| submission.marker == *marker));
        for mut submission in open {
            let now = self.shared.clock.now();
            let retry = retries.entry(submission.marker.clone()).or_insert(Retry { tries: 0, at: now });
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
            let checked = tokio::time::timeout(CHECK_TIMEOUT, self.check_submission(&submission, now)).await;
            let trouble = match checked {
                Ok(Ok(())) => None,
                Ok(Err(ProviderError::Store(error))) => return Err(error),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("{}: reading its list takes too long", submission.provider)),
            };
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
    async fn check_submission(&self, submission: &Submission, now: Timestamp) -> Result<(), ProviderError> {
        let Submission { provider, marker, file_name, .. } = submission;
        let account = self.account(provider)?;
        match self.search(&account, submission).await? {
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
            Search::Nothing if since(submission.lost_at.unwrap_or(now), now) >= GIVEN_UP_AFTER => {
                self.shared.store.drop_submission(marker.clone()).await?;
                tracing::warn!(
                    provider,
                    "no batch was created from {file_name}: its creation was not answered, and it is not in the \
                     provider's list; submit it again"
                );
            }
            Search::Nothing | Search::Unsettled => {}
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
        let registered = self.shared.store.complete_submission(marker, registration, self.routes()).await?;
        self.log_ends(std::slice::from_ref(&registered));
        let key = &registered.tracked.key;
        let status = registered.tracked.batch.status;
        tracing::info!(provider = key.provider, batch = key.id, %status, "submitted {key}");
        Ok(registered)
    }

    /// Searches for the batch of `submission` in its provider's list.
    ///
    /// One that carries the mark is the one. Where a service keeps no marks, it is the only batch that was created while
    /// an answer was waited for, has as many requests, and is not known to have been made or tracked by anybody; with
    /// several of them there is no telling.
    pub(super) async fn search(
        &self,
        account: &Account,
        submission: &Submission,
    ) -> Result<Search, ProviderError> {
        let adapter = account.adapter.as_ref();
        let about = |failure| ProviderError::Provider { provider: submission.provider.clone(), failure };
        let marks = adapter.intake(&submission.endpoint).map_or(true, |intake| intake.marks);
        let from = submission.begun_at.as_second() - SLACK;
        let until = submission.lost_at.unwrap_or_else(|| self.shared.clock.now()).as_second() + SLACK;
        let mut page = PageRequest { limit: PAGE_SIZE, ..PageRequest::default() };
        let mut candidates = Vec::new();
        let mut walk = Walk::default();
        for _ in 0..MAX_PAGES {
            let call = adapter.list(&page).map_err(about)?;
            let answer = account.send(call).await.map_err(about)?;
            let listed = account.read(&answer, |adapter| adapter.listed(&page, &answer)).map_err(about)?;
            let mut older = 0;
            let count = listed.sightings.len();
            let ids = listed.sightings.iter().map(|sighting| sighting.id.as_str());
            let onward = walk.note(ids, listed.next.as_deref());
            for sighting in listed.sightings {
                if marks {
                    if is_marked(&sighting, &submission.marker) {
                        return Ok(Search::Found(Box::new(sighting)));
                    }
                } else if may_be_of(&sighting, from, until)
                    && sighting.request_counts.is_none_or(|counts| counts.total == submission.requests)
                    && !self.is_taken(&submission.provider, &sighting.id).await?
                {
                    candidates.push(sighting.clone());
                }
                older += usize::from(sighting.created_by().is_some_and(|at| at < from));
            }
            // An empty page is no end, one that shows only what is older is.
            if onward != Onward::Read || (count > 0 && older == count) {
                break;
            }
            page.cursor = listed.next;
        }
        if candidates.is_empty() {
            return Ok(Search::Nothing);
        }
        let open = self.shared.store.submissions().await?;
        let rivals: Vec<&Submission> = open
            .iter()
            .filter(|other| other.marker != submission.marker)
            .filter(|other| other.provider == submission.provider && other.requests == submission.requests)
            .collect();
        if rivals
            .iter()
            .any(|rival| rival.lost_at.is_none() && self.shared.active_submissions.has(&rival.marker))
        {
            return Ok(Search::Unsettled);
        }
        if candidates.len() == 1 && rivals.is_empty() {
            return Ok(candidates.pop().map_or(Search::Nothing, |only| Search::Found(Box::new(only))));
        }
        Ok(Search::Several(candidates.into_iter().map(|sighting| sighting.id).collect()))
    }

    /// Whether somebody has made or tracked that batch; one that was merely found may be anybody's.
    async fn is_taken(&self, provider: &str, id: &str) -> Result<bool, StoreError> {
        let key = BatchKey { provider: provider.to_owned(), id: self.canonical_id(provider, id) };
        let known = self.shared.store.get(key).await?;
        Ok(known.is_some_and(|(_, tracked)| tracked.origin == Origin::Hand))
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
/// How far a provider's clock may be from this one, in seconds.
const SLACK: i64 = 120;
/// Whether it may have been created in that time; a service that tells only the day leaves it open.
fn may_be_of(sighting: &Sighting, from: i64, until: i64) -> bool {
    match (sighting.created_at, sighting.created_before) {
        (Some(at), _) => (from..=until).contains(&at),
        (None, Some(before)) => (from..=until.saturating_add(DAY)).contains(&before),
        (None, None) => false,
    }
}

/// In seconds.
const DAY: i64 = 86_400;
/// How many pages of a list are searched: more batches are not created while an answer is waited for.
const MAX_PAGES: u32 = 20;
/// Batches asked for with one page.
const PAGE_SIZE: u32 = 100;
