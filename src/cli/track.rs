//! `batchd track`: registers batches.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use super::ids::{self, parse_id};
use super::source::Extent;
use super::view;
use crate::control::api::{TrackAnswer, TrackItem, TrackMany};
use crate::control::client::Query;
use crate::domain::printable::clean;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use std::collections::{BTreeMap, BTreeSet};
use unicode_width::UnicodeWidthStr;

/// Watch batches: register them by id
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd track batch_68fd8e2f1c0c8190
  batchd track anthropic:msgbatch_01Hkc --name 'nightly evals' --deadline 6h
  my-submit-script | batchd track - --provider openai --label team=evals

Tracking a batch again only changes the options that are given.
Exit codes: 66 no such batch, 77 key refused.")]
pub struct Arguments {
    /// Ids, also as PROVIDER:ID; `-` reads them from standard input, one a line
    #[arg(required = true, value_name = "ID", value_parser = parse_id)]
    ids: Vec<String>,
    /// The provider that has them [default: found by the form of each id]
    #[arg(long, value_name = "PROVIDER", value_parser = NonEmptyStringValueParser::new())]
    provider: Option<String>,
    #[command(flatten)]
    options: Options,
    /// Register without asking the provider first
    #[arg(long)]
    no_check: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What may be said of a batch that is tracked.
#[derive(Clone, Debug, Default, Args)]
pub struct Options {
    /// What to call it
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A label to set; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// A webhook that gets its events, even one that is `on_request`; may be repeated
    #[arg(long, value_name = "WEBHOOK", conflicts_with = "no_notify", value_parser = NonEmptyStringValueParser::new())]
    notify: Vec<String>,
    /// Record its events but notify nobody
    #[arg(long)]
    no_notify: bool,
    /// How long from now it should have ended, such as 6h; after that it is reported as overdue
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    deadline: Option<String>,
}

impl Options {
    /// The same as parameters of a request.
    pub(super) fn query(&self, query: Query) -> Query {
        let mut query = query;
        if let Some(name) = &self.name {
            query = query.with("name", name.clone());
        }
        for (key, value) in &self.labels {
            query = query.with("label", format!("{key}={value}"));
        }
        for name in &self.notify {
            query = query.with("notify", name.clone());
        }
        if self.no_notify {
            query = query.with("no_notify", "true");
        }
        match &self.deadline {
            Some(deadline) => query.with("deadline", deadline.clone()),
            None => query,
        }
    }
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let ids = ids::every(&arguments.ids, &mut context.ui)?;
    let client = context.client().await?;
    let items: Vec<TrackItem> = ids.into_iter().map(|id| item(id, &arguments)).collect();
    let mut exit = Exit::Ok;
    let mut list = arguments.json.then(|| context.ui.json_list());
    let mut outcome = Ok(());
    let mut extent = Extent::default();
    let mut registered = 0_usize;
    let total = items.len();
    for chunk in chunks(items) {
        let answers = match client.track_many(&TrackMany { items: chunk }).await {
            Ok(answers) => answers,
            Err(error) => {
                outcome = Err(Error::from(error));
                break;
            }
        };
        let width = Widths::of(&answers);
        for answer in answers {
            if let Some(list) = &mut list {
                list.entry(&mut context.ui, &answer);
                extent.first_id.get_or_insert_with(|| answer.id.clone());
                extent.last_id = Some(answer.id.clone());
            }
            if let Some(object) = answer.error {
                let error = Error::from(object).about(&answer.id);
                context.ui.error(&error);
                if exit == Exit::Ok {
                    exit = error.kind;
                }
            } else {
                registered += 1;
                if list.is_none() {
                    let line = width.line(&answer);
                    context.ui.line(&line);
                }
            }
        }
        context.ui.flush();
    }
    if let Some(list) = list {
        list.end(&mut context.ui, &extent);
    }
    if total > 1 && registered < total {
        context.ui.note(&format!("{registered} of {total} are tracked"));
    }
    outcome.map(|()| exit)
}

/// Reads `k=v`; the value may be empty and may hold `=`.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("a label is written KEY=VALUE".to_owned()),
    }
}

/// Accepts a duration and keeps its text, which is what goes over the API.
pub fn parse_duration(text: &str) -> Result<String, crate::domain::duration::BadDuration> {
    crate::domain::duration::parse(text).map(|_| text.to_owned())
}

fn item(id: String, arguments: &Arguments) -> TrackItem {
    let options = &arguments.options;
    TrackItem {
        id,
        provider: arguments.provider.clone(),
        name: options.name.clone(),
        labels: options.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        notify: options.notify.iter().cloned().collect::<BTreeSet<_>>(),
        no_notify: options.no_notify,
        deadline: options.deadline.clone(),
        // Absent, the daemon decides by how many there are.
        check: arguments.no_check.then_some(false),
    }
}

/// Requests of at most [`ITEMS`] items and about [`BYTES`] bytes, all of nearly the same size: a small rest would be
/// checked one by one, as if it had been asked for alone.
fn chunks(mut items: Vec<TrackItem>) -> Vec<Vec<TrackItem>> {
    let bytes = items.iter().map(size).sum();
    let mut chunks = Vec::new();
    for length in lengths(items.len(), bytes) {
        let rest = items.split_off(length);
        chunks.push(std::mem::replace(&mut items, rest));
    }
    chunks
}

/// How many items each request gets, of so many that take so many bytes together.
fn lengths(items: usize, bytes: usize) -> Vec<usize> {
    let count = items.div_ceil(ITEMS).max(bytes.div_ceil(BYTES)).min(items);
    let mut left = items;
    let mut lengths = Vec::with_capacity(count);
    for still in (1..=count).rev() {
        let length = left.div_ceil(still);
        lengths.push(length);
        left -= length;
    }
    lengths
}

/// About how many bytes an item takes in a request.
fn size(item: &TrackItem) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() + 16);
    let labels: usize = item.labels.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
    let notify: usize = item.notify.iter().map(|name| name.len() + 3).sum();
    item.id.len() + text(&item.provider) + text(&item.name) + text(&item.deadline) + labels + notify + 64
}

/// The columns of what is printed.
struct Widths {
    provider: usize,
    id: usize,
}

impl Widths {
    fn of(answers: &[TrackAnswer]) -> Self {
        let longest = |text: fn(&TrackAnswer) -> &str| {
            let told = answers.iter().filter(|answer| answer.error.is_none());
            told.map(|answer| clean(text(answer)).width()).max().unwrap_or(0)
        };
        Self {
            provider: longest(|answer| answer.provider.as_deref().unwrap_or("-")),
            id: longest(|answer| bare(answer)),
        }
    }

    fn line(&self, answer: &TrackAnswer) -> String {
        let provider = clean(answer.provider.as_deref().unwrap_or("-"));
        let id = clean(bare(answer));
        let status = answer.status.map_or("-", crate::domain::status::Status::as_str);
        view::columns(&[(&provider, self.provider), (&id, self.id), (status, 0)])
    }
}

/// The id without its provider's name, which stands in a column of its own.
fn bare(answer: &TrackAnswer) -> &str {
    let prefix = answer.provider.as_deref().and_then(|provider| answer.id.strip_prefix(provider));
    prefix.and_then(|rest| rest.strip_prefix(':')).unwrap_or(&answer.id)
}

/// So many are registered in one transaction: the daemon has all of a request in memory.
const ITEMS: usize = 5_000;

/// So long is a request.
const BYTES: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_have_a_key() {
        assert_eq!(parse_label("team=evals"), Ok(("team".into(), "evals".into())));
        assert_eq!(parse_label("q=a=b"), Ok(("q".into(), "a=b".into())));
        assert_eq!(parse_label("empty="), Ok(("empty".into(), String::new())));
        assert!(parse_label("team").is_err());
        assert!(parse_label("=x").is_err());
    }

    #[test]
    fn an_answer_is_three_columns() {
        let answer = |id: &str, provider: &str| TrackAnswer {
            id: id.to_owned(),
            provider: Some(provider.to_owned()),
            status: Some(crate::domain::status::Status::InProgress),
            new: true,
            error: None,
        };
        let answers = [answer("openai:batch_1", "openai"), answer("msgbatch_22", "anthropic")];
        let widths = Widths::of(&answers);
        assert_eq!(widths.line(&answers[0]), "openai     batch_1      in_progress");
        assert_eq!(widths.line(&answers[1]), "anthropic  msgbatch_22  in_progress");
    }

    #[test]
    fn chunks_hold_everything_in_order() {
        let name = "n".repeat(BYTES / 4);
        let item = |number: usize| TrackItem {
            id: number.to_string(),
            name: Some(name.clone()),
            ..TrackItem::default()
        };
        let items: Vec<TrackItem> = (0..9).map(item).collect();
        let chunks = chunks(items.clone());
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3]);
        assert_eq!(chunks.concat(), items);
    }

    proptest! {
        #[test]
        fn requests_are_bounded_and_none_is_a_small_rest(items in 0_usize..10_000_000, each in 64_usize..5000) {
            let lengths = lengths(items, items * each);
            prop_assert_eq!(lengths.iter().sum::<usize>(), items);
            let (least, most) = (lengths.iter().min().unwrap_or(&0), lengths.iter().max().unwrap_or(&0));
            prop_assert!(*most <= ITEMS && most * each <= BYTES + each && most - least <= 1, "{}..{}", least, most);
        }
    }
}
