//! Reads an existing state directory without a daemon: `--offline`.

use super::error::Error;
use super::exit::Exit;
use super::state_server::connector;
use crate::clock::Clock;
use crate::config::ClientView;
use crate::config::Config;
use crate::config::environment::Env;
use crate::control::api::{DeliveryView, Listing, ProviderReport, StatusReport};
use crate::control::api_error::ApiError;
use crate::control::assembly::catalog;
use crate::control::client::Query;
use crate::control::query;
use crate::control::service::Service;
use crate::store::{OpenError, Store};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A state directory, open for reading, behind the same operations that a daemon's API has.
pub struct Offline {
    store: Store,
    service: Service,
    view: ClientView,
    dir: PathBuf,
}

impl std::fmt::Debug for Offline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offline").finish_non_exhaustive()
    }
}

impl Offline {
    /// Opens the state that the configuration names, which `config` is the file of.
    pub async fn open(view: &ClientView, config: Option<&Path>) -> Result<Self, Error> {
        let Some(dir) = &view.state_dir else {
            return Err(Error::new(Exit::Configuration, "no state directory is known")
                .hint("name it in the configuration: `[state] dir`"));
        };
        let clock = Clock::system();
        let env = Env::of_process();
        // Whoever may not read the configuration reads the directory all the same.
        let shared = Config::load(config, &catalog(), &env).ok().filter(|config| config.state.url.is_some());
        let store = match shared {
            Some(config) => Store::open_shared_offline(dir, connector(&config, &env)?).await?,
            None => Store::open_offline(dir)?,
        };
        let service = Service::offline(store.clone(), clock);
        Ok(Self { service, store, view: view.clone(), dir: dir.clone() })
    }

    /// What the state tells of itself.
    pub async fn status(&self) -> Result<StatusReport, Error> {
        let config_file = self.view.file.as_ref().map(|file| file.display().to_string());
        let mut report = StatusReport { config_file, ..self.service.state(&self.dir).await? };
        let remembered: Vec<String> = report.providers.iter().map(|provider| provider.name.clone()).collect();
        let others = self.view.providers.iter().filter(|name| !remembered.contains(name));
        // Only trouble is remembered: of the others nothing is known.
        report.providers.extend(others.map(|name| ProviderReport::unknown(name)));
        Ok(report)
    }

    /// See [`super::source::Source::batches`].
    pub async fn batches(&self, query: &Query) -> Result<Listing<Value>, Error> {
        let query = query::Query::of_pairs(query.pairs());
        Ok(self.service.list(query.batches()?).await?)
    }

    /// See [`super::source::Source::batch`].
    pub async fn batch(&self, id: &str, detail: bool) -> Result<Value, Error> {
        Ok(if detail { self.service.detail(id).await? } else { self.service.batch(id).await? })
    }

    /// See [`super::source::Source::events`].
    pub async fn events(&self, batch: Option<&str>, query: &Query) -> Result<Listing<Value>, Error> {
        let query = query::Query::of_pairs(query.pairs());
        let after = query.number("after")?.unwrap_or(0);
        Ok(self.service.events(batch, after, query.events()?).await?)
    }

    /// See [`super::source::Source::deliveries`].
    pub async fn deliveries(&self, query: &Query) -> Result<Listing<DeliveryView>, Error> {
        let query = query::Query::of_pairs(query.pairs());
        Ok(self.service.deliveries(query.deliveries()?).await?)
    }

    /// Writes a consistent copy of the state into `file`.
    pub async fn copy_into(&self, file: &Path) -> Result<(), Error> {
        self.store.copy_to(file).await.map_err(ApiError::from)?;
        Ok(())
    }
}

impl From<ApiError> for Error {
    fn from(refusal: ApiError) -> Self {
        refusal.into_object().into()
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        Self::new(Exit::from(&error), error.to_string())
    }
}
