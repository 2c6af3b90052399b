//! What runs: the parts of a daemon put together from a configuration, and put together anew at a reload.

use super::api::{ErrorCode, ReloadAnswer};
use super::refusal::Refusal;
use super::service::Service;
use crate::clock::Clock;
use crate::config::environment::Env;
use crate::config::{Config, WebhookConfig};
use crate::domain::route::{Route, Routes};
use crate::engine::{Account, Engine};
use crate::http::egress::Guard;
use crate::http::scrub::Scrubber;
use crate::http::transport::{ReqwestTransport, Transport, TransportConfig};
use crate::notify::{Destination, Dispatcher};
use crate::provider;
use crate::rng::Rng;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::webhook::{self, Target};
use jiff::Timestamp;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::Mutex as AsyncMutex;

/// What a daemon is made from, besides its configuration.
#[derive(Clone)]
pub struct Parts {
    /// The open state.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Chance.
    pub rng: Rng,
    /// Supervision.
    pub tasks: Tasks,
    /// The environment that the configuration speaks of.
    pub env: Env,
    /// The configuration file named on the command line, read again at a reload.
    pub config_file: Option<PathBuf>,
}

/// A running daemon's parts.
pub struct Live {
    /// Looks at providers.
    pub engine: Engine,
    /// Tells webhooks.
    pub dispatcher: Dispatcher,
    /// When it all began.
    pub started_at: Timestamp,
    parts: Parts,
    config: RwLock<Arc<Config>>,
    routes: RwLock<Arc<Routes>>,
    token: RwLock<Option<SecretString>>,
    /// One reload at a time.
    reloading: AsyncMutex<()>,
    reload_error: Mutex<Option<String>>,
    /// Lasting troubles by their cause, for `status` and `/readyz`.
    troubles: Mutex<BTreeMap<&'static str, String>>,
}

/// A configuration made real: secrets resolved, adapters and clients built. Nothing of it runs yet.
struct Assembly {
    accounts: Vec<Account>,
    destinations: Vec<Destination>,
    routes: Routes,
    token: Option<SecretString>,
}

impl Live {
    /// Puts a daemon together and sets it running. Every sentence of an error is one problem with the configuration.
    pub async fn start(parts: Parts, config: Config) -> Result<Arc<Self>, Vec<String>> {
        let Parts { store, clock, rng, tasks, .. } = parts.clone();
        let live = Self {
            engine: Engine::new(store.clone(), clock.clone(), rng.clone(), tasks.clone()),
            dispatcher: Dispatcher::new(store, clock.clone(), rng, tasks),
            started_at: clock.now(),
            parts,
            config: RwLock::new(Arc::new(config.clone())),
            routes: RwLock::default(),
            token: RwLock::default(),
            reloading: AsyncMutex::new(()),
            reload_error: Mutex::default(),
            troubles: Mutex::default(),
        };
        let assembly = live.assemble(&config)?;
        live.apply(config, assembly).await.map_err(|refusal| vec![refusal.message])?;
        Ok(Arc::new(live))
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The routes in force.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bearer token in force.
    pub fn token(&self) -> Option<SecretString> {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Supervision.
    pub fn tasks(&self) -> &Tasks {
        &self.parts.tasks
    }

    /// Why the last reload was refused, if it was.
    pub fn reload_error(&self) -> Option<String> {
        self.reload_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A word that tells one try-out from the next.
    pub fn nonce(&self) -> String {
        format!("{:016x}", self.parts.rng.bits())
    }

    /// Notes a lasting trouble under its `cause`, or that it is over.
    pub fn trouble(&self, cause: &'static str, what: Option<String>) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match what {
            Some(what) => troubles.insert(cause, what),
            None => troubles.remove(cause),
        };
    }

    /// The lasting troubles.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Reads the configuration again and takes it as a whole, or refuses it as a whole.
    pub async fn reload(&self) -> Result<ReloadAnswer, Refusal> {
        let _one_at_a_time = self.reloading.lock().await;
        let result = self.take_new_configuration().await;
        let error = result.as_ref().err().map(|refusal| refusal.message.clone());
        match &error {
            None => tracing::info!("the configuration was reloaded"),
            Some(error) => tracing::error!("the new configuration is refused, the old one stays: {error}"),
        }
        *self.reload_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        result
    }

    async fn take_new_configuration(&self) -> Result<ReloadAnswer, Refusal> {
        let refused = |problems: Vec<String>| {
            Refusal::new(ErrorCode::ConfigRefused, problems.join("\n"))
                .hint("the running configuration stays; `batchd config check` shows each problem in its place")
        };
        let before = self.config();
        let config = Config::load(self.parts.config_file.as_deref(), &catalog(), &self.parts.env)
            .map_err(|problems| refused(problems.one_lines()))?;
        let mut restart_needed = Vec::new();
        let mut needs_restart = |key: &str, changed: bool| {
            if changed {
                restart_needed.push(key.to_owned());
            }
        };
        needs_restart("state.dir", config.state.dir != before.state.dir);
        needs_restart("api.socket", config.api.socket != before.api.socket);
        needs_restart("api.listen", config.api.listen != before.api.listen);
        needs_restart("api.hosts", config.api.hosts != before.api.hosts);
        let assembly = self.assemble(&config).map_err(refused)?;
        let warnings = config.warnings.clone();
        self.apply(config, assembly).await?;
        Ok(ReloadAnswer { reloaded: true, warnings, restart_needed })
    }

    async fn apply(&self, config: Config, assembly: Assembly) -> Result<(), Refusal> {
        let Assembly { accounts, destinations, routes, token } = assembly;
        let store = &self.parts.store;
        let webhooks = config.webhooks.keys().cloned().collect();
        store.align_webhooks(webhooks, self.parts.clock.now()).await?;
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes.clone());
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
        self.engine.apply(accounts, routes, config.state.retain).await?;
        self.dispatcher.apply(destinations).await?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        Ok(())
    }

    /// Resolves every secret and builds what the configuration asks for; all problems at once.
    fn assemble(&self, config: &Config) -> Result<Assembly, Vec<String>> {
        let mut problems = Vec::new();
        let mut secrets = Vec::new();
        let mut resolve = |what: String, source: &crate::config::secret::SecretSource| {
            match source.resolve(&self.parts.env) {
                Ok(secret) => {
                    secrets.push(secret.clone());
                    Some(secret)
                }
                Err(problem) => {
                    problems.push(format!("{what}: {problem}"));
                    None
                }
            }
        };
        let token = config.api.token.as_ref().and_then(|source| resolve("api.token".to_owned(), source));
        let keys: BTreeMap<&str, Option<SecretString>> = config
            .providers
            .values()
            .map(|provider| {
                let key = provider
                    .api_key
                    .as_ref()
                    .and_then(|source| resolve(format!("providers.{}.api_key", provider.name), source));
                (provider.name.as_str(), key)
            })
            .collect();
        let targets: Vec<(&WebhookConfig, Option<Target>)> = config
            .webhooks
            .values()
            .map(|webhook| {
                let name = &webhook.name;
                let url = resolve(format!("webhooks.{name}.url"), &webhook.url);
                let signing = webhook.secrets.iter().map(|source| resolve(format!("webhooks.{name}.secret"), source));
                let signing: Option<Vec<SecretString>> = signing.collect();
                let target = url.zip(signing).map(|(url, secrets)| Target { url, secrets, timeout: webhook.timeout });
                (webhook, target)
            })
            .collect();
        let scrubber = Arc::new(Scrubber::new(&secrets));

        let mut accounts = Vec::new();
        let provider_ca: Vec<PathBuf> = config.http.ca_file.iter().cloned().collect();
        let transport = TransportConfig {
            proxy: &config.http.proxy,
            ca_files: provider_ca.clone(),
            insecure_skip_verify: false,
            guard: Guard::Local,
        };
        // One client for every provider: connections are kept apart by host anyway.
        match ReqwestTransport::new(&transport) {
            Ok(transport) => {
                let transport: Arc<dyn Transport> = Arc::new(transport);
                for provider in config.providers.values() {
                    let Some(kind) = provider::kind(&provider.kind) else {
                        problems.push(format!("providers.{}: no such kind", provider.name));
                        continue;
                    };
                    let api_key = keys.get(provider.name.as_str()).cloned().flatten();
                    let adapter = (kind.build)(&provider::Account { config: provider, api_key });
                    accounts.push(Account { config: provider.clone(), adapter, transport: transport.clone() });
                }
            }
            Err(problem) => problems.push(format!("http: {problem}")),
        }

        let mut destinations = Vec::new();
        for (webhook, target) in targets {
            let Some(target) = target else { continue };
            match destination(webhook, target, config, &scrubber) {
                Ok(destination) => destinations.push(destination),
                Err(problem) => problems.push(format!("webhooks.{}: {problem}", webhook.name)),
            }
        }
        if problems.is_empty() {
            Ok(Assembly { accounts, destinations, routes: routes(config), token })
        } else {
            Err(problems)
        }
    }
}

impl Service {
    /// The bearer token in force.
    pub(super) fn token(&self) -> Option<SecretString> {
        self.live.as_ref().and_then(|live| live.token())
    }

    /// Over a running daemon.
    pub fn running(live: Arc<Live>) -> Self {
        Self { store: live.parts.store.clone(), clock: live.parts.clock.clone(), live: Some(live) }
    }

    /// Reads the configuration again.
    pub async fn reload(&self) -> Result<ReloadAnswer, Refusal> {
        self.live()?.reload().await
    }
}

/// The kinds there are, for the configuration.
pub fn catalog() -> crate::config::Catalog {
    crate::config::Catalog {
        providers: provider::KINDS.iter().map(|kind| kind.facts).collect(),
        webhooks: webhook::KINDS.iter().map(|kind| kind.facts).collect(),
    }
}

fn destination(
    webhook: &WebhookConfig,
    target: Target,
    config: &Config,
    scrubber: &Arc<Scrubber>,
) -> Result<Destination, String> {
    let kind = webhook::kind(&webhook.kind).ok_or("no such kind")?;
    let ca_files = config.http.ca_file.iter().chain(&webhook.ca_file).cloned().collect();
    let transport = TransportConfig {
        proxy: &config.http.proxy,
        ca_files,
        insecure_skip_verify: webhook.insecure_skip_verify,
        guard: Guard::from(config.http.egress),
    };
    let transport = ReqwestTransport::new(&transport).map_err(|problem| problem.to_string())?;
    let adapter = (kind.build)(&target).map_err(|problem| problem.to_string())?;
    Ok(Destination {
        config: webhook.clone(),
        target,
        adapter,
        transport: Arc::new(transport),
        scrubber: scrubber.clone(),
    })
}

fn routes(config: &Config) -> Routes {
    Routes(
        config
            .webhooks
            .values()
            .map(|webhook| Route {
                webhook: webhook.name.clone(),
                events: webhook.events.clone(),
                severity: webhook.severity,
                providers: webhook.providers.clone(),
                labels: webhook.labels.clone(),
                on_request: webhook.on_request,
                disabled: false,
            })
            .collect(),
    )
}
