//! What a provider's own list tells of batches that ended before batchd came: read once, to learn from.

use super::poller::Poller;
use super::shared::Shared;
use crate::domain::batch::Batch;
use crate::domain::tracked::{BatchKey, Origin, Tracked};
use crate::domain::transition::observe;
use crate::domain::walk::{Onward, Walk};
use crate::http::failure::Verdict;
use crate::provider::{Page, PageRequest};
use crate::store::StoreError;
use std::sync::Arc;
use std::time::Duration;

/// Learns from the newest pages of the provider's list, in the background, within the account's budget; once, and if
/// it cannot be read to its end, again later, and then at the next start. It raises no events and tracks nothing.
pub(super) async fn learn(poller: Arc<Poller>, shared: Arc<Shared>) {
    for wait in TRIED_AFTER {
        if !pause(&poller, &shared, wait).await {
            return;
        }
        if !shared.polls(poller.name()) {
            continue;
        }
        match shared.store.has_learnt(poller.name().to_owned()).await {
            Ok(false) => {}
            Ok(true) => return,
            Err(error) => {
                tracing::debug!(provider = poller.name(), %error, "cannot read from the state whether the provider's list has been learnt from");
                continue;
            }
        }
        match read(&poller, &shared).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(provider = poller.name(), %error, "cannot store the durations learnt from the provider's list; trying again");
            }
        }
    }
}

/// `false`: there is no more to do, for the account or batchd stops.
async fn pause(poller: &Poller, shared: &Shared, wait: Duration) -> bool {
    tokio::select! {
        biased;
        () = shared.tasks.stopping().cancelled_owned() => false,
        () = poller.retired() => false,
        () = tokio::time::sleep(wait) => true,
    }
}

/// Reads the list; `false`: it is to be tried again.
async fn read(poller: &Poller, shared: &Shared) -> Result<bool, StoreError> {
    let mut request = PageRequest { limit: PAGE_SIZE, ..PageRequest::default() };
    let mut known = 0;
    let mut walk = Walk::default();
    for number in 1..=MAX_PAGES {
        let page = match poller.page(&request).await {
            None => return Ok(false),
            Some(Ok(page)) => page,
            // Not every account may list, and not every service can.
            Some(Err(failure)) if failure.verdict() == Verdict::Missing => Page::default(),
            Some(Err(failure)) => {
                tracing::debug!(
                    provider = poller.name(),
                    "cannot read the provider's list to learn durations from it: {failure}"
                );
                return Ok(false);
            }
        };
        let ended = ended(poller, shared, &page);
        known += ended.len();
        let ids = page.sightings.iter().map(|sighting| sighting.id.as_str());
        let done = walk.note(ids, page.next.as_deref()) != Onward::Read || number == MAX_PAGES;
        shared.store.learn(poller.name().to_owned(), ended, done).await?;
        shared.estimates.invalidate(poller.name());
        if done {
            break;
        }
        request.cursor = page.next;
        if !pause(poller, shared, BETWEEN_PAGES).await {
            return Ok(false);
        }
    }
    tracing::info!(
        provider = poller.name(),
        ended = known,
        "learnt from the provider's list how long its batches take"
    );
    Ok(true)
}

/// The batches of a page that have ended, as they would be if they were tracked.
fn ended(poller: &Poller, shared: &Shared, page: &Page) -> Vec<Batch> {
    let now = shared.clock.now();
    let about = |sighting: &crate::domain::sighting::Sighting| {
        let id = poller.canonical_id(&sighting.id);
        let about = poller.describe(&id);
        let key = BatchKey { provider: poller.name().to_owned(), id };
        Tracked::new(key, about.kind, about.endpoint, Origin::Baseline, now)
    };
    // Without the time of its creation no duration is known.
    let dated = page.sightings.iter().filter(|sighting| sighting.created_at.is_some());
    dated
        .map(|sighting| observe(&about(sighting), sighting, false, now).tracked.batch)
        .filter(|batch| batch.status.is_terminal())
        .collect()
}

/// The waits before each try; the first leaves the account to the batches that are tracked.
const TRIED_AFTER: [Duration; 3] =
    [Duration::from_secs(20), Duration::from_mins(10), Duration::from_hours(2)];
const BETWEEN_PAGES: Duration = Duration::from_secs(3);
/// Batches asked for with one page.
const PAGE_SIZE: u32 = 100;
const MAX_PAGES: u32 = 6;
