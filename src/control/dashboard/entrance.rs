//! The way in: who a request comes from, by its cookie, its token and where it has come in; and whether a form is theirs.

use super::visitor::Visitor;
use super::{shell, token_form};
use crate::config::PublicUrl;
use crate::control::access::bearer;
use crate::control::api::ErrorCode;
use crate::control::api_error::ApiError;
use crate::control::query::Query;
use crate::control::respond::{Door, Shared};
use crate::control::sessions::{LIFETIME, SessionId};
use crate::control::tokens::Proof;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};

impl FromRequestParts<Shared> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Response> {
        let public = judged(shared)?;
        let prefix = public.as_ref().map(|public| public.path.clone()).unwrap_or_default();
        let mut visitor = Visitor {
            may_act: false,
            signed_in: false,
            here: here(parts),
            part: parts.headers.contains_key("batchd-part"),
            session: None,
            form_word: String::new(),
            cookie: None,
            prefix,
        };
        let tokens = shared.service.tokens();
        match shared.door {
            Door::Socket => {
                visitor.may_act = true;
                let known = sessions_in(&parts.headers).next();
                if known.is_none() {
                    let id = SessionId::new();
                    visitor.cookie = Some(cookie(public.as_ref(), Some(&id)));
                    visitor.session = Some(id);
                } else {
                    visitor.session = known;
                }
            }
            Door::Tcp if tokens.is_none() => {}
            Door::Tcp => {
                let now = shared.service.clock.now();
                let session = sessions_in(&parts.headers).find_map(|id| {
                    let proof = tokens.proof_of(&shared.sessions.token_of(&id, now)?);
                    (proof != Proof::Nothing).then_some((id, proof))
                });
                match session {
                    Some((id, proof)) => {
                        visitor.may_act = proof == Proof::MayDoEverything;
                        visitor.signed_in = true;
                        visitor.session = Some(id);
                    }
                    // Programs may read with a token; whoever acts does so in a session.
                    None if tokens.proof(bearer(&parts.headers)) != Proof::Nothing => {}
                    None => return Err(token_form::asked(&visitor, &parts.headers)),
                }
            }
        }
        if let Some(id) = &visitor.session {
            visitor.form_word = shared.sessions.form_word(id);
        }
        Ok(visitor)
    }
}

/// Where people reach the dashboard, if it is served at all.
#[expect(clippy::result_large_err, reason = "it is the answer, made once a request")]
pub(super) fn judged(shared: &Shared) -> Result<Option<PublicUrl>, Response> {
    let served = shared.service.live().is_ok_and(|live| live.config().api.dashboard);
    if served {
        return Ok(shared.service.public_url());
    }
    let refusal = ApiError::new(ErrorCode::NotFound, "the dashboard is switched off");
    Err(refusal.hint("set `dashboard = true` in [api]").into_response())
}

fn here(parts: &Parts) -> String {
    // A prefix is gone from it by now, and links put it there again.
    parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)
}

/// A form that somebody has sent who may act, from a page that was theirs.
pub(super) struct Deed {
    pub(super) visitor: Visitor,
    pub(super) form: Query,
}

impl FromRequest<Shared> for Deed {
    type Rejection = Response;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, shared).await?;
        let form = form(Request::from_parts(parts, body)).await?;
        let given = form.text("form_word").unwrap_or_default();
        let is_theirs = visitor.session.as_ref().is_some_and(|id| shared.sessions.is_form_word(id, &given));
        let refusal = if visitor.session.is_none() {
            ApiError::new(ErrorCode::Forbidden, "the dashboard is read-only here")
                .hint("set [api] token and sign in, or use the socket")
        } else if !is_theirs {
            ApiError::new(
                ErrorCode::Forbidden,
                "this form is not of a page that you have open, or it is too old",
            )
            .hint("go back, load the page again, and repeat what you did")
        } else {
            return Ok(Self { visitor, form });
        };
        Err(shell::refused(shared, &visitor, &refusal))
    }
}

/// The pairs of a form.
pub(super) async fn form(request: Request) -> Result<Query, Response> {
    let body =
        Bytes::from_request(request, &()).await.map_err(axum::response::IntoResponse::into_response)?;
    Ok(Query::parse(&String::from_utf8_lossy(&body)))
}

/// The sessions that the request's cookies may name.
fn sessions_in(headers: &HeaderMap) -> impl Iterator<Item = SessionId> + '_ {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| SessionId::parse(pair.trim().strip_prefix(COOKIE)?.strip_prefix('=')?))
}

/// Sets the cookie of a session, or (`None`) takes it away.
pub(super) fn cookie(public: Option<&PublicUrl>, id: Option<&SessionId>) -> HeaderValue {
    let path = public.map(|public| public.path.as_str()).filter(|path| !path.is_empty()).unwrap_or("/");
    let secure = if public.is_some_and(|public| public.is_https) { "; Secure" } else { "" };
    let (value, age) = id.map_or(("", 0), |id| (id.as_str(), LIFETIME.as_secs()));
    let text = format!("{COOKIE}={value}; Path={path}; Max-Age={age}; HttpOnly; SameSite=Strict{secure}");
    // Nothing in it but letters, digits and the path of a URL.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

const COOKIE: &str = "batchd_session";
