//! The rules that a file must keep: from what is written to a configuration that cannot be wrong.

mod prices;
mod providers;
mod rules;
mod sections;
mod webhooks;

pub use rules::Circumstances;

use super::problem::{Problem, Severity};
use super::raw::Raw;
use super::settings::{ApiConfig, ApiTable, Config, Origin};
use crate::domain::prices::{ImportedPrices, Prices};
use rules::Check;
use std::collections::BTreeMap;
use std::sync::Arc;
use webhooks::Names;

/// Judges a whole file: the configuration, unless one of the problems is an error.
pub fn check(raw: &Raw, circumstances: Circumstances<'_>) -> (Option<Config>, Vec<Problem>) {
    let mut check = Check {
        circumstances,
        problems: Vec::new(),
        places: raw.places.clone(),
        wrong_intervals: (false, false),
    };
    let state = check.state(&raw.state);
    let api = check.api(&raw.api);
    let http = check.http(&raw.http);
    let polling = check.polling(&raw.polling);
    let results = sections::results(&raw.results, state.as_ref());
    let files = sections::files(&raw.files, state.as_ref());
    let heartbeat = check.heartbeat(&raw.heartbeat);
    let rates = check.rates(&raw.prices);
    let providers = check.providers(&raw.providers, &polling);
    let names = Names::of(raw);
    let webhooks = check.webhooks(&raw.webhooks, &names, http.egress);
    let digests = check.digests(&raw.digests, &names);
    let Check { problems, places, circumstances, .. } = check;
    let sound = problems.iter().all(|problem| problem.severity == Severity::Warning);
    let config = state.filter(|_| sound).map(|state| Config {
        file: None,
        state,
        api,
        http,
        polling,
        results,
        prices: Arc::new(Prices::of(&rates, ImportedPrices::default())),
        rates,
        files,
        providers,
        webhooks,
        digests,
        heartbeat,
        warnings: Vec::new(),
        origin: Origin { places, webhooks: circumstances.catalog.webhooks.clone(), ..Origin::default() },
    });
    (config, problems)
}

/// Judges `[api]` alone, for commands that only want to find the daemon.
pub fn check_api(table: &ApiTable, circumstances: Circumstances<'_>) -> (ApiConfig, Vec<Problem>) {
    let mut check = Check {
        circumstances,
        problems: Vec::new(),
        places: BTreeMap::new(),
        wrong_intervals: (false, false),
    };
    let api = check.api(table);
    (api, check.problems)
}
