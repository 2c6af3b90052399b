//! The rules for `[webhooks.NAME]` and for the digests that go to them.

use super::rules::Check;
use crate::config::address::{is_exposed, is_local};
use crate::config::catalog::WebhookFacts;
use crate::config::outbound::Egress;
use crate::config::problem::{Problem, quote, shown, suggestion};
use crate::config::raw::Raw;
use crate::config::secret::SecretSource;
use crate::config::settings::{DigestConfig, DigestTable, WebhookConfig, WebhookTable};
use crate::config::table::{Field, Named};
use crate::domain::calendar::Calendar;
use crate::domain::event::EventType;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
use toml::Spanned;

impl Check<'_> {
    pub fn webhooks(
        &mut self,
        tables: &[Named<WebhookTable>],
        names: &Names<'_>,
        egress: Egress,
    ) -> BTreeMap<String, WebhookConfig> {
        let webhooks: Vec<_> = tables.iter().map(|named| self.webhook(named, names, egress)).collect();
        webhooks.into_iter().flatten().map(|webhook| (webhook.name.clone(), webhook)).collect()
    }

    fn webhook(
        &mut self,
        Named { name, table }: &Named<WebhookTable>,
        names: &Names<'_>,
        egress: Egress,
    ) -> Option<WebhookConfig> {
        self.name("webhook", name);
        let path = format!("webhooks.{}", shown(name.get_ref()));
        let providers = table
            .providers
            .given()
            .map_or_else(BTreeSet::new, |given| self.filter(&format!("{path}.providers"), given, names));
        if let Some(skip) = table.insecure_skip_verify.given().filter(|skip| *skip.get_ref()) {
            let message =
                format!("`{path}.insecure_skip_verify` trusts any certificate: whoever answers is believed");
            self.warn(skip.span(), message);
        }
        let facts = self.webhook_kind(&table.kind, name);
        let secrets = self.signing_secrets(&path, name, table, facts.as_ref());
        let usual_url = facts.as_ref().and_then(|facts| facts.url);
        if table.url.is_missing() && usual_url.is_none() {
            let message = format!("the webhook {} needs a `url`", quote(name.get_ref()));
            let help = "write url = \"https://…\" or url = { env = \"NAME\" }";
            self.refuse(name.span(), message, help.to_owned());
        }
        if let Some(url) = table.url.given() {
            self.target(&format!("{path}.url"), url, facts.as_ref(), egress);
        }
        let facts = facts?;
        let options = self.webhook_options(&path, name, table, &facts);
        let url = table.url.value();
        if url.is_none() && usual_url.is_none() {
            return None;
        }
        let events = EventType::ALL
            .into_iter()
            .filter(|event| EventType::ENDS.contains(event) || (facts.findings && event.needs_a_person()));
        let (name, kind) = (name.get_ref().clone(), facts.name.to_owned());
        Some(table.over(WebhookConfig {
            events: events.collect(),
            severity: facts.severity,
            ..WebhookConfig::usual(name, kind, url, options, secrets, providers)
        }))
    }

    fn webhook_kind(&mut self, kind: &Field<String>, name: &Spanned<String>) -> Option<WebhookFacts> {
        let kinds = &self.circumstances.catalog.webhooks;
        let (word, span) = match kind {
            Field::Missing => (DEFAULT_WEBHOOK, name.span()),
            Field::Wrong => return None,
            Field::Given(kind) => (kind.get_ref().as_str(), kind.span()),
        };
        if let Some(facts) = kinds.iter().find(|facts| facts.name == word) {
            return Some(*facts);
        }
        let names: Vec<_> = kinds.iter().map(|facts| facts.name).collect();
        let message = format!("there is no kind of webhook {}", quote(word));
        self.refuse(span, message, suggestion(word, names));
        None
    }

    /// Secrets to sign with; a kind that signs and has none is told of, and so is the contrary.
    fn signing_secrets(
        &mut self,
        path: &str,
        name: &Spanned<String>,
        table: &WebhookTable,
        facts: Option<&WebhookFacts>,
    ) -> Vec<SecretSource> {
        let key = format!("{path}.secret");
        let signs = facts.is_none_or(|facts| facts.signs);
        match table.secret.given() {
            Some(list) if list.get_ref().is_empty() => {
                let message = format!("`{key}` is an empty list");
                self.refuse(list.span(), message, "leave the key out to send unsigned".to_owned());
                Vec::new()
            }
            Some(list) if !signs => {
                let kind = facts.map_or(DEFAULT_WEBHOOK, |facts| facts.name);
                let message = format!("`{key}` has no effect: webhooks of kind `{kind}` are not signed");
                self.warn(list.span(), message);
                Vec::new()
            }
            Some(list) => {
                let numbered =
                    |at: usize| if list.get_ref().len() == 1 { key.clone() } else { format!("{key}[{at}]") };
                let secrets = list.get_ref().iter().enumerate();
                secrets
                    .map(|(at, secret)| {
                        let key = numbered(at);
                        self.places.insert(key.clone(), secret.span());
                        self.source(&key, secret)
                    })
                    .collect()
            }
            None => {
                if signs && facts.is_some() && table.secret.is_missing() {
                    let message = format!(
                        "the webhook `{path}` is unsigned: its receiver cannot tell who sent what it gets"
                    );
                    let help = "`echo whsec_$(openssl rand -base64 32)` makes a `secret`".to_owned();
                    self.problems.push(Problem::warning(name.span(), message).help(help));
                }
                Vec::new()
            }
        }
    }

    /// Judges where a webhook goes, as far as the file says it.
    fn target(
        &mut self,
        key: &str,
        given: &Spanned<SecretSource>,
        facts: Option<&WebhookFacts>,
        egress: Egress,
    ) {
        let Some(url) = self.inline_address(key, given) else { return };
        if let Some(help) = facts.and_then(|facts| facts.retired(&url)) {
            let message = format!("`{key}` is the address of a service that has ended");
            self.refuse(given.span(), message, help.to_owned());
        }
        let capability = facts.is_some_and(|facts| facts.url.is_none() && facts.findings);
        if capability || url.query().is_some() || !url.username().is_empty() || url.password().is_some() {
            self.warn_of_inline(key, given.span());
        }
        if is_exposed(&url) {
            self.warn(given.span(), format!("`{key}` sends events unencrypted; use https"));
        }
        if egress == Egress::Public && url.host_str().is_some_and(is_local) {
            let message =
                format!("`{key}` is a private address, and `http.egress` is public: nothing will be sent");
            self.warn(given.span(), message);
        }
    }

    /// The providers that a filter names; each must be in the file.
    fn filter(
        &mut self,
        key: &str,
        given: &Spanned<Vec<Spanned<String>>>,
        names: &Names<'_>,
    ) -> BTreeSet<String> {
        if self.not_empty(key, given, "leave the key out for all providers").is_some() {
            self.known_names(key, "provider", given.get_ref(), &names.providers);
        }
        given.get_ref().iter().map(|name| name.get_ref().clone()).collect()
    }

    fn known_names(&mut self, key: &str, what: &str, given: &[Spanned<String>], names: &BTreeSet<&str>) {
        for name in given.iter().filter(|name| !names.contains(name.get_ref().as_str())) {
            let message = format!("`{key}` names no {what} of this file: {}", quote(name.get_ref()));
            let help = suggestion(name.get_ref(), names.iter().copied());
            self.refuse(name.span(), message, help);
        }
    }

    /// The kind's further keys; what it needs and what it does not use is told.
    fn webhook_options(
        &mut self,
        path: &str,
        name: &Spanned<String>,
        table: &WebhookTable,
        facts: &WebhookFacts,
    ) -> BTreeMap<&'static str, SecretSource> {
        let mut options = BTreeMap::new();
        for (key, field) in [
            ("routing_key", &table.routing_key),
            ("topic", &table.topic),
            ("token", &table.token),
            ("chat", &table.chat),
        ] {
            let needed = facts.needs.contains(&key);
            match field.given() {
                Some(given) if needed || facts.options.contains(&key) => {
                    options.insert(key, self.source(&format!("{path}.{key}"), given));
                }
                Some(given) => {
                    let message =
                        format!("`{path}.{key}` has no effect: kind `{}` does not use it", facts.name);
                    self.warn(given.span(), message);
                }
                None if needed && field.is_missing() => {
                    let message = format!("the webhook {} needs a `{key}`", quote(name.get_ref()));
                    self.refuse(name.span(), message, format!("write {key} = {{ env = \"NAME\" }}"));
                }
                None => {}
            }
        }
        options
    }

    pub fn digests(
        &mut self,
        tables: &[Named<DigestTable>],
        names: &Names<'_>,
    ) -> BTreeMap<String, DigestConfig> {
        let digests: Vec<_> = tables.iter().map(|named| self.digest(named, names)).collect();
        digests.into_iter().flatten().map(|digest| (digest.name.clone(), digest)).collect()
    }

    fn digest(
        &mut self,
        Named { name, table }: &Named<DigestTable>,
        names: &Names<'_>,
    ) -> Option<DigestConfig> {
        self.name("digest", name);
        let path = format!("digests.{}", shown(name.get_ref()));
        if table.cron.is_missing() {
            let message = format!("the digest {} needs a `cron`", quote(name.get_ref()));
            self.refuse(name.span(), message, "write cron = \"0 9 * * Mon-Fri\"".to_owned());
        }
        if table.webhooks.is_missing() {
            let message = format!("the digest {} goes to no webhook", quote(name.get_ref()));
            self.refuse(name.span(), message, "name those that get it: webhooks = [\"NAME\"]".to_owned());
        }
        let zone = match table.timezone.given() {
            None => Some(TimeZone::system()),
            Some(given) => {
                let zone = TimeZone::get(given.get_ref()).ok();
                if zone.is_none() {
                    let message = format!("`{path}.timezone` is not known to this machine");
                    self.refuse(given.span(), message, "install its time zones (tzdata)".to_owned());
                }
                zone
            }
        };
        let webhooks = table.webhooks.given()?;
        let key = format!("{path}.webhooks");
        if self.not_empty(&key, webhooks, "name the webhooks that get it").is_some() {
            self.known_names(&key, "webhook", webhooks.get_ref(), &names.webhooks);
        }
        let schedule = Calendar::new(table.cron.given()?.get_ref(), zone?)?;
        let webhooks = webhooks.get_ref().iter().map(|webhook| webhook.get_ref().clone()).collect();
        Some(table.over(DigestConfig::usual(name.get_ref().clone(), schedule, webhooks)))
    }
}

/// The names that filters may name; also those whose tables are wrong in another way, so that one mistake is told
/// once.
pub struct Names<'a> {
    providers: BTreeSet<&'a str>,
    webhooks: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    pub fn of(raw: &'a Raw) -> Self {
        Self {
            providers: raw.providers.iter().map(|named| named.name.get_ref().as_str()).collect(),
            webhooks: raw.webhooks.iter().map(|named| named.name.get_ref().as_str()).collect(),
        }
    }
}

/// The kind of a webhook that names none.
const DEFAULT_WEBHOOK: &str = "generic";
