//! The configuration file as it is written: every table and key there is, each value with its type and its place.
//!
//! serde stops at the first thing that is wrong; here the document is walked, so that one run tells everything.

use super::problem::{Problem, known, nearest, quote, shown};
use super::secret::SecretSource;
use super::value::{
    Cell, bytes, count, cron, duration, durations, labels, path, rate, secret, secrets, switch, text, texts,
    time_zone, type_name,
};
use crate::domain::pace::Rate;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The value of a key, and its place.
#[derive(Debug, Default)]
pub enum Field<T> {
    /// The key is not there.
    #[default]
    Missing,
    /// It is there and was not understood, which has been told.
    Wrong,
    /// It is there.
    Given(Spanned<T>),
}

impl<T> Field<T> {
    /// The value, if there is one that was understood.
    pub fn given(&self) -> Option<&Spanned<T>> {
        match self {
            Self::Given(value) => Some(value),
            Self::Missing | Self::Wrong => None,
        }
    }

    /// Whether the key is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }

    /// Whether the key is there and was not understood.
    pub fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong)
    }
}

/// A whole file. Values have the right type and unit; whether they make sense together is judged in `check`.
#[derive(Debug, Default)]
pub struct Raw {
    /// `[state]`
    pub state: StateTable,
    /// `[api]`
    pub api: ApiTable,
    /// `[http]`
    pub http: HttpTable,
    /// `[polling]`
    pub polling: PollingTable,
    /// `[results]`
    pub results: ResultsTable,
    /// `[heartbeat]`
    pub heartbeat: HeartbeatTable,
    /// `[providers.NAME]`
    pub providers: Vec<Named<ProviderTable>>,
    /// `[webhooks.NAME]`
    pub webhooks: Vec<Named<WebhookTable>>,
    /// `[digests.NAME]`
    pub digests: Vec<Named<DigestTable>>,
}

/// A table that the user named.
#[derive(Debug)]
pub struct Named<T> {
    /// Its name; the place is that of the name in the table's header.
    pub name: Spanned<String>,
    /// What is in it.
    pub table: T,
}

/// `[state]`
#[derive(Debug, Default)]
pub struct StateTable {
    pub dir: Field<PathBuf>,
    pub retain: Field<Duration>,
}

/// `[api]`
#[derive(Debug, Default)]
pub struct ApiTable {
    pub socket: Field<PathBuf>,
    pub listen: Field<String>,
    pub token: Field<SecretSource>,
    pub hosts: Field<Vec<Spanned<String>>>,
}

/// `[http]`
#[derive(Debug, Default)]
pub struct HttpTable {
    pub proxy: Field<String>,
    pub ca_file: Field<PathBuf>,
    pub egress: Field<String>,
}

/// `[polling]`, and the same keys in a provider's table.
#[derive(Debug, Default)]
pub struct PollingTable {
    pub min_interval: Field<Duration>,
    pub max_interval: Field<Duration>,
    pub timeout: Field<Duration>,
    pub concurrency: Field<u32>,
    pub requests_per_minute: Field<u32>,
    pub stalled_after: Field<Duration>,
}

/// `[results]`
#[derive(Debug, Default)]
pub struct ResultsTable {
    pub download: Field<bool>,
    pub dir: Field<PathBuf>,
    pub retain: Field<Duration>,
    pub max_bytes: Field<u64>,
}

/// `[heartbeat]`
#[derive(Debug, Default)]
pub struct HeartbeatTable {
    pub url: Field<SecretSource>,
    pub every: Field<Duration>,
}

/// `[providers.NAME]`: the keys of every kind; which of them the kind has is judged in `check`.
#[derive(Debug, Default)]
pub struct ProviderTable {
    pub kind: Field<String>,
    pub api_key: Field<SecretSource>,
    pub base_url: Field<String>,
    pub webhook_secret: Field<SecretSource>,
    pub discover: Field<String>,
    pub polling: PollingTable,
    /// The keys of [`OPTIONS`] that are given.
    pub options: BTreeMap<&'static str, Spanned<String>>,
}

/// `[webhooks.NAME]`: the keys of every kind.
#[derive(Debug, Default)]
pub struct WebhookTable {
    pub kind: Field<String>,
    pub url: Field<SecretSource>,
    pub secret: Field<Vec<Spanned<SecretSource>>>,
    pub events: Field<Vec<Spanned<String>>>,
    pub severity: Field<String>,
    pub providers: Field<Vec<Spanned<String>>>,
    pub labels: Field<BTreeMap<String, String>>,
    pub on_request: Field<bool>,
    pub timeout: Field<Duration>,
    pub retry: Field<Vec<Spanned<Duration>>>,
    pub ca_file: Field<PathBuf>,
    pub insecure_skip_verify: Field<bool>,
    pub template: Field<String>,
    pub routing_key: Field<SecretSource>,
    pub topic: Field<SecretSource>,
    pub token: Field<SecretSource>,
    pub chat: Field<SecretSource>,
    pub rate: Field<Rate>,
}

/// `[digests.NAME]`
#[derive(Debug, Default)]
pub struct DigestTable {
    pub cron: Field<String>,
    pub timezone: Field<String>,
    pub webhooks: Field<Vec<Spanned<String>>>,
}

/// Every table and the keys that it may hold; `""` is the file itself, and `*` any name.
pub const TABLES: [(&str, &[&str]); 10] = [
    ("", &["state", "api", "http", "polling", "results", "heartbeat", "providers", "webhooks", "digests"]),
    ("state", &["dir", "retain"]),
    ("api", &["socket", "listen", "token", "hosts"]),
    ("http", &["proxy", "ca_file", "egress"]),
    (
        "polling",
        &["min_interval", "max_interval", "timeout", "concurrency", "requests_per_minute", "stalled_after"],
    ),
    ("results", &["download", "dir", "retain", "max_bytes"]),
    ("heartbeat", &["url", "every"]),
    (
        "providers.*",
        &[
            "kind",
            "api_key",
            "base_url",
            "webhook_secret",
            "discover",
            "min_interval",
            "max_interval",
            "timeout",
            "concurrency",
            "requests_per_minute",
            "stalled_after",
            "api_version",
            "deployment",
            "region",
            "profile",
            "project",
            "location",
            "account",
            "upstream",
            "organization",
            "access_key_id",
            "credentials_file",
            "role_arn",
            "input_uri",
            "output_uri",
            "storage_url",
        ],
    ),
    (
        "webhooks.*",
        &[
            "kind",
            "url",
            "secret",
            "events",
            "severity",
            "providers",
            "labels",
            "on_request",
            "timeout",
            "retry",
            "ca_file",
            "insecure_skip_verify",
            "template",
            "routing_key",
            "topic",
            "token",
            "chat",
            "rate",
        ],
    ),
    ("digests.*", &["cron", "timezone", "webhooks"]),
];

/// The further keys of providers that only some kinds have.
pub const OPTIONS: [&str; 15] = [
    "access_key_id",
    "account",
    "api_version",
    "credentials_file",
    "deployment",
    "input_uri",
    "location",
    "organization",
    "output_uri",
    "profile",
    "project",
    "region",
    "role_arn",
    "storage_url",
    "upstream",
];

/// How much of a value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// All of it.
    Plain,
    /// It, if it can be the name of an environment variable.
    Variable,
    /// Nothing.
    Secret,
    /// Scheme and host; the path too if `whole_path`.
    Address {
        /// Whether only a query and a user can be secret.
        whole_path: bool,
    },
}

/// How much of the value at this path of keys may be shown: nothing, unless it is known to be harmless.
pub fn visibility(path: &[&str]) -> Visibility {
    let (table, rest) = match path {
        [group @ ("providers" | "webhooks" | "digests"), _, rest @ ..] => (format!("{group}.*"), rest),
        [table, rest @ ..] => ((*table).to_owned(), rest),
        [] => return Visibility::Secret,
    };
    let [key, within @ ..] = rest else { return Visibility::Secret };
    if !keys_of(&table).contains(key) {
        return Visibility::Secret;
    }
    match (*key, within) {
        ("url", []) => Visibility::Address { whole_path: false },
        ("base_url" | "storage_url" | "proxy", []) => Visibility::Address { whole_path: true },
        (key, [source]) if SECRETS.contains(&key) || key == "url" => match *source {
            "env" => Visibility::Variable,
            "file" | "credential" => Visibility::Plain,
            _ => Visibility::Secret,
        },
        ("labels", [_]) => Visibility::Plain,
        (key, []) if !SECRETS.contains(&key) => Visibility::Plain,
        _ => Visibility::Secret,
    }
}

/// Whether it is the name of a table or of a group of tables.
pub fn is_table(name: &str) -> bool {
    keys_of("").contains(&name)
}

/// Whether some table has a key of this name.
pub fn is_key(name: &str) -> bool {
    TABLES.iter().any(|(_, keys)| keys.contains(&name))
}

/// Whether it is the name of a key that never holds a secret, in whatever table.
pub fn is_plain(name: &str) -> bool {
    !SECRETS.contains(&name)
        && !ADDRESSES.contains(&name)
        && TABLES.iter().any(|(table, keys)| !table.is_empty() && keys.contains(&name))
}

/// What a text was understood as.
#[derive(Debug)]
pub struct Reading<'a> {
    /// The document with every place; what could be made of it if it is no TOML.
    pub document: DeTable<'a>,
    /// What is in it.
    pub raw: Raw,
    /// Why it is no TOML.
    pub syntax: Option<Problem>,
    /// What is unknown, of the wrong type or in the wrong unit.
    pub problems: Vec<Problem>,
    /// How many of the problems, the first ones, are about `[api]`.
    pub api_problems: usize,
}

/// Reads the text of a file.
pub fn read(text: &str) -> Reading<'_> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let document = document.into_inner();
    let syntax = errors
        .iter()
        .min_by_key(|error| error.span().map_or(usize::MAX, |span| span.start))
        .map(|error| not_toml(error.message(), error.span()));
    let mut problems = Vec::new();
    let mut root = Table { path: String::new(), pattern: "", entries: &document, problems: &mut problems };
    let api = root.table("api", ApiTable::read);
    let api_problems = root.problems.len();
    let raw = Raw {
        state: root.table("state", StateTable::read),
        api,
        http: root.table("http", HttpTable::read),
        polling: root.table("polling", PollingTable::read),
        results: root.table("results", ResultsTable::read),
        heartbeat: root.table("heartbeat", HeartbeatTable::read),
        providers: root.named_tables("providers", "providers.*", ProviderTable::read),
        webhooks: root.named_tables("webhooks", "webhooks.*", WebhookTable::read),
        digests: root.named_tables("digests", "digests.*", DigestTable::read),
    };
    root.refuse_unknown();
    Reading { document, raw, syntax, problems, api_problems }
}

impl StateTable {
    fn read(table: &mut Table<'_, '_>) -> Self {
        Self { dir: table.take("dir", path), retain: table.take("retain", duration) }
    }
}

impl ApiTable {
    fn read(table: &mut Table<'_, '_>) -> Self {
        Self {
            socket: table.take("socket", path),
            listen: table.take("listen", text),
            token: table.take("token", secret),
            hosts: table.take("hosts", texts),
        }
    }
}

impl HttpTable {
    fn read(table: &mut Table<'_, '_>) -> Self {
        Self {
            proxy: table.take("proxy", text),
            ca_file: table.take("ca_file", path),
            egress: table.take("egress", text),
        }
    }
}

impl PollingTable {
    fn read(table: &mut Table<'_, '_>) -> Self {
        Self {
            min_interval: table.take("min_interval", duration),
            max_interval: table.take("max_interval", duration),
            timeout: table.take("timeout", duration),
            concurrency: table.take("concurrency", count),
            requests_per_minute: table.take("requests_per_minute", count),
            stalled_after: table.take("stalled_after", duration),
        }
    }
}

impl ResultsTable {
    fn read(table: &mut Table<'_, '_>) -> Self {
        Self {
            download: table.take("download", switch),
            dir: table.take("dir", path),
            retain: table.take("retain", duration),
            max_bytes: table.take("max_bytes", bytes),
        }
    }
}

impl HeartbeatTable {
    fn read(table: &mut Table<'_, '_>) -> Self {
        Self { url: table.take("url", secret), every: table.take("every", duration) }
    }
}

impl ProviderTable {
    fn read(table: &mut Table<'_, '_>) -> Self {
        Self {
            kind: table.take("kind", text),
            api_key: table.take("api_key", secret),
            base_url: table.take("base_url", text),
            webhook_secret: table.take("webhook_secret", secret),
            discover: table.take("discover", cron),
            polling: PollingTable::read(table),
            options: OPTIONS
                .into_iter()
                .filter_map(|key| match table.take(key, text) {
                    Field::Given(value) => Some((key, value)),
                    Field::Missing | Field::Wrong => None,
                })
                .collect(),
        }
    }
}

impl WebhookTable {
    fn read(table: &mut Table<'_, '_>) -> Self {
        Self {
            kind: table.take("kind", text),
            url: table.take("url", secret),
            secret: table.take("secret", secrets),
            events: table.take("events", texts),
            severity: table.take("severity", text),
            providers: table.take("providers", texts),
            labels: table.take("labels", labels),
            on_request: table.take("on_request", switch),
            timeout: table.take("timeout", duration),
            retry: table.take("retry", durations),
            ca_file: table.take("ca_file", path),
            insecure_skip_verify: table.take("insecure_skip_verify", switch),
            template: table.take("template", text),
            routing_key: table.take("routing_key", secret),
            topic: table.take("topic", secret),
            token: table.take("token", secret),
            chat: table.take("chat", secret),
            rate: table.take("rate", rate),
        }
    }
}

impl DigestTable {
    fn read(table: &mut Table<'_, '_>) -> Self {
        Self {
            cron: table.take("cron", cron),
            timezone: table.take("timezone", time_zone),
            webhooks: table.take("webhooks", texts),
        }
    }
}

/// A table that is being read.
struct Table<'a, 'i> {
    /// Its name in full; empty for the file itself.
    path: String,
    /// Its entry in [`TABLES`].
    pattern: &'static str,
    entries: &'a DeTable<'i>,
    problems: &'a mut Vec<Problem>,
}

impl<'i> Table<'_, 'i> {
    /// A key's value, understood by `read`.
    fn take<T>(&mut self, key: &'static str, read: fn(&mut Cell<'_, 'i>) -> Option<T>) -> Field<T> {
        let Some(value) = self.entries.get(key) else { return Field::Missing };
        let mut cell = Cell { path: self.full(key), value, problems: self.problems };
        read(&mut cell).map_or(Field::Wrong, |read| Field::Given(Spanned::new(value.span(), read)))
    }

    /// A table in this one; an empty one if it is not there.
    fn table<T>(&mut self, key: &'static str, read: fn(&mut Table<'_, 'i>) -> T) -> T {
        let missing = DeTable::new();
        let entries = match self.entries.get(key).map(|value| (value.span(), value.get_ref())) {
            Some((_, DeValue::Table(entries))) => entries,
            Some((span, other)) => {
                self.problems.push(no_table(key, other, span));
                &missing
            }
            None => &missing,
        };
        let mut table = Table { path: self.full(key), pattern: key, entries, problems: self.problems };
        let read = read(&mut table);
        table.refuse_unknown();
        read
    }

    /// The tables of a group, such as `[providers.NAME]`.
    fn named_tables<T>(
        &mut self,
        group: &'static str,
        pattern: &'static str,
        read: fn(&mut Table<'_, 'i>) -> T,
    ) -> Vec<Named<T>> {
        let Some(value) = self.entries.get(group) else { return Vec::new() };
        let DeValue::Table(tables) = value.get_ref() else {
            self.problems.push(no_table(group, value.get_ref(), value.span()));
            return Vec::new();
        };
        let mut named = Vec::with_capacity(tables.len());
        for (name, value) in tables {
            let path = format!("{group}.{name}", name = shown(name.get_ref()));
            let DeValue::Table(entries) = value.get_ref() else {
                self.problems.push(
                    no_table(&path, value.get_ref(), value.span())
                        .help(format!("there are only tables in `[{group}]`: `[{group}.NAME]`")),
                );
                continue;
            };
            let mut table = Table { path, pattern, entries, problems: self.problems };
            let read = read(&mut table);
            table.refuse_unknown();
            named.push(Named {
                name: Spanned::new(name.span(), name.get_ref().clone().into_owned()),
                table: read,
            });
        }
        named
    }

    fn refuse_unknown(self) {
        let keys = keys_of(self.pattern);
        for (key, _) in self.entries.iter().filter(|(key, _)| !keys.contains(&key.get_ref().as_ref())) {
            let message = match self.path.as_str() {
                "" => format!("unknown key {}", quote(key.get_ref())),
                path => format!("unknown key {} in `[{path}]`", quote(key.get_ref())),
            };
            self.problems.push(Problem::error(key.span(), message).help(self.meant(key.get_ref())));
        }
    }

    /// What was probably meant by an unknown key: a near one, one of another table, or one of those there are.
    fn meant(&self, key: &str) -> Option<String> {
        let keys = keys_of(self.pattern);
        if let Some(near) = nearest(key, keys.iter().copied()) {
            return Some(format!("did you mean `{near}`?"));
        }
        let home = TABLES.iter().find(|(table, keys)| *table != self.pattern && keys.contains(&key));
        match home {
            Some(("", _)) => Some(format!("`[{key}]` is a table of its own")),
            Some((table, _)) => Some(format!("`{key}` belongs in `[{}]`", table.replace('*', "NAME"))),
            None => known(keys.iter().copied()).map(|all| format!("there is {all}")),
        }
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// What the parser found, without what it says of its own grammar.
fn not_toml(reason: &str, span: Option<Range<usize>>) -> Problem {
    let plain = [", expected nothing", ", expected literal string"]
        .into_iter()
        .find_map(|detail| reason.strip_suffix(detail))
        .unwrap_or(reason);
    let unquoted =
        plain.contains("must be quoted") || plain.starts_with("invalid float") || plain.contains("datetime");
    let help =
        unquoted.then(|| "text, durations and addresses are written in quotes: key = \"value\"".to_owned());
    Problem::error(span, format!("this is not TOML: {plain}")).help(help)
}

fn no_table(path: &str, value: &DeValue<'_>, span: Range<usize>) -> Problem {
    Problem::error(span, format!("`{path}` must be a table, not {}", type_name(value)))
}

fn keys_of(pattern: &str) -> &'static [&'static str] {
    TABLES.iter().find(|(table, _)| *table == pattern).map_or(&[], |(_, keys)| keys)
}

/// Keys whose values are secrets.
const SECRETS: [&str; 7] = ["api_key", "webhook_secret", "secret", "token", "routing_key", "topic", "chat"];

/// Keys whose values are addresses, which may hold secrets.
const ADDRESSES: [&str; 4] = ["url", "base_url", "storage_url", "proxy"];

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../config.example.toml");

    /// A table's header with a name in the place of `*`.
    fn header(table: &str) -> String {
        if table.is_empty() { String::new() } else { format!("[{}]\n", table.replace('*', "x")) }
    }

    #[test]
    fn every_key_is_read_and_says_where_it_is_wrong() {
        for (table, keys) in TABLES {
            for key in keys {
                // Nothing is a date.
                let text = format!("{}{key} = 2026-01-01", header(table));
                let problems = read(&text).problems;
                assert_eq!(problems.len(), 1, "{text}: {problems:?}");
                assert!(problems[0].message.contains("a date or time"), "{text}: {problems:?}");
                let start = problems[0].span.as_ref().unwrap().start;
                assert_eq!(&text[start..], "2026-01-01", "{text}");
            }
        }
    }

    #[test]
    fn a_typo_in_any_key_of_any_table_is_answered_with_the_key() {
        for (table, keys) in TABLES {
            for key in keys {
                let mut letters: Vec<char> = key.chars().collect();
                letters.swap(0, 1);
                let typo: String = letters.into_iter().collect();
                let text = format!("{}{typo} = 1", header(table));
                let problems = read(&text).problems;
                assert_eq!(problems.len(), 1, "{text}");
                assert!(problems[0].message.starts_with(&format!("unknown key `{typo}`")), "{problems:?}");
                assert_eq!(problems[0].help.as_deref(), Some(format!("did you mean `{key}`?").as_str()));
                assert_eq!(&text[problems[0].span.clone().unwrap()], typo);
            }
        }
    }

    #[test]
    fn a_key_of_another_table_is_sent_home() {
        let help = |text: &str| read(text).problems[0].help.clone().unwrap();
        assert_eq!(help("listen = \"127.0.0.1:1\""), "`listen` belongs in `[api]`");
        assert_eq!(help("[state]\nmax_bytes = 1"), "`max_bytes` belongs in `[results]`");
        assert_eq!(
            help("[state]\ninsecure_skip_verify = true"),
            "`insecure_skip_verify` belongs in `[webhooks.NAME]`"
        );
        assert_eq!(help("[state]\ncolour = 1"), "there is `dir`, `retain`");
    }

    #[test]
    fn the_example_names_every_key_of_every_table() {
        let uncommented = uncomment(EXAMPLE);
        let reading = read(&uncommented);
        assert_eq!(reading.syntax, None);
        assert_eq!(reading.problems, []);
        for (table, keys) in TABLES.iter().filter(|(table, _)| !table.is_empty()) {
            let tables: Vec<&DeTable<'_>> = match table.split_once(".*") {
                Some((group, _)) => {
                    let group = reading.document[group].get_ref().as_table().unwrap();
                    group.values().map(|table| table.get_ref().as_table().unwrap()).collect()
                }
                None => vec![reading.document[*table].get_ref().as_table().unwrap()],
            };
            for key in *keys {
                assert!(
                    tables.iter().any(|table| table.contains_key(*key)),
                    "`{key}` of `[{table}]` is missing"
                );
            }
        }
    }

    #[test]
    fn values_with_units() {
        let problem = |text: &str| {
            let problem = read(text).problems.remove(0);
            (problem.message, problem.help.unwrap_or_default())
        };
        assert_eq!(
            problem("polling.timeout = \"30 seconds\""),
            (
                "`polling.timeout`: `30 seconds` is not a duration".to_owned(),
                "did you mean \"30s\"?".to_owned()
            )
        );
        assert_eq!(problem("polling.timeout = \"30\"").1, "did you mean \"30s\"?");
        assert!(problem("polling.timeout = 30").1.starts_with("did you mean \"30s\"?"));
        assert!(problem("polling.timeout = 30").0.contains("a duration, not a whole number"));
        assert_eq!(problem("polling.concurrency = \"16\"").1, "write 16 without quotes");
        assert!(problem("polling.concurrency = -1").0.contains("whole number from 1 on"));
        assert_eq!(problem("results.max_bytes = \"50G\"").1, "did you mean \"50GiB\"?");
        assert_eq!(problem("results.download = \"true\"").1, "write true without quotes");
        assert!(problem("providers.x.discover = \"* * * * * *\"").0.contains("five fields, and this has 6"));
        assert!(problem("providers.x.discover = \"61 * * * *\"").0.contains("no cron expression"));
        assert!(problem("providers.x.discover = \"@daily\"").0.contains("five fields"));
        assert!(problem("digests.x.timezone = \"Europe/Berln\"").1.contains("Europe/Berlin"));
        assert!(problem("webhooks.x.rate = \"fast\"").1.contains("60/m"));
        assert!(problem("webhooks.x.events = \"batch.completed\"").1.contains("brackets"));
        assert!(problem("api.socket = \"  \"").0.contains("is empty"));
        for sound in [
            "polling.concurrency = 1_000",
            "polling.timeout = \"1m30s\"",
            "providers.x.discover = \"*/5 9-17 1,15 JAN-MAR Mon-Fri\"",
            "digests.x.timezone = \"UTC\"",
            "webhooks.x.rate = \"1/s\"",
        ] {
            assert_eq!(read(sound).problems, [], "{sound}");
        }
    }

    #[test]
    fn sources_of_secrets() {
        let problems = |value: &str| read(&format!("api.token = {value}")).problems;
        for sound in ["{ env = \"A\" }", "{ file = \"/a\" }", "{ credential = \"a.b\" }", "\"inline\""] {
            assert_eq!(problems(sound), [], "{sound}");
        }
        for (wrong, message) in [
            ("{}", "needs exactly one source"),
            ("{ env = \"A\", file = \"/a\" }", "needs exactly one source"),
            ("{ envv = \"A\" }", "unknown key `envv`"),
            ("{ env = \"sk-proj-abcdef\" }", "must be the name of an environment variable"),
            ("{ env = \"A B\" }", "must be the name of an environment variable"),
            ("{ env = 5 }", "`api.token.env` must be text"),
            ("{ credential = \"../a\" }", "must be the name of a credential"),
            ("\"\"", "is empty"),
            ("5", "must be the source of a secret"),
            ("[\"a\"]", "must be the source of a secret"),
        ] {
            let problems = problems(wrong);
            assert_eq!(problems.len(), 1, "{wrong}: {problems:?}");
            assert!(problems[0].message.contains(message), "{wrong}: {problems:?}");
        }
    }

    #[test]
    fn tables_that_are_none() {
        let message = |text: &str| read(text).problems[0].message.clone();
        assert_eq!(message("api = 5"), "`api` must be a table, not a whole number");
        assert_eq!(message("[[providers]]\nkind = \"x\""), "`providers` must be a table, not a list");
        assert_eq!(message("providers.openai = \"key\""), "`providers.openai` must be a table, not text");
    }

    #[test]
    fn what_may_be_shown() {
        assert_eq!(visibility(&["state", "dir"]), Visibility::Plain);
        assert_eq!(visibility(&["webhooks", "x", "labels", "team"]), Visibility::Plain);
        assert_eq!(visibility(&["api", "token", "env"]), Visibility::Variable);
        assert_eq!(visibility(&["api", "token", "file"]), Visibility::Plain);
        for path in [
            &["api", "token"][..],
            &["api", "token", "value"],
            &["providers", "x", "api_key"],
            &["providers", "x", "api_kye"],
            &["providers", "x"],
            &["providers", "x", "kind", "y"],
            &["state", "api_key"],
            &["nonsense"],
            &[],
        ] {
            assert_eq!(visibility(path), Visibility::Secret, "{path:?}");
        }
        for secret in SECRETS.into_iter().chain(ADDRESSES) {
            assert!(TABLES.iter().any(|(_, keys)| keys.contains(&secret)) && !is_plain(secret), "{secret}");
        }
        assert!(is_plain("min_interval") && !is_plain("openai") && !is_plain("nonsense"));
    }

    /// The example with every key and every table in force.
    fn uncomment(example: &str) -> String {
        let in_force = |line: &str| {
            let Some(rest) = line.strip_prefix("# ") else { return line.to_owned() };
            let key = rest.split(" = ").next().unwrap_or_default();
            let is_key = rest.contains(" = ") && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if is_key || rest.starts_with('[') { rest.to_owned() } else { line.to_owned() }
        };
        example.lines().map(in_force).collect::<Vec<_>>().join("\n")
    }
}
