//! Opening the state that the configuration names: a file in a directory, or a server that several daemons share.

use super::error::RunError;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::environment::Env;
use crate::store::{Connector, Shared, Store};

/// Opens the state of a daemon.
pub(super) async fn open(config: &Config, env: &Env, clock: Clock) -> Result<Store, RunError> {
    let state = &config.state;
    let address = state.server(env).map_err(|problem| RunError::Setup(vec![problem]))?;
    let Some(address) = address else {
        let store = Store::open(&state.dir, clock)?;
        store.keep_files_in(&config.files.dir);
        return Ok(store);
    };
    let shared = Shared {
        connector: Connector::new(address, config.http.ca_file.clone()),
        name: state.member_name(),
        lease: state.lease,
    };
    let store = Store::open_shared(&state.dir, shared, clock).await?;
    store.keep_files_in(&config.files.dir);
    Ok(store)
}
