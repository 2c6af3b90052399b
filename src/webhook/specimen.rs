//! An event of every type, for trying things out that must not fail at the first real one.

use crate::domain::batch::RequestCounts;
use crate::domain::event::{Draft, EventType, Occurrence};
use crate::domain::status::Status;
use crate::domain::tracked::{BatchKey, Origin, Tracked, Transition};
use jiff::Timestamp;
use serde_json::{Value, json};

/// When they happen.
pub const NOW: Timestamp = Timestamp::constant(1_760_000_031, 0);

/// One event of each type.
pub fn events() -> impl Iterator<Item = Value> {
    EventType::ALL.into_iter().map(|kind| serde_json::from_str(&draft(kind).body(1)).unwrap_or_default())
}

fn draft(kind: EventType) -> Draft {
    match kind {
        EventType::Batch(status) => {
            let transition = Transition {
                from: Some(Status::Validating),
                to: status,
                provider_status: None,
                occurred_at: Some(NOW),
                observed_at: NOW,
            };
            Occurrence::Status(transition).draft(&batch(status))
        }
        EventType::ProviderUnauthorized | EventType::ProviderUnreachable | EventType::ProviderRecovered => {
            Draft::about_provider(kind, "openai", "a reason", NOW, NOW)
        }
        EventType::WebhookFailing | EventType::WebhookRecovered => {
            Draft::about_webhook(kind, "ops", "a reason", NOW, NOW)
        }
        EventType::DeliveryDead => {
            Draft::about_dead_deliveries("ops", ("evt_1", 12), 1, "a reason", NOW, NOW)
        }
        EventType::PruningHeld => Draft::about_batchd(kind, "a reason", NOW, NOW),
        EventType::LogStepped => Draft::about_log_step(120, 10_121, NOW),
        EventType::Digest => {
            let mut draft = Draft::about_provider(kind, "", "", NOW, NOW);
            let batch = json!({"id": "batch_1", "provider": "openai", "status": "completed"});
            draft.data = json!({"ended": [batch], "running": [batch], "stuck": []});
            draft
        }
        EventType::Test => Draft::test(&batch(Status::Completed), kind, "1", NOW),
        EventType::BatchStalled
        | EventType::BatchOverdue
        | EventType::BatchLost
        | EventType::ResultsDownloaded
        | EventType::ResultsFailed
        | EventType::ResultsExpiring => Occurrence::finding(kind, NOW, NOW).draft(&batch(Status::InProgress)),
    }
}

fn batch(status: Status) -> Tracked {
    let key = BatchKey { provider: "openai".to_owned(), id: "batch_1".to_owned() };
    let mut tracked = Tracked::new(key, "openai", "/v1/responses", Origin::Hand, NOW);
    tracked.name = Some("nightly-eval".to_owned());
    tracked.batch.status = status;
    tracked.batch.request_counts = Some(RequestCounts { total: 120, completed: 118, failed: 2 });
    tracked
}
