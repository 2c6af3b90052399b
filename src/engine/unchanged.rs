//! Checks that show nothing new: told by a fingerprint of what the provider wrote, so that it need not be read, and for as
//! long only as time alone brings nothing (`docs/schedule.md#unchanged`).

use super::due::{DueList, Mark};
use crate::domain::schedule::Terms;
use crate::domain::sighting::Sighting;
use crate::domain::time::{earlier, from_seconds, later, since};
use crate::domain::tracked::{Eta, Tracked};
use crate::domain::transition::Step;
use crate::http::call::Answer;
use crate::http::failure::Failure;
use crate::provider::page_items::{fingerprint, items, without};
use crate::provider::{Page, PageRequest, Provider};
use jiff::Timestamp;
use std::ops::Range;
use std::time::Duration;

/// A page of the list; what has not changed on it has not been read.
#[derive(Debug)]
pub(super) struct ShownPage {
    pub items: Vec<Item>,
    /// Of the items that were read, in their order.
    pub page: Page,
}

/// An item of a page.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item {
    /// As it was at the last check of its batch.
    Unchanged {
        fingerprint: u64,
        /// When the batch was created, Unix seconds, where the schedule knows it.
        created_at: Option<i64>,
    },
    Read {
        /// `None`: it is not clear how it is written.
        fingerprint: Option<u64>,
    },
}

/// Reads a page of the list, but for what is as it was when the schedule in `due` saw it last.
pub(super) fn read(
    adapter: &dyn Provider,
    request: &PageRequest,
    answer: &Answer,
    now: Timestamp,
    due: impl FnOnce(&mut dyn FnMut(&DueList)),
) -> Result<ShownPage, Failure> {
    let found = Some(&answer.body).filter(|_| answer.status.is_success() && !answer.cut);
    let Some(places) = found.and_then(|body| items(body)) else {
        return read_whole(adapter, request, answer);
    };
    let prints: Vec<u64> = places.iter().map(|place| fingerprint(&answer.body[place.clone()])).collect();
    let mut items: Vec<Item> = Vec::with_capacity(prints.len());
    due(&mut |due| {
        items.extend(prints.iter().map(|fingerprint| match due.unchanged_item(*fingerprint, now) {
            Some(shown) => Item::Unchanged { fingerprint: *fingerprint, created_at: shown.created_at },
            None => Item::Read { fingerprint: Some(*fingerprint) },
        }));
    });
    let is_read = |item: &Item| matches!(item, Item::Read { .. });
    let unread = items.len() - items.iter().filter(|item| is_read(item)).count();
    if unread == 0 {
        let page = adapter.listed(request, answer)?;
        let clear = page.sightings.len() == items.len();
        return if clear { Ok(ShownPage { items, page }) } else { Ok(ShownPage::unclear(page)) };
    }
    // The last one may say where the next page begins, so it is read in any case.
    let last = items.len() - 1;
    let left_out: Vec<&Range<usize>> = places
        .iter()
        .zip(&items)
        .take(last)
        .filter(|(_, item)| !is_read(item))
        .map(|(place, _)| place)
        .collect();
    let rest = Answer { body: without(&answer.body, left_out).into(), ..answer.clone() };
    let mut page = adapter.listed(request, &rest)?;
    let is_last_unread = !is_read(&items[last]);
    if page.sightings.len() != items.len() - unread + usize::from(is_last_unread) {
        return read_whole(adapter, request, answer);
    }
    if is_last_unread {
        let shown = page.sightings.pop();
        // A service that tells no times has none for the others either.
        if shown.is_none_or(|shown| shown.created_at.is_none()) {
            for item in &mut items {
                if let Item::Unchanged { created_at, .. } = item {
                    *created_at = None;
                }
            }
        }
    }
    Ok(ShownPage { items, page })
}

fn read_whole(adapter: &dyn Provider, request: &PageRequest, answer: &Answer) -> Result<ShownPage, Failure> {
    adapter.listed(request, answer).map(ShownPage::unclear)
}

impl ShownPage {
    /// Of which nobody knows which item is which sighting.
    fn unclear(page: Page) -> Self {
        let items = page.sightings.iter().map(|_| Item::Read { fingerprint: None }).collect();
        Self { items, page }
    }

    /// The creation times of its batches, in its order.
    pub(super) fn created_at(&self) -> Vec<i64> {
        let mut read = self.page.sightings.iter();
        let created_at = self.items.iter().filter_map(|item| match item {
            Item::Unchanged { created_at, .. } => *created_at,
            Item::Read { .. } => read.next()?.created_at,
        });
        created_at.collect()
    }

    /// What tells its items from those of other pages.
    pub(super) fn keys(&self) -> impl Iterator<Item = Result<&str, u64>> {
        let read = self.page.sightings.iter().map(|sighting| Ok(sighting.id.as_str()));
        let unread = self.items.iter().filter_map(|item| match item {
            Item::Unchanged { fingerprint, .. } => Some(Err(*fingerprint)),
            Item::Read { .. } => None,
        });
        read.chain(unread)
    }
}

/// By what and until when it shows that nothing is new, after a check of `before` that showed nothing new either and that
/// brought `sighting`, written as `fingerprint` says. `None`: the next check has to read it.
///
/// Until then the rules have been tried, by `again`, which says what the same sighting would mean at a later time: nothing
/// follows from it, and the interval to the next check and the expected end are about what they are now.
pub(super) fn mark(
    before: &Tracked,
    (sighting, fingerprint): (&Sighting, u64),
    step: &Step,
    terms: &Terms,
    again: impl Fn(Timestamp) -> Step,
) -> Option<Mark> {
    let tracked = &step.tracked;
    let (now, at) = tracked.last_polled_at.zip(tracked.next_poll_at)?;
    let steady = tracked.is_active()
        && !tracked.is_close()
        && tracked.failures == 0
        && tracked.last_error.is_none()
        && tracked.lost_since.is_none()
        && sighting.retry_after.is_none()
        && !step.is_news(before);
    if !steady {
        return None;
    }
    let interval = since(now, at);
    // What a service reckons from its own clock it reckons from then on.
    let window = match tracked.batch.expires_at.and_then(from_seconds) {
        Some(end) if end <= now => return None,
        Some(end) => earlier(end, CLOCKS_DIFFER),
        None => Timestamp::MAX,
    };
    // Nor is it left unread for long while it is likely to end.
    let (most, until_at_most) = match tracked.eta {
        Some(eta) if eta.earliest <= now => (FEWEST, window),
        Some(eta) => (trusted(tracked, terms, interval, now), window.min(eta.earliest)),
        None => (trusted(tracked, terms, interval, now), window),
    };
    let holds = |checks: u32| {
        let until = later(now, interval.saturating_mul(checks).min(LONGEST)).min(until_at_most);
        (until > at && stays(tracked, &again(until), now, until)).then_some(until)
    };
    let until = holds(most).or_else(|| (most > FEWEST).then(|| holds(FEWEST))?)?;
    Some(Mark { fingerprint, until })
}

/// How many checks in a row are likely not to change the interval by much: it grows with the square root of the age.
fn trusted(tracked: &Tracked, terms: &Terms, interval: Duration, now: Timestamp) -> u32 {
    if interval.mul_f64(1.25) >= terms.plan.max_interval {
        return MOST;
    }
    let quiet = since(tracked.status_since, now) + terms.plan.min_interval * 4;
    [MOST, MOST / 4]
        .into_iter()
        .find(|checks| interval.saturating_mul(*checks) <= quiet.mul_f64(0.6))
        .unwrap_or(FEWEST)
}

/// Whether `again`, a check at `until` that brought the same as the one `now`, is no news and changes little.
fn stays(tracked: &Tracked, again: &Step, now: Timestamp, until: Timestamp) -> bool {
    let Some((next, next_then)) = tracked.next_poll_at.zip(again.tracked.next_poll_at) else { return false };
    let (interval, then) = (since(now, next).as_secs_f64(), since(until, next_then).as_secs_f64());
    let is_like = |end: Option<Eta>, end_then: Option<Eta>| match (end, end_then) {
        (None, None) => true,
        (Some(end), Some(then)) => {
            let moved = since(end.at, then.at).max(since(then.at, end.at));
            moved <= since(now, end.at) / 4
        }
        _ => false,
    };
    !again.is_news(tracked)
        && (then / interval.max(0.001) - 1.0).abs() <= 0.25
        && is_like(tracked.eta, again.tracked.eta)
}

/// So many checks in a row may go unread at most, at first and for so long.
const MOST: u32 = 64;
const FEWEST: u32 = 4;
const LONGEST: Duration = Duration::from_hours(2);
/// How far a service's clock and this one may be apart.
const CLOCKS_DIFFER: Duration = Duration::from_mins(5);
