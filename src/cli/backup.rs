//! `batchd backup`: a consistent copy of the live state.

use super::atomic_file::{aside, exists, failed, sync_directory};
use super::error::Error;
use super::exit::Exit;
use super::source::Source;
use super::{Context, interrupted};
use crate::control::client::Client;
use clap::Args;
use std::path::{Path, PathBuf};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

/// Write a consistent copy of the live state to a file
#[derive(Debug, Args)]
#[command(after_help = "To restore: stop the socket and the service, copy the file to `batchd.db` in the
state directory, and start them again.")]
pub struct Arguments {
    /// The file to write; it holds no secrets, and only its owner may read it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let file = arguments.file.as_path();
    if !arguments.force && file.symlink_metadata().is_ok() {
        return Err(exists(file));
    }
    let source = context.source().await?;
    let aside = aside(file);
    let copied = tokio::select! {
        copied = copy(&source, &aside) => copied,
        () = interrupted() => Err(Error::new(Exit::Interrupted, "interrupted; nothing was written")),
    };
    let named = copied.and_then(|bytes| {
        if !arguments.force && file.symlink_metadata().is_ok() {
            return Err(exists(file));
        }
        std::fs::rename(&aside, file).map_err(|error| failed(file, &error))?;
        sync_directory(file).map_err(|error| failed(file, &error))?;
        Ok(bytes)
    });
    match named {
        Ok(bytes) => {
            context.ui.note(&format!("{}: {bytes} bytes", file.display()));
            Ok(Exit::Ok)
        }
        Err(error) => {
            let _ = std::fs::remove_file(&aside);
            Err(error)
        }
    }
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

async fn download(client: &Client, file: &mut File, aside: &Path) -> Result<(), Error> {
    let mut body = client.backup().await?;
    while let Some(bytes) = body.next().await? {
        file.write_all(&bytes).await.map_err(|error| failed(aside, &error))?;
    }
    file.flush().await.map_err(|error| failed(aside, &error))
}
