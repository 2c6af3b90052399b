//! `batchd prices import`: reads a list of prices into the file beside the configuration.

use super::Context;
use super::atomic_file::{AtomicFile, failed, is_stdout};
use super::error::Error;
use super::exit::Exit;
use super::quantity::count;
use crate::config::environment::Env;
use crate::config::find;
use crate::domain::price_import::{self, Import};
use crate::domain::printable::clean_lines;
use clap::{Args, Subcommand};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Read a list of what models cost
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read the list that `LiteLLM` maintains into prices.json beside the configuration
    #[command(after_help = "FILE is LiteLLM's model_prices_and_context_window.json. Batch prices are taken
as they are listed, else half of the usual ones at providers that document
that discount. They are in force from the next `batchd reload`; [prices] in
the configuration wins over them. No daemon is needed.")]
    Import {
        /// The list; `-` is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub fn run(arguments: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    let Command::Import { file } = &arguments.command;
    let import = price_import::read(&read(file, context)?)
        .map_err(|why| Error::new(Exit::Failed, format!("{} is no list of prices: {why}", file.display())))?;
    let path = written(&import, context)?;
    context.ui.note(&clean_lines(&report(&import, &path)));
    Ok(Exit::Ok)
}

/// The text of the list.
fn read(file: &Path, context: &mut Context) -> Result<String, Error> {
    let mut text = String::new();
    let unread = |error: &std::io::Error| Error::io(format!("cannot read {}", file.display()), error);
    let list: Box<dyn std::io::Read> = if is_stdout(file) {
        if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            context.ui.note("waiting for the list on standard input");
        }
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(file).map_err(|error| unread(&error))?)
    };
    list.take(MAX_LIST_BYTES + 1).read_to_string(&mut text).map_err(|error| unread(&error))?;
    if text.len() as u64 > MAX_LIST_BYTES {
        let message = format!("{} is longer than {} MiB", file.display(), MAX_LIST_BYTES >> 20);
        return Err(Error::new(Exit::Failed, message));
    }
    Ok(text)
}

/// Writes what was taken, in place of what an import before it wrote. Gives the file's name.
fn written(import: &Import, context: &Context) -> Result<PathBuf, Error> {
    let env = Env::of_process();
    let config = find::config_file(context.globals.config.as_deref(), &env)
        .map_err(|problem| Error::from(crate::config::Refused::plain(problem)))?;
    let Some(path) = find::prices_file(config.as_deref(), &env) else {
        return Err(Error::new(Exit::Configuration, "there is no place for the prices: HOME is not set"));
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(|error| failed(&path, &error))?;
    }
    let mut file = AtomicFile::begin(&path, true)?;
    let text = serde_json::to_string_pretty(&import.imported)
        .map_err(|error| Error::new(Exit::Internal, error.to_string()))?;
    file.write(text.as_bytes())?;
    file.write(b"\n")?;
    file.finish()?;
    Ok(path)
}

fn report(import: &Import, path: &Path) -> String {
    let taken = import.imported.len();
    let by_kind = import.imported.prices.iter();
    let by_kind: Vec<String> =
        by_kind.map(|(kind, models)| format!("{kind} {}", count(models.len() as u64))).collect();
    let mut text = format!(
        "{}: {} prices taken ({} as listed for batches, {} at half of the usual price)",
        path.display(),
        count(taken as u64),
        count(import.as_listed as u64),
        count(import.halved as u64)
    );
    if !by_kind.is_empty() {
        let _ = write!(text, "\nby kind: {}", by_kind.join(", "));
    }
    for (why, skipped) in &import.skipped {
        let _ = write!(text, "\n{} skipped {}", count(*skipped as u64), why.why());
    }
    text.push_str("\n`batchd reload` puts them in force in a daemon that runs");
    text
}

/// LiteLLM's list has about 2 MB.
const MAX_LIST_BYTES: u64 = 64 << 20;
