//! When each maintenance job last ran.

use super::{Store, StoreError};
use jiff::Timestamp;

/// A job's last run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRun {
    /// The job.
    pub name: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// `None`: well; otherwise what went wrong.
    pub error: Option<String>,
}

impl Store {
    /// The last run of every job.
    pub async fn job_runs(&self) -> Result<Vec<JobRun>, StoreError> {
        unimplemented!()
    }

    /// Notes a run.
    pub async fn set_job_run(&self, run: JobRun) -> Result<(), StoreError> {
        let _ = run;
        unimplemented!()
    }
}
