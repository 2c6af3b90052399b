//! The list of batches: what is shown of it, and how a reader turns its pages.

use super::pieces::{cut, progress, status, text, when};
use super::visitor::Visitor;
use crate::control::api_error::ApiError;
use crate::control::query::Query;
use crate::control::respond::Answer;
use crate::control::service::Service;
use crate::domain::status::Status;
use crate::domain::time::from_seconds;
use crate::domain::tracked::Tracked;
use crate::store::batches::{BatchFilter, BatchOrder};
use crate::webhook::text::number;
use jiff::Timestamp;
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeSet;

/// What of the list somebody wants to see.
pub(super) struct Wish {
    show: Show,
    sort: (&'static str, BatchOrder),
    page: u32,
    provider: Option<String>,
    model: Option<String>,
    label: Option<String>,
    owner: Option<String>,
    since: Option<String>,
    search: Option<String>,
}

/// Which batches, by how they stand.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Show {
    word: &'static str,
    active: bool,
    statuses: &'static [Status],
}

const SHOWN: [Show; 7] = [
    Show { word: "active", active: true, statuses: &[] },
    Show { word: "completed", active: false, statuses: &[Status::Completed] },
    Show { word: "failed", active: false, statuses: &[Status::Failed] },
    Show { word: "expired", active: false, statuses: &[Status::Expired] },
    Show { word: "cancelled", active: false, statuses: &[Status::Cancelled] },
    Show {
        word: "ended",
        active: false,
        statuses: &[Status::Completed, Status::Failed, Status::Expired, Status::Cancelled],
    },
    Show { word: "all", active: false, statuses: &[] },
];

const SORTS: [(&str, BatchOrder, &str); 6] = [
    ("newest", BatchOrder::Registered, "newest first"),
    ("name", BatchOrder::Name, "by name"),
    ("status", BatchOrder::Status, "by status"),
    ("provider", BatchOrder::Provider, "by provider"),
    ("model", BatchOrder::Model, "by model"),
    ("eta", BatchOrder::Expected, "next to end first"),
];

/// Rows on a page.
const ROWS: u32 = 100;
/// Nobody turns as many pages.
const MAX_PAGE: u32 = 100_000;

/// A page of the list.
pub(super) struct BatchList {
    rows: Vec<Tracked>,
    all: u64,
    wish: Wish,
}

impl Wish {
    pub(super) fn read(query: &Query) -> Answer<Self> {
        let word = query.text("status");
        let show = match word.as_deref() {
            None => SHOWN[6],
            Some(word) => SHOWN.into_iter().find(|show| show.word == word).ok_or_else(|| {
                let words: Vec<&str> = SHOWN.iter().map(|show| show.word).collect();
                ApiError::invalid(format!("`{word}` is no choice of batches; one of {}", words.join(", ")))
            })?,
        };
        let sort = query.text("sort");
        let sort = match sort.as_deref() {
            None => SORTS[0],
            Some(word) => SORTS.into_iter().find(|sort| sort.0 == word).ok_or_else(|| {
                let words: Vec<&str> = SORTS.iter().map(|sort| sort.0).collect();
                ApiError::invalid(format!("`{word}` is no order of batches; one of {}", words.join(", ")))
            })?,
        };
        query.pairs("label")?;
        Ok(Self {
            show,
            sort: (sort.0, sort.1),
            page: query.number("page")?.unwrap_or(1).clamp(1, MAX_PAGE),
            provider: query.text("provider"),
            model: query.text("model"),
            label: query.text("label"),
            owner: query.text("owner"),
            since: query.text("since"),
            search: query.text("search"),
        })
    }

    fn filter(&self, service: &Service) -> Answer<BatchFilter> {
        let label = self.label.as_deref().and_then(|label| label.split_once('='));
        Ok(BatchFilter {
            active_only: self.show.active,
            stuck_only: false,
            statuses: self.show.statuses.to_vec(),
            provider: self.provider.clone(),
            labels: label.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect(),
            owner: self.owner.clone(),
            // Without a star it is meant as the beginning that one remembers.
            model: self
                .model
                .as_ref()
                .map(|model| if model.contains('*') { model.clone() } else { format!("{model}*") }),
            search: self.search.clone(),
            created_since: service.since(self.since.as_deref())?.map(Timestamp::as_second),
            order: self.sort.1,
            offset: (self.page - 1).saturating_mul(ROWS),
            limit: Some(ROWS),
            after: None,
        })
    }

    /// The address of this list with one thing of it changed.
    fn link(&self, visitor: &Visitor, show: &str, sort: &str, page: u32) -> String {
        let mut pairs = Vec::new();
        let mut add = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                pairs.push(format!("{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
            }
        };
        add("status", (show != SHOWN[6].word).then_some(show));
        add("provider", self.provider.as_deref());
        add("model", self.model.as_deref());
        add("label", self.label.as_deref());
        add("owner", self.owner.as_deref());
        add("since", self.since.as_deref());
        add("search", self.search.as_deref());
        add("sort", (sort != SORTS[0].0).then_some(sort));
        if page > 1 {
            pairs.push(format!("page={page}"));
        }
        let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
        visitor.link(&format!("/{query}"))
    }

    fn narrows(&self) -> bool {
        [&self.provider, &self.model, &self.label, &self.owner, &self.since, &self.search]
            .into_iter()
            .any(Option::is_some)
    }
}

impl BatchList {
    pub(super) async fn read(service: &Service, wish: Wish) -> Answer<Self> {
        let filter = wish.filter(service)?;
        let (rows, _) = service.store.list(filter.clone()).await?;
        let all = service.store.count(filter).await?;
        Ok(Self { rows: rows.into_iter().map(|(_, tracked)| tracked).collect(), all, wish })
    }

    pub(super) fn show(&self, visitor: &Visitor, providers: &BTreeSet<String>, now: Timestamp) -> Markup {
        let wish = &self.wish;
        html! {
            section #batches aria-labelledby="batches-title" {
                h2 #batches-title { "Batches" }
                nav.tabs aria-label="Batches by status" {
                    @for show in SHOWN {
                        a href=(wish.link(visitor, show.word, wish.sort.0, 1))
                            aria-current=[(show == wish.show).then_some("true")] { (show.word) }
                    }
                }
                (self.form(visitor, providers))
                div #batch-list data-part {
                    @if self.rows.is_empty() {
                        p.empty {
                            @if wish.narrows() || wish.show.word != "all" {
                                "No batch is like that. " a href=(visitor.link("/")) { "Show all" }
                            } @else {
                                "No batch is tracked yet: " code { "batchd track ID" } " or " code { "batchd submit FILE" } "."
                            }
                        }
                    } @else {
                        table.rows {
                            caption { (number(self.all)) @if self.all == 1 { " batch" } @else { " batches" } ", " (order_words(wish.sort.0)) }
                            thead { tr {
                                (self.heading(visitor, "name", "Batch"))
                                (self.heading(visitor, "provider", "Provider"))
                                (self.heading(visitor, "model", "Model"))
                                (self.heading(visitor, "status", "Status"))
                                th scope="col" { "Requests" }
                                (self.heading(visitor, "eta", "Ends"))
                                (self.heading(visitor, "newest", "Created"))
                            } }
                            tbody { @for tracked in &self.rows { (row(visitor, tracked, now)) } }
                        }
                        (self.pages(visitor))
                    }
                }
            }
        }
    }

    fn heading(&self, visitor: &Visitor, sort: &str, label: &str) -> Markup {
        let sorted = self.wish.sort.0 == sort;
        let direction = if sort == "newest" { "descending" } else { "ascending" };
        html! {
            th scope="col" aria-sort=[sorted.then_some(direction)] {
                a href=(self.wish.link(visitor, self.wish.show.word, sort, 1)) { (label) }
                @if sorted { span aria-hidden="true" { @if direction == "descending" { " ↓" } @else { " ↑" } } }
            }
        }
    }

    fn form(&self, visitor: &Visitor, providers: &BTreeSet<String>) -> Markup {
        let wish = &self.wish;
        let models: BTreeSet<String> = self
            .rows
            .iter()
            .filter_map(|tracked| tracked.batch.model.as_ref())
            .map(|model| cut(model, 100))
            .collect();
        let field = |name: &str, label: &str, hint: &str, value: Option<&String>| {
            html! {
                label { span { (label) }
                    input type="text" name=(name) value=[value] placeholder=(hint) maxlength="200"
                        list=[(name == "model").then_some("models")];
                }
            }
        };
        html! {
            form.filters method="get" action=(visitor.link("/")) role="search" {
                @if wish.show.word != "all" { input type="hidden" name="status" value=(wish.show.word); }
                @if wish.sort.0 != SORTS[0].0 { input type="hidden" name="sort" value=(wish.sort.0); }
                label.wide { span { "Search " kbd aria-hidden="true" { "/" } }
                    input #search type="search" name="search" value=[&wish.search] placeholder="id, name, model or label" maxlength="200" aria-keyshortcuts="/";
                }
                label { span { "Provider" }
                    select name="provider" {
                        option value="" { "all" }
                        @for name in providers {
                            option value=(name) selected[wish.provider.as_ref() == Some(name)] { (name) }
                        }
                    }
                }
                (field("model", "Model", "gpt-5*", wish.model.as_ref()))
                (field("label", "Label", "team=evals", wish.label.as_ref()))
                (field("owner", "Owner", "user", wish.owner.as_ref()))
                (field("since", "Created since", "7d", wish.since.as_ref()))
                datalist #models { @for model in models { option value=(model) {} } }
                div.go {
                    button.primary type="submit" { "Filter" }
                    @if wish.narrows() { " " a href=(visitor.link("/")) { "Clear" } }
                }
            }
        }
    }

    fn pages(&self, visitor: &Visitor) -> Markup {
        let wish = &self.wish;
        let last = u32::try_from(self.all.div_ceil(u64::from(ROWS))).unwrap_or(MAX_PAGE).max(1);
        let link = |page| wish.link(visitor, wish.show.word, wish.sort.0, page);
        html! {
            @if last > 1 {
                nav.pages aria-label="Pages of the list" {
                    @if wish.page > 1 { a rel="prev" href=(link(wish.page - 1)) { "← Previous" } }
                    span { "Page " (wish.page) " of " (last) }
                    @if wish.page < last { a rel="next" href=(link(wish.page + 1)) { "Next →" } }
                }
            }
        }
    }
}

fn order_words(sort: &str) -> &'static str {
    SORTS.iter().find(|known| known.0 == sort).map_or("", |known| known.2)
}

fn row(visitor: &Visitor, tracked: &Tracked, now: Timestamp) -> Markup {
    let batch = &tracked.batch;
    html! {
        tr {
            th scope="row" data-label="Batch" {
                a href=(visitor.link(&tracked.key.page())) { (text(tracked.name.as_ref().unwrap_or(&batch.id), 80)) }
                @if tracked.name.is_some() { " " small { (text(&batch.id, 60)) } }
                @for (key, value) in tracked.labels.iter().take(4) {
                    " " span.label { (text(&format!("{key}={value}"), 40)) }
                }
            }
            td data-label="Provider" { (tracked.key.provider) }
            td data-label="Model" { @match &batch.model { Some(model) => (text(model, 60)), None => span.none { "–" } } }
            td data-label="Status" { (status(tracked)) }
            td data-label="Requests" { (progress(batch.request_counts, batch.status.is_terminal())) }
            td data-label="Ends" {
                @match (batch.ended_at().and_then(from_seconds), tracked.eta.filter(|_| tracked.is_active())) {
                    (Some(ended), _) => (when(ended, now)),
                    (None, Some(eta)) => { span.whole { "≈ " (when(eta.at.max(now), now)) } },
                    _ => span.none { "–" },
                }
            }
            td data-label="Created" {
                @match from_seconds(batch.created_at) { Some(at) => (when(at, now)), None => span.none { "–" } }
            }
        }
    }
}
