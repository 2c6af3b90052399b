//! `batchd get`: checks any batch once.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use super::ids::{self, parse_id};
use super::show::page;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;

/// Check any batch once, tracked or not; changes nothing
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd get batch_68fd8e2f1c0c8190
  batchd get msgbatch_01Hkc --provider anthropic --json | jq .request_counts")]
pub struct Arguments {
    /// The id, also as PROVIDER:ID
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: String,
    /// The provider that has it [default: found by the form of the id]
    #[arg(long, value_name = "PROVIDER", value_parser = NonEmptyStringValueParser::new())]
    provider: Option<String>,
    /// Print one JSON document: the Batch
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let client = context.client().await?;
    let id = ids::one(&arguments.id, &mut context.ui)?;
    let answer = client.fetch(&id, arguments.provider.as_deref()).await;
    let batch = answer.map_err(|error| Error::from(error).about(&id))?;
    if arguments.json {
        context.ui.json(&batch);
    } else {
        let text = page(&batch, context.clock.now(), &context.zone, context.ui.style());
        context.ui.write(&text);
    }
    Ok(Exit::Ok)
}
