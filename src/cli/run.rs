//! `batchd run`: the daemon, in the foreground.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use clap::Args;

/// Run the daemon in the foreground
#[derive(Debug, Args)]
#[command(after_help = "Without a configuration file each provider whose usual variable is set is
watched (OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY, MISTRAL_API_KEY),
and ends are told to SLACK_WEBHOOK_URL.

SIGHUP reads the configuration again, SIGTERM ends it with nothing half-written.")]
pub struct Arguments {}

/// Does it.
pub fn run(_: Arguments, context: &mut Context) -> Result<Exit, Error> {
    daemon(context)
}

// SEAM: becomes `crate::daemon::run(RunOptions { config: context.globals.config.clone(), … })` on a multi-threaded
// runtime; its start errors become `Error`s by the impls of exit.rs.
fn daemon(_: &mut Context) -> Result<Exit, Error> {
    Err(Error::new(Exit::Unreachable, "this build holds no daemon"))
}
