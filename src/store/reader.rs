//! The connections that only read: each query has one to itself, whoever came first goes first.

use super::error::StoreError;
use super::sql::{Connection, Sql};
use super::threads::{off_runtime, off_thread};
use crate::failpoint;
use crate::sync::lock;
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// A few read-only connections.
#[derive(Debug)]
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    slots: Arc<Semaphore>,
    count: u32,
    /// Whether they wait for a server.
    are_remote: bool,
}

/// A connection on loan: it goes back whatever happens to the query.
struct Loan {
    connection: Option<Connection>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(connections: impl Into<Vec<Connection>>) -> Self {
        let connections = connections.into();
        let count = u32::try_from(connections.len()).unwrap_or(u32::MAX);
        let are_remote = connections.iter().any(|connection| matches!(connection, Connection::Server(_)));
        Self {
            slots: Arc::new(Semaphore::new(connections.len())),
            idle: Arc::new(Mutex::new(connections)),
            count,
            are_remote,
        }
    }

    /// Runs `query` on the next free connection.
    pub(super) async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        F: FnOnce(&Sql<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let idle = Arc::clone(&self.idle);
        let work = move || {
            let connection = lock(&idle).pop();
            let loan = Loan { connection, idle };
            let result = match &loan.connection {
                Some(_) if failpoint::fails("store.read") => Err(StoreError::Busy),
                Some(connection) => query(&connection.sql()),
                None => Err(StoreError::Closed),
            };
            // Back before the next one's slot.
            drop(loan);
            drop(slot);
            result
        };
        if self.are_remote { off_runtime(work).await? } else { off_thread(work).await? }
    }

    /// Whether they are still there.
    pub(super) fn opened(&self) -> Result<(), StoreError> {
        if self.slots.is_closed() { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Waits for the queries under way and closes.
    pub(super) async fn close(&self) {
        if let Ok(all) = self.slots.acquire_many(self.count).await {
            lock(&self.idle).clear();
            self.slots.close();
            drop(all);
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            lock(&self.idle).push(connection);
        }
    }
}
