//! The last requests to one account and how they went: kept in memory since the start, for people to look at.

use crate::http::failure::Failure;
use crate::sync::lock;
use jiff::Timestamp;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

/// One request that asked about batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecentCheck {
    /// When its answer came, or was given up.
    pub at: Timestamp,
    pub took: Duration,
    /// `ok`, or the [class](Failure::class) of the failure.
    pub result: &'static str,
}

/// The newest of them.
#[derive(Debug, Default)]
pub(super) struct RecentChecks(Mutex<VecDeque<RecentCheck>>);

impl RecentChecks {
    pub(super) fn note<T>(&self, result: &Result<T, Failure>, took: Duration, at: Timestamp) {
        let result = result.as_ref().map_or_else(Failure::class, |_| "ok");
        let mut checks = lock(&self.0);
        if checks.len() == KEPT {
            checks.pop_front();
        }
        checks.push_back(RecentCheck { at, took, result });
    }

    /// Oldest first.
    pub(super) fn all(&self) -> Vec<RecentCheck> {
        lock(&self.0).iter().copied().collect()
    }
}

/// How many of each account are kept.
const KEPT: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let checks = RecentChecks::default();
        for second in 0..100 {
            let result = if second % 2 == 0 { Ok(()) } else { Err(Failure::BadResponse) };
            let at = Timestamp::from_second(second).unwrap();
            checks.note(&result, Duration::from_millis(5), at);
        }
        let all = checks.all();
        assert_eq!((all.len(), all[0].at.as_second(), all[47].at.as_second()), (48, 52, 99));
        assert_eq!((all[0].result, all[1].result), ("ok", Failure::BadResponse.class()));
    }
}
