//! How a watched batch is shown: the OpenAI batch with one more key, `batchd`.

use super::cost::{CURRENCY, Cost};
use super::tracked::{Tracked, WaitingFor};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// The batch as every surface gives it: OpenAI's fields, and `batchd` with what batchd adds.
pub fn batch(tracked: &Tracked) -> Value {
    shaped(tracked, tracked.next_poll_at)
}

/// The batch as an event shows it: an event tells no plan, for it is read long after.
pub(super) fn batch_in_event(tracked: &Tracked) -> Value {
    shaped(tracked, None)
}

fn shaped(tracked: &Tracked, next_poll_at: Option<Timestamp>) -> Value {
    let mut shape = match serde_json::to_value(&tracked.batch) {
        Ok(Value::Object(fields)) => fields,
        // A batch is plain data; nothing in it can fail to serialise.
        _ => Map::new(),
    };
    // Whoever created it from a file of theirs knows it by that, whatever became of the file on the way.
    if let Some(file) = &tracked.uploaded_file {
        shape.insert("input_file_id".to_owned(), file.as_str().into());
    }
    shape.insert("batchd".to_owned(), added(tracked, next_poll_at));
    Value::Object(shape)
}

fn added(tracked: &Tracked, next_poll_at: Option<Timestamp>) -> Value {
    // Of a batch that nobody checks any more, nothing is expected.
    let eta = tracked.eta.filter(|_| tracked.is_active());
    json!({
        "provider": tracked.key.provider,
        "kind": tracked.kind,
        "provider_status": tracked.provider_status,
        "outcome": tracked.outcome(),
        "name": tracked.name,
        "labels": tracked.labels,
        "owner": tracked.owner,
        "provider_input_file_id": provider_input_file_id(tracked),
        "submission": tracked.lineage.submission,
        "resubmits": tracked.lineage.resubmits,
        "resubmitted_by": tracked.resubmitted_by,
        "waiting_for": tracked.waiting_for.as_ref().map(waiting_for),
        "tracked_at": time(Some(tracked.tracked_at)),
        "untracked_at": time(tracked.untracked_at),
        "first_seen_at": time(tracked.first_seen_at),
        "last_polled_at": time(tracked.last_polled_at),
        "next_poll_at": time(next_poll_at),
        "last_error": tracked.last_error,
        "stalled": tracked.stalled_since.is_some(),
        "lost": tracked.lost_since.is_some(),
        "deadline": time(tracked.deadline),
        "eta": time(eta.map(|eta| eta.at)),
        "eta_interval": eta.map(|eta| [eta.earliest.to_string(), eta.latest.to_string()]),
        "cost": tracked.cost.as_ref().map(cost),
        "results_expire_at": time(tracked.results_expire_at),
        "console_url": tracked.console_url,
        "results": tracked.results,
        "results_error": tracked.results_error,
    })
}

/// What a submission that is no batch yet waits for.
fn waiting_for(waiting: &WaitingFor) -> Value {
    json!({
        "reason": waiting.reason,
        "limit": waiting.limit,
        "usage": waiting.usage,
        "since": time(Some(waiting.since)),
        "tried_at": time(waiting.tried_at),
    })
}

/// What a batch cost, every amount a JSON number of exact decimal digits.
fn cost(cost: &Cost) -> Value {
    json!({
        "amount": cost.amount().number(),
        "currency": CURRENCY,
        "input": cost.input.number(),
        "output": cost.output.number(),
        "priced_by": cost.priced_by(),
    })
}

/// The provider's own id of the input, where the batch is shown with another.
fn provider_input_file_id(tracked: &Tracked) -> Option<&str> {
    let own = tracked.batch.input_file_id.as_str();
    (tracked.uploaded_file.is_some() && !own.is_empty()).then_some(own)
}

/// An instant as RFC 3339 in UTC, or null.
pub fn time(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| Value::String(at.to_string()))
}
