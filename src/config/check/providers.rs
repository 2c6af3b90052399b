//! The rules for `[providers.NAME]`.

use super::rules::Check;
use crate::config::address::{aws_domain, base_url, is_exposed, is_local};
use crate::config::catalog::{KindFacts, SignedPlace};
use crate::config::headers;
use crate::config::problem::{Problem, known, nearest, quote, shown, suggestion};
use crate::config::raw::ProviderKeys;
use crate::config::secret::SecretSource;
use crate::config::settings::{Polling, ProviderConfig, ProviderTable};
use crate::config::table::{Field, Named};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use toml::Spanned;
use url::Url;

impl Check<'_> {
    pub fn providers(
        &mut self,
        tables: &[Named<ProviderKeys>],
        defaults: &Polling,
    ) -> BTreeMap<String, ProviderConfig> {
        if tables.is_empty() {
            self.problems.push(
                Problem::warning(None, "no provider is configured, so there is nothing to watch")
                    .help(self.first_provider()),
            );
        }
        let providers: Vec<_> = tables.iter().map(|named| self.provider(named, defaults)).collect();
        providers.into_iter().flatten().map(|provider| (provider.name.clone(), provider)).collect()
    }

    /// How to come by a first provider.
    fn first_provider(&self) -> Option<String> {
        let kinds = &self.circumstances.catalog.providers;
        let (variable, kind) =
            kinds.iter().find_map(|kind| Some((kind.key_env.first().copied()?, kind.name)))?;
        Some(format!("set {variable}, or write a table such as `[providers.{kind}]`"))
    }

    fn provider(&mut self, named: &Named<ProviderKeys>, defaults: &Polling) -> Option<ProviderConfig> {
        let Named { name, table } = named;
        self.name("provider", name);
        let path = format!("providers.{}", shown(name.get_ref()));
        let polling = self.polling_over(&path, &table.polling, *defaults);
        let own = &table.own;
        if let Some(secret) = own.webhook_secret.given() {
            self.source(&format!("{path}.webhook_secret"), secret);
        }
        let base_url = own.base_url.given().map(|url| self.base_url(&format!("{path}.base_url"), url));
        let api_key = own.api_key.given().map(|key| self.source(&format!("{path}.api_key"), key));
        let auth_token =
            own.auth_token.given().map(|token| self.source(&format!("{path}.auth_token"), token));
        let facts = self.provider_kind(name, &own.kind)?;
        let options = self.options(&path, &facts, table);
        self.headers(&path, &facts, own);
        for key in facts
            .required
            .iter()
            .filter(|key| !table.options.contains_key(*key) && !options.contains_key(**key))
        {
            let message = format!("the provider {} needs `{key}`", quote(name.get_ref()));
            self.refuse(name.span(), message, format!("write {key} = \"…\" in `[{path}]`"));
        }
        if let (Some(given), Some(Some(url))) = (own.base_url.given(), &base_url) {
            self.warn_of_lost_version(&format!("{path}.base_url"), given.span(), url, &facts);
        }
        let base_url = match base_url {
            None if own.base_url.is_missing() => self.usual_base_url(&facts, &options, name),
            given => given.flatten(),
        };
        let (api_key, auth_token) = match (api_key, auth_token) {
            (None, None) if own.api_key.is_missing() && own.auth_token.is_missing() => {
                self.usual_credential(&facts, &options, name, &path)
            }
            given => given,
        };
        self.judge_token(&path, &facts, own);
        if let Some(secret) = own.webhook_secret.given()
            && !self.circumstances.catalog.hooked.contains(facts.name)
        {
            let message = format!(
                "`{path}.webhook_secret` has no effect: services of kind `{}` send no webhooks",
                facts.name
            );
            self.warn(secret.span(), message);
        }
        let local = base_url.as_ref().and_then(Url::host_str).is_some_and(is_local);
        if polling.min_interval < SHORT_INTERVAL && !local {
            let span = table.polling.min_interval.given().map_or_else(|| name.span(), Spanned::span);
            let message = format!("`{path}` is asked about a batch more than once a second");
            self.warn(span, message);
        }
        let base_url = base_url?.as_str().trim_end_matches('/').to_owned();
        let (name, kind) = (name.get_ref().clone(), facts.name.to_owned());
        Some(own.over(ProviderConfig::usual(name, kind, base_url, api_key, auth_token, polling, options)))
    }

    /// What is known of the kind that a table names or is named after.
    fn provider_kind(&mut self, name: &Spanned<String>, kind: &Field<String>) -> Option<KindFacts> {
        let kinds = &self.circumstances.catalog.providers;
        let asked = match kind {
            Field::Missing => name,
            Field::Wrong => return None,
            Field::Given(kind) => kind,
        };
        if let Some(facts) = kinds.iter().find(|facts| facts.name == asked.get_ref()) {
            return Some(*facts);
        }
        let word = asked.get_ref();
        let names = || kinds.iter().map(|facts| facts.name);
        let there_is = known(names()).map(|all| format!("there is {all}"));
        let (message, help) = if kind.given().is_some() {
            (
                format!("there is no kind of provider {}", quote(word)),
                suggestion(word, names().collect::<Vec<_>>()),
            )
        } else {
            // A table named freely: its name may still tell.
            let near = names().find(|known| word.starts_with(known)).or_else(|| nearest(word, names()));
            let help = near.map(|near| format!("add kind = \"{near}\", or name the table so")).or(there_is);
            (format!("the provider {} has no `kind`, and no kind is called so", quote(word)), help)
        };
        self.refuse(asked.span(), message, help);
        None
    }

    fn base_url(&mut self, key: &str, given: &Spanned<String>) -> Option<Url> {
        match base_url(given.get_ref().trim()) {
            Ok(url) => {
                if is_exposed(&url) {
                    self.warn(given.span(), format!("`{key}` sends the key unencrypted; use https"));
                }
                Some(url)
            }
            Err(expected) => {
                self.refuse(given.span(), format!("`{key}` must be {expected}"), None);
                None
            }
        }
    }

    /// Warns of an address without the version that the kind's own address ends with: every path would be wrong.
    fn warn_of_lost_version(&mut self, holder: &str, span: Range<usize>, url: &Url, facts: &KindFacts) {
        let is_version = |part: &str| {
            part.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let Some(usual) = facts.base_url else { return };
        let Some((_, usual_path)) = usual.split_once("://").and_then(|(_, rest)| rest.split_once('/')) else {
            return;
        };
        let has_one = |path: &str| path.split('/').any(is_version);
        if !has_one(usual_path) || has_one(url.path()) || facts.adds_version {
            return;
        }
        let message = format!("`{holder}` has no version at its end, as {usual} has");
        let help = format!("did you mean {}/{usual_path}?", url.origin().ascii_serialization());
        self.problems.push(Problem::warning(span, message).help(help));
    }

    /// The kind's own address, or the one that its standard variable holds.
    fn usual_base_url(
        &mut self,
        facts: &KindFacts,
        options: &BTreeMap<String, String>,
        name: &Spanned<String>,
    ) -> Option<Url> {
        let variable =
            facts.base_url_env.filter(|variable| self.circumstances.base.env.get(variable).is_some());
        let signed = signed_place(facts, options);
        let variable = variable.filter(|_| signed.is_none());
        let address = signed.map(|place| place.base_url).or(facts.base_url);
        let text = match variable {
            Some(variable) => self.circumstances.base.env.get(variable).map(str::to_owned),
            None => address.map(|address| filled(address, options)),
        };
        if text.as_ref().is_some_and(|text| text.contains('{')) {
            // What it needs is missing, and that has been told.
            return None;
        }
        let Some(text) = text else {
            let message = format!("the provider {} needs a `base_url`", quote(name.get_ref()));
            let help = format!("providers of kind `{}` have no usual address", facts.name);
            self.refuse(name.span(), message, help);
            return None;
        };
        match (base_url(text.trim()), variable) {
            (Ok(url), variable) => {
                if let Some(variable) = variable.filter(|_| is_exposed(&url)) {
                    self.warn(name.span(), format!("{variable} sends the key unencrypted; use https"));
                }
                if let Some(variable) = variable {
                    self.warn_of_lost_version(variable, name.span(), &url, facts);
                }
                Some(url)
            }
            (Err(expected), variable) => {
                let holder = variable.unwrap_or(facts.name);
                let message = format!(
                    "the address of the provider {} in {holder} must be {expected}",
                    quote(name.get_ref())
                );
                self.refuse(name.span(), message, None);
                None
            }
        }
    }

    /// Refuses headers that batchd makes itself, and warns of secrets among their values.
    fn headers(&mut self, path: &str, facts: &KindFacts, own: &ProviderTable) {
        let Some(given) = own.headers.given() else { return };
        for (name, value) in given.get_ref() {
            let key = format!("{path}.headers.{name}");
            if let Some(why) = headers::objection(name, facts) {
                let message = format!("`{key}` cannot be set: this header {why}");
                self.refuse(given.span(), message, "leave it out of `headers`".to_owned());
            }
            if matches!(value, SecretSource::Inline(_)) && headers::is_secret(name, value) {
                self.warn_of_inline(&key, given.span());
            }
            self.places.insert(key, given.span());
        }
    }

    /// A token stands in the place of a key, and only at kinds that take either.
    fn judge_token(&mut self, path: &str, facts: &KindFacts, own: &ProviderTable) {
        let Some(token) = own.auth_token.given() else { return };
        if facts.token_env.is_empty() {
            let message = format!("`{path}.auth_token` is not for kind `{}`", facts.name);
            self.refuse(token.span(), message, "give the key or token in `api_key`".to_owned());
        } else if !own.api_key.is_missing() {
            let message = format!("`{path}` has both `api_key` and `auth_token`");
            self.refuse(token.span(), message, "leave one of them out".to_owned());
        }
    }

    /// What is sent without a key or a token in the file: the standard variable of the first of them that is set.
    fn usual_credential(
        &mut self,
        facts: &KindFacts,
        options: &BTreeMap<String, String>,
        name: &Spanned<String>,
        path: &str,
    ) -> (Option<SecretSource>, Option<SecretSource>) {
        if signed_place(facts, options).is_some() {
            return (None, None);
        }
        let env = self.circumstances.base.env;
        let is_set = |variable: &&&str| env.get(variable).is_some();
        let token = facts.token_env.iter().find(is_set);
        match (facts.key_env.iter().find(is_set), token) {
            (None, Some(token)) => {
                self.places.insert(format!("{path}.auth_token"), name.span());
                return (None, Some(SecretSource::Env((*token).to_owned())));
            }
            (Some(key), Some(token)) => {
                let message = format!(
                    "{key} and {token} are both set; the provider {} uses {key}",
                    quote(name.get_ref())
                );
                self.warn(name.span(), message);
            }
            _ => {}
        }
        (self.usual_key(facts, name, path), None)
    }

    /// The kind's standard variable: the first that is set, else the first there is.
    fn usual_key(&mut self, facts: &KindFacts, name: &Spanned<String>, path: &str) -> Option<SecretSource> {
        let env = self.circumstances.base.env;
        let value = |variable: &str| env.get(variable).map(str::trim);
        let set = facts.key_env.iter().find(|variable| value(variable).is_some());
        if let Some(used) = set {
            let other = facts
                .key_env
                .iter()
                .find(|other| value(other).is_some_and(|other| value(used).is_some_and(|key| key != other)));
            if let Some(other) = other {
                let message = format!(
                    "{used} and {other} are both set and differ; the provider {} uses {used}",
                    quote(name.get_ref())
                );
                self.warn(name.span(), message);
            }
        }
        match set.or(facts.key_env.first()) {
            Some(_) if facts.key_optional && set.is_none() => None,
            Some(variable) => {
                self.places.insert(format!("{path}.api_key"), name.span());
                Some(SecretSource::Env((*variable).to_owned()))
            }
            None if facts.key_optional => None,
            None => {
                let message = format!("the provider {} needs an `api_key`", quote(name.get_ref()));
                self.refuse(name.span(), message, "write api_key = { env = \"NAME\" }".to_owned());
                None
            }
        }
    }

    fn options(&mut self, path: &str, facts: &KindFacts, table: &ProviderKeys) -> BTreeMap<String, String> {
        let mut options = BTreeMap::new();
        for (key, value) in &table.options {
            if !facts.options.contains(key) {
                let message = format!("`{path}.{key}` has no effect: kind `{}` does not use it", facts.name);
                self.warn(value.span(), message);
            } else if value.get_ref().contains(char::is_control) {
                let message = format!("`{path}.{key}` holds a line break or another control character");
                self.refuse(value.span(), message, None);
            } else if *key == STORAGE_URL {
                let url = self.base_url(&format!("{path}.{key}"), value);
                options.extend(
                    url.map(|url| ((*key).to_owned(), url.as_str().trim_end_matches('/').to_owned())),
                );
            } else if key.ends_with("_file") {
                let file = self.circumstances.base.resolve(Path::new(value.get_ref()));
                options.insert((*key).to_owned(), file.display().to_string());
            } else {
                options.insert((*key).to_owned(), value.get_ref().clone());
            }
        }
        for (key, variables) in facts.option_env.iter().filter(|(key, _)| !table.options.contains_key(key)) {
            let value = variables.iter().find_map(|variable| self.circumstances.base.env.get(variable));
            options.extend(value.map(|value| ((*key).to_owned(), value.trim().to_owned())));
        }
        options
    }
}

/// Where the account is asked with signatures, if its further keys say so.
fn signed_place(facts: &KindFacts, options: &BTreeMap<String, String>) -> Option<SignedPlace> {
    facts.signed_place.filter(|place| options.contains_key(place.option))
}

/// An address with the options that it names filled in.
fn filled(address: &str, options: &BTreeMap<String, String>) -> String {
    let domain = options.get("region").map(|region| aws_domain(region));
    // Regions of AWS's other partitions are in domains of their own.
    let address = match (address.strip_suffix(aws_domain("")), domain) {
        (Some(host), Some(domain)) => format!("{host}{domain}"),
        _ => address.to_owned(),
    };
    options.iter().fold(address, |filled, (key, value)| filled.replace(&format!("{{{key}}}"), value))
}

/// Whoever asks a public service more often has probably mistaken the unit.
const SHORT_INTERVAL: Duration = Duration::from_secs(1);

/// The key for the address of the storage in which some kinds keep input and output.
const STORAGE_URL: &str = "storage_url";
