//! Where numbers of events were left out, as the server that holds the state had lost commits
//! (`docs/scaling.md#fail-over-of-the-server`).

use super::column::instant;
use super::error::StoreError;
use super::state::Store;
use super::telling;
use crate::domain::event::Draft;
use crate::domain::route::Routes;
use jiff::Timestamp;
use std::sync::Arc;

/// A gap in the numbers of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStep {
    /// The highest number that had been seen before it.
    pub behind: i64,
    /// The first number after it.
    pub goes_on: i64,
    pub at: Timestamp,
}

impl Store {
    /// The newest gap; `None`: there is none, as never where the state is in a file.
    pub async fn newest_step(&self) -> Result<Option<LogStep>, StoreError> {
        let steps = self.steps("ORDER BY number DESC LIMIT 1").await?;
        Ok(steps.into_iter().next().map(|(_, step)| step))
    }

    /// Records an event of each gap of which there is none yet.
    pub async fn tell_of_steps(&self, routes: Arc<Routes>) -> Result<(), StoreError> {
        let untold = self.steps("WHERE told = 0 ORDER BY number").await?;
        if untold.is_empty() {
            return Ok(());
        }
        self.write(move |tx| {
            for (number, step) in untold {
                let draft = Draft::about_log_step(step.behind, step.goes_on, step.at);
                telling::record(tx, &draft, None, &routes)?;
                tx.execute("UPDATE steps SET told = 1 WHERE number = ?1", [number])?;
            }
            Ok(())
        })
        .await
    }

    async fn steps(&self, which: &'static str) -> Result<Vec<(i64, LogStep)>, StoreError> {
        if !self.is_on_server() {
            return Ok(Vec::new());
        }
        self.read(move |connection| {
            connection.rows(&format!("SELECT number, behind, goes_on, at FROM steps {which}"), [], |row| {
                let (behind, goes_on) = (row.get("behind")?, row.get("goes_on")?);
                Ok((row.get("number")?, LogStep { behind, goes_on, at: instant(row, "at")? }))
            })
        })
        .await
    }
}
