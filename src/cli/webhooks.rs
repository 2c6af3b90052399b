//! `batchd webhooks`: where events are sent, and how that goes.

use super::error::Error;
use super::exit::Exit;
use super::source::Limit;
use super::style::Tone;
use super::table::{Cell, Column, Table};
use super::view::{distance, short_distance, time};
use super::{Context, each};
use crate::control::api::{TestAnswer, TestRequest, WebhookReport};
use crate::domain::event::EventType;
use crate::domain::printable::clean;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// List webhooks and their health; `test`, `disable` or `enable` one
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  batchd webhooks
  batchd webhooks test pipeline --event batch.failed
  batchd webhooks enable pipeline"
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
    /// Send a real event, marked as a test, and show the answer; exit 1 if it was not accepted
    Test {
        /// The webhook
        #[arg(value_name = "NAME")]
        name: String,
        /// The type of event
        #[arg(long, value_name = "TYPE", value_parser = PossibleValuesParser::new(types()))]
        event: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Stop sending to it; its deliveries are held
    Disable {
        /// The webhook
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Send to it again, beginning with what was held
    Enable {
        /// The webhook
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    match arguments.command {
        None => list(arguments.limit, arguments.json, context).await,
        Some(Command::Test { name, event, json }) => test(&name, event, json, context).await,
        Some(Command::Disable { names }) => switch(&names, false, context).await,
        Some(Command::Enable { names }) => switch(&names, true, context).await,
    }
}

async fn list(limit: Limit, json: bool, context: &mut Context) -> Result<Exit, Error> {
    let mut listing = context.client().await?.webhooks().await?;
    limit.cut(&mut listing);
    if json {
        context.ui.json(&listing);
        return Ok(Exit::Ok);
    }
    if listing.data.is_empty() {
        context.ui.note(
            "no webhooks are configured: nobody is notified; see [webhooks.NAME] in config.example.toml",
        );
    }
    let table = table(&listing.data, context.clock.now());
    context.ui.table(&table);
    Ok(Exit::Ok)
}

async fn test(name: &str, event: Option<String>, json: bool, context: &mut Context) -> Result<Exit, Error> {
    let answer = context.client().await?.test_webhook(name, &TestRequest { event }).await?;
    if json {
        context.ui.json(&answer);
    } else {
        let style = context.ui.style();
        let (tone, mark) = if answer.delivered { (Tone::Good, "✓") } else { (Tone::Bad, "✗") };
        let line = format!("{} {}", style.paint(tone, mark), clean(&told(name, &answer)));
        context.ui.line(&line);
        for line in answer.excerpt.iter().flat_map(|excerpt| excerpt.trim().lines()) {
            context.ui.line(&format!("    {}", clean(line)));
        }
    }
    Ok(if answer.delivered { Exit::Ok } else { Exit::Failed })
}

async fn switch(names: &[String], on: bool, context: &mut Context) -> Result<Exit, Error> {
    let client = context.client().await?;
    each(context, names, async |context, name| {
        let report = client.switch_webhook(name, on).await?;
        context.ui.note(&switched(name, on, &report.backlog));
        Ok(())
    })
    .await
}

fn switched(name: &str, on: bool, backlog: &BTreeMap<String, u64>) -> String {
    let owed: u64 = ["pending", "held"].iter().filter_map(|state| backlog.get(*state)).sum();
    let deliveries = if owed == 1 { "delivery" } else { "deliveries" };
    match (on, owed) {
        (true, 0) => format!("{name} enabled"),
        (true, _) => format!("{name} enabled; sending {owed} held {deliveries}"),
        (false, 0) => format!("{name} disabled; its deliveries will be held"),
        (false, _) => format!("{name} disabled; holding {owed} {deliveries}"),
    }
}

fn told(name: &str, answer: &TestAnswer) -> String {
    let mut text = format!("{name}: ");
    text.push_str(if answer.delivered { "delivered" } else { "not delivered" });
    if let Some(status) = answer.http_status {
        let _ = write!(text, ", HTTP {status}");
    }
    let _ = write!(text, ", {} ms", answer.milliseconds);
    if let Some(error) = answer.error.as_ref().filter(|_| !answer.delivered) {
        let _ = write!(text, ": {error}");
    }
    text
}

/// Every webhook, the troubled ones first.
pub fn table(reports: &[WebhookReport], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        Column::whole("NAME"),
        Column::whole("KIND").drops(2),
        Column::text("TARGET").drops(4),
        Column::text("EVENTS").drops(5),
        Column::whole("HEALTH"),
        Column::text("OWED").drops(1).at_least(REASON),
        Column::whole("LAST SUCCESS").drops(3),
        Column::text("WHY").drops(0).at_least(REASON).prefers(44),
    ]);
    let mut reports: Vec<&WebhookReport> = reports.iter().collect();
    reports.sort_by_key(|report| report.health == "ok");
    for report in reports {
        let success = report.last_success_at.as_deref().and_then(|at| time(&at.into()));
        table.row(vec![
            report.name.as_str().into(),
            report.kind.as_str().into(),
            report.target.as_str().into(),
            events_of(report).into(),
            Cell::new(health_tone(&report.health), report.health.as_str()),
            backlog(&report.backlog).into(),
            Cell::of_forms(
                Tone::Plain,
                short_distance(&success.map(|at| distance(at, now)).unwrap_or_default()),
            ),
            why(report, now).into(),
        ]);
    }
    table
}

/// With fewer letters a reason tells nothing.
const REASON: usize = 20;

/// How a webhook's health is meant.
fn health_tone(health: &str) -> Tone {
    match health {
        "ok" => Tone::Good,
        "paused" | "disabled" => Tone::Warning,
        _ => Tone::Bad,
    }
}

/// What is still to be delivered, by state.
pub fn backlog(backlog: &BTreeMap<String, u64>) -> String {
    let owed = backlog.iter().filter(|(state, count)| *state != "delivered" && **count > 0);
    owed.map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}

/// What is wrong with a webhook, in a phrase.
pub fn why(report: &WebhookReport, now: Timestamp) -> String {
    let at = |at: &Option<String>| at.as_deref().and_then(|at| time(&at.into()));
    let mut parts = Vec::new();
    // What was answered is what leads on, and what is left where there is little room.
    let failing = report.failures > 0 && report.reason.is_none();
    parts.extend(report.last_error.clone().filter(|_| failing));
    if report.failures > 0 {
        let since = at(&report.failing_since).map(|at| format!(", first {}", distance(at, now)));
        let last = at(&report.last_failure_at).filter(|_| report.failures > 1);
        let last = last.map(|at| format!(", last {}", distance(at, now))).unwrap_or_default();
        let times = if report.failures == 1 { "failure" } else { "failures in a row" };
        parts.push(format!("{} {times}{}{last}", report.failures, since.unwrap_or_default()));
    }
    if let Some(until) = at(&report.paused_until).filter(|until| *until > now) {
        parts.push(format!("paused by its receiver, continues {}", distance(until, now)));
    }
    parts.extend(report.reason.clone());
    parts.join("; ")
}

fn events_of(report: &WebhookReport) -> String {
    let ends: Vec<&str> = EventType::ENDS.iter().map(|kind| kind.as_str()).collect();
    let others: Vec<&str> =
        report.events.iter().map(String::as_str).filter(|kind| !ends.contains(kind)).collect();
    let has_ends = ends.iter().all(|end| report.events.iter().any(|kind| kind == end));
    let mut text = match (has_ends, others.len()) {
        (true, 0) => "batch ends".to_owned(),
        (false, 1) => others[0].to_owned(),
        _ => format!("{} types", report.events.len()),
    };
    if report.severity != "info" {
        let _ = write!(text, ", severity ≥ {}", report.severity);
    }
    if report.on_request {
        text.push_str(", on request");
    }
    text
}

/// The types that a webhook can be tested with.
fn types() -> Vec<&'static str> {
    EventType::ALL.iter().map(|kind| kind.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::style::Style;
    use super::*;

    fn report(name: &str, health: &str) -> WebhookReport {
        WebhookReport {
            name: name.into(),
            kind: "generic".into(),
            target: "https://example.com".into(),
            events: EventType::ENDS.iter().map(ToString::to_string).collect(),
            severity: "info".into(),
            signed: true,
            on_request: false,
            health: health.into(),
            reason: None,
            failures: 0,
            failing_since: None,
            last_error: None,
            last_failure_at: None,
            paused_until: None,
            last_success_at: Some("2026-11-18T11:00:00Z".into()),
            backlog: BTreeMap::new(),
        }
    }

    #[test]
    fn the_troubled_ones_come_first() {
        let mut failing = report("ops", "failing");
        failing.failures = 4;
        failing.failing_since = Some("2026-11-18T10:06:40Z".into());
        failing.last_failure_at = Some("2026-11-18T11:01:40Z".into());
        failing.last_error = Some("503 Service Unavailable".into());
        failing.backlog =
            [("pending".to_owned(), 12), ("dead".to_owned(), 1), ("delivered".to_owned(), 9)].into();
        failing.events.push("batch.stalled".into());
        let table = table(&[report("pipeline", "ok"), failing], Timestamp::constant(1_795_000_000, 0));
        insta::assert_snapshot!(table.render(Style::default()));
        // In a narrow terminal the reason stays, and the address goes.
        let narrow = table.render(Style { width: Some(80), ..Style::default() });
        assert!(narrow.contains("503 Service Unavailable"), "{narrow}");
        assert!(!narrow.contains("https"), "{narrow}");
    }

    #[test]
    fn a_test_says_what_came_back() {
        let mut answer = TestAnswer {
            delivered: true,
            event_id: "evt_1".into(),
            http_status: Some(204),
            error: None,
            excerpt: None,
            milliseconds: 31,
        };
        assert_eq!(told("ops", &answer), "ops: delivered, HTTP 204, 31 ms");
        answer.delivered = false;
        answer.http_status = None;
        answer.error = Some("connection refused".into());
        assert_eq!(told("ops", &answer), "ops: not delivered, 31 ms: connection refused");
    }

    #[test]
    fn switching_says_what_becomes_of_its_deliveries() {
        let backlog = |held| BTreeMap::from([("held".to_owned(), held), ("delivered".to_owned(), 7)]);
        assert_eq!(switched("broken", true, &backlog(20)), "broken enabled; sending 20 held deliveries");
        assert_eq!(switched("broken", true, &backlog(0)), "broken enabled");
        assert_eq!(switched("broken", false, &backlog(1)), "broken disabled; holding 1 delivery");
        assert_eq!(switched("broken", false, &backlog(0)), "broken disabled; its deliveries will be held");
    }
}
