//! `batchd sandbox`: simulated providers for trying things out.

use super::error::Error;
use super::exit::Exit;
use super::{Context, interrupted};
use crate::sandbox::{Sandbox, SandboxOptions, Speed};
use clap::Args;
use std::net::SocketAddr;
use tokio_util::sync::CancellationToken;

/// Run simulated providers for trying things out
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd sandbox --speed 600
  OPENAI_BASE_URL=http://127.0.0.1:9399/v1 OPENAI_API_KEY=any my-submit-script

OpenAI, Anthropic, Gemini and Mistral share one address: base_url is
http://ADDRESS/v1 for OpenAI, http://ADDRESS for Anthropic and Mistral, and
http://ADDRESS/v1beta for Gemini. Any key is accepted. Every request succeeds
unless metadata `sandbox_outcome` or the model's name asks for another outcome.")]
pub struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9399")]
    listen: SocketAddr,
    /// How many times faster than real time batches run
    #[arg(long, value_name = "FACTOR", default_value_t)]
    speed: Speed,
    /// How many requests of unfinished batches each service takes at a time, as with a quota of enqueued tokens
    #[arg(long, value_name = "REQUESTS")]
    quota: Option<u64>,
}

pub fn run(arguments: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    let (speed, quota) = (arguments.speed, arguments.quota);
    let options = SandboxOptions { speed, quota, ..SandboxOptions::default() };
    simulate(arguments.listen, &options, context)
}

fn simulate(listen: SocketAddr, options: &SandboxOptions, context: &mut Context) -> Result<Exit, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::io("cannot start", &error))?;
    runtime.block_on(async {
        let failed = |error| Error::io(format!("cannot listen on {listen}"), &error);
        let listener = tokio::net::TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let speed = options.speed;
        context.ui.note(&format!(
            "simulated providers at http://{address}, {speed} times faster than real ones; Ctrl-C stops them"
        ));
        for (name, path) in [("OpenAI", "/v1"), ("Anthropic", ""), ("Gemini", "/v1beta"), ("Mistral", "")] {
            context.ui.note(&format!("  {name:<10} base_url http://{address}{path}"));
        }
        let stop = CancellationToken::new();
        let sandbox = Sandbox::new(options);
        let serving = sandbox.serve(listener, stop.clone());
        tokio::pin!(serving);
        tokio::select! {
            served = &mut serving => served.map_err(failed)?,
            () = interrupted() => {
                stop.cancel();
                serving.await.map_err(failed)?;
            }
        }
        Ok(Exit::Ok)
    })
}
