//! When each maintenance job last ran.

use super::column::{at, ms};
use super::{Store, StoreError};
use jiff::Timestamp;
use rusqlite::Connection;

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
        self.read(|connection| {
            let mut query = connection
                .prepare_cached("SELECT name, started_at, finished_at, error FROM jobs ORDER BY name")?;
            let runs = query.query_map([], |row| {
                Ok(JobRun {
                    name: row.get(0)?,
                    started_at: at(row.get(1)?),
                    finished_at: at(row.get(2)?),
                    error: row.get(3)?,
                })
            })?;
            Ok(runs.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Notes a run.
    pub async fn set_job_run(&self, run: JobRun) -> Result<(), StoreError> {
        self.write(move |tx| note(tx, run)).await
    }
}

/// Notes a run within a transaction.
pub(super) fn note(connection: &Connection, run: JobRun) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO jobs (name, started_at, finished_at, error) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((run.name, ms(run.started_at), ms(run.finished_at), run.error))?;
    Ok(())
}
