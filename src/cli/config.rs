//! `batchd config`: looks at the configuration without a daemon.

use super::Context;
use super::error::Error;
use super::exit::Exit;
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
    /// Say everything that is wrong with it; exit 78 if anything is
    Check {
        /// The file [default: the one that `run` would read]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Do not look whether secrets can be read
        #[arg(long)]
        no_secrets: bool,
    },
    /// Print the effective configuration, every default included, secrets redacted
    Show,
}

/// What a sound configuration holds.
#[derive(Debug, Default)]
struct Found {
    /// Where it was read.
    file: Option<PathBuf>,
    providers: Vec<String>,
    webhooks: Vec<String>,
    warnings: Vec<String>,
}

/// Does it.
pub fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    match arguments.command {
        Command::Check { file, no_secrets } => {
            let file = file.or_else(|| context.globals.config.clone());
            let found = check(file.as_deref(), !no_secrets)?;
            for warning in &found.warnings {
                context.ui.warn(warning);
            }
            context.ui.line(&summary(&found));
            Ok(Exit::Ok)
        }
        Command::Show => {
            let text = effective(context.globals.config.as_deref())?;
            context.ui.write(&text);
            Ok(Exit::Ok)
        }
    }
}

fn summary(found: &Found) -> String {
    let place = match &found.file {
        Some(file) => file.display().to_string(),
        None => "environment, no file".to_owned(),
    };
    let named = |names: &[String], one: &str| match names {
        [] => format!("no {one}s"),
        [name] => format!("1 {one} ({name})"),
        names => format!("{} {one}s ({})", names.len(), names.join(", ")),
    };
    format!("ok: {place}: {}, {}", named(&found.providers, "provider"), named(&found.webhooks, "webhook"))
}

// SEAM: becomes `Config::load(file, &catalog, &Env::of_process())`, each secret's `resolve` if `secrets`, and the
// refusal rendered as `Error` of kind `Configuration`.
fn check(file: Option<&Path>, secrets: bool) -> Result<Found, Error> {
    let _ = (file, secrets);
    Err(unread())
}

// SEAM: becomes `Config::load(…)?.show()`.
fn effective(file: Option<&Path>) -> Result<String, Error> {
    let _ = file;
    Err(unread())
}

fn unread() -> Error {
    Error::new(Exit::Configuration, "this build reads no configuration")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_configuration_is_told_in_a_line() {
        let mut found = Found { file: Some("/etc/b.toml".into()), ..Found::default() };
        found.providers = vec!["anthropic".into(), "openai".into()];
        assert_eq!(summary(&found), "ok: /etc/b.toml: 2 providers (anthropic, openai), no webhooks");
        found.file = None;
        found.webhooks = vec!["slack".into()];
        assert_eq!(
            summary(&found),
            "ok: environment, no file: 2 providers (anthropic, openai), 1 webhook (slack)"
        );
    }
}
