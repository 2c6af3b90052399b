//! Novita's batches (`providers.md` §3.23): OpenAI's with words in capitals.

use super::Kind;
use super::openai::{Dialect, OpenAi};
use super::request::{Credential, Requests};
use crate::config::KindFacts;
use crate::domain::status::Status;

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

/// Files are kept for fifteen days, in seconds.
const DIALECT: Dialect = Dialect { files_live: Some(15 * 86_400), ..Dialect::OPENAI };
