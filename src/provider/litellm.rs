//! A LiteLLM proxy (`docs/providers/litellm.md`): OpenAI's batches in front of other services.

use super::Kind;
use super::openai::{Creation, Dialect, OpenAi, is_routed};
use super::read;
use super::request::{Credential, Requests};
use super::submit::Intake;
use crate::config::KindFacts;

pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "litellm",
        key_env: &["LITELLM_API_KEY", "LITELLM_PROXY_API_KEY"],
        base_url_env: Some("LITELLM_PROXY_API_BASE"),
        base_url: Some("http://localhost:4000"),
        key_optional: true,
        options: &["upstream"],
        ..KindFacts::NONE
    },
    claims: is_routed,
    words: &read::OPENAI_WORDS,
    hook: None,
    build: |account| {
        let upstream = account.config.options.get("upstream");
        // A creation is told so, …
        let headers: Vec<_> =
            upstream.iter().map(|upstream| ("custom-llm-provider", upstream.as_str())).collect();
        let mut requests = Requests::new(account, Credential::Bearer, &headers).versioned("v1");
        // … and everything else in the query too, which older proxies want.
        if let Some(upstream) = upstream {
            requests = requests.with_query("custom_llm_provider", upstream);
        }
        // Only services with OpenAI's interface keep the metadata that tells one batch from another.
        let marks = upstream.is_none_or(|upstream| matches!(upstream.as_str(), "openai" | "azure"));
        let intake = Intake { one_model: false, marks, ..Intake::OPENAI };
        let creation = Some(Creation { intake, ..Creation::OPENAI });
        Box::new(OpenAi::new(account, requests, &Dialect { creation, ..Dialect::OPENAI }))
    },
};
