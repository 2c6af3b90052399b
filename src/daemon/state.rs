//! Opening the state that the configuration names: a file in a directory, or a server that several daemons share.

use super::error::RunError;
use crate::clock::Clock;
use crate::config::{Config, Env};
use crate::store::{Connector, OpenError, Refusal, Shared, Store};
use secrecy::ExposeSecret as _;

/// Opens the state of a daemon.
pub(super) async fn open(config: &Config, env: &Env, clock: Clock) -> Result<Store, RunError> {
    let state = &config.state;
    let Some(source) = &state.url else { return Ok(Store::open(&state.dir, clock)?) };
    let secret = source.resolve(env).map_err(|problem| RunError::Setup(vec![problem.to_string()]))?;
    let address = secret.expose_secret().trim().parse();
    let address = address.map_err(|problem| OpenError::Server(Refusal::Setting(format!("{problem}"))))?;
    let shared = Shared {
        connector: Connector::new(address, config.http.ca_file.clone()),
        name: state.name.clone().unwrap_or_else(machine_name),
        lease: state.lease,
    };
    Ok(Store::open_shared(&state.dir, shared, clock).await?)
}

fn machine_name() -> String {
    let name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    name.ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "batchd".to_owned())
}
