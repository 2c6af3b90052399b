//! `batchd reload`: makes the daemon read its configuration again.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use crate::domain::printable::clean_lines;
use clap::Args;

/// Make the daemon read its configuration again
#[derive(Debug, Args)]
#[command(after_help = "An invalid file is refused as a whole: the daemon keeps the configuration it has,
and this command prints the reason and exits with 78.")]
pub struct Arguments {}

pub async fn run(_: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let answer = context.client().await?.reload().await?;
    for warning in &answer.warnings {
        context.ui.warn(warning);
    }
    if !answer.restart_needed.is_empty() {
        context.ui.warn(&format!("a restart is needed for {}", answer.restart_needed.join(", ")));
    }
    context.ui.note(&clean_lines(&answer.summary()));
    Ok(Exit::Ok)
}
