//! The page of one batch: its life, what is expected of it, what went wrong, whom it was told to.

use super::pieces::{badge, button, due, facts, instant, known, moment, progress, status, text, when};
use super::shell::{self, Page};
use super::timeline;
use super::visitor::Visitor;
use crate::control::respond::{Answer, Shared};
use crate::control::service::Service;
use crate::domain::duration::human;
use crate::domain::outcome::Outcome;
use crate::domain::time::from_seconds;
use crate::domain::tracked::{Tracked, Transition};
use crate::store::outbox::{Attempt, Delivery, DeliveryFilter, DeliveryState};
use crate::webhook::text::number;
use axum::extract::{Path, State};
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use std::time::Duration;

/// Deliveries on the page, newest first.
const MOST_DELIVERIES: u32 = 50;

pub(super) async fn page(
    State(shared): State<Shared>,
    Path(batch): Path<String>,
    visitor: Visitor,
) -> Response {
    let page = show(&shared.service, &visitor, &batch, None).await;
    shell::dressed(&shared, &visitor, page)
}

/// The page of the batch that `name` means, with what its failed requests said, if that was fetched.
pub(super) async fn show(
    service: &Service,
    visitor: &Visitor,
    name: &str,
    failures: Option<&Markup>,
) -> Answer<Page> {
    let now = service.clock.now();
    let after = service.store.last_sequence().await?;
    let (pk, tracked) = service.find(name).await?;
    let transitions = service.store.transitions(pk).await?;
    let filter = DeliveryFilter {
        batch: Some(tracked.key.clone()),
        limit: Some(MOST_DELIVERIES),
        ..DeliveryFilter::default()
    };
    let (found, more) = service.store.deliveries(filter).await?;
    let mut deliveries = Vec::new();
    for delivery in found {
        let attempts = service.store.attempts(delivery.pk).await?;
        deliveries.push((delivery, attempts));
    }
    let reasons = match service.live() {
        Ok(live) if tracked.is_active() => live.engine.explain(&tracked).reasons,
        _ => Vec::new(),
    };
    let title = tracked.name.clone().unwrap_or_else(|| tracked.key.id.clone());
    let body = html! {
        nav.crumbs aria-label="Where this is" { a href=(visitor.link("/")) { "Batches" } " / " (text(&title, 80)) }
        div #head data-part {
            h1 { (text(&title, 200)) " " (status(&tracked)) }
            (actions(visitor, &tracked))
        }
        section #life data-part aria-label="Its life" {
            @if let Some(picture) = timeline::draw(&tracked, &transitions, now) { (picture) }
            (history(&transitions))
        }
        div.columns {
            section #facts data-part aria-labelledby="facts-title" {
                h2 #facts-title { "The batch" }
                (progress(tracked.batch.request_counts, tracked.batch.status.is_terminal()))
                (about(visitor, &tracked))
            }
            section #schedule data-part aria-labelledby="schedule-title" {
                h2 #schedule-title { "Checks" }
                (checks(&tracked, &reasons, now))
            }
        }
        (errors(visitor, &tracked, failures))
        (told(visitor, &deliveries, more, now))
        section aria-labelledby="commands-title" {
            h2 #commands-title { "On the command line" }
            pre.command { code { "batchd show " (shell_word(&tracked.key.to_string())) "\nbatchd results " (shell_word(&tracked.key.to_string())) } }
        }
    };
    Ok(Page { title: super::pieces::cut(&title, 80), section: "", body, after: Some(after) })
}

fn actions(visitor: &Visitor, tracked: &Tracked) -> Markup {
    let key = tracked.key.to_string();
    let batch = [("batch", key.as_str())];
    let ended = tracked.batch.status.is_terminal();
    html! {
        div.actions {
            @if !ended {
                (button(visitor, "poll", "Poll now", &batch))
                (button(visitor, "cancel", "Cancel the batch", &batch))
            }
            @if ended && (tracked.batch.has_output() || tracked.batch.error_file_id.is_some() || tracked.results.is_some()) {
                (button(visitor, "results", "Download the results", &batch))
            }
            @if tracked.untracked_at.is_none() { (button(visitor, "untrack", "Untrack", &batch)) }
            @if let Some(url) = tracked.console_url.as_ref().filter(|url| url.starts_with("https://") || url.starts_with("http://")) {
                a.button href=(url) rel="noreferrer noopener" { "Open in " (tracked.key.provider) }
            }
        }
    }
}

fn history(transitions: &[Transition]) -> Markup {
    html! {
        @if !transitions.is_empty() {
            table.rows {
                caption { "Changes of status: when each happened, and when batchd saw it" }
                thead { tr { th scope="col" { "Status" } th scope="col" { "The provider's word" } th scope="col" { "Happened" } th scope="col" { "Seen" } th scope="col" { "Later by" } } }
                tbody {
                    @for step in transitions {
                        tr {
                            th scope="row" data-label="Status" { (step.to.as_str()) }
                            td data-label="The provider's word" { @match &step.provider_status { Some(word) => (text(word, 60)), None => span.none { "–" } } }
                            td data-label="Happened" { @match step.occurred_at { Some(at) => (moment(at)), None => span.none { "not told" } } }
                            td data-label="Seen" { (moment(step.observed_at)) }
                            td data-label="Later by" {
                                @match step.occurred_at {
                                    Some(at) => (human(super::pieces::whole(crate::domain::time::since(at, step.observed_at)))),
                                    None => span.none { "–" },
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn about(visitor: &Visitor, tracked: &Tracked) -> Markup {
    let batch = &tracked.batch;
    let maybe =
        |value: Option<&str>| known(value.filter(|value| !value.is_empty()).map(|value| text(value, 200)));
    let at = |seconds: Option<i64>| known(seconds.and_then(from_seconds).map(moment));
    let mut rows = vec![
        ("Id", text(&batch.id, 400)),
        (
            "Provider",
            html! { a href=(visitor.link(&format!("/?provider={}", tracked.key.provider))) { (tracked.key.provider) } " (" (text(&tracked.kind, 40)) ")" },
        ),
        ("Model", maybe(batch.model.as_deref())),
        ("Endpoint", maybe(Some(&batch.endpoint))),
        (
            "Status",
            html! { (batch.status.as_str()) @if let Some(word) = &tracked.provider_status { ", the provider says " (text(word, 80)) } },
        ),
        ("Outcome", maybe(tracked.outcome().map(Outcome::as_str))),
        ("Created", at(Some(batch.created_at))),
        ("Ended", at(batch.ended_at())),
    ];
    if let Some(seconds) = tracked.duration_seconds() {
        rows.push(("Took", html! { (human(Duration::from_secs(seconds.unsigned_abs()))) }));
    }
    if let Some(counts) = batch.request_counts {
        rows.push(("Requests", html! { (number(counts.completed)) " ok · " (number(counts.failed)) " failed · " (number(counts.total)) " in all" }));
    }
    if let Some(usage) = batch.usage {
        rows.push(("Tokens", html! {
            (number(usage.input_tokens)) " in"
            @if usage.input_tokens_details.cached_tokens > 0 { " (" (number(usage.input_tokens_details.cached_tokens)) " cached)" }
            " · " (number(usage.output_tokens)) " out"
            @if usage.output_tokens_details.reasoning_tokens > 0 { " (" (number(usage.output_tokens_details.reasoning_tokens)) " reasoning)" }
        }));
    }
    if let Some(cost) = &tracked.cost {
        rows.push((
            "Cost",
            html! {
                (cost.amount().shown()) ": " (cost.input.shown()) " in · " (cost.output.shown()) " out, by "
                (text(&cost.priced_by(), 120))
            },
        ));
    }
    rows.push(("Owner", maybe(tracked.owner.as_deref())));
    if !tracked.labels.is_empty() {
        rows.push(("Labels", html! { @for (key, value) in &tracked.labels { span.label { (text(&format!("{key}={value}"), 120)) } " " } }));
    }
    for (name, file) in [
        ("Input file", Some(&batch.input_file_id)),
        ("Output file", batch.output_file_id.as_ref()),
        ("Error file", batch.error_file_id.as_ref()),
    ] {
        if let Some(file) = file.filter(|file| !file.is_empty()) {
            rows.push((name, text(file, 300)));
        }
    }
    if let Some(until) = tracked.results_expire_at {
        rows.push(("Results kept until", moment(until)));
    }
    if let Some(saved) = &tracked.results {
        rows.push(("Saved results", html! { (text(&saved.path, 300)) ", " (number(saved.lines)) " lines" }));
    }
    if let Some(error) = &tracked.results_error {
        rows.push(("Download", html! { span.bad { (text(error, 400)) } }));
    }
    facts(&rows)
}

fn checks(tracked: &Tracked, reasons: &[String], now: Timestamp) -> Markup {
    let maybe = |at: Option<Timestamp>| known(at.map(|at| when(at, now)));
    html! {
        (facts(&[
            ("Next check", maybe(tracked.next_poll_at.map(|at| at.max(now)).filter(|_| tracked.untracked_at.is_none()))),
            ("Last check", maybe(tracked.last_polled_at)),
            ("Expected end", known(tracked.eta.filter(|_| tracked.is_active()).map(|eta| html! {
                (when(eta.at.max(now), now)) ", between " (instant(eta.earliest.max(now))) " and " (instant(eta.latest.max(now)))
            }))),
            ("Deadline", maybe(tracked.deadline)),
            ("Failures in a row", html! { (tracked.failures) }),
        ]))
        @if let Some(error) = &tracked.last_error { p.bad { "Last failure: " (text(error, 600)) } }
        @if !reasons.is_empty() {
            h3 { "Why then" }
            ul { @for reason in reasons { li { (text(reason, 300)) } } }
        }
    }
}

fn errors(visitor: &Visitor, tracked: &Tracked, failures: Option<&Markup>) -> Markup {
    let key = tracked.key.to_string();
    let failed = tracked.batch.request_counts.map_or(0, |counts| counts.failed);
    let own = tracked.batch.errors.as_ref().map(|errors| errors.data.as_slice()).unwrap_or_default();
    let may_have_failed =
        tracked.batch.status.is_terminal() && (failed > 0 || tracked.batch.error_file_id.is_some());
    html! {
        @if !own.is_empty() || may_have_failed || failures.is_some() {
            section #errors aria-labelledby="errors-title" {
                h2 #errors-title { "Errors" }
                @if !own.is_empty() {
                    ul.errors { @for error in own.iter().take(20) { li { (text(&error.to_string(), 500)) } } }
                    @if own.len() > 20 { p { "… and " (own.len() - 20) " more" } }
                }
                @match failures {
                    Some(failures) => (failures),
                    None => {
                        @if may_have_failed {
                            p { @if failed > 0 { (number(failed)) " requests failed. " } "What went wrong with each request is in the error file at the provider." }
                            (button(visitor, "failures", "Fetch the first failed requests", &[("batch", &key)]))
                        }
                    },
                }
            }
        }
    }
}

fn told(visitor: &Visitor, deliveries: &[(Delivery, Vec<Attempt>)], more: bool, now: Timestamp) -> Markup {
    html! {
        section #deliveries data-part aria-labelledby="deliveries-title" {
            h2 #deliveries-title { "Deliveries" }
            @if deliveries.is_empty() { p.empty { "No webhook was told of it." } }
            @for (delivery, attempts) in deliveries { (whole_delivery(visitor, delivery, attempts, now)) }
            @if more { p { "Older ones are on the page of " a href=(visitor.link("/deliveries")) { "all deliveries" } "." } }
        }
    }
}

/// A delivery with each of its attempts: when, how long, the code, and what the receiver answered.
pub(super) fn whole_delivery(
    visitor: &Visitor,
    delivery: &Delivery,
    attempts: &[Attempt],
    now: Timestamp,
) -> Markup {
    html! {
        article.delivery {
            h3 {
                (delivery.webhook) " · " code { (delivery.kind.as_str()) } " " (state(delivery.state))
            }
            div.actions {
                @if !matches!(delivery.state, DeliveryState::Inflight | DeliveryState::Held) {
                    (button(visitor, "resend", "Send again", &[("id", &delivery.pk.to_string())]))
                }
            }
            p.small {
                "Delivery " (delivery.pk) " · " code { (delivery.event_id) } " · recorded " (when(delivery.created_at, now))
                @if let Some(at) = delivery.next_attempt_at { " · next attempt " (due(at, now)) }
            }
            @if let Some(error) = &delivery.last_error { p.bad { (text(error, 400)) } }
            @if !attempts.is_empty() { (attempt_table(attempts)) }
        }
    }
}

fn attempt_table(attempts: &[Attempt]) -> Markup {
    html! {
        table.rows {
            caption { "Attempts" }
            thead { tr { th scope="col" { "Attempt" } th scope="col" { "Began" } th scope="col" { "Took" } th scope="col" { "Code" } th scope="col" { "Outcome" } th scope="col" { "Answer" } } }
            tbody {
                @for attempt in attempts {
                    tr {
                        th scope="row" data-label="Attempt" { (attempt.number) " " small { (attempt.trigger.as_str()) } }
                        td data-label="Began" { (moment(attempt.started_at)) }
                        td data-label="Took" { @match attempt.finished_at { Some(at) => (human(crate::domain::time::since(attempt.started_at, at))), None => "–" } }
                        td data-label="Code" { @match attempt.http_status { Some(code) => (code), None => "–" } }
                        td data-label="Outcome" { (attempt.outcome.as_deref().unwrap_or("under way")) @if let Some(error) = &attempt.error { ": " (text(error, 200)) } }
                        td data-label="Answer" { @match &attempt.excerpt { Some(excerpt) => code.excerpt { (text(excerpt, 300)) }, None => "–" } }
                    }
                }
            }
        }
    }
}

/// Where a delivery stands.
pub(super) fn state(state: DeliveryState) -> Markup {
    let (class, sign) = match state {
        DeliveryState::Delivered => ("good", "✓"),
        DeliveryState::Dead => ("bad", "✗"),
        DeliveryState::Held => ("warn", "!"),
        DeliveryState::Pending | DeliveryState::Inflight => ("live", "●"),
    };
    badge(class, sign, state.as_str())
}

/// A word of a shell's command line.
fn shell_word(word: &str) -> String {
    let shown = super::pieces::cut(word, 400);
    if shown.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:/@".contains(c)) {
        return shown;
    }
    format!("'{}'", shown.replace('\'', r"'\''"))
}
