//! The jobs themselves, and the loop that takes them up.

use super::cron::{Cron, Sign, overdue};
use super::scheduled::{self, ScheduledRun};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::time::earlier;
use crate::engine::Engine;
use crate::store::jobs::JobRun;
use crate::store::{Store, StoreError};
use crate::sync::lock;
use crate::tasks::{Pulse, Tasks};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// Housekeeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// Deletes what ended longer ago than `state.retain`.
    Prune,
    /// Shortens the database's log.
    Checkpoint,
    /// Tells of results that their providers will soon delete.
    Expiring,
}

impl Job {
    /// All of it.
    pub const ALL: [Self; 3] = [Self::Prune, Self::Checkpoint, Self::Expiring];

    /// Its name in the table of runs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prune => "prune",
            Self::Checkpoint => "checkpoint",
            Self::Expiring => "expiring",
        }
    }

    /// When it runs, in UTC, with seconds. Off the full hour, when everybody else is busy.
    pub(super) const fn pattern(self) -> &'static str {
        match self {
            Self::Prune => "40 23 3 * * *",
            Self::Checkpoint => "20 11 * * * *",
            Self::Expiring => "50 */5 * * * *",
        }
    }

    /// How far its runs are apart.
    pub(super) const fn period(self) -> Duration {
        match self {
            Self::Prune => Duration::from_hours(24),
            Self::Checkpoint => Duration::from_hours(1),
            Self::Expiring => Duration::from_mins(5),
        }
    }
}

/// What the jobs work on.
#[derive(Clone)]
pub struct Housekeeping {
    /// The state.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Supervision.
    pub tasks: Tasks,
    /// Looks at the providers.
    pub engine: Engine,
    /// The configuration in force.
    pub config: Arc<dyn Fn() -> Arc<Config> + Send + Sync>,
}

/// What is to be done, by whichever calendar.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Work {
    Job(Job),
    Scheduled(ScheduledRun),
}

impl Work {
    fn name(&self) -> String {
        match self {
            Self::Job(job) => job.name().to_owned(),
            Self::Scheduled(run) => run.name(),
        }
    }
}

impl Housekeeping {
    /// Runs what is due until everything stops; what was missed is caught up first.
    pub async fn run(self, pulse: Pulse) {
        const NAP: Duration = Duration::from_secs(15);
        let stopping = self.tasks.stopping();
        let under_way = Arc::new(Mutex::new(BTreeSet::new()));
        let mut cron = match Cron::start(&Job::ALL).await {
            Ok((cron, signs)) => Some((cron, signs)),
            Err(error) => {
                // The catch-up below does the same work, later.
                tracing::error!(%error, "the clockwork does not start; housekeeping goes by the hour");
                None
            }
        };
        loop {
            pulse.beat();
            match self.store.job_runs().await {
                Ok(runs) => {
                    let now = self.clock.now();
                    let jobs = overdue(&Job::ALL, &runs, now).into_iter().map(Work::Job);
                    let scheduled =
                        scheduled::due(&(self.config)(), &runs, now).into_iter().map(Work::Scheduled);
                    for work in jobs.chain(scheduled) {
                        self.begin(work, &under_way);
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot tell which housekeeping is due"),
            }
            tokio::select! {
                () = stopping.cancelled() => break,
                Some(sign) = next(&mut cron) => match sign {
                    Sign::Job(job) => self.begin(Work::Job(job), &under_way),
                    Sign::Minute => {}
                },
                () = tokio::time::sleep(NAP) => {}
            }
        }
        if let Some((cron, _)) = cron {
            cron.stop().await;
        }
    }

    /// Runs never overlap.
    fn begin(&self, work: Work, under_way: &Arc<Mutex<BTreeSet<String>>>) {
        let name = work.name();
        let set = |set: &Arc<Mutex<BTreeSet<String>>>, name: &str, insert: bool| {
            let mut set = lock(set);
            if insert { set.insert(name.to_owned()) } else { set.remove(name) }
        };
        if !set(under_way, &name, true) {
            return;
        }
        let keeper = self.clone();
        let (done, finished) = (under_way.clone(), name.clone());
        let run = async move {
            match work {
                Work::Job(job) => keeper.perform(job).await,
                Work::Scheduled(run) => keeper.start_run(run).await,
            }
            set(&done, &finished, false);
        };
        let panicked = under_way.clone();
        self.tasks.attempt(&TaskTracker::new(), run, move || {
            tracing::error!(job = name, "housekeeping panicked");
            set(&panicked, &name, false);
        });
    }

    async fn perform(&self, job: Job) {
        let started_at = self.clock.now();
        let result = self.attempt(job).await;
        if let Err(error) = &result {
            tracing::error!(job = job.name(), %error, "housekeeping failed");
        }
        let run = JobRun {
            name: job.name().to_owned(),
            started_at,
            finished_at: self.clock.now(),
            error: result.err().map(|error| error.to_string()),
        };
        if let Err(error) = self.store.set_job_run(run).await {
            tracing::warn!(job = job.name(), %error, "cannot note that housekeeping ran");
        }
    }

    async fn attempt(&self, job: Job) -> Result<(), StoreError> {
        match job {
            Job::Prune => {
                let retain = (self.config)().state.retain;
                let gone = self.store.prune(earlier(self.clock.now(), retain)).await?;
                if gone > 0 {
                    tracing::info!(
                        job = job.name(),
                        batches = gone,
                        "deleted what is older than state.retain"
                    );
                }
                Ok(())
            }
            Job::Checkpoint => self.store.checkpoint().await,
            Job::Expiring => {
                let told = self.store.tell_expiring(self.clock.now(), self.engine.routes()).await?;
                if told > 0 {
                    tracing::info!(
                        job = job.name(),
                        batches = told,
                        "told of results that will soon be deleted"
                    );
                }
                Ok(())
            }
        }
    }
}

async fn next(cron: &mut Option<(Cron, mpsc::Receiver<Sign>)>) -> Option<Sign> {
    match cron {
        Some((_, signs)) => signs.recv().await,
        None => std::future::pending().await,
    }
}
