//! `batchd untrack`: stops watching batches.

use super::error::Error;
use super::exit::Exit;
use super::track::parse_id;
use super::{Context, each};
use clap::Args;

/// Stop watching batches; their history stays
#[derive(Debug, Args)]
#[command(after_help = "The batch itself continues at its provider. `batchd track` watches it again.")]
pub struct Arguments {
    /// Ids, also as PROVIDER:ID
    #[arg(required = true, value_name = "ID", value_parser = parse_id)]
    ids: Vec<String>,
    /// Delete the history too: the batch, its events, its deliveries
    #[arg(long)]
    purge: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let client = context.client().await?;
    let done = if arguments.purge { "no longer watched, history deleted" } else { "no longer watched" };
    Ok(each(context, &arguments.ids, async |context, id| {
        client.untrack(id, arguments.purge).await?;
        context.ui.note(&format!("{id}: {done}"));
        Ok(())
    })
    .await)
}
