//! `batchd completions`: scripts for the shell.

use super::error::Error;
use super::exit::Exit;
use super::{Context, definition};
use clap::Args;
use clap_complete::Shell;

/// Print a script that completes commands in the shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd completions bash > ~/.local/share/bash-completion/completions/batchd
  batchd completions fish > ~/.config/fish/completions/batchd.fish
  batchd completions zsh > ~/.zfunc/_batchd")]
pub struct Arguments {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Does it.
#[expect(clippy::unnecessary_wraps, reason = "every command has this signature")]
pub fn run(arguments: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition(), "batchd", &mut script);
    context.ui.write(&String::from_utf8_lossy(&script));
    Ok(Exit::Ok)
}
