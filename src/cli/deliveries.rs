//! `batchd deliveries`: what was sent to webhooks, and what still has to be.

use super::error::Error;
use super::exit::Exit;
use super::quantity::of;
use super::show::state_tone;
use super::source::{Extent, Limit, Source, every};
use super::style::Tone;
use super::table::{Cell, Column, Table};
use super::view::{distance, short_distance, time};
use super::{Context, each};
use crate::control::api::{DeliveryView, RetryDead};
use crate::control::client::Query;
use clap::builder::NonEmptyStringValueParser;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use jiff::Timestamp;

/// List deliveries to webhooks; `retry` sends them again
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  batchd deliveries --state dead
  batchd deliveries retry 41 42
  batchd deliveries retry --dead --webhook pipeline"
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Args)]
struct List {
    /// Only in this state
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(STATES))]
    state: Option<String>,
    /// Only to this webhook
    #[arg(long, value_name = "WEBHOOK", value_parser = NonEmptyStringValueParser::new())]
    webhook: Option<String>,
    #[command(flatten)]
    limit: Limit,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send deliveries again, under the same event id
    Retry {
        /// Ids of deliveries
        #[arg(required_unless_present = "dead", value_name = "ID")]
        ids: Vec<String>,
        /// Every dead one: given up after its last attempt
        #[arg(long, conflicts_with = "ids")]
        dead: bool,
        /// Of those, only the ones to this webhook
        #[arg(long, value_name = "WEBHOOK", requires = "dead")]
        webhook: Option<String>,
        /// Do not ask, with --dead
        #[arg(short, long)]
        yes: bool,
    },
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    match arguments.command {
        Some(_) if context.globals.offline => {
            Err(Error::usage("`deliveries retry` needs the daemon; leave out --offline"))
        }
        Some(Command::Retry { ids, dead: false, .. }) => {
            let client = context.client().await?;
            each(context, &ids, async |context, id| {
                client.retry_delivery(id).await?;
                context.ui.note(&format!("{id}: due now"));
                Ok(())
            })
            .await
        }
        Some(Command::Retry { webhook, yes, .. }) => {
            let client = context.client().await?;
            let to = webhook.as_deref().map(|name| format!(" to {name}")).unwrap_or_default();
            if !yes && !context.ui.confirm(&format!("Send every delivery{to} again that was given up?"))? {
                return Ok(Exit::Failed);
            }
            let retried = client.retry_dead(&RetryDead { webhook }).await?.retried;
            context.ui.note(&format!("{} due now", of(retried, "delivery is", "deliveries are")));
            Ok(Exit::Ok)
        }
        None => list(&arguments.list, context).await,
    }
}

async fn list(arguments: &List, context: &mut Context) -> Result<Exit, Error> {
    let source = context.source().await?;
    if arguments.json {
        let ui = &mut context.ui;
        let mut list = None;
        let extent = read(&source, arguments, |delivery| {
            list.get_or_insert_with(|| ui.json_list()).entry(ui, &delivery);
            ui.is_open()
        })
        .await?;
        list.unwrap_or_else(|| ui.json_list()).end(ui, &extent);
        return Ok(Exit::Ok);
    }
    if context.globals.quiet {
        let ui = &mut context.ui;
        read(&source, arguments, |delivery| {
            ui.line(&delivery.id);
            ui.is_open()
        })
        .await?;
        return Ok(Exit::Ok);
    }
    let now = context.clock.now();
    let mut table = columns();
    read(&source, arguments, |delivery| {
        table.row(row(&delivery, now));
        true
    })
    .await?;
    if table.is_empty() {
        context.ui.note("no deliveries; `batchd webhooks` shows which events each webhook gets");
    }
    context.ui.table(&table);
    Ok(Exit::Ok)
}

async fn read(
    source: &Source,
    arguments: &List,
    take: impl FnMut(DeliveryView) -> bool,
) -> Result<Extent, Error> {
    let page = async |after: Option<&str>, size: u64| {
        let mut query = Query::default().with("limit", size.to_string());
        for (key, value) in [
            ("state", arguments.state.as_deref()),
            ("webhook", arguments.webhook.as_deref()),
            ("after", after),
        ] {
            if let Some(value) = value {
                query = query.with(key, value);
            }
        }
        source.deliveries(&query).await
    };
    every(arguments.limit.limit, page, |listing| Some(listing.data.last()?.id.clone()), take).await
}

fn columns() -> Table {
    Table::new(&[
        Column::whole("ID"),
        Column::whole("STATE"),
        Column::text("WEBHOOK").stays(),
        Column::text("TYPE").stays().at_least("batch.completed".len()),
        Column::id("BATCH").stays(),
        Column::number("CODE").drops(1),
        Column::whole("LAST TRY").drops(2),
        Column::number("ATTEMPTS").drops(5),
        Column::whole("NEXT").drops(4),
        Column::whole("CREATED").drops(6),
        Column::text("LAST ERROR").drops(3).at_least(12),
    ])
}

fn row(delivery: &DeliveryView, now: Timestamp) -> Vec<Cell> {
    let about = [delivery.provider.as_deref(), delivery.batch_id.as_deref()];
    let at = |at: &Option<String>, earliest: Option<Timestamp>| {
        let at = at.as_deref().and_then(|at| time(&at.into()));
        at.map(|at| distance(earliest.map_or(at, |earliest| at.max(earliest)), now)).unwrap_or_default()
    };
    // A batch is known by its id alone where there is little room.
    let whole = about.into_iter().flatten().collect::<Vec<_>>().join(":");
    let bare = about.into_iter().flatten().last().unwrap_or_default().to_owned();
    vec![
        delivery.id.as_str().into(),
        Cell::new(state_tone(&delivery.state), delivery.state.as_str()),
        delivery.webhook.as_str().into(),
        delivery.kind.as_str().into(),
        Cell::of_forms(Tone::Plain, [whole, bare]),
        delivery.last_status_code.map(|code| code.to_string()).unwrap_or_default().into(),
        Cell::of_forms(Tone::Plain, short_distance(&at(&delivery.last_attempt_at, None))),
        delivery.attempts.to_string().into(),
        at(&delivery.next_attempt_at, Some(now)).into(),
        at(&delivery.created_at, None).into(),
        delivery.last_error.as_deref().unwrap_or_default().into(),
    ]
}

const STATES: [&str; 5] = ["pending", "inflight", "delivered", "dead", "held"];

#[cfg(test)]
mod tests {
    use super::super::style::Style;
    use super::*;

    #[test]
    fn a_row_a_delivery() {
        let delivery = |id: &str, state: &str, error: Option<&str>| DeliveryView {
            id: id.into(),
            object: "delivery".into(),
            event_id: "evt_1".into(),
            kind: "batch.completed".into(),
            batch_id: Some("batch_1".into()),
            provider: Some("openai".into()),
            webhook: "pipeline".into(),
            state: state.into(),
            attempts: 3,
            created_at: Some("2026-11-18T11:00:40Z".into()),
            last_attempt_at: Some("2026-11-18T11:05:00Z".into()),
            delivered_at: None,
            last_status_code: error.map_or(Some(200), |_| Some(503)),
            next_attempt_at: error.map(|_| "2026-11-18T11:08:40Z".into()),
            last_error: error.map(Into::into),
            log: None,
        };
        let mut table = columns();
        let now = Timestamp::constant(1_795_000_000, 0);
        table.row(row(&delivery("7", "delivered", None), now));
        table.row(row(&delivery("41", "pending", Some("503 Service Unavailable")), now));
        insta::assert_snapshot!(table.render(Style::default()));
        let narrow = table.render(Style { width: Some(80), ..Style::default() });
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        assert!(
            ["batch_1", "503", "1 m ago", "pipeline"].iter().all(|text| narrow.contains(text)),
            "{narrow}"
        );
    }
}
