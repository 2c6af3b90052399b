//! Tries a configuration before a daemon runs with it: a live call to each provider, a test event to each webhook.

use super::api::{CheckAnswer, TestAnswer};
use super::assembly::{Assembly, network};
use super::reports::{check_answer, sample, test_answer};
use crate::clock::Clock;
use crate::config::Config;
use crate::config::environment::Env;
use crate::domain::event::{Draft, EventType};
use crate::domain::status::Status;
use crate::domain::time::since;
use crate::engine::{Account, ProviderError};
use crate::http::failure::Failure;
use crate::notify::deliver;
use crate::provider::PageRequest;
use crate::webhook::EventBody;
use futures_util::future::join_all;
use jiff::Timestamp;

/// A configuration made real, with nothing of it running.
pub struct Trial {
    config: Config,
    clock: Clock,
    assembly: Assembly,
}

/// How a provider answered.
#[derive(Clone, Debug)]
pub struct Tried {
    pub answer: CheckAnswer,
    /// What time it is at the provider, if it says so, to the second.
    pub at: Option<Timestamp>,
}

impl Trial {
    /// Resolves the secrets of `config` and builds what it asks for.
    ///
    /// # Errors
    ///
    /// All that cannot be resolved or built, one line each.
    pub fn of(config: Config, env: &Env, clock: &Clock) -> Result<Self, Vec<String>> {
        let assembly = Assembly::of(&config, env, clock, &network())?;
        Ok(Self { config, clock: clock.clone(), assembly })
    }

    /// A live call to every provider.
    pub async fn providers(&self) -> Vec<Tried> {
        join_all(self.assembly.accounts.iter().map(|account| self.provider(account))).await
    }

    async fn provider(&self, account: &Account) -> Tried {
        let begun = self.clock.now();
        let mut at = None;
        let result = ask(account, &mut at).await;
        let name = &account.config.name;
        let result = result.map_err(|failure| ProviderError::Provider { provider: name.clone(), failure });
        Tried { answer: check_answer(&self.config, name, result, since(begun, self.clock.now())), at }
    }

    /// A test event to every webhook, with its name.
    pub async fn webhooks(&self) -> Vec<(String, TestAnswer)> {
        let now = self.clock.now();
        let kind = EventType::Batch(Status::Completed);
        let nonce = now.as_nanosecond().to_string();
        let draft = Draft::test(&sample(kind, now), kind, &nonce, now);
        let body = draft.body(0);
        let tests = self.assembly.destinations.iter().map(async |destination| {
            let event = EventBody { id: &draft.id, body: &body };
            let tried = deliver::attempt(destination, &[event], false, now).await;
            (destination.name().to_owned(), test_answer(draft.id.clone(), tried))
        });
        join_all(tests).await
    }
}

/// Asks for the first entry of the list; `at` becomes what time the answer says it is.
async fn ask(account: &Account, at: &mut Option<Timestamp>) -> Result<(), Failure> {
    let page = PageRequest { limit: 1, ..PageRequest::default() };
    let answer = account.send(account.adapter.list(&page)?).await?;
    *at = answer.header("date").and_then(|date| {
        let parser = jiff::fmt::rfc2822::DateTimeParser::new();
        parser.parse_timestamp(date).ok()
    });
    account.adapter.listed(&page, &answer).map(drop)
}
