//! Floor 2: the wire formats of batch services, sans-IO, one file per service.
//!
//! An adapter builds requests and reads answers; it sends nothing, waits for nothing and asks no clock.
//! A new service is one file here, one line in [`KINDS`] and one block in `config.example.toml`.

pub mod anthropic;
pub mod gemini;
pub mod mistral;
pub mod openai;
pub mod read;

use crate::config::{KindFacts, ProviderConfig};
use crate::domain::sighting::Sighting;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use secrecy::SecretString;

/// One configured account at a service: builds requests, reads answers.
pub trait Provider: Send + Sync + std::fmt::Debug {
    /// Asks for one batch.
    fn retrieve(&self, id: &str) -> Result<Call, Failure>;

    /// Reads the answer to [`Provider::retrieve`].
    fn retrieved(&self, id: &str, answer: &Answer) -> Result<Sighting, Failure>;

    /// Asks for a page of the account's batches, newest first where the service can.
    fn list(&self, page: &PageRequest) -> Result<Call, Failure>;

    /// Reads the answer to [`Provider::list`].
    fn listed(&self, page: &PageRequest, answer: &Answer) -> Result<Page, Failure>;

    /// The path that a batch's requests go to where the service does not say.
    fn default_endpoint(&self) -> &'static str;

    /// Whether the service may say `completed` before the output file's id is there (contract §2).
    fn hold_incomplete(&self) -> bool {
        false
    }

    /// The page of the service's console about a batch, for people.
    fn console_url(&self, id: &str) -> Option<String>;
}

/// Which page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Where the page before ended; `None` for the first.
    pub cursor: Option<String>,
    /// How many batches at most; the adapter keeps it within what the service allows.
    pub limit: u32,
}

/// One page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The batches on it.
    pub sightings: Vec<Sighting>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<String>,
}

/// A kind of service, as the registry knows it.
#[derive(Debug)]
pub struct Kind {
    /// What the configuration needs to know.
    pub facts: KindFacts,
    /// Whether an id has this service's shape, and no other's (`providers.md` §2.1, the rows marked "yes").
    pub claims: fn(id: &str) -> bool,
    /// Makes the adapter.
    pub build: fn(&Account) -> Box<dyn Provider>,
}

/// What an adapter is made from.
#[derive(Debug)]
pub struct Account<'a> {
    /// The account's part of the configuration.
    pub config: &'a ProviderConfig,
    /// The key, if one is configured.
    pub api_key: Option<SecretString>,
}

/// Every kind of service.
pub const KINDS: &[&Kind] = &[
    //     &openai::KIND,openai::KIND,
    //     &anthropic::KIND,anthropic::KIND,
    //     &gemini::KIND,gemini::KIND,
    //     &mistral::KIND,mistral::KIND,
    //     &openai::COMPATIBLE,openai::COMPATIBLE,
];

/// The kind called `name`.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.facts.name == name)
}
