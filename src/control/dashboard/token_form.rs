//! The form that asks for the token.

use super::shell;
use super::visitor::Visitor;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use maud::{Markup, html};

/// What somebody gets who has not given the token.
pub(super) fn asked(visitor: &Visitor, headers: &HeaderMap) -> Response {
    let from_elsewhere = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    let is_page = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
    if from_elsewhere && is_page {
        // A link in a message: the browser keeps the cookie back until the page is asked for from a page of ours.
        return shell::again(&visitor.link(&visitor.here));
    }
    let form = token_form(&visitor.prefix, &visitor.here, None);
    shell::bare(StatusCode::UNAUTHORIZED, &visitor.prefix, "Sign in", &form)
}

/// The form, for a way on to `to`.
pub(super) fn token_form(prefix: &str, to: &str, problem: Option<&str>) -> Markup {
    html! {
        form.sign-in method="post" action=(format!("{prefix}/login")) {
            h1 { "batchd" }
            p { "This dashboard asks for the token of " code { "[api] token" } " or " code { "read_token" } "." }
            @if let Some(problem) = problem {
                p.flash.bad role="alert" { (problem) }
            }
            // By this name a browser keeps the token, if somebody wants that.
            input type="text" name="username" value="batchd" autocomplete="username" hidden;
            label for="token" { "Token" }
            input #token type="password" name="token" autocomplete="current-password" required autofocus;
            input type="hidden" name="to" value=(to);
            button.primary type="submit" { "Sign in" }
        }
    }
}
