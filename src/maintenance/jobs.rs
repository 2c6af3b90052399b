//! The loop that starts what is due, and the jobs with a fixed schedule.

use super::cron::{Cron, Sign, overdue};
use super::housekeeping::Housekeeping;
use super::job::Job;
use super::scheduled::{self, ScheduledRun};
use super::undeclared::Undeclared;
use crate::domain::ownership::Scope;
use crate::logging::Recurring;
use crate::store::StoreError;
use crate::store::jobs::JobRun;
use crate::sync::lock;
use crate::tasks::Pulse;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// What is to be done, by whichever calendar.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Work {
    Job(Job),
    Scheduled(ScheduledRun),
}

impl Work {
    /// Whose it is, where several daemons share the state.
    fn scope(&self) -> Scope {
        match self {
            Self::Scheduled(ScheduledRun::Discover { provider, .. }) => Scope::Account(provider.clone()),
            Self::Job(_) | Self::Scheduled(ScheduledRun::Digest { .. }) => Scope::Keeper,
        }
    }

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
        const MAX_SLEEP: Duration = Duration::from_secs(15);
        let stopping = self.tasks.stopping();
        let under_way = Arc::new(Mutex::new(BTreeSet::new()));
        // The scheduler goes by the system's clock; without it the catch-up below does the same work, later.
        let mut cron = if self.clock.is_system() {
            match Cron::start(&Job::ALL).await {
                Ok((cron, signs)) => Some((cron, signs)),
                Err(error) => {
                    tracing::error!(%error, "the scheduler cannot be started; jobs still run, but up to a period late");
                    None
                }
            }
        } else {
            None
        };
        let mut reckoning = Recurring::new("note how much time has passed");
        let mut keeping = Recurring::new("do what daemons with one state need");
        let mut reading = Recurring::new("read from the state which jobs are due");
        let mut undeclared = Undeclared::default();
        loop {
            pulse.beat();
            reckoning.note(self.store.reckon().await);
            if self.store.holds(&Scope::Keeper) {
                keeping.note(self.keep(&mut undeclared).await);
            }
            if let Some(runs) = reading.note(self.store.job_runs().await) {
                let now = self.clock.now();
                let jobs = overdue(&Job::ALL, &runs, now).into_iter().map(Work::Job);
                let scheduled = scheduled::due(&(self.config)(), &runs, now).into_iter().map(Work::Scheduled);
                for work in jobs.chain(scheduled) {
                    self.begin(work, &under_way);
                }
            }
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                Some(sign) = next(&mut cron) => match sign {
                    Sign::Job(job) => self.begin(Work::Job(job), &under_way),
                    Sign::Minute => {}
                },
                () = tokio::time::sleep(MAX_SLEEP) => {}
            }
        }
        if let Some((cron, _)) = cron {
            cron.stop().await;
        }
    }

    /// What one of the daemons does for all that share a state.
    async fn keep(&self, undeclared: &mut Undeclared) -> Result<(), StoreError> {
        self.store.tell_of_steps(self.engine.routes()).await?;
        let names = self.store.undeclared_webhooks().await?;
        let over = undeclared.over(names, self.clock.steady());
        if over.is_empty() {
            return Ok(());
        }
        for webhook in &over {
            tracing::warn!(
                webhook,
                "no daemon has had the webhook {webhook} in its configuration for an hour: what it is owed is held"
            );
        }
        self.store.unconfigure(over).await
    }

    /// Runs never overlap.
    fn begin(&self, work: Work, under_way: &Arc<Mutex<BTreeSet<String>>>) {
        if !self.store.holds(&work.scope()) {
            if work == Work::Job(Job::Prune) && !self.store.has_files_in_common() {
                self.sweep_own_files();
            }
            return;
        }
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
            tracing::error!(job = name, "the job {name} panicked; it is tried again");
            set(&panicked, &name, false);
        });
    }

    /// Removes what another daemon has deleted of the uploads that only this one keeps.
    fn sweep_own_files(&self) {
        let (store, now) = (self.store.clone(), self.clock.now());
        self.tasks.spawn_tracked(async move {
            if let Err(error) = store.sweep_contents(now).await {
                tracing::warn!(%error, "cannot remove uploads that belong to no file");
            }
        });
    }

    async fn perform(&self, job: Job) {
        let started_at = self.clock.now();
        let result = self.attempt(job).await;
        if let Err(error) = &result {
            tracing::error!(job = job.name(), %error, "the job {} failed; it runs again at its next time", job.name());
        }
        let run = JobRun {
            name: job.name().to_owned(),
            started_at,
            finished_at: self.clock.now(),
            error: result.err().map(|error| error.to_string()),
        };
        if let Err(error) = self.store.set_job_run(run).await {
            tracing::warn!(job = job.name(), %error, "cannot record that the job {} ran", job.name());
        }
    }

    async fn attempt(&self, job: Job) -> Result<(), StoreError> {
        match job {
            Job::Prune => {
                let retain = (self.config)().state.retain;
                let gone = self.store.prune_expired(retain, self.engine.routes()).await?;
                if gone > 0 {
                    tracing::info!(
                        job = job.name(),
                        batches = gone,
                        "deleted {gone} batches that ended longer ago than state.retain"
                    );
                }
                let unused = self.store.expired((self.config)().files.retain).await?;
                let gone = self.store.prune_files(unused, self.clock.now()).await?;
                if gone > 0 {
                    tracing::info!(
                        job = job.name(),
                        files = gone,
                        "deleted {gone} uploaded files that were used longer ago than files.retain, or have expired"
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
                        "recorded events for {told} batches whose results will soon be deleted by their providers"
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
