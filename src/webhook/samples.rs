//! Events for the tests of every chat kind.

use crate::domain::batch::{BatchError, BatchErrors, RequestCounts, Usage};
use crate::domain::event::Occurrence;
use crate::domain::status::Status;
use crate::domain::tracked::{BatchKey, Origin, Tracked, Transition};
use jiff::Timestamp;

pub const NOW: Timestamp = Timestamp::constant(1_760_000_031, 0);

/// `nightly-eval` at openai, begun 3 h 12 m before it ended.
pub fn batch(status: Status, counts: Option<(u64, u64, u64)>) -> Tracked {
    let key = BatchKey { provider: "openai".to_owned(), id: "batch_abc123".to_owned() };
    let mut tracked = Tracked::new(key, "openai", "/v1/responses", Origin::Hand, NOW);
    tracked.name = Some("nightly-eval".to_owned());
    tracked.labels.insert("team".to_owned(), "evals".to_owned());
    tracked.console_url = Some("https://platform.openai.com/batches/batch_abc123".to_owned());
    tracked.results_expire_at = Some(Timestamp::constant(1_762_592_000, 0));
    let batch = &mut tracked.batch;
    batch.status = status;
    batch.model = Some("gpt-5-mini".to_owned());
    batch.created_at = 1_759_988_479;
    let end = Some(1_760_000_000);
    match status {
        Status::Completed => batch.completed_at = end,
        Status::Failed => batch.failed_at = end,
        Status::Expired => batch.expired_at = end,
        Status::Cancelled => batch.cancelled_at = end,
        _ => {}
    }
    batch.request_counts =
        counts.map(|(total, completed, failed)| RequestCounts { total, completed, failed });
    batch.usage = Some(Usage { input_tokens: 31_493_594, output_tokens: 1_978_624, ..Usage::default() });
    tracked
}

/// The same batch with an error list.
pub fn with_errors(mut tracked: Tracked, errors: &[(&str, &str)]) -> Tracked {
    let data = errors.iter().map(|(code, message)| BatchError {
        code: Some((*code).to_owned()),
        message: Some((*message).to_owned()),
        ..BatchError::default()
    });
    tracked.batch.errors = Some(BatchErrors { data: data.collect(), ..BatchErrors::default() });
    tracked
}

/// The body of the event that `tracked` reached its status.
pub fn reached(tracked: &Tracked) -> String {
    let transition = Transition {
        from: Some(Status::InProgress),
        to: tracked.batch.status,
        provider_status: None,
        occurred_at: None,
        observed_at: NOW,
    };
    Occurrence::Status(transition).draft(tracked).body(7)
}
