//! A consistent copy of the live state.

use super::database;
use super::directory::{copy_path, sync};
use super::error::StoreError;
use super::server::moving;
use super::server::session::Session;
use super::state::Store;
use super::threads::off_runtime;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

impl Store {
    /// Makes a consistent copy beside the database and returns its path; the caller reads it and deletes it.
    ///
    /// Holds up nothing. What is never fetched is removed at the next start.
    pub async fn copy_aside(&self) -> Result<PathBuf, StoreError> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        if let Some(server) = self.0.shared_server() {
            let dir = self.0.dir.clone();
            return off_runtime(move || {
                let path = copy_path(&dir, number);
                moving::copy_into(&Session::new(server), &path)?;
                sync(&dir).map_err(|error| StoreError::Io(error.to_string()))?;
                Ok(path)
            })
            .await?;
        }
        self.apart(move |connection, dir| {
            let path = copy_path(dir, number);
            database::copy_to(connection, &path)?;
            sync(dir).map_err(|error| StoreError::Io(error.to_string()))?;
            Ok(path)
        })
        .await
    }

    /// Makes a consistent copy at `path`, in place of what is there; for state that no daemon serves.
    pub async fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let path = path.to_owned();
        if let Some(server) = self.0.shared_server() {
            return off_runtime(move || moving::copy_into(&Session::new(server), &path)).await?;
        }
        self.apart(move |connection, _| database::copy_to(connection, &path)).await
    }
}
