//! What is known of an account's list of batches: its shape, whether it can be read, and what a check by it costs.

use super::due::{DueList, Wanted};
use crate::domain::bookmarks::Bookmarks;
use crate::domain::rounds::{Outline, choose};
use crate::domain::time::{later, since};
use crate::http::failure::{Failure, Verdict};
use crate::provider::Listing;
use jiff::Timestamp;
use std::time::Duration;

/// How long after a round was found not to be worth it another one is considered.
const RECONSIDER: Duration = Duration::from_secs(1);
/// How long a list is left alone after it could not be read; each time twice as long.
const BACKOFF: Duration = Duration::from_mins(1);
/// The same for a list that is refused, or not there.
const BACKOFF_UNAVAILABLE: Duration = Duration::from_mins(15);
/// No list is left alone for longer.
const MAX_BACKOFF: Duration = Duration::from_hours(1);
/// How long what was learnt of a list is believed.
const FRESH: Duration = Duration::from_hours(1);

/// What is known of an account's list.
#[derive(Debug)]
pub(super) struct Lists {
    listing: Listing,
    all: Outline,
    /// Of those that have not ended, where the service tells them apart.
    live: Outline,
    all_bookmarks: Bookmarks,
    live_bookmarks: Bookmarks,
    /// Before then no round is considered.
    not_before: Timestamp,
    /// Until then what is known of the list is believed.
    fresh_until: Timestamp,
    failures: u32,
    /// What a check of one batch has cost lately, in requests.
    cost: f64,
}

impl Lists {
    pub(super) fn new(listing: Listing) -> Self {
        let outline = Outline::new(listing.size);
        Self {
            listing,
            all: outline.clone(),
            live: outline,
            all_bookmarks: Bookmarks::default(),
            live_bookmarks: Bookmarks::default(),
            not_before: Timestamp::MIN,
            fresh_until: Timestamp::MIN,
            failures: 0,
            cost: 1.0,
        }
    }

    /// What a check of a batch that pages show costs at present, in requests.
    pub(super) fn cost(&self) -> f64 {
        self.cost
    }

    /// Whether a round may be considered at `now`.
    pub(super) fn may_begin(&self, now: Timestamp) -> bool {
        // A clock that was set back must not put it off for longer than a failure does.
        now >= self.not_before || since(now, self.not_before) > MAX_BACKOFF
    }

    /// Whether what was learnt of the list is so old that it is to be learnt anew, what no page shows included.
    pub(super) fn is_stale(&mut self, now: Timestamp) -> bool {
        let stale = now >= self.fresh_until || since(now, self.fresh_until) > FRESH;
        if stale {
            (self.all, self.live) = (Outline::new(self.listing.size), Outline::new(self.listing.size));
            self.fresh_until = later(now, FRESH);
        }
        stale
    }

    /// Whether a round would be worth it for `wanted`; if not, it is considered again in a second.
    pub(super) fn is_worth_it(&mut self, wanted: &[Wanted], due: &DueList, now: Timestamp) -> bool {
        let worth_it = wanted.len() > 1 && (self.listing.by_id > 0 || self.way(wanted, due).is_some());
        if !worth_it {
            self.not_before = later(now, RECONSIDER);
            self.cost = 1.0;
        }
        worth_it
    }

    /// Whether to begin with live batches only; `None`: with none at all.
    pub(super) fn way(&self, wanted: &[Wanted], due: &DueList) -> Option<bool> {
        let scheduled = due.created();
        let all = choose(&places(&self.all, 0, wanted, &scheduled, 1.0), wanted.len());
        let mut live = false;
        let mut best = all;
        if self.listing.live_only {
            let choice = choose(&places(&self.live, 0, wanted, &scheduled, 1.0), wanted.len());
            if choice.cost < all.cost {
                (best, live) = (choice, true);
            }
        }
        (best.pages > 0).then_some(live)
    }

    pub(super) fn outline(&mut self, live: bool) -> &mut Outline {
        if live { &mut self.live } else { &mut self.all }
    }

    /// Where its pages began when it was read last.
    pub(super) fn bookmarks(&mut self, live: bool) -> &mut Bookmarks {
        if live { &mut self.live_bookmarks } else { &mut self.all_bookmarks }
    }

    /// A page came that settled so many batches. Returns whether the list could not be read before.
    pub(super) fn came(&mut self, settled: usize, now: Timestamp) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "a page holds thousands at most")]
        let cost = 1.0 / settled.max(1) as f64;
        self.cost = cost;
        self.not_before = now;
        std::mem::take(&mut self.failures) > 0
    }

    /// No round is considered before `at`.
    pub(super) fn postpone(&mut self, at: Timestamp) {
        self.not_before = at;
    }

    /// A round panicked.
    pub(super) fn panicked(&mut self, now: Timestamp) {
        self.failures += 1;
        self.cost = 1.0;
        self.not_before = later(now, BACKOFF_UNAVAILABLE);
    }

    /// The list cannot be read. Returns how long it is left alone.
    pub(super) fn failed(&mut self, failure: &Failure, now: Timestamp) -> Duration {
        let wait = match failure.verdict() {
            // It is the account that wants to be left alone.
            Verdict::Hold(_) => Duration::ZERO,
            Verdict::Again => BACKOFF.saturating_mul(1 << self.failures.min(16)).min(MAX_BACKOFF),
            Verdict::Refused | Verdict::Missing => {
                BACKOFF_UNAVAILABLE.saturating_mul(1 << self.failures.min(16)).min(MAX_BACKOFF)
            }
        };
        if !wait.is_zero() {
            self.failures += 1;
        }
        self.cost = 1.0;
        self.not_before = later(now, wait);
        wait
    }
}

/// On which pages from `from` on the batches of `wanted` are expected.
pub(super) fn places(
    outline: &Outline,
    from: usize,
    wanted: &[Wanted],
    scheduled: &[i64],
    found: f64,
) -> Vec<usize> {
    outline.places(from, wanted.iter().map(|wanted| wanted.created_at), scheduled, found)
}

/// How far a list was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Nothing,
    /// Down to batches created then, where the service says when they were.
    To(Option<i64>),
    Whole,
}

impl Extent {
    /// After one more page, whose oldest batch was created then.
    pub(super) fn with(self, oldest: Option<i64>) -> Self {
        match self {
            Self::Whole => Self::Whole,
            Self::Nothing => Self::To(oldest),
            Self::To(before) => Self::To([before, oldest].into_iter().flatten().min()),
        }
    }

    /// Whether what was read would have shown `wanted` if the list had it. One that was never seen counts as new.
    pub(super) fn should_show(self, outline: &Outline, wanted: Wanted) -> bool {
        match (self, wanted.created_at) {
            (Self::Nothing, _) | (Self::To(None), Some(_)) => false,
            (Self::Whole, _) | (Self::To(_), None) => true,
            (Self::To(Some(oldest)), Some(created_at)) => outline.passed(created_at, oldest),
        }
    }
}
