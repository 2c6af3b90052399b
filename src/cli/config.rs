//! `batchd config`: checks or shows the configuration without a daemon.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use crate::config::Config;
use crate::config::environment::Env;
use crate::control::assembly::catalog;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

/// Check or show the configuration
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report everything that is wrong with it; exit 78 if anything is
    Check {
        /// The file [default: the one that `run` would read]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Do not check whether secrets can be read
        #[arg(long)]
        no_secrets: bool,
    },
    /// Print the effective configuration, defaults included, secrets redacted
    Show,
}

pub fn run(arguments: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    match &arguments.command {
        Command::Check { file, no_secrets } => {
            let file = file.as_deref().or(context.globals.config.as_deref());
            let config = check(file, !no_secrets)?;
            context.ui.exhibit(|colour| config.rendered_warnings(colour));
            context.ui.line(&summary(&config));
            Ok(Exit::Ok)
        }
        Command::Show => {
            let text = effective(context.globals.config.as_deref())?;
            context.ui.write(&text);
            Ok(Exit::Ok)
        }
    }
}

fn summary(config: &Config) -> String {
    let place = match &config.file {
        Some(file) => file.display().to_string(),
        None => "environment, no file".to_owned(),
    };
    let named = |names: Vec<&str>, one: &str| match names.as_slice() {
        [] => format!("no {one}s"),
        [name] => format!("1 {one} ({name})"),
        names => format!("{} {one}s ({})", names.len(), names.join(", ")),
    };
    let providers = named(config.providers.keys().map(String::as_str).collect(), "provider");
    let webhooks = named(config.webhooks.keys().map(String::as_str).collect(), "webhook");
    format!("ok: {place}: {providers}, {webhooks}")
}

fn check(file: Option<&Path>, secrets: bool) -> Result<Config, Error> {
    let env = Env::of_process();
    let config = Config::load(file, &catalog(), &env)?;
    if secrets {
        config.check_secrets(&env)?;
    }
    Ok(config)
}

fn effective(file: Option<&Path>) -> Result<String, Error> {
    Ok(Config::load(file, &catalog(), &Env::of_process())?.show())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_configuration_is_told_in_a_line() {
        let two = Env::from([("OPENAI_API_KEY", "k"), ("ANTHROPIC_API_KEY", "k"), ("HOME", "/home/nobody")]);
        let config = Config::from_environment(&catalog(), &two).unwrap();
        assert_eq!(
            summary(&config),
            "ok: environment, no file: 2 providers (anthropic, openai), no webhooks"
        );
        let slack = Env::from([
            ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/x"),
            ("HOME", "/home/nobody"),
        ]);
        let config = Config::from_environment(&catalog(), &slack).unwrap();
        assert_eq!(summary(&config), "ok: environment, no file: no providers, 1 webhook (slack)");
    }
}
