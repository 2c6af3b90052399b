//! The page of deliveries: what each webhook is owed, was told, or could not be told.

use super::actions::resend_dead_button;
use super::batch::{state, whole_delivery};
use super::overview::subject;
use super::pieces::{cut, due, form_fields, text, when};
use super::shell::{self, Page};
use super::visitor::Visitor;
use crate::control::api::ErrorCode;
use crate::control::api_error::ApiError;
use crate::control::query::Query;
use crate::control::respond::{Answer, Shared};
use crate::control::service::Service;
use crate::store::outbox::{Delivery, DeliveryFilter, DeliveryState};
use crate::webhook::text::number;
use axum::extract::{Path, State};
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

/// Rows on a page.
const ROWS: u32 = 100;

pub(super) async fn page(State(shared): State<Shared>, visitor: Visitor, query: Query) -> Response {
    let page = deliveries(&shared.service, &visitor, &query).await;
    shell::dressed(&shared, &visitor, page)
}

/// The states in the order of the tabs; `None`: all.
const TABS: [Option<DeliveryState>; 6] = [
    None,
    Some(DeliveryState::Pending),
    Some(DeliveryState::Inflight),
    Some(DeliveryState::Held),
    Some(DeliveryState::Dead),
    Some(DeliveryState::Delivered),
];

/// What of the deliveries somebody wants to see.
struct Wish {
    state: Option<DeliveryState>,
    webhook: Option<String>,
    code: Option<u16>,
    after: Option<i64>,
}

impl Wish {
    fn read(query: &Query) -> Answer<Self> {
        let word = query.text("state");
        let state = word.map(|word| {
            let known = DeliveryState::from_word(&word);
            known.ok_or_else(|| {
                ApiError::invalid(format!("`{word}` is not a state of a delivery")).param("state")
            })
        });
        Ok(Self {
            state: state.transpose()?,
            webhook: query.text("webhook"),
            code: query.number("code")?,
            after: query.number("after")?,
        })
    }

    fn link(&self, visitor: &Visitor, state: Option<DeliveryState>, after: Option<i64>) -> String {
        let mut pairs = Vec::new();
        pairs.extend(state.map(|state| format!("state={}", state.as_str())));
        let webhook = self.webhook.as_deref();
        pairs.extend(webhook.map(|name| format!("webhook={}", utf8_percent_encode(name, NON_ALPHANUMERIC))));
        pairs.extend(self.code.map(|code| format!("code={code}")));
        pairs.extend(after.map(|after| format!("after={after}")));
        let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
        visitor.link(&format!("/deliveries{query}"))
    }
}

/// One delivery: for what is about no batch this is the only page that shows its attempts.
pub(super) async fn one(State(shared): State<Shared>, Path(id): Path<String>, visitor: Visitor) -> Response {
    let page = delivery(&shared.service, &visitor, &id).await;
    shell::dressed(&shared, &visitor, page)
}

async fn delivery(service: &Service, visitor: &Visitor, id: &str) -> Answer<Page> {
    let now = service.clock.now();
    let after = service.store.last_sequence().await?;
    let unknown = || ApiError::new(ErrorCode::NotFound, format!("there is no delivery `{}`", cut(id, 40)));
    let pk: i64 = id.parse().map_err(|_| unknown())?;
    let filter = DeliveryFilter { after: pk.checked_add(1), limit: Some(1), ..DeliveryFilter::default() };
    let (found, _) = service.store.deliveries(filter).await?;
    let delivery = found.into_iter().find(|delivery| delivery.pk == pk).ok_or_else(unknown)?;
    let attempts = service.store.attempts(pk).await?;
    let title = format!("Delivery {pk}");
    let body = html! {
        nav.crumbs aria-label="Where this is" { a href=(visitor.link("/deliveries")) { "Deliveries" } " / " (pk) }
        h1 { (title) }
        p { "About " (subject(visitor, &json!({
            "provider": delivery.provider, "id": delivery.batch_id, "webhook": delivery.kind.as_str(),
        }))) }
        section #delivery data-part aria-label="The delivery" { (whole_delivery(visitor, &delivery, &attempts, now)) }
    };
    Ok(Page { title, section: "/deliveries", body, after: Some(after) })
}

async fn deliveries(service: &Service, visitor: &Visitor, query: &Query) -> Answer<Page> {
    let now = service.clock.now();
    let after = service.store.last_sequence().await?;
    let wish = Wish::read(query)?;
    let counts = service.store.delivery_counts(wish.webhook.clone()).await?;
    let filter = DeliveryFilter {
        state: wish.state,
        webhook: wish.webhook.clone(),
        batch: None,
        code: wish.code,
        after: wish.after,
        limit: Some(ROWS),
    };
    let (found, more) = service.store.deliveries(filter).await?;
    let webhooks: Vec<String> = service.live()?.config().webhooks.keys().cloned().collect();
    let all: u64 = counts.values().sum();
    let count = |state: Option<DeliveryState>| match state {
        Some(state) => counts.get(state.as_str()).copied().unwrap_or_default(),
        None => all,
    };
    let body = html! {
        h1 { "Deliveries" }
        nav.tabs #tabs data-part aria-label="Deliveries by state" {
            @for tab in TABS {
                a href=(wish.link(visitor, tab, None)) aria-current=[(tab == wish.state).then_some("true")] {
                    (tab.map_or("all", DeliveryState::as_str)) " " span.count { (number(count(tab))) }
                }
            }
        }
        form.filters method="get" action=(visitor.link("/deliveries")) {
            @if let Some(state) = wish.state { input type="hidden" name="state" value=(state.as_str()); }
            label { span { "Webhook" }
                select name="webhook" {
                    option value="" { "all" }
                    @for name in &webhooks { option value=(name) selected[wish.webhook.as_ref() == Some(name)] { (name) } }
                }
            }
            label { span { "Code of the last answer" }
                input type="number" name="code" min="100" max="599" value=[wish.code];
            }
            div.go {
                button.primary type="submit" { "Filter" }
                @if wish.webhook.is_some() || wish.code.is_some() { " " a href=(visitor.link("/deliveries")) { "Clear" } }
            }
        }
        @if count(Some(DeliveryState::Dead)) > 0 {
            div.actions { (resend_dead_button(visitor, wish.webhook.as_deref())) }
        }
        section #list data-part aria-label="The deliveries" { (list(visitor, &wish, &found, more, now)) }
    };
    Ok(Page { title: "Deliveries".to_owned(), section: "/deliveries", body, after: Some(after) })
}

fn list(visitor: &Visitor, wish: &Wish, found: &[Delivery], more: bool, now: Timestamp) -> Markup {
    let can_go = |delivery: &Delivery| {
        visitor.may_act && !matches!(delivery.state, DeliveryState::Inflight | DeliveryState::Held)
    };
    let table = html! {
        table.rows {
            caption { "Newest first" }
            thead { tr {
                @if visitor.may_act { th scope="col" { "Choose" } }
                th scope="col" { "Delivery" } th scope="col" { "State" } th scope="col" { "Webhook" } th scope="col" { "Event" }
                th scope="col" { "About" } th scope="col" { "Attempts" } th scope="col" { "Code" } th scope="col" { "Last attempt" } th scope="col" { "Next" }
            } }
            tbody {
                @for delivery in found {
                    tr {
                        @if visitor.may_act { td data-label="Choose" {
                            @if can_go(delivery) { input type="checkbox" name="id" value=(delivery.pk) aria-label=(format!("delivery {}", delivery.pk)); }
                        } }
                        th scope="row" data-label="Delivery" { a href=(visitor.link(&format!("/deliveries/{}", delivery.pk))) { (delivery.pk) } }
                        td data-label="State" { (state(delivery.state)) }
                        td data-label="Webhook" { (delivery.webhook) }
                        td data-label="Event" { code { (delivery.kind.as_str()) } " " (when(delivery.created_at, now)) }
                        td data-label="About" { (subject(visitor, &json!({"provider": delivery.provider, "id": delivery.batch_id}))) }
                        td data-label="Attempts" { (delivery.attempts) @if let Some(error) = &delivery.last_error { " " small.bad { (text(error, 160)) } } }
                        td data-label="Code" { @match delivery.last_status_code { Some(code) => (code), None => span.none { "–" } } }
                        td data-label="Last attempt" { @match delivery.last_attempt_at { Some(at) => (due(at, now)), None => span.none { "–" } } }
                        td data-label="Next" { @match delivery.next_attempt_at { Some(at) => (when(at, now)), None => span.none { "–" } } }
                    }
                }
            }
        }
    };
    let older = found.last().filter(|_| more).map(|last| wish.link(visitor, wish.state, Some(last.pk)));
    html! {
        @if found.is_empty() { p.empty { "There is no such delivery." } }
        @else if visitor.may_act {
            form method="post" action=(visitor.link("/actions/resend")) {
                (form_fields(visitor))
                (table)
                p { button type="submit" { "Send the chosen ones again" } }
            }
        }
        @else { (table) }
        nav.pages aria-label="Pages of the list" {
            @if wish.after.is_some() { a href=(wish.link(visitor, wish.state, None)) { "← Newest" } }
            @if let Some(older) = older { a rel="next" href=(older) { "Older →" } }
        }
    }
}
