//! Where the torture takes place: a directory, a configuration that changes, and the daemon in it, to start and to kill.

use crate::patience::{now, within};
use crate::provider::Provider;
use crate::receiver::Receiver;
use crate::servers::Servers;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub struct Stage {
    pub directory: tempfile::TempDir,
    pub provider: Provider,
    pub receiver: Receiver,
    provider_at: SocketAddr,
    receiver_at: SocketAddr,
    /// How long ended batches are kept.
    retain: &'static str,
    _servers: Servers,
}

/// When a daemon ended: not before the first, not after the second.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    pub from: Instant,
    pub until: Instant,
}

impl Stage {
    pub fn new(seed: u64, retain: &'static str) -> Self {
        let servers = Servers::new();
        let (provider, receiver) = (Provider::new(seed ^ 1), Receiver::new(seed ^ 2));
        let stage = Self {
            provider_at: servers.serve(provider.serve()),
            receiver_at: servers.serve(receiver.serve()),
            directory: tempfile::tempdir().unwrap(),
            provider,
            receiver,
            retain,
            _servers: servers,
        };
        stage.configure(0);
        stage
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("batchd.sock")
    }

    pub fn database(&self) -> PathBuf {
        self.path("state/batchd.db")
    }

    /// Puts a configuration in place as a whole; `variant` 0 has every webhook.
    pub fn configure(&self, variant: u32) {
        let (provider, receiver, retain) = (self.provider_at, self.receiver_at, self.retain);
        let shortest = 100 + 20 * (variant % 3);
        let account = |name: &str| {
            format!(
                "[providers.{name}]\nkind = \"openai-compatible\"\napi_key = {{ env = \"KEY\" }}\n\
                 base_url = \"http://{provider}/{name}/v1\"\n"
            )
        };
        let webhook = |name: &str, more: &str| {
            format!(
                "[webhooks.{name}]\nurl = \"http://{receiver}/{name}\"\nsecret = {{ env = \"SIGNING\" }}\n{more}\n"
            )
        };
        let retry = |delay: &str| format!("retry = [{}]", vec![format!("\"{delay}\""); 100].join(", "));
        let mut text = format!(
            "[state]\ndir = \"{state}\"\nretain = \"{retain}\"\n[api]\nsocket = \"{socket}\"\n\
             [polling]\nmin_interval = \"{shortest}ms\"\nmax_interval = \"2s\"\ntimeout = \"2s\"\n",
            state = self.path("state").display(),
            socket = self.socket().display(),
        );
        text += &account("one");
        text += &account("two");
        text += &webhook("steady", &format!("events = [{}]\n{}", EVERY_STATUS.join(", "), retry("100ms")));
        text += &webhook("slow", &retry("200ms"));
        text += &webhook("flaky", &retry("100ms"));
        text += &webhook("mute", &format!("timeout = \"1s\"\n{}", retry("500ms")));
        if variant.is_multiple_of(4) {
            text += &webhook("passing", &retry("100ms"));
        }
        // Two may write one at once.
        let next = self.path(&format!("config.{:?}.next", std::thread::current().id()));
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.path("config.toml")).unwrap();
    }

    /// The binary under test.
    pub fn command(&self) -> Command {
        let built = || PathBuf::from(env!("CARGO_BIN_EXE_batchd"));
        let binary = std::env::var_os("BATCHD_TORTURE_BINARY").map_or_else(built, PathBuf::from);
        let mut command = Command::new(binary);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.directory.path())
            .env("BATCHD_CONFIG", self.path("config.toml"))
            .env("KEY", "sk-torture-key-of-nobody")
            .env("SIGNING", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null());
        command
    }

    /// Starts the daemon; all of them write one log.
    pub fn start(&self) -> Daemon {
        let log = std::fs::File::options().create(true).append(true).open(self.log_file()).unwrap();
        Daemon(self.command().arg("run").stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    pub fn log_file(&self) -> PathBuf {
        self.path("daemon.log")
    }

    /// What the daemons have said last.
    pub fn end_of_log(&self) -> String {
        let log = std::fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(4000)..]).into_owned()
    }
}

/// A daemon that runs; it dies with the test.
pub struct Daemon(Child);

impl Daemon {
    /// Waits until it answers.
    ///
    /// # Errors
    ///
    /// How it ended instead.
    pub fn answers(&mut self, socket: &Path) -> Result<(), String> {
        let over = within(START_LIMIT, || match self.0.try_wait().unwrap() {
            Some(status) => Some(Err(format!("the daemon ended by itself: {status}"))),
            None => UnixStream::connect(socket).is_ok().then_some(Ok(())),
        });
        over.unwrap_or_else(|| Err(format!("the daemon does not answer within {START_LIMIT:?}")))
    }

    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal);
    }

    /// Waits for its end.
    pub fn end(&mut self) -> Option<ExitStatus> {
        within(STOP_LIMIT, || self.0.try_wait().unwrap())
    }

    /// Kills it as nothing can prepare for.
    ///
    /// # Errors
    ///
    /// How it had ended before.
    pub fn kill(&mut self) -> Result<Death, String> {
        let from = now();
        self.signal(Signal::SIGKILL);
        let status = self.0.wait().unwrap();
        if status.signal() == Some(Signal::SIGKILL as i32) {
            Ok(Death { from, until: now() })
        } else {
            Err(format!("the daemon had ended by itself: {status}"))
        }
    }

    /// Tells it to stop, and waits.
    ///
    /// # Errors
    ///
    /// How it ended if not with 0.
    pub fn stop(&mut self) -> Result<Death, String> {
        let from = now();
        self.signal(Signal::SIGTERM);
        match self.end() {
            Some(status) if status.success() => Ok(Death { from, until: now() }),
            Some(status) => Err(format!("told to stop, the daemon ended so: {status}")),
            None => Err(format!("told to stop, the daemon still runs after {STOP_LIMIT:?}")),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A debug build on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);
/// A stop takes about ten seconds at most.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// All that happens to a batch.
const EVERY_STATUS: [&str; 8] = [
    "\"batch.validating\"",
    "\"batch.in_progress\"",
    "\"batch.finalizing\"",
    "\"batch.completed\"",
    "\"batch.failed\"",
    "\"batch.expired\"",
    "\"batch.cancelling\"",
    "\"batch.cancelled\"",
];
