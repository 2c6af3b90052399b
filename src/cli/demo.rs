//! `batchd demo`: all of batchd at work on simulated providers.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use super::style::Tone;
use super::table::{shorten, shorten_middle};
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
    let width = style.width.map_or(usize::MAX, usize::from);
    // Where there is little room each line says the same in fewer words.
    let wide = width >= WIDE;
    let mut say = |what: &str, tone: Tone, rest: String| {
        let rest = shorten(&rest, width.saturating_sub(MARGIN));
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
                if wide {
                    format!("{provider:<10} {name:<16} {requests:<14} {id}")
                } else {
                    let id = shorten_middle(id, width.saturating_sub(MARGIN + 40));
                    format!("{provider:<9} {name:<15} {requests:<13} {id}")
                },
            );
        }
        Moment::Changed { provider, name, from, to, outcome, counts } => {
            let change = match from {
                Some(from) => format!("{from} → {to}"),
                None => to.to_string(),
            };
            let fate = match (outcome, counts) {
                (Some(outcome), Some((completed, _, total))) if *total > 0 => {
                    format!("{outcome}, {completed} of {total}{}", if wide { " succeeded" } else { "" })
                }
                (Some(outcome), _) => outcome.clone(),
                (None, _) => String::new(),
            };
            say(
                "status",
                tone_of(*to, outcome.as_deref()),
                if wide {
                    format!("{provider:<10} {name:<16} {change:<26} {fate}")
                } else {
                    format!("{provider:<9} {name:<15} {:<13} {fate}", to.to_string())
                },
            );
        }
        Moment::Told { provider, name, kind, verified, answered } => {
            let signature = if *verified { "signature ✓" } else { "signature ✗" };
            let tone = match (verified, answered) {
                (false, _) => Tone::Bad,
                (true, 200) => Tone::Good,
                (true, _) => Tone::Warning,
            };
            let again = match (answered, wide) {
                (200, _) => "",
                (_, true) => "; it will be sent again",
                (_, false) => ", again",
            };
            say(
                "webhook",
                tone,
                if wide {
                    format!("{provider:<10} {name:<16} {kind:<26} {signature}  answered {answered}{again}")
                } else {
                    let mark = if *verified { '✓' } else { '✗' };
                    format!("{provider:<9} {name:<15} {kind:<17} {mark} {answered}{again}")
                },
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

/// From here on there is room for whole sentences.
const WIDE: usize = 112;

/// What stands before the rest of a line: the time, and what it is about.
const MARGIN: usize = 19;

fn tone_of(status: Status, outcome: Option<&str>) -> Tone {
    match (status, outcome) {
        (_, Some("succeeded")) => Tone::Good,
        (_, Some("partial" | "expired_with_output" | "cancelled" | "cancelled_with_output")) => Tone::Warning,
        (_, Some(_)) => Tone::Bad,
        (_, None) => Tone::Plain,
    }
}
