//! The webhooks that services themselves send: a hint to check a batch (`docs/providers.md#push`).

use super::read::Reader;
use serde_json::{Map, Value};

/// How a service's own webhooks are read.
///
/// All of them are signed by Standard Webhooks with HMAC. What they say is never believed: it is read for the id of the
/// batch that is to be checked, and for nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// The id of the batch that a message is about; `None`: it is about something else.
    pub batch_id: fn(&Map<String, Value>) -> Option<String>,
}

impl Hook {
    /// OpenAI's form, which Azure has too: `{"type": "batch.completed", "data": {"id": "batch_…"}}`.
    pub const OPENAI: Self = Self { batch_id: |message| of_batch(message, "data.id") };

    /// Gemini's: the same, but for ids that come with and without what stands before them.
    pub const GEMINI: Self =
        Self { batch_id: |message| Some(of_batch(message, "data.id")?.rsplit('/').next()?.to_owned()) };

    /// Doubleword's: `{"type": "batch.completed", "data": {"batch_id": "…"}}`.
    pub const DOUBLEWORD: Self = Self { batch_id: |message| of_batch(message, "data.batch_id") };
}

/// What stands at `path`, if the message is about a batch.
fn of_batch(message: &Map<String, Value>, path: &str) -> Option<String> {
    let mut reader = Reader::new(message);
    reader.text("type").is_some_and(|kind| kind.starts_with("batch.")).then(|| reader.text(path))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn id(hook: Hook, message: &Value) -> Option<String> {
        (hook.batch_id)(message.as_object().unwrap())
    }

    #[test]
    fn every_form_names_its_batch_and_nothing_else_does() {
        let openai = json!({"id": "evt_1", "object": "event", "created_at": 1_795_000_000,
            "type": "batch.completed", "data": {"id": "batch_x"}});
        assert_eq!(id(Hook::OPENAI, &openai).as_deref(), Some("batch_x"));
        let mut other = openai.clone();
        other["type"] = "response.completed".into();
        assert_eq!(id(Hook::OPENAI, &other), None);
        for (told, expected) in [("batches/ab12", "ab12"), ("ab12", "ab12"), ("batch_123456", "batch_123456")]
        {
            let message = json!({"type": "batch.succeeded", "version": "v1",
                "timestamp": "2026-11-20T10:20:00Z", "data": {"id": told}});
            assert_eq!(id(Hook::GEMINI, &message).as_deref(), Some(expected));
        }
        let doubleword = json!({"type": "batch.failed", "timestamp": "2026-11-20T10:20:00Z",
            "data": {"batch_id": "3f1e2d4c-5b6a-4978-8899-aabbccddeeff", "status": "failed"}});
        let expected = Some("3f1e2d4c-5b6a-4978-8899-aabbccddeeff");
        assert_eq!(id(Hook::DOUBLEWORD, &doubleword).as_deref(), expected);
        for nonsense in [json!({}), json!({"type": 5}), json!({"type": "batch.failed", "data": "x"})] {
            assert_eq!(id(Hook::OPENAI, &nonsense), None);
            assert_eq!(id(Hook::DOUBLEWORD, &nonsense), None);
        }
    }
}
