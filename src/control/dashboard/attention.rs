//! What needs a person, in one place: the worst first, each with what can be done about it.

use super::pieces::{button, text, when_text};
use super::visitor::Visitor;
use crate::control::api::StatusReport;
use crate::control::respond::Answer;
use crate::control::service::Service;
use crate::store::batches::BatchFilter;
use crate::webhook::text::number;
use jiff::Timestamp;
use maud::{Markup, html};

/// One thing that needs a person.
pub(super) struct Concern {
    is_bad: bool,
    what: Markup,
    actions: Markup,
}

impl Concern {
    fn bad(what: Markup, actions: Markup) -> Self {
        Self { is_bad: true, what, actions }
    }

    fn odd(what: Markup, actions: Markup) -> Self {
        Self { is_bad: false, what, actions }
    }
}

/// What there is to be concerned about, the worst first.
pub(super) async fn concerns(
    service: &Service,
    visitor: &Visitor,
    status: &StatusReport,
    now: Timestamp,
) -> Answer<Vec<Concern>> {
    let none = || html! {};
    let mut all = Vec::new();
    all.extend(
        status
            .troubles
            .iter()
            .map(|trouble| Concern::bad(html! { "Not ready: " (text(trouble, 400)) }, none())),
    );
    if let Some(error) = &status.reload_error {
        all.push(Concern::bad(
            html! { "The new configuration is refused, the old one stays: " (text(error, 400)) },
            none(),
        ));
    }
    all.extend(of_providers(visitor, status, now));
    all.extend(of_webhooks(visitor, status, now));
    let stuck = BatchFilter { stuck_only: true, limit: Some(10), ..BatchFilter::default() };
    for (_, tracked) in service.store.list(stuck).await?.0 {
        let why = if tracked.lost_since.is_some() {
            "the provider no longer knows it"
        } else {
            "it makes no progress"
        };
        all.push(Concern::odd(
            html! { a href=(visitor.link(&tracked.key.page())) { (text(tracked.name.as_ref().unwrap_or(&tracked.key.id), 60)) } ": " (why) },
            none(),
        ));
    }
    for submission in &status.submissions {
        all.push(Concern::odd(
            html! {
                "The answer to creating a batch at " b { (submission.provider) } " was lost (" (text(&submission.file_name, 60)) ", "
                (when_text(Some(&submission.begun_at), now)) "); it is being searched for"
            },
            none(),
        ));
    }
    for (provider, count) in &status.orphans {
        all.push(Concern::odd(
            html! { b { (provider) } " is not in the configuration: " (number(*count)) " batches are not polled" },
            none(),
        ));
    }
    for (webhook, count) in &status.removed_webhooks {
        all.push(Concern::odd(
            html! { b { (webhook) } " is not in the configuration: " (number(*count)) " deliveries are held" },
            none(),
        ));
    }
    for batch in status.failed_downloads.iter().take(5) {
        all.push(Concern::odd(
            html! { "The results of " (text(batch, 80)) " could not be downloaded as they should be" },
            none(),
        ));
    }
    if !status.warnings.is_empty() {
        let count = status.warnings.len();
        let said = html! {
            details {
                summary { (count) @if count == 1 { " warning" } @else { " warnings" } " about the configuration" }
                ul { @for warning in &status.warnings { li { (text(warning, 300)) } } }
            }
        };
        all.push(Concern::odd(said, none()));
    }
    all.sort_by_key(|concern| !concern.is_bad);
    Ok(all)
}

/// Providers that refuse the key, do not answer, or want to be left alone.
fn of_providers(visitor: &Visitor, status: &StatusReport, now: Timestamp) -> Vec<Concern> {
    let mut all = Vec::new();
    for provider in &status.providers {
        let what = match provider.health.as_str() {
            "refused" => "key refused",
            "unreachable" => "does not answer",
            "held" => "wants to be left alone",
            _ => continue,
        };
        let said = html! {
            b { (provider.name) } ": " (what)
            @if let Some(error) = &provider.last_error { " (" (text(error, 200)) ")" }
            " · " (number(provider.active)) " active"
            @if provider.held_until.is_some() { " · until " (when_text(provider.held_until.as_deref(), now)) }
            @if provider.last_success_at.is_some() { " · last answer " (when_text(provider.last_success_at.as_deref(), now)) }
        };
        let actions = button(visitor, "check", "Check", &[("provider", &provider.name)]);
        let is_bad = provider.health != "held";
        all.push(Concern { is_bad, what: said, actions });
    }
    all
}

/// Webhooks that do not take what they are sent, or did not.
fn of_webhooks(visitor: &Visitor, status: &StatusReport, now: Timestamp) -> Vec<Concern> {
    let mut all = Vec::new();
    for webhook in &status.webhooks {
        let owed: u64 =
            ["pending", "inflight", "held"].iter().filter_map(|state| webhook.backlog.get(*state)).sum();
        let dead = webhook.backlog.get("dead").copied().unwrap_or_default();
        let troubled = matches!(webhook.health.as_str(), "disabled" | "failing" | "paused");
        if !troubled && dead == 0 {
            continue;
        }
        let said = html! {
            b { (webhook.name) }
            @if troubled {
                ": " (webhook.health)
                @if let Some(reason) = &webhook.reason { " (" (text(reason, 200)) ")" }
                @if webhook.failures > 0 { " · " (webhook.failures) " failures in a row" }
                @if webhook.failing_since.is_some() { " · since " (when_text(webhook.failing_since.as_deref(), now)) }
                @if let Some(error) = webhook.last_error.as_ref().filter(|_| webhook.reason.is_none()) {
                    " · last " (when_text(webhook.last_failure_at.as_deref(), now)) ": " (text(error, 200))
                }
            }
            " · " (number(owed)) " owed"
            @if dead > 0 { " · " a href=(visitor.link(&format!("/deliveries?state=dead&webhook={}", webhook.name))) { (number(dead)) " given up" } }
        };
        let name = [("webhook", webhook.name.as_str())];
        let actions = html! {
            (button(visitor, "test", "Test", &name))
            @if webhook.health == "disabled" { (button(visitor, "enable", "Enable", &name)) }
            @if dead > 0 { (button(visitor, "resend-dead", "Send the dead again", &name)) }
        };
        all.push(Concern { is_bad: webhook.health == "disabled" || dead > 0, what: said, actions });
    }
    all
}

/// The box at the top; nothing if all is well.
pub(super) fn show(concerns: &[Concern]) -> Markup {
    html! {
        @if concerns.is_empty() {
            section #attention.well data-part aria-label="Attention" { p { span aria-hidden="true" { "✓ " } "Nothing needs attention." } }
        } @else {
            section #attention.attention data-part aria-labelledby="attention-title" {
                h2 #attention-title { "Needs attention (" (concerns.len()) ")" }
                ul {
                    @for concern in concerns {
                        li.bad[concern.is_bad] {
                            span.sign aria-hidden="true" { @if concern.is_bad { "✗" } @else { "!" } }
                            div { (concern.what) }
                            div.actions { (concern.actions) }
                        }
                    }
                }
            }
        }
    }
}
