//! `batchd events`: the event log, read or followed.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use super::follow::{Followed, follow};
use super::ids::{self, parse_id};
use super::source::{Source, every, parse_since};
use super::view::{BatchView, EventView};
use crate::control::client::Query;
use crate::domain::event::EventType;
use clap::Args;
use futures_util::StreamExt;
use serde_json::Value;
use std::pin::pin;

/// Read the event log, oldest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd events -n 20
  batchd events nightly --since 2d
  batchd events --type batch.failed --type 'provider.*'
  batchd events --follow --json | while read -r event; do …; done

With --json the log is one JSON document, each event in the form of a webhook's
body; with --follow it is one event per line. --follow prints what is new, and
before it what --after, --since or -n asks for; it survives restarts of the
daemon.")]
pub struct Arguments {
    /// Only the events of this batch: an id, a name, or the beginning of an id
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: Option<String>,
    /// Wait for new events and print them as they happen
    #[arg(long, short, conflicts_with = "offline")]
    follow: bool,
    /// Only events after this sequence number
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(i64).range(0..))]
    after: Option<i64>,
    /// Only events observed since: so long ago (2d), or at an instant (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<String>,
    /// Only events of this type, such as batch.failed or 'batch.*'; may be repeated
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    types: Vec<String>,
    /// At most this many, the newest; with --after the first ones after that
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Accepts the name of a type, or of a family of them.
fn parse_type(text: &str) -> Result<String, String> {
    if EventType::matching(text).is_empty() {
        return Err(format!(
            "one of {}; or a family such as batch.*",
            EventType::ALL.map(EventType::as_str).join(", ")
        ));
    }
    Ok(text.to_owned())
}

pub async fn run(mut arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    if let Some(id) = &arguments.id {
        arguments.id = Some(ids::one(id, &mut context.ui)?);
    }
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
        let all = arguments.types.is_empty() && arguments.since.is_none() && arguments.after.is_none();
        context.ui.note(if all {
            "no events yet; `batchd events --follow` waits for them"
        } else {
            "no event matches"
        });
    }
    Ok(Exit::Ok)
}

async fn read(
    source: &Source,
    arguments: &Arguments,
    take: impl FnMut(Value) -> bool,
) -> Result<super::source::Extent, Error> {
    let mut asked = Query::default();
    for kind in &arguments.types {
        asked = asked.with("type", kind);
    }
    if let Some(since) = &arguments.since {
        asked = asked.with("since", since);
    }
    let first = arguments.after.unwrap_or(0).to_string();
    let newest = arguments.limit.filter(|_| arguments.after.is_none());
    let page = async |after: Option<&str>, size: u64| {
        let mut query = asked.clone().with("after", after.unwrap_or(&first)).with("limit", size.to_string());
        if let (None, Some(newest)) = (after, newest) {
            query = query.with("newest", newest.to_string());
        }
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
    // The stream is of all events. What has been is read from the log first, and the stream is joined where the log ended
    // before that, so that nothing falls between.
    let mut after = client.status().await?.events;
    let mut only = None;
    if let Some(id) = &arguments.id {
        let batch = client.batch(id, false).await.map_err(|error| Error::from(error).about(id))?;
        only = Some((BatchView(&batch).provider().to_owned(), BatchView(&batch).id().to_owned()));
    }
    if arguments.after.is_some() || arguments.since.is_some() || arguments.limit.is_some() {
        read(&source, arguments, |event| {
            after = after.max(EventView(&event).sequence());
            told(&event, arguments.json, context);
            context.ui.is_open()
        })
        .await?;
    }
    let types: Vec<EventType> = arguments.types.iter().flat_map(|kind| EventType::matching(kind)).collect();
    let mut events = pin!(follow(client.clone(), after));
    while context.ui.is_open() {
        match events.next().await {
            Some(Followed::Event(event)) => {
                let view = EventView(&event);
                let of_batch = only.as_ref().is_none_or(|(provider, id)| view.key() == Some((provider, id)));
                let of_type = types.is_empty() || types.iter().any(|kind| kind.as_str() == view.kind());
                if of_batch && of_type {
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
    let line = EventView(event).line(&context.zone, style);
    context.ui.line(&line);
}
