//! Azure OpenAI's batches (`docs/providers/azure-openai.md`): OpenAI's at a resource of one's own, the v1 and the classic way.

use super::hook::Hook;
use super::openai::{Creation, Dialect, FormFields, OpenAi, Way, creation as openai_creation, megabytes};
use super::read::{self, Reader};
use super::request::{Credential, Requests};
use super::submit::{Intake, Job};
use super::{Account, Kind, is_prefixed_uuid};
use crate::config::KindFacts;
use crate::domain::sighting::Sighting;
use crate::http::failure::Failure;
use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub const KIND: Kind = Kind {
    facts: KindFacts {
        name: "azure-openai",
        key_env: &["AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "AZURE_API_KEY"],
        key_header: "api-key",
        base_url_env: Some("AZURE_OPENAI_ENDPOINT"),
        options: &["api_version", "deployment"],
        ..KindFacts::NONE
    },
    claims: is_prefixed_uuid,
    words: &read::OPENAI_WORDS,
    hook: Some(Hook::OPENAI),
    build: |account| Box::new(OpenAi::new(account, requests(account), &DIALECT)),
};

const DIALECT: Dialect = Dialect {
    creation: Some(Creation {
        intake: Intake { max_requests: Some(100_000), max_bytes: Some(megabytes(200)), ..Intake::OPENAI },
        way: Way { inspects: true, upload_fields, creation, ..Way::OPENAI },
        ..Creation::OPENAI
    }),
    amend,
    ..Dialect::OPENAI
};

/// With an end of its own an input file is one of 10,000 that a resource may have, without one of 500. Versions of the
/// classic API before this one know no such field.
fn upload_fields(options: &BTreeMap<String, String>) -> FormFields {
    const SINCE: &str = "2025-04";
    match options.get("api_version") {
        Some(version) if version.as_str() < SINCE => &[],
        // Fourteen days, the least there is.
        _ => &[("expires_after.seconds", "1209600"), ("expires_after.anchor", "created_at")],
    }
}

/// Of whatever requests of text the file holds, the batch is said to be for chat completions: the service reads the
/// file, and takes nothing else (`docs/providers/azure-openai.md`).
fn creation(job: &Job) -> Result<Map<String, Value>, Failure> {
    let mut creation = openai_creation(job)?;
    if ["/chat/completions", "/responses", "/completions"].iter().any(|end| job.endpoint.ends_with(end)) {
        creation.insert("endpoint".to_owned(), "/chat/completions".into());
    }
    Ok(creation)
}

/// With a version every call is the classic API's, which tells it in the query; without, the v1 API's.
fn requests(account: &Account) -> Requests {
    let requests = Requests::new(account, credential(account), &[]);
    match account.config.options.get("api_version") {
        Some(version) => requests.rooted("/openai").with_query("api-version", version),
        None => requests.rooted("/openai/v1"),
    }
}

/// A key goes into a header of its own; a token of Microsoft Entra, which is a JWT, is a bearer's.
fn credential(account: &Account) -> Credential {
    match &account.api_key {
        Some(key) if key.expose_secret().trim_start().starts_with("eyJ") => Credential::Bearer,
        _ => Credential::Header("api-key"),
    }
}

fn amend(reader: &mut Reader<'_>, sighting: &mut Sighting) {
    // Results in the submitter's own storage have an address in place of an id.
    sighting.output_file_id = sighting.output_file_id.take().or_else(|| reader.text("output_blob"));
    sighting.error_file_id = sighting.error_file_id.take().or_else(|| reader.text("error_blob"));
}
