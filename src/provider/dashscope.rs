//! Alibaba's batches in DashScope, or Model Studio (`docs/providers/dashscope.md`): OpenAI's at another address.

use super::openai::{Creation, Dialect, OpenAi, Way, bare_creation, megabytes, metadata};
use super::read::{self, Reader};
use super::submit::{Intake, Job, MARKER, marked_name, split_name};
use super::{Kind, is_prefixed_uuid};
use crate::config::KindFacts;
use crate::domain::sighting::Sighting;
use crate::http::failure::Failure;
use serde_json::{Map, Value};

pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "dashscope",
        key_env: &["DASHSCOPE_API_KEY"],
        base_url: Some("https://dashscope.aliyuncs.com/compatible-mode/v1"),
        ..KindFacts::NONE
    },
    claims: is_prefixed_uuid,
    words: &read::OPENAI_WORDS,
    hook: None,
    build: |account| Box::new(OpenAi::of(account, &DIALECT)),
};

const DIALECT: Dialect = Dialect {
    // Results are kept for thirty days, in seconds.
    file_retention_secs: Some(30 * 86_400),
    creation: Some(Creation {
        intake: Intake {
            max_requests: Some(50_000),
            max_bytes: Some(megabytes(500)),
            max_line_bytes: Some(megabytes(6)),
            endpoints: &["/v1/chat/completions", "/v1/embeddings", "/v1/chat/ds-test"],
            ..Intake::OPENAI
        },
        way: Way { windows: Some((24, 14 * 24)), creation, ..Way::OPENAI },
        ..Creation::OPENAI
    }),
    amend,
    ..Dialect::OPENAI
};

/// The key of a batch's name, among its metadata.
const NAME: &str = "ds_name";

const MAX_NAME_CHARS: usize = 100;

/// The batch's name, which stands among the metadata, carries the mark: of other keys it is not told whether they are
/// kept.
#[expect(clippy::unnecessary_wraps, reason = "other services refuse some metadata")]
fn creation(job: &Job) -> Result<Map<String, Value>, Failure> {
    let name = job.metadata.get(NAME).or(job.name.as_ref()).unwrap_or(&job.file_name);
    let room = MAX_NAME_CHARS.saturating_sub(marked_name("", &job.marker).chars().count());
    let name: String = name.chars().take(room).collect();
    let mut metadata = metadata(job);
    metadata.insert(NAME.to_owned(), marked_name(&name, &job.marker).into());
    let mut creation = bare_creation(job);
    creation.insert("metadata".to_owned(), metadata.into());
    Ok(creation)
}

/// The name without the mark, which becomes what it is at other services.
fn amend(_: &mut Reader<'_>, sighting: &mut Sighting) {
    let Some(metadata) = &mut sighting.metadata else { return };
    let Some(whole) = metadata.get(NAME).cloned() else { return };
    let (name, marker) = split_name(&whole);
    if let Some(marker) = marker {
        metadata.insert(MARKER.to_owned(), marker.to_owned());
        metadata.insert(NAME.to_owned(), name.to_owned());
    }
    sighting.display_name = Some(name.to_owned());
}
