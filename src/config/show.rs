//! The effective configuration as TOML, with every default in it and no secret.

use super::form::{ADDRESS, PRICE, SECRET, SECRET_ADDRESS, list, quoted};
use super::secret::SecretSource;
use super::settings::{Config, DigestConfig, Polling, ProviderConfig, WebhookConfig};
use crate::domain::cost::Rates;
use crate::domain::{prices, retry};

impl Config {
    /// What is in force, as a file that batchd reads: sources of secrets as they are, inline ones as `[redacted]`,
    /// a webhook's inline address as scheme and host.
    pub fn show(&self) -> String {
        self.page(false)
    }

    /// The same with every key of a provider, also those that are as in `[polling]`.
    pub(super) fn shown_whole(&self) -> String {
        self.page(true)
    }

    fn page(&self, whole: bool) -> String {
        let mut page = Page { text: String::new(), whole };
        match &self.file {
            Some(file) => page.comment(&format!("from {}", file.display())),
            None => page.comment("from the environment alone: there is no configuration file"),
        }
        page.table("state");
        page.keys(self.state.written());
        page.table("api");
        if self.api.socket.is_none() {
            page.comment(
                "socket: the one systemd passes, else $XDG_RUNTIME_DIR/batchd/batchd.sock, else beside the state",
            );
        }
        page.keys(self.api.written());
        page.table("http");
        page.keys(self.http.written());
        page.table("polling");
        page.keys(polling(&self.polling));
        page.table("results");
        page.keys(self.results.written());
        for (pattern, rates) in &self.rates {
            page.price(pattern, rates);
        }
        match self.prices.imported() {
            0 => {}
            count => page.comment(&format!("{}: {count} prices", prices::FILE_NAME)),
        }
        page.table("files");
        page.keys(self.files.written());
        for provider in self.providers.values() {
            page.provider(provider, &self.polling);
        }
        for webhook in self.webhooks.values() {
            page.webhook(webhook);
        }
        for digest in self.digests.values() {
            page.digest(digest);
        }
        if let Some(heartbeat) = &self.heartbeat {
            page.table("heartbeat");
            page.key("url", (SECRET_ADDRESS.write)(&heartbeat.url));
            page.keys(heartbeat.written());
        }
        page.text
    }
}

/// The text that is being written.
struct Page {
    text: String,
    /// Whether a provider's keys stand there too where they are as in `[polling]`.
    whole: bool,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn comment(&mut self, comment: &str) {
        self.line(&format!("# {}", comment.escape_debug()));
    }

    fn table(&mut self, name: &str) {
        self.line(&format!("\n[{name}]"));
    }

    /// A key with what is TOML already, if there is any.
    fn key(&mut self, key: &str, value: impl Into<Option<String>>) {
        if let Some(value) = value.into() {
            self.line(&format!("{key} = {value}"));
        }
    }

    fn keys(&mut self, keys: Vec<(&'static str, String)>) {
        for (key, value) in keys {
            self.key(key, value);
        }
    }

    fn provider(&mut self, provider: &ProviderConfig, usual: &Polling) {
        self.table(&format!("providers.{}", provider.name));
        self.key("kind", quoted(&provider.kind));
        self.key("api_key", provider.api_key.as_ref().and_then(SECRET.write));
        self.key("auth_token", provider.auth_token.as_ref().and_then(SECRET.write));
        self.key("base_url", (ADDRESS.write)(&provider.base_url));
        self.keys(provider.written());
        for (key, value) in &provider.options {
            self.key(key, quoted(value));
        }
        let (usual, whole) = (polling(usual), self.whole);
        self.keys(
            polling(&provider.polling).into_iter().filter(|key| whole || !usual.contains(key)).collect(),
        );
    }

    fn webhook(&mut self, webhook: &WebhookConfig) {
        self.table(&format!("webhooks.{}", webhook.name));
        self.key("kind", quoted(&webhook.kind));
        match &webhook.url {
            Some(url) => self.key("url", (SECRET_ADDRESS.write)(url)),
            None => self.comment("url: the service's own address"),
        }
        for (key, source) in &webhook.options {
            self.key(key, (SECRET.write)(source));
        }
        let secret = |secret: &SecretSource| (SECRET.write)(secret);
        match webhook.secrets.as_slice() {
            [] => {}
            [alone] => self.key("secret", secret(alone)),
            several => self.key("secret", list(several.iter().filter_map(secret))),
        }
        if !webhook.providers.is_empty() {
            self.key("providers", list(webhook.providers.iter().map(|name| quoted(name))));
        }
        let retry = webhook.retry.clone().unwrap_or_else(|| retry::DELAYS.to_vec());
        self.keys(WebhookConfig { retry: Some(retry), ..webhook.clone() }.written());
    }

    fn price(&mut self, pattern: &str, rates: &Rates) {
        self.table(&format!("prices.{}", quoted(pattern)));
        let Rates { input, output, cached_input, cache_write, cache_write_1h, max_input: _ } = *rates;
        let given = [
            ("input", Some(input)),
            ("output", Some(output)),
            ("cached_input", cached_input),
            ("cache_write", cache_write),
            ("cache_write_1h", cache_write_1h),
        ];
        for (key, price) in given {
            self.key(key, price.and_then(|price| (PRICE.write)(&price)));
        }
    }

    fn digest(&mut self, digest: &DigestConfig) {
        self.table(&format!("digests.{}", digest.name));
        self.key("cron", quoted(digest.schedule.as_str()));
        self.key("webhooks", list(digest.webhooks.iter().map(|name| quoted(name))));
        if digest.timezone.is_none() {
            self.comment("timezone: the machine's");
        }
        self.keys(digest.written());
    }
}

/// The keys of `polling`, the durations first.
fn polling(polling: &Polling) -> Vec<(&'static str, String)> {
    let mut keys = polling.written();
    keys.sort_by_key(|(_, value)| !value.starts_with('"'));
    keys
}
