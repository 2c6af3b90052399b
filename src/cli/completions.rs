//! `batchd completions`: completion scripts for shells.

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
  batchd completions zsh > ~/.zfunc/_batchd")]
pub struct Arguments {
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(arguments: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition(), "batchd", &mut script);
    context.ui.write(&String::from_utf8_lossy(&script));
    Ok(Exit::Ok)
}
