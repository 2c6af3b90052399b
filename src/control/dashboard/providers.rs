//! The page of providers: whether each answers, how its last checks went, what it is asked how often.

use super::charts::{Bar, bars};
use super::pieces::{button, facts, health, instant, known, text, when_text, whole};
use super::shell::{self, Page};
use super::visitor::Visitor;
use crate::control::reports::provider_report;
use crate::control::respond::{Answer, Shared};
use crate::control::service::Service;
use crate::domain::duration::{compact, human};
use crate::engine::poller::Snapshot;
use crate::webhook::text::number;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};

pub(super) async fn page(State(shared): State<Shared>, visitor: Visitor) -> Response {
    let page = providers(&shared.service, &visitor).await;
    shell::dressed(&shared, &visitor, page)
}

/// How providers fare, in short.
pub(super) fn short(service: &Service, visitor: &Visitor, now: Timestamp) -> Answer<Markup> {
    let snapshots = service.live()?.engine.snapshot();
    Ok(html! {
        section #providers data-part aria-labelledby="providers-title" {
            h2 #providers-title { a href=(visitor.link("/providers")) { "Providers" } }
            @if snapshots.is_empty() { p.empty { "None is configured." } } @else {
                table.rows {
                    caption { "The last 48 checks of each since the start, the newest on the right" }
                    thead { tr { th scope="col" { "Provider" } th scope="col" { "Health" } th scope="col" { "Active" } th scope="col" { "Checks" } th scope="col" { "Late" } } }
                    tbody {
                        @for snapshot in snapshots {
                            @let late = human(whole(snapshot.late));
                            @let checks = checks(&snapshot);
                            @let report = provider_report(snapshot);
                            tr {
                                th scope="row" data-label="Provider" { (report.name) }
                                td data-label="Health" { (health(&report.health)) @if report.held_until.is_some() { " until " (when_text(report.held_until.as_deref(), now)) } }
                                td data-label="Active" { (number(report.active)) }
                                td data-label="Checks" { (checks) }
                                td data-label="Late" { (late) }
                            }
                        }
                    }
                }
            }
        }
    })
}

async fn providers(service: &Service, visitor: &Visitor) -> Answer<Page> {
    let now = service.clock.now();
    let after = service.store.last_sequence().await?;
    let config = service.live()?.config();
    let snapshots = service.live()?.engine.snapshot();
    let body = html! {
        h1 { "Providers" }
        div.actions { (button(visitor, "check", "Check all", &[])) }
        @if snapshots.is_empty() { p.empty { "None is configured." } }
        @for snapshot in snapshots {
            @let checks = checks(&snapshot);
            @let polls = snapshot.polls.clone();
            @let (due, late) = (snapshot.due, whole(snapshot.late));
            @let report = provider_report(snapshot);
            article.card data-part id=(format!("provider-{}", report.name)) {
                h2 { (report.name) " " (health(&report.health)) }
                div.actions {
                    (button(visitor, "check", "Check", &[("provider", &report.name)]))
                    a.button href=(visitor.link(&format!("/?provider={}&status=active", report.name))) { "Its batches" }
                }
                (checks)
                p.small { "The last 48 checks since the start, the newest on the right; the height says how long each took." }
                (facts(&[
                    ("Kind", html! { (report.kind) }),
                    ("Address", text(&report.base_url, 200)),
                    ("Key", html! { @if report.key { "set" } @else { "none" } }),
                    ("Active batches", html! { (number(report.active)) ", " (number(due)) " due" }),
                    ("Late", html! { (human(late)) }),
                    ("In flight", html! { (number(report.in_flight)) }),
                    ("Last answer", when_text(report.last_success_at.as_deref(), now)),
                    ("Left alone until", when_text(report.held_until.as_deref(), now)),
                    ("Requests since the start", html! {
                        @if polls.is_empty() { "none" }
                        @for (place, (result, count)) in polls.iter().enumerate() { @if place > 0 { ", " } (number(*count)) " " (result) }
                    }),
                    ("Polled every", known(config.providers.get(&report.name).map(|provider| {
                        html! { (compact(provider.polling.min_interval)) " to " (compact(provider.polling.max_interval)) }
                    }))),
                ]))
                @if let Some(error) = &report.last_error { p.bad { "Last failure: " (text(error, 400)) } }
            }
        }
    };
    Ok(Page { title: "Providers".to_owned(), section: "/providers", body, after: Some(after) })
}

/// The last checks of an account, as bars.
fn checks(snapshot: &Snapshot) -> Markup {
    let failed = snapshot.recent.iter().filter(|check| check.result != "ok").count();
    let said = match snapshot.recent.last() {
        None => "no check since the start".to_owned(),
        Some(last) => format!(
            "{} of the last {} checks failed; the newest: {}, {}",
            failed,
            snapshot.recent.len(),
            last.result,
            instant(last.at)
        ),
    };
    let shown = snapshot.recent.iter().map(|check| Bar {
        is_good: check.result == "ok",
        height: check.took.as_secs_f64(),
        said: format!("{}: {}, {}", instant(check.at), check.result, human(check.took)),
    });
    bars(&shown.collect::<Vec<Bar>>(), &said)
}
