//! `batchd status`: the daemon's health on one screen, what is wrong first.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use super::quantity::count;
use super::style::{Style, Tone};
use super::view::{local, local_and_ago, time};
use super::wrap::hanging;
use super::{providers, webhooks};
use crate::control::api::StatusReport;
use crate::control::reports::BY_HAND;
use crate::domain::cost::Usd;
use crate::domain::duration::human;
use crate::domain::printable::clean;
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Number;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Show the daemon's health on one screen, what is wrong first
#[derive(Debug, Args)]
#[command(after_help = "Lines that begin with ✗ need a person, those with ! are worth knowing.
With --offline it shows what the state directory tells while no daemon runs.")]
pub struct Arguments {
    /// Exit with 1 if something needs a person
    #[arg(long)]
    check: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let report = context.source().await?.status().await?;
    let now = context.clock.now();
    let troubles = troubles(&report, now);
    if arguments.json {
        context.ui.json(&report);
    } else {
        let text = screen(&report, &troubles, now, &context.zone, context.ui.style());
        context.ui.write(&text);
    }
    let calls = troubles.iter().any(|trouble| trouble.needs_person);
    Ok(if arguments.check && calls { Exit::Failed } else { Exit::Ok })
}

/// Something that is wrong, or that is worth knowing.
pub struct Trouble {
    /// Whether it stays as it is until somebody does something.
    pub needs_person: bool,
    pub text: String,
}

fn screen(
    report: &StatusReport,
    troubles: &[Trouble],
    now: Timestamp,
    zone: &TimeZone,
    style: Style,
) -> String {
    let mut text = String::new();
    for trouble in troubles {
        let (tone, mark) = if trouble.needs_person { (Tone::Bad, "✗") } else { (Tone::Warning, "!") };
        let mut lines = trouble.text.lines();
        let first = hanging(&clean(lines.next().unwrap_or_default()), 2, style);
        let _ = writeln!(text, "{} {first}", style.paint(tone, mark));
        for line in lines {
            let _ = writeln!(text, "  {}", hanging(&clean(line), 2, style));
        }
    }
    let mut fact = |name: &str, value: &str| {
        let name = style.paint(Tone::Faint, &format!("{name:<10}"));
        let _ = writeln!(text, "{name} {}", hanging(&clean(value), 11, style));
    };
    fact("attention", &attention(troubles));
    fact("batchd", &daemon(report, zone));
    if report.pid.is_some() || report.config_file.is_some() {
        fact("config", report.config_file.as_deref().unwrap_or("no file; keys come from the environment"));
    }
    fact("state", &report.state_dir);
    for (name, text) in members(report) {
        fact(name, &text);
    }
    fact("backup", &backup(report, zone, now));
    fact("batches", &batches(report));
    if report.pid.is_some() {
        fact("polling", &polling(report));
    }
    for (name, text) in cost(report) {
        fact(name, &text);
    }
    fact("events", &count(u64::try_from(report.events).unwrap_or(0)));
    if let Some(step) = &report.log_step {
        let at = time(&step.at.as_str().into()).map(|at| format!(" on {}", local(at, zone)));
        let (behind, goes_on, at) = (step.behind, step.goes_on, at.unwrap_or_default());
        let why = "the server may have lost commits";
        fact("", &format!("none is numbered between {behind} and {goes_on}: {why}{at}"));
    }
    let removed = |name: &str| report.removed_webhooks.get(name);
    let of_configured = report.webhooks.iter().map(|each| (&each.name, webhooks::backlog(&each.backlog)));
    let of_removed = report.removed_webhooks.keys().map(|name| {
        (name, format!("{} held, not in the configuration", removed(name).copied().unwrap_or_default()))
    });
    let owed = of_configured.chain(of_removed).filter(|(_, owed)| !owed.is_empty());
    let owed: Vec<String> = owed.map(|(name, owed)| format!("{name}: {owed}")).collect();
    fact("owed", &if owed.is_empty() { "nothing".to_owned() } else { owed.join("; ") });
    fact("providers", &names(report.providers.iter().map(|each| (each.name.as_str(), each.health.as_str()))));
    fact("webhooks", &names(report.webhooks.iter().map(|each| (each.name.as_str(), each.health.as_str()))));
    text
}

/// The server with the state, and the daemons that share it with what each of them does.
fn members(report: &StatusReport) -> Vec<(&'static str, String)> {
    let mut lines: Vec<_> =
        report.database.iter().map(|server| ("database", format!("PostgreSQL at {server}"))).collect();
    for (at, member) in report.members.iter().enumerate() {
        let scopes =
            if member.scopes.is_empty() { "nothing yet".to_owned() } else { member.scopes.join(", ") };
        let this = if member.this { " (this one)" } else { "" };
        let drift = if member.clock_offset_ms.abs() > MAX_DRIFT {
            format!("; its clock is {:+} s off the database's", member.clock_offset_ms / 1000)
        } else {
            String::new()
        };
        let mut text = format!("{}{this} {}: {scopes}{drift}", member.name, member.version);
        for differs in &member.differs {
            text.push_str("; ");
            text.push_str(differs);
        }
        lines.push((if at == 0 { "members" } else { "" }, text));
    }
    lines
}

/// Milliseconds by which a daemon's clock may differ from the database's before that is said.
const MAX_DRIFT: i64 = 5000;

/// What this month's batches cost, and what of it each label.
fn cost(report: &StatusReport) -> Vec<(&'static str, String)> {
    let Some(cost) = report.cost.as_ref().filter(|cost| !cost.providers.is_empty()) else {
        return Vec::new();
    };
    let shown = |amount: &Number| Usd::read(&amount.to_string()).unwrap_or_default().shown();
    let shares = |of: &BTreeMap<String, Number>| {
        let mut shares: Vec<_> = of.iter().collect();
        shares.sort_by(|(_, a), (_, b)| Usd::read(&b.to_string()).cmp(&Usd::read(&a.to_string())));
        let left_out = shares.len().saturating_sub(MAX_SHARES);
        let mut texts: Vec<String> =
            shares.iter().take(MAX_SHARES).map(|(key, amount)| format!("{key} {}", shown(amount))).collect();
        texts.extend((left_out > 0).then(|| format!("{left_out} more")));
        texts.join(", ")
    };
    let all = format!("{} in {}: {}", shown(&cost.amount), cost.month, shares(&cost.providers));
    let labels = (!cost.labels.is_empty()).then(|| ("", shares(&cost.labels)));
    [("cost", all)].into_iter().chain(labels).collect()
}

fn attention(troubles: &[Trouble]) -> String {
    match troubles.iter().filter(|trouble| trouble.needs_person).count() {
        0 => "nothing needs a person".to_owned(),
        1 => "1 problem needs a person".to_owned(),
        several => format!("{several} problems need a person"),
    }
}

fn daemon(report: &StatusReport, zone: &TimeZone) -> String {
    let Some(pid) = report.pid else {
        return format!("{}, read from the state directory without asking a daemon", report.version);
    };
    let ready = if report.ready { "ready" } else { "not ready" };
    let up = report.uptime_seconds.map(|seconds| format!(", up {}", human(Duration::from_secs(seconds))));
    let since = report.started_at.as_deref().and_then(|at| time(&at.into()));
    let since = since.map(|at| format!(", since {}", local(at, zone)));
    format!("{}, {ready}{}{}, pid {pid}", report.version, up.unwrap_or_default(), since.unwrap_or_default())
}

fn backup(report: &StatusReport, zone: &TimeZone, now: Timestamp) -> String {
    let last = report.last_backup_at.as_deref().and_then(|at| time(&at.into()));
    last.map_or_else(
        || "none yet; `batchd backup FILE` makes one".to_owned(),
        |at| format!("the last {}", local_and_ago(at, now, zone)),
    )
}

/// What is wrong, the worst first.
pub fn troubles(report: &StatusReport, now: Timestamp) -> Vec<Trouble> {
    let bad = |text: String| Trouble { needs_person: true, text };
    let warning = |text: String| Trouble { needs_person: false, text };
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
        // One that somebody switched off, and that is owed nothing, is as it should be.
        let by_hand = webhook.reason.as_deref() == Some(BY_HAND) && !webhook.backlog.contains_key("held");
        let calls = webhook.health == "failing" || webhook.health == "disabled" && !by_hand;
        all.push(if calls { bad(text) } else { warning(text) });
    }
    if let Some(error) = &report.reload_error {
        all.push(bad(format!("the last reload was refused: {error}")));
    }
    for (provider, count) in &report.orphans {
        let batches = if *count == 1 { "batch is" } else { "batches are" };
        all.push(bad(format!(
            "{count} {batches} not polled: provider {provider} is not in the configuration"
        )));
    }
    for (webhook, count) in &report.removed_webhooks {
        let deliveries = if *count == 1 { "delivery is" } else { "deliveries are" };
        all.push(bad(format!("{count} {deliveries} held: webhook {webhook} is not in the configuration")));
    }
    for open in &report.submissions {
        let searching =
            || format!("the creation of a batch from {} was not answered; searching for it", open.file_name);
        let mut text =
            format!("provider {}: {}", open.provider, open.trouble.clone().unwrap_or_else(searching));
        if !open.candidates.is_empty() {
            let _ = write!(text, ": {}", open.candidates.join(", "));
        }
        all.push(if open.candidates.is_empty() { warning(text) } else { bad(text) });
    }
    if let Some((first, more)) = report.failed_downloads.split_first() {
        let more = if more.is_empty() { String::new() } else { format!(" and of {} more", more.len()) };
        all.push(bad(format!(
            "the results of {first}{more} could not be downloaded as they should be: `batchd show` tells why"
        )));
    }
    if let Some(cost) = &report.cost {
        let mut models: Vec<_> = cost.unpriced.iter().filter(|(model, _)| !model.ends_with('/')).collect();
        models.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        if let Some(((model, _), more)) = models.split_first() {
            let batches: u64 = models.iter().map(|(_, count)| **count).sum();
            let of = if batches == 1 {
                "1 ended batch has".to_owned()
            } else {
                format!("{batches} ended batches have")
            };
            let others = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            all.push(warning(format!("{of} tokens and no price: {model}{others}; write [prices.\"MODEL\"]")));
        }
    }
    if report.held_from_pruning > 0 {
        let batches = if report.held_from_pruning == 1 { "batch is" } else { "batches are" };
        all.push(warning(format!(
            "{} ended {batches} kept beyond state.retain: the clock has leapt, or it is too much to delete in an hour",
            report.held_from_pruning
        )));
    }
    for job in &report.jobs {
        if let (Some(name), Some(error)) = (job["name"].as_str(), job["error"].as_str()) {
            all.push(bad(format!("the last run of job {name} failed: {error}")));
        }
    }
    for webhook in &report.webhooks {
        if let Some(dead) = webhook.backlog.get("dead").filter(|dead| **dead > 0) {
            let deliveries = if *dead == 1 { "delivery was" } else { "deliveries were" };
            let name = &webhook.name;
            all.push(warning(format!(
                "{dead} {deliveries} given up: `batchd deliveries retry --dead --webhook {name}` sends again"
            )));
        }
    }
    all.extend(report.warnings.iter().cloned().map(warning));
    all.sort_by_key(|trouble| !trouble.needs_person);
    all
}

fn batches(report: &StatusReport) -> String {
    let by_status: Vec<String> = crate::domain::status::Status::ALL
        .iter()
        .filter_map(|status| report.batches.get(status.as_str()).map(|count| (status, count)))
        .filter(|(_, count)| **count > 0)
        .map(|(status, number)| format!("{} {status}", count(*number)))
        .chain(report.batches.get("untracked").map(|number| format!("{} untracked", count(*number))))
        .collect();
    let known: u64 = report.batches.values().sum();
    if known == 0 {
        return "none yet".to_owned();
    }
    format!("{} active of {}: {}", count(report.active), count(known), by_status.join(", "))
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

/// Of providers, and of labels, on one line.
const MAX_SHARES: usize = 6;

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
            "webhooks": [], "jobs": [],
            "last_backup_at": "2026-11-18T02:00:00Z"
        }))
        .unwrap()
    }

    fn shown(report: &StatusReport, now: Timestamp) -> String {
        screen(report, &troubles(report, now), now, &TimeZone::UTC, Style::default())
    }

    #[test]
    fn all_is_well() {
        let now = Timestamp::constant(1_795_000_000, 0);
        insta::assert_snapshot!(shown(&report(), now));
    }

    #[test]
    fn what_a_person_did_needs_none() {
        let now = Timestamp::constant(1_795_000_000, 0);
        let mut report = report();
        let webhook = |reason: &str, held: u64| {
            let backlog = if held == 0 { json!({}) } else { json!({"held": held}) };
            serde_json::from_value(json!({
                "name": "ops", "kind": "slack", "target": "https://hooks.slack.com/…", "events": [], "severity": "info",
                "signed": false, "on_request": false, "health": "disabled", "reason": reason, "failures": 0,
                "failing_since": null, "last_error": null, "last_failure_at": null, "paused_until": null, "last_success_at": null, "backlog": backlog
            }))
            .unwrap()
        };
        for (reason, held, calls) in [(BY_HAND, 0, false), (BY_HAND, 3, true), ("404: no_service", 0, true)] {
            report.webhooks = vec![webhook(reason, held)];
            assert_eq!(troubles(&report, now)[0].needs_person, calls, "{reason} {held}");
        }
    }

    #[test]
    fn what_is_wrong_comes_first() {
        let now = Timestamp::constant(1_795_000_000, 0);
        let mut report = report();
        report.ready = false;
        report.troubles = vec!["the database cannot be written: the disk is full".into()];
        report.due = 3;
        report.late_seconds = 95;
        report.reload_error = Some("config.toml:3:1: unknown key `pollin`\nconfig.toml:9:1: another".into());
        report.orphans.insert("groq".into(), 2);
        report.failed_downloads = vec!["openai:batch_1".into(), "openai:batch_2".into()];
        report.removed_webhooks.insert("broken".into(), 20);
        report.batches.insert("untracked".into(), 1);
        report.warnings.push("webhook slack is not signed".into());
        report.jobs.push(json!({"name": "prune", "error": "the disk is full"}));
        report.providers[0].health = "refused".into();
        report.providers[0].last_error = Some("401: Incorrect API key".into());
        insta::assert_snapshot!(shown(&report, now));
    }
}
