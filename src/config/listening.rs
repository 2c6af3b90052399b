//! Where the API is reached, and under which names: the values of `[api]`.

use super::address::web_address;
use super::form::{Form, list, plain, quoted};
use super::problem::quote;
use super::value::{self, Cell};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The path of a Unix socket.
pub const SOCKET: Form<PathBuf> = plain(
    "path",
    |cell| {
        let path = value::path(cell)?;
        let length = path.as_os_str().as_bytes().len();
        if length > MAX_SOCKET_PATH {
            let message = format!(
                "`{}` is {length} bytes long; a socket's path has at most {MAX_SOCKET_PATH}",
                cell.path
            );
            cell.wrong(message, None);
            return None;
        }
        Some(path)
    },
    |path| Some(quoted(&path.to_string_lossy())),
);

/// A TCP address with its port.
pub const LISTEN: Form<SocketAddr> =
    plain("address and port", listen, |address| Some(quoted(&address.to_string())));

/// Names that a `Host` header may carry, in small letters.
pub const HOSTS: Form<Vec<String>> =
    plain("list of host names", hosts, |hosts| Some(list(hosts.iter().map(|host| quoted(host)))));

/// The address of the dashboard as people know it.
pub const PUBLIC_URL: Form<PublicUrl> = plain("address", public_url, |public| Some(quoted(&public.url)));

/// Where people reach the dashboard, whatever stands between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    /// The whole, without a slash at its end.
    pub url: String,
    /// The host without its port, in small letters.
    pub host: String,
    /// What stands before every path: empty, or with a slash at its beginning and none at its end.
    pub path: String,
    /// Whether browsers speak TLS to it.
    pub is_https: bool,
}

fn public_url(cell: &mut Cell<'_, '_>) -> Option<PublicUrl> {
    let text = cell.as_text("an address such as https://ops.example.com/batchd")?;
    let wrong = |cell: &mut Cell<'_, '_>, what: &str| {
        cell.wrong(format!("`{}` must be {what}", cell.path), None);
        None
    };
    let url = match web_address(&text) {
        Ok(url) => url,
        Err(what) => return wrong(cell, what),
    };
    if url.query().is_some() || url.fragment().is_some() {
        return wrong(cell, "an address without `?` and `#`: paths are appended to it");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong(cell, "an address without a user: it is written into messages");
    }
    let path = url.path().trim_end_matches('/').to_owned();
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    if OWN_PATHS.contains(&first) {
        return wrong(cell, "an address whose path does not begin as one of batchd's own does");
    }
    Some(PublicUrl {
        url: format!("{}{path}", url.origin().ascii_serialization()),
        host: url.host_str().unwrap_or_default().to_ascii_lowercase(),
        path,
        is_https: url.scheme() == "https",
    })
}

/// How the paths of the API and of the dashboard begin: as a prefix of all paths they would be ambiguous.
const OWN_PATHS: [&str; 15] = [
    "actions",
    "b",
    "deliveries",
    "durations",
    "healthz",
    "hooks",
    "live",
    "login",
    "logout",
    "metrics",
    "openapi.json",
    "providers",
    "readyz",
    "static",
    "v1",
];

fn listen(cell: &mut Cell<'_, '_>) -> Option<SocketAddr> {
    let text = cell.as_text("text")?;
    // No name is resolved for this one: it is always the same.
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    if let Ok(address) = numeric.as_deref().unwrap_or(&text).parse() {
        return Some(address);
    }
    let port = text.trim_start_matches(':').parse::<u16>().ok();
    let help = port.map_or_else(
        || "write \"127.0.0.1:8765\" or \"[::1]:8765\"".to_owned(),
        |port| format!("did you mean \"127.0.0.1:{port}\"?"),
    );
    cell.wrong(format!("`{}` must be an address with a port, and {} is none", cell.path, quote(&text)), help);
    None
}

fn hosts(cell: &mut Cell<'_, '_>) -> Option<Vec<String>> {
    let hosts = cell.elements("a list of texts", host)?;
    Some(hosts.into_iter().map(toml::Spanned::into_inner).collect())
}

fn host(cell: &mut Cell<'_, '_>) -> Option<String> {
    let name = cell.as_text("a list of texts")?;
    let ipv6 = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let sound = match ipv6 {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    if !sound {
        let message = format!("`{}` holds host names, and {} is none", cell.path, quote(&name));
        let help = "write the bare name, without scheme, port and path: \"batchd.example.com\"";
        cell.wrong(message, help.to_owned());
        return None;
    }
    Some(name.to_ascii_lowercase())
}

/// In bytes: what the system's address structure holds.
const MAX_SOCKET_PATH: usize = 107;
