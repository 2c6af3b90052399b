//! The way to the server that holds the state, for commands that use it without a daemon.

use super::error::Error;
use super::exit::Exit;
use crate::config::Config;
use crate::config::environment::Env;
use crate::store::Connector;

/// What connects to the server that the configuration names.
pub fn connector(config: &Config, env: &Env) -> Result<Connector, Error> {
    let address = config.state.server(env).map_err(|problem| Error::new(Exit::Configuration, problem))?;
    let address = address.ok_or_else(|| {
        Error::new(Exit::Configuration, "the configuration names no server: `[state] url`")
            .hint("docs/scaling.md shows how")
    })?;
    Ok(Connector::new(address, config.http.ca_file.clone()))
}
