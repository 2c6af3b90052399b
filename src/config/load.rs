//! From the file, or from the environment where there is none, to a configuration that has been judged.

use super::catalog::{Catalog, KindFacts};
use super::check::{self, Circumstances};
use super::environment::Env;
use super::find::{self, directory_of};
use super::problem::{self, Problem, Refused};
use super::raw::{self, ProviderKeys, Raw};
use super::secret::SecretSource;
use super::settings::{Config, SECTIONS, WebhookTable};
use super::source::Source;
use super::table::{Field, Named};
use super::value::PathBase;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use toml::Spanned;

impl Config {
    /// Finds, reads and judges the configuration (`docs/contract.md#configuration`): `path`, else the usual files, else the standard
    /// variables. No secret is read.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once.
    pub fn load(path: Option<&Path>, catalog: &Catalog, env: &Env) -> Result<Self, Refused> {
        let Some(file) = find::config_file(path, env).map_err(Refused::plain)? else {
            return Self::from_environment(catalog, env)?.with_imported_prices(env);
        };
        let text = read_file(&file).map_err(|error| Refused::plain(error.problem))?;
        let mut config = Self::parse(&file, &text, catalog, env)?;
        config.warn_of_readers(&file);
        config.with_imported_prices(env)
    }

    /// Judges the text of `file`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once.
    pub fn parse(file: &Path, text: &str, catalog: &Catalog, env: &Env) -> Result<Self, Refused> {
        let directory = directory_of(file);
        let base = PathBase { env, directory: &directory };
        let reading = raw::read(text, base);
        if let Some(problem) = reading.syntax {
            return Err(Refused::new(vec![problem], Source::broken(file, text, SECTIONS)));
        }
        let source = Source::new(file, text, &reading.document, SECTIONS);
        let circumstances = Circumstances { catalog, base };
        let mut config = Self::judge(&reading.raw, reading.problems, source, circumstances)?;
        config.file = Some(file.to_owned());
        Ok(config)
    }

    /// The configuration without a file: each kind whose standard variable is set is a provider of that name, and
    /// `SLACK_WEBHOOK_URL` is a webhook.
    ///
    /// # Errors
    ///
    /// A standard variable holds no address, or there is no place for the state.
    pub fn from_environment(catalog: &Catalog, env: &Env) -> Result<Self, Refused> {
        let nowhere = |name: &str| Spanned::new(0..0, name.to_owned());
        let is_set = |variable: &&str| env.get(variable).is_some();
        // A key alone is not enough of a kind that must also be told its address, or more.
        let has_address = |kind: &KindFacts| {
            kind.base_url.is_some() || kind.base_url_env.is_some_and(|variable| is_set(&variable))
        };
        let is_whole = |kind: &&KindFacts| {
            let has = |key: &&str| {
                kind.option_env
                    .iter()
                    .any(|(option, variables)| option == key && variables.iter().any(is_set))
            };
            kind.key_env.iter().chain(kind.token_env).any(is_set)
                && has_address(kind)
                && kind.required.iter().all(has)
        };
        let providers = catalog.providers.iter().filter(is_whole);
        let slack = catalog.webhooks.iter().filter(|kind| kind.name == SLACK && is_set(&SLACK_VARIABLE));
        let raw = Raw {
            providers: providers
                .map(|kind| Named { name: nowhere(kind.name), table: ProviderKeys::default() })
                .collect(),
            webhooks: slack
                .map(|kind| Named {
                    name: nowhere(kind.name),
                    table: WebhookTable {
                        kind: Field::Given(nowhere(kind.name)),
                        url: Field::Given(Spanned::new(0..0, SecretSource::Env(SLACK_VARIABLE.to_owned()))),
                        ..WebhookTable::default()
                    },
                })
                .collect(),
            ..Raw::default()
        };
        let base = PathBase { env, directory: Path::new("/") };
        let circumstances = Circumstances { catalog, base };
        Self::judge(&raw, Vec::new(), Source::default(), circumstances)
    }

    fn judge(
        raw: &Raw,
        mut problems: Vec<Problem>,
        source: Source,
        circumstances: Circumstances<'_>,
    ) -> Result<Self, Refused> {
        let unreadable = !problems.is_empty();
        let (mut config, judged) = check::check(raw, circumstances);
        problems.extend(judged);
        let broken = config.as_mut().map(Self::read_templates);
        let unreadable = unreadable || broken.as_ref().is_some_and(|broken| !broken.is_empty());
        problems.extend(broken.unwrap_or_default());
        match config {
            Some(mut config) if !unreadable => {
                config.origin.source = source;
                config.origin.warnings = problems;
                let doubts = config.doubt_inline();
                config.add_warnings(doubts);
                Ok(config)
            }
            _ => Err(Refused::new(problems, source)),
        }
    }

    /// Reads the templates that have files of their own, and judges all of them.
    fn read_templates(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for webhook in self.webhooks.values_mut() {
            let Some(template) = &mut webhook.template else { continue };
            let key = format!("webhooks.{}.template", webhook.name);
            let place = self.origin.places.get(&key).cloned();
            if let Some(file) = &template.file {
                match read_file(file) {
                    // As an editor ends a file.
                    Ok(text) => template.text = text.strip_suffix('\n').map(str::to_owned).unwrap_or(text),
                    Err(unread) => {
                        let help = "it is a file's path, or the template itself: \"{{ line }}\"".to_owned();
                        let message = format!("`{key}`: {}", unread.problem.message);
                        problems.push(Problem::error(place, message).help(help));
                        continue;
                    }
                }
            }
            let facts = self.origin.webhooks.iter().find(|facts| facts.name == webhook.kind);
            if let Some(Err(reason)) = facts.map(|facts| (facts.judge_template)(&template.text)) {
                problems.push(Problem::error(place, format!("`{key}` is broken: {reason}")));
            }
        }
        problems
    }

    /// The warnings as rustc would show them, for a person.
    pub fn rendered_warnings(&self, colour: bool) -> String {
        problem::render(&self.origin.warnings, &self.origin.source, colour)
    }

    /// Warns of a file that holds secrets and that others may read.
    fn warn_of_readers(&mut self, file: &Path) {
        let is_inline = |source: &SecretSource| matches!(source, SecretSource::Inline(_));
        let inline = self.secrets().iter().any(|used| used.is_secret() && is_inline(used.source));
        let mode = file.metadata().map(|metadata| metadata.permissions().mode()).unwrap_or_default();
        if inline && mode & 0o044 != 0 {
            let problem = Problem::warning(None, "other users may read this file, and it holds secrets")
                .help(format!("run `chmod 600 {}`", file.display()));
            self.add_warnings(vec![problem]);
        }
    }
}

/// A file that could not be read.
pub struct Unread {
    /// What the system calls it.
    pub kind: ErrorKind,
    /// What is told.
    pub problem: Problem,
}

/// The text of a file without the mark that some editors put before it.
pub fn read_file(path: &Path) -> Result<String, Unread> {
    read_up_to(path, MAX_FILE_BYTES)
}

/// The same of a file of at most `most` bytes.
pub fn read_up_to(path: &Path, most: u64) -> Result<String, Unread> {
    let failed = |kind: ErrorKind, reason: &str| Unread {
        kind,
        problem: Problem::error(None, format!("{} cannot be read: {reason}", path.display()))
            .help((kind == ErrorKind::PermissionDenied && find::is_the_machines(path)).then(|| {
            "it is the service's; have one of your own, ~/.config/batchd/config.toml with a table such as \
                 `[providers.openai]`, or let `batchd init` write it"
                .to_owned()
        })),
    };
    let system = |error: std::io::Error| failed(error.kind(), &error.kind().to_string());
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes)).map_err(system)?;
    if bytes.len() as u64 > most {
        return Err(failed(ErrorKind::FileTooLarge, &format!("it is longer than {} MiB", most >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n');
        failed(ErrorKind::InvalidData, &format!("line {} is not UTF-8 text", line.count() + 1))
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Of a configuration, a template or a file of certificates.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The kind of webhook that has a standard variable, and the variable.
const SLACK: &str = "slack";
const SLACK_VARIABLE: &str = "SLACK_WEBHOOK_URL";
