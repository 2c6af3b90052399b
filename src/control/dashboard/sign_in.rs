//! Asks for the token, once: opens a session for it, and closes it.

use super::shell;
use super::visitor::{Deed, Visitor, cookie, form, judged};
use crate::control::respond::Shared;
use crate::control::tokens::{Proof, digest_of};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
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

/// Takes the token from the form.
pub(super) async fn sign_in(State(shared): State<Shared>, request: Request) -> Response {
    let public = match judged(&shared) {
        Ok(public) => public,
        Err(response) => return response,
    };
    let prefix = public.as_ref().map(|public| public.path.clone()).unwrap_or_default();
    let form = match form(request).await {
        Ok(form) => form,
        Err(response) => return response,
    };
    let to = form.text("to").unwrap_or_default();
    let to = if is_own_path(&to) { to } else { "/".to_owned() };
    let token = form.text("token").unwrap_or_default();
    if shared.service.tokens().proof(Some(token.trim())) == Proof::Nothing {
        tracing::warn!("a wrong token was given to the dashboard");
        let form = token_form(&prefix, &to, Some("This is not the token."));
        return shell::bare(StatusCode::UNAUTHORIZED, &prefix, "Sign in", &form);
    }
    let id = shared.sessions.open(digest_of(token.trim()), shared.service.clock.now());
    let mut response = shell::see_other(&format!("{prefix}{to}"));
    response.headers_mut().append(header::SET_COOKIE, cookie(public.as_ref(), Some(&id)));
    response
}

/// Closes the session.
pub(super) async fn sign_out(State(shared): State<Shared>, Deed { visitor, .. }: Deed) -> Response {
    visitor.close(&shared);
    let mut response = shell::see_other(&visitor.link("/"));
    let public = shared.service.public_url();
    response.headers_mut().append(header::SET_COOKIE, cookie(public.as_ref(), None));
    // Whatever of the pages the browser has kept.
    response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cache\""));
    response.into_response()
}

/// Whether it is a path of this server: what a browser would take for another host's is none.
pub(super) fn is_own_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.starts_with("//")
        && path.chars().all(|c| c.is_ascii_graphic() && c != '\\')
}

fn token_form(prefix: &str, to: &str, problem: Option<&str>) -> Markup {
    html! {
        form.sign-in method="post" action=(format!("{prefix}/login")) {
            h1 { "batchd" }
            p { "This dashboard asks for the token of " code { "[api] token" } " or " code { "read_token" } "." }
            @if let Some(problem) = problem {
                p.flash.bad role="alert" { (problem) }
            }
            label for="token" { "Token" }
            input #token type="password" name="token" autocomplete="current-password" required autofocus;
            input type="hidden" name="to" value=(to);
            button.primary type="submit" { "Sign in" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for own in ["/", "/b/openai:x?y=1"] {
            assert!(is_own_path(own), "{own}");
        }
        for foreign in
            ["", "//evil.example", "/\\evil.example", "https://evil.example", "javascript:1", "/a\nb"]
        {
            assert!(!is_own_path(foreign), "{foreign}");
        }
    }
}
