//! The rules for the tables that a file has once: `[state]`, `[api]`, `[http]`, `[polling]`, `[results]`, `[heartbeat]`.

use super::rules::Check;
use crate::config::find;
use crate::config::outbound::{Egress, Proxy};
use crate::config::problem::{Problem, quote};
use crate::config::secret::SecretSource;
use crate::config::server_address::{LONGEST_NAME, ServerAddress, is_name, not_one};
use crate::config::settings::{
    ApiConfig, ApiTable, FilesConfig, FilesTable, HeartbeatConfig, HeartbeatTable, HttpConfig, HttpTable,
    Polling, PollingTable, ResultsConfig, ResultsTable, StateConfig, StateTable,
};
use crate::config::table::Field;
use crate::domain::duration::compact;
use secrecy::ExposeSecret;
use std::time::Duration;
use toml::Spanned;

impl Check<'_> {
    pub fn state(&mut self, table: &StateTable) -> Option<StateConfig> {
        if let Some(retain) = table.retain.given().filter(|retain| *retain.get_ref() < SHORT_RETAIN) {
            let message = "`state.retain` is so short that ended batches are gone before anybody sees them";
            self.warn(retain.span(), message);
        }
        self.server(table);
        let usual = find::state_dir(self.circumstances.base.env);
        if usual.is_none() && table.dir.given().is_none() {
            self.problems.push(
                Problem::error(
                    None,
                    "there is no place for the state: neither HOME nor XDG_STATE_HOME is set",
                )
                .help("set `dir` in `[state]`".to_owned()),
            );
            return None;
        }
        Some(table.over(StateConfig { dir: usual.unwrap_or_default(), ..StateConfig::usual() }))
    }

    /// `url`, `name` and `lease` of `[state]`.
    fn server(&mut self, table: &StateTable) {
        if let Some(url) = table.url.given() {
            let source = self.source("state.url", url);
            if let SecretSource::Inline(text) = &source
                && let Err(problem) = text.expose_secret().trim().parse::<ServerAddress>()
            {
                self.refuse(
                    url.span(),
                    format!("`state.url`: {}", not_one(&source.describe(), &problem)),
                    None,
                );
            }
        } else if table.url.is_missing() {
            let spans = [
                ("name", table.name.given().map(Spanned::span)),
                ("lease", table.lease.given().map(Spanned::span)),
            ];
            for (key, span) in spans {
                if let Some(span) = span {
                    self.warn(span, format!("`state.{key}` has no effect without `state.url`"));
                }
            }
        }
        if let Some(name) = table.name.given()
            && !((1..=LONGEST_NAME).contains(&name.get_ref().len()) && name.get_ref().chars().all(is_name))
        {
            let message = format!("{} cannot be the name of a daemon", quote(name.get_ref()));
            let help = format!("names are made of at most {LONGEST_NAME} letters, digits, `-`, `_` and `.`");
            self.refuse(name.span(), message, help);
        }
    }

    pub fn api(&mut self, table: &ApiTable) -> ApiConfig {
        if let Some(token) = table.token.given() {
            self.source("api.token", token);
        }
        if let Some(token) = table.read_token.given() {
            self.source("api.read_token", token);
        }
        if let Some(listen) = table.listen.given()
            && table.token.is_missing()
            && table.read_token.is_missing()
            && !listen.get_ref().ip().is_loopback()
        {
            let message = "`api.listen` is reachable from other machines, and no `token` protects it";
            let help = "set `token` in `[api]`, or listen on 127.0.0.1";
            self.refuse(listen.span(), message, help.to_owned());
        }
        table.over(ApiConfig::usual())
    }

    pub fn http(&mut self, table: &HttpTable) -> HttpConfig {
        let http = table.over(HttpConfig::usual());
        if let (Some(proxy), Egress::Public) = (table.proxy.given(), http.egress)
            && !matches!(http.proxy, Proxy::None)
        {
            let message = "through a proxy `http.egress` holds for addresses that stand in a URL: names are resolved by the \
                           proxy, which must keep to public addresses itself";
            self.warn(proxy.span(), message);
        }
        http
    }

    pub fn polling(&mut self, table: &PollingTable) -> Polling {
        self.polling_over(POLLING, table, Polling::usual())
    }

    /// `[polling]`, or a provider's keys of the same names over `defaults`.
    pub fn polling_over(&mut self, path: &str, table: &PollingTable, defaults: Polling) -> Polling {
        let polling = table.over(defaults);
        let general = path == POLLING;
        if general {
            self.wrong_intervals = (table.min_interval.is_wrong(), table.max_interval.is_wrong());
        }
        // What was not understood has been told, and nothing is known of what it would be.
        let (min, max) = (&table.min_interval, &table.max_interval);
        let (no_usual_min, no_usual_max) = self.wrong_intervals;
        let unknown =
            |field: &Field<Duration>, no_usual: bool| field.is_wrong() || (field.is_missing() && no_usual);
        if unknown(min, no_usual_min)
            || unknown(max, no_usual_max)
            || polling.min_interval <= polling.max_interval
        {
            return polling;
        }
        let table_of = |field: &Field<Duration>| if field.given().is_some() { path } else { POLLING };
        let (min_table, max_table) = (table_of(min), table_of(max));
        // The second of two keys of one table needs its table no more.
        let named = |table: &str, key: &str, second: bool| {
            if second && min_table == max_table { format!("`{key}`") } else { format!("`{table}.{key}`") }
        };
        let shortest = |second: bool| {
            format!("{} ({})", named(min_table, "min_interval", second), compact(polling.min_interval))
        };
        let longest = |second: bool| {
            format!("{} ({})", named(max_table, "max_interval", second), compact(polling.max_interval))
        };
        let help = "set both, the longer one as `max_interval`".to_owned();
        match (min.given(), max.given()) {
            (Some(given), _) => self.refuse(
                given.span(),
                format!("{} is longer than {}", shortest(false), longest(true)),
                help,
            ),
            (None, Some(given)) => {
                self.refuse(
                    given.span(),
                    format!("{} is shorter than {}", longest(false), shortest(true)),
                    help,
                );
            }
            (None, None) => {}
        }
        polling
    }

    pub fn heartbeat(&mut self, table: &HeartbeatTable) -> Option<HeartbeatConfig> {
        let Some(url) = table.url.given() else {
            if let Some(every) = table.every.given().filter(|_| table.url.is_missing()) {
                self.warn(every.span(), "`heartbeat.every` has no effect without `heartbeat.url`");
            }
            return None;
        };
        // Whoever knows the address can pretend that all is well.
        self.inline_address("heartbeat.url", url);
        let url = self.source("heartbeat.url", url);
        Some(table.over(HeartbeatConfig::usual(url)))
    }
}

/// `[results]`; there are no rules but those of each key.
pub fn results(table: &ResultsTable, state: Option<&StateConfig>) -> ResultsConfig {
    let dir = state.map(|state| state.dir.join("results")).unwrap_or_default();
    table.over(ResultsConfig { dir, ..ResultsConfig::usual() })
}

/// `[files]`, in the same way.
pub fn files(table: &FilesTable, state: Option<&StateConfig>) -> FilesConfig {
    let dir = state.map(|state| state.dir.join("files")).unwrap_or_default();
    table.over(FilesConfig { dir, ..FilesConfig::usual() })
}

/// The table whose keys hold where a provider's table has none.
const POLLING: &str = "polling";

/// Whoever keeps things shorter than this has probably mistaken the unit.
const SHORT_RETAIN: Duration = Duration::from_hours(1);
