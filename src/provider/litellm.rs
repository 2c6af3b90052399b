//! A LiteLLM proxy (`providers.md` §3.21): OpenAI's batches in front of other services.

use super::Kind;
use super::openai::{Dialect, OpenAi, is_routed};
use super::read;
use super::request::{Credential, Requests};
use crate::config::KindFacts;

/// A LiteLLM proxy.
pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "litellm",
        key_env: &["LITELLM_API_KEY", "LITELLM_PROXY_API_KEY"],
        base_url_env: Some("LITELLM_PROXY_API_BASE"),
        base_url: Some("http://localhost:4000"),
        key_optional: true,
        options: &["upstream"],
        required: &[],
    },
    claims: is_routed,
    words: &read::OPENAI_WORDS,
    build: |account| {
        let mut requests = Requests::new(account, Credential::Bearer, &[]).versioned("v1");
        if let Some(upstream) = account.config.options.get("upstream") {
            requests = requests.with_query("custom_llm_provider", upstream);
        }
        Box::new(OpenAi::new(account, requests, Dialect::OPENAI))
    },
};
