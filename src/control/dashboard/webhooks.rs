//! The page of webhooks: whether each takes what it is sent, and what it is owed.

use super::actions::resend_dead_button;
use super::pieces::{button, facts, health, known, text, when, when_text};
use super::shell::{self, Page};
use super::visitor::Visitor;
use crate::control::api::WebhookReport;
use crate::control::respond::{Answer, Shared};
use crate::control::service::Service;
use crate::domain::time::earlier;
use crate::store::figures::Share;
use crate::webhook::text::number;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) async fn page(State(shared): State<Shared>, visitor: Visitor) -> Response {
    let page = webhooks(&shared.service, &visitor).await;
    shell::dressed(&shared, &visitor, page)
}

/// What is counted of webhooks.
struct Figures {
    of_a_day: BTreeMap<String, Share>,
    oldest: BTreeMap<String, Timestamp>,
}

impl Figures {
    async fn read(service: &Service, now: Timestamp) -> Answer<Self> {
        let day = earlier(now, Duration::from_hours(24));
        let of_a_day = service.store.delivered_since(day).await?;
        let backlogs = service.store.backlogs().await?.into_iter();
        Ok(Self {
            of_a_day,
            oldest: backlogs.filter_map(|(name, backlog)| Some((name, backlog.oldest?))).collect(),
        })
    }

    fn success(&self, webhook: &str) -> Markup {
        let share = self.of_a_day.get(webhook).filter(|share| share.all > 0);
        known(share.map(|share| {
            let percent = share.delivered * 100 / share.all;
            html! { (percent) " % of " (number(share.all)) }
        }))
    }

    fn oldest(&self, webhook: &str, now: Timestamp) -> Markup {
        known(self.oldest.get(webhook).map(|at| when(*at, now)))
    }
}

fn owed(report: &WebhookReport) -> u64 {
    ["pending", "inflight", "held"].iter().filter_map(|state| report.backlog.get(*state)).sum()
}

/// How webhooks fare, in short.
pub(super) async fn short(
    service: &Service,
    visitor: &Visitor,
    reports: &[WebhookReport],
    now: Timestamp,
) -> Answer<Markup> {
    let figures = Figures::read(service, now).await?;
    Ok(html! {
        section #webhooks data-part aria-labelledby="webhooks-title" {
            h2 #webhooks-title { a href=(visitor.link("/webhooks")) { "Webhooks" } }
            @if reports.is_empty() { p.empty { "None is configured." } } @else {
                table.rows {
                    caption { "Delivered of what was recorded in 24 h, and what is owed" }
                    thead { tr { th scope="col" { "Webhook" } th scope="col" { "Health" } th scope="col" { "24 h" } th scope="col" { "Owed" } th scope="col" { "Oldest" } } }
                    tbody {
                        @for report in reports {
                            tr {
                                th scope="row" data-label="Webhook" { (report.name) }
                                td data-label="Health" { (health(&report.health)) }
                                td data-label="24 h" { (figures.success(&report.name)) }
                                td data-label="Owed" { (number(owed(report))) }
                                td data-label="Oldest" { (figures.oldest(&report.name, now)) }
                            }
                        }
                    }
                }
            }
        }
    })
}

async fn webhooks(service: &Service, visitor: &Visitor) -> Answer<Page> {
    let now = service.clock.now();
    let after = service.store.last_sequence().await?;
    let reports = service.webhooks().await?;
    let figures = Figures::read(service, now).await?;
    let body = html! {
        h1 { "Webhooks" }
        @if reports.is_empty() { p.empty { "None is configured." } }
        @for report in &reports {
            article.card data-part id=(format!("webhook-{}", report.name)) {
                h2 { (report.name) " " (health(&report.health)) }
                (buttons(visitor, report))
                @if let Some(reason) = &report.reason { p.bad { (text(reason, 400)) } }
                @if let Some(error) = &report.last_error {
                    p.bad { "Last failure, " (when_text(report.last_failure_at.as_deref(), now)) ": " (text(error, 400)) }
                }
                (facts(&[
                    ("Kind", html! { (report.kind) @if report.signed { ", signed" } @else { ", not signed" } }),
                    ("Goes to", text(&report.target, 200)),
                    ("Events", html! { (report.events.join(", ")) @if report.severity != "info" { ", from " (report.severity) " on" } @if report.on_request { ", only for batches that name it" } }),
                    ("Delivered in 24 h", figures.success(&report.name)),
                    ("Owed", html! {
                        a href=(visitor.link(&format!("/deliveries?webhook={}", report.name))) { (number(owed(report))) }
                        @for (state, count) in &report.backlog { " · " (number(*count)) " " (state) }
                    }),
                    ("Oldest owed", figures.oldest(&report.name, now)),
                    ("Last success", when_text(report.last_success_at.as_deref(), now)),
                    ("Failures in a row", html! { (report.failures) @if report.failing_since.is_some() { ", since " (when_text(report.failing_since.as_deref(), now)) } }),
                    ("Paused until", when_text(report.paused_until.as_deref(), now)),
                ]))
            }
        }
    };
    Ok(Page { title: "Webhooks".to_owned(), section: "/webhooks", body, after: Some(after) })
}

fn buttons(visitor: &Visitor, report: &WebhookReport) -> Markup {
    let name = [("webhook", report.name.as_str())];
    html! {
        div.actions {
            (button(visitor, "test", "Send a test", &name))
            @if report.health == "disabled" { (button(visitor, "enable", "Enable", &name)) }
            @else { (button(visitor, "disable", "Disable", &name)) }
            @if report.backlog.get("dead").is_some_and(|count| *count > 0) { (resend_dead_button(visitor, Some(&report.name))) }
            a.button href=(visitor.link(&format!("/deliveries?webhook={}", report.name))) { "Its deliveries" }
        }
    }
}
