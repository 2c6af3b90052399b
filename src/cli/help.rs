//! `batchd help`: the help of a command.

use super::error::Error;
use super::exit::Exit;
use super::{Context, definition};
use clap::Args;

/// Print the help of a command
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd help track
  batchd help webhooks test")]
pub struct Arguments {
    /// The command
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

pub fn run(arguments: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    let mut command = definition();
    if let Some(width) = context.ui.style().width {
        command = command.term_width(usize::from(width));
    }
    // What commands inherit, such as their whole name, is known once they are built.
    command.build();
    for name in &arguments.command {
        let Some(next) = command.find_subcommand(name) else {
            return Err(Error::usage(format!("there is no command `{}`", arguments.command.join(" ")))
                .hint("`batchd help` lists the commands"));
        };
        command = next.clone();
    }
    let text = command.render_long_help();
    let text = if context.ui.style().colour { text.ansi().to_string() } else { text.to_string() };
    context.ui.line(text.trim_end());
    Ok(Exit::Ok)
}
