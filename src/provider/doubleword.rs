//! Doubleword's batches (`docs/providers.md#doubleword`): OpenAI's with bare UUIDs for ids, which never expire.

use super::hook::Hook;
use super::openai::{Creation, Dialect, OpenAi};
use super::request::{Credential, Requests};
use super::submit::Intake;
use super::{Kind, is_uuid};
use crate::config::KindFacts;
use crate::domain::status::Status;

/// Doubleword, and a control layer of one's own.
pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "doubleword",
        key_env: &["DOUBLEWORD_API_KEY"],
        base_url_env: None,
        base_url: Some("https://api.doubleword.ai/v1"),
        key_optional: false,
        options: &[],
        required: &[],
        option_env: &[],
    },
    claims: is_uuid,
    words: &[
        ("validating", Status::Validating),
        ("in_progress", Status::InProgress),
        ("finalizing", Status::Finalizing),
        ("completed", Status::Completed),
        ("failed", Status::Failed),
        ("cancelling", Status::Cancelling),
        ("cancelled", Status::Cancelled),
    ],
    hook: Some(Hook::DOUBLEWORD),
    build: |account| {
        let requests = Requests::new(account, Credential::Bearer, &[]);
        Box::new(OpenAi::new(account, requests, DIALECT))
    },
};

const DIALECT: Dialect = Dialect {
    creation: Some(Creation { intake: Intake { one_model: false, ..Intake::OPENAI }, ..Creation::OPENAI }),
    // It says that the window is over, even of a batch that goes on: no batch here expires.
    amend: |_, sighting| sighting.expired_at = None,
    ..Dialect::OPENAI
};
