//! An otari gateway (`docs/providers/otari.md`): OpenAI's batches without files, in front of other services.

use super::Kind;
use super::openai::{Creation, Dialect, OpenAi, RequestsWithin, ResultsLocation, Start, bare, metadata};
use super::openai_results::{error_of, failure_in, usage};
use super::read::{self, Reader};
use super::request::{Credential, Requests};
use super::results::{OutputLine, RequestResult};
use super::submit::{Framing, Intake, LineForm, MARKER, OPENAI_LINE};
use super::unsupported::unsupported;
use crate::config::KindFacts;
use crate::http::failure::Failure;
use serde_json::{Map, Value, json};

pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "otari",
        key_env: &["OTARI_API_KEY", "OTARI_AI_TOKEN", "GATEWAY_API_KEY"],
        base_url_env: Some("GATEWAY_API_BASE"),
        options: &["upstream"],
        required: &["upstream"],
        ..KindFacts::NONE
    },
    claims: |_| false,
    words: &read::OPENAI_WORDS,
    hook: None,
    build: |account| {
        let mut requests = Requests::new(account, Credential::Bearer, &[]).versioned("v1");
        // Every call must say which service has the batch.
        if let Some(upstream) = account.config.options.get("upstream") {
            requests = requests.with_query("provider", upstream);
        }
        Box::new(OpenAi::new(account, requests, &DIALECT))
    },
};

const DIALECT: Dialect = Dialect {
    results_location: ResultsLocation::Batch,
    passthrough: false,
    creation: Some(Creation {
        intake: Intake {
            framing: Framing::Array,
            own: LineForm { tells: &[("messages", "/v1/chat/completions")], ..OPENAI_LINE },
            takes_openai: false,
            max_requests: Some(10_000),
            endpoints: &["/v1/chat/completions"],
            // It passes metadata on, and not every service behind it keeps them.
            marks: false,
            ..Intake::OPENAI
        },
        translate: bare,
        begin: |start| RequestsWithin::begin(start, around),
        ..Creation::OPENAI
    }),
    output_line: Some(output_line),
    ..Dialect::OPENAI
};

/// What stands before the requests.
fn around(start: &Start) -> Result<Value, Failure> {
    let Start { options, job, .. } = start;
    let Some(model) = &job.model else {
        return unsupported("needs one model for all requests: give it with --model");
    };
    // The model says which service it is for; the requests' own is not read.
    let model = match options.get("upstream") {
        Some(upstream) if !model.starts_with(&format!("{upstream}:")) => format!("{upstream}:{model}"),
        _ => model.clone(),
    };
    let mut metadata = metadata(job);
    metadata.insert(MARKER.to_owned(), job.marker.as_str().into());
    Ok(json!({
        "model": model,
        "completion_window": job.completion_window,
        "metadata": metadata,
    }))
}

/// A result: the answer of the service behind the gateway as a chat completion, or an error.
fn output_line(object: &Map<String, Value>) -> Result<OutputLine, String> {
    let mut reader = Reader::new(object);
    let custom_id = reader.id("custom_id");
    let (result, usage) = match (reader.value("error"), reader.value("result")) {
        (Some(error), _) => (error_of(error), None),
        (None, Some(body)) => {
            let answer = RequestResult::Response { status_code: 200, request_id: None, body: body.clone() };
            (failure_in(body).unwrap_or(answer), usage(body))
        }
        (None, None) => return Err("it has neither a result nor an error".to_owned()),
    };
    Ok(OutputLine { id: None, custom_id, result, usage })
}
