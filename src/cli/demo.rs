//! `batchd demo`: everything at once, on simulated providers.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use clap::Args;

/// See it all work on simulated providers, in under 20 s
#[derive(Debug, Args)]
#[command(after_help = "Needs no key, no network and no configuration; leaves nothing behind.")]
pub struct Arguments {}

/// Does it.
pub fn run(_: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    show(context)
}

// SEAM: becomes a call of the demo over `crate::sandbox` and `crate::daemon`.
fn show(_: &mut Context) -> Result<Exit, Error> {
    Err(Error::new(Exit::Unreachable, "this build holds no demo"))
}
