//! When each maintenance job last ran.

use super::column::{instant, ms};
use super::error::StoreError;
use super::sql::Sql;
use super::state::Store;
use super::value::named;
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
        self.read(|connection| {
            connection.rows(
                "SELECT name, started_at, finished_at, error FROM jobs ORDER BY name",
                [],
                |row| {
                    Ok(JobRun {
                        name: row.get("name")?,
                        started_at: instant(row, "started_at")?,
                        finished_at: instant(row, "finished_at")?,
                        error: row.get("error")?,
                    })
                },
            )
        })
        .await
    }

    pub async fn set_job_run(&self, run: JobRun) -> Result<(), StoreError> {
        self.write(move |tx| note(tx, &run)).await
    }
}

/// By this name backups stand among the jobs; they come when somebody asks for one.
pub const BACKUP: &str = "backup";

/// Notes a run within a transaction.
pub(super) fn note(connection: &Sql<'_>, run: &JobRun) -> Result<(), StoreError> {
    connection.send(
        "INSERT INTO jobs (name, started_at, finished_at, error)
             VALUES (:name, :started_at, :finished_at, :error)
             ON CONFLICT (name) DO UPDATE SET started_at = excluded.started_at,
               finished_at = excluded.finished_at, error = excluded.error",
        named! {
            ":name": run.name,
            ":started_at": ms(run.started_at),
            ":finished_at": ms(run.finished_at),
            ":error": run.error,
        },
    )?;
    Ok(())
}
