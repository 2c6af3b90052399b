//! `batchd restore`: puts a backup in the place of a stopped daemon's state.

use super::Context;
use super::connect::client_view;
use super::error::Error;
use super::exit::Exit;
use super::quantity::of;
use crate::store::Store;
use clap::Args;
use std::path::{Path, PathBuf};

/// Put a backup in the place of the state, while no daemon runs
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo systemctl stop batchd.socket batchd.service
  sudo batchd restore batchd-2026-11-22.db --state-dir /var/lib/batchd
  sudo systemctl start batchd.socket batchd.service

The backup is checked first. What was there is kept as batchd.db.before-TIME.
Exit codes: 65 the backup is damaged, 70 it is of a newer batchd, 75 a daemon
holds the state.")]
pub struct Arguments {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The state directory [default: the configuration's `[state] dir`, else the usual one]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub fn run(arguments: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    let dir = match &arguments.state_dir {
        Some(dir) => dir.clone(),
        None => state_dir(context)?,
    };
    let file = &arguments.file;
    std::fs::File::open(file)
        .map_err(|error| Error::io(format!("cannot read {}", file.display()), &error))?;
    let holds = Store::judge_backup(file)?;
    let what = format!(
        "{} ({}, {})",
        file.display(),
        of(holds.batches, "batch", "batches"),
        of(holds.events, "event", "events")
    );
    if !arguments.yes
        && !context.ui.confirm(&format!("Put {what} in the place of the state in {}?", dir.display()))?
    {
        return Ok(Exit::Failed);
    }
    let kept = Store::restore(&dir, file, context.clock.now()).map_err(|error| {
        let held = Exit::from(&error) == Exit::StateHeld;
        let error = Error::from(error);
        if held {
            error
                .hint("stop it first: `systemctl stop batchd.socket batchd.service`, or Ctrl-C where it runs")
        } else {
            error
        }
    })?;
    context.ui.note(&format!("restored {what} to {}", dir.display()));
    if let Some(kept) = kept {
        context.ui.note(&format!("what was there is kept as {}", kept.display()));
    }
    context.ui.note(
        "start the daemon now: what ended since the backup is seen again, and told under the same event ids",
    );
    Ok(Exit::Ok)
}

/// The state directory that a daemon with this configuration uses; the service's, where the user has none.
fn state_dir(context: &Context) -> Result<PathBuf, Error> {
    let service = Path::new("/var/lib/batchd");
    match client_view(context.globals.config.as_deref())?.state_dir {
        Some(dir) if dir.exists() || !service.exists() => Ok(dir),
        Some(_) => Ok(service.to_owned()),
        None => Err(Error::new(Exit::Configuration, "no state directory is known")
            .hint("name it with --state-dir, or in the configuration: `[state] dir`")),
    }
}
