//! Floor 1: the configuration, read, judged as a whole, and free of anything that could be wrong.

pub mod environment;
pub mod find;
pub mod problem;
pub mod secret;
pub mod source;

mod address;
mod check;
mod client;
mod load;
mod raw;
mod show;
mod size;
mod value;
mod verify;

pub use client::{ClientView, client_view};
pub use environment::Env;
pub use problem::Refused;

use crate::domain::calendar::Calendar;
use crate::domain::event::EventType;
use crate::domain::outcome::Severity;
use crate::domain::pace::Rate;
use problem::Problem;
use secret::SecretSource;
use source::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// What a kind of provider tells the configuration about itself; the registry of floor 2 hands it down.
#[derive(Clone, Copy, Debug)]
pub struct KindFacts {
    /// The word in `kind = "…"`, and the default name.
    pub name: &'static str,
    /// The standard environment variables that hold its key, in order of preference.
    pub key_env: &'static [&'static str],
    /// The standard environment variable for another address, where the vendor has one.
    pub base_url_env: Option<&'static str>,
    /// Its address, in which `{region}` stands for the key of that name; `None`: the configuration must give one.
    pub base_url: Option<&'static str>,
    /// Whether it answers without a key.
    pub key_optional: bool,
    /// Further keys that its table may hold (`organization`, `project`, …).
    pub options: &'static [&'static str],
    /// Those of them without which nothing can be asked.
    pub required: &'static [&'static str],
    /// The standard environment variables that hold them, in order of preference.
    pub option_env: &'static [(&'static str, &'static [&'static str])],
}

impl KindFacts {
    /// A kind without a name, a key, an address or further keys.
    pub const NONE: Self = Self {
        name: "",
        key_env: &[],
        base_url_env: None,
        base_url: None,
        key_optional: false,
        options: &[],
        required: &[],
        option_env: &[],
    };
}

impl WebhookFacts {
    /// A kind without a name, an address or further keys, which people read.
    pub const NONE: Self = Self {
        name: "",
        url: None,
        retired_hosts: &[],
        signs: false,
        severity: Severity::Info,
        findings: true,
        needs: &[],
        options: &[],
        judge_template: |_| Ok(()),
    };

    /// What to do about an address that belongs to a service which has ended.
    pub fn retired(&self, url: &url::Url) -> Option<&'static str> {
        let host = url.host_str()?;
        self.retired_hosts.iter().find(|(end, _)| host.ends_with(end)).map(|(_, help)| *help)
    }
}

/// What a kind of webhook tells the configuration about itself.
#[derive(Clone, Copy, Debug)]
pub struct WebhookFacts {
    /// The word in `kind = "…"`.
    pub name: &'static str,
    /// Its address; `None`: the configuration must give one.
    pub url: Option<&'static str>,
    /// Ends of the names of hosts that belonged to it and take nothing any more, each with what to do.
    pub retired_hosts: &'static [(&'static str, &'static str)],
    /// Whether it signs with `secret`.
    pub signs: bool,
    /// The floor of severity unless the configuration sets another.
    pub severity: Severity,
    /// Whether it is told findings that need a person unless the configuration says otherwise.
    pub findings: bool,
    /// Further keys that its table must hold; all of them are secrets.
    pub needs: &'static [&'static str],
    /// Further keys that its table may hold; all of them are secrets.
    pub options: &'static [&'static str],
    /// Says what is wrong with a template, in a fragment behind "is broken".
    pub judge_template: fn(&str) -> Result<(), String>,
}

/// The kinds there are.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Of providers.
    pub providers: Vec<KindFacts>,
    /// Of webhooks.
    pub webhooks: Vec<WebhookFacts>,
    /// Those kinds of providers that send webhooks of their own.
    pub hooked: BTreeSet<&'static str>,
}

/// A whole configuration that has been judged sound.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it came from: a file, or (`None`) the standard environment variables alone.
    pub file: Option<PathBuf>,
    /// `[state]`
    pub state: StateConfig,
    /// `[api]`
    pub api: ApiConfig,
    /// `[http]`
    pub http: HttpConfig,
    /// `[polling]`, the defaults of every provider.
    pub polling: Polling,
    /// `[results]`
    pub results: ResultsConfig,
    /// `[providers.NAME]`
    pub providers: BTreeMap<String, ProviderConfig>,
    /// `[webhooks.NAME]`
    pub webhooks: BTreeMap<String, WebhookConfig>,
    /// `[digests.NAME]`
    pub digests: BTreeMap<String, DigestConfig>,
    /// `[heartbeat]`, if it says where to.
    pub heartbeat: Option<HeartbeatConfig>,
    /// What is allowed and still deserves a word; one line each, without secrets.
    pub warnings: Vec<String>,
    /// Where everything stands in the file, for what is found wrong later.
    pub origin: Origin,
}

/// Where a configuration comes from: its text as it may be shown, and the places in it.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    source: Source,
    /// Of each secret and each file that is named.
    places: BTreeMap<String, Range<usize>>,
    warnings: Vec<Problem>,
    /// What is known of the kinds of webhooks.
    webhooks: Vec<WebhookFacts>,
}

/// `[state]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateConfig {
    /// Where the database lives. Resolved: the file, `$STATE_DIRECTORY`, `$XDG_STATE_HOME/batchd`, `~/.local/state/batchd`.
    pub dir: PathBuf,
    /// How long what has ended is kept.
    pub retain: Duration,
}

/// `[results]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultsConfig {
    /// Whether the results of every batch that ends are fetched.
    pub download: bool,
    /// Where they are kept; below the state unless the file says otherwise.
    pub dir: PathBuf,
    /// How long they are kept.
    pub retain: Duration,
    /// How many bytes of them are kept at most; the oldest go first.
    pub max_bytes: u64,
}

/// `[api]`
#[derive(Clone, Debug, Default)]
pub struct ApiConfig {
    /// The socket's path if the file names one.
    pub socket: Option<PathBuf>,
    /// The TCP address, if any.
    pub listen: Option<SocketAddr>,
    /// The bearer token of TCP.
    pub token: Option<SecretSource>,
    /// Further names that `Host` may carry.
    pub hosts: Vec<String>,
}

/// `[http]`
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// How requests leave.
    pub proxy: Proxy,
    /// Further certificate authorities, PEM.
    pub ca_file: Option<PathBuf>,
    /// Where webhooks may go.
    pub egress: Egress,
}

/// `http.proxy`
#[derive(Clone, Debug)]
pub enum Proxy {
    /// Straight, whatever the environment says.
    None,
    /// As `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say.
    Env,
    /// Through this one; it may hold a password.
    Url(secrecy::SecretString),
}

/// `http.egress`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// Private addresses are fine; link-local and metadata addresses never are.
    Local,
    /// Public addresses only.
    Public,
}

/// `[polling]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polling {
    /// No two looks at a batch are closer than this.
    pub min_interval: Duration,
    /// No two are farther apart.
    pub max_interval: Duration,
    /// For one request.
    pub timeout: Duration,
    /// Requests in flight, per provider.
    pub concurrency: u32,
    /// Ceiling, per provider.
    pub requests_per_minute: Option<u32>,
    /// After this long without progress a batch is stalled.
    pub stalled_after: Duration,
}

impl Default for Polling {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_secs(15),
            max_interval: Duration::from_mins(15),
            timeout: Duration::from_secs(30),
            concurrency: 16,
            requests_per_minute: None,
            stalled_after: Duration::from_hours(6),
        }
    }
}

/// `[providers.NAME]`
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// The table's name.
    pub name: String,
    /// The kind; it exists.
    pub kind: String,
    /// What stands before the operation's path; no slash at the end.
    pub base_url: String,
    /// The key.
    pub api_key: Option<SecretSource>,
    /// Signs what the service sends to `/hooks/NAME`.
    pub webhook_secret: Option<SecretSource>,
    /// When its list is searched for batches that nobody registered, in UTC.
    pub discover: Option<Calendar>,
    /// `[polling]` with this provider's own keys over it.
    pub polling: Polling,
    /// The kind's further keys (`organization`, `project`, …).
    pub options: BTreeMap<String, String>,
}

/// `[webhooks.NAME]`
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// The table's name.
    pub name: String,
    /// The kind; it exists.
    pub kind: String,
    /// Where to; `None`: the kind's own address.
    pub url: Option<SecretSource>,
    /// Signing secrets, newest first.
    pub secrets: Vec<SecretSource>,
    /// The kind's further keys (`routing_key`, `topic`, `token`, `chat`).
    pub options: BTreeMap<&'static str, SecretSource>,
    /// What replaces the text that the kind has of its own.
    pub template: Option<Template>,
    /// Which events.
    pub events: BTreeSet<EventType>,
    /// Nothing below this.
    pub severity: Severity,
    /// Only these providers; empty: all.
    pub providers: BTreeSet<String>,
    /// Only batches with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only batches that name it.
    pub on_request: bool,
    /// For the whole exchange.
    pub timeout: Duration,
    /// Delays between attempts, if not the usual ones.
    pub retry: Option<Vec<Duration>>,
    /// How fast it may be sent to, if there is a limit.
    pub rate: Option<Rate>,
    /// Further certificate authorities for this destination, PEM.
    pub ca_file: Option<PathBuf>,
    /// Trust any certificate. Loud.
    pub insecure_skip_verify: bool,
}

/// `template`: the text of it, which was found sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The file that holds it; `None`: it stands in the configuration itself.
    pub file: Option<PathBuf>,
    /// The template.
    pub text: String,
}

/// `[digests.NAME]`
#[derive(Clone, Debug)]
pub struct DigestConfig {
    /// The table's name.
    pub name: String,
    /// When it is sent.
    pub schedule: Calendar,
    /// The time zone of the schedule, by its name; `None`: the machine's.
    pub timezone: Option<String>,
    /// To which webhooks; they are in the file.
    pub webhooks: BTreeSet<String>,
}

/// `[heartbeat]`
#[derive(Clone, Debug)]
pub struct HeartbeatConfig {
    /// Where to.
    pub url: SecretSource,
    /// How often.
    pub every: Duration,
}
