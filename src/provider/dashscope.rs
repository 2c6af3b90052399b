//! Alibaba's batches in DashScope, or Model Studio (`providers.md` §3.12): OpenAI's at another address.

use super::openai::{Dialect, OpenAi};
use super::read;
use super::request::{Credential, Requests};
use super::{Kind, is_prefixed_uuid};
use crate::config::KindFacts;

/// DashScope.
pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "dashscope",
        key_env: &["DASHSCOPE_API_KEY"],
        base_url_env: None,
        base_url: Some("https://dashscope.aliyuncs.com/compatible-mode/v1"),
        key_optional: false,
        options: &[],
        required: &[],
        option_env: &[],
    },
    claims: is_prefixed_uuid,
    words: &read::OPENAI_WORDS,
    hook: None,
    build: |account| {
        let requests = Requests::new(account, Credential::Bearer, &[]);
        Box::new(OpenAi::new(account, requests, DIALECT))
    },
};

/// Results are kept for thirty days, in seconds.
const DIALECT: Dialect = Dialect { files_live: Some(30 * 86_400), ..Dialect::OPENAI };
