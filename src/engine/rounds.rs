//! Rounds: where pages of the list cost less than checking each batch that is due, pages are read.
//!
//! A page is a check of every batch on it that is on the schedule, due or not. What it does not show where it should is
//! retrieved; a list alone never says that a batch is gone. A list that cannot be read is left alone for a while, and
//! everything is retrieved meanwhile.

use super::due::{Claim, Mark, Next, Unchanged};
use super::lists::{Extent, places};
use super::poll;
use super::poller::Poller;
use super::unchanged::{self, Item, ShownPage};
use crate::domain::bookmarks::{Place, Reading};
use crate::domain::rounds::{Shown, choose};
use crate::domain::sighting::Sighting;
use crate::domain::time::{later, since};
use crate::domain::tracked::Tracked;
use crate::domain::transition::Step;
use crate::domain::walk::{Onward, Walk};
use crate::http::call::Answer;
use crate::http::failure::{Failure, Verdict};
use crate::provider::{Listing, PageRequest, Provider, page_items};
use crate::store::{Pk, StoreError};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A list that is being read.
struct Pages {
    listing: Listing,
    /// Whether only live batches are listed.
    live: bool,
    reading: Reading,
    walk: Walk,
    /// How many pages have come, one after another.
    number: usize,
    extent: Extent,
    /// Of what nobody has ever seen, how much the last page has shown.
    found: f64,
}

impl Pages {
    fn request(&self, cursor: Option<&str>) -> PageRequest {
        PageRequest {
            cursor: cursor.map(str::to_owned),
            limit: self.listing.size,
            live_only: self.live,
            ..PageRequest::default()
        }
    }
}

/// A round under way; whatever happens to it, what was left to it is on the schedule again afterwards.
pub(super) struct Round {
    poller: Arc<Poller>,
    _claim: Claim,
}

impl Drop for Round {
    fn drop(&mut self) {
        let now = self.poller.now();
        // Claimed and not settled is only what the round died of.
        let again = later(now, self.poller.plan().min_interval);
        self.poller.due().end_round(again, now);
        self.poller.wake();
    }
}

impl Round {
    /// Over what has been left to it on `poller`'s schedule, where a round has begun.
    pub(super) fn of(poller: Arc<Poller>, claim: Claim) -> Self {
        Self { poller, _claim: claim }
    }

    /// Reads pages for as long as they are worth it.
    pub(super) async fn run(self) {
        let Some(listing) = self.poller.adapter().listing() else { return };
        if listing.by_id > 0 {
            self.by_ids(listing).await;
            return;
        }
        let way = {
            let due = self.poller.due();
            let wanted = due.expected();
            self.poller.lists(|lists| lists.way(&wanted, &due)).flatten()
        };
        let live = if way == Some(true) { self.pages(listing, true).await } else { Some(Extent::Nothing) };
        let Some(live) = live else { return };
        // What has ended is missing from the live ones: if it is much, the whole list shows it.
        let Some(all) = self.pages(listing, false).await else { return };
        let mut due = self.poller.due();
        for wanted in due.expected() {
            let missing = self.poller.lists(|lists| {
                live.should_show(lists.outline(true), wanted) || all.should_show(lists.outline(false), wanted)
            });
            if missing == Some(true) {
                due.release(wanted.pk, true);
            }
        }
    }

    /// Asks for what is wanted by its ids, as many at once as the service takes.
    async fn by_ids(&self, listing: Listing) {
        let wanted: Vec<Pk> = self.poller.due().expected().into_iter().map(|wanted| wanted.pk).collect();
        let size = usize::try_from(listing.by_id).unwrap_or(usize::MAX);
        for chunk in wanted.chunks(size) {
            let ids = match self.poller.store().ids(chunk.to_vec()).await {
                Ok(ids) => ids,
                Err(error) => return self.cannot_store(&error),
            };
            let request = PageRequest { limit: listing.by_id, ids, ..PageRequest::default() };
            tokio::task::yield_now().await;
            self.poller.due().watch();
            let page = match self.ask(&request, (0, &[])).await {
                Some(Ok((page, _))) => page,
                Some(Err(failure)) => return self.cannot_read(&failure).unwrap_or_default(),
                None => return,
            };
            if self.take_in(page).await.is_none() {
                return;
            }
            let mut due = self.poller.due();
            for pk in chunk {
                due.release(*pk, true);
            }
        }
    }

    /// Reads the list from its newest batch on, as far as that is worth it; `None`: the round is over.
    async fn pages(&self, listing: Listing, live: bool) -> Option<Extent> {
        let bookmarks = self.poller.lists(|lists| std::mem::take(lists.bookmarks(live))).unwrap_or_default();
        let mut pages = Pages {
            listing,
            live,
            reading: Reading::new(bookmarks),
            walk: Walk::past(self.poller.due().counts().0),
            number: 0,
            extent: Extent::Nothing,
            found: 1.0,
        };
        let read = self.read(&mut pages).await;
        if listing.behind_any {
            let bookmarks = pages.reading.finish(pages.extent == Extent::Whole);
            self.poller.lists(|lists| *lists.bookmarks(live) = bookmarks);
        }
        read.map(|()| pages.extent)
    }

    /// The same, with what is known of the reading in `pages`.
    async fn read(&self, pages: &mut Pages) -> Option<()> {
        let mut left = 0;
        loop {
            if left == 0 {
                left = self.worth_reading(pages);
            }
            if left == 0 {
                return Some(());
            }
            let (first, ahead) = pages.reading.ahead(if pages.listing.behind_any { left } else { 0 });
            let onward = if ahead.len() > 1 {
                left -= ahead.len();
                let ahead = ahead.to_vec();
                self.side_by_side(pages, first, ahead).await?
            } else {
                left -= 1;
                self.one(pages).await?
            };
            match onward {
                Onward::Read => {}
                Onward::End => {
                    pages.extent = Extent::Whole;
                    return Some(());
                }
                Onward::NoProgress => {
                    let provider = self.poller.name();
                    tracing::warn!(
                        provider,
                        "the provider's list repeats itself or shows nothing; what it has not shown is retrieved"
                    );
                    return Some(());
                }
            }
        }
    }

    /// Reads the page behind the one before.
    async fn one(&self, pages: &mut Pages) -> Option<Onward> {
        let request = pages.request(pages.reading.next());
        // Whoever waited for the slot of the page before comes first.
        tokio::task::yield_now().await;
        self.poller.due().watch();
        let (page, shows) = match self.ask(&request, pages.reading.expected()).await? {
            Ok(page) => page,
            Err(failure) => return self.cannot_read(&failure),
        };
        pages.reading.went_on(shows, page.page.next.as_deref());
        self.count(pages, page).await
    }

    /// Reads the pages behind these bookmarks, of which the first has this number, some of them at a time.
    async fn side_by_side(&self, pages: &mut Pages, first: usize, bookmarks: Vec<String>) -> Option<Onward> {
        let concurrency = self.poller.account().config.polling.concurrency as usize;
        // The other half is for what is retrieved.
        let at_once = (concurrency / 2).max(1);
        self.poller.due().watch();
        let asked: Vec<(usize, PageRequest, (usize, Vec<String>))> = (first..)
            .zip(bookmarks)
            .map(|(number, bookmark)| {
                let (next, expected) = pages.reading.expected_behind(number);
                (number, pages.request(Some(&bookmark)), (next, expected.to_vec()))
            })
            .collect();
        let answers = stream::iter(asked).map(|(number, request, (next, expected))| async move {
            tokio::task::yield_now().await;
            (number, self.ask(&request, (next, &expected)).await)
        });
        let answers = answers.buffered(at_once);
        tokio::pin!(answers);
        while let Some((number, answer)) = answers.next().await {
            let (page, shows) = match answer? {
                Ok(page) => page,
                // The batch that it was begun behind may be gone.
                Err(failure) if is_unknown_place(&failure) => match pages.reading.is_gone(number) {
                    Place::Next | Place::Behind => continue,
                    Place::Unknown => return Some(Onward::Read),
                },
                Err(failure) => return self.cannot_read(&failure),
            };
            // A service that does not know the place may begin anew, or show nothing.
            let next = page.page.next.as_deref();
            let is_elsewhere =
                page.items.is_empty() || next.is_some_and(|next| pages.walk.has_been_told(next));
            let place = if is_elsewhere {
                pages.reading.is_gone(number)
            } else {
                pages.reading.came(number, shows, next)
            };
            match place {
                Place::Next => match self.count(pages, page).await? {
                    Onward::Read => {}
                    other => return Some(other),
                },
                // What it shows is worth as much as ever.
                Place::Behind => drop(self.take_in(page).await?),
                Place::Unknown => {
                    self.take_in(page).await?;
                    return Some(Onward::Read);
                }
            }
        }
        Some(Onward::Read)
    }

    /// Takes in a page that goes on where the reading was.
    async fn count(&self, pages: &mut Pages, page: ShownPage) -> Option<Onward> {
        let unseen_before = self.poller.due().unseen();
        let onward = pages.walk.note(page.keys(), page.page.next.as_deref());
        let created_at = page.created_at();
        let count = page.items.len();
        let scheduled = self.take_in(page).await?;
        if unseen_before > 0 && count > 0 {
            let now_seen = unseen_before.saturating_sub(self.poller.due().unseen());
            pages.found = ratio(now_seen, count.min(unseen_before));
        }
        pages.extent = pages.extent.with(created_at.iter().min().copied());
        let shown = Shown { batches: count, created_at, scheduled, last: onward != Onward::Read };
        self.poller.lists(|lists| lists.outline(pages.live).note(pages.number, &shown));
        pages.number += 1;
        Some(onward)
    }

    /// How many of the next pages are worth reading for what is left to the round or has become due meanwhile.
    fn worth_reading(&self, pages: &Pages) -> usize {
        let Pages { live, number, extent, found, .. } = *pages;
        let now = self.poller.now();
        let longest = self.poller.plan().max_interval;
        let mut due = self.poller.due();
        if number > 0 {
            // What nobody has seen yet is new, and stands before this place.
            let mut more = due.wanted(longest, now);
            more.retain(|wanted| wanted.created_at.is_some());
            self.poller
                .lists(|lists| more.retain(|wanted| !extent.should_show(lists.outline(live), *wanted)));
            due.expect(&more);
        }
        let mut wanted = due.expected();
        let scheduled = due.created();
        drop(due);
        let pages = self.poller.lists(|lists| {
            let outline = lists.outline(live);
            wanted.retain(|wanted| wanted.created_at.is_none() || !extent.should_show(outline, *wanted));
            choose(&places(outline, number, &wanted, &scheduled, found), wanted.len()).pages
        });
        pages.unwrap_or(0)
    }

    /// One page, and the number of the last of these bookmarks, of which the first has the number beside them, that stands
    /// on it; `None`: the round is over.
    async fn ask(
        &self,
        request: &PageRequest,
        (first, bookmarks): (usize, &[String]),
    ) -> Option<Result<(ShownPage, Option<usize>), Failure>> {
        let poller = &self.poller;
        let read = |adapter: &dyn Provider, answer: &Answer| {
            let page = unchanged::read(adapter, request, answer, poller.now(), |with| with(&poller.due()))?;
            let last = bookmarks.iter().rposition(|bookmark| page_items::names(&answer.body, bookmark));
            Ok((page, last.map(|last| first + last)))
        };
        let result = poller.page_as(request, read).await?;
        let is_worth_a_try =
            |failure: &Failure| failure.verdict() == Verdict::Again && !is_unknown_place(failure);
        if result.as_ref().is_err_and(is_worth_a_try) {
            // Once more: to retrieve all that pages would have shown is the heavier burden.
            return poller.page_as(request, read).await;
        }
        Some(result)
    }

    /// Leaves a list alone that cannot be read; the round is over.
    fn cannot_read<T>(&self, failure: &Failure) -> Option<T> {
        let now = self.poller.now();
        let wait = self.poller.lists(|lists| lists.failed(failure, now)).unwrap_or_default();
        if !wait.is_zero() {
            tracing::warn!(
                provider = self.poller.name(),
                "cannot read the provider's list of batches ({failure}): each batch is polled by itself; the list is tried again in {}",
                crate::domain::duration::human(wait)
            );
        }
        None
    }

    /// Takes in what a page shows of batches on the schedule. Returns how many that were; `None`: the state cannot be
    /// read.
    async fn take_in(&self, page: ShownPage) -> Option<usize> {
        let poller = &self.poller;
        let unchanged = self.take_in_unchanged(&page);
        let read = page.items.iter().filter_map(|item| match item {
            Item::Read { fingerprint } => Some(*fingerprint),
            Item::Unchanged { .. } => None,
        });
        let mut sightings: BTreeMap<String, (Sighting, Option<u64>)> = page
            .page
            .sightings
            .into_iter()
            .zip(read)
            .map(|(sighting, fingerprint)| (sighting.id.clone(), (sighting, fingerprint)))
            .collect();
        let ids: Vec<String> = sightings.keys().cloned().collect();
        let batches = if ids.is_empty() {
            Vec::new()
        } else {
            match poller.store().watched(poller.name().to_owned(), ids).await {
                Ok(batches) => batches,
                Err(error) => {
                    self.cannot_store(&error);
                    return None;
                }
            }
        };
        let now = poller.now();
        let claimed: Vec<(Pk, Tracked, (Sighting, Option<u64>))> = {
            let mut due = poller.due();
            batches
                .into_iter()
                .filter_map(|(pk, before)| {
                    let at = due.claim_shown(pk)?;
                    if at <= now {
                        poller.note_lag(since(at, now));
                    }
                    let sighting = sightings.remove(&before.key.id).unwrap_or_default();
                    Some((pk, before, sighting))
                })
                .collect()
        };
        let count = unchanged + claimed.len();
        if poller.lists(|lists| lists.came(count, now)) == Some(true) {
            tracing::info!(provider = poller.name(), "the provider's list of batches can be read again");
        }
        let complete = poller.adapter().listing().is_some_and(|listing| listing.complete);
        let mut news = Vec::new();
        for (pk, before, (sighting, fingerprint)) in claimed {
            if !is_enough(&before, &sighting, complete) {
                // Seen, but not well enough: retrieved at once if it has changed, else when it would have been.
                let at = if is_same(&before, &sighting) { before.next_poll_at } else { Some(now) };
                let next = Next::at(at.unwrap_or(now), Some(before.batch.created_at));
                poller.due().settle(pk, Some(Next { closely: true, ..next }), true, now);
                continue;
            }
            let seen = || poll::seen_on_page(poller, &before, &sighting, fingerprint);
            let Ok((step, mark)) = catch_unwind(AssertUnwindSafe(seen)) else {
                tracing::error!(
                    provider = poller.name(),
                    batch = before.key.id,
                    "reading what a page of the list shows of the batch panicked; the batch is polled by itself"
                );
                let next = Next { closely: true, ..Next::at(now, Some(before.batch.created_at)) };
                poller.due().settle(pk, Some(next), true, now);
                continue;
            };
            news.push(self.keep(pk, before, step, mark));
        }
        join_all(news).await;
        Some(count)
    }

    /// Takes in what a page shows of batches that are as they were. Returns how many of them are on the schedule.
    fn take_in_unchanged(&self, page: &ShownPage) -> usize {
        let poller = &self.poller;
        let now = poller.now();
        let unchanged: Vec<Unchanged> = {
            let mut due = poller.due();
            let settled = page.items.iter().filter_map(|item| match item {
                Item::Unchanged { fingerprint, .. } => due.settle_unchanged(*fingerprint, now),
                Item::Read { .. } => None,
            });
            settled.collect()
        };
        for one in unchanged.iter().filter(|one| one.due_at <= now) {
            poller.note_lag(since(one.due_at, now));
        }
        if !unchanged.is_empty() {
            poller.store().touch_times(now, unchanged.iter().map(|one| (one.pk, one.next_at)));
            tracing::debug!(
                provider = poller.name(),
                batches = unchanged.len(),
                "batches on a page are unchanged"
            );
        }
        unchanged.len()
    }

    /// Stores what a page meant for a batch, and puts it on the schedule again.
    async fn keep(&self, pk: Pk, before: Tracked, step: Step, mark: Option<Mark>) {
        let poller = &self.poller;
        let mut next = Next::of(&step.tracked).map(|next| Next { mark, ..next });
        if let Err(error) = poll::keep(poller, pk, &before, step).await {
            self.cannot_store(&error);
            let again = later(poller.now(), poller.plan().min_interval);
            next = Some(Next::at(again, Some(before.batch.created_at)));
        }
        poller.settle_shown(pk, next);
    }

    fn cannot_store(&self, error: &StoreError) {
        self.poller.cannot_store(error);
        // The provider need not answer for that in vain.
        let again = later(self.poller.now(), self.poller.plan().min_interval);
        self.poller.lists(|lists| lists.postpone(again));
    }
}

/// Whether a service may mean by this that it does not know the batch that a page is to begin behind.
fn is_unknown_place(failure: &Failure) -> bool {
    matches!(failure, Failure::Status { status, .. } if matches!(status.as_u16(), 400 | 404 | 410 | 422))
}

/// Whether what a page shows of `before` is as good as retrieving it.
fn is_enough(before: &Tracked, sighting: &Sighting, complete: bool) -> bool {
    sighting.provider_status.is_some()
        && !before.is_close()
        && (complete || before.first_seen_at.is_some() && is_same(before, sighting))
}

fn is_same(before: &Tracked, sighting: &Sighting) -> bool {
    sighting.status == Some(before.batch.status)
}

fn ratio(part: usize, whole: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a page holds thousands at most")]
    let ratio = part as f64 / whole.max(1) as f64;
    ratio
}
