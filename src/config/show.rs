//! The effective configuration as TOML, with every default in it and no secret.

use super::secret::SecretSource;
use super::size;
use super::{Config, Egress, Polling, ProviderConfig, Proxy, Template, WebhookConfig};
use crate::domain::duration::compact;
use crate::domain::event::EventType;
use crate::domain::retry;
use secrecy::ExposeSecret;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use url::Url;

impl Config {
    /// What is in force, as a file that batchd reads: sources of secrets as they are, inline ones as `[redacted]`,
    /// a webhook's inline address as scheme and host.
    pub fn show(&self) -> String {
        let mut page = Page::default();
        match &self.file {
            Some(file) => page.comment(&format!("from {}", file.display())),
            None => page.comment("from the environment alone: there is no configuration file"),
        }
        page.table("state");
        page.path("dir", &self.state.dir);
        page.duration("retain", self.state.retain);
        page.table("api");
        match &self.api.socket {
            Some(socket) => page.path("socket", socket),
            None => page.comment(
                "socket: the one systemd passes, else $XDG_RUNTIME_DIR/batchd/batchd.sock, else beside the state",
            ),
        }
        if let Some(listen) = &self.api.listen {
            page.text("listen", &listen.to_string());
        }
        if let Some(token) = &self.api.token {
            page.key("token", &secret(token));
        }
        page.texts("hosts", &self.api.hosts);
        page.table("http");
        match &self.http.proxy {
            Proxy::None => page.text("proxy", "none"),
            Proxy::Env => page.text("proxy", "env"),
            Proxy::Url(url) => page.text("proxy", &proxy(url.expose_secret())),
        }
        if let Some(file) = &self.http.ca_file {
            page.path("ca_file", file);
        }
        page.text(
            "egress",
            match self.http.egress {
                Egress::Local => "local",
                Egress::Public => "public",
            },
        );
        page.table("polling");
        page.polling(&self.polling, None);
        page.table("results");
        page.key("download", if self.results.download { "true" } else { "false" });
        page.path("dir", &self.results.dir);
        page.duration("retain", self.results.retain);
        page.text("max_bytes", &size::compact(self.results.max_bytes));
        for provider in self.providers.values() {
            page.provider(provider, &self.polling);
        }
        for webhook in self.webhooks.values() {
            page.webhook(webhook);
        }
        for digest in self.digests.values() {
            page.table(&format!("digests.{}", digest.name));
            page.text("cron", digest.schedule.as_str());
            match &digest.timezone {
                Some(zone) => page.text("timezone", zone),
                None => page.comment("timezone: the machine's"),
            }
            page.texts("webhooks", &digest.webhooks.iter().collect::<Vec<_>>());
        }
        if let Some(heartbeat) = &self.heartbeat {
            page.table("heartbeat");
            match &heartbeat.url {
                SecretSource::Inline(url) => page.text("url", &origin(url.expose_secret())),
                source => page.key("url", &secret(source)),
            }
            page.duration("every", heartbeat.every);
        }
        page.0
    }
}

/// The text that is being written.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn comment(&mut self, comment: &str) {
        self.line(&format!("# {}", comment.escape_debug()));
    }

    fn table(&mut self, name: &str) {
        self.line(&format!("\n[{name}]"));
    }

    /// A key with what is TOML already.
    fn key(&mut self, key: &str, value: &str) {
        self.line(&format!("{key} = {value}"));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, &quoted(value));
    }

    fn texts<T: AsRef<str>>(&mut self, key: &str, values: &[T]) {
        let values: Vec<String> = values.iter().map(|value| quoted(value.as_ref())).collect();
        self.key(key, &format!("[{}]", values.join(", ")));
    }

    fn path(&mut self, key: &str, path: &Path) {
        self.text(key, &path.to_string_lossy());
    }

    fn duration(&mut self, key: &str, duration: Duration) {
        self.text(key, &compact(duration));
    }

    /// `polling`, or what of it differs from `usual`.
    fn polling(&mut self, polling: &Polling, usual: Option<&Polling>) {
        let durations = |polling: &Polling| {
            [
                ("min_interval", polling.min_interval),
                ("max_interval", polling.max_interval),
                ("timeout", polling.timeout),
                ("stalled_after", polling.stalled_after),
            ]
        };
        let usually = usual.map(durations);
        for (at, (key, duration)) in durations(polling).into_iter().enumerate() {
            if usually.is_none_or(|usually| usually[at].1 != duration) {
                self.duration(key, duration);
            }
        }
        if usual.is_none_or(|usual| usual.concurrency != polling.concurrency) {
            self.key("concurrency", &polling.concurrency.to_string());
        }
        let ceiling = polling.requests_per_minute;
        if let Some(ceiling) =
            ceiling.filter(|_| usual.is_none_or(|usual| usual.requests_per_minute != ceiling))
        {
            self.key("requests_per_minute", &ceiling.to_string());
        }
    }

    fn provider(&mut self, provider: &ProviderConfig, usual: &Polling) {
        self.table(&format!("providers.{}", provider.name));
        self.text("kind", &provider.kind);
        if let Some(key) = &provider.api_key {
            self.key("api_key", &secret(key));
        }
        self.text("base_url", &provider.base_url);
        if let Some(signing) = &provider.webhook_secret {
            self.key("webhook_secret", &secret(signing));
        }
        if let Some(discover) = &provider.discover {
            self.text("discover", discover.as_str());
        }
        for (key, value) in &provider.options {
            self.text(key, value);
        }
        self.polling(&provider.polling, Some(usual));
    }

    fn webhook(&mut self, webhook: &WebhookConfig) {
        self.table(&format!("webhooks.{}", webhook.name));
        self.text("kind", &webhook.kind);
        match &webhook.url {
            Some(SecretSource::Inline(url)) => self.text("url", &origin(url.expose_secret())),
            Some(source) => self.key("url", &secret(source)),
            None => self.comment("url: the service's own address"),
        }
        for (key, source) in &webhook.options {
            self.key(key, &secret(source));
        }
        match webhook.secrets.as_slice() {
            [] => {}
            [alone] => self.key("secret", &secret(alone)),
            several => {
                let several: Vec<String> = several.iter().map(secret).collect();
                self.key("secret", &format!("[{}]", several.join(", ")));
            }
        }
        let events: Vec<&str> = webhook.events.iter().copied().map(EventType::as_str).collect();
        self.texts("events", &events);
        self.text("severity", webhook.severity.as_str());
        if !webhook.providers.is_empty() {
            self.texts("providers", &webhook.providers.iter().collect::<Vec<_>>());
        }
        if !webhook.labels.is_empty() {
            let labels =
                webhook.labels.iter().map(|(key, value)| format!("{} = {}", quoted(key), quoted(value)));
            self.key("labels", &format!("{{ {} }}", labels.collect::<Vec<_>>().join(", ")));
        }
        self.key("on_request", &webhook.on_request.to_string());
        self.duration("timeout", webhook.timeout);
        let delays = webhook.retry.as_deref().unwrap_or(&retry::DELAYS);
        self.texts("retry", &delays.iter().copied().map(compact).collect::<Vec<_>>());
        match &webhook.template {
            Some(Template { file: Some(file), .. }) => self.path("template", file),
            Some(Template { file: None, text }) => self.text("template", text),
            None => {}
        }
        if let Some(rate) = webhook.rate {
            self.text("rate", &rate.to_string());
        }
        if let Some(file) = &webhook.ca_file {
            self.path("ca_file", file);
        }
        self.key("insecure_skip_verify", &webhook.insecure_skip_verify.to_string());
    }
}

/// A secret's source as the file writes it.
fn secret(source: &SecretSource) -> String {
    match source {
        SecretSource::Env(name) => format!("{{ env = {} }}", quoted(name)),
        SecretSource::File(path) => format!("{{ file = {} }}", quoted(&path.to_string_lossy())),
        SecretSource::Credential(name) => format!("{{ credential = {} }}", quoted(name)),
        SecretSource::Inline(_) => quoted(REDACTED),
    }
}

/// Scheme, host and port: what of a webhook's address is no secret.
fn origin(url: &str) -> String {
    Url::parse(url).map_or_else(|_| REDACTED.to_owned(), |url| url.origin().ascii_serialization())
}

/// A proxy's address without its user.
fn proxy(url: &str) -> String {
    let Ok(url) = Url::parse(url) else { return REDACTED.to_owned() };
    let user = if url.username().is_empty() && url.password().is_none() { "" } else { "[redacted]@" };
    let mut shown = format!("{}://{user}{}", url.scheme(), url.host_str().unwrap_or_default());
    if let Some(port) = url.port() {
        // Writing to a text cannot fail.
        let _ = write!(shown, ":{port}");
    }
    shown
}

/// A text as a TOML string on one line.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// What stands in a secret's place.
const REDACTED: &str = "[redacted]";
