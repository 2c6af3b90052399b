//! SiliconFlow's batches (`docs/providers.md#siliconflow`): OpenAI's, which wait in a queue at first.

use super::openai::{Creation, Dialect, FileThenBatch, OpenAi, Way};
use super::request::{Credential, Requests};
use super::submit::Intake;
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

const DIALECT: Dialect = Dialect {
    // Items of the list are abbreviated.
    listing: Listing { complete: false, ..Dialect::OPENAI.listing },
    creation: Some(Creation {
        intake: Intake { one_model: false, ..Intake::OPENAI },
        begin: |adapter, job| {
            FileThenBatch::begin(adapter, job, Way { windows: Some((24, 14 * 24)), ..Way::OPENAI })
        },
        ..Creation::OPENAI
    }),
    ..Dialect::OPENAI
};
