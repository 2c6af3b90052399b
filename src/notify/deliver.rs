//! One attempt, from the event to what its answer means: render, send, judge.

use super::destination::Destination;
use crate::domain::duration::human;
use crate::domain::time::since;
use crate::failpoint;
use crate::http::call::Answer;
use crate::http::failure::{Failure, date, status_line};
use crate::http::limits;
use crate::webhook::{DeliveryOutcome, EventBody};
use futures_util::FutureExt;
use http::StatusCode;
use jiff::Timestamp;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::time::Instant;

/// What one attempt brought. No text in it holds a URL or a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub outcome: DeliveryOutcome,
    /// Whether the receiver or the way to it is to blame for a failure, not the making of the message.
    pub receiver_at_fault: bool,
    /// `delivered`, or the class of the failure (`docs/delivery.md#outcomes`).
    pub result: &'static str,
    /// The answer's code, if one came.
    pub status: Option<u16>,
    /// What went wrong, for people.
    pub error: Option<String>,
    /// The beginning of the answer.
    pub excerpt: Option<String>,
    pub took: Duration,
}

/// Tells `events` to `destination`, in one message. Whatever happens is an exchange, a panic too.
pub async fn attempt(
    destination: &Destination,
    events: &[EventBody<'_>],
    plain: bool,
    now: Timestamp,
) -> Exchange {
    let start = Instant::now();
    let work = AssertUnwindSafe(exchange(destination, events, plain, now)).catch_unwind();
    let mut exchange = work.await.unwrap_or_else(|_| Exchange {
        outcome: DeliveryOutcome::Trouble(DEFECT.to_owned()),
        receiver_at_fault: false,
        result: "panic",
        status: None,
        error: Some(DEFECT.to_owned()),
        excerpt: None,
        took: Duration::ZERO,
    });
    exchange.took = start.elapsed();
    exchange
}

const DEFECT: &str = "batchd itself failed over this message; please report it";

async fn exchange(
    destination: &Destination,
    events: &[EventBody<'_>],
    plain: bool,
    now: Timestamp,
) -> Exchange {
    failpoint::reach("deliver.render", || events.iter().map(|event| event.body).collect());
    let rendered = match events {
        [event] => destination.adapter().render(event, plain, now),
        several => destination.adapter().render_group(several, plain, now),
    };
    let call = match rendered {
        Ok(call) => call,
        // A better configuration or version may form it: again, a while.
        Err(failure) => {
            let outcome = DeliveryOutcome::Refused(failure.to_string());
            return Exchange {
                result: "render",
                receiver_at_fault: false,
                ..failed(destination, outcome, &failure)
            };
        }
    };
    match destination.transport().send(call).await {
        Ok(answer) => {
            failpoint::reach("deliver.answered", || destination.name().to_owned());
            answered(destination, &answer, now)
        }
        // The receiver has not been asked: nothing counts against it.
        Err(failure @ Failure::NoDescriptors) => {
            let outcome = DeliveryOutcome::Snooze(Some(OWN_TROUBLE));
            Exchange { receiver_at_fault: false, ..failed(destination, outcome, &failure) }
        }
        Err(failure) => failed(destination, DeliveryOutcome::Trouble(failure.to_string()), &failure),
    }
}

/// How long a delivery waits that this process had no descriptor for.
const OWN_TROUBLE: Duration = Duration::from_secs(5);

fn failed(destination: &Destination, outcome: DeliveryOutcome, failure: &Failure) -> Exchange {
    Exchange {
        outcome,
        receiver_at_fault: true,
        result: failure.class(),
        status: None,
        error: Some(shown(destination, &failure.to_string())),
        excerpt: None,
        took: Duration::ZERO,
    }
}

fn answered(destination: &Destination, answer: &Answer, now: Timestamp) -> Exchange {
    let mut outcome = destination.adapter().outcome(answer);
    let status = status_line(answer.status);
    let error = match &mut outcome {
        DeliveryOutcome::Delivered => None,
        DeliveryOutcome::Snooze(Some(wait)) => {
            Some(format!("{status}: it asks to be left alone for {}", human(*wait)))
        }
        DeliveryOutcome::Snooze(None) => Some(format!("{status}: it asks to be left alone")),
        DeliveryOutcome::Trouble(reason)
        | DeliveryOutcome::Refused(reason)
        | DeliveryOutcome::Simplify(reason)
        | DeliveryOutcome::Dead(reason)
        | DeliveryOutcome::Gone(reason) => {
            if let Some(skew) = skew(answer, now) {
                reason.push_str(&skew);
            }
            *reason = shown(destination, reason);
            Some(reason.clone())
        }
    };
    let excerpt = destination.scrubber().excerpt(&answer.body, limits::EXCERPT);
    Exchange {
        result: if outcome == DeliveryOutcome::Delivered { "delivered" } else { class(answer.status) },
        outcome,
        receiver_at_fault: true,
        status: Some(answer.status.as_u16()),
        error,
        excerpt: (!excerpt.is_empty()).then_some(excerpt),
        took: Duration::ZERO,
    }
}

/// The class of an answer that is no success; a 2xx that its kind does not take for one is a bad answer.
fn class(status: StatusCode) -> &'static str {
    if status.is_success() || status.is_informational() {
        Failure::BadResponse.class()
    } else {
        Failure::Status { status, message: None, retry_after: None, should_retry: None, quota: None }.class()
    }
}

/// What is said of a refusal (400, 401, 403) by a receiver whose clock is so far from ours that it may take what is
/// signed for too old or too new (`docs/delivery.md#clocks`).
fn skew(answer: &Answer, now: Timestamp) -> Option<String> {
    if !matches!(answer.status.as_u16(), 400 | 401 | 403) {
        return None;
    }
    let theirs = date(&answer.headers)?;
    let apart = since(theirs, now).max(since(now, theirs));
    (apart >= SKEW).then(|| {
        format!("; its clock and this machine's are {} apart: signatures are refused for that", human(apart))
    })
}

/// Receivers allow five minutes.
const SKEW: Duration = Duration::from_mins(4);

fn shown(destination: &Destination, text: &str) -> String {
    destination.scrubber().excerpt(text.as_bytes(), limits::EXCERPT)
}
