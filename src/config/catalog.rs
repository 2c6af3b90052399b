//! What the kinds of providers and webhooks tell the configuration about themselves.

use crate::domain::outcome::Severity;
use std::collections::BTreeSet;

/// What a kind of provider tells the configuration about itself; the registry of floor 2 hands it down.
#[derive(Clone, Copy, Debug)]
pub struct KindFacts {
    /// The word in `kind = "…"`, and the default name.
    pub name: &'static str,
    /// The standard environment variables that hold its key, in order of preference.
    pub key_env: &'static [&'static str],
    /// The header that its key stands in, in lower case.
    pub key_header: &'static str,
    /// The standard environment variables that hold a bearer's token in place of the key, where it takes either; empty:
    /// it does not.
    pub token_env: &'static [&'static str],
    /// A further key with which its address is another and a key is not needed, as requests are signed without one.
    pub signed_place: Option<SignedPlace>,
    /// The standard environment variable for another address, where the vendor has one.
    pub base_url_env: Option<&'static str>,
    /// Its address, in which `{region}` stands for the key of that name; `None`: the configuration must give one.
    pub base_url: Option<&'static str>,
    /// Whether it answers without a key.
    pub key_optional: bool,
    /// Further keys that its table may hold (`organization`, `project`, …).
    pub options: &'static [&'static str],
    /// Those of them without which nothing can be asked.
    pub required: &'static [&'static str],
    /// The standard environment variables that hold them, in order of preference.
    pub option_env: &'static [(&'static str, &'static [&'static str])],
    /// Whether it is known to count requests while a batch runs. Where it is not, a batch whose counts move shows it.
    pub counts_live: bool,
    /// The kind that it is but for an address, a variable and limits, and on whose page it stands; `None`: its own.
    pub preset_of: Option<&'static str>,
    /// Whether the version at the end of its address is added where a given address has none.
    pub adds_version: bool,
}

/// Where a kind is asked with signatures of AWS in place of a key.
#[derive(Clone, Copy, Debug)]
pub struct SignedPlace {
    /// The further key that says so.
    pub option: &'static str,
    /// The address, in which the value of the key stands for its name in braces.
    pub base_url: &'static str,
}

impl KindFacts {
    /// A kind without a name, a key, an address or further keys.
    pub const NONE: Self = Self {
        name: "",
        key_env: &[],
        key_header: "authorization",
        token_env: &[],
        signed_place: None,
        base_url_env: None,
        base_url: None,
        key_optional: false,
        options: &[],
        required: &[],
        option_env: &[],
        counts_live: false,
        preset_of: None,
        adds_version: false,
    };
}

impl WebhookFacts {
    /// A kind without a name, an address or further keys, which people read.
    pub const NONE: Self = Self {
        name: "",
        url: None,
        hosts: &[],
        retired_hosts: &[],
        signs: false,
        severity: Severity::Info,
        findings: true,
        needs: &[],
        options: &[],
        judge_template: |_| Ok(()),
    };

    /// Whether an address is one of the service's own.
    pub fn is_at(&self, url: &url::Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        self.hosts.iter().any(|own| {
            host.strip_suffix(own).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        })
    }

    /// What to do about an address that belongs to a service which has ended.
    pub fn retired(&self, url: &url::Url) -> Option<&'static str> {
        let host = url.host_str()?;
        self.retired_hosts.iter().find(|(end, _)| host.ends_with(end)).map(|(_, help)| *help)
    }
}

/// What a kind of webhook tells the configuration about itself.
#[derive(Clone, Copy, Debug)]
pub struct WebhookFacts {
    /// The word in `kind = "…"`.
    pub name: &'static str,
    /// Its address; `None`: the configuration must give one.
    pub url: Option<&'static str>,
    /// Hosts that are the service's own, subdomains included; empty where everyone runs it on a host of their own.
    pub hosts: &'static [&'static str],
    /// Ends of the names of hosts that belonged to it and take nothing any more, each with what to do.
    pub retired_hosts: &'static [(&'static str, &'static str)],
    /// Whether it signs with `secret`.
    pub signs: bool,
    /// The floor of severity unless the configuration sets another.
    pub severity: Severity,
    /// Whether it is told findings that need a person unless the configuration says otherwise.
    pub findings: bool,
    /// Further keys that its table must hold; all of them are secrets.
    pub needs: &'static [&'static str],
    /// Further keys that its table may hold; all of them are secrets.
    pub options: &'static [&'static str],
    /// Says what is wrong with a template, in a fragment behind "is broken".
    pub judge_template: fn(&str) -> Result<(), String>,
}

/// The kinds there are.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub providers: Vec<KindFacts>,
    pub webhooks: Vec<WebhookFacts>,
    /// Those kinds of providers that send webhooks of their own.
    pub hooked: BTreeSet<&'static str>,
}
