//! Z.ai's and Zhipu's batches (`docs/providers.md#zai-and-zhipu`): OpenAI's, whose requests go to `/v4`.

use super::Kind;
use super::openai::{Creation, Dialect, FileThenBatch, OpenAi, Way};
use super::read;
use super::request::{Credential, Requests};
use super::submit::{Intake, Job, RequestLine, Translated, Untranslatable};
use crate::config::KindFacts;
use serde_json::Value;

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

const DIALECT: Dialect = Dialect {
    endpoint: "/v4/chat/completions",
    creation: Some(Creation {
        intake: Intake { takes_openai: false, one_model: false, ..Intake::OPENAI },
        translate,
        begin: |adapter, job| {
            let job = Job { endpoint: own_path(&job.endpoint), ..job.clone() };
            FileThenBatch::begin(adapter, &job, Way::OPENAI)
        },
    }),
    ..Dialect::OPENAI
};

/// Paths are OpenAI's but for the version.
fn own_path(path: &str) -> String {
    path.strip_prefix("/v1/").map_or_else(|| path.to_owned(), |rest| format!("/v4/{rest}"))
}

#[expect(clippy::unnecessary_wraps, reason = "other services' translations may fail")]
fn translate(line: RequestLine) -> Result<Translated, Untranslatable> {
    let mut object = line.object;
    if let Some(Value::String(url)) = object.get_mut("url") {
        *url = own_path(url);
    }
    Ok(Translated { object, dropped: Vec::new() })
}
