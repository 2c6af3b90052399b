//! Floor 6: the daemon: everything below wired together, from the first line of the log to the last.

mod error;
mod health;
mod heartbeat;
mod refuse_start;
mod sockets;
mod state;
mod systemd;

use crate::clock::Clock;
use crate::config::Config;
use crate::config::environment::Env;
use crate::control::access::TcpRules;
use crate::control::assembly::{catalog, network};
use crate::control::live::{Live, Parts, StartError};
use crate::control::server;
use crate::control::service::Service;
use crate::engine::downloads::Downloads;
use crate::http::descriptors;
use crate::maintenance::housekeeping::Housekeeping;
use crate::rng::Rng;
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;
pub use error::RunError;
use nix::sys::resource::{Resource, setrlimit};
pub use sockets::BindError;
use sockets::Sockets;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long what is in flight at the stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// The same where the state is damaged.
const DAMAGED_STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// How a daemon is started.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The configuration file named on the command line.
    pub config_file: Option<PathBuf>,
    pub env: Env,
}

/// Runs the daemon in the foreground until it is told to stop.
pub fn run(options: &RunOptions) -> Result<(), RunError> {
    no_core_dumps();
    // Few threads: the work is waiting. Blocking ones come and go with the database.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_secs(5))
        .enable_all()
        .build()
        .map_err(RunError::System)?;
    // Before anything is opened: the shares are made of what there is.
    let descriptors = descriptors::raise();
    tracing::debug!(descriptors, "files and connections that may be open");
    let result = runtime.block_on(run_until_told(options));
    // A blocking thread that hangs in a system call must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// The memory holds keys. Under a unit that forbids them already nothing more can be done, nor has to.
fn no_core_dumps() {
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::debug!(%error, "core dumps are left as they are limited: {error}");
    }
}

async fn run_until_told(options: &RunOptions) -> Result<(), RunError> {
    // Before anything else: from here on a signal is heard, whatever is going on.
    let signals = Signals::listen()?;
    let passed = sockets::passed_by_systemd();
    match start(options, passed.as_ref()).await {
        Ok(running) => running.until_told(signals).await,
        Err(error) => {
            // Whoever waits on the socket is told why, so that systemd does not start us for them again and again.
            if let Some(listener) = passed {
                refuse_start::answer_why_not(listener, &error).await;
            }
            Err(error)
        }
    }
}

async fn start(
    options: &RunOptions,
    passed: Option<&std::os::unix::net::UnixListener>,
) -> Result<Running, RunError> {
    let mut config =
        Config::load(options.config_file.as_deref(), &catalog(), &options.env).map_err(RunError::Config)?;
    config.check_secrets(&options.env).map_err(RunError::Config)?;
    config.doubt_secrets(&options.env);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let clock = Clock::system();
    let store = state::open(&config, &options.env, clock.clone()).await?;
    let sockets = Sockets::bind(&config, &options.env, passed).await?;
    let tasks = Tasks::new(clock.clone());
    let parts = Parts {
        store,
        clock,
        rng: Rng::system(),
        tasks,
        env: options.env.clone(),
        config_file: options.config_file.clone(),
        connect: network(),
    };
    Running::start(parts, config, sockets).await
}

/// A daemon that runs: what `run` waits for, what tests and the demo use directly.
pub struct Running {
    pub service: Service,
    live: Arc<Live>,
    parts: Parts,
    sockets: Option<sockets::Cleanup>,
    health: health::Watch,
}

impl Running {
    /// Starts everything over an open state, serving `sockets`.
    async fn start(parts: Parts, config: Config, sockets: Sockets) -> Result<Self, RunError> {
        let hosts = config.api.hosts.clone();
        let mut running = Self::without_sockets(parts, config).await?;
        let service = running.service.clone();
        let tasks = running.parts.tasks.clone();
        let stopping = tasks.stopping();
        let (socket, cleanup) = sockets.socket;
        tracing::info!(socket = %cleanup.describe(), "listening on {}", cleanup.describe());
        running.sockets = Some(cleanup);
        tasks.spawn_tracked(server::serve_socket(service.clone(), socket, stopping.clone()));
        if let Some((listener, listen)) = sockets.tcp {
            tracing::info!(%listen, "listening on http://{listen}");
            let rules = TcpRules { listen, hosts };
            tasks.spawn_tracked(server::serve_tcp(service, listener, rules, stopping));
        }
        systemd::ready().await;
        Ok(running)
    }

    /// Starts everything but the ways in.
    pub async fn without_sockets(parts: Parts, config: Config) -> Result<Self, RunError> {
        let live = Live::start(parts.clone(), config).await.map_err(|error| {
            let error = match error {
                StartError::Config(problems) => RunError::Setup(problems),
                StartError::State(error) => RunError::State(error),
            };
            parts.store.known_damage().map_or(error, RunError::State)
        })?;
        let service = Service::running(live.clone());
        let configured = live.config();
        let active: u64 = live.engine.snapshot().iter().map(|poller| poller.active).sum();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            state = %configured.state.dir.display(),
            providers = configured.providers.len(),
            webhooks = configured.webhooks.len(),
            "watching {active} {}",
            if active == 1 { "batch" } else { "batches" }
        );
        let config = live.clone();
        let housekeeping = Housekeeping {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            tasks: parts.tasks.clone(),
            engine: live.engine.clone(),
            config: Arc::new(move || config.config()),
        };
        parts.tasks.keep_running("housekeeping", parts.tasks.stopping(), |pulse| housekeeping.run(pulse));
        let settings = live.clone();
        let downloads = Downloads {
            engine: live.engine.clone(),
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            tasks: parts.tasks.clone(),
            settings: Arc::new(move || settings.config().results.clone()),
        };
        parts.tasks.keep_running("downloads", parts.tasks.stopping(), |pulse| downloads.run(pulse));
        let health = health::Watch::start(&parts, &live);
        heartbeat::start(&parts, &live);
        Ok(Self { service, live, parts, sockets: None, health })
    }

    async fn until_told(self, signals: Signals) -> Result<(), RunError> {
        let Signals { mut terminate, mut interrupt, mut hangup } = signals;
        let tasks = self.parts.tasks.clone();
        let result = loop {
            tokio::select! {
                _ = terminate.recv() => break Ok(()),
                _ = interrupt.recv() => break Ok(()),
                _ = hangup.recv() => {
                    systemd::reloading().await;
                    // Refused or taken, the daemon runs on; the log and `status` say which.
                    let _ = self.live.reload().await;
                    systemd::ready().await;
                }
                error = self.health.fatal() => break Err(RunError::State(error)),
                name = tasks.failure() => break Err(RunError::Loop(name)),
            }
        };
        systemd::stopping().await;
        // What is damaged takes nothing any more: there is nothing to wait for.
        let damaged = matches!(result, Err(RunError::State(StoreError::Damaged(_))));
        let timeout = if damaged { DAMAGED_STOP_TIMEOUT } else { STOP_TIMEOUT };
        tokio::select! {
            () = self.stop_within(timeout) => {}
            _ = terminate.recv() => tracing::warn!("a second signal to stop: stopping at once"),
            _ = interrupt.recv() => tracing::warn!("a second signal to stop: stopping at once"),
        }
        result
    }

    /// Takes no more work, gives what is in flight its time, and closes the state.
    pub async fn stop(self) {
        self.stop_within(STOP_TIMEOUT).await;
    }

    async fn stop_within(self, timeout: Duration) {
        tracing::info!("stopping");
        let Self { live, parts, sockets, .. } = self;
        let stepping_down = step_down(parts.store.clone());
        // All at once: a provider that hangs must not keep the ways in open.
        let engine = tokio::time::timeout(timeout, live.engine.stop());
        let (engine, tasks, ()) = tokio::join!(engine, parts.tasks.stop(timeout), stepping_down);
        if engine.is_err() || !tasks {
            tracing::warn!(
                "not all work in progress ended within {} s; the rest is resumed at the next start",
                timeout.as_secs()
            );
        }
        if let Some(sockets) = sockets {
            sockets.remove();
        }
        match parts.store.close().await {
            Ok(()) => tracing::info!("stopped"),
            Err(error) => tracing::error!(%error, "the database could not be closed cleanly"),
        }
    }
}

/// Lets other daemons that share the state take over: what is idle at once, what is under way after a moment.
async fn step_down(store: Store) {
    const LEFT_AFTER: Duration = Duration::from_secs(2);
    if let Err(error) = store.step_down(false).await {
        tracing::warn!(%error, "cannot tell the other daemons to take over; they do it once this one is silent");
        return;
    }
    if store.members().len() > 1 {
        tokio::time::sleep(LEFT_AFTER).await;
        if let Err(error) = store.step_down(true).await {
            tracing::warn!(%error, "cannot give back what is still under way");
        }
    }
}

/// The signals that the daemon obeys.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, RunError> {
        let listen = |kind| signal(kind).map_err(RunError::System);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}
