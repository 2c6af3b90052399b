//! What runs: the parts of a daemon put together from a configuration, and put together anew at a reload.

use super::api::{ConfigReport, ErrorCode, ReloadAnswer};
use super::api_error::ApiError;
use super::assembly::{Assembly, Connect, Heartbeat, catalog, routes};
use super::creating::Creating;
use super::ingress::Hooks;
use super::tokens::Tokens;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::environment::Env;
use crate::domain::ownership::Scope;
use crate::domain::prices::Prices;
use crate::domain::route::Routes;
use crate::engine::Engine;
use crate::notify::Dispatcher;
use crate::rng::Rng;
use crate::store::shared_dirs::Unshared;
use crate::store::{Store, StoreError};
use crate::sync;
use crate::tasks::{Pulse, Tasks};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

/// What a daemon is made from, besides its configuration.
#[derive(Clone)]
pub struct Parts {
    pub store: Store,
    pub clock: Clock,
    /// Chance.
    pub rng: Rng,
    pub tasks: Tasks,
    /// The environment that the configuration speaks of.
    pub env: Env,
    /// The configuration file named on the command line, read again at a reload.
    pub config_file: Option<PathBuf>,
    /// How providers and webhooks are reached.
    pub connect: Connect,
}

pub struct Live {
    pub engine: Engine,
    pub dispatcher: Dispatcher,
    /// When it all began.
    pub started_at: Timestamp,
    /// Where pages of providers' lists go on.
    pub(super) cursors: Cursors,
    /// Creations that clients of OpenAI's API wait for.
    pub(super) creating: Creating,
    pub(super) parts: Parts,
    config: RwLock<Arc<Config>>,
    tokens: RwLock<Tokens>,
    /// One reload at a time.
    reloading: AsyncMutex<()>,
    /// Held while a configuration is put in force, or the routes are, which follow from it.
    pub(super) swapping: Mutex<()>,
    reload_error: Mutex<Option<String>>,
    heartbeat: RwLock<Option<Arc<Heartbeat>>>,
    /// Scheme and host of each webhook: what may be shown of where it points.
    targets: RwLock<BTreeMap<String, String>>,
    /// Where the services' own webhooks come in.
    pub(super) hooks: Hooks,
    /// Lasting troubles by their cause, for `status` and `/readyz`.
    troubles: Mutex<BTreeMap<&'static str, String>>,
}

/// Where the next page of a provider's list begins, by the last id of the page before: the newest few.
#[derive(Debug, Default)]
pub(super) struct Cursors(Mutex<VecDeque<(String, String, String)>>);

impl Cursors {
    /// How many clients may page through lists at a time.
    const MAX_CURSORS: usize = 256;

    /// Where the page behind `last` begins.
    pub(super) fn get(&self, provider: &str, last: &str) -> Option<String> {
        let known = sync::lock(&self.0);
        let found = known.iter().rev().find(|(at, id, _)| at == provider && id == last);
        found.map(|(_, _, cursor)| cursor.clone())
    }

    /// The page behind `last` begins at `cursor`.
    pub(super) fn put(&self, provider: &str, last: &str, cursor: &str) {
        let mut known = sync::lock(&self.0);
        known.retain(|(at, id, _)| at != provider || id != last);
        known.push_back((provider.to_owned(), last.to_owned(), cursor.to_owned()));
        if known.len() > Self::MAX_CURSORS {
            known.pop_front();
        }
    }
}

/// Why a daemon cannot be set running.
#[derive(Debug)]
pub enum StartError {
    /// Problems with the configuration, one sentence each.
    Config(Vec<String>),
    State(StoreError),
}

/// How long a start waits for the server with the state, as it does before the first word from it.
const STATE_AWAITED_FOR: Duration = Duration::from_secs(30);
const STATE_TRIED_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Live {
    /// Puts a daemon together and sets it running. A server with the state that goes away meanwhile is waited for.
    pub async fn start(parts: Parts, config: Config) -> Result<Arc<Self>, StartError> {
        let Parts { store, clock, rng, tasks, .. } = parts.clone();
        let live = Self {
            engine: Engine::new(store.clone(), clock.clone(), rng.clone(), tasks.clone()),
            dispatcher: Dispatcher::new(store, clock.clone(), rng, tasks.clone()),
            started_at: clock.now(),
            cursors: Cursors::default(),
            creating: Creating::default(),
            parts,
            config: RwLock::new(Arc::new(config.clone())),
            tokens: RwLock::default(),
            reloading: AsyncMutex::new(()),
            swapping: Mutex::default(),
            reload_error: Mutex::default(),
            heartbeat: RwLock::default(),
            targets: RwLock::default(),
            hooks: Hooks::default(),
            troubles: Mutex::default(),
        };
        live.begin(config).await?;
        live.declare().await;
        let live = Arc::new(live);
        let engine = live.engine.clone();
        live.parts
            .tasks
            .keep_running("submissions", live.parts.tasks.stopping(), |pulse| engine.reconcile(pulse));
        let engine = live.engine.clone();
        live.parts.tasks.keep_running("queue", live.parts.tasks.stopping(), |pulse| engine.work_queue(pulse));
        live.parts
            .tasks
            .keep_running("routes", live.parts.tasks.stopping(), |pulse| live.clone().follow(pulse));
        Ok(live)
    }

    /// Puts the first configuration in force.
    async fn begin(&self, config: Config) -> Result<(), StartError> {
        let until = Instant::now() + STATE_AWAITED_FOR;
        loop {
            let assembly = self.assemble(&config).map_err(StartError::Config)?;
            match self.apply(config.clone(), assembly).await {
                Ok(()) => return Ok(()),
                Err(Unshared::Store(error @ (StoreError::Unreachable(_) | StoreError::GivenUp)))
                    if Instant::now() < until =>
                {
                    tracing::warn!("{error}; trying for {} s", STATE_AWAITED_FOR.as_secs());
                    tokio::time::sleep(STATE_TRIED_AGAIN_AFTER).await;
                }
                Err(Unshared::Store(error)) => return Err(StartError::State(error)),
                Err(refusal) => return Err(StartError::Config(vec![refusal.to_string()])),
            }
        }
    }

    pub fn config(&self) -> Arc<Config> {
        sync::read(&self.config).clone()
    }

    pub fn routes(&self) -> Arc<Routes> {
        self.engine.routes()
    }

    /// Where signs of life go, if anywhere.
    pub fn heartbeat(&self) -> Option<Arc<Heartbeat>> {
        sync::read(&self.heartbeat).clone()
    }

    /// What may be shown of where a webhook points.
    pub fn target(&self, webhook: &str) -> Option<String> {
        sync::read(&self.targets).get(webhook).cloned()
    }

    /// The loops that have not come round within `bound`, by name.
    pub fn late(&self, bound: Duration) -> Vec<String> {
        self.parts.tasks.late(bound)
    }

    /// Keeps the routes in step with which webhooks are switched off: what these are owed is held from the start. Reads
    /// the secrets of those again that are refused.
    async fn follow(self: Arc<Self>, pulse: Pulse) {
        const SCAN_INTERVAL: Duration = Duration::from_secs(15);
        let stopping = self.parts.tasks.stopping();
        let mut switched_off = self.dispatcher.switched_off();
        let mut refused = self.dispatcher.refused();
        loop {
            pulse.beat();
            let names = refused.borrow_and_update().clone();
            self.renew(names);
            let off = switched_off.borrow_and_update().clone();
            self.reroute(&off);
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                _ = switched_off.changed() => {}
                _ = refused.changed() => {}
                () = tokio::time::sleep(SCAN_INTERVAL) => {}
            }
        }
    }

    fn reroute(&self, off: &BTreeSet<String>) {
        let _all_at_once = sync::lock(&self.swapping);
        let routes = routes(&self.config(), off);
        if routes != *self.engine.routes() {
            self.dispatcher.set_routes(Arc::new(routes.clone()));
            self.engine.set_routes(routes);
        }
    }

    /// The bearer tokens of the API that are in force.
    pub(super) fn tokens_in_force(&self) -> Tokens {
        sync::read(&self.tokens).clone()
    }

    /// The environment that the configuration speaks of.
    pub(super) fn env(&self) -> &Env {
        &self.parts.env
    }

    pub fn tasks(&self) -> &Tasks {
        &self.parts.tasks
    }

    /// Why the last reload was refused, if it was.
    pub fn reload_error(&self) -> Option<String> {
        sync::lock(&self.reload_error).clone()
    }

    /// A word that tells one try-out from the next.
    pub fn nonce(&self) -> String {
        format!("{:016x}", self.parts.rng.bits())
    }

    /// Notes a lasting trouble under its `cause`, or that it is over.
    pub fn trouble(&self, cause: &'static str, what: Option<String>) {
        let mut troubles = sync::lock(&self.troubles);
        match what {
            Some(what) => troubles.insert(cause, what),
            None => troubles.remove(cause),
        };
    }

    pub fn troubles(&self) -> Vec<String> {
        sync::lock(&self.troubles).values().cloned().collect()
    }

    /// Reads the configuration again and takes it as a whole, or refuses it as a whole.
    pub async fn reload(&self) -> Result<ReloadAnswer, ApiError> {
        let _one_at_a_time = self.reloading.lock().await;
        let result = self.take_new_configuration().await;
        let error = result.as_ref().err().map(|refusal| refusal.message.clone());
        match &error {
            None => {
                let changes = result.as_ref().map(ReloadAnswer::summary).unwrap_or_default();
                tracing::info!("{changes}");
            }
            Some(error) => tracing::error!("the new configuration is refused, the old one stays: {error}"),
        }
        *sync::lock(&self.reload_error) = error;
        result
    }

    async fn take_new_configuration(&self) -> Result<ReloadAnswer, ApiError> {
        let refused = |problems: Vec<String>| {
            ApiError::new(ErrorCode::ConfigRefused, problems.join("\n")).hint(
                "the running configuration stays; `batchd config check` shows each problem in its place",
            )
        };
        let before = self.config();
        let mut config = Config::load(self.parts.config_file.as_deref(), &catalog(), &self.parts.env)
            .map_err(|problems| refused(problems.error_lines()))?;
        config.check_secrets(&self.parts.env).map_err(|problems| refused(problems.error_lines()))?;
        config.doubt_secrets(&self.parts.env);
        let mut restart_needed = Vec::new();
        let mut needs_restart = |key: &str, changed: bool| {
            if changed {
                restart_needed.push(key.to_owned());
            }
        };
        needs_restart("state.dir", config.state.dir != before.state.dir);
        needs_restart("state.url", config.state.url != before.state.url);
        needs_restart("state.name", config.state.name != before.state.name);
        needs_restart("state.lease", config.state.lease != before.state.lease);
        needs_restart("files.dir", config.files.dir != before.files.dir);
        needs_restart("api.socket", config.api.socket != before.api.socket);
        needs_restart("api.listen", config.api.listen != before.api.listen);
        needs_restart("api.hosts", config.api.hosts != before.api.hosts);
        let assembly = self.assemble(&config).map_err(refused)?;
        let warnings = config.warnings.clone();
        let mut changes = before.changes_to(&config);
        self.apply(config, assembly).await.map_err(|refusal| match refusal {
            Unshared::Store(error) => error.into(),
            refusal => ApiError::new(ErrorCode::ConfigRefused, refusal.to_string()),
        })?;
        self.declare().await;
        if let Err(error) = self.count_what_is_left(&mut changes).await {
            // It is in force all the same.
            tracing::warn!(%error, "cannot count what waits for webhooks and providers that were removed");
        }
        Ok(ReloadAnswer { reloaded: true, changes, warnings, restart_needed })
    }

    /// Says of each webhook and provider that was removed how much is left behind that waits for it.
    async fn count_what_is_left(&self, changes: &mut [String]) -> Result<(), ApiError> {
        let (config, store) = (self.config(), &self.parts.store);
        let owed = removed_webhooks(&config, store).await?;
        let watched = store.counts_of_tracked().await?;
        let plural =
            |count: u64, one: &str, many: &str| if count == 1 { one.to_owned() } else { many.to_owned() };
        for change in changes.iter_mut() {
            let Some(table) = change.strip_suffix(" removed") else { continue };
            let left = match table.split_once('.') {
                Some(("webhooks", name)) => owed
                    .get(name)
                    .map(|count| format!("{count} {} held", plural(*count, "delivery", "deliveries"))),
                Some(("providers", name)) => {
                    let live = watched.iter().filter(|(provider, status, _)| {
                        provider == name && status.is_some_and(|status| !status.is_terminal())
                    });
                    let count: u64 = live.map(|(.., count)| count).sum();
                    (count > 0)
                        .then(|| format!("{count} {} no longer polled", plural(count, "batch", "batches")))
                }
                _ => None,
            };
            if let Some(left) = left {
                *change = format!("{change} ({left})");
            }
        }
        Ok(())
    }

    /// What is in force, and what a reload would make of it.
    pub fn config_report(&self) -> ConfigReport {
        let config = self.config();
        let later = Config::load(self.parts.config_file.as_deref(), &catalog(), &self.parts.env);
        let absolute = |file: &PathBuf| std::path::absolute(file).unwrap_or_else(|_| file.clone());
        ConfigReport {
            file: config.file.as_ref().map(|file| absolute(file).display().to_string()),
            toml: config.show(),
            pending: later.as_ref().map(|later| config.changes_to(later)).unwrap_or_default(),
            error: later.err().map(|refused| refused.error_lines().join("\n")),
        }
    }

    /// `config` made real with this daemon's environment.
    pub(super) fn assemble(&self, config: &Config) -> Result<Assembly, Vec<String>> {
        Assembly::of(config, &self.parts.env, &self.parts.clock, &self.parts.connect)
    }

    /// Puts `config` in force as a whole, or leaves all as it was: whatever can fail comes first, and the last of it is
    /// one commit. What follows cannot fail, and nobody waits in it.
    async fn apply(&self, config: Config, assembly: Assembly) -> Result<(), Unshared> {
        let Assembly { accounts, destinations, targets, inbound, heartbeat, tokens } = assembly;
        self.share_directories(&config).await?;
        let accounts = self.engine.prepare(accounts).await?;
        let webhooks = self.dispatcher.align(destinations).await?;

        let _all_at_once = sync::lock(&self.swapping);
        let routes = routes(&config, &webhooks.switched_off());
        self.price_by(config.prices.clone());
        self.engine.set_results_dir(config.results.dir.clone());
        *sync::write(&self.tokens) = tokens;
        self.hooks.set_inbound(inbound);
        *sync::write(&self.heartbeat) = heartbeat;
        *sync::write(&self.targets) = targets;
        *sync::write(&self.config) = Arc::new(config);
        self.dispatcher.set_routes(Arc::new(routes.clone()));
        // Webhooks first: what a poll finds is owed to those of the new configuration.
        self.dispatcher.put_in_force(webhooks);
        self.engine.put_in_force(accounts, routes);
        Ok(())
    }

    /// Sees to it that daemons with one state have the directories in common that they need.
    async fn share_directories(&self, config: &Config) -> Result<(), Unshared> {
        let results = config.results.download.then_some(("results.dir", &config.results.dir));
        let files = config.keeps_files_apart().then_some(("files.dir", &config.files.dir));
        for (key, dir) in results.into_iter().chain(files) {
            self.parts.store.share_directory(key, dir).await?;
        }
        Ok(())
    }

    /// Tells the daemons that share the state what this one could do.
    async fn declare(&self) {
        let scopes = scopes(&self.config());
        if let Err(error) = self.parts.store.declare(scopes).await {
            tracing::warn!(%error, "cannot tell the other daemons yet what this one could do");
        }
    }
}

/// What a daemon with this configuration could do, each with a fingerprint of what must be the same for all who could.
fn scopes(config: &Config) -> BTreeMap<Scope, u64> {
    let fingerprint = |parts: &[&str]| {
        let digest = Sha256::digest(parts.join("\n").as_bytes());
        u64::from_be_bytes(std::array::from_fn(|at| digest[at])) >> 1
    };
    let accounts = config.providers.values().map(|provider| {
        (Scope::Account(provider.name.clone()), fingerprint(&[&provider.kind, &provider.base_url]))
    });
    let webhooks = config
        .webhooks
        .values()
        .map(|webhook| (Scope::Webhook(webhook.name.clone()), fingerprint(&[&webhook.kind])));
    accounts.chain(webhooks).chain([(Scope::Keeper, 0)]).collect()
}

impl Live {
    /// Puts prices in force, and prices what ended before there were any for it.
    fn price_by(&self, prices: Arc<Prices>) {
        let (store, tasks) = (self.parts.store.clone(), &self.parts.tasks);
        store.set_prices(prices.clone());
        if prices.is_empty() {
            return;
        }
        tasks.spawn_tracked(async move {
            match store.price_ended(prices).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "priced batches that had ended without a price"),
                Err(error) => tracing::warn!(%error, "cannot price the batches that have ended"),
            }
        });
    }
}

/// How many deliveries are owed to webhooks that `config` does not have, by the webhook.
pub(super) async fn removed_webhooks(
    config: &Config,
    store: &Store,
) -> Result<BTreeMap<String, u64>, ApiError> {
    let backlogs = store.backlogs().await?.into_iter();
    let removed = backlogs.filter(|(name, _)| !config.webhooks.contains_key(name));
    let owed = removed.map(|(name, backlog)| {
        let owed = backlog.counts.into_iter().filter(|(state, _)| state.is_owed());
        (name, owed.map(|(_, count)| count).sum())
    });
    Ok(owed.filter(|(_, count)| *count > 0).collect())
}
