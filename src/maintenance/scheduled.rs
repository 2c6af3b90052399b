//! What has a calendar of its own in the configuration: rounds of discovery, and digests.

use super::housekeeping::Housekeeping;
use crate::config::Config;
use crate::domain::calendar::Calendar;
use crate::domain::time::since;
use crate::engine::ProviderError;
use crate::store::jobs::JobRun;
use jiff::Timestamp;
use std::time::Duration;

/// Something whose turn has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduledRun {
    /// A round of discovery.
    Discover {
        provider: String,
        /// What went wrong the last time, if it did.
        last_error: Option<String>,
    },
    Digest {
        name: String,
        /// What it covers; `None`: it is new, and covers what comes from now on.
        since: Option<Timestamp>,
        /// The turn itself.
        at: Timestamp,
    },
}

impl ScheduledRun {
    /// Its name in the table of runs.
    pub fn name(&self) -> String {
        match self {
            Self::Discover { provider, .. } => discovery_name(provider),
            Self::Digest { name, .. } => digest_name(name),
        }
    }
}

/// What is due at `now`; what was missed while nobody was there is due once.
///
/// Discovery begins at once where there has been none yet. A digest that is new has nothing to tell before its next
/// turn.
pub fn due(config: &Config, runs: &[JobRun], now: Timestamp) -> Vec<ScheduledRun> {
    // A clock that was set back must not put a turn off until it has caught up: a run in its future is none.
    let last = |name: String| {
        runs.iter().find(|run| run.name == name).filter(|run| since(now, run.started_at) < SLACK)
    };
    let turn = |calendar: &Calendar, run: &JobRun| calendar.due(run.started_at, now);
    let rounds = config.providers.values().filter_map(|provider| {
        let calendar = provider.discover.as_ref()?;
        let run = last(discovery_name(&provider.name));
        let is_due = run.is_none_or(|run| turn(calendar, run).is_some());
        is_due.then(|| ScheduledRun::Discover {
            provider: provider.name.clone(),
            last_error: run.and_then(|run| run.error.clone()),
        })
    });
    let digests = config.digests.values().filter_map(|digest| {
        let name = digest.name.clone();
        match last(digest_name(&name)) {
            None => Some(ScheduledRun::Digest { name, since: None, at: now }),
            Some(run) => {
                let at = turn(&digest.schedule, run)?;
                Some(ScheduledRun::Digest { name, since: Some(run.started_at), at })
            }
        }
    });
    rounds.chain(digests).collect()
}

impl Housekeeping {
    /// Does what is due.
    pub(super) async fn start_run(&self, run: ScheduledRun) {
        let job = run.name();
        match run {
            ScheduledRun::Discover { provider, last_error } => {
                self.discover(&provider, last_error.as_deref()).await;
            }
            ScheduledRun::Digest { name, since, at } => {
                if let Err(error) = self.digest(&name, since, at).await {
                    // It stays due.
                    tracing::error!(job, %error, "cannot record the digest; tried again at the next pass");
                }
            }
        }
    }

    async fn discover(&self, provider: &str, last_error: Option<&str>) {
        let started_at = self.clock.now();
        let stopping = self.tasks.stopping();
        let result = tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            result = self.engine.discover(provider) => result,
        };
        let error = match result {
            Ok(found) => {
                tracing::debug!(provider, found, "searched the provider's list for new batches");
                None
            }
            // It has left the configuration, or stands there anew: the next pass over the calendar knows.
            Err(ProviderError::NoProvider(_) | ProviderError::Retired(_)) => return,
            Err(error) => {
                let what = error.to_string();
                if last_error == Some(&what) {
                    tracing::debug!(
                        provider,
                        "the provider's list still cannot be searched for new batches: {what}"
                    );
                } else {
                    tracing::warn!(provider, "cannot search the provider's list for new batches: {what}");
                }
                Some(what)
            }
        };
        let run = JobRun { name: discovery_name(provider), started_at, finished_at: self.clock.now(), error };
        if let Err(error) = self.store.set_job_run(run).await {
            tracing::warn!(provider, %error, "cannot record that the provider's list was searched");
        }
    }
}

/// A clock may be set back by so much without anything being had again.
const SLACK: Duration = Duration::from_mins(1);

/// The name of a provider's rounds in the table of runs.
fn discovery_name(provider: &str) -> String {
    format!("discover {provider}")
}

/// The name of a digest in the table of runs.
pub(super) fn digest_name(name: &str) -> String {
    format!("digest {name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Catalog, Env, KindFacts, WebhookFacts};
    use std::path::Path;

    fn config() -> Config {
        let kind = KindFacts {
            name: "openai",
            base_url: Some("https://provider.invalid/v1"),
            key_optional: true,
            ..KindFacts::NONE
        };
        let webhook = WebhookFacts { name: "generic", findings: false, ..WebhookFacts::NONE };
        let catalog = Catalog { providers: vec![kind], webhooks: vec![webhook], ..Catalog::default() };
        let text = r#"
            [providers.openai]
            discover = "*/5 * * * *"
            [webhooks.ops]
            url = "https://receiver.invalid"
            [digests.morning]
            cron = "0 9 * * *"
            timezone = "Europe/Berlin"
            webhooks = ["ops"]
        "#;
        let env = Env::from([("HOME", "/nowhere")]);
        Config::parse(Path::new("/etc/batchd/config.toml"), text, &catalog, &env).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn run(name: &str, started_at: &str) -> JobRun {
        let started_at = at(started_at);
        JobRun { name: name.to_owned(), started_at, finished_at: started_at, error: None }
    }

    #[test]
    fn what_is_new_begins_and_what_was_missed_comes_once() {
        let config = config();
        let now = at("2026-11-24T12:02:00Z");
        let new = due(&config, &[], now);
        assert_eq!(
            new.iter().map(ScheduledRun::name).collect::<Vec<_>>(),
            ["discover openai", "digest morning"]
        );
        assert_eq!(new[1], ScheduledRun::Digest { name: "morning".to_owned(), since: None, at: now });

        let runs =
            [run("discover openai", "2026-11-24T12:00:03Z"), run("digest morning", "2026-11-24T08:00:00Z")];
        assert_eq!(due(&config, &runs, now), [], "all is done");

        // Days without a daemon: one digest over all of them, and one round.
        let runs =
            [run("discover openai", "2026-11-20T12:00:03Z"), run("digest morning", "2026-11-20T08:00:00Z")];
        let missed = due(&config, &runs, now);
        assert_eq!(missed.len(), 2);
        assert_eq!(
            missed[1],
            ScheduledRun::Digest {
                name: "morning".to_owned(),
                since: Some(at("2026-11-20T08:00:00Z")),
                at: at("2026-11-24T08:00:00Z"),
            }
        );
    }

    #[test]
    fn a_clock_that_was_set_back_puts_nothing_off() {
        let config = config();
        let runs =
            [run("discover openai", "2027-11-24T12:00:00Z"), run("digest morning", "2027-11-24T08:00:00Z")];
        assert_eq!(due(&config, &runs, at("2026-11-24T12:02:00Z")).len(), 2, "begun anew");
        // By a moment: nothing is had twice.
        let runs =
            [run("discover openai", "2026-11-24T12:00:00Z"), run("digest morning", "2026-11-24T08:00:00Z")];
        assert_eq!(due(&config, &runs, at("2026-11-24T11:59:58Z")), []);
    }
}
