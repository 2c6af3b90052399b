//! `batchd config`: checks or shows the configuration without a daemon.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use crate::config::Config;
use crate::config::environment::Env;
use crate::control::api::ConfigReport;
use crate::control::assembly::catalog;
use crate::domain::printable::clean_lines;
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
    /// Print what is in force, defaults included, secrets redacted: the running daemon's, else the file's
    Show,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    match &arguments.command {
        Command::Check { file, no_secrets } => {
            let file = file.as_deref().or(context.globals.config.as_deref());
            let config = check(file, !no_secrets)?;
            context.ui.exhibit(|colour| config.rendered_warnings(colour));
            context.ui.line(&summary(&config));
            Ok(Exit::Ok)
        }
        Command::Show => show(context).await,
    }
}

/// Prints what is in force: what the daemon says, if one answers; else what `run` would take from the file.
async fn show(context: &mut Context) -> Result<Exit, Error> {
    let running = in_force(context).await;
    let named = context.globals.config.as_deref();
    let Some(running) =
        running.filter(|running| named.is_none_or(|file| is_same(file, running.file.as_deref())))
    else {
        let text = effective(named)?;
        context.ui.note("no daemon runs with this configuration; this is what `batchd run` would use");
        context.ui.write(&text);
        return Ok(Exit::Ok);
    };
    context.ui.write("# in force in the running daemon\n");
    context.ui.line(&clean_lines(&running.toml));
    if let Some(error) = running.error {
        context.ui.warn(&format!("the file was edited, and a reload would be refused: {error}"));
    } else if !running.pending.is_empty() {
        let changes = running.pending.join(", ");
        context.ui.warn(&format!("the file was edited; `batchd reload` would change: {changes}"));
    }
    Ok(Exit::Ok)
}

/// What the daemon runs with, if one answers and tells.
async fn in_force(context: &Context) -> Option<ConfigReport> {
    context.client().await.ok()?.config().await.ok()
}

fn is_same(file: &Path, other: Option<&str>) -> bool {
    let whole = |file: &Path| file.canonicalize().or_else(|_| std::path::absolute(file)).ok();
    other.is_some_and(|other| whole(file) == whole(Path::new(other)))
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
    let mut config = Config::load(file, &catalog(), &env)?;
    if secrets {
        config.check_secrets(&env).map_err(|refused| {
            let error = Error::from(refused);
            if config.lacks_the_services_secrets(&env) {
                return error
                    .hint(ELSEWHERE)
                    .hint("`batchd status` shows whether the running daemon is well");
            }
            error
        })?;
        config.doubt_secrets(&env);
    }
    Ok(config)
}

fn effective(file: Option<&Path>) -> Result<String, Error> {
    Ok(Config::load(file, &catalog(), &Env::of_process())?.show())
}

/// What to do where a secret is missing that only the service may have.
const ELSEWHERE: &str = "a service has variables and credentials that this shell lacks: `batchd config check --no-secrets` \
                         checks everything but the secrets";

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
