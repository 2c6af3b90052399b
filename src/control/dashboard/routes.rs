//! What the dashboard answers: a table of its own, beside the API's.

use super::{actions, assets, batch, deliveries, durations, overview, providers, sign_in, webhooks};
use crate::control::access::Access;
use crate::control::respond::Shared;
use crate::control::routes::Route;
use axum::extract::DefaultBodyLimit;
use axum::http::Method;
use axum::routing::{self, MethodRouter};

/// Every page, every action, and what the pages are dressed with.
pub(in crate::control) fn routes() -> Vec<Route> {
    let page =
        |path: &str, handler: MethodRouter<Shared>| Route::new(Method::GET, path, Access::Page, handler);
    let act = |path: &str, handler: MethodRouter<Shared>| {
        Route::new(Method::POST, path, Access::Act, handler.layer(DefaultBodyLimit::max(MAX_FORM)))
    };
    vec![
        page("/", routing::get(overview::page)),
        page("/b/{*batch}", routing::get(batch::page)),
        page("/deliveries", routing::get(deliveries::page)),
        page("/deliveries/{id}", routing::get(deliveries::one)),
        page("/providers", routing::get(providers::page)),
        page("/webhooks", routing::get(webhooks::page)),
        page("/durations", routing::get(durations::page)),
        page("/live", routing::get(overview::live)),
        page("/static/{file}", routing::get(assets::file)),
        act("/login", routing::post(sign_in::sign_in)),
        act("/logout", routing::post(sign_in::sign_out)),
        act("/actions/poll", routing::post(actions::poll)),
        act("/actions/cancel", routing::post(actions::cancel)),
        act("/actions/untrack", routing::post(actions::untrack)),
        act("/actions/failures", routing::post(actions::failures)),
        act("/actions/results", routing::post(actions::results)),
        act("/actions/resend", routing::post(actions::resend)),
        act("/actions/resend-dead", routing::post(actions::resend_dead)),
        act("/actions/check", routing::post(actions::check)),
        act("/actions/test", routing::post(actions::test)),
        act("/actions/enable", routing::post(actions::enable)),
        act("/actions/disable", routing::post(actions::disable)),
    ]
}

/// A form holds a page of ids at most.
const MAX_FORM: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_and_whatever_does_something_is_a_form_of_a_session() {
        for route in routes() {
            let expected = if route.method == Method::GET { Access::Page } else { Access::Act };
            assert_eq!((route.access, route.path.starts_with("/v1")), (expected, false), "{}", route.path);
        }
    }
}
