//! The search for the batch of a submission whose creation was not answered, through as many pages of the provider's list
//! as it takes.

use super::{Account, Engine, ProviderError};
use crate::domain::discovery::Reading;
use crate::domain::sighting::Sighting;
use crate::domain::time::earlier;
use crate::domain::tracked::{BatchKey, Origin};
use crate::domain::walk::Onward;
use crate::http::failure::Failure;
use crate::provider::submit::is_marked;
use crate::provider::{Page, PageRequest};
use crate::store::StoreError;
use crate::store::submissions::Submission;
use jiff::Timestamp;
use std::time::Duration;

/// The result of searching for a batch.
#[derive(Debug)]
pub(super) enum Search {
    /// This is the one.
    Found(Box<Sighting>),
    /// All of the list that can matter has been read, and it is not there (yet).
    Nothing {
        /// When that reading began.
        as_of: Timestamp,
    },
    /// It may be any of these.
    Several(Vec<String>),
    /// Another submission that is under way may have to do with it.
    Unsettled,
}

/// How far the list has been read for one submission. A search that fails or runs out of time goes on from there.
#[derive(Debug, Default)]
pub(super) struct SubmissionSearch {
    run: Option<Run>,
    /// How many pages were read for it, over all runs.
    pages: u64,
}

#[derive(Debug)]
struct Run {
    begun: Timestamp,
    reading: Reading,
    cursor: Option<String>,
    candidates: Vec<Sighting>,
    /// How often in a row the present page could not be had.
    failures: u32,
}

impl SubmissionSearch {
    pub(super) const fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether a part of the list is still to be read.
    pub(super) const fn is_under_way(&self) -> bool {
        self.run.is_some()
    }
}

impl Engine {
    /// Searches for the batch of `submission` in its provider's list.
    ///
    /// One that carries the mark is the one. Where a service keeps no marks, or the creation was passed on as it came, it
    /// is the only batch that was created while an answer was waited for, has as many requests (or the same input), and
    /// is not known to have been made or tracked by anybody; with several of them there is no telling.
    ///
    /// # Errors
    ///
    /// The page at which `search` is could not be had; the next call asks for it again.
    pub(super) async fn search(
        &self,
        account: &Account,
        submission: &Submission,
        search: &mut SubmissionSearch,
    ) -> Result<Search, ProviderError> {
        let about = |failure| ProviderError::Provider { provider: submission.provider.clone(), failure };
        let now = self.shared.clock.now();
        let SubmissionSearch { run: slot, pages } = search;
        loop {
            let run = slot.get_or_insert_with(|| Run {
                begun: now,
                reading: Reading::back_to(earlier(submission.begun_at, SLACK)),
                cursor: None,
                candidates: Vec::new(),
                failures: 0,
            });
            let request =
                PageRequest { cursor: run.cursor.clone(), limit: PAGE_SIZE, ..PageRequest::default() };
            let listed = match page_of(account, &request).await {
                Ok(listed) => listed,
                Err(failure) => {
                    run.failures += 1;
                    if run.failures >= MAX_FAILURES {
                        // The place in the list may be what is wrong.
                        *slot = None;
                    }
                    return Err(about(failure));
                }
            };
            (run.failures, *pages) = (0, *pages + 1);
            let onward = run.reading.note(&listed.sightings, listed.next.as_deref());
            run.cursor = listed.next;
            if let Some(found) = self.pick(account, submission, listed.sightings, &mut run.candidates).await?
            {
                *slot = None;
                return Ok(Search::Found(Box::new(found)));
            }
            match onward {
                Onward::Read => {}
                Onward::NoProgress => {
                    *slot = None;
                    return Err(about(Failure::Malformed(NO_PROGRESS.to_owned())));
                }
                Onward::End => {
                    let (as_of, candidates) = (run.begun, std::mem::take(&mut run.candidates));
                    *slot = None;
                    return self.conclude(submission, candidates, as_of).await.map_err(Into::into);
                }
            }
        }
    }

    /// The batch of `submission` among `sightings`, if it is certain; what may be it goes to `candidates`.
    async fn pick(
        &self,
        account: &Account,
        submission: &Submission,
        sightings: Vec<Sighting>,
        candidates: &mut Vec<Sighting>,
    ) -> Result<Option<Sighting>, StoreError> {
        let marks = submission.input_file.is_none()
            && account.adapter.intake(&submission.endpoint).map_or(true, |intake| intake.marks);
        if marks {
            return Ok(sightings.into_iter().find(|sighting| is_marked(sighting, &submission.marker)));
        }
        let slack = i64::try_from(SLACK.as_secs()).unwrap_or(i64::MAX);
        let from = submission.begun_at.as_second() - slack;
        let until = submission.lost_at.unwrap_or_else(|| self.shared.clock.now()).as_second() + slack;
        for sighting in sightings {
            let is_new = candidates.iter().all(|candidate| candidate.id != sighting.id);
            if is_new
                && may_be_of(&sighting, from, until)
                && is_of_input(&sighting, submission)
                && !self.is_taken(&submission.provider, &sighting.id).await?
            {
                candidates.push(sighting);
            }
        }
        Ok(None)
    }

    /// What it means that just `candidates` may be the batch of `submission`.
    async fn conclude(
        &self,
        submission: &Submission,
        mut candidates: Vec<Sighting>,
        as_of: Timestamp,
    ) -> Result<Search, StoreError> {
        if candidates.is_empty() {
            return Ok(Search::Nothing { as_of });
        }
        let open = self.shared.store.submissions().await?;
        let rivals: Vec<&Submission> = open
            .iter()
            .filter(|other| other.marker != submission.marker)
            .filter(|other| other.provider == submission.provider && other.requests == submission.requests)
            .filter(|other| other.input_file == submission.input_file)
            .collect();
        if rivals
            .iter()
            .any(|rival| rival.lost_at.is_none() && self.shared.active_submissions.has(&rival.marker))
        {
            return Ok(Search::Unsettled);
        }
        if candidates.len() == 1 && rivals.is_empty() {
            let only = candidates.pop();
            return Ok(only.map_or(Search::Nothing { as_of }, |only| Search::Found(Box::new(only))));
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

async fn page_of(account: &Account, request: &PageRequest) -> Result<Page, Failure> {
    let answer = account.send(account.adapter.list(request)?).await?;
    account.read(&answer, |adapter| adapter.listed(request, &answer))
}

/// Whether it may have been created in that time; a service that tells only the day leaves it open.
fn may_be_of(sighting: &Sighting, from: i64, until: i64) -> bool {
    match (sighting.created_at, sighting.created_before) {
        (Some(at), _) => (from..=until).contains(&at),
        (None, Some(before)) => (from..=until.saturating_add(DAY)).contains(&before),
        (None, None) => false,
    }
}

/// Whether it has as many requests as the submission, or the provider's file that this was created from.
fn is_of_input(sighting: &Sighting, submission: &Submission) -> bool {
    match &submission.input_file {
        Some(file) => sighting.input_file_id.as_ref().is_none_or(|told| told == file),
        None => sighting.request_counts.is_none_or(|counts| counts.total == submission.requests),
    }
}

/// How far a provider's clock may be from this one.
const SLACK: Duration = Duration::from_mins(2);
/// In seconds.
const DAY: i64 = 86_400;
/// Batches asked for with one page.
const PAGE_SIZE: u32 = 100;
/// After so many failures in a row the list is read from the beginning.
const MAX_FAILURES: u32 = 5;
/// Why a list cannot be searched.
const NO_PROGRESS: &str = "its list repeats itself, shows no batch or is too long";
