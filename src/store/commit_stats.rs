//! How long commits took.

use std::time::Duration;

/// How long commits took: a histogram for metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitStats {
    /// Commits so far.
    pub count: u64,
    /// Seconds that all of them took.
    pub seconds_total: f64,
    /// How many took up to so many seconds and longer than the bound before; the last bound is [`f64::INFINITY`].
    pub buckets: Vec<(f64, u64)>,
}

impl Default for CommitStats {
    fn default() -> Self {
        Self { count: 0, seconds_total: 0.0, buckets: BOUNDS.map(|bound| (bound, 0)).to_vec() }
    }
}

impl CommitStats {
    pub(super) fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.count += 1;
        self.seconds_total += seconds;
        if let Some((_, count)) = self.buckets.iter_mut().find(|(bound, _)| seconds <= *bound) {
            *count += 1;
        }
    }
}

/// Seconds.
const BOUNDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, f64::INFINITY];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_commit_falls_into_one_bucket() {
        let mut stats = CommitStats::default();
        for micros in [0, 1000, 1001, 4000, 400_000, 99_000_000] {
            stats.add(Duration::from_micros(micros));
        }
        assert_eq!(stats.count, 6);
        assert_eq!(stats.buckets.iter().map(|(_, count)| count).sum::<u64>(), 6);
        assert_eq!(stats.buckets[0], (0.001, 2));
        assert_eq!(stats.buckets.last(), Some(&(f64::INFINITY, 1)));
    }
}
