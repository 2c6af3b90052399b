//! The page of durations: how long batches took, what is usual, and how they ended day by day.

use super::charts::{Point, days, scatter};
use super::pieces::{cut, text};
use super::shell::{self, Page};
use super::visitor::Visitor;
use crate::control::respond::{Answer, Shared};
use crate::control::service::Service;
use crate::domain::duration::human;
use crate::domain::hazard::Usual;
use crate::domain::history::{Class, Stage};
use crate::domain::status::Status;
use crate::domain::time::earlier;
use crate::domain::tracked::BatchKey;
use crate::store::figures::Took;
use crate::webhook::text::number;
use axum::extract::State;
use axum::response::Response;
use maud::html;
use std::collections::BTreeMap;
use std::time::Duration;

/// Batches that are looked back on.
const MOST: u32 = 2000;
/// Pictures on the page; what there are more of has fewer batches.
const MOST_PICTURES: usize = 12;
/// Days of the picture of ends.
const DAYS: i64 = 30;

pub(super) async fn page(State(shared): State<Shared>, visitor: Visitor) -> Response {
    let page = durations(&shared.service, &visitor).await;
    shell::dressed(&shared, &visitor, page)
}

/// Batches of one provider and model.
struct Group {
    provider: String,
    model: Option<String>,
    took: Vec<Took>,
    usual: Option<Usual>,
}

async fn durations(service: &Service, visitor: &Visitor) -> Answer<Page> {
    let now = service.clock.now();
    let after = service.store.last_sequence().await?;
    let since = earlier(now, Duration::from_hours(24 * u64::try_from(DAYS).unwrap_or_default()));
    let ends = service.store.ends_by_day(since).await?;
    let mut groups: BTreeMap<(String, Option<String>), Vec<Took>> = BTreeMap::new();
    for took in service.store.newest_durations(MOST).await? {
        groups.entry((took.provider.clone(), took.model.clone())).or_default().push(took);
    }
    let engine = &service.live()?.engine;
    let mut groups: Vec<Group> = groups
        .into_iter()
        .map(|((provider, model), took)| {
            let class = Class {
                provider: provider.clone(),
                stage: Stage::Work,
                endpoint: took.first().map(|took| took.endpoint.clone()),
                model: Some(model.clone().unwrap_or_default()),
                size: None,
            };
            Group { usual: engine.usual(&class), provider, model, took }
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.took.len()));
    let more = groups.len().saturating_sub(MOST_PICTURES);
    let body = html! {
        h1 { "Durations" }
        section #ends data-part aria-labelledby="ends-title" {
            h2 #ends-title { "How batches ended, day by day" }
            @if ends.is_empty() { p.empty { "No batch has ended in the last " (DAYS) " days." } }
            @else { (days(&ends, now.as_second().div_euclid(86_400), DAYS)) }
        }
        @if groups.is_empty() { p.empty { "How long batches take shows here once some have ended." } }
        div.columns { @for group in groups.iter().take(MOST_PICTURES) {
            @let name = group.model.as_deref().map_or_else(|| group.provider.clone(), |model| format!("{} · {}", group.provider, cut(model, 80)));
            section.card {
                h2 { (text(&name, 160)) }
                (scatter(&points(&group.took), usual_band(group), &format!("How long batches of {name} took, by when they ended")))
                p {
                    (number(group.took.len() as u64)) @if group.took.len() == 1 { " batch" } @else { " batches" }
                    @if let Some(middle) = quantile(&group.took, 50) { ", half of them within " (human(middle)) }
                    @if let Some(most) = quantile(&group.took, 90) { ", nine in ten within " (human(most)) }
                    @if let Some(usual) = group.usual { ". Learnt as usual: " b { (human(Duration::from_secs(usual.seconds))) } " (from " (number(usual.count as u64)) " ends)" }
                    "."
                }
                details {
                    summary { "The newest as a table" }
                    table.rows {
                        caption { "The newest ten of " (text(&name, 160)) }
                        thead { tr { th scope="col" { "Batch" } th scope="col" { "Status" } th scope="col" { "Took" } } }
                        tbody {
                            @for took in group.took.iter().take(10) {
                                @let key = BatchKey { provider: took.provider.clone(), id: took.id.clone() };
                                tr {
                                    th scope="row" data-label="Batch" { a href=(visitor.link(&key.page())) { (text(took.name.as_ref().unwrap_or(&took.id), 60)) } }
                                    td data-label="Status" { (took.status.as_str()) }
                                    td data-label="Took" { (human(Duration::from_secs(took.seconds.unsigned_abs()))) }
                                }
                            }
                        }
                    }
                }
            }
        }
        }
        @if more > 0 { p { (more) " more models with fewer batches are not drawn." } }
    };
    Ok(Page { title: "Durations".to_owned(), section: "/durations", body, after: Some(after) })
}

fn points(took: &[Took]) -> Vec<Point> {
    let seconds = |took: &Took| u32::try_from(took.seconds.max(1)).unwrap_or(u32::MAX);
    took.iter()
        .map(|took| Point {
            at: took.ended_at,
            value: f64::from(seconds(took)),
            is_good: took.status == Status::Completed,
        })
        .collect()
}

/// What eight in ten kept within, drawn behind the points.
fn usual_band(group: &Group) -> Option<(f64, f64, f64)> {
    let middle = match group.usual {
        Some(usual) => Duration::from_secs(usual.seconds),
        None => quantile(&group.took, 50)?,
    };
    let (low, high) = (quantile(&group.took, 10)?, quantile(&group.took, 90)?);
    Some((low.as_secs_f64().max(1.0), middle.as_secs_f64().max(1.0), high.as_secs_f64().max(1.0)))
}

/// What so many in a hundred of the completed ones kept within; `None`: too few to say.
fn quantile(took: &[Took], percent: usize) -> Option<Duration> {
    let mut seconds: Vec<u64> = took
        .iter()
        .filter(|took| took.status == Status::Completed)
        .map(|took| took.seconds.unsigned_abs())
        .collect();
    if seconds.len() < 5 {
        return None;
    }
    seconds.sort_unstable();
    Some(Duration::from_secs(seconds[(seconds.len() - 1) * percent / 100]))
}
