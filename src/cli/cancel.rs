//! `batchd cancel`: asks providers to cancel batches.

use super::error::Error;
use super::exit::Exit;
use super::ids::parse_id;
use super::view::{BatchView, columns};
use super::{Context, each};
use crate::domain::printable::clean;
use clap::Args;

/// Ask the provider to cancel batches
#[derive(Debug, Args)]
#[command(after_help = "Requests that were finished before may be charged. Most providers keep their
results; `batchd results` fetches them.")]
pub struct Arguments {
    /// Ids, also as PROVIDER:ID
    #[arg(required = true, value_name = "ID", value_parser = parse_id)]
    ids: Vec<String>,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let client = context.client().await?;
    each(context, &arguments.ids, async |context, id| {
        let answer = client.cancel(id).await?;
        let batch = BatchView(&answer);
        let (provider, id) = (clean(batch.provider()), clean(batch.id()));
        context.ui.line(&columns(&[(&provider, 0), (&id, 0), (&clean(batch.status()), 0)]));
        Ok(())
    })
    .await
}
