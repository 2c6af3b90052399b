//! Novita's batches (`docs/providers.md#novita`): OpenAI's with words in capitals.

use super::Kind;
use super::openai::{Creation, Dialect, FileThenBatch, OpenAi, Way, bare, creation_without_metadata};
use super::request::{Credential, Requests};
use super::submit::{Intake, Job, LineForm, OPENAI_LINE};
use crate::config::KindFacts;
use crate::domain::status::Status;
use crate::http::failure::Failure;
use serde_json::{Map, Value};

/// Novita.
pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "novita",
        key_env: &["NOVITA_API_KEY"],
        base_url_env: None,
        base_url: Some("https://api.novita.ai/openai/v1"),
        key_optional: false,
        options: &[],
        required: &[],
        option_env: &[],
    },
    claims: |_| false,
    words: &[
        ("VALIDATING", Status::Validating),
        ("PROGRESS", Status::InProgress),
        ("IN_PROGRESS", Status::InProgress),
        ("FINALIZING", Status::Finalizing),
        ("COMPLETED", Status::Completed),
        ("FAILED", Status::Failed),
        ("EXPIRED", Status::Expired),
        ("CANCELLING", Status::Cancelling),
        ("CANCELLED", Status::Cancelled),
    ],
    hook: None,
    build: |account| {
        let requests = Requests::new(account, Credential::Bearer, &[]);
        Box::new(OpenAi::new(account, requests, DIALECT))
    },
};

const DIALECT: Dialect = Dialect {
    // Fifteen days, in seconds.
    file_retention_secs: Some(15 * 86_400),
    creation: Some(Creation {
        intake: Intake {
            own: LineForm {
                tells: &[("messages", "/v1/chat/completions"), ("prompt", "/v1/completions")],
                ..OPENAI_LINE
            },
            takes_openai: false,
            endpoints: &["/v1/chat/completions", "/v1/completions"],
            marks: false,
            ..Intake::OPENAI
        },
        translate: bare,
        begin: |adapter, job| FileThenBatch::begin(adapter, job, Way { creation, ..Way::OPENAI }),
    }),
    ..Dialect::OPENAI
};

/// The window is 48 hours, whatever is asked for.
fn creation(job: &Job) -> Result<Map<String, Value>, Failure> {
    let mut creation = creation_without_metadata(job)?;
    creation.remove("completion_window");
    Ok(creation)
}
