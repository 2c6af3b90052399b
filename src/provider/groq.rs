//! Groq's batches (`docs/providers.md#groq`): OpenAI's, whose list goes on from a cursor.

use super::openai::{Creation, Dialect, FileThenBatch, OpenAi, Paging, Way, megabytes};
use super::read;
use super::request::{Credential, Requests};
use super::submit::Intake;
use super::{Kind, Listing};
use crate::config::KindFacts;

/// Groq.
pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "groq",
        key_env: &["GROQ_API_KEY"],
        base_url_env: Some("GROQ_BASE_URL"),
        base_url: Some("https://api.groq.com/openai/v1"),
        key_optional: false,
        options: &[],
        required: &[],
        option_env: &[],
    },
    claims: is_ulid,
    words: &read::OPENAI_WORDS,
    hook: None,
    build: |account| {
        // Groq's own libraries want the host alone.
        let requests = Requests::new(account, Credential::Bearer, &[]).rooted("/openai/v1");
        Box::new(OpenAi::new(account, requests, DIALECT))
    },
};

const DIALECT: Dialect = Dialect {
    // How many are on a page is not told; two hundred can be asked for by their ids.
    listing: Listing { by_id: 200, ..Listing::pages(20) },
    paging: Paging::Cursor,
    // Thirty days, in seconds.
    file_retention_secs: Some(30 * 86_400),
    creation: Some(Creation {
        intake: Intake {
            max_requests: Some(50_000),
            max_bytes: Some(megabytes(200)),
            one_model: false,
            ..Intake::OPENAI
        },
        begin: |adapter, job| {
            FileThenBatch::begin(adapter, job, Way { windows: Some((24, 7 * 24)), ..Way::OPENAI })
        },
        ..Creation::OPENAI
    }),
    ..Dialect::OPENAI
};

/// `batch_` and a ULID of this era in lower case (`docs/providers.md#guessing-the-provider-from-an-id`).
fn is_ulid(id: &str) -> bool {
    let is_digit = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'h' | b'j' | b'k' | b'm' | b'n' | b'p'..=b't' | b'v'..=b'z');
    id.strip_prefix("batch_01").is_some_and(|rest| rest.len() == 24 && rest.bytes().all(is_digit))
}
