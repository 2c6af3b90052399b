//! The first page: what needs attention, the batches, how webhooks and providers fare, what has happened lately; and
//! the stream that says when pages are out of date.

use super::attention;
use super::batch_list::{BatchList, Wish};
use super::pieces::{bytes, facts, health, known, text, when, when_text, whole};
use super::shell::{self, Page};
use super::visitor::Visitor;
use super::{providers, webhooks};
use crate::control::api::{CostReport, StatusReport};
use crate::control::query::Query;
use crate::control::respond::{Answer, Shared};
use crate::control::service::{EventQuery, Service};
use crate::control::stream;
use crate::domain::cost::Usd;
use crate::domain::duration::human;
use crate::domain::time::earlier;
use crate::domain::tracked::BatchKey;
use crate::store::figures;
use crate::webhook::text::number;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use serde_json::{Number, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(super) async fn page(State(shared): State<Shared>, visitor: Visitor, query: Query) -> Response {
    let page = overview(&shared.service, &visitor, &query).await;
    shell::dressed(&shared, &visitor, page)
}

/// The numbers of new events, for the script that makes pages anew.
pub(super) async fn live(
    State(shared): State<Shared>,
    _visitor: Visitor,
    headers: HeaderMap,
    query: Query,
) -> Response {
    let resumed = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let stream = async {
        let after = resumed.or(query.number("after")?).unwrap_or(0);
        stream::events(&shared, None, after).await
    };
    stream.await.unwrap_or_else(axum::response::IntoResponse::into_response)
}

async fn overview(service: &Service, visitor: &Visitor, query: &Query) -> Answer<Page> {
    let now = service.clock.now();
    let after = service.store.last_sequence().await?;
    let wish = Wish::read(query)?;
    let status = service.status().await?;
    let batches = BatchList::read(service, wish).await?;
    let concerns = attention::concerns(service, visitor, &status, now).await?;
    let mut names: BTreeSet<String> = status.providers.iter().map(|provider| provider.name.clone()).collect();
    names.extend(status.orphans.keys().cloned());
    let body = html! {
        h1.summary {
            (number(status.active)) " active"
            @for (word, count) in ended_of_late(service, now).await? { " · " (number(count)) " " (word) }
            @if status.late_seconds > 60 { " · " span.warn { "polls are " (human(Duration::from_secs(status.late_seconds))) " late" } }
        }
        (attention::show(&concerns))
        (batches.show(visitor, &names, now))
        div.columns {
            (webhooks::short(service, visitor, &status.webhooks, now).await?)
            (providers::short(service, visitor, now)?)
            (events(service, visitor, now).await?)
            (daemon(service, &status, now))
        }
    };
    Ok(Page { title: "Batches".to_owned(), section: "/", body, after: Some(after) })
}

/// What ended within a day, by how it ended.
async fn ended_of_late(service: &Service, now: Timestamp) -> Answer<Vec<(String, u64)>> {
    let day = earlier(now, Duration::from_hours(24));
    let mut counts: Vec<(String, u64)> = Vec::new();
    for ends in service.store.ends_by_day(day).await? {
        let word = format!("{} in 24 h", ends.status);
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += ends.count,
            None => counts.push((word, ends.count)),
        }
    }
    Ok(counts)
}

async fn events(service: &Service, visitor: &Visitor, now: Timestamp) -> Answer<Markup> {
    let query = EventQuery { newest: Some(12), ..EventQuery::default() };
    let newest = service.events(None, 0, query).await?.data;
    Ok(html! {
        section #events data-part aria-labelledby="events-title" {
            h2 #events-title { "Recent events" }
            @if newest.is_empty() { p.empty { "Nothing has happened yet." } }
            ol.events {
                @for event in newest.iter().rev() {
                    li {
                        (when_text(event["timestamp"].as_str(), now)) " "
                        code { (event["type"].as_str().unwrap_or("event")) } " "
                        (subject(visitor, &event["data"]))
                    }
                }
            }
        }
    })
}

/// What an event is about.
pub(super) fn subject(visitor: &Visitor, data: &Value) -> Markup {
    let word = |key: &str| data[key].as_str();
    if let (Some(provider), Some(id)) = (word("provider"), word("id")) {
        let key = BatchKey { provider: provider.to_owned(), id: id.to_owned() };
        let named = word("name").unwrap_or(id);
        return html! { a href=(visitor.link(&key.page())) { (text(named, 60)) } };
    }
    text(word("webhook").or(word("provider")).unwrap_or_default(), 60)
}

/// What the ended batches of this month cost, at each provider and for each label.
fn cost_of_month(cost: &CostReport) -> Markup {
    let shown = |amount: &Number| Usd::read(&amount.to_string()).unwrap_or_default().shown();
    let shares = |of: &BTreeMap<String, Number>| {
        let mut shares: Vec<(&String, &Number)> = of.iter().collect();
        shares.sort_by_key(|(_, amount)| std::cmp::Reverse(Usd::read(&amount.to_string())));
        let left_out = shares.len().saturating_sub(MAX_SHARES);
        html! {
            @for (name, amount) in shares.into_iter().take(MAX_SHARES) { li { (text(name, 60)) " " (shown(amount)) } }
            @if left_out > 0 { li { (left_out) " more" } }
        }
    };
    html! {
        h3 { "Cost in " (cost.month) ": " (shown(&cost.amount)) }
        ul { (shares(&cost.providers)) }
        @if !cost.labels.is_empty() { ul { (shares(&cost.labels)) } }
    }
}

/// Of providers, and of labels.
const MAX_SHARES: usize = 6;

fn daemon(service: &Service, status: &StatusReport, now: Timestamp) -> Markup {
    let free = service
        .live()
        .ok()
        .and_then(|live| figures::free_space(&live.config().state.dir))
        .map_or_else(|| "unknown".to_owned(), |free| format!("{} free", bytes(free)));
    let backup = status.last_backup_at.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
    let jobs = status.jobs.iter().filter_map(|job| {
        let at: Timestamp = job["finished_at"].as_str()?.parse().ok()?;
        Some((job["name"].as_str()?.to_owned(), at, job["error"].as_str().map(str::to_owned)))
    });
    html! {
        section #daemon data-part aria-labelledby="daemon-title" {
            h2 #daemon-title { "This daemon" }
            (facts(&[
                ("Version", html! { (status.version) }),
                ("Ready", health(if status.ready { "ok" } else { "not ready" })),
                ("Up for", known(status.uptime_seconds.map(|seconds| html! { (human(whole(Duration::from_secs(seconds)))) }))),
                ("State", html! { (text(&status.state_dir, 200)) " · " (free) }),
                ("Last backup", backup.map_or_else(|| html! { "none yet" }, |at| when(at, now))),
                ("Events", html! { (number(status.events.unsigned_abs())) }),
            ]))
            @if let Some(cost) = status.cost.as_ref().filter(|cost| !cost.providers.is_empty()) { (cost_of_month(cost)) }
            @for (name, at, error) in jobs {
                p { "Job " (text(&name, 60)) ": " (when(at, now)) @if let Some(error) = error { ", " span.bad { (text(&error, 200)) } } }
            }
        }
    }
}
