//! `batchd untrack`: stops watching batches.

use super::error::Error;
use super::exit::Exit;
use super::ids::{self, parse_id};
use super::quantity::of;
use super::{Context, each};
use clap::Args;

/// Stop watching batches; their history stays
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd untrack nightly
  batchd list -q -a --since 30d --status expired | batchd untrack --purge -

The batch itself continues at its provider. `batchd track` watches it again.
Of more than 20 batches only the number is printed, with -v each.")]
pub struct Arguments {
    /// Ids, also as PROVIDER:ID, names, or beginnings of ids; `-` reads them from standard input
    #[arg(required = true, value_name = "ID", value_parser = parse_id)]
    ids: Vec<String>,
    /// Delete the history too: the batch, its events, its deliveries
    #[arg(long)]
    purge: bool,
    /// Do not ask before the history of several batches is deleted
    #[arg(short, long)]
    yes: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let ids = ids::every(&arguments.ids, &mut context.ui)?;
    let client = context.client().await?;
    let many = of(ids.len() as u64, "batch", "batches");
    if arguments.purge
        && ids.len() > 1
        && !arguments.yes
        && !context.ui.confirm(&format!("Delete {many} with all their events and deliveries?"))?
    {
        return Ok(Exit::Failed);
    }
    let done = if arguments.purge { "no longer watched, history deleted" } else { "no longer watched" };
    let told = ids.len() <= TOLD || context.globals.verbose > 0;
    let mut count = 0;
    let exit = each(context, &ids, async |context, id| {
        client.untrack(id, arguments.purge).await?;
        count += 1;
        if told {
            context.ui.note(&format!("{id}: {done}"));
        }
        Ok(())
    })
    .await?;
    if !told {
        context.ui.note(&format!("{}: {done}", of(count, "batch", "batches")));
    }
    Ok(exit)
}

/// So many are told of one by one.
const TOLD: usize = 20;
