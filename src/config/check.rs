//! The rules that a file must keep: from what is written to a configuration that cannot be wrong.

use super::address::{base_url, is_exposed, is_local, web_address};
use super::environment::Env;
use super::find;
use super::problem::{Problem, Severity as Weight, known, nearest, quote, shown, suggestion};
use super::raw::{
    ApiTable, DigestTable, Field, HeartbeatTable, HttpTable, Named, PollingTable, ProviderTable, Raw,
    ResultsTable, StateTable, WebhookTable,
};
use super::secret::SecretSource;
use super::{
    ApiConfig, Catalog, Config, DigestConfig, Egress, HeartbeatConfig, HttpConfig, KindFacts, Origin,
    Polling, ProviderConfig, Proxy, ResultsConfig, StateConfig, Template, WebhookConfig, WebhookFacts,
};
use crate::domain::calendar::Calendar;
use crate::domain::duration::compact;
use crate::domain::event::EventType;
use crate::domain::outcome::Severity;
use jiff::tz::TimeZone;
use secrecy::ExposeSecret;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use url::Url;

/// What a file is judged against.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The kinds there are.
    pub catalog: &'a Catalog,
    /// The environment.
    pub env: &'a Env,
    /// What relative paths are relative to: the file's directory.
    pub directory: &'a Path,
}

/// Judges a whole file: the configuration, unless one of the problems is an error.
pub fn check(raw: &Raw, circumstances: Circumstances<'_>) -> (Option<Config>, Vec<Problem>) {
    let mut check = Check { circumstances, problems: Vec::new(), places: BTreeMap::new() };
    let state = check.state(&raw.state);
    let api = check.api(&raw.api);
    let http = check.http(&raw.http);
    let polling = check.polling("polling", &raw.polling, Polling::default());
    let results = check.results(&raw.results, state.as_ref());
    let heartbeat = check.heartbeat(&raw.heartbeat);
    let providers = check.providers(&raw.providers, &polling);
    let names = Names::of(raw);
    let webhooks = check.webhooks(&raw.webhooks, &names, http.egress);
    let digests = check.digests(&raw.digests, &names);
    let Check { problems, places, circumstances } = check;
    let sound = problems.iter().all(|problem| problem.severity == Weight::Warning);
    let config = sound.then(|| state.ok_or(())).and_then(Result::ok).map(|state| Config {
        file: None,
        state,
        api,
        http,
        polling,
        results,
        providers,
        webhooks,
        digests,
        heartbeat,
        warnings: Vec::new(),
        origin: Origin { places, webhooks: circumstances.catalog.webhooks.clone(), ..Origin::default() },
    });
    (config, problems)
}

/// Judges `[api]` alone, for commands that only want to find the daemon.
pub fn check_api(table: &ApiTable, circumstances: Circumstances<'_>) -> (ApiConfig, Vec<Problem>) {
    let mut check = Check { circumstances, problems: Vec::new(), places: BTreeMap::new() };
    let api = check.api(table);
    (api, check.problems)
}

/// The path that a file means: `~/` is the home directory, a relative one starts at the file's own directory.
pub fn path(written: &Path, circumstances: Circumstances<'_>) -> PathBuf {
    match (written.strip_prefix("~"), circumstances.env.directory("HOME")) {
        (Ok(below), Some(home)) => home.join(below),
        _ => circumstances.directory.join(written),
    }
}

/// An address with the options that it names filled in.
fn filled(address: &str, options: &BTreeMap<String, String>) -> String {
    options
        .iter()
        .fold(address.to_owned(), |filled, (key, value)| filled.replace(&format!("{{{key}}}"), value))
}

struct Check<'a> {
    circumstances: Circumstances<'a>,
    problems: Vec<Problem>,
    /// Where each secret and each file is named.
    places: BTreeMap<String, Range<usize>>,
}

impl Check<'_> {
    fn state(&mut self, table: &StateTable) -> Option<StateConfig> {
        let retain = self.within("state.retain", table.retain.given(), &RETAIN, DEFAULT_RETAIN);
        if let Some(given) = table.retain.given().filter(|_| retain < SHORT_RETAIN) {
            self.warn(
                given.span(),
                "`state.retain` is so short that what ended is gone before anybody looks",
            );
        }
        let dir = match table.dir.given() {
            Some(dir) => Some(self.path(dir.get_ref())),
            None => find::state_dir(self.circumstances.env),
        };
        if dir.is_none() {
            self.problems.push(
                Problem::error(
                    None,
                    "there is no place for the state: neither HOME nor XDG_STATE_HOME is set",
                )
                .help("set `dir` in `[state]`".to_owned()),
            );
        }
        Some(StateConfig { dir: dir?, retain })
    }

    fn api(&mut self, table: &ApiTable) -> ApiConfig {
        let socket = table.socket.given().map(|socket| {
            let path = self.path(socket.get_ref());
            let length = path.as_os_str().as_bytes().len();
            if length > LONGEST_SOCKET {
                let message = format!(
                    "`api.socket` is {length} bytes long; a socket's path has at most {LONGEST_SOCKET}"
                );
                self.refuse(socket.span(), message, None);
            }
            path
        });
        let listen = table.listen.given().and_then(|listen| self.listen(listen));
        let token = table.token.given().map(|token| self.source("api.token", token));
        if let Some((address, span)) = &listen
            && table.token.is_missing()
            && !address.ip().is_loopback()
        {
            let span = span.clone();
            let message = "`api.listen` is reachable from other machines, and no `token` protects it";
            let help = "set `token` in `[api]`, or listen on 127.0.0.1";
            self.refuse(span, message, help.to_owned());
        }
        let hosts = table.hosts.given().map_or_else(Vec::new, |hosts| self.hosts(hosts.get_ref()));
        ApiConfig { socket, listen: listen.map(|(address, _)| address), token, hosts }
    }

    fn listen(&mut self, listen: &Spanned<String>) -> Option<(SocketAddr, Range<usize>)> {
        let text = listen.get_ref();
        // No name is resolved for this one: it is always the same.
        let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        if let Ok(address) = numeric.as_deref().unwrap_or(text).parse() {
            return Some((address, listen.span()));
        }
        let port = text.trim_start_matches(':').parse::<u16>().ok();
        let help = port.map_or_else(
            || "write \"127.0.0.1:8765\" or \"[::1]:8765\"".to_owned(),
            |port| format!("did you mean \"127.0.0.1:{port}\"?"),
        );
        let message = format!("`api.listen` must be an address with a port, and {} is none", quote(text));
        self.refuse(listen.span(), message, help);
        None
    }

    fn hosts(&mut self, hosts: &[Spanned<String>]) -> Vec<String> {
        for host in hosts {
            let name = host.get_ref();
            let ipv6 = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let sound = match ipv6 {
                Some(address) => address.parse::<Ipv6Addr>().is_ok(),
                None => name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
            };
            if !sound {
                let message = format!("`api.hosts` holds host names, and {} is none", quote(name));
                let help = "write the bare name, without scheme, port and path: \"batchd.example.com\"";
                self.refuse(host.span(), message, help.to_owned());
            }
        }
        hosts.iter().map(|host| host.get_ref().to_ascii_lowercase()).collect()
    }

    fn http(&mut self, table: &HttpTable) -> HttpConfig {
        let proxy = match table.proxy.given().map(|proxy| (proxy.get_ref().as_str(), proxy.span())) {
            None | Some(("none", _)) => Proxy::None,
            Some(("env", _)) => Proxy::Env,
            Some((text, span)) => {
                let sound = web_address(text).is_ok_and(|url| url.path() == "/" && url.query().is_none());
                if !sound {
                    let help = nearest(text, ["none", "env"]).map_or_else(
                        || "write \"none\", \"env\" or \"http://HOST:PORT\"".to_owned(),
                        |near| format!("did you mean \"{near}\"?"),
                    );
                    self.refuse(span, "`http.proxy` must be none, env or the address of an HTTP proxy", help);
                }
                Proxy::Url(text.into())
            }
        };
        let ca_file = table.ca_file.given().map(|file| self.file("http.ca_file", file));
        let egress = table.egress.given().and_then(|egress| match egress.get_ref().as_str() {
            "local" => Some(Egress::Local),
            "public" => Some(Egress::Public),
            other => {
                let message = format!("`http.egress` must be local or public, not {}", quote(other));
                self.refuse(egress.span(), message, suggestion(other, ["local", "public"]));
                None
            }
        });
        if let (Some(proxy_key), Some(Egress::Public), true) =
            (table.proxy.given(), egress, !matches!(proxy, Proxy::None))
        {
            let message = "through a proxy `http.egress` holds for addresses that stand in a URL: names are resolved by the \
                           proxy, which must keep to public addresses itself";
            self.warn(proxy_key.span(), message);
        }
        HttpConfig { proxy, ca_file, egress: egress.unwrap_or(Egress::Local) }
    }

    /// `[polling]`, or a provider's keys of the same names over `defaults`.
    fn polling(&mut self, path: &str, table: &PollingTable, defaults: Polling) -> Polling {
        let key = |name: &str| format!("{path}.{name}");
        let polling = Polling {
            min_interval: self.within(
                &key("min_interval"),
                table.min_interval.given(),
                &INTERVAL,
                defaults.min_interval,
            ),
            max_interval: self.within(
                &key("max_interval"),
                table.max_interval.given(),
                &INTERVAL,
                defaults.max_interval,
            ),
            timeout: self.within(&key("timeout"), table.timeout.given(), &POLL_TIMEOUT, defaults.timeout),
            concurrency: self.within(
                &key("concurrency"),
                table.concurrency.given(),
                &CONCURRENCY,
                defaults.concurrency,
            ),
            requests_per_minute: match table.requests_per_minute.given() {
                Some(given) => Some(self.within(
                    &key("requests_per_minute"),
                    Some(given),
                    &PER_MINUTE,
                    PER_MINUTE_FALLBACK,
                )),
                None => defaults.requests_per_minute,
            },
            stalled_after: self.within(
                &key("stalled_after"),
                table.stalled_after.given(),
                &STALLED_AFTER,
                defaults.stalled_after,
            ),
        };
        let understood = !table.min_interval.is_wrong() && !table.max_interval.is_wrong();
        let given = table.min_interval.given().or(table.max_interval.given()).filter(|_| understood);
        if let Some(given) = given.filter(|_| polling.min_interval > polling.max_interval) {
            let message = format!(
                "`{path}.min_interval` ({}) is longer than `max_interval` ({})",
                compact(polling.min_interval),
                compact(polling.max_interval)
            );
            self.refuse(given.span(), message, "set both, the longer one as `max_interval`".to_owned());
        }
        polling
    }

    fn results(&mut self, table: &ResultsTable, state: Option<&StateConfig>) -> ResultsConfig {
        let dir = match table.dir.given() {
            Some(dir) => self.path(dir.get_ref()),
            None => state.map(|state| state.dir.join("results")).unwrap_or_default(),
        };
        ResultsConfig {
            download: table.download.given().is_some_and(|download| *download.get_ref()),
            dir,
            retain: self.within("results.retain", table.retain.given(), &RETAIN, DEFAULT_RETAIN),
            max_bytes: self.within(
                "results.max_bytes",
                table.max_bytes.given(),
                &MAX_BYTES,
                DEFAULT_MAX_BYTES,
            ),
        }
    }

    fn heartbeat(&mut self, table: &HeartbeatTable) -> Option<HeartbeatConfig> {
        let every = self.within("heartbeat.every", table.every.given(), &HEARTBEAT, HEARTBEAT_EVERY);
        let Some(url) = table.url.given() else {
            if let Some(every) = table.every.given().filter(|_| table.url.is_missing()) {
                self.warn(every.span(), "`heartbeat.every` has no effect without `heartbeat.url`");
            }
            return None;
        };
        // Whoever knows the address can pretend that all is well.
        self.inline_address("heartbeat.url", url);
        Some(HeartbeatConfig { url: self.source("heartbeat.url", url), every })
    }

    fn providers(
        &mut self,
        tables: &[Named<ProviderTable>],
        defaults: &Polling,
    ) -> BTreeMap<String, ProviderConfig> {
        if tables.is_empty() {
            self.problems.push(
                Problem::warning(None, "no provider is configured, so there is nothing to watch")
                    .help(self.first_provider()),
            );
        }
        let providers: Vec<_> = tables.iter().map(|named| self.provider(named, defaults)).collect();
        providers.into_iter().flatten().map(|provider| (provider.name.clone(), provider)).collect()
    }

    /// How to come by a first provider.
    fn first_provider(&self) -> Option<String> {
        let kinds = &self.circumstances.catalog.providers;
        let (variable, kind) =
            kinds.iter().find_map(|kind| Some((kind.key_env.first().copied()?, kind.name)))?;
        Some(format!("set {variable}, or write a table such as `[providers.{kind}]`"))
    }

    fn provider(&mut self, named: &Named<ProviderTable>, defaults: &Polling) -> Option<ProviderConfig> {
        let Named { name, table } = named;
        self.name("provider", name);
        let path = format!("providers.{}", shown(name.get_ref()));
        let polling = self.polling(&path, &table.polling, *defaults);
        let discover =
            table.discover.given().and_then(|discover| Calendar::new(discover.get_ref(), TimeZone::UTC));
        let webhook_secret =
            table.webhook_secret.given().map(|secret| self.source(&format!("{path}.webhook_secret"), secret));
        let base_url = table.base_url.given().map(|url| self.base_url(&format!("{path}.base_url"), url));
        let api_key = table.api_key.given().map(|key| self.source(&format!("{path}.api_key"), key));
        let facts = self.provider_kind(name, &table.kind)?;
        let options = self.options(&path, &facts, table);
        for key in facts
            .required
            .iter()
            .filter(|key| !table.options.contains_key(*key) && !options.contains_key(**key))
        {
            let message = format!("the provider {} needs `{key}`", quote(name.get_ref()));
            self.refuse(name.span(), message, format!("write {key} = \"…\" in `[{path}]`"));
        }
        let base_url = match base_url {
            None if table.base_url.is_missing() => self.usual_base_url(&facts, &options, name),
            given => given.flatten(),
        };
        let api_key = match api_key {
            None if table.api_key.is_missing() => self.usual_key(&facts, name, &path),
            given => given,
        };
        if let Some(secret) = table.webhook_secret.given()
            && !self.circumstances.catalog.hooked.contains(facts.name)
        {
            let message = format!(
                "`{path}.webhook_secret` has no effect: services of kind `{}` send no webhooks",
                facts.name
            );
            self.warn(secret.span(), message);
        }
        let local = base_url.as_ref().and_then(Url::host_str).is_some_and(is_local);
        if polling.min_interval < SHORT_INTERVAL && !local {
            let span = table.polling.min_interval.given().map_or_else(|| name.span(), Spanned::span);
            let message = format!("`{path}` is asked about a batch more than once a second");
            self.warn(span, message);
        }
        Some(ProviderConfig {
            name: name.get_ref().clone(),
            kind: facts.name.to_owned(),
            base_url: base_url.map(|url| url.as_str().trim_end_matches('/').to_owned())?,
            api_key,
            webhook_secret,
            discover,
            polling,
            options,
        })
    }

    /// What is known of the kind that a table names or is named after.
    fn provider_kind(&mut self, name: &Spanned<String>, kind: &Field<String>) -> Option<KindFacts> {
        let kinds = &self.circumstances.catalog.providers;
        let asked = match kind {
            Field::Missing => name,
            Field::Wrong => return None,
            Field::Given(kind) => kind,
        };
        if let Some(facts) = kinds.iter().find(|facts| facts.name == asked.get_ref()) {
            return Some(*facts);
        }
        let word = asked.get_ref();
        let names = || kinds.iter().map(|facts| facts.name);
        let there_is = known(names()).map(|all| format!("there is {all}"));
        let (message, help) = if kind.given().is_some() {
            (
                format!("there is no kind of provider {}", quote(word)),
                suggestion(word, names().collect::<Vec<_>>()),
            )
        } else {
            // A table named freely: its name may still tell.
            let near = names().find(|known| word.starts_with(known)).or_else(|| nearest(word, names()));
            let help = near.map(|near| format!("add kind = \"{near}\", or name the table so")).or(there_is);
            (format!("the provider {} has no `kind`, and no kind is called so", quote(word)), help)
        };
        self.refuse(asked.span(), message, help);
        None
    }

    fn base_url(&mut self, key: &str, given: &Spanned<String>) -> Option<Url> {
        match base_url(given.get_ref()) {
            Ok(url) => {
                if is_exposed(&url) {
                    self.warn(given.span(), format!("`{key}` sends the key unencrypted; use https"));
                }
                Some(url)
            }
            Err(expected) => {
                self.refuse(given.span(), format!("`{key}` must be {expected}"), None);
                None
            }
        }
    }

    /// The kind's own address, or the one that its standard variable holds.
    fn usual_base_url(
        &mut self,
        facts: &KindFacts,
        options: &BTreeMap<String, String>,
        name: &Spanned<String>,
    ) -> Option<Url> {
        let variable = facts.base_url_env.filter(|variable| self.circumstances.env.get(variable).is_some());
        let text = match variable {
            Some(variable) => self.circumstances.env.get(variable).map(str::to_owned),
            None => facts.base_url.map(|address| filled(address, options)),
        };
        if text.as_ref().is_some_and(|text| text.contains('{')) {
            // What it needs is missing, and that has been told.
            return None;
        }
        let Some(text) = text else {
            let message = format!("the provider {} needs a `base_url`", quote(name.get_ref()));
            let help = format!("providers of kind `{}` have no usual address", facts.name);
            self.refuse(name.span(), message, help);
            return None;
        };
        match (base_url(&text), variable) {
            (Ok(url), variable) => {
                if let Some(variable) = variable.filter(|_| is_exposed(&url)) {
                    self.warn(name.span(), format!("{variable} sends the key unencrypted; use https"));
                }
                Some(url)
            }
            (Err(expected), variable) => {
                let holder = variable.unwrap_or(facts.name);
                let message = format!(
                    "the address of the provider {} in {holder} must be {expected}",
                    quote(name.get_ref())
                );
                self.refuse(name.span(), message, None);
                None
            }
        }
    }

    /// The kind's standard variable: the first that is set, else the first there is.
    fn usual_key(&mut self, facts: &KindFacts, name: &Spanned<String>, path: &str) -> Option<SecretSource> {
        let set = facts.key_env.iter().find(|variable| self.circumstances.env.get(variable).is_some());
        match set.or(facts.key_env.first()) {
            Some(_) if facts.key_optional && set.is_none() => None,
            Some(variable) => {
                self.places.insert(format!("{path}.api_key"), name.span());
                Some(SecretSource::Env((*variable).to_owned()))
            }
            None if facts.key_optional => None,
            None => {
                let message = format!("the provider {} needs an `api_key`", quote(name.get_ref()));
                self.refuse(name.span(), message, "write api_key = { env = \"NAME\" }".to_owned());
                None
            }
        }
    }

    fn options(&mut self, path: &str, facts: &KindFacts, table: &ProviderTable) -> BTreeMap<String, String> {
        let mut options = BTreeMap::new();
        for (key, value) in &table.options {
            if !facts.options.contains(key) {
                let message = format!("`{path}.{key}` has no effect: kind `{}` does not use it", facts.name);
                self.warn(value.span(), message);
            } else if value.get_ref().contains(char::is_control) {
                let message = format!("`{path}.{key}` holds a line break or another control character");
                self.refuse(value.span(), message, None);
            } else if *key == STORAGE_URL {
                let url = self.base_url(&format!("{path}.{key}"), value);
                options.extend(
                    url.map(|url| ((*key).to_owned(), url.as_str().trim_end_matches('/').to_owned())),
                );
            } else if key.ends_with("_file") {
                let file = self.path(Path::new(value.get_ref()));
                options.insert((*key).to_owned(), file.display().to_string());
            } else {
                options.insert((*key).to_owned(), value.get_ref().clone());
            }
        }
        for (key, variables) in facts.option_env.iter().filter(|(key, _)| !table.options.contains_key(key)) {
            let value = variables.iter().find_map(|variable| self.circumstances.env.get(variable));
            options.extend(value.map(|value| ((*key).to_owned(), value.to_owned())));
        }
        options
    }

    fn webhooks(
        &mut self,
        tables: &[Named<WebhookTable>],
        names: &Names<'_>,
        egress: Egress,
    ) -> BTreeMap<String, WebhookConfig> {
        let webhooks: Vec<_> = tables.iter().map(|named| self.webhook(named, names, egress)).collect();
        webhooks.into_iter().flatten().map(|webhook| (webhook.name.clone(), webhook)).collect()
    }

    fn webhook(
        &mut self,
        Named { name, table }: &Named<WebhookTable>,
        names: &Names<'_>,
        egress: Egress,
    ) -> Option<WebhookConfig> {
        self.name("webhook", name);
        let path = format!("webhooks.{}", shown(name.get_ref()));
        let events = table.events.given().and_then(|events| self.events(&path, events));
        let severity = table.severity.given().and_then(|severity| self.severity(&path, severity));
        let providers = table
            .providers
            .given()
            .map_or_else(BTreeSet::new, |given| self.filter(&format!("{path}.providers"), given, names));
        let timeout =
            self.within(&format!("{path}.timeout"), table.timeout.given(), &TIMEOUT, DEFAULT_TIMEOUT);
        let retry = table.retry.given().and_then(|retry| self.retry(&format!("{path}.retry"), retry));
        let ca_file = table.ca_file.given().map(|file| self.file(&format!("{path}.ca_file"), file));
        let insecure_skip_verify = table.insecure_skip_verify.given().is_some_and(|skip| {
            if *skip.get_ref() {
                let message = format!(
                    "`{path}.insecure_skip_verify` trusts any certificate: whoever answers is believed"
                );
                self.warn(skip.span(), message);
            }
            *skip.get_ref()
        });
        let template = table.template.given().map(|template| self.template(&path, template));
        let facts = self.webhook_kind(&table.kind, name);
        let secrets = self.signing_secrets(&path, name, table, facts.as_ref());
        let usual_url = facts.as_ref().and_then(|facts| facts.url);
        if table.url.is_missing() && usual_url.is_none() {
            let message = format!("the webhook {} needs a `url`", quote(name.get_ref()));
            let help = "write url = \"https://…\" or url = { env = \"NAME\" }";
            self.refuse(name.span(), message, help.to_owned());
        }
        if let Some(url) = table.url.given() {
            self.target(&format!("{path}.url"), url, facts.as_ref(), egress);
        }
        let facts = facts?;
        let options = self.webhook_options(&path, name, table, &facts);
        let url = table.url.given().map(|url| self.place(&format!("{path}.url"), url));
        if url.is_none() && usual_url.is_none() {
            return None;
        }
        let usual = EventType::ALL
            .into_iter()
            .filter(|event| EventType::ENDS.contains(event) || (facts.findings && event.needs_a_person()));
        Some(WebhookConfig {
            name: name.get_ref().clone(),
            kind: facts.name.to_owned(),
            url,
            secrets,
            options,
            template,
            events: events.unwrap_or_else(|| usual.collect()),
            severity: severity.unwrap_or(facts.severity),
            providers,
            labels: table.labels.given().map(|labels| labels.get_ref().clone()).unwrap_or_default(),
            on_request: table.on_request.given().is_some_and(|only| *only.get_ref()),
            timeout,
            retry,
            rate: table.rate.given().map(|rate| *rate.get_ref()),
            ca_file,
            insecure_skip_verify,
        })
    }

    fn webhook_kind(&mut self, kind: &Field<String>, name: &Spanned<String>) -> Option<WebhookFacts> {
        let kinds = &self.circumstances.catalog.webhooks;
        let (word, span) = match kind {
            Field::Missing => (DEFAULT_WEBHOOK, name.span()),
            Field::Wrong => return None,
            Field::Given(kind) => (kind.get_ref().as_str(), kind.span()),
        };
        if let Some(facts) = kinds.iter().find(|facts| facts.name == word) {
            return Some(*facts);
        }
        let names: Vec<_> = kinds.iter().map(|facts| facts.name).collect();
        let message = format!("there is no kind of webhook {}", quote(word));
        self.refuse(span, message, suggestion(word, names));
        None
    }

    /// Secrets to sign with; a kind that signs and has none is told of, and so is the contrary.
    fn signing_secrets(
        &mut self,
        path: &str,
        name: &Spanned<String>,
        table: &WebhookTable,
        facts: Option<&WebhookFacts>,
    ) -> Vec<SecretSource> {
        let key = format!("{path}.secret");
        let signs = facts.is_none_or(|facts| facts.signs);
        match table.secret.given() {
            Some(list) if list.get_ref().is_empty() => {
                let message = format!("`{key}` is an empty list");
                self.refuse(list.span(), message, "leave the key out to send unsigned".to_owned());
                Vec::new()
            }
            Some(list) if !signs => {
                let kind = facts.map_or(DEFAULT_WEBHOOK, |facts| facts.name);
                let message = format!("`{key}` has no effect: webhooks of kind `{kind}` are not signed");
                self.warn(list.span(), message);
                Vec::new()
            }
            Some(list) => {
                let numbered =
                    |at: usize| if list.get_ref().len() == 1 { key.clone() } else { format!("{key}[{at}]") };
                let secrets = list.get_ref().iter().enumerate();
                secrets.map(|(at, secret)| self.source(&numbered(at), secret)).collect()
            }
            None => {
                if signs && facts.is_some() && table.secret.is_missing() {
                    let message = format!(
                        "the webhook `{path}` is unsigned: its receiver cannot tell who sent what it gets"
                    );
                    let help = "`echo whsec_$(openssl rand -base64 32)` makes a `secret`".to_owned();
                    self.problems.push(Problem::warning(name.span(), message).help(help));
                }
                Vec::new()
            }
        }
    }

    /// Judges where a webhook goes, as far as the file says it.
    fn target(
        &mut self,
        key: &str,
        given: &Spanned<SecretSource>,
        facts: Option<&WebhookFacts>,
        egress: Egress,
    ) {
        let Some(url) = self.inline_address(key, given) else { return };
        if let Some(help) = facts.and_then(|facts| facts.retired(&url)) {
            let message = format!("`{key}` is the address of a service that has ended");
            self.refuse(given.span(), message, help.to_owned());
        }
        let capability = facts.is_some_and(|facts| facts.url.is_none() && facts.findings);
        if capability || url.query().is_some() || !url.username().is_empty() || url.password().is_some() {
            self.inline(key, given.span());
        }
        if is_exposed(&url) {
            self.warn(given.span(), format!("`{key}` sends events unencrypted; use https"));
        }
        if egress == Egress::Public && url.host_str().is_some_and(is_local) {
            let message =
                format!("`{key}` is a private address, and `http.egress` is public: nothing will be sent");
            self.warn(given.span(), message);
        }
    }

    /// The address that stands in the file itself, if it is one.
    fn inline_address(&mut self, key: &str, given: &Spanned<SecretSource>) -> Option<Url> {
        let SecretSource::Inline(text) = given.get_ref() else { return None };
        match web_address(text.expose_secret()) {
            Ok(url) => Some(url),
            Err(expected) => {
                self.refuse(given.span(), format!("`{key}` must be {expected}"), None);
                None
            }
        }
    }

    fn events(&mut self, path: &str, events: &Spanned<Vec<Spanned<String>>>) -> Option<BTreeSet<EventType>> {
        let key = format!("{path}.events");
        self.not_empty(&key, events, "leave the key out for the usual ones")?;
        let mut found = BTreeSet::new();
        for event in events.get_ref() {
            if let Some(kind) = EventType::from_word(event.get_ref()) {
                found.insert(kind);
            } else {
                let words = EventType::ALL.map(EventType::as_str);
                let message = format!("`{key}` names no event: {}", quote(event.get_ref()));
                self.refuse(event.span(), message, suggestion(event.get_ref(), words));
            }
        }
        Some(found)
    }

    fn severity(&mut self, path: &str, severity: &Spanned<String>) -> Option<Severity> {
        let word = severity.get_ref();
        word.parse().map_or_else(
            |()| {
                let message =
                    format!("`{path}.severity` must be info, warning or error, not {}", quote(word));
                let help = suggestion(word, ["info", "warning", "error"]);
                self.refuse(severity.span(), message, help);
                None
            },
            Some,
        )
    }

    /// The providers that a filter names; each must be in the file.
    fn filter(
        &mut self,
        key: &str,
        given: &Spanned<Vec<Spanned<String>>>,
        names: &Names<'_>,
    ) -> BTreeSet<String> {
        if self.not_empty(key, given, "leave the key out for all providers").is_some() {
            self.known_names(key, "provider", given.get_ref(), &names.providers);
        }
        given.get_ref().iter().map(|name| name.get_ref().clone()).collect()
    }

    fn known_names(&mut self, key: &str, what: &str, given: &[Spanned<String>], names: &BTreeSet<&str>) {
        for name in given.iter().filter(|name| !names.contains(name.get_ref().as_str())) {
            let message = format!("`{key}` names no {what} of this file: {}", quote(name.get_ref()));
            let help = suggestion(name.get_ref(), names.iter().copied());
            self.refuse(name.span(), message, help);
        }
    }

    fn retry(&mut self, key: &str, retry: &Spanned<Vec<Spanned<Duration>>>) -> Option<Vec<Duration>> {
        self.not_empty(key, retry, "leave the key out for the usual delays")?;
        if retry.get_ref().len() > MOST_RETRIES {
            let message =
                format!("`{key}` has {} delays; there may be {MOST_RETRIES}", retry.get_ref().len());
            self.refuse(retry.span(), message, None);
        }
        Some(
            retry
                .get_ref()
                .iter()
                .map(|delay| self.within(key, Some(delay), &RETRY, RETRY_FALLBACK))
                .collect(),
        )
    }

    /// The kind's further keys; what it needs and what it does not use is told.
    fn webhook_options(
        &mut self,
        path: &str,
        name: &Spanned<String>,
        table: &WebhookTable,
        facts: &WebhookFacts,
    ) -> BTreeMap<&'static str, SecretSource> {
        let mut options = BTreeMap::new();
        for (key, field) in [
            ("routing_key", &table.routing_key),
            ("topic", &table.topic),
            ("token", &table.token),
            ("chat", &table.chat),
        ] {
            let needed = facts.needs.contains(&key);
            match field.given() {
                Some(given) if needed || facts.options.contains(&key) => {
                    options.insert(key, self.source(&format!("{path}.{key}"), given));
                }
                Some(given) => {
                    let message =
                        format!("`{path}.{key}` has no effect: kind `{}` does not use it", facts.name);
                    self.warn(given.span(), message);
                }
                None if needed && field.is_missing() => {
                    let message = format!("the webhook {} needs a `{key}`", quote(name.get_ref()));
                    self.refuse(name.span(), message, format!("write {key} = {{ env = \"NAME\" }}"));
                }
                None => {}
            }
        }
        options
    }

    /// A template that stands in the file itself, or the file that holds it: no path has braces in it.
    fn template(&mut self, path: &str, given: &Spanned<String>) -> Template {
        let text = given.get_ref();
        self.places.insert(format!("{path}.template"), given.span());
        if TEMPLATE_MARKS.iter().any(|mark| text.contains(mark)) {
            return Template { file: None, text: text.clone() };
        }
        Template { file: Some(self.path(Path::new(text))), text: String::new() }
    }

    fn digests(
        &mut self,
        tables: &[Named<DigestTable>],
        names: &Names<'_>,
    ) -> BTreeMap<String, DigestConfig> {
        let digests: Vec<_> = tables.iter().map(|named| self.digest(named, names)).collect();
        digests.into_iter().flatten().map(|digest| (digest.name.clone(), digest)).collect()
    }

    fn digest(
        &mut self,
        Named { name, table }: &Named<DigestTable>,
        names: &Names<'_>,
    ) -> Option<DigestConfig> {
        self.name("digest", name);
        let path = format!("digests.{}", shown(name.get_ref()));
        if table.cron.is_missing() {
            let message = format!("the digest {} needs a `cron`", quote(name.get_ref()));
            self.refuse(name.span(), message, "write cron = \"0 9 * * Mon-Fri\"".to_owned());
        }
        if table.webhooks.is_missing() {
            let message = format!("the digest {} goes to no webhook", quote(name.get_ref()));
            self.refuse(name.span(), message, "name those that get it: webhooks = [\"NAME\"]".to_owned());
        }
        let zone = match table.timezone.given() {
            None => Some(TimeZone::system()),
            Some(given) => {
                let zone = TimeZone::get(given.get_ref()).ok();
                if zone.is_none() {
                    let message = format!("`{path}.timezone` is not known to this machine");
                    self.refuse(given.span(), message, "install its time zones (tzdata)".to_owned());
                }
                zone
            }
        };
        let webhooks = table.webhooks.given()?;
        let key = format!("{path}.webhooks");
        if self.not_empty(&key, webhooks, "name the webhooks that get it").is_some() {
            self.known_names(&key, "webhook", webhooks.get_ref(), &names.webhooks);
        }
        Some(DigestConfig {
            name: name.get_ref().clone(),
            schedule: Calendar::new(table.cron.given()?.get_ref(), zone?)?,
            timezone: table.timezone.given().map(|zone| zone.get_ref().clone()),
            webhooks: webhooks.get_ref().iter().map(|webhook| webhook.get_ref().clone()).collect(),
        })
    }

    /// Judges a name that the user chose; it stands in ids, paths and metrics.
    fn name(&mut self, what: &str, name: &Spanned<String>) {
        let sound = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.get_ref().is_empty() || !name.get_ref().chars().all(sound) {
            let message = format!("{} cannot be the name of a {what}", quote(name.get_ref()));
            self.refuse(name.span(), message, "names are made of letters, digits, `-` and `_`".to_owned());
        }
    }

    /// A value between two bounds; `usual` if it is not given or out of them.
    fn within<T>(&mut self, key: &str, given: Option<&Spanned<T>>, bounds: &Bounds<T>, usual: T) -> T
    where
        T: Copy + PartialOrd,
    {
        let Some(given) = given else { return usual };
        if (bounds.least..=bounds.most).contains(given.get_ref()) {
            return *given.get_ref();
        }
        let message = format!(
            "`{key}` must be between {} and {}, not {}",
            (bounds.written)(bounds.least),
            (bounds.written)(bounds.most),
            (bounds.written)(*given.get_ref())
        );
        self.refuse(given.span(), message, None);
        usual
    }

    fn not_empty<T>(&mut self, key: &str, list: &Spanned<Vec<T>>, help: &str) -> Option<()> {
        if list.get_ref().is_empty() {
            self.refuse(list.span(), format!("`{key}` is an empty list"), help.to_owned());
            return None;
        }
        Some(())
    }

    fn path(&self, written: &Path) -> PathBuf {
        path(written, self.circumstances)
    }

    fn file(&mut self, key: &str, written: &Spanned<PathBuf>) -> PathBuf {
        self.places.insert(key.to_owned(), written.span());
        self.path(written.get_ref())
    }

    /// Notes where a secret is named, and warns of one that stands in the file itself.
    fn source(&mut self, key: &str, given: &Spanned<SecretSource>) -> SecretSource {
        if matches!(given.get_ref(), SecretSource::Inline(_)) {
            self.inline(key, given.span());
        }
        self.place(key, given)
    }

    fn place(&mut self, key: &str, given: &Spanned<SecretSource>) -> SecretSource {
        self.places.insert(key.to_owned(), given.span());
        match given.get_ref() {
            SecretSource::File(file) => SecretSource::File(self.path(file)),
            other => other.clone(),
        }
    }

    fn inline(&mut self, key: &str, span: Range<usize>) {
        let help = "keep it elsewhere: { env = \"NAME\" }, { file = \"/path\" } or { credential = \"NAME\" }"
            .to_owned();
        let message = format!("`{key}` is a secret, and it stands in this file");
        self.problems.push(Problem::warning(span, message).help(help));
    }

    fn warn(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.problems.push(Problem::warning(span, message));
    }

    fn refuse(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.problems.push(Problem::error(span, message).help(help));
    }
}

/// The names that filters may name; also those whose tables are wrong in another way, so that one mistake is told
/// once.
struct Names<'a> {
    providers: BTreeSet<&'a str>,
    webhooks: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    fn of(raw: &'a Raw) -> Self {
        Self {
            providers: raw.providers.iter().map(|named| named.name.get_ref().as_str()).collect(),
            webhooks: raw.webhooks.iter().map(|named| named.name.get_ref().as_str()).collect(),
        }
    }
}

/// What a value may be, both ends included.
struct Bounds<T> {
    least: T,
    most: T,
    /// How it is written in a message.
    written: fn(T) -> String,
}

impl Bounds<Duration> {
    const fn durations(least: Duration, most: Duration) -> Self {
        Self { least, most, written: compact }
    }
}

/// Of a socket's path, in bytes: what the system's address structure holds.
const LONGEST_SOCKET: usize = 107;

/// How long what has ended is kept.
const DEFAULT_RETAIN: Duration = Duration::from_hours(90 * DAY);

/// 50 GiB of results.
const DEFAULT_MAX_BYTES: u64 = 50 << 30;

/// Whoever keeps things shorter than this has probably mistaken the unit.
const SHORT_RETAIN: Duration = Duration::from_hours(1);

/// Whoever asks a public service more often has probably mistaken the unit.
const SHORT_INTERVAL: Duration = Duration::from_secs(1);

/// In hours.
const DAY: u64 = 24;
const RETAIN: Bounds<Duration> =
    Bounds::durations(Duration::from_secs(1), Duration::from_hours(36_500 * DAY));
const INTERVAL: Bounds<Duration> =
    Bounds::durations(Duration::from_millis(10), Duration::from_hours(7 * DAY));
const POLL_TIMEOUT: Bounds<Duration> = Bounds::durations(Duration::from_millis(100), Duration::from_mins(10));
const STALLED_AFTER: Bounds<Duration> =
    Bounds::durations(Duration::from_secs(1), Duration::from_hours(365 * DAY));
const HEARTBEAT: Bounds<Duration> = Bounds::durations(Duration::from_secs(1), Duration::from_hours(24));
const HEARTBEAT_EVERY: Duration = Duration::from_mins(5);
const TIMEOUT: Bounds<Duration> = Bounds::durations(Duration::from_secs(1), Duration::from_mins(1));
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
const RETRY: Bounds<Duration> = Bounds::durations(Duration::from_millis(1), Duration::from_hours(30 * DAY));
const RETRY_FALLBACK: Duration = Duration::from_secs(5);
const MOST_RETRIES: usize = 100;
const CONCURRENCY: Bounds<u32> = Bounds { least: 1, most: 1000, written: |count| count.to_string() };
const PER_MINUTE: Bounds<u32> = Bounds { least: 1, most: 1_000_000, written: |count| count.to_string() };
const PER_MINUTE_FALLBACK: u32 = 600;
const MAX_BYTES: Bounds<u64> = Bounds { least: 1, most: u64::MAX, written: |bytes| format!("{bytes} bytes") };

/// What a webhook is unless it says otherwise.
const DEFAULT_WEBHOOK: &str = "generic";

/// The key for the address of the storage in which some kinds keep input and output.
const STORAGE_URL: &str = "storage_url";

/// What makes a text a template, besides a line break.
const TEMPLATE_MARKS: [&str; 4] = ["{{", "{%", "{#", "\n"];
