//! `batchd list`: the batches, their progress, and when they should end.

use super::error::Error;
use super::exit::Exit;
use super::follow::{Followed, follow};
use super::source::{Extent, Source, every};
use super::style::{Style, Tone};
use super::table::{Cell, Column, Table, shorten};
use super::track::parse_label;
use super::view::{BatchView, tone};
use super::{Context, interrupted};
use crate::control::client::{Client, Query};
use crate::domain::duration::human;
use crate::domain::printable::clean_lines;
use crate::domain::status::Status;
use crate::domain::time::since;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde_json::Value;
use std::pin::pin;
use std::time::Duration;

/// List batches with their progress and when they should end
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(after_help = "Examples:
  batchd list
  batchd list --watch --mine
  batchd list --all --status failed --status expired --label team=evals
  batchd list --json | jq -r '.data[].id'")]
pub struct Arguments {
    /// Only in this status; may be repeated
    #[arg(long = "status", value_name = "STATUS", value_parser = parse_status())]
    statuses: Vec<Status>,
    /// Only at this provider
    #[arg(long, value_name = "PROVIDER", value_parser = NonEmptyStringValueParser::new())]
    provider: Option<String>,
    /// Only with this label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Only those that you tracked
    #[arg(long)]
    mine: bool,
    /// Ended batches too
    #[arg(long)]
    all: bool,
    /// Keep the list on the screen up to date
    #[arg(long, conflicts_with_all = ["json", "offline"])]
    watch: bool,
    /// At most this many, the newest
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let query = query(&arguments)?;
    if arguments.watch {
        let client = context.client().await?;
        return watch(&client, &query, &arguments, context).await;
    }
    let source = context.source().await?;
    if arguments.json {
        let ui = &mut context.ui;
        let mut list = None;
        let extent = read(&source, &query, arguments.limit, |batch| {
            // Nothing is printed before the first page is there, so that an error leaves no half document.
            list.get_or_insert_with(|| ui.json_list()).entry(ui, &batch);
            ui.is_open()
        })
        .await?;
        list.unwrap_or_else(|| ui.json_list()).end(ui, &extent);
        return Ok(Exit::Ok);
    }
    let now = context.clock.now();
    let mut table = columns();
    read(&source, &query, arguments.limit, |batch| {
        table.row(row(BatchView(&batch), now));
        true
    })
    .await?;
    if table.is_empty() {
        context.ui.note(nothing(&arguments));
    }
    context.ui.table(&table);
    Ok(Exit::Ok)
}

/// Reads a status word; completions know the words.
pub fn parse_status() -> impl clap::builder::TypedValueParser<Value = Status> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(Status::ALL.map(Status::as_str)).try_map(|word| word.parse::<Status>())
}

async fn read(
    source: &Source,
    query: &Query,
    limit: Option<u64>,
    take: impl FnMut(Value) -> bool,
) -> Result<Extent, Error> {
    let page = async |after: Option<&str>, size: u64| {
        let mut query = query.clone().with("limit", size.to_string());
        if let Some(after) = after {
            query = query.with("after", after);
        }
        source.batches(&query).await
    };
    every(limit, page, |listing| listing.last_id.clone(), take).await
}

fn query(arguments: &Arguments) -> Result<Query, Error> {
    let mut query = Query::default();
    // Who asks for an end by name wants to see it.
    let ends = arguments.statuses.iter().any(|status| status.is_terminal());
    if !arguments.all && !ends {
        query = query.with("active", "true");
    }
    for status in &arguments.statuses {
        query = query.with("status", status.as_str());
    }
    if let Some(provider) = &arguments.provider {
        query = query.with("provider", provider);
    }
    for (key, value) in &arguments.labels {
        query = query.with("label", format!("{key}={value}"));
    }
    if arguments.mine {
        query = query.with("owner", own_name()?);
    }
    Ok(query)
}

/// The user as the daemon records the owner of a batch.
fn own_name() -> Result<String, Error> {
    let user = nix::unistd::getuid();
    Ok(nix::unistd::User::from_uid(user)
        .map_err(|error| {
            Error::new(Exit::Failed, format!("cannot find the name of user {user}: {}", error.desc()))
        })?
        .map_or_else(|| user.to_string(), |user| user.name))
}

fn nothing(arguments: &Arguments) -> &'static str {
    let filtered = arguments.mine
        || arguments.provider.is_some()
        || !arguments.statuses.is_empty()
        || !arguments.labels.is_empty();
    match (filtered, arguments.all) {
        (true, _) => "no batch matches; `batchd list --all` shows all of them",
        (false, true) => "no batches yet; `batchd track ID` watches one",
        (false, false) => {
            "no active batches; `batchd track ID` watches one, `batchd list --all` shows ended ones"
        }
    }
}

fn columns() -> Table {
    Table::new(&[
        Column::whole("ID"),
        Column::text("NAME").drops(4),
        Column::text("PROVIDER").drops(5),
        Column::whole("STATUS"),
        Column::whole("OUTCOME"),
        Column::number("PROGRESS").drops(1),
        Column::number("AGE").drops(6),
        Column::number("ETA").drops(3),
        Column::text("NOTE").drops(2),
    ])
}

fn row(batch: BatchView<'_>, now: Timestamp) -> Vec<Cell> {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let outcome = batch.outcome();
    let age = batch.stamp("created_at").map(|at| whole_seconds(since(at, now)));
    let left = |at: Timestamp| match since(now, at) {
        Duration::ZERO => "now".to_owned(),
        left => whole_seconds(left),
    };
    let eta = batch.time("eta").filter(|_| !batch.is_over()).map(|at| {
        let bounds = batch.added("eta_interval");
        match (super::view::time(&bounds[0]), super::view::time(&bounds[1])) {
            // One number where it is sure enough, for a table is read at a glance.
            (Some(earliest), Some(latest)) if since(earliest, latest) * 4 > since(now, at) => {
                format!("{} ({} to {})", left(at), left(earliest), left(latest))
            }
            _ => left(at),
        }
    });
    let (note, note_tone) = note(batch);
    vec![
        batch.id().into(),
        shorten(batch.added("name").as_str().unwrap_or_default(), NAME_WIDTH).into_owned().into(),
        batch.provider().into(),
        Cell::new(tone(batch.status(), outcome), batch.status()),
        Cell::new(tone(batch.status(), outcome), text(outcome)),
        batch.progress().into(),
        age.unwrap_or_default().into(),
        eta.unwrap_or_default().into(),
        Cell::new(note_tone, note),
    ]
}

/// In a table that is drawn anew, what is less than a second is noise.
fn whole_seconds(span: Duration) -> String {
    human(Duration::from_secs(span.as_secs()))
}

/// What is wrong with a batch.
fn note(batch: BatchView<'_>) -> (String, Tone) {
    if !batch.added("untracked_at").is_null() {
        ("untracked".to_owned(), Tone::Faint)
    } else if batch.added("lost") == true {
        ("lost: its provider no longer knows it".to_owned(), Tone::Bad)
    } else if let (false, Some(error)) = (batch.is_over(), batch.added("last_error").as_str()) {
        (error.trim().to_owned(), Tone::Warning)
    } else if batch.added("stalled") == true {
        ("stalled: no progress".to_owned(), Tone::Warning)
    } else {
        (String::new(), Tone::Plain)
    }
}

/// Draws the list anew at every event, and every two seconds for what changes without one.
async fn watch(
    client: &Client,
    query: &Query,
    arguments: &Arguments,
    context: &mut Context,
) -> Result<Exit, Error> {
    let after = client.status().await?.events;
    let mut events = pin!(follow(client.clone(), after));
    let mut clock = tokio::time::interval(REDRAW_INTERVAL);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stop = pin!(interrupted());
    let source = Source::Remote(client.clone());
    let mut screen = Screen::new(context.ui.style());
    screen.enter(context);
    let mut trouble = None;
    let end = loop {
        tokio::select! {
            () = &mut stop => break Ok(Exit::Ok),
            _ = clock.tick() => {}
            followed = events.next() => match followed {
                Some(Followed::Event(_)) | None => {}
                Some(Followed::Back { .. } | Followed::Reset(_)) => trouble = None,
                Some(Followed::Away(error)) => trouble = Some(error.to_string()),
                Some(Followed::Refused(error)) => break Err(error.into()),
            }
        }
        screen.style = context.ui.measure();
        let room = [arguments.limit, screen.rows()].into_iter().flatten().min();
        let now = context.clock.now();
        let mut table = columns();
        let drawn = tokio::select! {
            () = &mut stop => break Ok(Exit::Ok),
            drawn = read(&source, query, room, |batch| {
                table.row(row(BatchView(&batch), now));
                true
            }) => drawn,
        };
        match drawn {
            Ok(extent) => {
                trouble = None;
                let body = if table.is_empty() {
                    format!("{}\n", nothing(arguments))
                } else {
                    table.render(screen.style)
                };
                screen.draw(context, body, extent.has_more);
            }
            Err(error) if error.kind == Exit::Unreachable => {
                let text = trouble.get_or_insert(error.message);
                screen.trouble(context, text);
            }
            Err(error) => break Err(error),
        }
        if !context.ui.is_open() {
            break Ok(Exit::Ok);
        }
    };
    screen.leave(context);
    end
}

/// Where the live list stands: a screen of its own on a terminal, else one table after the other.
struct Screen {
    style: Style,
    last: String,
}

impl Screen {
    fn new(style: Style) -> Self {
        Self { style, last: String::new() }
    }

    /// How many batches there is room for.
    fn rows(&self) -> Option<u64> {
        let height = self.style.height.filter(|_| self.style.terminal)?;
        // The title, an empty line, the header, and the line that says there are more.
        Some(u64::from(height).saturating_sub(4).max(1))
    }

    fn enter(&self, context: &mut Context) {
        if self.style.terminal {
            context.ui.write("\x1b[?1049h\x1b[?25l");
            context.ui.flush();
        }
    }

    fn leave(&self, context: &mut Context) {
        if self.style.terminal {
            context.ui.write("\x1b[?25h\x1b[?1049l");
            context.ui.flush();
        }
    }

    fn draw(&mut self, context: &mut Context, mut body: String, more: bool) {
        if more {
            body.push_str("… and more\n");
        }
        if self.style.terminal {
            let at = context.clock.now().to_zoned(context.zone.clone()).strftime("%H:%M:%S").to_string();
            Self::paint(context, &format!("batchd list  {at}  (Ctrl-C to quit)\n\n{body}"));
        } else if body != self.last {
            context.ui.line(&body);
            context.ui.flush();
        }
        self.last = body;
    }

    fn trouble(&self, context: &mut Context, text: &str) {
        if self.style.terminal {
            let told = self.style.paint(Tone::Warning, &clean_lines(text));
            Self::paint(context, &format!("{told}; trying again\n\n{}", self.last));
        }
    }

    /// Overwrites what stands there line by line, which does not flicker.
    fn paint(context: &mut Context, text: &str) {
        let mut frame = String::from("\x1b[H");
        for line in text.lines() {
            frame.push_str(line);
            frame.push_str("\x1b[K\n");
        }
        frame.push_str("\x1b[J");
        context.ui.write(&frame);
        context.ui.flush();
    }
}

/// A name that is longer does not push the rest off the screen.
const NAME_WIDTH: usize = 32;

/// How old the live list may get.
const REDRAW_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    #[derive(Parser)]
    struct Line {
        #[arg(long, global = true)]
        offline: bool,
        #[command(flatten)]
        arguments: Arguments,
    }

    fn asked(words: &[&str]) -> Query {
        let line = Line::parse_from([&["list"], words].concat());
        assert!(!line.offline);
        query(&line.arguments).unwrap()
    }

    #[test]
    fn active_ones_are_listed_unless_ends_are_asked_for() {
        assert_eq!(asked(&[]), Query::default().with("active", "true"));
        assert_eq!(asked(&["--all"]), Query::default());
        assert_eq!(
            asked(&["--status", "in_progress", "--label", "a=b"]),
            Query::default().with("active", "true").with("status", "in_progress").with("label", "a=b")
        );
        assert_eq!(
            asked(&["--status", "failed", "--status", "expired", "--provider", "p"]),
            Query::default().with("status", "failed").with("status", "expired").with("provider", "p")
        );
        assert!(Line::try_parse_from(["list", "--status", "done"]).is_err());
    }

    #[test]
    fn a_row_tells_what_matters() {
        let mut table = columns();
        for batch in [
            json!({"id": "batch_1", "status": "in_progress", "created_at": 1_794_988_470,
                "request_counts": {"total": 400, "completed": 118, "failed": 2},
                "batchd": {"provider": "openai", "name": "nightly evals", "eta": "2026-11-18T12:30:00Z"}}),
            json!({"id": "msgbatch_2", "status": "in_progress", "created_at": 1_794_999_990,
                "batchd": {"provider": "anthropic", "last_error": "503: overloaded\n"}}),
            json!({"id": "batch_3", "status": "completed", "created_at": 1_794_900_000,
                "request_counts": {"total": 9, "completed": 0, "failed": 9},
                "batchd": {"provider": "openai", "outcome": "all_failed"}}),
        ] {
            table.row(row(BatchView(&batch), NOW));
        }
        insta::assert_snapshot!(table.render(Style::default()));
    }

    #[test]
    fn spans_are_in_whole_seconds() {
        assert_eq!(whole_seconds(Duration::from_millis(854)), "0 s");
        assert_eq!(whole_seconds(Duration::from_millis(1_854)), "1 s");
    }
}
