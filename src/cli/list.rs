//! `batchd list`: the batches, their progress, and when they should end.

use super::error::Error;
use super::exit::Exit;
use super::follow::{Followed, follow};
use super::list_columns::{Key, Sort, table, words};
use super::quantity::{count, of};
use super::source::{Extent, Limit, Source, every, parse_since};
use super::track::parse_label;
use super::view::BatchView;
use super::watch::{self, Watched};
use super::wrap::hanging;
use super::{Context, interrupted};
use crate::control::client::{Client, Query};
use crate::domain::status::Status;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use futures_util::StreamExt;
use serde_json::Value;
use std::io::IsTerminal as _;
use std::pin::pin;
use std::time::Duration;

/// List batches with their progress and when they should end
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(after_help = "Examples:
  batchd list
  batchd list --watch --mine
  batchd list -a --since 2d --status failed --status expired --label team=evals
  batchd list -a --model 'gpt-5*' --sort -duration --columns name,duration,result
  batchd list -q --search nightly | batchd wait -

Columns and keys: id, name, provider, model, status, result, progress, eta, age,
duration, created, ended, owner, labels, deadline, cost.
With -q only ids are printed, one a line.")]
pub struct Arguments {
    /// Only in this status; may be repeated
    #[arg(long = "status", value_name = "STATUS", value_parser = parse_status())]
    statuses: Vec<Status>,
    /// Only at this provider
    #[arg(long, value_name = "PROVIDER", value_parser = NonEmptyStringValueParser::new())]
    provider: Option<String>,
    /// Only of this model; `*` stands for any letters
    #[arg(long, value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    model: Option<String>,
    /// Only with this label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Only those that you tracked
    #[arg(long)]
    mine: bool,
    /// Ended batches too
    #[arg(short, long)]
    all: bool,
    /// Only those created since: so long ago (2d), or at an instant (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<String>,
    /// Only those with this text in id, name, model or labels
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    search: Option<String>,
    /// Sort by this key; -KEY from the greatest on [default: the newest first]
    #[arg(long, value_name = "KEY", allow_hyphen_values = true, value_parser = Sort::parse)]
    sort: Option<Sort>,
    /// Show these columns
    #[arg(long, value_name = "A,B", value_delimiter = ',', conflicts_with = "json", value_parser = parse_key())]
    columns: Vec<Key>,
    /// Keep the list on the screen up to date
    #[arg(short, long, conflicts_with_all = ["json", "offline"])]
    watch: bool,
    #[command(flatten)]
    limit: Limit,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let query = query(&arguments)?;
    if arguments.watch {
        let client = context.client().await?;
        if !context.ui.style().terminal || !std::io::stdin().is_terminal() {
            return again(&client, &query, &arguments, context).await;
        }
        let (keys, sort, limit) = (keys(&arguments), arguments.sort, arguments.limit.limit);
        return watch::run(&Watched { client, query, keys, sort, limit }, context).await;
    }
    let source = context.source().await?;
    // Sorted, the whole list must be there first; else it is printed as it comes, and a long one needs no memory.
    let streams = arguments.sort.is_none() && (arguments.json || context.globals.quiet);
    if streams {
        return stream(&source, &query, &arguments, context).await;
    }
    let now = context.clock.now();
    let mut batches = Vec::new();
    let mut extent = read(&source, &query, arguments.limit.limit, |batch| {
        batches.push(batch);
        true
    })
    .await?;
    if let Some(sort) = arguments.sort {
        sort.sort(&mut batches, now);
        let id = |batch: Option<&Value>| batch.map(|batch| BatchView(batch).key());
        (extent.first_id, extent.last_id) = (id(batches.first()), id(batches.last()));
    }
    if arguments.json {
        let mut list = context.ui.json_list();
        for batch in &batches {
            list.entry(&mut context.ui, batch);
        }
        list.end(&mut context.ui, &extent);
    } else if context.globals.quiet {
        for batch in &batches {
            context.ui.line(BatchView(batch).id());
        }
    } else {
        let shown = table(keys(&arguments), &batches, now, &context.zone);
        context.ui.table(&shown);
        context.ui.flush();
        if !context.ui.is_open() {
            return Ok(Exit::Ok);
        }
        let footer =
            if batches.is_empty() { nothing(&arguments).to_owned() } else { footer(&batches, &extent) };
        let style = context.ui.style();
        context.ui.note(&hanging(&footer, 0, style));
    }
    Ok(Exit::Ok)
}

/// Prints ids or JSON as the pages come.
async fn stream(
    source: &Source,
    query: &Query,
    arguments: &Arguments,
    context: &mut Context,
) -> Result<Exit, Error> {
    let ui = &mut context.ui;
    let mut list = None;
    let extent = read(source, query, arguments.limit.limit, |batch| {
        if arguments.json {
            // Nothing is printed before the first page is there, so that an error leaves no half document.
            list.get_or_insert_with(|| ui.json_list()).entry(ui, &batch);
        } else {
            ui.line(BatchView(&batch).id());
        }
        ui.is_open()
    })
    .await?;
    if arguments.json {
        list.unwrap_or_else(|| ui.json_list()).end(ui, &extent);
    }
    Ok(Exit::Ok)
}

/// The columns that are shown.
pub fn keys(arguments: &Arguments) -> &[Key] {
    if arguments.columns.is_empty() { &Key::DEFAULT } else { &arguments.columns }
}

/// How many there are, by status, and how far they are together.
pub fn footer(batches: &[Value], extent: &Extent) -> String {
    let mut parts = Vec::new();
    for status in Status::ALL {
        let these =
            batches.iter().filter(|batch| BatchView(batch).status() == status.as_str()).count() as u64;
        if these > 0 {
            parts.push(format!("{} {status}", count(these)));
        }
    }
    let mut text = of(batches.len() as u64, "batch", "batches");
    if extent.has_more {
        text = format!("the newest {text}, and there are more");
    }
    let counts =
        batches.iter().map(BatchView).filter(|batch| !batch.is_uncounted()).filter_map(BatchView::counts);
    let (total, completed, failed) =
        counts.fold((0_u64, 0_u64, 0_u64), |(total, completed, failed), counts| {
            (
                total.saturating_add(counts.total),
                completed.saturating_add(counts.completed),
                failed.saturating_add(counts.failed),
            )
        });
    text = format!("{text}: {}", parts.join(", "));
    if total > 0 {
        text =
            format!("{text}; {} requests: {} ok · {} failed", count(total), count(completed), count(failed));
    }
    text
}

/// Reads a column's word; completions know the words.
fn parse_key() -> impl clap::builder::TypedValueParser<Value = Key> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(Key::ALL.map(Key::word)).try_map(|word| Key::from_word(&word).ok_or_else(words))
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
    let texts = [("model", &arguments.model), ("since", &arguments.since), ("search", &arguments.search)];
    for (key, value) in texts {
        if let Some(value) = value {
            query = query.with(key, value);
        }
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
    let texts = [&arguments.provider, &arguments.model, &arguments.since, &arguments.search];
    let filtered = arguments.mine
        || texts.into_iter().any(Option::is_some)
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

/// Prints the list anew whenever it has changed, for a stream that is no terminal: at events, and every two seconds.
async fn again(
    client: &Client,
    query: &Query,
    arguments: &Arguments,
    context: &mut Context,
) -> Result<Exit, Error> {
    let after = client.status().await?.events;
    let mut events = pin!(follow(client.clone(), after));
    let mut clock = tokio::time::interval(INTERVAL);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stop = pin!(interrupted());
    let source = Source::Remote(client.clone());
    let mut last = String::new();
    loop {
        tokio::select! {
            () = &mut stop => return Ok(Exit::Ok),
            _ = clock.tick() => {}
            followed = events.next() => if let Some(Followed::Refused(error)) = followed {
                return Err(error.into());
            },
        }
        let now = context.clock.now();
        let mut batches = Vec::new();
        let drawn = tokio::select! {
            () = &mut stop => return Ok(Exit::Ok),
            drawn = read(&source, query, arguments.limit.limit, |batch| {
                batches.push(batch);
                true
            }) => drawn,
        };
        match drawn {
            Ok(_) if batches.is_empty() => last = nothing(arguments).to_owned(),
            Ok(_) => {
                if let Some(sort) = arguments.sort {
                    sort.sort(&mut batches, now);
                }
                let body = table(keys(arguments), &batches, now, &context.zone).render(context.ui.style());
                if body != last {
                    context.ui.line(&body);
                    context.ui.flush();
                }
                last = body;
            }
            Err(error) if error.kind == Exit::Unreachable => {}
            Err(error) => return Err(error),
        }
        if !context.ui.is_open() {
            return Ok(Exit::Ok);
        }
    }
}

/// How old the list may get.
const INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

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
        assert_eq!(
            asked(&["-a", "--model", "gpt*", "--since", "2d", "--search", "x", "-n", "3", "--sort", "-age"]),
            Query::default().with("model", "gpt*").with("since", "2d").with("search", "x")
        );
        assert!(Line::try_parse_from(["list", "--since", "yesterday"]).is_err());
        assert!(Line::try_parse_from(["list", "--sort", "size"]).is_err());
        assert!(Line::try_parse_from(["list", "--columns", "id,size"]).is_err());
        assert!(Line::try_parse_from(["list", "--status", "done"]).is_err());
    }

    #[test]
    fn the_footer_counts() {
        let batch = |status: &str, completed: u64| {
            json!({"id": "b", "status": status, "request_counts": {"total": 2000, "completed": completed, "failed": 5},
                "batchd": {"provider": "openai", "kind": "openai"}})
        };
        let batches = [batch("in_progress", 10), batch("completed", 1995), batch("in_progress", 0)];
        assert_eq!(
            footer(&batches, &Extent::default()),
            "3 batches: 2 in_progress, 1 completed; 6,000 requests: 2,005 ok · 15 failed"
        );
        let cut = Extent { has_more: true, ..Extent::default() };
        assert_eq!(
            footer(&batches[..1], &cut),
            "the newest 1 batch, and there are more: 1 in_progress; 2,000 requests: 10 ok · 5 failed"
        );
    }
}
