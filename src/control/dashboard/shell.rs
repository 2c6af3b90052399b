//! What stands around every page: the head, the ways to the other pages, what the last action is told as; and the
//! headers that keep a page from anything that is not its own.

use super::assets::{ICON, SCRIPT, STYLE};
use super::pieces::text;
use super::visitor::Visitor;
use crate::control::api_error::ApiError;
use crate::control::respond::{Answer, Shared};
use crate::domain::event::EventType;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, html};

/// A page, before anything stands around it.
pub(super) struct Page {
    pub(super) title: String,
    /// The path of the part of the dashboard that it belongs to.
    pub(super) section: &'static str,
    pub(super) body: Markup,
    /// The last event that it takes into account; what comes later makes it anew. `None`: it is not made anew.
    pub(super) after: Option<i64>,
}

/// The parts of the dashboard.
const SECTIONS: [(&str, &str); 5] = [
    ("/", "Batches"),
    ("/deliveries", "Deliveries"),
    ("/providers", "Providers"),
    ("/webhooks", "Webhooks"),
    ("/durations", "Durations"),
];

/// Dresses a page, or says why there is none.
pub(super) fn dressed(shared: &Shared, visitor: &Visitor, page: Answer<Page>) -> Response {
    match page {
        Ok(page) => answer(shared, visitor, StatusCode::OK, &page),
        Err(refusal) => refused(shared, visitor, &refusal),
    }
}

/// A page that says why something was not done.
pub(super) fn refused(shared: &Shared, visitor: &Visitor, refusal: &ApiError) -> Response {
    let status = refusal.status();
    let body = html! {
        h1 { @if status == StatusCode::NOT_FOUND { "Not found" } @else { "This did not work" } }
        p.flash.bad role="alert" { (text(&refusal.message, 1000)) }
        @for hint in &refusal.hints { p { (text(hint, 1000)) } }
        p { a href=(visitor.link("/")) { "All batches" } }
    };
    let title = status.canonical_reason().unwrap_or("Error").to_owned();
    answer(shared, visitor, status, &Page { title, section: "", body, after: None })
}

fn answer(shared: &Shared, visitor: &Visitor, status: StatusCode, page: &Page) -> Response {
    if visitor.part {
        return guarded(status, html! { main #main { (page.body) } });
    }
    let body = html! {
        a.skip href="#main" { "Skip to the content" }
        header.top {
            a.brand href=(visitor.link("/")) { "batchd" }
            nav aria-label="Pages" {
                @for (path, name) in SECTIONS {
                    a href=(visitor.link(path)) aria-current=[(path == page.section).then_some("page")] { (name) }
                }
            }
            div.session {
                @if page.after.is_some() {
                    // Without a script there is nothing to pause.
                    span #live-state role="status" hidden {}
                    button #live-pause type="button" hidden { "Pause" }
                }
                @if !visitor.may_act { span.badge title="Actions are for the socket, or who has signed in with the token" { "read-only" } }
                @if visitor.signed_in {
                    form method="post" action=(visitor.link("/logout")) {
                        input type="hidden" name="form_word" value=(visitor.form_word());
                        button type="submit" { "Sign out" }
                    }
                }
            }
        }
        main #main tabindex="-1" {
            @for flash in visitor.told(shared) {
                p.flash.good[flash.went_well].bad[!flash.went_well] role="status" { (text(&flash.text, 2000)) }
            }
            (page.body)
        }
    };
    let live = page.after.map(|after| (after, visitor.link("/live")));
    visitor.remembered(guarded(status, document(&visitor.prefix, &page.title, live.as_ref(), &body)))
}

/// A page without the ways to the others.
pub(super) fn bare(status: StatusCode, prefix: &str, title: &str, body: &Markup) -> Response {
    guarded(status, document(prefix, title, None, &html! { main #main.bare { (body) } }))
}

/// A page that asks for `url` by itself.
pub(super) fn again(url: &str) -> Response {
    guarded(
        StatusCode::OK,
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    title { "batchd" }
                    meta http-equiv="refresh" content=(format!("0; url={url}"));
                }
                body { p { a href=(url) { "Go on to the dashboard" } } }
            }
        },
    )
}

fn document(prefix: &str, title: &str, live: Option<&(i64, String)>, body: &Markup) -> Markup {
    let types = || EventType::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" ");
    let asset = |name: &str| format!("{prefix}/static/{name}");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) " · batchd" }
                link rel="icon" type="image/svg+xml" href=(asset(&ICON.name));
                link rel="stylesheet" href=(asset(&STYLE.name));
                script src=(asset(&SCRIPT.name)) defer {}
            }
            body
                data-live=[live.map(|(_, stream)| stream)]
                data-after=[live.map(|(after, _)| after)]
                data-types=[live.map(|_| types())] { (body) }
        }
    }
}

/// Sends the browser on after an action, so that loading the page again does not repeat it.
pub(super) fn see_other(to: &str) -> Response {
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, to), (header::CACHE_CONTROL, NO_STORE)]).into_response()
}

/// A page with what keeps it from anything that is not its own.
fn guarded(status: StatusCode, markup: Markup) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        // Not `no-referrer`: then browsers would not say where a form comes from.
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::CACHE_CONTROL, NO_STORE),
        (
            header::HeaderName::from_static("cross-origin-opener-policy"),
            HeaderValue::from_static("same-origin"),
        ),
        (
            header::HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("same-origin"),
        ),
    ];
    (status, headers, markup.into_string()).into_response()
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// What a page may load and do: nothing but what is its own.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
