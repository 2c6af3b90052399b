//! `batchd completions`: completion scripts for shells.

use super::Context;
use super::complete::script;
use super::error::Error;
use super::exit::Exit;
use clap::Args;
use clap_complete::Shell;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd completions bash > ~/.local/share/bash-completion/completions/batchd
  batchd completions fish > ~/.config/fish/completions/batchd.fish
  batchd completions zsh > ~/.zfunc/_batchd

Ids, names, providers, webhooks and labels are completed too, while the daemon runs.")]
pub struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(arguments: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    let script = script(&arguments.shell.to_string()).map_err(|error| Error::io("completions", &error))?;
    context.ui.bytes(&script);
    Ok(Exit::Ok)
}
