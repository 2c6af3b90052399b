//! `batchd show`: everything that is known about a batch, on one page.

use super::Context;
use super::error::Error;
use super::exit::Exit;
use super::ids::{self, parse_id};
use super::quantity::count;
use super::style::{Style, Tone};
use super::table::{Cell, Column, Table};
use super::view::{BatchView, distance, local, local_and_ago, time, tone};
use super::wrap::hanging;
use crate::domain::batch::BatchError;
use crate::domain::cost::Usd;
use crate::domain::duration::human;
use crate::domain::printable::clean;
use crate::domain::time::since;
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use std::fmt::Write as _;

/// Show all that is known about a batch, and when it is checked next
#[derive(Debug, Args)]
pub struct Arguments {
    /// The id, also as PROVIDER:ID
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: String,
    /// Print one JSON document: the Batch, with the rest under `batchd`
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    let source = context.source().await?;
    let id = ids::one(&arguments.id, &mut context.ui)?;
    let batch = source.batch(&id, true).await.map_err(|error| {
        let missing = error.kind == Exit::NoSuchBatch && error.hints.is_empty();
        let error = error.about(&id);
        if missing { error.hint("`batchd get` checks a batch that is not tracked") } else { error }
    })?;
    if arguments.json {
        context.ui.json(&batch);
    } else {
        let text = page(&batch, context.clock.now(), &context.zone, context.ui.style());
        context.ui.write(&text);
    }
    Ok(Exit::Ok)
}

/// A batch as a page of text; what the JSON does not hold is left out.
pub fn page(batch: &Value, now: Timestamp, zone: &TimeZone, style: Style) -> String {
    let batch = BatchView(batch);
    let mut page = Page { text: String::new(), style };
    let key = if batch.provider().is_empty() { batch.id().to_owned() } else { batch.key() };
    page.heading(&key);
    facts(&mut page, batch, now, zone);
    transitions(&mut page, batch, zone);
    deliveries(&mut page, batch.added("deliveries"), now, zone);
    schedule(&mut page, batch, now, zone);
    page.text
}

struct Page {
    text: String,
    style: Style,
}

impl Page {
    fn heading(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&self.style.paint(Tone::Strong, &clean(text)));
        self.text.push('\n');
    }

    /// A fact with its name; nothing if there is none.
    fn fact(&mut self, name: &str, value: Option<impl AsRef<str>>) {
        self.toned(name, Tone::Plain, value);
    }

    fn toned(&mut self, name: &str, tone: Tone, value: Option<impl AsRef<str>>) {
        let Some(value) = value else { return };
        if value.as_ref().is_empty() {
            return;
        }
        let name = self.style.paint(Tone::Faint, &format!("{name:<11}"));
        let value = self.style.paint(tone, &hanging(&clean(value.as_ref()), 14, self.style));
        let _ = writeln!(self.text, "  {name} {value}");
    }

    /// A table, indented.
    fn table(&mut self, table: &Table) {
        let width = self.style.width.map(|width| width.saturating_sub(2));
        for line in table.render(Style { width, ..self.style }).lines() {
            let _ = writeln!(self.text, "  {line}");
        }
    }
}

fn facts(page: &mut Page, batch: BatchView<'_>, now: Timestamp, zone: &TimeZone) {
    let word = |name: &str| batch.field(name).as_str();
    let added = |name: &str| batch.added(name).as_str();
    let at = |name: &str| batch.time(name).map(|at| local_and_ago(at, now, zone));

    page.fact("name", added("name"));
    let mut status = batch.status().to_owned();
    if let Some(outcome) = batch.outcome().filter(|outcome| *outcome != batch.status()) {
        let _ = write!(status, ", {outcome}");
    }
    match added("provider_status") {
        Some(own) if own != batch.status() => {
            let _ = write!(status, " (provider: {own})");
        }
        _ => {}
    }
    page.toned("status", tone(batch.status(), batch.outcome()), Some(status));
    page.fact(
        "requests",
        batch.counts().map(|counts| {
            if batch.is_over() {
                counts.sentence()
            } else if batch.is_uncounted() {
                format!("{}; the provider counts them when the batch ends", count(counts.total))
            } else {
                format!("{} ({}%)", counts.sentence(), counts.percent())
            }
        }),
    );
    for error in batch.field("errors")["data"].as_array().into_iter().flatten() {
        page.toned("error", Tone::Bad, Some(batch_error(error)));
    }
    page.toned("trouble", Tone::Warning, added("last_error"));
    if batch.added("lost") == true {
        page.toned("lost", Tone::Bad, Some("its provider no longer knows it"));
    }
    if batch.added("stalled") == true {
        page.toned("stalled", Tone::Warning, Some("no progress for a long time"));
    }
    let waiting = batch.added("waiting_for");
    page.toned("waits for", Tone::Warning, waiting["reason"].as_str());
    let number =
        |key: &str, word: &str| waiting[key].as_u64().map(|value| format!("{word} {}", count(value)));
    let quota: Vec<String> =
        [number("limit", "limit"), number("usage", "in use")].into_iter().flatten().collect();
    page.fact("quota", Some(quota.join(", ")));
    page.fact("submission", added("submission").filter(|id| *id != batch.id()));
    page.fact("resubmits", added("resubmits"));
    let by = batch.added("resubmitted_by").as_array().into_iter().flatten();
    page.fact("resubmitted", Some(by.filter_map(|id| id.as_str()).collect::<Vec<_>>().join(", ")));
    page.fact("endpoint", word("endpoint"));
    page.fact("model", word("model"));
    page.fact("created", batch.stamp("created_at").map(|at| local_and_ago(at, now, zone)));
    page.fact(
        "ended",
        batch.ended_at().map(|at| {
            let took = batch.stamp("created_at").map(|began| format!(", took {}", human(since(began, at))));
            format!("{}{}", local_and_ago(at, now, zone), took.unwrap_or_default())
        }),
    );
    let expires = batch.stamp("expires_at").filter(|_| !batch.is_over());
    match expires {
        Some(at) => page.fact("expires", Some(local_and_ago(at, now, zone))),
        None => page.fact("window", word("completion_window").filter(|_| !batch.is_over())),
    }
    if !batch.is_over() {
        page.fact("eta", at("eta"));
        page.fact("", between(batch.added("eta_interval"), zone));
    }
    page.fact("deadline", at("deadline"));
    page.fact("input", word("input_file_id"));
    page.fact("output", word("output_file_id"));
    page.fact("errors", word("error_file_id"));
    page.fact("results", at("results_expire_at").map(|at| format!("kept by the provider until {at}")));
    let kept = batch.added("results");
    page.fact("kept", kept["path"].as_str().map(|path| format!("{path}, {} lines", kept["lines"])));
    page.toned("not kept", Tone::Bad, added("results_error"));
    page.fact("tokens", tokens(batch.field("usage")));
    page.fact("cost", cost(batch));
    page.fact("labels", pairs(batch.added("labels")));
    page.fact("metadata", pairs(batch.field("metadata")));
    page.fact("console", added("console_url"));
    page.fact(
        "tracked",
        at("tracked_at").map(|at| match added("owner") {
            Some(owner) => format!("{at} by {owner}"),
            None => at,
        }),
    );
    page.fact("untracked", at("untracked_at"));
    page.fact("checked", at("last_polled_at"));
}

fn transitions(page: &mut Page, batch: BatchView<'_>, zone: &TimeZone) {
    let Some(transitions) = batch.added("transitions").as_array().filter(|each| !each.is_empty()) else {
        return;
    };
    page.heading("Transitions");
    let mut table = Table::new(&[
        Column::whole("STATUS"),
        Column::whole("HAPPENED"),
        Column::whole("SEEN"),
        Column::text("PROVIDER SAYS"),
    ]);
    for each in transitions {
        let at = |name: &str| time(&each[name]).map(|at| local(at, zone));
        let word = each["to"].as_str().unwrap_or_default();
        table.row(vec![
            // The last of a batch that ended means what its outcome says: not every `completed` is good.
            Cell::new(tone(word, batch.outcome().filter(|_| word == batch.status())), word),
            at("occurred_at").unwrap_or_else(|| "-".to_owned()).into(),
            at("observed_at").unwrap_or_default().into(),
            each["provider_status"].as_str().filter(|own| *own != word).unwrap_or_default().into(),
        ]);
    }
    page.table(&table);
}

fn deliveries(page: &mut Page, deliveries: &Value, now: Timestamp, zone: &TimeZone) {
    let Some(deliveries) = deliveries.as_array().filter(|each| !each.is_empty()) else { return };
    page.heading("Deliveries");
    for each in deliveries {
        let word = |name: &str| clean(each[name].as_str().unwrap_or("-"));
        let state = word("state");
        let next = time(&each["next_attempt_at"])
            .map(|at| format!(", next {}", distance(at.max(now), now)))
            .unwrap_or_default();
        let _ = writeln!(
            page.text,
            "  {}  {} to {}: {}{next}",
            word("id"),
            word("type"),
            word("webhook"),
            page.style.paint(state_tone(&state), &state),
        );
        for attempt in each["log"].as_array().into_iter().flatten() {
            let line = hanging(&attempt_line(attempt, zone), 6, page.style);
            let _ = writeln!(page.text, "      {line}");
        }
    }
}

fn schedule(page: &mut Page, batch: BatchView<'_>, now: Timestamp, zone: &TimeZone) {
    let reasons = batch.added("schedule")["reasons"].as_array();
    let Some(reasons) = reasons.filter(|reasons| !reasons.is_empty()) else { return };
    page.heading("Schedule");
    page.fact(
        "next check",
        Some(match batch.time("next_poll_at") {
            Some(at) => local_and_ago(at, now, zone),
            None if batch.is_over() => "none (batch has ended)".to_owned(),
            None => "none".to_owned(),
        }),
    );
    if batch.is_over() && batch.time("next_poll_at").is_none() {
        return;
    }
    let mut name = "because";
    for reason in reasons.iter().filter_map(Value::as_str) {
        page.fact(name, Some(reason));
        name = "";
    }
}

/// Between when and when a batch ends, most likely.
fn between(interval: &Value, zone: &TimeZone) -> Option<String> {
    let (earliest, latest) = (time(&interval[0])?, time(&interval[1])?);
    Some(format!("80% likely between {} and {}", local(earliest, zone), local(latest, zone)))
}

/// How a delivery's state is meant.
pub fn state_tone(state: &str) -> Tone {
    match state {
        "delivered" => Tone::Good,
        "dead" => Tone::Bad,
        "held" => Tone::Warning,
        _ => Tone::Plain,
    }
}

fn attempt_line(attempt: &Value, zone: &TimeZone) -> String {
    let began = time(&attempt["started_at"]);
    let mut line = format!(
        "{}. {}  {}",
        attempt["number"],
        began.map(|at| local(at, zone)).unwrap_or_default(),
        attempt["outcome"].as_str().unwrap_or("running"),
    );
    let error = attempt["error"].as_str();
    if let Some(status) = attempt["http_status"].as_u64()
        && error.is_none_or(|error| !error.starts_with(&status.to_string()))
    {
        let _ = write!(line, ", HTTP {status}");
    }
    if let (Some(began), Some(ended)) = (began, time(&attempt["finished_at"])) {
        let _ = write!(line, ", {} ms", since(began, ended).as_millis());
    }
    match attempt["trigger"].as_str() {
        Some("manual") => line.push_str(", by hand"),
        Some("startup") => line.push_str(", after a restart"),
        _ => {}
    }
    if let Some(error) = error {
        let _ = write!(line, ": {error}");
    }
    clean(&line).into_owned()
}

fn batch_error(error: &Value) -> String {
    serde_json::from_value::<BatchError>(error.clone()).unwrap_or_default().to_string()
}

fn tokens(usage: &Value) -> Option<String> {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    usage.as_object()?;
    let mut text = format!("{} in", count(number(&usage["input_tokens"])));
    match number(&usage["input_tokens_details"]["cached_tokens"]) {
        0 => {}
        cached => {
            let _ = write!(text, " ({} cached)", count(cached));
        }
    }
    let _ = write!(text, ", {} out", count(number(&usage["output_tokens"])));
    match number(&usage["output_tokens_details"]["reasoning_tokens"]) {
        0 => {}
        reasoning => {
            let _ = write!(text, " ({} reasoning)", count(reasoning));
        }
    }
    Some(text)
}

/// `$0.0123: $0.0100 in, $0.0023 out, by prices.gpt-4o-mini`
fn cost(batch: BatchView<'_>) -> Option<String> {
    let part = |name: &str| batch.cost(name).map(Usd::shown);
    let (input, output) = (part("input")?, part("output")?);
    let by = batch.added("cost")["priced_by"].as_str().unwrap_or_default();
    Some(format!("{}: {input} in, {output} out, by {by}", part("amount")?))
}

/// `a=1, b=2`
fn pairs(object: &Value) -> Option<String> {
    let pairs: Vec<String> = object
        .as_object()?
        .iter()
        .map(|(key, value)| match value {
            Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        })
        .collect();
    Some(pairs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    #[test]
    fn a_live_batch_on_a_page() {
        let batch = json!({
            "id": "msgbatch_1", "endpoint": "/v1/messages", "model": null, "input_file_id": "",
            "completion_window": "24h", "status": "in_progress", "created_at": 1_794_988_470,
            "in_progress_at": 1_794_988_470, "expires_at": 1_795_074_870,
            "request_counts": {"total": 400, "completed": 118, "failed": 2},
            "batchd": {
                "provider": "anthropic", "provider_status": "in_progress", "outcome": null, "name": "nightly evals",
                "labels": {"team": "evals"}, "owner": "alice", "tracked_at": "2026-11-18T08:00:00Z",
                "last_polled_at": "2026-11-18T11:05:00Z", "next_poll_at": "2026-11-18T11:12:00Z",
                "last_error": "529: over\u{1b}[31mloaded", "eta": "2026-11-18T12:30:00Z",
                "eta_interval": ["2026-11-18T12:12:00Z", "2026-11-18T12:51:00Z"],
                "transitions": [
                    {"from": null, "to": "in_progress", "provider_status": "in_progress",
                     "occurred_at": "2026-11-18T07:54:30Z", "observed_at": "2026-11-18T08:00:00.512Z"}],
                "deliveries": [],
                "schedule": {"reasons": ["in_progress for 3 h 6 m: the interval grows", "every 15 s at most"]}
            }
        });
        insta::assert_snapshot!(page(&batch, NOW, &TimeZone::UTC, Style::default()));
    }

    #[test]
    fn an_ended_batch_on_a_page() {
        let batch: Value = serde_json::from_str(r#"{
            "id": "batch_1", "endpoint": "/v1/responses", "model": "gpt-5-mini", "input_file_id": "file-in",
            "completion_window": "24h", "status": "completed", "output_file_id": "file-out",
            "error_file_id": "file-err", "created_at": 1794988470, "completed_at": 1794995000,
            "request_counts": {"total": 400, "completed": 398, "failed": 2}, "metadata": {"run": "7"},
            "usage": {"input_tokens": 12000, "input_tokens_details": {"cached_tokens": 1000},
                "output_tokens": 3400, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 15400},
            "batchd": {
                "provider": "openai", "provider_status": "completed", "outcome": "partial", "labels": {},
                "results_expire_at": "2026-12-18T08:00:00Z",
                "transitions": [
                    {"to": "validating", "occurred_at": "2026-11-18T07:54:30Z", "observed_at": "2026-11-18T07:54:31Z"},
                    {"to": "completed", "occurred_at": "2026-11-18T09:43:20Z", "observed_at": "2026-11-18T09:43:29Z"}],
                "deliveries": [{
                    "id": "41", "object": "delivery", "event_id": "evt_1", "type": "batch.completed",
                    "webhook": "pipeline", "state": "pending", "attempts": 1,
                    "next_attempt_at": "2026-11-18T11:07:10Z", "last_error": "500",
                    "log": [{"number": 1, "started_at": "2026-11-18T09:43:29Z",
                        "finished_at": "2026-11-18T09:43:29.250Z", "trigger": "schedule",
                        "outcome": "http_5xx", "http_status": 500, "error": "500 Internal Server Error"}]}],
                "schedule": {"reasons": ["it has ended"]}, "next_poll_at": null
            }
        }"#).unwrap();
        insta::assert_snapshot!(page(&batch, NOW, &TimeZone::UTC, Style::default()));
    }
}
