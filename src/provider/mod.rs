//! Floor 2: the wire formats of batch services, sans-IO, one file per service.
//!
//! An adapter builds requests and reads answers; it sends nothing, waits for nothing and asks no clock.
//! A service that speaks OpenAI's API at another address is a row in `dialects.rs`; any other is a file here and a line
//! in `registry.rs` (`CONTRIBUTING.md`).

pub mod answer;
pub mod anthropic;
mod avro;
pub mod azure_openai;
pub mod bedrock;
pub mod bounds;
pub mod chat;
mod chat_line;
pub mod cohere;
mod conversation;
pub mod dashscope;
pub mod dialects;
mod effort;
pub mod fates;
mod fields;
pub mod fireworks;
mod gcs;
pub mod gemini;
pub mod given_line;
pub mod hook;
pub mod input_checker;
mod input_problem;
pub mod lenient;
mod line;
pub mod litellm;
pub mod mistral;
mod model_names;
pub mod model_prefix;
pub mod openai;
pub mod openai_results;
pub mod openrouter;
pub mod otari;
pub mod page_items;
mod pieces;
pub mod quota;
pub mod read;
mod reading;
pub mod records;
pub mod registry;
pub mod request;
mod response_format;
pub mod results;
mod s3;
pub mod salvage;
mod scan;
mod staged;
pub mod submit;
pub mod together;
mod tools;
mod unsupported;
pub mod vertex;
pub mod voyage;
pub mod xai;

use crate::config::{KindFacts, ProviderConfig};
use crate::domain::batch::Batch;
use crate::domain::sighting::Sighting;
use crate::domain::status::Status;
use crate::http::authorize::Issuer;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use given_line::GivenLine;
use hook::Hook;
use http::{HeaderMap, Method};
use openai_results::OneStream;
use reading::MAX_ID_BYTES;
use results::{Fetch, OutputLine, Part, Record};
use secrecy::SecretString;
use serde_json::{Map, Value};
use submit::{Intake, Job, RequestLine, Submission, Translated, Untranslatable};
use unsupported::{no_results, no_submit, unsupported};

/// One configured account at a service: builds requests, reads answers.
pub trait Provider: Send + Sync + std::fmt::Debug {
    fn retrieve(&self, id: &str) -> Result<Call, Failure>;

    /// Reads the answer to [`Provider::retrieve`].
    fn retrieved(&self, id: &str, answer: &Answer) -> Result<Sighting, Failure>;

    /// What the service's list can do for many batches at once; `None`: each is retrieved by itself.
    fn listing(&self) -> Option<Listing> {
        None
    }

    /// Asks for a page of the account's batches, newest first where the service can.
    fn list(&self, page: &PageRequest) -> Result<Call, Failure>;

    /// Reads the answer to [`Provider::list`].
    fn listed(&self, page: &PageRequest, answer: &Answer) -> Result<Page, Failure>;

    /// The one way to write `id` where the service accepts several: Gemini's `x` is `batches/x`.
    fn canonical_id(&self, id: &str) -> String {
        id.to_owned()
    }

    /// The path that a batch's requests go to where the service does not say.
    fn default_endpoint(&self) -> &'static str;

    /// Whether the service may say `completed` before the output file's id is there (`docs/contract.md#the-batch-shape`).
    fn hold_incomplete(&self) -> bool {
        false
    }

    /// The page of the service's console about a batch, for people.
    fn console_url(&self, id: &str) -> Option<String>;

    /// Who gives out the [`Grant`](crate::http::call::Grant)s that its calls need, if they need any: the account's
    /// transport adds them as each call leaves.
    fn issuer(&self) -> Option<Issuer> {
        None
    }

    fn cancel(&self, _id: &str) -> Result<Call, Failure> {
        unsupported("cancels no batches through its API, or not in a way that is sure enough to rely on")
    }

    /// Reads the answer to [`Provider::cancel`]; `None`: it was accepted, and nothing is told of the batch.
    fn cancelled(&self, id: &str, answer: &Answer) -> Result<Option<Sighting>, Failure> {
        self.retrieved(id, answer).map(Some)
    }

    /// The company whose models alone the service runs, by its usual name; `None`: models of several.
    fn models_of(&self) -> Option<&'static str> {
        None
    }

    /// What the service takes as the input of a batch for `endpoint`.
    fn intake(&self, _endpoint: &str) -> Result<Intake, Failure> {
        no_submit()
    }

    /// A request of the local file as the service wants it: one in OpenAI's form is translated, one in the service's
    /// own form is taken as it is.
    fn translate(&self, line: RequestLine) -> Result<Translated, Untranslatable> {
        Ok(Translated { object: line.object, dropped: Vec::new() })
    }

    fn submit(&self, _job: &Job) -> Result<Box<dyn Submission>, Failure> {
        no_submit()
    }

    /// Begins to fetch a part of the results of a batch that has ended; `None`: the batch has no such part.
    fn results(&self, _batch: &Batch, _part: Part) -> Result<Option<Box<dyn Fetch>>, Failure> {
        no_results()
    }

    /// One record of the results in OpenAI's form.
    ///
    /// # Errors
    ///
    /// What is wrong with a record that is none, as a fragment of a sentence.
    fn output_line(&self, _record: Record<'_>) -> Result<OutputLine, String> {
        Err("results of this kind of provider cannot be read".to_owned())
    }

    /// Writes a record as a line in OpenAI's form behind what is in `out`, without taking it apart: the same bytes that
    /// come of [`Provider::output_line`]. `None`: it takes more than that to tell, as for everything unusual; then `out`
    /// may hold a part of a line.
    fn write_line<'a>(
        &self,
        _record: &'a [u8],
        _batch: &'a Batch,
        _out: &mut Vec<u8>,
    ) -> Option<GivenLine<'a>> {
        None
    }

    /// Begins to fetch the input of a batch, in lines as it was sent.
    fn input(&self, batch: &Batch) -> Result<Box<dyn Fetch>, Failure> {
        self.file_content(&batch.input_file_id).map(OneStream::lines)
    }

    /// Whether [`Provider::output_line`] reads a record that is in OpenAI's form as
    /// [`openai_results::output_line`] does: then such a record need not be taken apart.
    fn gives_openai_lines(&self) -> bool {
        false
    }

    /// Asks for the content of a file by the service's own id for it.
    fn file_content(&self, _file: &str) -> Result<Call, Failure> {
        unsupported("keeps no files that can be fetched by their id")
    }

    /// A request of OpenAI's files and batches API, passed through: `path` is what stands behind `/v1`, encoded, and
    /// begins with a slash. Only services with OpenAI's interface take it.
    fn pass(&self, _method: &Method, _path: &str, _query: Option<&str>) -> Result<Call, Failure> {
        unsupported("does not have OpenAI's interface")
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Where the page before ended; `None` for the first.
    pub cursor: Option<String>,
    /// How many batches at most; the adapter keeps it within what the service allows.
    pub limit: u32,
    /// Only batches that have not ended, where [`Listing::live_only`] says so; other services give all.
    pub live_only: bool,
    /// Only these batches, where [`Listing::by_id`] says so; empty: all.
    pub ids: Vec<String>,
}

/// What a service's list is good for (`docs/providers.md#polling-budgets`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The most batches on a page; [`u32::MAX`] where one answer holds them all.
    pub size: u32,
    /// Whether an item tells all that [`Provider::retrieve`] does. Where it does not, a page shows only that nothing
    /// has changed, and whatever it shows changed is retrieved.
    pub complete: bool,
    /// Whether pages of live batches alone can be had ([`PageRequest::live_only`]).
    pub live_only: bool,
    /// How many batches can be asked for by their ids in one request ([`PageRequest::ids`]); 0: none.
    pub by_id: u32,
    /// Whether a page can be begun behind any batch that the list has, as its cursors are the ids of batches.
    pub behind_any: bool,
}

impl Listing {
    /// A list of complete items, `size` a page, that can only be read from its newest batch on.
    pub const fn pages(size: u32) -> Self {
        Self { size, complete: true, live_only: false, by_id: 0, behind_any: false }
    }

    /// The same, but it can be begun behind any batch.
    pub const fn behind_ids(size: u32) -> Self {
        Self { behind_any: true, ..Self::pages(size) }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub sightings: Vec<Sighting>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<String>,
}

/// A kind of service, as the registry knows it.
#[derive(Debug)]
pub struct Kind {
    /// What the configuration needs to know.
    pub facts: KindFacts,
    /// Whether an id has this service's shape (`docs/providers.md#guessing-the-provider-from-an-id`).
    pub claims: fn(id: &str) -> bool,
    /// Its status words, each with every status that it can mean.
    pub words: &'static [(&'static str, Status)],
    /// How the service's own webhooks are read; `None`: it sends none.
    pub hook: Option<Hook>,
    pub build: fn(&Account) -> Box<dyn Provider>,
}

/// What an adapter is made from.
#[derive(Clone, Debug)]
pub struct Account<'a> {
    /// The account's part of the configuration.
    pub config: &'a ProviderConfig,
    /// The key, if one is configured.
    pub api_key: Option<SecretString>,
    /// The bearer's token in its place, if one is configured.
    pub auth_token: Option<SecretString>,
    /// Further headers of every request to the account's own address.
    pub headers: HeaderMap,
}

impl<'a> Account<'a> {
    /// With a key alone.
    pub fn new(config: &'a ProviderConfig, api_key: Option<SecretString>) -> Self {
        Self { config, api_key, auth_token: None, headers: HeaderMap::new() }
    }
}

/// Whether it is a UUID in lower case, the shape of several services' ids (`docs/providers.md#guessing-the-provider-from-an-id`).
fn is_uuid(id: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&str> = id.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.into_iter().all(is_hex)
}

/// Whether it is `batch_` and a UUID, which is the shape of several services' ids too.
fn is_prefixed_uuid(id: &str) -> bool {
    id.strip_prefix("batch_").is_some_and(is_uuid)
}

/// What stands for a file's id where a provider has results but no file (`docs/contract.md#the-batch-shape`).
fn results_id(provider: &str, id: &str) -> String {
    format!("results:{provider}:{id}")
}

/// What `read` makes of `object`, if that is about the batch `asked`.
///
/// An object without an id, which belongs under `key`, is taken for what was asked if only a batch can look like that.
fn about(
    asked: &str,
    key: &str,
    mut object: Map<String, Value>,
    is_same: impl FnOnce(&str) -> bool,
    read: impl Fn(&Map<String, Value>) -> Sighting,
) -> Result<Sighting, Failure> {
    let sighting = read(&object);
    if sighting.id.is_empty() {
        if sighting.status.is_none() || sighting.created_at.is_none() {
            return Err(Failure::Malformed(format!("there is no `{key}` in it")));
        }
        object.insert(key.to_owned(), asked.into());
        return Ok(Sighting { unreadable: sighting.unreadable, ..read(&object) });
    }
    if !is_same(&sighting.id) {
        let [told, asked] = [&sighting.id, asked].map(answer::shorten);
        return Err(Failure::Malformed(format!("it is about `{told}`, not `{asked}`")));
    }
    Ok(sighting)
}

/// What `read` makes of a page's items; what has no id is no batch, and neither is what has one that is too long for it.
fn sightings(items: &[Value], read: impl Fn(&Map<String, Value>) -> Sighting) -> Vec<Sighting> {
    let is_batch = |sighting: &Sighting| {
        let id = &sighting.id;
        !id.is_empty() && id.len() <= MAX_ID_BYTES && !id.contains(char::is_control)
    };
    items.iter().filter_map(Value::as_object).map(read).filter(is_batch).collect()
}

/// Where the next page begins at services that continue after an id; `None` if the server does not get on.
fn after_last(page: &PageRequest, told: Option<String>, sightings: &[Sighting]) -> Option<String> {
    let last = told.or_else(|| Some(sightings.last()?.id.clone()));
    last.filter(|last| page.cursor.as_ref() != Some(last))
}
