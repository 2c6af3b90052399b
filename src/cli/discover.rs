//! `batchd discover`: the batches that the providers have, whoever created them.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use super::quantity::of;
use super::source::{Limit, parse_since};
use super::style::Tone;
use super::table::{Cell, Column, Table};
use super::view::{BatchView, tone};
use crate::control::api::DiscoverRequest;
use crate::control::client_error::ClientError;
use crate::domain::duration::human;
use crate::domain::time::since;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use jiff::Timestamp;
use std::time::Duration;

/// List the batches that the providers have, tracked or not
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd discover
  batchd discover --provider openai --since 30d
  batchd discover --track

With `discover = \"*/5 * * * *\"` in a provider's table the daemon does this by itself.")]
pub struct Arguments {
    /// Only this provider
    #[arg(long, value_name = "PROVIDER", value_parser = NonEmptyStringValueParser::new())]
    provider: Option<String>,
    /// Only batches created since: so long ago, or at an instant (RFC 3339)
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_since)]
    since: String,
    /// Track those that have not ended
    #[arg(long)]
    track: bool,
    #[command(flatten)]
    limit: Limit,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let request = DiscoverRequest {
        provider: arguments.provider,
        since: Some(arguments.since.clone()),
        track: arguments.track,
    };
    let mut answer = context.client().await?.discover(&request).await?;
    arguments.limit.cut(&mut answer.batches);
    let batches: Vec<BatchView<'_>> = answer.batches.data.iter().map(BatchView).collect();
    if arguments.json {
        context.ui.json(&answer);
    } else if context.globals.quiet {
        for batch in &batches {
            context.ui.line(batch.id());
        }
    } else {
        let now = context.clock.now();
        let mut table = columns();
        for batch in &batches {
            table.row(row(*batch, now));
        }
        context.ui.table(&table);
        if batches.is_empty() && answer.errors.is_empty() {
            context.ui.note(&format!("no batch was created since {}", arguments.since));
        }
    }
    if arguments.track {
        context.ui.note(&format!("{} now tracked", of(answer.tracked, "batch is", "batches are")));
    }
    let mut exit = Exit::Ok;
    for failed in answer.errors {
        let error = Error::from(ClientError::Refused(Box::new(failed.error)));
        if exit == Exit::Ok {
            exit = error.kind;
        }
        context.ui.error(&error);
    }
    Ok(exit)
}

fn columns() -> Table {
    Table::new(&[
        Column::id("ID"),
        Column::text("NAME").drops(4),
        Column::text("PROVIDER").drops(5),
        Column::whole("STATUS"),
        Column::whole("RESULT").drops(2),
        Column::whole("PROGRESS").drops(1),
        Column::number("AGE").drops(3),
        Column::whole("TRACKED"),
    ])
}

fn row(batch: BatchView<'_>, now: Timestamp) -> Vec<Cell> {
    let outcome = batch.outcome();
    let age = batch.stamp("created_at").map(|at| human(Duration::from_secs(since(at, now).as_secs())));
    let (tracked, meant) =
        if batch.time("tracked_at").is_some() { ("yes", Tone::Plain) } else { ("no", Tone::Faint) };
    vec![
        batch.id().into(),
        batch.added("name").as_str().unwrap_or_default().into(),
        batch.provider().into(),
        Cell::new(tone(batch.status(), outcome), batch.status()),
        Cell::new(
            tone(batch.status(), outcome),
            outcome.filter(|outcome| *outcome != batch.status()).unwrap_or_default(),
        ),
        Cell::of_forms(Tone::Plain, batch.progress_forms()),
        age.unwrap_or_default().into(),
        Cell::new(meant, tracked),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::style::Style;
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_tracked_is_told_from_what_is_not() {
        let batch = |id: &str, status: &str, tracked_at: Option<&str>| {
            json!({
                "id": id, "status": status, "created_at": 1_794_992_800,
                "request_counts": {"total": 100, "completed": 40, "failed": 0},
                "batchd": {
                    "provider": "openai", "name": "nightly", "tracked_at": tracked_at,
                    "outcome": (status == "completed").then_some("succeeded"),
                },
            })
        };
        let batches = [
            batch("batch_1", "in_progress", None),
            batch("batch_2", "completed", Some("2026-11-18T11:06:30Z")),
        ];
        let mut table = columns();
        for batch in &batches {
            table.row(row(BatchView(batch), Timestamp::constant(1_795_000_000, 0)));
        }
        insta::assert_snapshot!(table.render(Style::default()));
    }
}
