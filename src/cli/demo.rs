//! `batchd demo`: all of batchd at work on simulated providers.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use super::style::Tone;
use super::ui::Ui;
use crate::clock::Clock;
use crate::demo::{self, DemoError, Moment};
use crate::domain::status::Status;
use crate::domain::time::since;
use clap::Args;
use jiff::Timestamp;

/// Watch it work on simulated providers, in under 20 seconds
#[derive(Debug, Args)]
#[command(after_help = "Needs no key, no network and no configuration; leaves nothing behind.")]
pub struct Arguments {}

pub fn run(_: &Arguments, context: &mut Context) -> Result<Exit, Error> {
    let begun = context.clock.now();
    let (clock, ui) = (context.clock.clone(), &mut context.ui);
    demo::run(|moment| show(&moment, begun, &clock, ui))?;
    Ok(Exit::Ok)
}

impl From<DemoError> for Error {
    fn from(error: DemoError) -> Self {
        match error {
            DemoError::Daemon(error) => error.into(),
            other => Self::new(Exit::Failed, other.to_string()),
        }
    }
}

fn show(moment: &Moment, begun: Timestamp, clock: &Clock, ui: &mut Ui) {
    let style = ui.style();
    let at = format!("{:>5.1} s", since(begun, clock.now()).as_secs_f64());
    let mut say = |what: &str, tone: Tone, rest: String| {
        let line = format!(
            "{}  {}  {rest}",
            style.paint(Tone::Faint, &at),
            style.paint(tone, &format!("{what:<8}"))
        );
        ui.line(line.trim_end());
        ui.flush();
    };
    match moment {
        Moment::Ready { sandbox, speed, receiver, state } => {
            say(
                "sandbox",
                Tone::Faint,
                format!("four simulated providers at {sandbox}, {speed} times faster than real ones"),
            );
            say("receiver", Tone::Faint, format!("webhooks go to {receiver}, which checks every signature"));
            say("daemon", Tone::Faint, format!("state in {}", state.display()));
        }
        Moment::Submitted { provider, name, id, requests } => {
            let requests =
                if *requests == 1 { "1 request".to_owned() } else { format!("{requests} requests") };
            say(
                "submit",
                Tone::Strong,
                format!("{provider:<10} {name:<16} {requests:<14} {}", style.paint(Tone::Faint, id)),
            );
        }
        Moment::Changed { provider, name, from, to, outcome, counts } => {
            let change = match from {
                Some(from) => format!("{from} → {to}"),
                None => to.to_string(),
            };
            let fate = match (outcome, counts) {
                (Some(outcome), Some((completed, _, total))) if *total > 0 => {
                    format!("{outcome}, {completed} of {total} succeeded")
                }
                (Some(outcome), _) => outcome.clone(),
                (None, _) => String::new(),
            };
            say(
                "status",
                tone_of(*to, outcome.as_deref()),
                format!("{provider:<10} {name:<16} {change:<26} {fate}"),
            );
        }
        Moment::Told { provider, name, kind, verified, answered } => {
            let (tone, signature) =
                if *verified { (Tone::Good, "signature ✓") } else { (Tone::Bad, "signature ✗") };
            let answer = match answered {
                200 => "200".to_owned(),
                other => format!("{other}; it will be sent again"),
            };
            say(
                "webhook",
                tone,
                format!("{provider:<10} {name:<16} {kind:<26} {signature}  answered {answer}"),
            );
        }
        Moment::Done { batches, verified, retried } => {
            let again = match retried {
                0 => String::new(),
                1 => ", one after a retry".to_owned(),
                more => format!(", {more} after retries"),
            };
            say(
                "done",
                Tone::Good,
                format!("{batches} batches ended, {verified} signed webhooks delivered{again}"),
            );
        }
    }
}

fn tone_of(status: Status, outcome: Option<&str>) -> Tone {
    match (status, outcome) {
        (_, Some("succeeded")) => Tone::Good,
        (_, Some("partial" | "expired_with_output" | "cancelled" | "cancelled_with_output")) => Tone::Warning,
        (_, Some(_)) => Tone::Bad,
        (_, None) => Tone::Plain,
    }
}
