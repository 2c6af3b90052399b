//! `batchd status`: the daemon's health on one screen, what is wrong first.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use super::style::{Style, Tone};
use super::view::{local, time};
use super::{providers, webhooks};
use crate::control::api::StatusReport;
use crate::domain::duration::human;
use crate::domain::printable::clean;
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt::Write as _;
use std::time::Duration;

/// Show the daemon's health on one screen, what is wrong first
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let report = context.client().await?.status().await?;
    if arguments.json {
        context.ui.json(&report);
    } else {
        let text = screen(&report, context.clock.now(), &context.zone, context.ui.style());
        context.ui.write(&text);
    }
    Ok(Exit::Ok)
}

fn screen(report: &StatusReport, now: Timestamp, zone: &TimeZone, style: Style) -> String {
    let mut text = String::new();
    for (tone, mark, trouble) in troubles(report, now) {
        let _ = writeln!(text, "{} {}", style.paint(tone, mark), clean(&trouble));
    }
    let mut fact = |name: &str, value: &str| {
        let name = style.paint(Tone::Faint, &format!("{name:<10}"));
        let _ = writeln!(text, "{name} {}", clean(value));
    };
    let ready = if report.ready { "ready" } else { "not ready" };
    let since = time(&report.started_at.as_str().into()).map(|at| format!(", since {}", local(at, zone)));
    fact(
        "batchd",
        &format!(
            "{}, {ready}, up {}{}, pid {}",
            report.version,
            human(Duration::from_secs(report.uptime_seconds)),
            since.unwrap_or_default(),
            report.pid
        ),
    );
    fact("config", report.config_file.as_deref().unwrap_or("no file; keys come from the environment"));
    fact("state", &report.state_dir);
    fact("batches", &batches(report));
    fact("polling", &polling(report));
    fact("events", &report.events.to_string());
    let owed: Vec<String> = report
        .webhooks
        .iter()
        .map(|webhook| (webhook, webhooks::backlog(&webhook.backlog)))
        .filter(|(_, owed)| !owed.is_empty())
        .map(|(webhook, owed)| format!("{}: {owed}", webhook.name))
        .collect();
    fact("owed", &if owed.is_empty() { "nothing".to_owned() } else { owed.join("; ") });
    fact("providers", &names(report.providers.iter().map(|each| (each.name.as_str(), each.health.as_str()))));
    fact("webhooks", &names(report.webhooks.iter().map(|each| (each.name.as_str(), each.health.as_str()))));
    text
}

/// What is wrong, the worst first.
fn troubles(report: &StatusReport, now: Timestamp) -> Vec<(Tone, &'static str, String)> {
    let bad = |text: String| (Tone::Bad, "✗", text);
    let warning = |text: String| (Tone::Warning, "!", text);
    let because = |why: String| if why.is_empty() { why } else { format!(": {why}") };
    let mut all: Vec<_> = report.troubles.iter().cloned().map(bad).collect();
    for provider in report.providers.iter().filter(|provider| !providers::is_well(provider)) {
        let text = format!(
            "provider {} is {}{}",
            provider.name,
            provider.health,
            because(providers::why(provider, now))
        );
        all.push(if provider.health == "held" { warning(text) } else { bad(text) });
    }
    for webhook in report.webhooks.iter().filter(|webhook| webhook.health != "ok") {
        let text =
            format!("webhook {} is {}{}", webhook.name, webhook.health, because(webhooks::why(webhook, now)));
        all.push(if webhook.health == "failing" { bad(text) } else { warning(text) });
    }
    if let Some(error) = &report.reload_error {
        all.push(bad(format!("the last reload was refused: {error}")));
    }
    for (provider, count) in &report.orphans {
        let batches = if *count == 1 { "batch is" } else { "batches are" };
        all.push(warning(format!(
            "{count} {batches} not polled: provider {provider} is not in the configuration"
        )));
    }
    for open in &report.submissions {
        let searching =
            || format!("the creation of a batch from {} was not answered; searching for it", open.file_name);
        let mut text =
            format!("provider {}: {}", open.provider, open.trouble.clone().unwrap_or_else(searching));
        if !open.candidates.is_empty() {
            let _ = write!(text, ": {}", open.candidates.join(", "));
        }
        all.push(warning(text));
    }
    if let Some((first, more)) = report.failed_downloads.split_first() {
        let more = if more.is_empty() { String::new() } else { format!(" and of {} more", more.len()) };
        all.push(warning(format!(
            "the results of {first}{more} could not be downloaded as they should be: `batchd show` tells why"
        )));
    }
    for job in &report.jobs {
        if let (Some(name), Some(error)) = (job["name"].as_str(), job["error"].as_str()) {
            all.push(warning(format!("the last run of job {name} failed: {error}")));
        }
    }
    all.extend(report.warnings.iter().cloned().map(warning));
    all
}

fn batches(report: &StatusReport) -> String {
    let by_status: Vec<String> = crate::domain::status::Status::ALL
        .iter()
        .filter_map(|status| report.batches.get(status.as_str()).map(|count| (status, count)))
        .filter(|(_, count)| **count > 0)
        .map(|(status, count)| format!("{count} {status}"))
        .collect();
    let known: u64 = report.batches.values().sum();
    if known == 0 {
        return "none yet".to_owned();
    }
    format!("{} active of {known}: {}", report.active, by_status.join(", "))
}

fn polling(report: &StatusReport) -> String {
    match (report.due, report.late_seconds) {
        (0, _) => "nothing due".to_owned(),
        (due, 0) => format!("{due} due now"),
        (due, late) => {
            format!("{due} due now, the latest {} late", human(Duration::from_secs(late)))
        }
    }
}

/// Names, with the health of those that are not well.
fn names<'a>(each: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let names: Vec<String> = each
        .map(|(name, health)| if health == "ok" { name.to_owned() } else { format!("{name} ({health})") })
        .collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report() -> StatusReport {
        serde_json::from_value(json!({
            "version": "0.1.0", "pid": 4711, "started_at": "2026-11-18T07:00:00Z", "uptime_seconds": 14_800,
            "config_file": "/etc/batchd/config.toml", "state_dir": "/var/lib/batchd", "ready": true, "troubles": [],
            "batches": {"in_progress": 10, "completed": 200, "validating": 2, "failed": 0}, "active": 12, "due": 0,
            "late_seconds": 0, "events": 812, "warnings": [], "reload_error": null, "orphans": {},
            "providers": [{"name": "openai", "kind": "openai", "base_url": "https://api.openai.com/v1", "key": true,
                "active": 12, "health": "ok", "last_error": null, "last_success_at": null, "held_until": null,
                "in_flight": 0}],
            "webhooks": [], "jobs": []
        }))
        .unwrap()
    }

    #[test]
    fn all_is_well() {
        let now = Timestamp::constant(1_795_000_000, 0);
        insta::assert_snapshot!(screen(&report(), now, &TimeZone::UTC, Style::default()));
    }

    #[test]
    fn what_is_wrong_comes_first() {
        let now = Timestamp::constant(1_795_000_000, 0);
        let mut report = report();
        report.ready = false;
        report.troubles = vec!["the database cannot be written: the disk is full".into()];
        report.due = 3;
        report.late_seconds = 95;
        report.reload_error = Some("config.toml:3:1: unknown key `pollin`".into());
        report.orphans.insert("groq".into(), 2);
        report.failed_downloads = vec!["openai:batch_1".into(), "openai:batch_2".into()];
        report.warnings.push("webhook slack is not signed".into());
        report.jobs.push(json!({"name": "prune", "error": "the disk is full"}));
        report.providers[0].health = "refused".into();
        report.providers[0].last_error = Some("401: Incorrect API key".into());
        insta::assert_snapshot!(screen(&report, now, &TimeZone::UTC, Style::default()));
    }
}
