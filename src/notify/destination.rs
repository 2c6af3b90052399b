//! One configured webhook, ready to be sent to.

use crate::config::WebhookConfig;
use crate::domain::pace::Rate;
use crate::domain::retry;
use crate::http::scrub::Scrubber;
use crate::http::transport::Transport;
use crate::webhook::{self, BadTarget, Target, Webhook};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// A webhook with its adapter, its client and its rules.
pub struct Destination {
    name: String,
    kind: String,
    adapter: Box<dyn Webhook>,
    transport: Arc<dyn Transport>,
    scrubber: Arc<Scrubber>,
    delays: Vec<Duration>,
    rate: Option<Rate>,
    insecure: bool,
    fingerprint: String,
    secrets_digest: SecretsDigest,
}

/// Tells one set of secrets from another, and not what they are.
pub type SecretsDigest = [u8; 32];

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Destination")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Destination {
    /// Puts one together; `scrubber` knows every secret of the configuration.
    pub fn new(
        config: &WebhookConfig,
        target: &Target,
        transport: Arc<dyn Transport>,
        scrubber: Arc<Scrubber>,
    ) -> Result<Self, BadTarget> {
        let kind =
            webhook::registry::kind(&config.kind).ok_or_else(|| BadTarget::Kind(config.kind.clone()))?;
        Ok(Self {
            name: config.name.clone(),
            kind: config.kind.clone(),
            adapter: (kind.build)(target)?,
            transport,
            scrubber,
            delays: config.retry.clone().unwrap_or_else(|| retry::DELAYS.to_vec()),
            rate: config.rate,
            insecure: config.insecure_skip_verify,
            fingerprint: fingerprint(config, target),
            secrets_digest: Self::secrets_digest_of(target),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub fn adapter(&self) -> &dyn Webhook {
        &*self.adapter
    }

    pub fn transport(&self) -> &dyn Transport {
        &*self.transport
    }

    /// Takes secrets out of what is shown.
    pub fn scrubber(&self) -> &Scrubber {
        &self.scrubber
    }

    pub fn delays(&self) -> &[Duration] {
        &self.delays
    }

    /// How fast it may be sent to, if there is a limit.
    pub const fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// Whether any certificate is trusted.
    pub fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// The digest of the secrets that it was made with.
    pub const fn secrets_digest(&self) -> SecretsDigest {
        self.secrets_digest
    }

    /// The digest of all secrets of `target`.
    pub fn secrets_digest_of(target: &Target) -> SecretsDigest {
        let mut hash = Sha256::new();
        hash.update(b"batchd/secrets");
        for secret in [&target.url].into_iter().chain(&target.secrets).chain(target.options.values()) {
            hash.update((secret.expose_secret().len() as u64).to_be_bytes());
            hash.update(secret.expose_secret().as_bytes());
        }
        hash.finalize().into()
    }

    /// Tells whether it still points where it did, and does not tell where that is.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// Eight hexadecimal digits: enough to see a change, too few to find a URL by.
fn fingerprint(config: &WebhookConfig, target: &Target) -> String {
    let mut hash = Sha256::new();
    hash.update(b"batchd/webhook");
    let fixed = [config.name.as_str(), &config.kind, target.url.expose_secret()];
    for field in fixed.into_iter().chain(target.options.values().map(ExposeSecret::expose_secret)) {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field.as_bytes());
    }
    let mut text = data_encoding::HEXLOWER.encode(&hash.finalize());
    text.truncate(8);
    text
}
