//! The fence around tokio-cron-scheduler: all it does is to put a sign into a channel when a pattern's time has come.
//!
//! Its closures neither fail nor panic nor wait (a job of its that has panicked never runs again), and its patterns are
//! in UTC (its offset for a time zone is fixed at the start): what is due in a time zone of its own is decided at the
//! minute's sign by [`Calendar`](crate::domain::calendar::Calendar). When a job last ran is kept in our own table, from
//! which [`overdue`] tells what was missed while the daemon did not run.

use super::job::Job;
use crate::domain::time::since;
use crate::store::jobs::JobRun;
use jiff::Timestamp;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job as CronJob, JobScheduler, JobSchedulerError};

/// A running scheduler. It stops with [`Cron::stop`].
pub struct Cron {
    scheduler: JobScheduler,
}

/// What the scheduler says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// A job is due.
    Job(Job),
    /// A minute has begun: something may be due by its own calendar.
    Minute,
}

impl Cron {
    /// Starts the scheduler; what it says comes out of the receiver.
    pub async fn start(jobs: &[Job]) -> Result<(Self, mpsc::Receiver<Sign>), JobSchedulerError> {
        let signs: Vec<(Sign, &str)> = jobs
            .iter()
            .map(|job| (Sign::Job(*job), job.pattern()))
            .chain([(Sign::Minute, EVERY_MINUTE)])
            .collect();
        // One that is given again before it was taken up is the same sign.
        let (given, taken_up) = mpsc::channel(signs.len());
        let scheduler = JobScheduler::new().await?;
        for (sign, pattern) in signs {
            let given = given.clone();
            let entry = CronJob::new(pattern, move |_, _| {
                // Full: it waits to be taken up already. Closed: the daemon stops.
                let _ = given.try_send(sign);
            })?;
            scheduler.add(entry).await?;
        }
        scheduler.start().await?;
        Ok((Self { scheduler }, taken_up))
    }

    /// Stops the scheduler.
    pub async fn stop(mut self) {
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::warn!(%error, "the scheduler of jobs did not stop cleanly");
        }
    }
}

/// The jobs whose turn passed while nobody was there, judged by when each last began.
pub fn overdue(jobs: &[Job], runs: &[JobRun], now: Timestamp) -> Vec<Job> {
    /// A run that began a little early or late is still the turn's.
    const SLACK: Duration = Duration::from_mins(1);
    jobs.iter()
        .copied()
        .filter(|job| {
            let last = runs.iter().find(|run| run.name == job.name());
            last.is_none_or(|run| since(run.started_at, now) > job.period() + SLACK)
        })
        .collect()
}

/// In UTC, with seconds.
const EVERY_MINUTE: &str = "0 * * * * *";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::earlier;
    use croner::parser::{CronParser, Seconds};

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn run(job: Job, hours_ago: u64) -> JobRun {
        let at = earlier(NOW, Duration::from_secs(hours_ago * 3600));
        JobRun { name: job.name().to_owned(), started_at: at, finished_at: at, error: None }
    }

    #[test]
    fn what_was_missed_is_caught_up() {
        assert_eq!(overdue(&Job::ALL, &[], NOW), Job::ALL);
        let runs: Vec<JobRun> = Job::ALL.into_iter().map(|job| run(job, 0)).collect();
        assert_eq!(overdue(&Job::ALL, &runs, NOW), []);
        assert_eq!(overdue(&[Job::Prune], &[run(Job::Prune, 1)], NOW), []);
        assert_eq!(overdue(&[Job::Prune], &[run(Job::Prune, 2)], NOW), [Job::Prune]);
    }

    #[test]
    fn every_pattern_is_understood_and_fits_its_period() {
        let patterns = Job::ALL.map(|job| (job.pattern(), job.period()));
        for (pattern, period) in patterns.into_iter().chain([(EVERY_MINUTE, Duration::from_mins(1))]) {
            CronJob::new(pattern, |_, _| {}).unwrap();
            let parsed = CronParser::builder().seconds(Seconds::Required).build().parse(pattern).unwrap();
            let at = NOW.to_zoned(jiff::tz::TimeZone::UTC);
            let first = parsed.find_next_occurrence(&at, false).unwrap();
            let second = parsed.find_next_occurrence(&first, false).unwrap();
            assert_eq!(since(first.timestamp(), second.timestamp()), period, "{pattern}");
        }
    }
}
