//! `batchd events`: the event log, read or followed.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use super::follow::{Followed, follow};
use super::source::{Source, every};
use super::track::parse_id;
use super::view::{BatchView, EventView};
use crate::control::client::Query;
use clap::Args;
use futures_util::StreamExt;
use serde_json::Value;
use std::pin::pin;

/// Read the event log, oldest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd events
  batchd events batch_68fd8e2f1c0c8190
  batchd events --follow --json | while read -r event; do …; done

With --json the log is one JSON document, each event in the form of a webhook's
body; with --follow it is one event per line. --follow survives restarts of the
daemon.")]
pub struct Arguments {
    /// Only the events of this batch, also as PROVIDER:ID
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: Option<String>,
    /// Wait for new events and print them as they happen
    #[arg(long, short, conflicts_with_all = ["offline", "limit"])]
    follow: bool,
    /// Only events after this sequence number
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0, hide_default_value = true,
          value_parser = clap::value_parser!(i64).range(0..))]
    after: i64,
    /// At most this many, the oldest
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let source = context.source().await?;
    if arguments.follow {
        return live(source, &arguments, context).await;
    }
    if arguments.json {
        let ui = &mut context.ui;
        let mut list = None;
        let extent = read(&source, &arguments, |event| {
            list.get_or_insert_with(|| ui.json_list()).entry(ui, &event);
            ui.is_open()
        })
        .await?;
        list.unwrap_or_else(|| ui.json_list()).end(ui, &extent);
        return Ok(Exit::Ok);
    }
    let mut any = false;
    read(&source, &arguments, |event| {
        any = true;
        print(&event, context);
        context.ui.is_open()
    })
    .await?;
    if !any {
        context.ui.note("no events yet; `batchd events --follow` waits for them");
    }
    Ok(Exit::Ok)
}

async fn read(
    source: &Source,
    arguments: &Arguments,
    take: impl FnMut(Value) -> bool,
) -> Result<super::source::Extent, Error> {
    let page = async |after: Option<&str>, size: u64| {
        let after = after.map_or_else(|| arguments.after.to_string(), ToOwned::to_owned);
        let query = Query::default().with("after", after).with("limit", size.to_string());
        let page = source.events(arguments.id.as_deref(), &query).await;
        page.map_err(|error| match &arguments.id {
            Some(id) => error.about(id),
            None => error,
        })
    };
    // The log's cursor is the event's number, whatever the page calls its last entry.
    let cursor = |listing: &crate::control::api::Listing<Value>| {
        Some(EventView(listing.data.last()?).sequence().to_string())
    };
    every(arguments.limit, page, cursor, take).await
}

async fn live(source: Source, arguments: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    let Source::Remote(client) = &source else {
        return Err(Error::usage("--follow needs the daemon"));
    };
    let mut after = arguments.after;
    let mut only = None;
    if let Some(id) = &arguments.id {
        // The stream is of all batches: what this one has had is read from its own list, and the stream is joined
        // where the log ended before that, so that nothing falls between.
        let tail = client.status().await?.events;
        let batch = client.batch(id, false).await.map_err(|error| Error::from(error).about(id))?;
        only = Some((BatchView(&batch).provider().to_owned(), BatchView(&batch).id().to_owned()));
        read(&source, arguments, |event| {
            after = after.max(EventView(&event).sequence());
            told(&event, arguments.json, context);
            context.ui.is_open()
        })
        .await?;
        after = after.max(tail);
    }
    let mut events = pin!(follow(client.clone(), after));
    while context.ui.is_open() {
        match events.next().await {
            Some(Followed::Event(event)) => {
                let wanted = match &only {
                    Some((provider, id)) => EventView(&event).key() == Some((provider, id)),
                    None => true,
                };
                if wanted {
                    told(&event, arguments.json, context);
                }
            }
            Some(Followed::Away(error)) => {
                context.ui.note(&format!("{error}; following continues when it is back"));
            }
            Some(Followed::Back { announced: true }) => context.ui.note("the daemon is back"),
            Some(Followed::Back { announced: false }) => {}
            Some(Followed::Reset(last)) => {
                let message = format!(
                    "the event log ends with {last} now, before what was read: its numbers are given again"
                );
                return Err(Error::new(Exit::Failed, message)
                    .hint(format!("a backup was restored, most likely; read on with --after {last}")));
            }
            Some(Followed::Refused(error)) => return Err(error.into()),
            None => break,
        }
    }
    Ok(Exit::Ok)
}

fn told(event: &Value, json: bool, context: &mut Context) {
    if json {
        context.ui.json_line(event);
    } else {
        print(event, context);
        context.ui.flush();
    }
}

fn print(event: &Value, context: &mut Context) {
    let style = context.ui.style();
    let line = EventView(event).line(&context.zone, |tone, text| style.paint(tone, text));
    context.ui.line(&line);
}
