//! Whether everything that a configuration names outside itself is there: secrets, and files of certificates.

use super::address::web_address;
use super::catalog::WebhookFacts;
use super::environment::Env;
use super::headers;
use super::load::read_file;
use super::problem::{Problem, Refused};
use super::secret::{self, SecretProblem, SecretSource};
use super::server_address::{ServerAddress, not_one};
use super::settings::Config;
use secrecy::{ExposeSecret, SecretString};

impl Config {
    /// Tries every secret and every file that the configuration names, as `run` will: whether it is there, whether
    /// a webhook's address is one, whether a signing secret is one.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once; the text holds no secret.
    pub fn check_secrets(&self, env: &Env) -> Result<(), Refused> {
        let secrets = self.secrets().into_iter().filter_map(|use_of| {
            let problem = use_of.problem(env)?;
            Some((use_of.key, problem))
        });
        let certificates = self.certificates().into_iter().filter_map(|(key, file)| {
            let problem = match read_file(file) {
                Ok(text) if text.contains(CERTIFICATE) => return None,
                Ok(_) => format!("{} holds no PEM certificate", file.display()),
                Err(error) => error.problem.message,
            };
            Some((key, problem))
        });
        let problems: Vec<Problem> = secrets
            .chain(certificates)
            .map(|(key, problem)| {
                Problem::error(self.origin.places.get(&key).cloned(), format!("`{key}`: {problem}"))
            })
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(Refused::new(problems, self.origin.source.clone())) }
    }

    /// Every secret that the configuration names.
    pub(super) fn secrets(&self) -> Vec<UseOfSecret<'_>> {
        let mut uses = Vec::new();
        let mut add = |key: String, source, form| uses.push(UseOfSecret { key, source, form });
        if let Some(url) = &self.state.url {
            add("state.url".to_owned(), url, Form::Server);
        }
        if let Some(token) = &self.api.token {
            add("api.token".to_owned(), token, Form::Any);
        }
        if let Some(token) = &self.api.read_token {
            add("api.read_token".to_owned(), token, Form::Any);
        }
        for provider in self.providers.values() {
            if let Some(key) = &provider.api_key {
                add(format!("providers.{}.api_key", provider.name), key, Form::Key);
            }
            if let Some(token) = &provider.auth_token {
                add(format!("providers.{}.auth_token", provider.name), token, Form::Key);
            }
            for (header, value) in &provider.headers {
                add(
                    format!("providers.{}.headers.{header}", provider.name),
                    value,
                    Form::Header { secret: headers::is_secret(header, value) },
                );
            }
            if let Some(secret) = &provider.webhook_secret {
                add(format!("providers.{}.webhook_secret", provider.name), secret, Form::HookSecret);
            }
        }
        for webhook in self.webhooks.values() {
            if let Some(url) = &webhook.url {
                let facts = self.origin.webhooks.iter().find(|facts| facts.name == webhook.kind).copied();
                add(format!("webhooks.{}.url", webhook.name), url, Form::Address(facts));
            }
            for (key, option) in &webhook.options {
                add(format!("webhooks.{}.{key}", webhook.name), option, Form::Key);
            }
            for (at, secret) in webhook.secrets.iter().enumerate() {
                let number = if webhook.secrets.len() == 1 { String::new() } else { format!("[{at}]") };
                add(format!("webhooks.{}.secret{number}", webhook.name), secret, Form::SigningSecret);
            }
        }
        if let Some(heartbeat) = &self.heartbeat {
            add("heartbeat.url".to_owned(), &heartbeat.url, Form::Address(None));
        }
        uses
    }

    fn certificates(&self) -> Vec<(String, &std::path::Path)> {
        let own = self.http.ca_file.iter().map(|file| ("http.ca_file".to_owned(), file.as_path()));
        let webhooks = self.webhooks.values().filter_map(|webhook| {
            Some((format!("webhooks.{}.ca_file", webhook.name), webhook.ca_file.as_deref()?))
        });
        own.chain(webhooks).collect()
    }
}

pub(super) struct UseOfSecret<'a> {
    /// The key that names it, in full.
    pub(super) key: String,
    pub(super) source: &'a SecretSource,
    form: Form,
}

/// What a secret must look like.
enum Form {
    /// Nobody knows but who chose it.
    Any,
    /// The same, but with nothing around it.
    Key,
    /// The value of a header.
    Header { secret: bool },
    /// An address that requests go to, of a webhook of this kind.
    Address(Option<WebhookFacts>),
    /// Where a PostgreSQL server is.
    Server,
    /// `whsec_…`
    SigningSecret,
    /// The same where a service chose it: of any length, and plain text if it does not begin with `whsec_`.
    HookSecret,
}

impl UseOfSecret<'_> {
    /// Whether it must not be shown.
    pub(super) fn is_secret(&self) -> bool {
        !matches!(self.form, Form::Header { secret: false })
    }

    /// Whether it must be an address.
    pub(super) fn is_address(&self) -> bool {
        matches!(self.form, Form::Address(_))
    }

    /// Whether it must be the address of a server.
    pub(super) fn is_server(&self) -> bool {
        matches!(self.form, Form::Server)
    }

    fn problem(&self, env: &Env) -> Option<String> {
        match self.source.resolve(env) {
            Ok(secret) => self.problem_of(&secret),
            Err(problem) => Some(problem.to_string()),
        }
    }

    fn problem_of(&self, secret: &SecretString) -> Option<String> {
        let place = || self.source.describe();
        match self.form {
            Form::Any => None,
            Form::Header { .. } => headers::value(secret.expose_secret())
                .is_none()
                .then(|| format!("{} holds characters that no header may carry", place())),
            Form::Key => secret::wrapping(secret).map(|what| format!("{} {what}", place())),
            Form::Address(facts) => match web_address(secret.expose_secret()) {
                Ok(url) => facts?
                    .retired(&url)
                    .map(|help| format!("{} holds the address of a service that has ended; {help}", place())),
                Err(expected) => Some(format!("{} must hold {expected}", place())),
            },
            Form::Server => {
                let address = secret.expose_secret().parse::<ServerAddress>();
                address.err().map(|problem| not_one(&place(), &problem))
            }
            Form::HookSecret => secret::hook_key(secret)
                .is_none()
                .then(|| SecretProblem::NoHookSecret { place: place() }.to_string()),
            Form::SigningSecret => secret::signing_key(secret)
                .is_none()
                .then(|| SecretProblem::NoSigningSecret { place: place() }.to_string()),
        }
    }
}

/// What a file of certificates holds.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
