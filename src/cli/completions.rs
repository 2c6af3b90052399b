//! `batchd completions`: completion scripts for shells.

use super::complete::script;
use super::error::Error;
use super::exit::Exit;
use super::{Context, definition};
use clap::Args;
use clap_complete::Shell;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd completions bash > ~/.local/share/bash-completion/completions/batchd
  batchd completions fish > ~/.config/fish/completions/batchd.fish
  batchd completions zsh > ~/.zfunc/_batchd

In bash, zsh and fish ids, names, providers, webhooks and labels are completed
too, while the daemon runs.")]
pub struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(arguments: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    if let Some(script) = script(&arguments.shell.to_string()) {
        context.ui.write(script);
        let definition = definition();
        let commands: Vec<&str> = definition.get_subcommands().map(clap::Command::get_name).collect();
        context.ui.line(&format!("# commands: {}", commands.join(" ")));
        return Ok(Exit::Ok);
    }
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition(), "batchd", &mut script);
    context.ui.write(&String::from_utf8_lossy(&script));
    Ok(Exit::Ok)
}
