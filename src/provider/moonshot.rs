//! Moonshot's (Kimi's) batches (`docs/providers.md#moonshot`): OpenAI's at another address.

use super::Kind;
use super::openai::{Creation, Dialect, FileThenBatch, OpenAi, Way};
use super::read;
use super::request::{Credential, Requests};
use super::submit::Intake;
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
        Box::new(OpenAi::new(account, requests, DIALECT))
    },
};

const DIALECT: Dialect = Dialect {
    creation: Some(Creation {
        intake: Intake { one_model: false, endpoints: &["/v1/chat/completions"], ..Intake::OPENAI },
        begin: |adapter, job| {
            FileThenBatch::begin(adapter, job, Way { windows: Some((12, 7 * 24)), ..Way::OPENAI })
        },
        ..Creation::OPENAI
    }),
    ..Dialect::OPENAI
};
