//! OpenRouter's batches (`docs/providers/openrouter.md`): OpenAI's without files, and what is told of a batch that has
//! ended holds its results too.

use super::Kind;
use super::openai::{
    Creation, Dialect, OpenAi, RequestsWithin, ResultsLocation, Start, bare, creation_without_metadata,
    megabytes,
};
use super::read::{self, Reader};
use super::submit::{Framing, Intake, LineForm, OPENAI_LINE, only_a_day};
use super::unsupported::unsupported;
use crate::config::KindFacts;
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use crate::http::failure::Failure;
use serde_json::{Value, json};

pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "openrouter",
        key_env: &["OPENROUTER_API_KEY"],
        base_url_env: Some("OPENROUTER_BASE_URL"),
        base_url: Some("https://openrouter.ai/api/v1"),
        ..KindFacts::NONE
    },
    claims: |_| false,
    words: &read::OPENAI_WORDS,
    hook: None,
    build: |account| Box::new(OpenAi::of(account, &DIALECT)),
};

const DIALECT: Dialect = Dialect {
    root: "/api/v1",
    results_location: ResultsLocation::Retrieval,
    cancels: false,
    passthrough: false,
    // Thirty days, in seconds.
    file_retention_secs: Some(30 * 86_400),
    creation: Some(Creation {
        intake: Intake {
            framing: Framing::Array,
            own: LineForm {
                tells: &[("messages", "/v1/chat/completions"), ("input", "/v1/responses")],
                ..OPENAI_LINE
            },
            takes_openai: false,
            max_requests: Some(5_000),
            max_bytes: Some(megabytes(200)),
            endpoints: &["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings"],
            // It keeps no metadata.
            marks: false,
            ..Intake::OPENAI
        },
        translate: bare,
        begin: |start| {
            only_a_day(&start.job)?;
            RequestsWithin::begin(start, around)
        },
        ..Creation::OPENAI
    }),
    amend,
    ..Dialect::OPENAI
};

/// What stands before the requests, which the service wants last.
fn around(start: &Start) -> Result<Value, Failure> {
    let job = &start.job;
    creation_without_metadata(job)?;
    let Some(model) = &job.model else {
        return unsupported("needs one model for all requests: give it with --model");
    };
    Ok(json!({
        "endpoint": job.endpoint,
        "model": model,
        "completion_window": job.completion_window,
    }))
}

fn amend(reader: &mut Reader<'_>, sighting: &mut Sighting) {
    sighting.errors = sighting.errors.take().or_else(|| reader.errors("error"));
    // One time for every kind of end.
    sighting.ended_at =
        reader.time("finalized_at").filter(|_| sighting.status.is_some_and(Status::is_terminal));
}
