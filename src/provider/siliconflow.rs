//! SiliconFlow's batches (`providers.md` §3.15): OpenAI's, which wait in a queue at first.

use super::openai::{Dialect, OpenAi};
use super::request::{Credential, Requests};
use super::{Kind, Listing};
use crate::config::KindFacts;
use crate::domain::status::Status;

/// SiliconFlow.
pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "siliconflow",
        key_env: &["SILICONFLOW_API_KEY"],
        base_url_env: None,
        base_url: Some("https://api.siliconflow.cn/v1"),
        key_optional: false,
        options: &[],
        required: &[],
        option_env: &[],
    },
    claims: |_| false,
    words: &[
        ("in_queue", Status::Validating),
        ("validating", Status::Validating),
        ("in_progress", Status::InProgress),
        ("finalizing", Status::Finalizing),
        ("completed", Status::Completed),
        ("failed", Status::Failed),
        ("expired", Status::Expired),
        ("cancelling", Status::Cancelling),
        ("cancelled", Status::Cancelled),
    ],
    hook: None,
    build: |account| {
        let requests = Requests::new(account, Credential::Bearer, &[]);
        Box::new(OpenAi::new(account, requests, DIALECT))
    },
};

/// Items of the list are abbreviated.
const DIALECT: Dialect =
    Dialect { listing: Listing { complete: false, ..Dialect::OPENAI.listing }, ..Dialect::OPENAI };
