//! What runs: the parts of a daemon put together from a configuration, and put together anew at a reload.

use super::api::{ErrorCode, ReloadAnswer};
use super::api_error::ApiError;
use super::hooks::{self, Hooks, InboundHook};
use super::service::Service;
use crate::clock::Clock;
use crate::config::environment::Env;
use crate::config::secret::SecretSource;
use crate::config::{Config, WebhookConfig};
use crate::domain::route::{Route, Routes};
use crate::domain::time::earlier;
use crate::engine::{Account, Engine};
use crate::http::authorize::{Authorized, CredentialRoutes, Issuer};
use crate::http::egress::Guard;
use crate::http::scrub::Scrubber;
use crate::http::transport::{ReqwestTransport, Transport, TransportConfig, TransportProblem};
use crate::notify::{Destination, Dispatcher};
use crate::provider;
use crate::rng::Rng;
use crate::store::Store;
use crate::tasks::{Pulse, Tasks};
use crate::webhook::Target;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
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
    /// Where pages of providers' lists go on.
    pub(super) cursors: Cursors,
    parts: Parts,
    config: RwLock<Arc<Config>>,
    token: RwLock<Option<SecretString>>,
    /// One reload at a time.
    reloading: AsyncMutex<()>,
    reload_error: Mutex<Option<String>>,
    heartbeat: RwLock<Option<Arc<Heartbeat>>>,
    /// Scheme and host of each webhook: what may be shown of where it points.
    targets: RwLock<BTreeMap<String, String>>,
    /// Where the services' own webhooks come in.
    pub(super) hooks: Hooks,
    /// Lasting troubles by their cause, for `status` and `/readyz`.
    troubles: Mutex<BTreeMap<&'static str, String>>,
}

/// Where signs of life go.
pub struct Heartbeat {
    /// Where to; whoever knows it can pretend that all is well.
    pub url: SecretString,
    /// How often.
    pub every: Duration,
    /// The way out.
    pub transport: Arc<dyn Transport>,
}

/// A configuration made real: secrets resolved, adapters and clients built. Nothing of it runs yet.
pub(super) struct Assembly {
    accounts: Vec<Account>,
    pub(super) destinations: Vec<Destination>,
    targets: BTreeMap<String, String>,
    inbound: BTreeMap<String, InboundHook>,
    heartbeat: Option<Arc<Heartbeat>>,
    token: Option<SecretString>,
}

/// Where the next page of a provider's list begins, by the last id of the page before: the newest few.
#[derive(Debug, Default)]
pub(super) struct Cursors(Mutex<VecDeque<(String, String, String)>>);

impl Cursors {
    /// As many clients as page through lists at a time.
    const MOST: usize = 256;

    /// Where the page behind `last` begins.
    pub(super) fn get(&self, provider: &str, last: &str) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().rev().find(|(at, id, _)| at == provider && id == last);
        found.map(|(_, _, cursor)| cursor.clone())
    }

    /// The page behind `last` begins at `cursor`.
    pub(super) fn put(&self, provider: &str, last: &str, cursor: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(at, id, _)| at != provider || id != last);
        known.push_back((provider.to_owned(), last.to_owned(), cursor.to_owned()));
        if known.len() > Self::MOST {
            known.pop_front();
        }
    }
}

impl Live {
    /// Puts a daemon together and sets it running. Every sentence of an error is one problem with the configuration.
    pub async fn start(parts: Parts, config: Config) -> Result<Arc<Self>, Vec<String>> {
        let Parts { store, clock, rng, tasks, .. } = parts.clone();
        let live = Self {
            engine: Engine::new(store.clone(), clock.clone(), rng.clone(), tasks.clone()),
            dispatcher: Dispatcher::new(store, clock.clone(), rng, tasks.tracker(), tasks.stopping()),
            started_at: clock.now(),
            cursors: Cursors::default(),
            parts,
            config: RwLock::new(Arc::new(config.clone())),
            token: RwLock::default(),
            reloading: AsyncMutex::new(()),
            reload_error: Mutex::default(),
            heartbeat: RwLock::default(),
            targets: RwLock::default(),
            hooks: Hooks::default(),
            troubles: Mutex::default(),
        };
        let assembly = live.assemble(&config)?;
        live.apply(config, assembly).await.map_err(|refusal| vec![refusal.message])?;
        let live = Arc::new(live);
        let engine = live.engine.clone();
        live.parts
            .tasks
            .keep_running("submissions", live.parts.tasks.stopping(), |pulse| engine.reconcile(pulse));
        live.parts
            .tasks
            .keep_running("routes", live.parts.tasks.stopping(), |pulse| live.clone().follow(pulse));
        Ok(live)
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The routes in force.
    pub fn routes(&self) -> Arc<Routes> {
        self.engine.routes()
    }

    /// Where signs of life go, if anywhere.
    pub fn heartbeat(&self) -> Option<Arc<Heartbeat>> {
        self.heartbeat.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What may be shown of where a webhook points.
    pub fn target(&self, webhook: &str) -> Option<String> {
        self.targets.read().unwrap_or_else(PoisonError::into_inner).get(webhook).cloned()
    }

    /// The loops that have not come round within `bound`, by name.
    pub fn late(&self, bound: Duration) -> Vec<String> {
        let oldest = earlier(self.parts.clock.now(), bound).as_millisecond();
        let workers = self.dispatcher.pulses().into_iter();
        let late = workers
            .filter(|(_, pulse)| pulse.load(Ordering::Relaxed) < oldest)
            .map(|(name, _)| format!("webhook {name}"));
        self.parts.tasks.late(bound).into_iter().chain(late).collect()
    }

    /// Keeps the routes in step with which webhooks are switched off: what these are owed is held from the start. Reads
    /// the secrets of those again that are refused.
    async fn follow(self: Arc<Self>, pulse: Pulse) {
        const NAP: Duration = Duration::from_secs(15);
        let stopping = self.parts.tasks.stopping();
        let mut switched_off = self.dispatcher.switched_off();
        let mut refused = self.dispatcher.refused();
        loop {
            pulse.beat();
            let names = refused.borrow_and_update().clone();
            self.renew(names);
            let off = switched_off.borrow_and_update().clone();
            let routes = routes(&self.config(), &off);
            if routes != *self.engine.routes() {
                self.dispatcher.set_routes(Arc::new(routes.clone()));
                self.engine.set_routes(routes);
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = switched_off.changed() => {}
                _ = refused.changed() => {}
                () = tokio::time::sleep(NAP) => {}
            }
        }
    }

    /// The bearer token in force.
    pub fn token(&self) -> Option<SecretString> {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The environment that the configuration speaks of.
    pub(super) fn env(&self) -> &Env {
        &self.parts.env
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
    pub async fn reload(&self) -> Result<ReloadAnswer, ApiError> {
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

    async fn take_new_configuration(&self) -> Result<ReloadAnswer, ApiError> {
        let refused = |problems: Vec<String>| {
            ApiError::new(ErrorCode::ConfigRefused, problems.join("\n")).hint(
                "the running configuration stays; `batchd config check` shows each problem in its place",
            )
        };
        let before = self.config();
        let config = Config::load(self.parts.config_file.as_deref(), &catalog(), &self.parts.env)
            .map_err(|problems| refused(problems.one_lines()))?;
        config.check_secrets(&self.parts.env).map_err(|problems| refused(problems.one_lines()))?;
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

    async fn apply(&self, config: Config, assembly: Assembly) -> Result<(), ApiError> {
        let Assembly { accounts, destinations, targets, inbound, heartbeat, token } = assembly;
        let states = self.parts.store.webhook_states().await?;
        let off =
            states.into_iter().filter(|(_, state)| state.disabled.is_some()).map(|(name, _)| name).collect();
        let routes = routes(&config, &off);
        let retain = config.state.retain;
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
        self.hooks.set_inbound(inbound);
        *self.heartbeat.write().unwrap_or_else(PoisonError::into_inner) = heartbeat;
        *self.targets.write().unwrap_or_else(PoisonError::into_inner) = targets;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.dispatcher.set_routes(Arc::new(routes.clone()));
        // Webhooks first: what a poll finds is owed to those of the new configuration.
        self.dispatcher.apply(destinations).await?;
        self.engine.apply(accounts, routes, retain).await?;
        Ok(())
    }

    /// Resolves every secret and builds what the configuration asks for; all problems at once.
    pub(super) fn assemble(&self, config: &Config) -> Result<Assembly, Vec<String>> {
        let mut problems = Vec::new();
        let mut secrets = Vec::new();
        let mut resolve = |what: String, source: &SecretSource| match source.resolve(&self.parts.env) {
            Ok(secret) => {
                secrets.push(secret.clone());
                Some(secret)
            }
            Err(problem) => {
                problems.push(format!("{what}: {problem}"));
                None
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
        let inbound = hooks::inbound(config, &mut resolve);
        let targets: Vec<(&WebhookConfig, Option<Target>)> =
            config.webhooks.values().map(|webhook| (webhook, target(webhook, &mut resolve))).collect();
        let heartbeat = config.heartbeat.as_ref().and_then(|heartbeat| {
            Some((resolve("heartbeat.url".to_owned(), &heartbeat.url)?, heartbeat.every))
        });
        let scrubber = Arc::new(Scrubber::new(&secrets));

        let mut accounts = Vec::new();
        let mut sign_of_life = None;
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
                sign_of_life = heartbeat
                    .map(|(url, every)| Arc::new(Heartbeat { url, every, transport: transport.clone() }));
                for provider in config.providers.values() {
                    let Some(kind) = provider::registry::kind(&provider.kind) else {
                        problems.push(format!("providers.{}: no such kind", provider.name));
                        continue;
                    };
                    let api_key = keys.get(provider.name.as_str()).cloned().flatten();
                    let adapter = (kind.build)(&provider::Account { config: provider, api_key });
                    match self.way_out(adapter.issuer(), &transport) {
                        Ok(transport) => {
                            accounts.push(Account { config: provider.clone(), adapter, transport });
                        }
                        Err(problem) => problems.push(format!("providers.{}: {problem}", provider.name)),
                    }
                }
            }
            Err(problem) => problems.push(format!("http: {problem}")),
        }

        let mut destinations = Vec::new();
        let mut shown = BTreeMap::new();
        for (webhook, target) in targets {
            let Some(target) = target else { continue };
            shown.insert(webhook.name.clone(), scheme_and_host(target.url.expose_secret()));
            match destination(webhook, &target, config, &scrubber) {
                Ok(destination) => destinations.push(destination),
                Err(problem) => problems.push(format!("webhooks.{}: {problem}", webhook.name)),
            }
        }
        if problems.is_empty() {
            Ok(Assembly { accounts, destinations, targets: shown, inbound, heartbeat: sign_of_life, token })
        } else {
            Err(problems)
        }
    }

    /// `transport`, or one around it that adds what `issuer` gives out.
    fn way_out(
        &self,
        issuer: Option<Issuer>,
        transport: &Arc<dyn Transport>,
    ) -> Result<Arc<dyn Transport>, TransportProblem> {
        let Some(issuer) = issuer else { return Ok(transport.clone()) };
        let routes = CredentialRoutes::new(transport.clone())?;
        let clock = self.parts.clock.clone();
        Ok(Arc::new(Authorized::new(transport.clone(), issuer, routes, clock, &self.parts.env)))
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
    pub async fn reload(&self) -> Result<ReloadAnswer, ApiError> {
        self.live()?.reload().await
    }
}

/// The kinds there are, for the configuration.
pub fn catalog() -> crate::config::Catalog {
    crate::config::Catalog {
        providers: provider::registry::KINDS.iter().map(|kind| kind.facts).collect(),
        webhooks: crate::webhook::registry::KINDS.iter().map(|kind| kind.facts).collect(),
        hooked: provider::registry::KINDS
            .iter()
            .filter(|kind| kind.hook.is_some())
            .map(|kind| kind.facts.name)
            .collect(),
    }
}

/// The address of a webhook that the configuration gives none.
fn usual_url(webhook: &WebhookConfig) -> Option<SecretString> {
    crate::webhook::registry::kind(&webhook.kind)?.facts.url.map(SecretString::from)
}

/// Where a webhook points, by its configuration and `resolve`, which has its secrets; `None` if it lacks one.
pub(super) fn target(
    webhook: &WebhookConfig,
    mut resolve: impl FnMut(String, &SecretSource) -> Option<SecretString>,
) -> Option<Target> {
    let name = &webhook.name;
    let mut of = |key: &str, source| resolve(format!("webhooks.{name}.{key}"), source);
    let url = match &webhook.url {
        Some(source) => of("url", source),
        None => usual_url(webhook),
    };
    let signing = webhook.secrets.iter().map(|source| of("secret", source));
    let signing: Option<Vec<SecretString>> = signing.collect();
    let options = webhook.options.iter().map(|(key, source)| Some((*key, of(key, source)?)));
    let options: Option<BTreeMap<&'static str, SecretString>> = options.collect();
    url.zip(signing).zip(options).map(|((url, secrets), options)| Target {
        name: name.clone(),
        url,
        secrets,
        options,
        template: webhook.template.as_ref().map(|template| template.text.clone()),
        timeout: webhook.timeout,
    })
}

fn destination(
    webhook: &WebhookConfig,
    target: &Target,
    config: &Config,
    scrubber: &Arc<Scrubber>,
) -> Result<Destination, String> {
    let ca_files = config.http.ca_file.iter().chain(&webhook.ca_file).cloned().collect();
    let transport = TransportConfig {
        proxy: &config.http.proxy,
        ca_files,
        insecure_skip_verify: webhook.insecure_skip_verify,
        guard: Guard::from(config.http.egress),
    };
    let transport = ReqwestTransport::new(&transport).map_err(|problem| problem.to_string())?;
    Destination::new(webhook, target, Arc::new(transport), scrubber.clone())
        .map_err(|problem| problem.to_string())
}

/// What may be shown of a webhook's URL: its path, its user and its query may be secrets.
fn scheme_and_host(url: &str) -> String {
    let Ok(uri) = url.parse::<http::Uri>() else { return "…".to_owned() };
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{}://{host}/…", uri.scheme_str().unwrap_or("http"))
}

fn routes(config: &Config, off: &BTreeSet<String>) -> Routes {
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
                disabled: off.contains(&webhook.name),
            })
            .collect(),
    )
}
