//! A configuration made real: its secrets are resolved, its adapters, clients and routes are built.

use super::ingress::{self, InboundHook};
use super::tokens::Tokens;
use crate::clock::Clock;
use crate::config::environment::Env;
use crate::config::headers;
use crate::config::secret::SecretSource;
use crate::config::{Config, ProviderConfig, WebhookConfig};
use crate::domain::route::{Route, Routes};
use crate::engine::Account;
use crate::http::address::credentials;
use crate::http::authorize::{Authorized, CredentialRoutes, Issuer};
use crate::http::descriptors::Share;
use crate::http::egress::Guard;
use crate::http::scrub::Scrubber;
use crate::http::scrubbed::Scrubbed;
use crate::http::transport::{ReqwestTransport, Transport, TransportConfig, TransportProblem};
use crate::notify::Destination;
use crate::provider;
use crate::webhook::Target;
use http::{HeaderMap, HeaderName};
use secrecy::{ExposeSecret, SecretString};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How clients are made that reach providers and webhooks.
pub type Connect =
    Arc<dyn Fn(&TransportConfig<'_>) -> Result<Arc<dyn Transport>, TransportProblem> + Send + Sync>;

/// Clients that reach them over the network.
pub fn network() -> Connect {
    Arc::new(|config| Ok(Arc::new(ReqwestTransport::new(config)?)))
}

/// Where signs of life go.
pub struct Heartbeat {
    /// Where to; whoever knows it can pretend that all is well.
    pub url: SecretString,
    pub every: Duration,
    pub transport: Arc<dyn Transport>,
}

/// A configuration made real: secrets resolved, adapters and clients built. Nothing of it runs yet.
pub(super) struct Assembly {
    pub(super) accounts: Vec<Account>,
    pub(super) destinations: Vec<Destination>,
    pub(super) targets: BTreeMap<String, String>,
    pub(super) inbound: BTreeMap<String, InboundHook>,
    pub(super) heartbeat: Option<Arc<Heartbeat>>,
    pub(super) tokens: Tokens,
}

impl Assembly {
    /// Resolves every secret and builds what the configuration asks for; all problems at once.
    pub(super) fn of(
        config: &Config,
        env: &Env,
        clock: &Clock,
        connect: &Connect,
    ) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut secrets = Vec::new();
        let mut resolve = |what: String, source: &SecretSource| match source.resolve(env) {
            Ok(secret) => {
                secrets.push(secret.clone());
                Some(secret)
            }
            Err(problem) => {
                problems.push(format!("{what}: {problem}"));
                None
            }
        };
        let (all, reading) = (config.api.token.as_ref(), config.api.read_token.as_ref());
        let tokens = Tokens {
            all: all.and_then(|source| resolve("api.token".to_owned(), source)),
            reading: reading.and_then(|source| resolve("api.read_token".to_owned(), source)),
        };
        let mut credentials: BTreeMap<&str, Credentials> = config
            .providers
            .values()
            .map(|provider| (provider.name.as_str(), Credentials::of(provider, &mut resolve)))
            .collect();
        let mut inbound = ingress::inbound(config, &mut resolve);
        let pages = config.api.pages();
        let targets: Vec<(&WebhookConfig, Option<Target>)> =
            config.webhooks.values().map(|webhook| (webhook, target(webhook, pages, &mut resolve))).collect();
        let heartbeat = config.heartbeat.as_ref().and_then(|heartbeat| {
            Some((resolve("heartbeat.url".to_owned(), &heartbeat.url)?, heartbeat.every))
        });
        // The connection to the server stays as it is until the next start; its password is to show nowhere all the same.
        match config.state.server(env) {
            Ok(server) => secrets.extend(server.and_then(|server| server.password().cloned())),
            Err(problem) => problems.push(problem),
        }
        let scrubber = Arc::new(Scrubber::new(&secrets));

        let mut accounts = Vec::new();
        let mut sign_of_life = None;
        let provider_ca: Vec<PathBuf> = config.http.ca_file.iter().cloned().collect();
        let transport = TransportConfig {
            proxy: &config.http.proxy,
            ca_files: provider_ca.clone(),
            insecure_skip_verify: false,
            guard: Guard::Local,
            share: Share::Providers,
        };
        // One client for every provider: connections are kept apart by host anyway.
        match connect(&transport) {
            Ok(transport) => {
                sign_of_life = heartbeat
                    .map(|(url, every)| Arc::new(Heartbeat { url, every, transport: transport.clone() }));
                for provider in config.providers.values() {
                    let Some(kind) = provider::registry::kind(&provider.kind) else {
                        problems.push(format!("providers.{}: no such kind", provider.name));
                        continue;
                    };
                    let mut credentials = credentials.remove(provider.name.as_str()).unwrap_or_default();
                    problems.append(&mut credentials.problems);
                    let hook = inbound.get_mut(&provider.name);
                    let own = credentials.secrets().chain(hook.as_ref().map(|hook| &hook.secret));
                    let known = Arc::new(own_secrets(provider, own));
                    if let Some(hook) = hook {
                        hook.known = known.clone();
                    }
                    let adapter = (kind.build)(&credentials.account(provider));
                    match authorized(&transport, known, adapter.issuer(), env, clock) {
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
            match destination(webhook, &target, config, connect, &scrubber) {
                Ok(destination) => destinations.push(destination),
                Err(problem) => problems.push(format!("webhooks.{}: {problem}", webhook.name)),
            }
        }
        if problems.is_empty() {
            Ok(Self { accounts, destinations, targets: shown, inbound, heartbeat: sign_of_life, tokens })
        } else {
            Err(problems)
        }
    }
}

/// What an account shows to its provider, resolved.
#[derive(Default)]
struct Credentials {
    api_key: Option<SecretString>,
    auth_token: Option<SecretString>,
    headers: HeaderMap,
    /// The headers' values that are secrets.
    hidden: Vec<SecretString>,
    /// What is wrong with a header.
    problems: Vec<String>,
}

impl Credentials {
    /// Those of `provider`; `resolve` has its secrets, or reports what is wrong with one.
    fn of(
        provider: &ProviderConfig,
        resolve: &mut impl FnMut(String, &SecretSource) -> Option<SecretString>,
    ) -> Self {
        let mut of = |key: String, source: &SecretSource| {
            resolve(format!("providers.{}.{key}", provider.name), source)
        };
        let mut read = |key: &str, source: &Option<SecretSource>| of(key.to_owned(), source.as_ref()?);
        let (api_key, auth_token) =
            (read("api_key", &provider.api_key), read("auth_token", &provider.auth_token));
        let mut credentials = Self { api_key, auth_token, ..Self::default() };
        for (name, source) in &provider.headers {
            let is_secret = headers::is_secret(name, source);
            let value = match source {
                // What is no secret is not to be taken out of every text.
                SecretSource::Inline(value) if !is_secret => Some(value.clone()),
                source => of(format!("headers.{name}"), source),
            };
            let Some(value) = value else { continue };
            match (HeaderName::try_from(name.as_str()), headers::value(value.expose_secret())) {
                (Ok(header), Some(text)) => {
                    credentials.headers.insert(header, text);
                }
                _ => credentials.problems.push(format!(
                    "providers.{}.headers.{name}: {} holds characters that no header may carry",
                    provider.name,
                    source.describe()
                )),
            }
            if is_secret {
                credentials.hidden.push(value);
            }
        }
        credentials
    }

    fn secrets(&self) -> impl Iterator<Item = &SecretString> {
        self.api_key.iter().chain(&self.auth_token).chain(&self.hidden)
    }

    fn account(self, config: &ProviderConfig) -> provider::Account<'_> {
        let Self { api_key, auth_token, headers, .. } = self;
        provider::Account { config, api_key, auth_token, headers }
    }
}

/// What an account's provider might repeat: its `secrets`, and what its address holds.
fn own_secrets<'a>(provider: &ProviderConfig, secrets: impl Iterator<Item = &'a SecretString>) -> Scrubber {
    let user = provider.base_url.parse().ok().and_then(|url| credentials(&url));
    let user = user.and_then(|user| String::from_utf8(user).ok());
    let password = user.as_ref().and_then(|user| Some(user.split_once(':')?.1.to_owned()));
    let mut all: Vec<SecretString> = secrets.cloned().collect();
    all.extend(user.into_iter().chain(password).map(SecretString::from));
    Scrubber::new(&all)
}

/// `transport` for one account: its answers repeat nothing that is `known`, and calls get the credentials of `issuer`.
fn authorized(
    transport: &Arc<dyn Transport>,
    known: Arc<Scrubber>,
    issuer: Option<Issuer>,
    env: &Env,
    clock: &Clock,
) -> Result<Arc<dyn Transport>, TransportProblem> {
    let scrubbed: Arc<dyn Transport> = Arc::new(Scrubbed::new(transport.clone(), known));
    let Some(issuer) = issuer else { return Ok(scrubbed) };
    let routes = CredentialRoutes::new(transport.clone())?;
    Ok(Arc::new(Authorized::new(scrubbed, issuer, routes, clock.clone(), env)))
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

/// Where a webhook points, by its configuration, `pages` (see [`Target::pages`]) and `resolve`, which has its secrets; `None` if it lacks one.
pub(super) fn target(
    webhook: &WebhookConfig,
    pages: Option<&str>,
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
        pages: pages.map(str::to_owned),
        template: webhook.template.as_ref().map(|template| template.text.clone()),
        timeout: webhook.timeout,
    })
}

fn destination(
    webhook: &WebhookConfig,
    target: &Target,
    config: &Config,
    connect: &Connect,
    scrubber: &Arc<Scrubber>,
) -> Result<Destination, String> {
    let ca_files = config.http.ca_file.iter().chain(&webhook.ca_file).cloned().collect();
    let transport = TransportConfig {
        proxy: &config.http.proxy,
        ca_files,
        insecure_skip_verify: webhook.insecure_skip_verify,
        guard: Guard::from(config.http.egress),
        share: Share::Webhooks,
    };
    let transport = connect(&transport).map_err(|problem| problem.to_string())?;
    let transport = Scrubbed::new(transport, scrubber.clone());
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

/// The routes of a configuration; what webhooks that are `off` would get is held.
pub(super) fn routes(config: &Config, off: &BTreeSet<String>) -> Routes {
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
