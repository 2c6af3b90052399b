//! An otari gateway (`providers.md` §3.22): OpenAI's batches without files, in front of other services.

use super::Kind;
use super::openai::{Dialect, Keeping, OpenAi};
use super::read;
use super::request::{Credential, Requests};
use crate::config::KindFacts;

/// An otari gateway.
pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "otari",
        key_env: &["OTARI_API_KEY", "OTARI_AI_TOKEN", "GATEWAY_API_KEY"],
        base_url_env: Some("GATEWAY_API_BASE"),
        base_url: None,
        key_optional: false,
        options: &["upstream"],
        required: &["upstream"],
    },
    claims: |_| false,
    words: &read::OPENAI_WORDS,
    build: |account| {
        let mut requests = Requests::new(account, Credential::Bearer, &[]).versioned("v1");
        // Every call must say which service has the batch.
        if let Some(upstream) = account.config.options.get("upstream") {
            requests = requests.with_query("provider", upstream);
        }
        Box::new(OpenAi::new(account, requests, DIALECT))
    },
};

const DIALECT: Dialect = Dialect { keeping: Keeping::Batch, ..Dialect::OPENAI };
