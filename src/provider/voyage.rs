//! Voyage's batches (`docs/providers/voyage.md`): OpenAI's with the model and all parameters in the creation, and requests
//! that hold nothing but what they are about.

use super::Kind;
use super::openai::{Creation, Dialect, OpenAi, Way, bare, creation as openai_creation, megabytes};
use super::read::{self, Reader};
use super::submit::{
    Intake, Job, LineForm, ModelPlace, OPENAI_LINE, RequestLine, Translated, Untranslatable,
};
use super::unsupported::unsupported;
use crate::config::KindFacts;
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use crate::http::failure::Failure;
use serde_json::{Map, Value, json};

pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "voyage",
        key_env: &["VOYAGE_API_KEY"],
        base_url: Some("https://api.voyageai.com/v1"),
        ..KindFacts::NONE
    },
    claims: |_| false,
    words: WORDS,
    hook: None,
    build: |account| Box::new(OpenAi::of(account, &DIALECT)),
};

/// Requests that were not done in time are in the error file of a batch that has completed.
const WORDS: &[(&str, Status)] = {
    let [validating, in_progress, finalizing, completed, failed, _, cancelling, cancelled] =
        read::OPENAI_WORDS;
    &[validating, in_progress, finalizing, completed, failed, cancelling, cancelled]
};

const DIALECT: Dialect = Dialect {
    endpoint: "/v1/embeddings",
    // Of files, in seconds.
    file_retention_secs: Some(30 * 86_400),
    creation: Some(Creation {
        intake: Intake {
            own: LineForm { model: ModelPlace::Job, tells: &SUBJECTS, ..OPENAI_LINE },
            takes_openai: false,
            max_requests: Some(100_000),
            max_bytes: Some(megabytes(1000)),
            endpoints: &["/v1/embeddings", "/v1/contextualizedembeddings", "/v1/rerank"],
            // That metadata are kept is not certain.
            marks: false,
            ..Intake::OPENAI
        },
        translate,
        way: Way { creation, ..Way::OPENAI },
        ..Creation::OPENAI
    }),
    amend,
    ..Dialect::OPENAI
};

/// The keys of a request that say what it is about, and the endpoint that each tells.
const SUBJECTS: [(&str, &str); 3] =
    [("input", "/v1/embeddings"), ("inputs", "/v1/contextualizedembeddings"), ("documents", "/v1/rerank")];

/// Leaves away what the batch says once. Every other parameter is the batch's too, and may not be lost.
fn translate(line: RequestLine) -> Result<Translated, Untranslatable> {
    let mut translated = bare(line)?;
    let Some(Value::Object(body)) = translated.object.get_mut("body") else {
        return Err(Untranslatable("it has no `body`".to_owned()));
    };
    body.shift_remove("model");
    let is_subject = |key: &str| key == "query" || SUBJECTS.iter().any(|(subject, _)| *subject == key);
    match body.keys().find(|key| !is_subject(key)) {
        Some(key) => Err(Untranslatable(format!(
            "`{key}` is the same for a whole batch there; give it with --param 'request_params={{\"{key}\": …}}'"
        ))),
        None => Ok(translated),
    }
}

/// The window is twelve hours, whatever is asked for.
fn creation(job: &Job) -> Result<Map<String, Value>, Failure> {
    let Some(model) = &job.model else {
        return unsupported("needs one model for all requests: give it with --model");
    };
    let mut creation = openai_creation(job)?;
    creation.insert("completion_window".to_owned(), "12h".into());
    creation.insert("request_params".to_owned(), json!({"model": model}));
    Ok(creation)
}

fn amend(reader: &mut Reader<'_>, sighting: &mut Sighting) {
    sighting.model = sighting.model.take().or_else(|| reader.text("request_params.model"));
    sighting.expires_at = sighting.expires_at.or_else(|| reader.time("expected_completion_at"));
}
