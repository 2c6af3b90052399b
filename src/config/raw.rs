//! A configuration file as it is written: every table and key in it, each value with its type and its place.
//!
//! serde stops at the first thing that is wrong; here the document is walked, so that one run reports everything.

use super::problem::{Problem, quote, shown};
use super::settings::{
    ApiTable, DigestTable, FilesTable, HeartbeatTable, HttpTable, PROVIDER_OPTIONS, PollingTable, PriceTable,
    ProviderTable, ResultsTable, SECTIONS, StateTable, WebhookTable, option_form,
};
use super::table::{Field, Findings, Named, Table};
use super::value::PathBase;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::DeTable;

/// A whole file. Values have the right type and unit; whether they make sense together is judged in `check`.
#[derive(Debug, Default)]
pub struct Raw {
    pub state: StateTable,
    pub api: ApiTable,
    pub http: HttpTable,
    pub polling: PollingTable,
    pub results: ResultsTable,
    pub files: FilesTable,
    pub heartbeat: HeartbeatTable,
    pub prices: Vec<Named<PriceTable>>,
    pub providers: Vec<Named<ProviderKeys>>,
    pub webhooks: Vec<Named<WebhookTable>>,
    pub digests: Vec<Named<DigestTable>>,
    /// Where the value of each key stands, by the key in full.
    pub places: BTreeMap<String, Range<usize>>,
}

/// What may stand in a provider's table; which of the options its kind has is judged in `check`.
#[derive(Debug, Default)]
pub struct ProviderKeys {
    pub own: ProviderTable,
    pub polling: PollingTable,
    /// Those of [`PROVIDER_OPTIONS`] that are given.
    pub options: BTreeMap<&'static str, Spanned<String>>,
}

/// What a text was understood as.
#[derive(Debug)]
pub struct Reading<'a> {
    /// The document with every place; what could be made of it if it is not TOML.
    pub document: DeTable<'a>,
    pub raw: Raw,
    /// Why it is not TOML.
    pub syntax: Option<Problem>,
    /// What is unknown, of the wrong type or in the wrong unit.
    pub problems: Vec<Problem>,
    /// How many of the problems, the first ones, are about `[api]`.
    pub api_problems: usize,
}

/// Reads the text of a file.
pub fn read<'a>(text: &'a str, base: PathBase<'_>) -> Reading<'a> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let document = document.into_inner();
    let syntax = errors
        .iter()
        .min_by_key(|error| error.span().map_or(usize::MAX, |span| span.start))
        .map(|error| not_toml(text, error.message(), error.span()));
    let mut found = Findings::default();
    let mut root = Table::root(&document, SECTIONS, base, &mut found);
    let api = root.table("api", ApiTable::read);
    let api_problems = root.problems();
    let raw = Raw {
        state: root.table("state", StateTable::read),
        api,
        http: root.table("http", HttpTable::read),
        polling: root.table("polling", PollingTable::read),
        results: root.table("results", ResultsTable::read),
        files: root.table("files", FilesTable::read),
        heartbeat: root.table("heartbeat", HeartbeatTable::read),
        prices: root.named_tables("prices", "prices.*", PriceTable::read),
        providers: root.named_tables("providers", "providers.*", ProviderKeys::read),
        webhooks: root.named_tables("webhooks", "webhooks.*", WebhookTable::read),
        digests: root.named_tables("digests", "digests.*", DigestTable::read),
        places: BTreeMap::new(),
    };
    root.refuse_unknown();
    let Findings { problems, places } = found;
    Reading { document, raw: Raw { places, ..raw }, syntax, problems, api_problems }
}

impl ProviderKeys {
    fn read(table: &mut Table<'_, '_>) -> Self {
        let options =
            PROVIDER_OPTIONS.iter().filter_map(|key| match table.take(key.name, &option_form(key.name)) {
                Field::Given(value) => Some((key.name, value)),
                Field::Missing | Field::Wrong => None,
            });
        let options = options.collect();
        Self { own: ProviderTable::read(table), polling: PollingTable::read(table), options }
    }
}

/// What the parser found, without what it says of its own grammar.
fn not_toml(text: &str, reason: &str, span: Option<Range<usize>>) -> Problem {
    if let Some((what, line)) =
        span.clone().filter(|_| reason == "duplicate key").and_then(|span| first(text, span))
    {
        let message = format!("{what} is written twice");
        return Problem::error(span, message)
            .help(format!("the first is on line {line}; only one of them can hold"));
    }
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

/// What stands at `span` for the second time, a table or a key of one, and the line on which it stands first.
fn first(text: &str, span: Range<usize>) -> Option<(String, usize)> {
    let header = |line: &str| {
        let name = line.trim().strip_prefix('[')?.split(']').next()?.trim().to_owned();
        (!name.starts_with('[')).then_some(name)
    };
    let (before, key) = (text.get(..span.start)?, text.get(span)?);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let earlier: Vec<&str> = text[..start].lines().collect();
    if let Some(name) = header(text[start..].lines().next()?) {
        let at = earlier.iter().position(|line| header(line).as_ref() == Some(&name))?;
        return Some((format!("the table `[{}]`", shown(&name)), at + 1));
    }
    let table = earlier.iter().rposition(|line| line.trim_start().starts_with('[')).map_or(0, |at| at + 1);
    let is_it = |line: &&str| line.split_once('=').is_some_and(|(name, _)| name.trim() == key.trim());
    let at = earlier[table..].iter().position(is_it)?;
    Some((format!("the key {}", quote(key.trim())), table + at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::environment::Env;
    use crate::config::keys::{Usual, Visibility};
    use std::path::Path;

    const EXAMPLE: &str = include_str!("../../config.example.toml");

    fn read(text: &str) -> Reading<'_> {
        super::read(text, PathBase { env: &Env::default(), directory: Path::new("/") })
    }

    /// Every table and its keys; `""` is the file itself.
    fn tables() -> Vec<(&'static str, Vec<&'static str>)> {
        let patterns = SECTIONS.0.iter().map(|section| section.pattern);
        [""].into_iter().chain(patterns).map(|pattern| (pattern, SECTIONS.keys_of(pattern))).collect()
    }

    /// A table's header with a name in the place of `*`.
    fn header(table: &str) -> String {
        if table.is_empty() { String::new() } else { format!("[{}]\n", table.replace('*', "x")) }
    }

    #[test]
    fn every_key_is_read_and_says_where_it_is_wrong() {
        for (table, keys) in tables() {
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
        for (table, keys) in tables() {
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
        assert_eq!(help("[state]\ncolour = 1"), "there is `dir`, `retain`, `url`, `name`, `lease`");
    }

    #[test]
    fn the_example_shows_every_key_with_its_default_and_no_other() {
        let uncommented = uncomment(EXAMPLE);
        let reading = read(&uncommented);
        assert_eq!(reading.syntax, None);
        assert_eq!(reading.problems, []);
        for section in SECTIONS.0 {
            let group = reading.document[section.group()].get_ref().as_table().unwrap();
            let tables: Vec<&DeTable<'_>> = if section.pattern == section.group() {
                vec![group]
            } else {
                group.values().map(|table| table.get_ref().as_table().unwrap()).collect()
            };
            for key in section.keys() {
                let values: Vec<&str> = tables
                    .iter()
                    .filter_map(|table| Some(&uncommented[table.get(key.name)?.span()]))
                    .collect();
                assert!(!values.is_empty(), "`{}` of `[{}]` is missing", key.name, section.pattern);
                // An empty table of labels says nothing, so an example is shown.
                if let Some(Usual::Value(usual)) = (key.usual)() {
                    assert!(values.contains(&usual.as_str()), "`{}` is {values:?}, not {usual}", key.name);
                }
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
        assert_eq!(SECTIONS.visibility(&["state", "dir"]), Visibility::Plain);
        assert_eq!(SECTIONS.visibility(&["webhooks", "x", "labels", "team"]), Visibility::Plain);
        assert_eq!(SECTIONS.visibility(&["api", "token", "env"]), Visibility::Variable);
        assert_eq!(SECTIONS.visibility(&["api", "token", "file"]), Visibility::Plain);
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
            assert_eq!(SECTIONS.visibility(path), Visibility::Secret, "{path:?}");
        }
        for secret in [
            "api_key",
            "webhook_secret",
            "secret",
            "token",
            "routing_key",
            "topic",
            "chat",
            "url",
            "base_url",
            "storage_url",
            "proxy",
        ] {
            assert!(SECTIONS.is_key(secret) && !SECTIONS.is_plain(secret), "{secret}");
        }
        assert!(
            SECTIONS.is_plain("min_interval")
                && !SECTIONS.is_plain("openai")
                && !SECTIONS.is_plain("nonsense")
        );
    }

    /// The example with every key and every table in force.
    fn uncomment(example: &str) -> String {
        let in_force = |line: &str| {
            let Some(rest) = line.strip_prefix("# ") else { return line.to_owned() };
            let key = rest.split(" = ").next().unwrap_or_default();
            let is_key =
                rest.contains(" = ") && key.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'));
            if is_key || rest.starts_with('[') { rest.to_owned() } else { line.to_owned() }
        };
        example.lines().map(in_force).collect::<Vec<_>>().join("\n")
    }
}
