//! What all rules share: where problems go, and the rules for names, secrets and addresses in any table.

use crate::config::address::web_address;
use crate::config::catalog::Catalog;
use crate::config::problem::{Problem, quote};
use crate::config::secret::SecretSource;
use crate::config::value::PathBase;
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use url::Url;

/// What a file is judged against.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The kinds there are.
    pub catalog: &'a Catalog,
    /// The environment, and what relative paths are relative to.
    pub base: PathBase<'a>,
}

pub struct Check<'a> {
    pub circumstances: Circumstances<'a>,
    pub problems: Vec<Problem>,
    /// Where the value of each key stands, by the key in full.
    pub places: BTreeMap<String, Range<usize>>,
    /// Whether `polling.min_interval` and `polling.max_interval` stand in the file and were not understood.
    pub wrong_intervals: (bool, bool),
}

impl Check<'_> {
    /// Judges a name that the user chose; it stands in ids, paths and metrics.
    pub fn name(&mut self, what: &str, name: &Spanned<String>) {
        let sound = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.get_ref().is_empty() || !name.get_ref().chars().all(sound) {
            let message = format!("{} cannot be the name of a {what}", quote(name.get_ref()));
            self.refuse(name.span(), message, "names are made of letters, digits, `-` and `_`".to_owned());
        }
    }

    pub fn not_empty<T>(&mut self, key: &str, list: &Spanned<Vec<T>>, help: &str) -> Option<()> {
        if list.get_ref().is_empty() {
            self.refuse(list.span(), format!("`{key}` is an empty list"), help.to_owned());
            return None;
        }
        Some(())
    }

    /// The secret's source; one that stands in the file itself gets a warning.
    pub fn source(&mut self, key: &str, given: &Spanned<SecretSource>) -> SecretSource {
        if matches!(given.get_ref(), SecretSource::Inline(_)) {
            self.warn_of_inline(key, given.span());
        }
        given.get_ref().clone()
    }

    pub fn warn_of_inline(&mut self, key: &str, span: Range<usize>) {
        let help = "keep it elsewhere: { env = \"NAME\" }, { file = \"/path\" } or { credential = \"NAME\" }"
            .to_owned();
        let message = format!("`{key}` is a secret, and it stands in this file");
        self.problems
            .push(Problem::warning(span, message).help(help).alike(key, "secrets stand in this file"));
    }

    /// The address that stands in the file itself, if it is one.
    pub fn inline_address(&mut self, key: &str, given: &Spanned<SecretSource>) -> Option<Url> {
        let SecretSource::Inline(text) = given.get_ref() else { return None };
        match web_address(text.expose_secret()) {
            Ok(url) => Some(url),
            Err(expected) => {
                self.refuse(given.span(), format!("`{key}` must be {expected}"), None);
                None
            }
        }
    }

    pub fn warn(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.problems.push(Problem::warning(span, message));
    }

    pub fn refuse(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        self.problems.push(Problem::error(span, message).help(help));
    }
}
