//! Reads an existing state directory without a daemon: `--offline`.

use super::connect::ClientView;
use super::error::Error;
use super::exit::Exit;
use crate::control::api::{DeliveryView, Listing};
use crate::control::client::Query;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A state directory, open for reading.
#[derive(Debug)]
pub struct Offline {
    dir: PathBuf,
}

// SEAM: every function below becomes a call of the functions of `control::service` that the server calls for the
// same route, over `Store::open_offline`.
#[expect(clippy::unused_async, reason = "the store that stands behind these is asynchronous")]
impl Offline {
    /// Opens the state that the configuration names.
    pub async fn open(view: &ClientView) -> Result<Self, Error> {
        match &view.state_dir {
            Some(dir) => Ok(Self { dir: dir.clone() }),
            None => Err(Error::new(Exit::Configuration, "no state directory is known")
                .hint("name it in the configuration: `[state] dir`")),
        }
    }

    /// See [`super::source::Source::batches`].
    pub async fn batches(&self, _query: &Query) -> Result<Listing<Value>, Error> {
        Err(self.unavailable())
    }

    /// See [`super::source::Source::batch`].
    pub async fn batch(&self, _id: &str, _detail: bool) -> Result<Value, Error> {
        Err(self.unavailable())
    }

    /// See [`super::source::Source::events`].
    pub async fn events(&self, _batch: Option<&str>, _query: &Query) -> Result<Listing<Value>, Error> {
        Err(self.unavailable())
    }

    /// See [`super::source::Source::deliveries`].
    pub async fn deliveries(&self, _query: &Query) -> Result<Listing<DeliveryView>, Error> {
        Err(self.unavailable())
    }

    /// Writes a consistent copy of the state into `file`.
    pub async fn copy_into(&self, _file: &Path) -> Result<(), Error> {
        Err(self.unavailable())
    }

    fn unavailable(&self) -> Error {
        Error::new(Exit::Unreachable, format!("the state in {} cannot be read yet", self.dir.display()))
    }
}
