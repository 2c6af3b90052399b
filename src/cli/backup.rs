//! `batchd backup`: a consistent copy of the live state.

use super::atomic_file::{Place, aside, exists, failed, is_stdout, put, sync_directory};
use super::error::Error;
use super::exit::Exit;
use super::quantity::size;
use super::source::Source;
use super::{Context, interrupted};
use crate::control::client::Client;
use clap::Args;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Write a consistent copy of the live state to a file
#[derive(Debug, Args)]
#[command(after_help = "`batchd restore FILE` puts it back while no daemon runs.")]
pub struct Arguments {
    /// The file to write; it holds no secrets, and only its owner may read it; `-` is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let file = arguments.file.as_path();
    if is_stdout(file) {
        if context.ui.style().terminal {
            return Err(Error::usage("a backup is no text: standard output must not be a terminal"));
        }
        return until_interrupted(into_stream(None, context)).await;
    }
    let end = match Place::of(file, arguments.force)? {
        Place::File(end) => end,
        Place::Stream(stream) => return until_interrupted(into_stream(Some(&stream), context)).await,
    };
    let source = context.source().await?;
    let aside = aside(&end);
    let copied = until_interrupted(copy(&source, &aside)).await;
    let named = copied.and_then(|bytes| {
        put(&aside, &end, arguments.force).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => exists(file),
            _ => failed(file, &error),
        })?;
        sync_directory(&end).map_err(|error| failed(file, &error))?;
        Ok(bytes)
    });
    match named {
        Ok(bytes) => {
            context.ui.note(&format!("{}: {}", file.display(), size(bytes)));
            Ok(Exit::Ok)
        }
        Err(error) => {
            let _ = std::fs::remove_file(&aside);
            Err(error)
        }
    }
}

async fn until_interrupted<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::select! {
        done = work => done,
        () = interrupted() => Err(Error::new(Exit::Interrupted, "interrupted; the backup is not complete")),
    }
}

/// Writes the copy to standard output, or (`path`) to a device or a pipe.
async fn into_stream(path: Option<&Path>, context: &mut Context) -> Result<Exit, Error> {
    let source = context.source().await?;
    let shown = path.unwrap_or(Path::new("standard output"));
    let mut sink: Box<dyn AsyncWrite + Unpin> = match path {
        Some(path) => {
            let opened = OpenOptions::new().append(true).open(path).await;
            Box::new(opened.map_err(|error| failed(path, &error))?)
        }
        None => Box::new(tokio::io::stdout()),
    };
    match &source {
        Source::Remote(client) => download(client, &mut sink, shown).await?,
        Source::Offline(state) => {
            // A copy is made as a file, and only then read.
            let directory =
                tempfile::tempdir().map_err(|error| Error::io("cannot make a directory", &error))?;
            let whole = directory.path().join("batchd.db");
            state.copy_into(&whole).await?;
            let mut whole = File::open(&whole).await.map_err(|error| failed(&whole, &error))?;
            tokio::io::copy(&mut whole, &mut sink).await.map_err(|error| failed(shown, &error))?;
            sink.flush().await.map_err(|error| failed(shown, &error))?;
        }
    }
    Ok(Exit::Ok)
}

/// Fills the file aside and gives its length; when this returns, the bytes are on the disk.
async fn copy(source: &Source, aside: &Path) -> Result<u64, Error> {
    let mut options = OpenOptions::new();
    let file = match source {
        Source::Remote(client) => {
            options.write(true).create_new(true).mode(0o600);
            let mut file = options.open(aside).await.map_err(|error| failed(aside, &error))?;
            download(client, &mut file, aside).await?;
            file
        }
        Source::Offline(state) => {
            state.copy_into(aside).await?;
            options.read(true).open(aside).await.map_err(|error| failed(aside, &error))?
        }
    };
    file.sync_all().await.map_err(|error| failed(aside, &error))?;
    let length = file.metadata().await.map_err(|error| failed(aside, &error))?.len();
    if length == 0 {
        return Err(Error::new(Exit::Internal, "the daemon sent an empty copy"));
    }
    Ok(length)
}

async fn download(client: &Client, file: &mut (impl AsyncWrite + Unpin), aside: &Path) -> Result<(), Error> {
    let mut body = client.backup().await?;
    while let Some(bytes) = body.next().await? {
        file.write_all(&bytes).await.map_err(|error| failed(aside, &error))?;
    }
    file.flush().await.map_err(|error| failed(aside, &error))
}
