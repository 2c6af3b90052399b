//! `batchd sandbox`: simulated providers to try things out on.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use clap::Args;
use std::net::SocketAddr;

/// Run simulated providers to try things out on
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd sandbox --speed 600
  OPENAI_BASE_URL=http://127.0.0.1:9399/v1 OPENAI_API_KEY=any my-submit-script

OpenAI, Anthropic, Gemini and Mistral are there at one address: base_url is
http://ADDRESS/v1 for OpenAI, http://ADDRESS for Anthropic and Mistral, and
http://ADDRESS/v1beta for Gemini. Any key is accepted. Every request succeeds
unless metadata `sandbox_outcome` or the model's name asks for another end.")]
pub struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9399")]
    listen: SocketAddr,
    /// How many times faster than real time batches run
    #[arg(long, value_name = "FACTOR", default_value_t = 60.0, value_parser = parse_speed)]
    speed: f64,
}

/// Does it.
pub fn run(arguments: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    simulate(arguments.listen, arguments.speed, context)
}

// SEAM: becomes a call of `crate::sandbox`.
fn simulate(listen: SocketAddr, speed: f64, _: &mut Context) -> Result<Exit, Error> {
    Err(Error::new(Exit::Unreachable, format!("this build holds no sandbox for {listen} at {speed}×")))
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 && speed <= 1e6 => Ok(speed),
        _ => Err("a speed is a number above 0, at most 1000000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_positive_number() {
        assert_eq!(parse_speed("0.5"), Ok(0.5));
        for bad in ["0", "-1", "NaN", "inf", "fast", "1e9"] {
            assert!(parse_speed(bad).is_err(), "{bad}");
        }
    }
}
