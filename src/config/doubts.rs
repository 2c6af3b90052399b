//! What is odd about the secrets of a configuration and forbids nothing: placeholders, another service's address.

use super::address::web_address;
use super::environment::Env;
use super::problem::{self, Problem};
use super::secret::{self, SecretProblem, SecretSource};
use super::server_address::ServerAddress;
use super::settings::Config;
use super::verify::UseOfSecret;
use secrecy::ExposeSecret;
use url::Url;

impl Config {
    /// Warns of secrets that were never filled in, and of webhooks whose address is another service's. Of what stands
    /// in the file itself this is told when the file is read; this reads all the others.
    pub fn doubt_secrets(&mut self, env: &Env) {
        let inline = |source: &SecretSource| matches!(source, SecretSource::Inline(_));
        let doubts = self.doubts(env, |source| !inline(source));
        self.add_warnings(doubts);
    }

    /// The same of the secrets that stand in the file itself.
    pub(super) fn doubt_inline(&mut self) -> Vec<Problem> {
        self.doubts(&Env::default(), |source| matches!(source, SecretSource::Inline(_)))
    }

    /// Whether a secret is missing that only the service may have: its unit sets variables, gives credentials, or lets
    /// it read what others may not.
    pub fn lacks_the_services_secrets(&self, env: &Env) -> bool {
        self.secrets().iter().any(|use_of| {
            matches!(
                use_of.source.resolve(env),
                Err(SecretProblem::NotSet { .. }
                    | SecretProblem::NoCredentials { .. }
                    | SecretProblem::Unreadable { .. })
            )
        })
    }

    pub(super) fn add_warnings(&mut self, problems: Vec<Problem>) {
        self.origin.warnings.extend(problems);
        problem::in_order(&mut self.origin.warnings);
        let source = &self.origin.source;
        self.warnings = problem::short_lines(&self.origin.warnings, source);
    }

    fn doubts(&self, env: &Env, of: impl Fn(&SecretSource) -> bool) -> Vec<Problem> {
        let uses = self.secrets();
        uses.iter().filter(|use_of| of(use_of.source)).filter_map(|use_of| self.doubt(use_of, env)).collect()
    }

    fn doubt(&self, use_of: &UseOfSecret<'_>, env: &Env) -> Option<Problem> {
        let secret = use_of.source.resolve(env).ok()?;
        let text = secret.expose_secret();
        let (key, place) = (&use_of.key, self.origin.places.get(&use_of.key).cloned());
        if use_of.is_server() {
            let exposed = text.parse::<ServerAddress>().ok()?.exposed();
            let message = format!(
                "`{key}`: whoever is on the way to {} can read along and take its place",
                exposed.join(", ")
            );
            let help = "write `sslmode=verify-full`, or leave `sslmode` out".to_owned();
            return (!exposed.is_empty()).then(|| Problem::warning(place, message).help(help));
        }
        let Some(url) = use_of.is_address().then(|| web_address(text).ok()).flatten() else {
            return secret::is_placeholder(text).then(|| {
                let message =
                    format!("`{key}`: {} holds a placeholder, not a secret", use_of.source.describe());
                Problem::warning(place, message).help("put the real one there".to_owned())
            });
        };
        if url.path().split('/').any(|part| part == "%E2%80%A6" || secret::is_placeholder(part)) {
            let message =
                format!("`{key}`: {} holds an address with a placeholder in it", use_of.source.describe());
            return Some(
                Problem::warning(place, message).help("copy the whole address from the service".to_owned()),
            );
        }
        let (kind, other) = self.other_service(key, &url)?;
        let message = format!("`{key}` is an address of {other}, and the kind is `{kind}`");
        Some(Problem::warning(place, message).help(format!("write kind = \"{other}\"")))
    }

    /// The kind of the webhook that `key` belongs to, and the one whose service the address is of, if that is another.
    fn other_service(&self, key: &str, url: &Url) -> Option<(&str, &'static str)> {
        let name = key.strip_prefix("webhooks.")?.strip_suffix(".url")?;
        let webhook = self.webhooks.get(name)?;
        let other = self.origin.webhooks.iter().find(|facts| facts.is_at(url))?;
        // Some take another's messages too, at addresses that say so; and what a template writes is the user's.
        let compatible = url.path().trim_end_matches('/').ends_with(&format!("/{}", webhook.kind));
        let own = webhook.kind == other.name || webhook.template.is_some() || compatible;
        (!own).then_some((webhook.kind.as_str(), other.name))
    }
}
