//! The configuration: every table and key, declared once, and the values in force.
//!
//! From these declarations come the readers, the known keys, what of a file may be shown, `config show` and
//! `docs/configuration.md`.

use super::catalog::WebhookFacts;
use super::form::{
    ADDRESS, Bounds, COUNT, CRON, CRON_IN_UTC, DURATION, Form, HEADERS, LABELS, NAMES, PATH, PLAIN_TEXT,
    PRICE, RATE, SECRET, SECRET_ADDRESS, SECRET_SERVER, SECRETS, SIZE, SWITCH, TEXT_LIST, TIME_ZONE, WORD,
};
use super::keys::{Key, Section, Sections};
use super::listening::{HOSTS, LISTEN, PUBLIC_URL, PublicUrl, SOCKET};
use super::outbound::{EGRESS, Egress, PROXY, Proxy};
use super::problem::Problem;
use super::secret::SecretSource;
use super::source::Source;
use super::subscription::{EVENTS, RETRY, SEVERITY, TEMPLATE, Template, delays_as_toml};
use super::table::table;
use crate::domain::calendar::Calendar;
use crate::domain::cost::{Rates, Usd};
use crate::domain::event::EventType;
use crate::domain::outcome::Severity;
use crate::domain::pace::Rate;
use crate::domain::prices::Prices;
use crate::domain::retry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;

/// Every table of the file.
pub const SECTIONS: Sections = Sections(&[
    StateTable::SECTION,
    ApiTable::SECTION,
    HttpTable::SECTION,
    PollingTable::SECTION,
    ResultsTable::SECTION,
    PriceTable::SECTION,
    FilesTable::SECTION,
    HeartbeatTable::SECTION,
    Section { keys: &[ProviderTable::KEYS, PollingTable::KEYS, PROVIDER_OPTIONS], ..ProviderTable::SECTION },
    WebhookTable::SECTION,
    DigestTable::SECTION,
]);

table! {
    /// Where batchd keeps what it knows, and for how long.
    "state", StateTable {} => #[derive(Clone, Debug, PartialEq, Eq)] StateConfig {} {
        /// The directory of the database.
        dir: PathBuf = PATH, usual PathBuf::new(),
            said "the first of `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/batchd`, else `~/.local/state/batchd`";
        /// How long batches that have ended are kept, with their events and deliveries.
        retain: Duration = DURATION.within(&RETAIN), usual DEFAULT_RETAIN;
        /// The [PostgreSQL server](scaling.md#the-address) that holds the state in place of a file in `dir`, which several
        /// daemons may share.
        url: SecretSource = SECRET_SERVER;
        /// What this daemon is called among those that share the state.
        name: String = PLAIN_TEXT, said "the machine's name";
        /// After this time without a sign of life, what a daemon does is taken over by the others.
        lease: Duration = DURATION.within(&LEASE), usual Duration::from_secs(10);
    }
}

table! {
    /// Where commands and programs reach the daemon.
    "api", ApiTable {} => #[derive(Clone, Debug, Default)] ApiConfig {} {
        /// The Unix socket.
        socket: PathBuf = SOCKET,
            said "the socket that systemd passes, else `$XDG_RUNTIME_DIR/batchd/batchd.sock`, else `batchd.sock` in the state directory";
        /// A TCP address to listen on as well. Without `token` or `read_token` it must be a loopback address. Without
        /// `token` it is read-only.
        listen: SocketAddr = LISTEN;
        /// The bearer token that opens everything to TCP clients.
        token: SecretSource = SECRET;
        /// A bearer token that opens only what changes nothing, asks no provider and copies nothing.
        read_token: SecretSource = SECRET;
        /// Further names by which TCP may be addressed, for a reverse proxy.
        hosts: Vec<String> = HOSTS, usual Vec::new();
        /// Whether the [dashboard](dashboard.md) is served.
        dashboard: bool = SWITCH, usual true;
        /// Where people reach the dashboard, such as `https://ops.example.com/batchd`: messages link to its pages. The
        /// host is one of `hosts` by that, and the path may stand before the path of every request.
        public_url: PublicUrl = PUBLIC_URL;
    }
}

impl ApiConfig {
    /// The address of the dashboard that messages link to, if people reach one.
    pub fn pages(&self) -> Option<&str> {
        self.public_url.as_ref().filter(|_| self.dashboard).map(|public| public.url.as_str())
    }
}

table! {
    /// How requests leave this machine.
    "http", HttpTable {} => #[derive(Clone, Debug)] HttpConfig {} {
        /// The proxy for all requests; `"env"` follows `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
        proxy: Proxy = PROXY, usual Proxy::None;
        /// A PEM file of certificate authorities, or self-signed certificates, to trust besides the usual ones.
        ca_file: PathBuf = PATH;
        /// Where webhooks may go: with `"public"` not to private addresses. Through a proxy, that holds only for
        /// addresses that stand in a URL.
        egress: Egress = EGRESS, usual Egress::Local;
    }
}

table! {
    /// How often providers are polled. A provider's own table may hold these keys too, and they hold for it alone.
    "polling", PollingTable {} => #[derive(Clone, Copy, Debug, PartialEq, Eq)] Polling {} {
        /// The shortest time between two checks of a batch.
        min_interval: Duration = DURATION.within(&INTERVAL), usual Duration::from_secs(15);
        /// The longest time between two checks of a batch.
        max_interval: Duration = DURATION.within(&INTERVAL), usual Duration::from_mins(15);
        /// How long one request may take.
        timeout: Duration = DURATION.within(&POLL_TIMEOUT), usual Duration::from_secs(30);
        /// How many requests may be in flight, per provider.
        concurrency: u32 = COUNT.within(&CONCURRENCY), usual 16;
        /// How many requests may be sent a minute, per provider.
        requests_per_minute: u32 = COUNT.within(&PER_MINUTE), said "no limit";
        /// How long a batch may go without progress before it is reported as stalled.
        stalled_after: Duration = DURATION.within(&STALLED_AFTER), usual Duration::from_hours(6);
    }
}

impl Default for Polling {
    fn default() -> Self {
        Self::usual()
    }
}

table! {
    /// Downloading the results of batches, before their provider deletes them.
    "results", ResultsTable {} => #[derive(Clone, Debug, PartialEq, Eq)] ResultsConfig {} {
        /// Whether the results of every batch that ends are downloaded: one file per batch, in OpenAI's form.
        download: bool = SWITCH, usual false;
        /// The directory of the results. Where several daemons share the state, one that [all of them have](scaling.md#shared-directories).
        dir: PathBuf = PATH, usual PathBuf::new(), said "`results` in the state directory";
        /// How long results are kept.
        retain: Duration = DURATION.within(&RETAIN), usual DEFAULT_RETAIN;
        /// How much is kept in total; beyond that, the oldest results are deleted.
        max_bytes: u64 = SIZE.within(&MAX_BYTES), usual 50 << 30;
    }
}

table! {
    /// What a model costs in a batch, in US dollars for a million tokens. The table's name is that of the model, in which
    /// `*` stands for any characters; [docs/cost.md](cost.md#prices) says which of several holds.
    "prices.*", PriceTable {
        /// Tokens that are read. Needed.
        input: Usd = PRICE;
        /// Tokens that are written, reasoning included. Needed.
        output: Usd = PRICE;
        /// Input that comes from a cache.
        cached_input: Usd = PRICE, said "`input`";
        /// Input that is written to a cache.
        cache_write: Usd = PRICE, said "`input`";
        /// Input that is written to a cache which keeps it for an hour.
        cache_write_1h: Usd = PRICE, said "`cache_write`";
    }
}

table! {
    /// The files that clients upload to `/v1/files`, to create batches from.
    "files", FilesTable {} => #[derive(Clone, Debug, PartialEq, Eq)] FilesConfig {} {
        /// The directory of the files. Where several daemons share the state, one that [all of them have](scaling.md#shared-directories).
        dir: PathBuf = PATH, usual PathBuf::new(), said "`files` in the state directory";
        /// How long a file is kept after it was last used. One whose batch still runs stays.
        retain: Duration = DURATION.within(&RETAIN), usual Duration::from_hours(30 * DAY);
        /// How much is kept in total; what would exceed it is refused.
        max_bytes: u64 = SIZE.within(&MAX_BYTES), usual 20 << 30;
    }
}

table! {
    /// A request to a service that alerts when requests stop, so that batchd itself is watched.
    "heartbeat", HeartbeatTable {
        /// Where the request goes. Without it there is no heartbeat.
        url: SecretSource = SECRET_ADDRESS;
    } => #[derive(Clone, Debug)] HeartbeatConfig {
        url: SecretSource,
    } {
        /// How often it is sent.
        every: Duration = DURATION.within(&HEARTBEAT), usual Duration::from_mins(5);
    }
}

table! {
    /// An account at a provider. Its name is yours to choose, of letters, digits, `-` and `_`.
    "providers.*", ProviderTable {
        /// The [kind of provider](providers.md).
        kind: String = WORD, said "the table's name";
        /// The key of the account.
        api_key: SecretSource = SECRET, said "the kind's standard variable";
        /// A bearer token, sent in place of the key.
        auth_token: SecretSource = SECRET, said "the kind's standard variable, if there is no key";
        /// The address that the paths of requests are appended to.
        base_url: String = ADDRESS, said "the kind's standard variable, else its own address";
    } => #[derive(Clone, Debug)] ProviderConfig {
        /// The table's name.
        name: String,
        /// The kind; it exists.
        kind: String,
        /// What stands before the operation's path; no slash at the end.
        base_url: String,
        api_key: Option<SecretSource>,
        /// What is sent as a bearer's token in place of the key, at kinds that take either.
        auth_token: Option<SecretSource>,
        /// `[polling]` with this provider's own keys over it.
        polling: Polling,
        /// The kind's further keys (`organization`, `project`, …).
        options: BTreeMap<String, String>,
    } {
        /// What the provider signs its own webhooks with. With it, `POST /hooks/NAME` takes them, and the batch that
        /// one names is checked at once.
        webhook_secret: SecretSource = SECRET;
        /// [Further headers](#headers-of-a-provider) of every request to the provider's own address.
        headers: BTreeMap<String, SecretSource> = HEADERS, usual BTreeMap::new();
        /// When the provider's list is searched for batches that nobody tracked, to track them. Those that had ended
        /// before the first search are left alone.
        discover: Calendar = CRON_IN_UTC, said "never";
    }
}

impl ProviderConfig {
    /// An account that is named as its kind, without a key, and with what is usual of everything else.
    pub fn bare(kind: &str, base_url: &str) -> Self {
        Self {
            name: kind.to_owned(),
            kind: kind.to_owned(),
            base_url: base_url.to_owned(),
            api_key: None,
            auth_token: None,
            webhook_secret: None,
            headers: BTreeMap::new(),
            discover: None,
            polling: Polling::default(),
            options: BTreeMap::new(),
        }
    }
}

/// The further keys of providers that only some kinds have; each is text.
pub const PROVIDER_OPTIONS: &[Key] = &[
    option(
        "api_version",
        "The version of the classic API, whose `base_url` ends in `/openai`. Without it the v1 API is used.",
    ),
    option(
        "deployment",
        "The batch deployment that takes the place of each request's model in what is submitted.",
    ),
    option("region", "The AWS region."),
    option("profile", "The profile of AWS's shared configuration files that credentials are taken from."),
    option("project", "The project that requests are made for."),
    option("location", "The location of the project's batches, such as `europe-west4`."),
    option("account", "The id of the account."),
    option("upstream", "The provider behind the gateway that holds the batches."),
    option("organization", "The organization that is named in every request."),
    option("access_key_id", "The id of an AWS access key, whose secret is then `api_key`."),
    option(
        "credentials_file",
        "A JSON file of Google credentials, in place of those that Google's own libraries find.",
    ),
    option("role_arn", "The role that the provider assumes to read the input and write the results."),
    option(
        "input_uri",
        "Where the input of what is submitted is stored (`s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`).",
    ),
    option("output_uri", "Where the results of what is submitted are stored, as `input_uri`."),
    option(
        "bucket_owner",
        "The id of the AWS account that owns the buckets, where it is another than the caller's.",
    ),
    option("kms_key", "The KMS key that the results are encrypted with: its id or its ARN."),
    Key {
        form: || TEXT_LIST.describe(),
        ..option("subnet_ids", "The subnets of a VPC that the job runs in; with `security_group_ids`.")
    },
    Key {
        form: || TEXT_LIST.describe(),
        ..option("security_group_ids", "The security groups of the job in that VPC.")
    },
    Key {
        form: || ADDRESS.describe(),
        visibility: ADDRESS.visibility,
        ..option("storage_url", "The address of another storage service than the kind's own.")
    },
];

/// How the value of a further key is read.
pub const fn option_form(name: &str) -> Form<String> {
    match name.as_bytes() {
        b"subnet_ids" | b"security_group_ids" => TEXT_LIST,
        _ => PLAIN_TEXT,
    }
}

const fn option(name: &'static str, doc: &'static str) -> Key {
    Key { name, doc, form: || PLAIN_TEXT.describe(), visibility: PLAIN_TEXT.visibility, usual: || None }
}

table! {
    /// A place that events are sent to. Its name is yours to choose, of letters, digits, `-` and `_`.
    "webhooks.*", WebhookTable {
        /// The [kind of webhook](README.md#webhook-pages).
        kind: String = WORD, said "`\"generic\"`";
        /// Where events are sent.
        url: SecretSource = SECRET_ADDRESS, said "the kind's own address, if it has one";
        /// The chat that a bot writes to: a number, or `@name` of a channel.
        chat: SecretSource = SECRET;
        /// The integration key of a PagerDuty service.
        routing_key: SecretSource = SECRET;
        /// The bot's token, or the access token of an ntfy server.
        token: SecretSource = SECRET;
        /// The topic. Whoever knows it can read along.
        topic: SecretSource = SECRET;
        /// What deliveries are signed with; during a change a list, the new secret first. Without it they are
        /// unsigned.
        secret: Vec<Spanned<SecretSource>> = SECRETS;
        /// Only batches of these providers.
        providers: Vec<Spanned<String>> = NAMES, said "all";
    } => #[derive(Clone, Debug)] WebhookConfig {
        /// The table's name.
        name: String,
        /// The kind; it exists.
        kind: String,
        /// Where to; `None`: the kind's own address.
        url: Option<SecretSource>,
        /// The kind's further keys (`routing_key`, `topic`, `token`, `chat`).
        options: BTreeMap<&'static str, SecretSource>,
        /// Signing secrets, newest first.
        secrets: Vec<SecretSource>,
        /// Only these providers; empty: all.
        providers: BTreeSet<String>,
    } {
        /// The [types of events](contract.md#event-types) that are sent.
        events: BTreeSet<EventType> = EVENTS, usual EventType::ENDS.into_iter().collect(),
            said "the four ends of a batch; for chat kinds also the findings that need a person";
        /// The lowest severity that is sent.
        severity: Severity = SEVERITY, usual Severity::Info, said "`\"info\"`; for `pagerduty` `\"warning\"`";
        /// Only batches with all of these labels.
        labels: BTreeMap<String, String> = LABELS, usual BTreeMap::new();
        /// Whether it is sent only what concerns batches that name it (`--notify`).
        on_request: bool = SWITCH, usual false;
        /// How long one delivery may take.
        timeout: Duration = DURATION.within(&TIMEOUT), usual Duration::from_secs(15);
        /// The delays between the attempts of a delivery.
        retry: Vec<Duration> = RETRY, said format!("`{}`", delays_as_toml(&retry::DELAYS));
        /// What replaces the kind's own text: a [template](#templates), or the path of a file with one.
        template: Template = TEMPLATE;
        /// How many messages may be sent in a time.
        rate: Rate = RATE, said "no limit";
        /// A PEM file of certificate authorities, or self-signed certificates, to trust for this webhook besides the usual ones.
        ca_file: PathBuf = PATH;
        /// Whether any certificate is trusted, so that whoever answers is believed.
        insecure_skip_verify: bool = SWITCH, usual false;
    }
}

table! {
    /// A summary at set times: what ended and how, what is running and until when, what is stuck.
    "digests.*", DigestTable {
        /// When it is sent. Needed.
        cron: String = CRON;
        /// The webhooks that it is sent to. Needed.
        webhooks: Vec<Spanned<String>> = NAMES;
    } => #[derive(Clone, Debug)] DigestConfig {
        /// The table's name.
        name: String,
        schedule: Calendar,
        /// To which webhooks; they are in the file.
        webhooks: BTreeSet<String>,
    } {
        /// The time zone of `cron`.
        timezone: String = TIME_ZONE, said "the machine's";
    }
}

/// A whole configuration that has been judged sound.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it came from: a file, or (`None`) the standard environment variables alone.
    pub file: Option<PathBuf>,
    pub state: StateConfig,
    pub api: ApiConfig,
    pub http: HttpConfig,
    /// The defaults of every provider.
    pub polling: Polling,
    pub results: ResultsConfig,
    /// `[prices]`, by the pattern.
    pub rates: BTreeMap<String, Rates>,
    /// These, and the list beside the configuration.
    pub prices: Arc<Prices>,
    pub files: FilesConfig,
    pub providers: BTreeMap<String, ProviderConfig>,
    pub webhooks: BTreeMap<String, WebhookConfig>,
    pub digests: BTreeMap<String, DigestConfig>,
    /// `None`: it has no address.
    pub heartbeat: Option<HeartbeatConfig>,
    /// What is allowed and still deserves a warning; one line each, without secrets.
    pub warnings: Vec<String>,
    /// Where everything stands in the file, for what is found wrong later.
    pub origin: Origin,
}

impl Config {
    /// Whether uploaded files have a directory of their own, not the one in this daemon's state directory.
    pub fn keeps_files_apart(&self) -> bool {
        self.files.dir != self.state.dir.join("files")
    }
}

/// Where a configuration comes from: its text as it may be shown, and the places in it.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    pub(super) source: Source,
    /// Where the value of each key stands, by the key in full.
    pub(super) places: BTreeMap<String, Range<usize>>,
    pub(super) warnings: Vec<Problem>,
    /// What is known of the kinds of webhooks.
    pub(super) webhooks: Vec<WebhookFacts>,
}

const DEFAULT_RETAIN: Duration = Duration::from_hours(90 * DAY);

/// In hours.
const DAY: u64 = 24;

const RETAIN: Bounds<Duration> =
    Bounds::durations(Duration::from_secs(1), Duration::from_hours(36_500 * DAY));
const LEASE: Bounds<Duration> = Bounds::durations(Duration::from_secs(2), Duration::from_mins(5));
const INTERVAL: Bounds<Duration> =
    Bounds::durations(Duration::from_millis(10), Duration::from_hours(7 * DAY));
const POLL_TIMEOUT: Bounds<Duration> = Bounds::durations(Duration::from_millis(100), Duration::from_mins(10));
const STALLED_AFTER: Bounds<Duration> =
    Bounds::durations(Duration::from_secs(1), Duration::from_hours(365 * DAY));
const HEARTBEAT: Bounds<Duration> = Bounds::durations(Duration::from_secs(1), Duration::from_hours(24));
const TIMEOUT: Bounds<Duration> = Bounds::durations(Duration::from_secs(1), Duration::from_mins(1));
const CONCURRENCY: Bounds<u32> = Bounds::counts(1, 1000);
const PER_MINUTE: Bounds<u32> = Bounds::counts(1, 1_000_000);
const MAX_BYTES: Bounds<u64> = Bounds::sizes_from(1);
