//! `batchd results`: streams the results of a batch to standard output, or into a file that appears only when complete.

use super::atomic_file::{AtomicFile, is_stdout};
use super::error::Error;
use super::exit::Exit;
use super::ids::{self, parse_id};
use super::quantity::{of, size};
use super::ui::Ui;
use super::{Context, interrupted};
use crate::control::api::ErrorCode;
use crate::control::client::{Client, Query};
use crate::control::client_error::ClientError;
use crate::control::streams::Lines;
use crate::domain::outcome::Outcome;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Fetch the results of a batch that has ended, as JSON lines
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd results batch_68fd8e2f1c0c8190 -o results.jsonl
  batchd results msgbatch_01Hkc | jq -r '.response.body.choices[0].message.content'
  batchd results batch_68fd8e2f1c0c8190 --errors

Most providers keep failed requests in a file of their own. --errors prints the
failed requests alone, also where the provider mixes them with the others.

Lines are counted. If fewer arrive than requests were completed, they are fetched once
more; if lines are still missing, FILE.partial has those that arrived and the exit code
is 1. A line that cannot be read becomes a line with an error, and the exit code is 1.

Exit codes:
  0    all results; with a warning if requests failed
  1    the batch has not ended, or results are missing or cannot be read
  3    the batch failed; its error is shown
  4    expired without any output
  5    cancelled without any output")]
pub struct Arguments {
    /// The id, also as PROVIDER:ID
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: String,
    /// The provider that has it [default: found by the form of the id]
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,
    /// Write to this file, which appears only once it is complete; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Lines in OpenAI's format for every provider, or the provider's own bytes
    #[arg(long, value_enum, default_value_t = Format::Openai)]
    format: Format,
    /// Only the requests that failed
    #[arg(long)]
    errors: bool,
    /// Together with the batches that resubmit its requests: each request once, the newest success, else the newest failure
    #[arg(long)]
    merged: bool,
    /// Replace the file if it exists
    #[arg(long, requires = "output")]
    force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Openai,
    Raw,
}

pub async fn run(mut arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    arguments.id = ids::one(&arguments.id, &mut context.ui)?;
    let mut file = match &arguments.output {
        Some(path) if !is_stdout(path) => Some(AtomicFile::begin(path, arguments.force)?),
        Some(_) | None => None,
    };
    let client = context.client().await?;
    tokio::select! {
        lines = fetch(&client, &arguments, &mut context.ui, file.as_mut()) => match lines {
            Ok(lines) => told(&arguments, context, file, &lines),
            Err(Ended::Short(error)) => {
                let error = error.about(&arguments.id);
                let Some(file) = file else { return Err(error) };
                let kept = file.keep()?;
                Err(error.hint(format!("what came is in {}", kept.display())))
            }
            Err(Ended::Failed(error)) => Err(error.about(&arguments.id)),
        },
        () = interrupted() => Err(Error::new(Exit::Interrupted, match arguments.output {
            Some(_) => "interrupted; nothing was written",
            None => "interrupted; the results are incomplete",
        })),
    }
}

/// Why results do not come whole.
enum Ended {
    /// Lines are missing.
    Short(Error),
    /// Anything else.
    Failed(Error),
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Refused(object) if object.code == Some(ErrorCode::ResultsIncomplete) => {
                Self::Short(error.into())
            }
            _ => Self::Failed(error.into()),
        }
    }
}

async fn fetch(
    client: &Client,
    arguments: &Arguments,
    ui: &mut Ui,
    mut file: Option<&mut AtomicFile>,
) -> Result<Lines, Ended> {
    let format = match arguments.format {
        Format::Openai => "openai",
        Format::Raw => "raw",
    };
    let mut query = Query::default().with("format", format);
    if arguments.errors {
        query = query.with("errors", "true");
    }
    if arguments.merged {
        query = query.with("merged", "true");
    }
    if let Some(provider) = &arguments.provider {
        query = query.with("provider", provider);
    }
    let mut lines = client.results(&arguments.id, &query).await?;
    // The length is not known before the end.
    let bar = file.as_ref().map(|_| ui.bar(None));
    let mut rest = Vec::new();
    while let Some(bytes) = lines.next().await? {
        match &mut file {
            Some(file) => file.write(&bytes).map_err(Ended::Failed)?,
            None => ui.json_lines(Some(&bytes), &mut rest),
        }
        if let Some(bar) = &bar {
            bar.inc(bytes.len() as u64);
        }
        if !ui.is_open() {
            break;
        }
    }
    if file.is_none() {
        ui.json_lines(None, &mut rest);
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(lines)
}

fn told(
    arguments: &Arguments,
    context: &mut Context,
    file: Option<AtomicFile>,
    lines: &Lines,
) -> Result<Exit, Error> {
    if let Some(file) = file {
        let written = file.finish()?;
        let count = lines.lines;
        context.ui.note(&format!(
            "{}: {}, {}, sha256 {}",
            written.path.display(),
            of(count, "line", "lines"),
            size(written.bytes),
            written.sha256
        ));
    }
    let (count, failed) = (lines.lines, lines.failed.unwrap_or_default());
    if lines.outcome == Some(Outcome::AllFailed) || failed > 0 && failed == count && !arguments.errors {
        context.ui.warn("every request failed; --errors gives their errors");
    } else if failed > 0 && !arguments.errors {
        let requests = of(failed, "request", "requests");
        context.ui.warn(&format!("{requests} did not succeed; --errors gives those alone"));
    } else if count == 0 && !arguments.errors && context.ui.is_open() {
        context.ui.note("no request has output; --errors gives those that failed");
    }
    if lines.without_id > 0 {
        context.ui.warn(&format!(
            "{} of {count} lines do not tell which request they belong to: their custom_id is null",
            lines.without_id
        ));
    }
    if lines.unreadable > 0 {
        let what = format!("{} of {count} lines cannot be read", lines.unreadable);
        let error = Error::new(Exit::Failed, what).about(&arguments.id);
        return Err(match arguments.format {
            Format::Openai => error
                .hint("each of them is given as a line with an error, which has the text as it came")
                .hint("--format raw gives all lines as the provider writes them"),
            Format::Raw => error,
        });
    }
    Ok(match lines.outcome {
        Some(Outcome::Failed) => {
            context.ui.warn(&format!("the batch failed: `batchd show {}` tells why", arguments.id));
            Exit::BatchFailed
        }
        Some(Outcome::Expired) if lines.lines == 0 => Exit::BatchExpired,
        Some(Outcome::Cancelled) if lines.lines == 0 => Exit::BatchCancelled,
        _ => Exit::Ok,
    })
}
