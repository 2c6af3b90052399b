//! Moonshot's (Kimi's) batches (`providers.md` §3.13): OpenAI's at another address.

use super::Kind;
use super::openai::{Dialect, OpenAi};
use super::read;
use super::request::{Credential, Requests};
use crate::config::KindFacts;

/// Moonshot.
pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "moonshot",
        key_env: &["MOONSHOT_API_KEY"],
        base_url_env: None,
        base_url: Some("https://api.moonshot.cn/v1"),
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
