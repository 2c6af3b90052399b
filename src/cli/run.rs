//! `batchd run`: the daemon, in the foreground.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use crate::config::environment::Env;
use crate::daemon::{self, BindError, RunError, RunOptions};
use crate::store::StoreError;
use clap::Args;

/// Run the daemon in the foreground
#[derive(Debug, Args)]
#[command(after_help = "Without a configuration file each provider whose usual variable is set is used
(OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY, MISTRAL_API_KEY, …), and
SLACK_WEBHOOK_URL, if set, is notified when batches end.

SIGHUP reads the configuration again; SIGTERM stops the daemon cleanly.")]
pub struct Arguments {}

pub fn run(_: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    let options = RunOptions { config_file: context.globals.config.clone(), env: Env::of_process() };
    match daemon::run(&options).map_err(Error::from) {
        Ok(()) => Ok(Exit::Ok),
        Err(error) if context.ui.is_watched() => Err(error),
        Err(error) => {
            // For a journal: one record a line, each with its priority.
            for line in error.lines() {
                tracing::error!("{line}");
            }
            Ok(error.kind)
        }
    }
}

impl From<RunError> for Error {
    fn from(error: RunError) -> Self {
        let message = error.to_string();
        match error {
            RunError::Config(refused) => refused.into(),
            RunError::Setup(problems) => {
                let error = Self::new(Exit::Configuration, "the configuration cannot be used");
                problems.into_iter().fold(error, Self::cause)
            }
            RunError::Open(open) => open.into(),
            RunError::Bind(BindError::Alive { .. }) => {
                Self::new(Exit::StateHeld, message).hint("`batchd status` shows how it is doing")
            }
            RunError::State(StoreError::Damaged(_)) => Self::new(Exit::StateDamaged, message),
            RunError::State(StoreError::Outdated { .. }) => Self::new(Exit::Internal, message),
            RunError::State(_) => Self::new(Exit::StateUnwritable, message),
            RunError::Bind(_) | RunError::Loop(_) | RunError::System(_) => Self::new(Exit::Failed, message),
        }
    }
}
