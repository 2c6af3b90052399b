//! Where the hunt takes place: daemons on one PostgreSQL, each in a directory and with a way to the server of its own,
//! and the provider and the receiver that they share.

use crate::client::{Reply, ask};
use crate::mark;
use crate::patience::{now, within};
use crate::provider::Provider;
use crate::receiver::{Receiver, SIGNING};
use crate::servers::Servers;
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;
use crate::world::Daemon;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the daemons are called.
pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// A configuration that defines every account and every webhook otherwise than usual.
pub const OTHER_TIMES: u32 = 16;

/// What stands in all configurations.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub lease: &'static str,
    /// Lines of `[polling]`.
    pub polling: &'static str,
    /// Accounts, each with further lines of its table.
    pub accounts: &'static [(&'static str, &'static str)],
    pub webhooks: &'static [(&'static str, &'static str)],
}

impl Setup {
    /// How many parts of the work there are: the housekeeping, the accounts, the webhooks.
    pub fn scopes(&self) -> usize {
        1 + self.accounts.len() + self.webhooks.len()
    }
}

pub struct Stage<'a> {
    pub directory: tempfile::TempDir,
    pub provider: Provider,
    pub receiver: Receiver,
    pub postgres: &'a Postgres,
    /// Without a proxy between.
    pub url: String,
    pub setup: Setup,
    proxies: BTreeMap<&'static str, Proxy>,
    provider_at: SocketAddr,
    receiver_at: SocketAddr,
    _servers: Servers,
}

impl<'a> Stage<'a> {
    pub fn new(postgres: &'a Postgres, setup: Setup, seed: u64) -> Self {
        let servers = Servers::new();
        let (provider, receiver) = (Provider::new(seed ^ 1), Receiver::new(seed ^ 2));
        let proxy = || Proxy::to(([127, 0, 0, 1], postgres.port()).into());
        let stage = Self {
            provider_at: servers.serve(provider.serve()),
            receiver_at: servers.serve(receiver.serve()),
            directory: tempfile::tempdir().unwrap(),
            provider,
            receiver,
            postgres,
            url: postgres.database(),
            setup,
            proxies: NAMES.iter().map(|name| (*name, proxy())).collect(),
            _servers: servers,
        };
        for name in NAMES {
            stage.configure(name, 0);
        }
        stage
    }

    pub fn path(&self, name: &str, what: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.{what}"))
    }

    pub fn socket(&self, name: &str) -> PathBuf {
        self.path(name, "sock")
    }

    /// The way of a daemon to the server.
    pub fn proxy(&self, name: &str) -> &Proxy {
        &self.proxies[name]
    }

    /// Puts the configuration of a daemon in place as a whole; `variant` 0 is the same for all.
    pub fn configure(&self, name: &str, variant: u32) {
        let (provider, receiver) = (self.provider_at, self.receiver_at);
        let mut text = format!(
            "[state]\ndir = \"{state}\"\nurl = {{ env = \"TEST_URL\" }}\nname = \"{name}\"\nlease = \"{lease}\"\n\
             [api]\nsocket = \"{socket}\"\n[polling]\n{polling}\nstalled_after = \"{stalled}h\"\n",
            state = self.path(name, "state").display(),
            lease = self.setup.lease,
            socket = self.socket(name).display(),
            polling = self.setup.polling,
            stalled = 6 + variant % 3,
        );
        let times = if variant & OTHER_TIMES != 0 { "timeout = \"9s\"\n" } else { "" };
        for (account, more) in self.setup.accounts {
            let _ = write!(
                text,
                "[providers.{account}]\nkind = \"openai-compatible\"\napi_key = {{ env = \"KEY\" }}\n\
                 base_url = \"http://{provider}/{account}/v1\"\n{times}{more}\n"
            );
        }
        // Now and then one comes that only some of them know; nobody counts what it gets.
        let passing = [("passing", "")];
        let passing = if variant % 4 == 3 { &passing[..] } else { &[] };
        let retry = format!("retry = [{}]", vec!["\"200ms\""; 100].join(", "));
        for (webhook, more) in self.setup.webhooks.iter().chain(passing) {
            let _ = write!(
                text,
                "[webhooks.{webhook}]\nurl = \"http://{receiver}/{webhook}\"\nsecret = {{ env = \"SIGNING\" }}\n\
                 {retry}\n{times}{more}\n"
            );
        }
        // Two may write one at once.
        let next = self.path(name, &format!("{:?}.next", std::thread::current().id()));
        std::fs::write(&next, text).unwrap();
        std::fs::set_permissions(&next, Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(next, self.path(name, "toml")).unwrap();
    }

    /// The binary under test, as a client or as the daemon `name`.
    pub fn command(&self, name: &str) -> Command {
        let built = || PathBuf::from(env!("CARGO_BIN_EXE_batchd"));
        let binary = std::env::var_os("BATCHD_CLUSTER_BINARY").map_or_else(built, PathBuf::from);
        let mut command = Command::new(binary);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.directory.path())
            .env("BATCHD_CONFIG", self.path(name, "toml"))
            .env("TEST_URL", self.proxy(name).url(&self.url))
            .env("KEY", "sk-cluster-key-of-nobody")
            .env("SIGNING", SIGNING)
            .env("RUST_BACKTRACE", "1");
        command
    }

    pub fn ask(&self, name: &str, method: &str, path: &str, body: &[u8]) -> Option<Reply> {
        ask(&self.socket(name), method, path, body, REQUEST_LIMIT)
    }

    /// What a daemon answers to a question, if it answers well.
    pub fn json(&self, name: &str, path: &str) -> Option<Value> {
        self.ask(name, "GET", path, b"").filter(Reply::is_success).map(|reply| reply.json())
    }

    /// What each of the daemons does, as `asked` tells; `None`: it does not answer.
    pub fn owned(&self, asked: &str) -> Option<BTreeMap<String, BTreeSet<String>>> {
        let status = self.json(asked, "/v1/status")?;
        let mut owned: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for member in status["members"].as_array()? {
            let scopes = member["scopes"].as_array()?.iter().filter_map(Value::as_str).map(str::to_owned);
            owned.entry(member["name"].as_str()?.to_owned()).or_default().extend(scopes);
        }
        Some(owned)
    }

    /// Waits until all of the work is done by `alive`, which have the first of them say so; after how long it is.
    pub fn until_all_is_owned_by(&self, alive: &[&str], limit: Duration) -> Option<Duration> {
        let begun = now();
        within(limit, || {
            let owned = self.owned(alive[0])?;
            let count: usize = alive.iter().map(|name| owned.get(*name).map_or(0, BTreeSet::len)).sum();
            (count == self.setup.scopes()).then(|| begun.elapsed())
        })
    }

    /// Who does a part of the work.
    pub fn owner_of(&self, asked: &str, scope: &str) -> Option<&'static str> {
        let owned = self.owned(asked)?;
        NAMES.into_iter().find(|name| owned.get(*name).is_some_and(|scopes| scopes.contains(scope)))
    }
}

/// A daemon of the stage, in one life after the other.
pub struct Node<'a> {
    pub name: &'static str,
    stage: &'a Stage<'a>,
    daemon: Option<Daemon>,
    /// Until when it is stopped where it stands.
    pub frozen_until: Option<Instant>,
    /// When it is to be started again.
    pub back_at: Option<Instant>,
}

impl<'a> Node<'a> {
    pub fn new(stage: &'a Stage<'a>, name: &'static str) -> Self {
        Self { name, stage, daemon: None, frozen_until: None, back_at: None }
    }

    /// One that runs and answers.
    pub fn started(stage: &'a Stage<'a>, name: &'static str) -> Self {
        let mut node = Self::new(stage, name);
        node.start();
        node.answers().unwrap();
        node
    }

    /// All of them, once each part of the work is somebody's.
    pub fn all(stage: &'a Stage<'a>) -> Vec<Self> {
        let nodes = NAMES.iter().map(|name| Self::started(stage, name)).collect();
        stage.until_all_is_owned_by(&NAMES, mark(Duration::from_secs(30))).unwrap();
        nodes
    }

    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "{} runs", self.name);
        self.back_at = None;
        self.daemon = Some(Daemon::start(self.stage.command(self.name).arg("run")));
    }

    pub fn runs(&self) -> bool {
        self.daemon.is_some()
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().pid()
    }

    pub fn log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    ///
    /// How it ended instead.
    pub fn answers(&self) -> Result<(), String> {
        let ready = within(START_LIMIT, || {
            if self.daemon.as_ref().is_none_or(Daemon::is_over) {
                return Some(Err(format!("{} ended by itself: {}", self.name, self.log())));
            }
            UnixStream::connect(self.stage.socket(self.name)).ok()?;
            let reply = self.stage.ask(self.name, "GET", "/readyz", b"")?;
            reply.is_success().then_some(Ok(()))
        });
        ready.unwrap_or_else(|| Err(format!("{} is not ready within {START_LIMIT:?}", self.name)))
    }

    pub fn signal(&self, signal: Signal) {
        self.daemon.as_ref().unwrap().signal(signal);
    }

    pub fn freeze(&mut self, time: Duration) {
        self.signal(Signal::SIGSTOP);
        self.frozen_until = Some(now() + time);
    }

    pub fn thaw(&mut self) {
        self.signal(Signal::SIGCONT);
        self.frozen_until = None;
    }

    /// Kills it as nothing can prepare for.
    ///
    /// # Errors
    ///
    /// How it had ended before.
    pub fn kill(&mut self) -> Result<(), String> {
        self.signal(Signal::SIGKILL);
        let status = self.ended();
        if status.signal() == Some(Signal::SIGKILL as i32) {
            return Ok(());
        }
        Err(format!("{} had ended by itself: {status}", self.name))
    }

    /// Tells it to stop, and waits; how long it took.
    ///
    /// # Errors
    ///
    /// How it ended if not with 0.
    pub fn stop(&mut self) -> Result<Duration, String> {
        let begun = now();
        self.signal(Signal::SIGTERM);
        let status = self.ended();
        if status.success() {
            return Ok(begun.elapsed());
        }
        Err(format!("told to stop, {} ended so: {status}", self.name))
    }

    fn ended(&mut self) -> std::process::ExitStatus {
        let daemon = self.daemon.take().unwrap();
        self.frozen_until = None;
        let status = daemon.end();
        self.keep(&daemon);
        status
    }

    /// Keeps what it has said for whoever wants to see it.
    fn keep(&self, daemon: &Daemon) {
        let path = self.stage.path(self.name, "log");
        let mut log = std::fs::File::options().create(true).append(true).open(path).unwrap();
        log.write_all(daemon.log().as_bytes()).unwrap();
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            if self.frozen_until.is_some() {
                daemon.signal(Signal::SIGCONT);
            }
            self.keep(&daemon);
        }
    }
}

const REQUEST_LIMIT: Duration = Duration::from_secs(20);
/// A debug build on a busy machine, of a server that recovers.
const START_LIMIT: Duration = Duration::from_secs(40);
