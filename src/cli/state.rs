//! `batchd state import`: moves a file's state to the server that the configuration names.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use super::quantity::of;
use crate::config::Config;
use crate::config::environment::Env;
use crate::control::assembly::catalog;
use crate::store::{Connector, Store};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Move the state to a PostgreSQL server
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy the state of a stopped daemon to the server that `[state] url` names
    #[command(after_help = "Example:
  sudo systemctl stop batchd.socket batchd.service
  sudo BATCHD_DATABASE_URL=postgres://… batchd state import /var/lib/batchd
  sudo systemctl start batchd.socket batchd.service

All of it is copied in one transaction, or nothing. The server's tables are made
if they are not there; they must hold no state. The directory stays as it is, and
a daemon refuses it from then on, so that nothing is done twice.")]
    Import {
        /// The state directory [default: the configuration's `[state] dir`, else the usual one]
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let Command::Import { dir, yes } = arguments.command;
    let env = Env::of_process();
    let config = Config::load(context.globals.config.as_deref(), &catalog(), &env)?;
    let connector = connector(&config, &env)?;
    let dir = dir.unwrap_or_else(|| config.state.dir.clone());
    let to = connector.address().to_string();
    if !yes && !context.ui.confirm(&format!("Move the state in {} to {to}?", dir.display()))? {
        return Ok(Exit::Failed);
    }
    let moved = Store::import(&dir, connector, context.clock.now()).await.map_err(|error| {
        let held = Exit::from(&error) == Exit::StateHeld;
        let error = Error::from(error);
        if held {
            error
                .hint("stop it first: `systemctl stop batchd.socket batchd.service`, or Ctrl-C where it runs")
        } else {
            error
        }
    })?;
    context.ui.note(&format!(
        "moved {} and {} to {}; {} is refused by a daemon from now on",
        of(moved.batches, "batch", "batches"),
        of(moved.events, "event", "events"),
        moved.host,
        dir.display()
    ));
    Ok(Exit::Ok)
}

/// What connects to the server that the configuration names.
pub fn connector(config: &Config, env: &Env) -> Result<Connector, Error> {
    let address = config.state.server(env).map_err(|problem| Error::new(Exit::Configuration, problem))?;
    let address = address.ok_or_else(|| {
        Error::new(Exit::Configuration, "the configuration names no server: `[state] url`")
            .hint("docs/scaling.md shows how")
    })?;
    Ok(Connector::new(address, config.http.ca_file.clone()))
}
