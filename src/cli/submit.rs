//! `batchd submit`: creates a batch from a file of requests.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use super::track::{Options, parse_label};
use super::ui::Ui;
use super::view::{BatchView, columns};
use crate::control::api::{ErrorBody, Listing, SubmitChecked, SubmitProgress, SubmitWarning};
use crate::control::client::{Client, Query};
use crate::control::client_error::ClientError;
use crate::control::streams::Submitting;
use crate::domain::printable::clean;
use crate::sync::lock;
use bytes::Bytes;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use indicatif::ProgressBar;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Create a batch from a file of requests, and track it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd submit requests.jsonl --provider openai
  batchd submit requests.jsonl --provider anthropic --model claude-haiku-4-5
  make-requests | batchd submit - --provider mistral --name nightly

Each line of FILE is one request: in OpenAI's form ({\"custom_id\", \"method\",
\"url\", \"body\"}), which is translated where the provider has a form of its own,
or in the provider's own form, which is sent as it is. The file is checked before
anything is sent; problems are reported line by line.

Prints the batch's id. Exit codes: 1 the file or the batch is refused, 77 key
refused. If the connection to the provider is lost while the batch is created,
batchd searches for the batch and never creates it twice.

With --wait-for-quota the id may be one that begins with sub_: it can be used like
any other, and means the batch once that is created. With --split there is one line
for each batch, its id and name; if a run breaks off, the same command creates only
the batches that are missing.")]
pub struct Arguments {
    /// The file, one JSON object a line; `-` reads standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The provider [default: the only one that is configured]
    #[arg(long, value_name = "PROVIDER", value_parser = NonEmptyStringValueParser::new())]
    provider: Option<String>,
    /// The endpoint of the requests [default: the `url` of the lines]
    #[arg(long, value_name = "PATH", value_parser = NonEmptyStringValueParser::new())]
    endpoint: Option<String>,
    /// The model of every request, in place of what the lines name
    #[arg(long, value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    model: Option<String>,
    /// How long the provider may take, where it gives a choice
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = NonEmptyStringValueParser::new())]
    completion_window: String,
    /// Metadata for the batch at the provider; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_metadata)]
    metadata: Vec<(String, String)>,
    /// A further key of the request that creates the batch, in the provider's own words; may be repeated
    #[arg(long, value_name = "KEY=JSON", value_parser = parse_param)]
    param: Vec<String>,
    /// When the provider deletes the output, counted from the creation, where it gives a choice
    #[arg(long, value_name = "DURATION", value_parser = NonEmptyStringValueParser::new())]
    output_expires_after: Option<String>,
    /// If the provider takes no more for now, queue the submission; it is created when its turn comes
    #[arg(long)]
    wait_for_quota: bool,
    /// Make several batches of a file that is too large for one: NAME-1, NAME-2, …
    #[arg(long)]
    split: bool,
    #[command(flatten)]
    options: Options,
    /// Print the batch as one JSON document; with --split, a list
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let (file, length) = open(&arguments.file)?;
    let client = context.client().await?;
    let (quiet, mut batches) = (context.globals.quiet, Vec::new());
    let submitted = submit(&client, file, length, query(&arguments), &mut context.ui, |batch, ui| {
        // Each is printed as soon as there is it: what follows may fail.
        if arguments.split && !arguments.json {
            let view = BatchView(&batch);
            let name = if quiet { "" } else { view.added("name").as_str().unwrap_or_default() };
            ui.line(columns(&[(&clean(view.id()), 0), (&clean(name), 0)]).trim_end());
            ui.flush();
        }
        batches.push(batch);
    })
    .await;
    if arguments.split && arguments.json {
        context.ui.json(&Listing::whole(batches, |batch| BatchView(batch).id().to_owned()));
        submitted?;
        return Ok(Exit::Ok);
    }
    submitted?;
    for batch in batches.iter().filter(|_| !arguments.split) {
        tell(batch, arguments.json, &mut context.ui);
    }
    Ok(Exit::Ok)
}

/// Prints a batch that was submitted.
pub(super) fn tell(batch: &Value, json: bool, ui: &mut Ui) {
    if json {
        ui.json(batch);
        return;
    }
    let view = BatchView(batch);
    let waiting = view.added("waiting_for");
    if !waiting.is_null() {
        let id = clean(view.id()).into_owned();
        let reason = clean(waiting["reason"].as_str().unwrap_or_default()).into_owned();
        ui.note(&format!("{id} waits to be created: {reason}"));
        ui.note(&format!("`batchd wait {id}` returns when it has ended, `batchd cancel {id}` takes it out"));
    }
    ui.line(&clean(view.id()));
}

/// Reads `k=v` for metadata.
fn parse_metadata(text: &str) -> Result<(String, String), String> {
    parse_label(text).map_err(|_| "metadata is written KEY=VALUE".to_owned())
}

/// Reads `KEY=JSON`, which goes on as it is.
fn parse_param(text: &str) -> Result<String, String> {
    let (key, value) = text.split_once('=').ok_or("a parameter is written KEY=JSON")?;
    match serde_json::from_str::<Value>(value) {
        Ok(_) if !key.is_empty() => Ok(text.to_owned()),
        Ok(_) => Err("a parameter is written KEY=JSON".to_owned()),
        Err(error) => Err(format!("{error}; a text is written '{key}=\"…\"'")),
    }
}

/// Something to read from.
pub(super) type Source = Box<dyn io::Read + Send>;

/// The file, and its length if that is known.
pub(super) fn open(path: &Path) -> Result<(Source, Option<u64>), Error> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let failed = |error: io::Error| Error::io(format!("cannot read {}", path.display()), &error);
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if about.is_dir() {
        return Err(Error::new(Exit::Failed, format!("cannot read {}: it is a directory", path.display())));
    }
    Ok((Box::new(file), about.is_file().then_some(about.len())))
}

fn query(arguments: &Arguments) -> Query {
    let name = arguments.file.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut query = Query::default()
        .with("completion_window", arguments.completion_window.clone())
        .with("file_name", name.unwrap_or_default());
    let texts = [
        ("provider", &arguments.provider),
        ("endpoint", &arguments.endpoint),
        ("model", &arguments.model),
        ("output_expires_after", &arguments.output_expires_after),
    ];
    for (key, value) in texts {
        if let Some(value) = value {
            query = query.with(key, value.clone());
        }
    }
    for (key, value) in &arguments.metadata {
        query = query.with("metadata", format!("{key}={value}"));
    }
    if arguments.wait_for_quota {
        query = query.with("wait", "quota");
    }
    if arguments.split {
        query = query.with("split", "true");
    }
    for param in &arguments.param {
        query = query.with("param", param.clone());
    }
    arguments.options.query(query)
}

async fn submit(
    client: &Client,
    file: Source,
    length: Option<u64>,
    query: Query,
    ui: &mut Ui,
    each: impl FnMut(Value, &mut Ui),
) -> Result<(), Error> {
    let bar = ui.bar(length);
    let trouble: Trouble = Arc::default();
    // Some file systems call what they make up as it is read empty.
    let length = length.filter(|length| *length > 0);
    let file: Source = match length {
        Some(left) => Box::new(Exactly { file, left }),
        None => file,
    };
    let pieces = pieces(file, bar.clone(), trouble.clone());
    let answer = client.submit(&query, pieces, length).await;
    bar.finish_and_clear();
    if let Some(error) = lock(&trouble).take() {
        return Err(Error::io("cannot read the file to its end", &error).hint("nothing was submitted"));
    }
    follow(answer.map_err(lost)?, ui, each).await
}

/// A file of the length that was told of it: what is written behind that meanwhile is not read.
struct Exactly {
    file: Source,
    left: u64,
}

impl io::Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has become shorter meanwhile"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// What kept the file from being read.
pub(super) type Trouble = Arc<Mutex<Option<io::Error>>>;

/// The file, piece by piece.
pub(super) fn pieces(
    file: Source,
    bar: ProgressBar,
    trouble: Trouble,
) -> BoxStream<'static, io::Result<Bytes>> {
    stream::try_unfold((file, bar, trouble), |(mut file, bar, trouble)| async move {
        // Reading may wait for whoever writes a pipe: not on the thread that talks to the daemon.
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::with_capacity(PIECE);
            let read = file.by_ref().take(PIECE as u64).read_to_end(&mut piece);
            read.map(|_| (piece, file))
        });
        match read.await.map_err(io::Error::other)? {
            Ok((piece, _)) if piece.is_empty() => Ok(None),
            Ok((piece, file)) => {
                bar.inc(piece.len() as u64);
                Ok(Some((Bytes::from(piece), (file, bar, trouble))))
            }
            Err(error) => {
                let told = io::Error::from(error.kind());
                *lock(&trouble) = Some(error);
                Err(told)
            }
        }
    })
    .boxed()
}

/// Shows how it goes, and gives each batch.
async fn follow(
    mut answer: Submitting,
    ui: &mut Ui,
    mut each: impl FnMut(Value, &mut Ui),
) -> Result<(), Error> {
    let mut bar: Option<ProgressBar> = None;
    let mut left = 1_u64;
    let result = loop {
        let line = match answer.next().await {
            Ok(Some(line)) => line,
            Ok(None) => break Err(lost(ClientError::Broken("the answer was cut off".to_owned()))),
            Err(error) => break Err(lost(error)),
        };
        match line["object"].as_str() {
            Some("submission.warning") => {
                if let Ok(warning) = serde_json::from_value::<SubmitWarning>(line) {
                    ui.warn(&warning.message);
                }
            }
            Some("submission.checked") => {
                if let Ok(checked) = serde_json::from_value::<SubmitChecked>(line) {
                    let model = checked.model.map(|model| format!(", model {model}")).unwrap_or_default();
                    let requests = if checked.requests == 1 { "request" } else { "requests" };
                    ui.note(&format!("{} {requests} for {}{model}", checked.requests, checked.endpoint));
                }
            }
            Some("submission.progress") => {
                let Ok(step) = serde_json::from_value::<SubmitProgress>(line) else { continue };
                if step.phase == "uploading" {
                    let bar = bar.get_or_insert_with(|| ui.bar(step.total));
                    bar.set_position(step.bytes.unwrap_or_default());
                    continue;
                }
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                }
                if step.phase == "searching" {
                    ui.warn("the answer was lost; checking whether the batch was created");
                } else {
                    ui.progress("creating the batch");
                }
            }
            Some("submission.split") => {
                left = line["pieces"].as_u64().unwrap_or(1);
                if left > 1 {
                    ui.note(&format!("split into {left} batches"));
                }
            }
            Some("batch") => {
                ui.clear_progress();
                each(line, ui);
                left = left.saturating_sub(1);
                if left == 0 {
                    break Ok(());
                }
            }
            _ => {
                if let Ok(body) = serde_json::from_value::<ErrorBody>(line) {
                    break Err(Error::from(body.error));
                }
            }
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    ui.clear_progress();
    result
}

/// The daemon went away within it.
fn lost(error: ClientError) -> Error {
    let broken = matches!(error, ClientError::Broken(_) | ClientError::Silent(_));
    let error = Error::from(error);
    if broken {
        return error.hint(
            "once the daemon runs, `batchd list` and `batchd status` show whether the batch was created; if it was, it \
             is tracked",
        );
    }
    error
}

/// What is read at once.
const PIECE: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_to_its_end_and_its_fault_is_kept() {
        let mut ui = Ui::new(true);
        let bar = ui.bar(None);
        let trouble = Trouble::default();
        let bytes = vec![7; PIECE * 2 + 1];
        let file: Source = Box::new(io::Cursor::new(bytes.clone()));
        let read: Vec<Bytes> = pieces(file, bar.clone(), trouble.clone()).map(Result::unwrap).collect().await;
        assert_eq!(read.concat(), bytes);
        // A directory opens and cannot be read.
        let directory: Source = Box::new(File::open("/").unwrap());
        let read: Vec<_> = pieces(directory, bar, trouble.clone()).collect().await;
        assert!(read[0].is_err() && trouble.lock().unwrap().is_some());
    }

    #[test]
    fn metadata_has_a_key() {
        assert_eq!(parse_metadata("job=a=b"), Ok(("job".to_owned(), "a=b".to_owned())));
        assert!(parse_metadata("job").unwrap_err().contains("metadata"));
    }
}
