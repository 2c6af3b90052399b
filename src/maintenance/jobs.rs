//! The jobs themselves, and the loop that takes them up.

use super::cron::{Cron, overdue};
use crate::clock::Clock;
use crate::domain::time::earlier;
use crate::store::jobs::JobRun;
use crate::store::{Store, StoreError};
use crate::tasks::{Pulse, Tasks};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Housekeeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// Deletes what ended longer ago than `state.retain`.
    Prune,
    /// Shortens the database's log.
    Checkpoint,
}

impl Job {
    /// All of it.
    pub const ALL: [Self; 2] = [Self::Prune, Self::Checkpoint];

    /// Its name in the table of runs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prune => "prune",
            Self::Checkpoint => "checkpoint",
        }
    }

    /// When it runs, in UTC, with seconds. Off the full hour, when everybody else is busy.
    pub(super) const fn pattern(self) -> &'static str {
        match self {
            Self::Prune => "40 23 3 * * *",
            Self::Checkpoint => "20 11 * * * *",
        }
    }

    /// How far its turns are apart.
    pub(super) const fn period(self) -> Duration {
        match self {
            Self::Prune => Duration::from_hours(24),
            Self::Checkpoint => Duration::from_hours(1),
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
    /// `state.retain`, as it is now.
    pub retain: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Housekeeping {
    /// Runs what is due until everything stops; what was missed is caught up first.
    pub async fn run(self, pulse: Pulse) {
        const NAP: Duration = Duration::from_secs(15);
        let stopping = self.tasks.stopping();
        let under_way = Arc::new(Mutex::new(BTreeSet::new()));
        let mut cron = match Cron::start(&Job::ALL).await {
            Ok((cron, due)) => Some((cron, due)),
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
                    for job in overdue(&Job::ALL, &runs, self.clock.now()) {
                        self.begin(job, &under_way);
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot tell which housekeeping is due"),
            }
            tokio::select! {
                () = stopping.cancelled() => break,
                Some(job) = next(&mut cron) => self.begin(job, &under_way),
                () = tokio::time::sleep(NAP) => {}
            }
        }
        if let Some((cron, _)) = cron {
            cron.stop().await;
        }
    }

    /// Runs never overlap.
    fn begin(&self, job: Job, under_way: &Arc<Mutex<BTreeSet<Job>>>) {
        let lock = move |set: &Arc<Mutex<BTreeSet<Job>>>, insert: bool| {
            let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
            if insert { set.insert(job) } else { set.remove(&job) }
        };
        if !lock(under_way, true) {
            return;
        }
        let keeper = self.clone();
        let done = under_way.clone();
        let run = async move {
            keeper.perform(job).await;
            lock(&done, false);
        };
        let panicked = under_way.clone();
        self.tasks.attempt(&TaskTracker::new(), run, move || {
            tracing::error!(job = job.name(), "housekeeping panicked");
            lock(&panicked, false);
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
                let gone = self.store.prune(earlier(self.clock.now(), (self.retain)())).await?;
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
        }
    }
}

async fn next(cron: &mut Option<(Cron, tokio::sync::mpsc::Receiver<Job>)>) -> Option<Job> {
    match cron {
        Some((_, due)) => due.recv().await,
        None => std::future::pending().await,
    }
}
