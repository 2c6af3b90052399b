//! What a first configuration is made of: asked for, or given on the command line.

use super::error::Error;
use super::exit::Exit;
use super::ui::Ui;
use crate::config::environment::Env;
use crate::config::{Catalog, KindFacts};
use crate::control::assembly::catalog;
use std::fmt::Write as _;

/// A configuration's providers and webhooks.
#[derive(Debug, Default)]
pub struct Answers {
    providers: Vec<ProviderAnswer>,
    webhooks: Vec<WebhookAnswer>,
}

#[derive(Debug)]
pub struct ProviderAnswer {
    name: String,
    kind: String,
    key: Option<SecretAnswer>,
    base_url: Option<String>,
}

#[derive(Debug)]
pub struct WebhookAnswer {
    name: String,
    kind: String,
    url: SecretAnswer,
}

/// Where a secret is.
#[derive(Debug)]
pub enum SecretAnswer {
    /// In a variable.
    Variable(String),
    /// It was told, and is kept in a file.
    Told(String),
}

impl Answers {
    /// What the command line says; keys are in the variables of their kinds.
    pub fn given(kinds: &[String], webhooks: &[(String, String)], env: &Env) -> Result<Self, Error> {
        let catalog = catalog();
        let mut answers = Self::default();
        for word in kinds {
            let kind = provider_kind(&catalog, word)?;
            let variable = variable_of(kind, env);
            if variable.is_none() && !kind.key_optional {
                return Err(Error::new(
                    Exit::Configuration,
                    format!("no key for {word}: {} is not set", kind.key_env.join(", ")),
                ));
            }
            let base_url = address_of(kind, env);
            if kind.base_url.is_none() && base_url.is_none() {
                return Err(Error::usage(format!(
                    "kind {word} needs a base_url: run `batchd init` in a terminal"
                )));
            }
            answers.provider(kind, variable.map(SecretAnswer::Variable), None);
        }
        for (word, url) in webhooks {
            let kind = webhook_kind(&catalog, word)?;
            answers.webhook(&kind, SecretAnswer::Told(url.clone()));
        }
        Ok(answers)
    }

    /// What a person says.
    pub fn asked(ui: &mut Ui, env: &Env) -> Result<Self, Error> {
        let catalog = catalog();
        let mut answers = Self::default();
        for kind in &catalog.providers {
            let Some(variable) = variable_of(kind, env) else { continue };
            if kind.base_url.is_some() && ui.agrees(&format!("{variable} is set: watch {}?", kind.name))? {
                answers.provider(kind, Some(SecretAnswer::Variable(variable)), None);
            }
        }
        loop {
            let more = if answers.providers.is_empty() { "Which provider" } else { "Another provider" };
            let word = ui.ask(&format!("{more} (openai, anthropic, gemini, …; empty: none)?"))?;
            if word.is_empty() {
                break;
            }
            let kind = match provider_kind(&catalog, &word) {
                Ok(kind) => kind,
                Err(error) => {
                    ui.error(&error);
                    continue;
                }
            };
            let base_url = match kind.base_url {
                Some(_) => None,
                None => Some(ui.ask("Its address (base_url)?")?),
            };
            let key = ui.ask_secret(&format!("The key of {word}?"))?;
            let key = Some(key).filter(|key| !key.is_empty()).map(SecretAnswer::Told);
            answers.provider(kind, key, base_url);
        }
        loop {
            let word = ui.ask("A webhook to tell (slack, discord, generic, …; empty: none)?")?;
            if word.is_empty() {
                break;
            }
            match webhook_kind(&catalog, &word) {
                Ok(kind) => {
                    let url = ui.ask_secret("Its address?")?;
                    if !url.is_empty() {
                        answers.webhook(&kind, SecretAnswer::Told(url));
                    }
                }
                Err(error) => ui.error(&error),
            }
        }
        if answers.providers.is_empty() {
            return Err(Error::usage("without a provider there is nothing to watch; nothing was written"));
        }
        Ok(answers)
    }

    /// Has every key kept in a file, for one who does not have this shell's variables.
    pub fn keep_keys(&mut self, env: &Env) {
        let keys = self.providers.iter_mut().filter_map(|provider| provider.key.as_mut());
        for secret in keys.chain(self.webhooks.iter_mut().map(|webhook| &mut webhook.url)) {
            if let SecretAnswer::Variable(name) = secret
                && let Some(value) = env.get(name)
            {
                *secret = SecretAnswer::Told(value.to_owned());
            }
        }
    }

    /// The secrets that are kept in files, by the files' names.
    pub fn kept(&self) -> Vec<(String, &str)> {
        let keys = self
            .providers
            .iter()
            .filter_map(|provider| Some((provider.name.clone(), provider.key.as_ref()?)));
        let urls = self.webhooks.iter().map(|webhook| (format!("webhook-{}", webhook.name), &webhook.url));
        keys.chain(urls)
            .filter_map(|(name, secret)| match secret {
                SecretAnswer::Told(text) => Some((name, text.as_str())),
                SecretAnswer::Variable(_) => None,
            })
            .collect()
    }

    /// The file.
    pub fn toml(&self) -> String {
        let mut text = String::from(
            "# Written by `batchd init`. config.example.toml has every key; `batchd config check` checks this file.\n",
        );
        let secret = |secret: &SecretAnswer, file: &str| match secret {
            SecretAnswer::Variable(name) => format!("{{ env = {} }}", quoted(name)),
            SecretAnswer::Told(_) => format!("{{ file = {} }}", quoted(&format!("keys/{file}"))),
        };
        for provider in &self.providers {
            let _ = write!(
                text,
                "\n[providers.{}]\nkind = {}\n",
                quoted_key(&provider.name),
                quoted(&provider.kind)
            );
            if let Some(key) = &provider.key {
                let _ = writeln!(text, "api_key = {}", secret(key, &provider.name));
            }
            if let Some(base_url) = &provider.base_url {
                let _ = writeln!(text, "base_url = {}", quoted(base_url));
            }
        }
        for webhook in &self.webhooks {
            let _ = write!(
                text,
                "\n[webhooks.{}]\nkind = {}\n",
                quoted_key(&webhook.name),
                quoted(&webhook.kind)
            );
            let _ = writeln!(text, "url = {}", secret(&webhook.url, &format!("webhook-{}", webhook.name)));
        }
        text
    }

    fn provider(&mut self, kind: &KindFacts, key: Option<SecretAnswer>, base_url: Option<String>) {
        let name = unused(kind.name, |name| self.providers.iter().any(|other| other.name == name));
        self.providers.push(ProviderAnswer { name, kind: kind.name.to_owned(), key, base_url });
    }

    fn webhook(&mut self, kind: &str, url: SecretAnswer) {
        let name = unused(kind, |name| self.webhooks.iter().any(|other| other.name == name));
        self.webhooks.push(WebhookAnswer { name, kind: kind.to_owned(), url });
    }
}

/// `openai`, or `openai-2` if that is taken.
fn unused(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2_u32..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}

fn provider_kind<'a>(catalog: &'a Catalog, word: &str) -> Result<&'a KindFacts, Error> {
    let names = || catalog.providers.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
    let found = catalog.providers.iter().find(|kind| kind.name == word);
    found.ok_or_else(|| Error::usage(format!("`{word}` is no kind of provider; one of {}", names())))
}

fn webhook_kind(catalog: &Catalog, word: &str) -> Result<String, Error> {
    let names = || catalog.webhooks.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
    match catalog.webhooks.iter().find(|kind| kind.name == word) {
        Some(kind) if kind.needs.is_empty() => Ok(kind.name.to_owned()),
        Some(kind) => Err(Error::usage(format!(
            "a webhook of kind {word} needs {} too: write its table by hand",
            kind.needs.join(", ")
        ))),
        None => Err(Error::usage(format!("`{word}` is no kind of webhook; one of {}", names()))),
    }
}

/// The variable that has the key of a kind, if one is set.
fn variable_of(kind: &KindFacts, env: &Env) -> Option<String> {
    kind.key_env.iter().find(|variable| env.get(variable).is_some()).map(|variable| (*variable).to_owned())
}

fn address_of(kind: &KindFacts, env: &Env) -> Option<String> {
    kind.base_url_env.and_then(|variable| env.get(variable)).map(str::to_owned)
}

/// Text as TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_key(name: &str) -> String {
    let bare = name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_'));
    if bare { name.to_owned() } else { quoted(name) }
}
