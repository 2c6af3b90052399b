//! `batchd discover`: the batches that the providers have, whoever created them.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use super::style::Tone;
use super::table::{Cell, Column, Table, shorten};
use super::track::parse_duration;
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
    /// Only batches created within this time
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_duration)]
    since: String,
    /// Track those that have not ended
    #[arg(long)]
    track: bool,
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
    let answer = context.client().await?.discover(&request).await?;
    let batches: Vec<BatchView<'_>> = answer.batches.data.iter().map(BatchView).collect();
    if arguments.json {
        context.ui.json(&answer);
    } else {
        let now = context.clock.now();
        let mut table = columns();
        for batch in &batches {
            table.row(row(*batch, now));
        }
        context.ui.table(&table);
        if batches.is_empty() && answer.errors.is_empty() {
            context.ui.note(&format!("no batch was created in the last {}", arguments.since));
        }
    }
    if arguments.track {
        let what = if answer.tracked == 1 { "batch is" } else { "batches are" };
        context.ui.note(&format!("{} {what} now tracked", answer.tracked));
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
        Column::whole("ID"),
        Column::text("NAME").drops(4),
        Column::text("PROVIDER").drops(5),
        Column::whole("STATUS"),
        Column::whole("OUTCOME"),
        Column::number("PROGRESS").drops(1),
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
        shorten(batch.added("name").as_str().unwrap_or_default(), NAME_WIDTH).into_owned().into(),
        batch.provider().into(),
        Cell::new(tone(batch.status(), outcome), batch.status()),
        Cell::new(tone(batch.status(), outcome), outcome.unwrap_or_default()),
        batch.progress().into(),
        age.unwrap_or_default().into(),
        Cell::new(meant, tracked),
    ]
}

const NAME_WIDTH: usize = 32;

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
