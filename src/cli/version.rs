//! `batchd version`: which batchd this is.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use clap::Args;

/// Print the version
#[derive(Debug, Args)]
#[command()]
pub struct Arguments {}

pub fn run(_: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    context.ui.line(concat!("batchd ", env!("CARGO_PKG_VERSION")));
    Ok(Exit::Ok)
}
