//! Z.ai's and Zhipu's batches (`providers.md` §3.14): OpenAI's, whose requests go to `/v4`.

use super::Kind;
use super::openai::{Dialect, OpenAi};
use super::read;
use super::request::{Credential, Requests};
use crate::config::KindFacts;

/// Z.ai; Zhipu is the same at another address.
pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "zai",
        key_env: &["ZAI_API_KEY"],
        base_url_env: Some("ZAI_BASE_URL"),
        base_url: Some("https://api.z.ai/api/paas/v4"),
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

const DIALECT: Dialect = Dialect { endpoint: "/v4/chat/completions", ..Dialect::OPENAI };
