//! `batchd providers`: the configured providers and their health.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use super::source::Limit;
use super::style::Tone;
use super::table::{Cell, Column, Table};
use super::view::{distance, short_distance, time};
use crate::control::api::{CheckAnswer, CheckRequest, ProviderReport};
use crate::domain::printable::clean;
use clap::{Args, Subcommand};
use jiff::Timestamp;

/// List providers and their health; `check` makes a live call
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  batchd providers
  batchd providers check openai"
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    limit: Limit,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Test each, or one, with a live call; exit 77 if a key is refused, 1 if something else is wrong
    Check {
        /// Only this provider
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    match arguments.command {
        None => list(arguments.limit, arguments.json, context).await,
        Some(Command::Check { name, json }) => check(name, json, context).await,
    }
}

async fn list(limit: Limit, json: bool, context: &mut Context) -> Result<Exit, Error> {
    let mut listing = context.client().await?.providers().await?;
    limit.cut(&mut listing);
    if json {
        context.ui.json(&listing);
        return Ok(Exit::Ok);
    }
    if listing.data.is_empty() {
        context.ui.note(NONE);
    }
    let table = table(&listing.data, context.clock.now());
    context.ui.table(&table);
    Ok(Exit::Ok)
}

async fn check(name: Option<String>, json: bool, context: &mut Context) -> Result<Exit, Error> {
    let listing = context.client().await?.check_providers(&CheckRequest { name }).await?;
    if json {
        context.ui.json(&listing);
    } else {
        let style = context.ui.style();
        let width = listing.data.iter().map(|answer| answer.name.len()).max().unwrap_or(0);
        for answer in &listing.data {
            let (tone, mark) = if answer.ok { (Tone::Good, "✓") } else { (Tone::Bad, "✗") };
            let line = format!("{} {}", style.paint(tone, mark), clean(&told(answer, width)));
            context.ui.line(&line);
            if let Some(hint) = &answer.hint {
                context.ui.line(&format!("  {:width$}  {}", "", clean(hint)));
            }
        }
        if listing.data.is_empty() {
            context.ui.note(NONE);
        }
    }
    Ok(conclusion(&listing.data))
}

/// The first failure's code.
fn conclusion(answers: &[CheckAnswer]) -> Exit {
    match answers.iter().find(|answer| !answer.ok) {
        None => Exit::Ok,
        Some(answer) if answer.refused => Exit::Refused,
        Some(_) => Exit::Failed,
    }
}

fn told(answer: &CheckAnswer, width: usize) -> String {
    let what = match &answer.error {
        Some(error) if !answer.ok => error.as_str(),
        _ if answer.ok => "ok",
        _ => "failed",
    };
    format!("{:width$}  {what} ({} ms)", answer.name, answer.milliseconds)
}

/// Every provider, the troubled ones first.
pub fn table(reports: &[ProviderReport], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        Column::whole("NAME"),
        Column::whole("KIND").drops(3),
        Column::text("ADDRESS").drops(5).at_least(24),
        Column::whole("KEY").drops(4),
        Column::number("ACTIVE").drops(1),
        Column::whole("HEALTH"),
        Column::whole("LAST ANSWER").drops(2),
        Column::text("WHY").drops(0).at_least(20).prefers(44),
    ]);
    let mut reports: Vec<&ProviderReport> = reports.iter().collect();
    reports.sort_by_key(|report| is_well(report));
    for report in reports {
        let success = report.last_success_at.as_deref().and_then(|at| time(&at.into()));
        table.row(vec![
            report.name.as_str().into(),
            report.kind.as_str().into(),
            report.base_url.as_str().into(),
            if report.key { "yes" } else { "no" }.into(),
            report.active.to_string().into(),
            Cell::new(health_tone(&report.health), report.health.as_str()),
            Cell::of_forms(
                Tone::Plain,
                short_distance(&success.map(|at| distance(at, now)).unwrap_or_default()),
            ),
            why(report, now).into(),
        ]);
    }
    table
}

/// Whether nothing is wrong with a provider.
pub fn is_well(report: &ProviderReport) -> bool {
    matches!(report.health.as_str(), "ok" | "untried" | "unknown")
}

/// What is wrong with a provider, in a phrase.
pub fn why(report: &ProviderReport, now: Timestamp) -> String {
    let held = report.held_until.as_deref().and_then(|at| time(&at.into())).filter(|until| *until > now);
    let held = held.map(|until| format!("paused at its request, polled again {}", distance(until, now)));
    let error = report.last_error.clone().filter(|_| !is_well(report));
    [error, held].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn health_tone(health: &str) -> Tone {
    match health {
        "ok" => Tone::Good,
        "untried" => Tone::Faint,
        "held" => Tone::Warning,
        _ => Tone::Bad,
    }
}

const NONE: &str = "no providers are configured: set a key such as OPENAI_API_KEY for the daemon, or add a [providers.NAME] table";

#[cfg(test)]
mod tests {
    use super::super::style::Style;
    use super::*;

    #[test]
    fn the_troubled_ones_come_first() {
        let report = |name: &str, health: &str, error: Option<&str>| ProviderReport {
            name: name.into(),
            kind: name.into(),
            base_url: format!("https://api.{name}.com/v1"),
            key: true,
            active: 12,
            health: health.into(),
            last_error: error.map(Into::into),
            last_success_at: Some("2026-11-18T11:06:30Z".into()),
            held_until: (health == "held").then(|| "2026-11-18T11:07:40Z".into()),
            in_flight: 0,
        };
        let reports = [
            report("openai", "ok", Some("an old error")),
            report("anthropic", "refused", Some("401: invalid x-api-key")),
            report("mistral", "held", Some("429: slow down")),
        ];
        let table = table(&reports, Timestamp::constant(1_795_000_000, 0));
        insta::assert_snapshot!(table.render(Style::default()));
    }

    #[test]
    fn the_first_failure_decides() {
        let answer = |ok, refused| CheckAnswer {
            name: "p".into(),
            ok,
            refused,
            error: (!ok).then(|| "401: no".into()),
            hint: None,
            milliseconds: 7,
        };
        assert_eq!(conclusion(&[answer(true, false)]), Exit::Ok);
        assert_eq!(conclusion(&[answer(true, false), answer(false, true)]), Exit::Refused);
        assert_eq!(conclusion(&[answer(false, false), answer(false, true)]), Exit::Failed);
        assert_eq!(told(&answer(false, true), 3), "p    401: no (7 ms)");
        assert_eq!(told(&answer(true, false), 1), "p  ok (7 ms)");
    }
}
