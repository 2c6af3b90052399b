//! DeepInfra's batches (`providers.md` §3.19): OpenAI's at another address.

use super::Kind;
use super::openai::{Dialect, OpenAi};
use super::read;
use super::request::{Credential, Requests};
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
        Box::new(OpenAi::new(account, requests, Dialect::OPENAI))
    },
};
