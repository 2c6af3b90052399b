//! Together's batches (`docs/providers/together.md`): progress in place of counts, and one error in words.

use super::openai::{Creation, Dialect, OpenAi, Paging, Way, bare, creation_without_metadata, megabytes};
use super::read::Reader;
use super::submit::{
    FILE_KEY, FILE_METHOD, IdRule, Intake, LineForm, OPENAI_LINE, RequestLine, Translated, Untranslatable,
};
use super::{Kind, Listing, is_uuid};
use crate::config::KindFacts;
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use serde_json::Value;

pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "together",
        key_env: &["TOGETHER_API_KEY"],
        base_url_env: Some("TOGETHER_BASE_URL"),
        base_url: Some("https://api.together.ai/v1"),
        ..KindFacts::NONE
    },
    claims: is_uuid,
    words: &[
        ("VALIDATING", Status::Validating),
        ("IN_PROGRESS", Status::InProgress),
        ("COMPLETED", Status::Completed),
        ("FAILED", Status::Failed),
        ("EXPIRED", Status::Expired),
        ("CANCELLING", Status::Cancelling),
        ("CANCELLED", Status::Cancelled),
    ],
    hook: None,
    build: |account| Box::new(OpenAi::of(account, &DIALECT)),
};

const DIALECT: Dialect = Dialect {
    listing: Listing::pages(u32::MAX),
    paging: Paging::Whole,
    // Its files have another purpose, and its creations are answered in an envelope.
    passthrough: false,
    creation: Some(Creation {
        intake: Intake {
            own: LineForm {
                tells: &[("messages", "/v1/chat/completions"), (FILE_KEY, "/v1/audio/transcriptions")],
                ..OPENAI_LINE
            },
            takes_openai: false,
            max_requests: Some(50_000),
            max_bytes: Some(megabytes(100)),
            custom_id: IdRule { longest: Some(64), plain: false },
            one_model: false,
            endpoints: &["/v1/chat/completions", "/v1/audio/transcriptions", "/v1/audio/translations"],
            marks: false,
            ..Intake::OPENAI
        },
        translate: line,
        way: Way {
            // The second is what the service's own guide shows.
            files: &["/files/upload", "/files"],
            purpose: "batch-api",
            describes: true,
            creation: creation_without_metadata,
            ..Way::OPENAI
        },
        ..Creation::OPENAI
    }),
    amend,
    ..Dialect::OPENAI
};

/// A request without its address; one about a recording has the method `FILE` in place of `POST`.
fn line(line: RequestLine) -> Result<Translated, Untranslatable> {
    let is_audio = line.object.get("url").and_then(Value::as_str).is_some_and(|url| url.contains("/audio/"));
    let mut translated = bare(line)?;
    if is_audio {
        translated.object.insert("method".to_owned(), FILE_METHOD.into());
    }
    Ok(translated)
}

fn amend(reader: &mut Reader<'_>, sighting: &mut Sighting) {
    sighting.model = sighting.model.take().or_else(|| reader.text("model_id"));
    sighting.expires_at = sighting.expires_at.or_else(|| reader.time("job_deadline"));
    sighting.errors = sighting.errors.take().or_else(|| reader.errors("error"));
    // One time for every kind of end.
    sighting.ended_at = sighting.completed_at.filter(|_| sighting.status.is_some_and(Status::is_terminal));
    if sighting.status != Some(Status::Completed) {
        sighting.completed_at = None;
    }
}
