//! A consistent copy of the live state.

use super::{Store, StoreError};
use std::path::PathBuf;

impl Store {
    /// Makes a consistent copy beside the database and returns its path; the caller reads it and deletes it.
    pub async fn copy_aside(&self) -> Result<PathBuf, StoreError> {
        unimplemented!()
    }
}
