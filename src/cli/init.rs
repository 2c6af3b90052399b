//! `batchd init`: asks for providers and webhooks, tries each, and writes a configuration.

use super::Context;
use super::atomic_file::{aside, exists, failed, put, sync_directory};
use super::error::Error;
use super::exit::Exit;
use super::init_answers::Answers;
use super::style::Tone;
use crate::config::Config;
use crate::config::environment::Env;
use crate::config::find::new_file;
use crate::control::assembly::catalog;
use crate::control::trial::Trial;
use crate::domain::printable::clean;
use clap::Args;
use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Write a configuration, asking for providers and webhooks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd init
  batchd init --provider openai --webhook slack=https://hooks.slack.com/… --service

With --provider nothing is asked: the key is taken from the kind's own variable,
such as OPENAI_API_KEY. What is typed, and with --service every key, is kept in
files that only you may read, in `keys` beside the configuration.
Exit codes: 77 a key is refused, 1 something else does not work. In both cases
nothing is written.")]
pub struct Arguments {
    /// A kind of provider whose key is in its own variable; may be repeated
    #[arg(long = "provider", value_name = "KIND")]
    providers: Vec<String>,
    /// A webhook; may be repeated
    #[arg(long = "webhook", value_name = "KIND=URL", value_parser = parse_webhook)]
    webhooks: Vec<(String, String)>,
    /// Install the user service, and start it
    #[arg(long)]
    service: bool,
    /// Do not try the providers and webhooks
    #[arg(long)]
    no_check: bool,
    /// Replace a configuration that is there
    #[arg(long)]
    force: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let env = Env::of_process();
    let file = match &context.globals.config {
        Some(file) => file.clone(),
        None => new_file(&env).ok_or_else(|| {
            Error::new(Exit::Configuration, "the environment names no home")
                .hint("say where: `--config FILE`")
        })?,
    };
    if file.exists() && !arguments.force {
        return Err(exists(&file).hint("`batchd config check` tells what is wrong with it"));
    }
    let given = !arguments.providers.is_empty() || !arguments.webhooks.is_empty();
    if !given && !std::io::stdin().is_terminal() {
        return Err(Error::usage("there is nobody to ask: standard input is no terminal")
            .hint("say what is wanted: `batchd init --provider openai`; the key comes from OPENAI_API_KEY"));
    }
    let mut answers = if given {
        Answers::given(&arguments.providers, &arguments.webhooks, &env)?
    } else {
        Answers::asked(&mut context.ui, &env)?
    };
    let service = arguments.service
        || !given && has_systemd() && context.ui.agrees("Install the user service, and start it?")?;
    if service {
        // A service does not have this shell's variables.
        answers.keep_keys(&env);
    }
    let directory = file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = write(&file, directory, &answers, &arguments, context, &env).await;
    if let Err((error, keys)) = written {
        for key in keys {
            let _ = std::fs::remove_file(key);
        }
        return Err(error);
    }
    context.ui.note(&format!("wrote {}", file.display()));
    if service {
        install(context)?;
    } else {
        context.ui.note("start it with `batchd run`, then watch a batch: `batchd track ID`");
    }
    Ok(Exit::Ok)
}

/// Writes the keys, tries what they open, and writes the file; an error names the keys that are to go again.
async fn write(
    file: &Path,
    directory: &Path,
    answers: &Answers,
    arguments: &Arguments,
    context: &mut Context,
    env: &Env,
) -> Result<(), (Error, Vec<PathBuf>)> {
    let mut keys = Vec::new();
    let private = |path: &Path| std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    let made = private(directory).map_err(|error| (failed(directory, &error), Vec::new()));
    made?;
    for (name, secret) in answers.kept() {
        let path = directory.join("keys").join(name);
        let written = private(&directory.join("keys")).and_then(|()| {
            let mut options = OpenOptions::new();
            let options = options.write(true).mode(0o600);
            // Another's key is not overwritten by mistake.
            let options =
                if arguments.force { options.create(true).truncate(true) } else { options.create_new(true) };
            let mut key = options.open(&path)?;
            key.write_all(secret.as_bytes())?;
            key.sync_all()
        });
        written.map_err(|error| (failed(&path, &error), keys.clone()))?;
        keys.push(path);
    }
    let text = answers.toml();
    let done = async {
        let config = Config::parse(file, &text, &catalog(), env)?;
        if !arguments.no_check {
            tried(config, env, context).await?;
        }
        let aside = aside(file);
        let written =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside).and_then(|mut new| {
                new.write_all(text.as_bytes())?;
                new.sync_all()
            });
        let named = written.and_then(|()| put(&aside, file, arguments.force));
        named.and_then(|()| sync_directory(file)).map_err(|error| {
            let _ = std::fs::remove_file(&aside);
            failed(file, &error)
        })
    };
    done.await.map_err(|error: Error| (error, keys))
}

/// Makes a live call to each provider and sends each webhook a test.
async fn tried(config: Config, env: &Env, context: &mut Context) -> Result<(), Error> {
    let trial = Trial::of(config, env, &context.clock).map_err(|problems| {
        problems.into_iter().fold(Error::new(Exit::Failed, "a secret cannot be read"), Error::cause)
    })?;
    let mut first: Option<Error> = None;
    let mut tell = |context: &mut Context, name: &str, error: Option<(Exit, String)>| match error {
        None => context.ui.sign(Tone::Good, "✓", name),
        Some((exit, text)) => {
            context.ui.sign(Tone::Bad, "✗", &format!("{name}: {}", clean(&text)));
            first.get_or_insert_with(|| Error::new(exit, format!("{name} does not work: {text}")));
        }
    };
    for tried in trial.providers().await {
        let answer = tried.answer;
        let exit = if answer.refused { Exit::Refused } else { Exit::Failed };
        let error = (!answer.ok).then(|| (exit, answer.error.unwrap_or_default()));
        tell(context, &format!("provider {}", answer.name), error);
    }
    for (name, answer) in trial.webhooks().await {
        let error =
            answer.error.or(answer.http_status.map(|status| format!("HTTP {status}"))).unwrap_or_default();
        tell(context, &format!("webhook {name}"), (!answer.delivered).then_some((Exit::Failed, error)));
    }
    let Some(error) = first else { return Ok(()) };
    if std::io::stdin().is_terminal() && context.ui.confirm("Write the configuration all the same?")? {
        return Ok(());
    }
    Err(error.hint("nothing was written; --no-check writes it without trying"))
}

fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// Puts the unit where the user's systemd finds it, and starts it.
fn install(context: &mut Context) -> Result<(), Error> {
    let Some(home) = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))
    else {
        return Err(Error::new(Exit::Failed, "the environment names no home"));
    };
    let unit = home.join("systemd/user/batchd.service");
    if !unit.exists() && !Path::new("/usr/lib/systemd/user/batchd.service").exists() {
        let directory = unit.parent().unwrap_or(&home);
        std::fs::create_dir_all(directory)
            .and_then(|()| std::fs::write(&unit, include_str!("../../systemd/user/batchd.service")))
            .map_err(|error| failed(&unit, &error))?;
        context.ui.note(&format!("wrote {}", unit.display()));
    }
    for words in [&["daemon-reload"][..], &["enable", "--now", "batchd.service"]] {
        let done = Command::new("systemctl").arg("--user").args(words).status();
        let done = done.map_err(|error| Error::io("cannot run systemctl", &error))?;
        if !done.success() {
            return Err(Error::new(Exit::Failed, format!("`systemctl --user {}` failed", words.join(" ")))
                .hint("the configuration is written; `batchd run` starts the daemon in a terminal"));
        }
    }
    context.ui.note("the service runs; `loginctl enable-linger` keeps it running after logout");
    Ok(())
}

fn parse_webhook(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((kind, url)) if !kind.is_empty() && !url.is_empty() => Ok((kind.to_owned(), url.to_owned())),
        _ => Err("a webhook is written KIND=URL".to_owned()),
    }
}
