//! `batchd poll`: checks batches now.

use super::error::Error;
use super::exit::Exit;
use super::ids::parse_id;
use super::quantity::of;
use super::view::{BatchView, columns};
use super::{Context, each};
use crate::domain::printable::clean;
use clap::Args;

/// Check batches now, whatever their schedule says
#[derive(Debug, Args)]
#[command()]
pub struct Arguments {
    /// Ids, also as PROVIDER:ID
    #[arg(required_unless_present = "all", value_name = "ID", value_parser = parse_id)]
    ids: Vec<String>,
    /// Every active batch
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let client = context.client().await?;
    if arguments.all {
        let due = client.poll_all().await?.due;
        context.ui.note(&format!("{} due now", of(due, "batch is", "batches are")));
        return Ok(Exit::Ok);
    }
    each(context, &arguments.ids, async |context, id| {
        let answer = client.poll(id).await?;
        let batch = BatchView(&answer);
        if batch.id().is_empty() {
            context.ui.note(&format!("{id}: due now"));
        } else {
            let (provider, id) = (clean(batch.provider()), clean(batch.id()));
            context.ui.line(&columns(&[(&provider, 0), (&id, 0), (&clean(batch.status()), 0)]));
        }
        Ok(())
    })
    .await
}
