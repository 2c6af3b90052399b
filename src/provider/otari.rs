//! An otari gateway (`providers.md` §3.22): OpenAI's batches without files, in front of other services.

use super::Kind;
use super::openai::{Dialect, Keeping, OpenAi};
use super::openai_results::{error_of, usage};
use super::read::{self, Reader};
use super::request::{Credential, Requests};
use super::results::{OutputLine, RequestResult};
use crate::config::KindFacts;
use serde_json::{Map, Value};

/// An otari gateway.
pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "otari",
        key_env: &["OTARI_API_KEY", "OTARI_AI_TOKEN", "GATEWAY_API_KEY"],
        base_url_env: Some("GATEWAY_API_BASE"),
        base_url: None,
        key_optional: false,
        options: &["upstream"],
        required: &["upstream"],
        option_env: &[],
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
        Box::new(OpenAi::new(account, requests, DIALECT))
    },
};

const DIALECT: Dialect = Dialect { keeping: Keeping::Batch, passes: false, output_line, ..Dialect::OPENAI };

/// A result: the answer of the service behind the gateway as a chat completion, or an error.
fn output_line(object: &Map<String, Value>) -> Result<OutputLine, String> {
    let mut reader = Reader::new(object);
    let custom_id = reader.id("custom_id");
    let (result, usage) = match (reader.value("error"), reader.value("result")) {
        (Some(error), _) => (error_of(error), None),
        (None, Some(body)) => {
            let usage = usage(body);
            (RequestResult::Response { status_code: 200, request_id: None, body: body.clone() }, usage)
        }
        (None, None) => return Err("it has neither a result nor an error".to_owned()),
    };
    Ok(OutputLine { id: None, custom_id, result, usage })
}
