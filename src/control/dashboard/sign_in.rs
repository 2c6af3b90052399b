//! Opens a session for whoever gives the token, and closes it.

use super::entrance::{Deed, cookie, form, judged};
use super::shell;
use super::token_form::token_form;
use super::visitor::is_own_path;
use crate::control::respond::{Shared, address};
use crate::control::tokens::{Proof, digest_of};
use crate::control::wrong_tokens::Slowed;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

/// Takes the token from the form.
pub(super) async fn sign_in(State(shared): State<Shared>, request: Request) -> Response {
    let public = match judged(&shared) {
        Ok(public) => public,
        Err(response) => return response,
    };
    let prefix = public.as_ref().map(|public| public.path.clone()).unwrap_or_default();
    let peer = address(request.extensions());
    let form = match form(request).await {
        Ok(form) => form,
        Err(response) => return response,
    };
    let to = form.text("to").unwrap_or_default();
    let to = if is_own_path(&to) { to } else { "/".to_owned() };
    let token = form.text("token").unwrap_or_default();
    if shared.service.tokens().proof(Some(token.trim())) == Proof::Nothing {
        tracing::warn!("a wrong token was given to the dashboard");
        let (status, problem, wait) = match shared.wrong_tokens.note(peer) {
            Slowed::AtOnce => (StatusCode::UNAUTHORIZED, "This is not the token.", None),
            Slowed::Wait(wait, _place) => {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = shared.stopping.cancelled() => {}
                }
                (StatusCode::UNAUTHORIZED, "This is not the token.", None)
            }
            Slowed::Refused(wait) => {
                (StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens. Try again in a moment.", Some(wait))
            }
        };
        let mut answer = shell::bare(status, &prefix, "Sign in", &token_form(&prefix, &to, Some(problem)));
        if let Some(wait) = wait {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        }
        return answer;
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
