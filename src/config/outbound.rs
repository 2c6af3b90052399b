//! How requests leave, and where webhooks may go: the values of `[http]`.

use super::address::web_address;
use super::form::{Form, REDACTED, plain, quoted};
use super::keys::Visibility;
use super::problem::{nearest, quote, suggestion};
use secrecy::ExposeSecret;
use std::fmt::Write;
use url::Url;

/// `http.proxy`
#[derive(Clone, Debug)]
pub enum Proxy {
    /// No proxy, whatever the environment says.
    None,
    /// As `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    Env,
    /// Through this one; its address may hold a password.
    Url(secrecy::SecretString),
}

/// `http.egress`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// Private addresses are fine; link-local and metadata addresses never are.
    Local,
    /// Public addresses only.
    Public,
}

pub const PROXY: Form<Proxy> = Form {
    name: "`\"none\"`, `\"env\"` or address",
    visibility: Visibility::Address { whole_path: true },
    read: |cell| {
        let text = cell.as_text("text")?;
        match text.as_str() {
            "none" => return Some(Proxy::None),
            "env" => return Some(Proxy::Env),
            _ if is_proxy(&text) => return Some(Proxy::Url(text.into())),
            _ => {}
        }
        let help = nearest(&text, ["none", "env"]).map_or_else(
            || "write \"none\", \"env\", \"http://HOST:PORT\" or \"socks5h://HOST:PORT\"".to_owned(),
            |near| format!("did you mean \"{near}\"?"),
        );
        cell.wrong(
            format!("`{}` must be none, env or the address of an HTTP or SOCKS proxy", cell.path),
            help,
        );
        None
    },
    write: |proxy| {
        Some(match proxy {
            Proxy::None => quoted("none"),
            Proxy::Env => quoted("env"),
            Proxy::Url(url) => quoted(&without_user(url.expose_secret())),
        })
    },
    bounds: None,
};

pub const EGRESS: Form<Egress> = plain(
    "`\"local\"` or `\"public\"`",
    |cell| {
        let word = cell.as_text("text")?;
        match word.as_str() {
            "local" => return Some(Egress::Local),
            "public" => return Some(Egress::Public),
            _ => {}
        }
        let message = format!("`{}` must be local or public, not {}", cell.path, quote(&word));
        cell.wrong(message, suggestion(&word, ["local", "public"]));
        None
    },
    |egress| {
        Some(quoted(match egress {
            Egress::Local => "local",
            Egress::Public => "public",
        }))
    },
);

/// Whether it is the address of a proxy, and nothing behind it.
fn is_proxy(text: &str) -> bool {
    if let Ok(url) = web_address(text) {
        return url.path() == "/" && url.query().is_none();
    }
    let is_socks = |url: &Url| ["socks4", "socks4a", "socks5", "socks5h"].contains(&url.scheme());
    !text.contains(char::is_whitespace)
        && Url::parse(text).is_ok_and(|url| {
            is_socks(&url)
                && url.host_str().is_some_and(|host| !host.is_empty())
                && matches!(url.path(), "" | "/")
                && url.query().is_none()
        })
}

/// A proxy's address without its user.
fn without_user(url: &str) -> String {
    let Ok(url) = Url::parse(url) else { return REDACTED.to_owned() };
    let user = if url.username().is_empty() && url.password().is_none() { "" } else { "[redacted]@" };
    let mut shown = format!("{}://{user}{}", url.scheme(), url.host_str().unwrap_or_default());
    if let Some(port) = url.port() {
        // Writing to a text cannot fail.
        let _ = write!(shown, ":{port}");
    }
    shown
}
