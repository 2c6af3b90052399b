//! `batchd resubmit`: a batch of the requests of another that did not succeed.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use super::ids::{self, parse_id};
use super::submit::{self, Trouble};
use super::view::BatchView;
use crate::control::client::Query;
use crate::sync::lock;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Submit what did not succeed in an ended batch once more
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd resubmit batch_68fd8e2f1c0c8190
  batchd resubmit nightly --only expired
  batchd results --merged nightly -o all.jsonl

Requests that failed, expired, were cancelled or never ran are submitted once more,
their custom_ids kept. They are taken from the file that is kept here, else from the
provider's input file, else from --input. `batchd results --merged` reads the results
of both batches as those of one.

Prints the new batch's id. Exit code 1: every request has succeeded, the batch has
not ended, or it was resubmitted before.")]
pub struct Arguments {
    /// The id, also as PROVIDER:ID
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: String,
    /// Only requests of this kind [default: all that did not succeed]
    #[arg(long, value_name = "KIND")]
    only: Option<Kind>,
    /// The file of requests that the batch was created from; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Also if the batch was resubmitted before
    #[arg(long)]
    again: bool,
    /// If the provider takes no more for now, queue the submission
    #[arg(long)]
    wait_for_quota: bool,
    /// Print the new batch as one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Failed,
    Expired,
    Cancelled,
    Missing,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let id = ids::one(&arguments.id, &mut context.ui)?;
    let mut query = Query::default();
    if let Some(kind) = arguments.only.and_then(|kind| kind.to_possible_value()) {
        query = query.with("only", kind.get_name());
    }
    for (key, value, wanted) in
        [("again", "true", arguments.again), ("wait", "quota", arguments.wait_for_quota)]
    {
        if wanted {
            query = query.with(key, value);
        }
    }
    let trouble = Trouble::default();
    let bar = context.ui.bar(None);
    let input = match &arguments.input {
        Some(path) => Some(submit::pieces(submit::open(path)?.0, bar.clone(), trouble.clone())),
        None => None,
    };
    let client = context.client().await?;
    context.ui.progress("reading results and input");
    let answer = client.resubmit(&id, &query, input).await;
    context.ui.clear_progress();
    bar.finish_and_clear();
    if let Some(error) = lock(&trouble).take() {
        return Err(Error::io("cannot read the input to its end", &error).hint("nothing was submitted"));
    }
    let batch = answer.map_err(|error| Error::from(error).about(&id))?;
    let view = BatchView(&batch);
    if let Some(warnings) = view.added("warnings").as_array() {
        for warning in warnings.iter().filter_map(|warning| warning.as_str()) {
            context.ui.warn(warning);
        }
    }
    let told = view.added("resubmitted");
    let count = |kind: &str| told[kind].as_u64().unwrap_or_default();
    let kinds: Vec<String> = ["failed", "expired", "cancelled", "missing"]
        .into_iter()
        .filter(|kind| count(kind) > 0)
        .map(|kind| format!("{} {kind}", count(kind)))
        .collect();
    let requests = if count("requests") == 1 { "request" } else { "requests" };
    context.ui.note(&format!("{} {requests} of {id}: {}", count("requests"), kinds.join(", ")));
    submit::tell(&batch, arguments.json, &mut context.ui);
    Ok(Exit::Ok)
}
