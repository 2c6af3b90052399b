//! What the forms of the pages do: the operations of the API, and a word on the next page about how they went.

use super::batch;
use super::entrance::Deed;
use super::pieces::{button, text};
use super::shell;
use super::visitor::{Visitor, is_own_path};
use crate::control::api::ErrorCode;
use crate::control::api_error::ApiError;
use crate::control::query::Query;
use crate::control::respond::{Answer, Shared, stream_of_lines};
use crate::control::results;
use crate::control::sessions::Flash;
use crate::engine::results::{Format, Wanted};
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use maud::{Markup, html};
use serde_json::Value;

pub(super) async fn poll(State(shared): State<Shared>, Deed { visitor, form }: Deed) -> Response {
    let done = acting(&visitor, async {
        let batch = shared.service.poll(&needed(&form, "batch")?).await?;
        Ok(format!("Checked: it is {}.", batch["status"].as_str().unwrap_or("unknown")))
    });
    back(&shared, &visitor, &form, done.await)
}

pub(super) async fn cancel(State(shared): State<Shared>, Deed { visitor, form }: Deed) -> Response {
    let done = acting(&visitor, async {
        let batch = shared.service.cancel(None, &needed(&form, "batch")?).await?;
        Ok(format!("Asked to cancel: it is {}.", batch["status"].as_str().unwrap_or("unknown")))
    });
    back(&shared, &visitor, &form, Box::pin(done).await)
}

pub(super) async fn untrack(State(shared): State<Shared>, Deed { visitor, form }: Deed) -> Response {
    let done = acting(&visitor, async {
        shared.service.untrack(&needed(&form, "batch")?, false).await?;
        Ok("It is not watched any more; its history stays.".to_owned())
    });
    back(&shared, &visitor, &form, Box::pin(done).await)
}

/// Sends deliveries again: one, or those that were ticked.
pub(super) async fn resend(State(shared): State<Shared>, Deed { visitor, form }: Deed) -> Response {
    let done = acting(&visitor, async {
        let ids = form.all("id", |id| Ok(id.to_owned()))?;
        if ids.is_empty() {
            return Err(ApiError::invalid("no delivery was chosen").hint("tick those to send again"));
        }
        let mut refused = Vec::new();
        for id in &ids {
            if let Err(refusal) = shared.service.retry(id).await {
                refused.push(refusal);
            }
        }
        let sent = ids.len() - refused.len();
        match refused.pop() {
            Some(refusal) if sent == 0 => Err(refusal),
            Some(refusal) => Ok(format!("{sent} of {} are sent again; {}", ids.len(), refusal.message)),
            None if sent == 1 => Ok("It is sent again.".to_owned()),
            None => Ok(format!("{sent} deliveries are sent again.")),
        }
    });
    back(&shared, &visitor, &form, done.await)
}

pub(super) async fn resend_dead(State(shared): State<Shared>, Deed { visitor, form }: Deed) -> Response {
    let done = acting(&visitor, async {
        let sent = shared.service.retry_dead(form.text("webhook")).await?;
        Ok(format!("{sent} given-up deliveries are sent again."))
    });
    back(&shared, &visitor, &form, done.await)
}

pub(super) async fn check(State(shared): State<Shared>, Deed { visitor, form }: Deed) -> Response {
    let done = acting(&visitor, async {
        let mut answers = shared.service.check_providers(form.text("provider").as_deref()).await?;
        answers.sort_by_key(|answer| answer.ok);
        let told: Vec<String> = answers
            .iter()
            .map(|answer| match &answer.error {
                None => format!("{} answers ({} ms)", answer.name, answer.milliseconds),
                Some(error) => {
                    let hint = answer.hint.as_deref().unwrap_or_default();
                    format!("{}: {error}; {hint}", answer.name)
                }
            })
            .collect();
        let told = told.join(" · ");
        if answers.iter().all(|answer| answer.ok) {
            Ok(told)
        } else {
            Err(ApiError::new(ErrorCode::ProviderFailed, told))
        }
    });
    back(&shared, &visitor, &form, done.await)
}

pub(super) async fn test(State(shared): State<Shared>, Deed { visitor, form }: Deed) -> Response {
    let done = acting(&visitor, async {
        let name = needed(&form, "webhook")?;
        let answer = shared.service.test_webhook(&name, None).await?;
        let code = answer.http_status.map(|code| format!("{code}, ")).unwrap_or_default();
        match answer.error {
            None => Ok(format!("{name} took the test message ({code}{} ms).", answer.milliseconds)),
            Some(error) => Err(ApiError::new(
                ErrorCode::ProviderFailed,
                format!("{name} did not take the test message: {error}"),
            )),
        }
    });
    back(&shared, &visitor, &form, done.await)
}

pub(super) async fn enable(State(shared): State<Shared>, Deed { visitor, form }: Deed) -> Response {
    switch(&shared, &visitor, &form, true).await
}

pub(super) async fn disable(State(shared): State<Shared>, Deed { visitor, form }: Deed) -> Response {
    switch(&shared, &visitor, &form, false).await
}

async fn switch(shared: &Shared, visitor: &Visitor, form: &Query, on: bool) -> Response {
    let done = acting(visitor, async {
        let name = needed(form, "webhook")?;
        shared.service.switch_webhook(&name, on).await?;
        Ok(if on {
            format!("{name} is on: what was held is sent.")
        } else {
            format!("{name} is off: what it is owed is held.")
        })
    });
    back(shared, visitor, form, done.await)
}

/// The page of the batch, with what its first failed requests said: it costs a request to the provider.
pub(super) async fn failures(State(shared): State<Shared>, Deed { mut visitor, form }: Deed) -> Response {
    // The forms on the page lead back to where the page is read, not to where it was asked for.
    visitor.here = way_back(&form);
    let fetched = acting(&visitor, async {
        let name = needed(&form, "batch")?;
        let lines = first_failures(&shared, &name).await?;
        Ok((name, lines))
    });
    let page = match fetched.await {
        Ok((name, lines)) => {
            batch::show(&shared.service, &visitor, &name, Some(&failed_requests(&lines))).await
        }
        Err(refusal) => return back(&shared, &visitor, &form, Err(refusal)),
    };
    shell::dressed(&shared, &visitor, page)
}

/// The results as a file, streamed from the provider.
pub(super) async fn results(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Deed { visitor, form }: Deed,
) -> Response {
    let found = acting(&visitor, async {
        let name = needed(&form, "batch")?;
        let wanted = if form.flag("errors")? { Wanted::Failures } else { Wanted::Output };
        shared.service.results(None, &name, wanted, Format::OpenAi).await
    });
    match found.await {
        Ok(found) => stream_of_lines(&shared, found, &headers),
        Err(refusal) => back(&shared, &visitor, &form, Err(refusal)),
    }
}

/// Does what somebody may who is not confined to reading.
async fn acting<T>(visitor: &Visitor, deed: impl Future<Output = Answer<T>>) -> Answer<T> {
    if visitor.may_act {
        return deed.await;
    }
    Err(ApiError::new(ErrorCode::Forbidden, "the `read_token` is read-only").hint("sign in with [api] token"))
}

/// On to the page that the form was on, which tells how it went.
fn back(shared: &Shared, visitor: &Visitor, form: &Query, done: Answer<String>) -> Response {
    let flash = match done {
        Ok(text) => Flash { went_well: true, text },
        Err(refusal) if refusal.code == ErrorCode::Forbidden => {
            return shell::refused(shared, visitor, &refusal);
        }
        Err(refusal) => {
            let hints = refusal.hints.iter().map(|hint| format!("; {hint}"));
            Flash { went_well: false, text: format!("{}{}", refusal.message, hints.collect::<String>()) }
        }
    };
    visitor.tell(shared, flash);
    shell::see_other(&visitor.link(&way_back(form))).into_response()
}

fn way_back(form: &Query) -> String {
    form.text("back").filter(|path| is_own_path(path)).unwrap_or_else(|| "/".to_owned())
}

fn needed(form: &Query, name: &str) -> Answer<String> {
    form.text(name).ok_or_else(|| ApiError::invalid(format!("the form lacks `{name}`")).param(name))
}

/// The first lines of what failed; no more is read of it than that takes.
async fn first_failures(shared: &Shared, name: &str) -> Answer<Vec<Value>> {
    let found = shared.service.results(None, name, Wanted::Failures, Format::OpenAi).await?;
    let body = results::body(shared.service.clone(), found, false, shared.stopping.clone());
    let mut body = Body::new(body);
    let mut read: Vec<u8> = Vec::new();
    let lines = |read: &[u8]| memchr::memchr_iter(b'\n', read).count();
    while lines(&read) < MOST_FAILURES && read.len() < MOST_READ {
        match body.frame().await {
            Some(Ok(frame)) => {
                read.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
            }
            Some(Err(error)) => {
                let message = format!("what failed cannot be read: {error}");
                return Err(ApiError::new(ErrorCode::ProviderFailed, message));
            }
            None => break,
        }
    }
    let text = String::from_utf8_lossy(&read);
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).take(MOST_FAILURES).collect())
}

fn failed_requests(lines: &[Value]) -> Markup {
    html! {
        @if lines.is_empty() { p { "The provider tells of no failed request." } } @else {
            table.rows {
                caption { "The first " (lines.len()) " failed requests" }
                thead { tr { th scope="col" { "Request" } th scope="col" { "Code" } th scope="col" { "What it said" } } }
                tbody {
                    @for line in lines {
                        tr {
                            th scope="row" data-label="Request" { (text(line["custom_id"].as_str().unwrap_or("–"), 100)) }
                            td data-label="Code" { (code_of(line)) }
                            td data-label="What it said" { (text(&said(line), 400)) }
                        }
                    }
                }
            }
        }
    }
}

fn code_of(line: &Value) -> String {
    line["response"]["status_code"].as_u64().map_or_else(|| "–".to_owned(), |code| code.to_string())
}

/// What an error line says, wherever it says it.
fn said(line: &Value) -> String {
    let error = [&line["error"], &line["response"]["body"]["error"], &line["response"]["body"]];
    let error = error.into_iter().find(|error| !error.is_null()).unwrap_or(&Value::Null);
    let part = |key: &str| error[key].as_str().map(str::to_owned);
    match (part("code").or_else(|| part("type")), part("message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(word), None) | (None, Some(word)) => word,
        (None, None) => error.to_string(),
    }
}

/// Requests that are shown.
const MOST_FAILURES: usize = 20;
/// Bytes that are read for them.
const MOST_READ: usize = 1024 * 1024;

/// A button that sends all of a webhook's given-up deliveries again.
pub(super) fn resend_dead_button(visitor: &Visitor, webhook: Option<&str>) -> Markup {
    let fields: Vec<(&str, &str)> = webhook.map(|name| ("webhook", name)).into_iter().collect();
    button(visitor, "resend-dead", "Send all that was given up again", &fields)
}
