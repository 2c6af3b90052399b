//! DeepInfra's batches (`docs/providers.md#deepinfra`): OpenAI's at another address.

use super::Kind;
use super::openai::{Creation, Dialect, OpenAi, megabytes};
use super::read;
use super::request::{Credential, Requests};
use super::submit::Intake;
use crate::config::KindFacts;

/// DeepInfra.
pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "deepinfra",
        key_env: &["DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"],
        base_url_env: None,
        base_url: Some("https://api.deepinfra.com/v1/openai"),
        key_optional: false,
        options: &[],
        required: &[],
        option_env: &[],
    },
    claims: |_| false,
    words: &read::OPENAI_WORDS,
    hook: None,
    build: |account| {
        let requests = Requests::new(account, Credential::Bearer, &[]);
        Box::new(OpenAi::new(account, requests, DIALECT))
    },
};

const DIALECT: Dialect = Dialect {
    creation: Some(Creation {
        intake: Intake {
            max_requests: Some(50_000),
            max_bytes: Some(megabytes(200)),
            one_model: false,
            endpoints: &["/v1/chat/completions", "/v1/completions", "/v1/embeddings"],
            ..Intake::OPENAI
        },
        ..Creation::OPENAI
    }),
    ..Dialect::OPENAI
};
