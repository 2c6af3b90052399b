//! Who may come in, and to do what (`docs/contract.md#access`).

use super::api::ErrorCode;
use super::api_error::ApiError;
use axum::extract::Request;
use axum::http::{Method, Uri, header};
use secrecy::{ExposeSecret, SecretString};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::UnixStream;

#[derive(Clone, Debug)]
pub(super) enum AccessPolicy {
    /// The Unix socket: whoever may open it may do everything.
    Socket,
    /// TCP: by these rules.
    Tcp(Arc<TcpRules>),
}

/// What TCP asks of a request.
#[derive(Clone, Debug)]
pub struct TcpRules {
    /// The address that is listened on.
    pub listen: SocketAddr,
    /// Further names that `Host` may carry.
    pub hosts: Vec<String>,
}

/// Who is at the other end of the socket.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The user's name (or number, where the system has no name for it).
    pub user: Option<String>,
}

impl Peer {
    /// Whoever has opened the socket.
    pub(super) fn of_socket(stream: &UnixStream) -> Self {
        let user = stream.peer_cred().ok().map(|cred| {
            let uid = nix::unistd::Uid::from_raw(cred.uid());
            match nix::unistd::User::from_uid(uid) {
                Ok(Some(user)) => user.name,
                _ => uid.to_string(),
            }
        });
        Self { user }
    }
}

impl AccessPolicy {
    /// Whether `request` may pass; `token` is the bearer token in force, if one is configured.
    pub(super) fn admit(&self, request: &Request, token: Option<&SecretString>) -> Result<(), ApiError> {
        let Self::Tcp(rules) = self else { return Ok(()) };
        let path = request.uri().path();
        let alive = matches!(path, "/healthz" | "/readyz") || path.starts_with("/hooks/");
        let given = bearer(request);
        let proven = match (token, given) {
            (Some(token), Some(given)) => same(token.expose_secret().as_bytes(), given.as_bytes()),
            _ => false,
        };
        // Before the token: a page in a browser that was sent here under a foreign name learns nothing.
        if !proven && !alive && !rules.names_us(request) {
            return Err(ApiError::new(
                ErrorCode::Misdirected,
                "the Host of this request is not one of this server",
            )
            .hint("name it in [api] hosts, or use the address that is listened on"));
        }
        if token.is_some() && !proven && !alive && path != "/metrics" {
            return Err(ApiError::new(ErrorCode::Unauthorized, "the bearer token is missing or wrong")
                .hint("send `Authorization: Bearer TOKEN`; the batchd command takes it from BATCHD_TOKEN"));
        }
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if token.is_none() && path == "/v1/config" {
            return Err(ApiError::new(
                ErrorCode::Forbidden,
                "without a token, TCP does not show the configuration",
            )
            .hint("use the socket, or set [api] token"));
        }
        if changes && token.is_none() && !path.starts_with("/hooks/") {
            return Err(ApiError::new(ErrorCode::Forbidden, "without a token, TCP is read-only")
                .hint("use the socket, or set [api] token"));
        }
        if changes && !rules.is_own_origin(request) {
            return Err(ApiError::new(ErrorCode::Forbidden, "the Origin of this request is another site"));
        }
        Ok(())
    }
}

impl TcpRules {
    fn names_us(&self, request: &Request) -> bool {
        let host = match request.headers().get(header::HOST) {
            Some(host) => host.to_str().ok().map(str::to_owned),
            None => request.uri().authority().map(ToString::to_string),
        };
        host.is_some_and(|host| self.is_ours(&host))
    }

    /// Whether `authority` (`HOST` or `HOST:PORT`) is this server.
    fn is_ours(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        let (name, port) = match authority.rsplit_once(':') {
            // A colon inside brackets belongs to an IPv6 address.
            Some((name, port)) if !port.contains(']') => (name, Some(port)),
            _ => (authority.as_str(), None),
        };
        if self
            .hosts
            .iter()
            .any(|host| host.eq_ignore_ascii_case(&authority) || host.eq_ignore_ascii_case(name))
        {
            return true;
        }
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let ip = self.listen.ip();
        let address = bare.parse().is_ok_and(|named: std::net::IpAddr| {
            named == ip
                || (ip.is_unspecified() && named.is_loopback())
                || (ip.is_loopback() && named.is_loopback())
        });
        let port_fits = port.is_none_or(|port| port.parse() == Ok(self.listen.port()));
        (address || bare == "localhost") && port_fits
    }

    /// Whether the request says that it comes from a page of this server, or does not come from a page at all.
    fn is_own_origin(&self, request: &Request) -> bool {
        let Some(origin) = request.headers().get(header::ORIGIN) else { return true };
        origin
            .to_str()
            .ok()
            .and_then(|origin| origin.parse::<Uri>().ok())
            .and_then(|origin| origin.authority().map(ToString::to_string))
            .is_some_and(|authority| self.is_ours(&authority))
    }
}

fn bearer(request: &Request) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares in a time that tells nothing of where the two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    use sha2::{Digest, Sha256};
    let (a, b) = (Sha256::digest(a), Sha256::digest(b));
    a.iter().zip(b.iter()).fold(0_u8, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn policy(hosts: &[&str]) -> AccessPolicy {
        AccessPolicy::Tcp(Arc::new(TcpRules {
            listen: "127.0.0.1:8765".parse().unwrap(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        }))
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request {
        let mut builder = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(Body::empty()).unwrap()
    }

    fn code(result: Result<(), ApiError>) -> Option<ErrorCode> {
        result.err().map(|refusal| refusal.code)
    }

    #[test]
    fn the_host_must_be_ours() {
        let ask = |host: &str| {
            code(
                policy(&["batchd.example.com"])
                    .admit(&request("GET", "/v1/batches", &[("host", host)]), None),
            )
        };
        for ours in [
            "127.0.0.1:8765",
            "localhost:8765",
            "LOCALHOST:8765",
            "batchd.example.com",
            "batchd.example.com:443",
            "[::1]:8765",
            "127.0.0.1",
        ] {
            assert_eq!(ask(ours), None, "{ours}");
        }
        for foreign in ["evil.example", "127.0.0.1:80", "localhost.evil.example:8765", "10.0.0.1:8765", ""] {
            assert_eq!(ask(foreign), Some(ErrorCode::Misdirected), "{foreign}");
        }
        assert_eq!(
            code(policy(&[]).admit(&request("GET", "/healthz", &[("host", "probe.example")]), None)),
            None
        );
        assert_eq!(
            code(policy(&[]).admit(&request("GET", "/v1/batches", &[]), None)),
            Some(ErrorCode::Misdirected)
        );
    }

    #[test]
    fn without_a_token_tcp_only_reads() {
        let host = ("host", "localhost:8765");
        assert_eq!(
            code(policy(&[]).admit(&request("PUT", "/v1/batches/x", &[host]), None)),
            Some(ErrorCode::Forbidden)
        );
        assert_eq!(code(policy(&[]).admit(&request("GET", "/v1/batches/x", &[host]), None)), None);
        assert_eq!(code(AccessPolicy::Socket.admit(&request("PUT", "/v1/batches/x", &[]), None)), None);
    }

    #[test]
    fn a_token_opens_everything_and_its_lack_nothing_but_the_probes() {
        let token = SecretString::from("t0ken");
        let host = ("host", "localhost:8765");
        let ask = |method: &str, path: &str, headers: &[(&str, &str)]| {
            code(policy(&[]).admit(&request(method, path, headers), Some(&token)))
        };
        assert_eq!(ask("GET", "/v1/batches", &[host]), Some(ErrorCode::Unauthorized));
        assert_eq!(
            ask("GET", "/v1/batches", &[host, ("authorization", "Bearer wrong")]),
            Some(ErrorCode::Unauthorized)
        );
        assert_eq!(
            ask("PUT", "/v1/batches/x", &[("host", "proxy.example"), ("authorization", "bearer t0ken")]),
            None
        );
        for open in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(ask("GET", open, &[host]), None, "{open}");
        }
        // A service's own webhook is signed instead, and comes under whatever name reaches this machine.
        let foreign = ("host", "tunnel.example");
        assert_eq!(ask("POST", "/hooks/openai", &[foreign]), None);
        assert_eq!(code(policy(&[]).admit(&request("POST", "/hooks/openai", &[foreign]), None)), None);
        let foreign = [("authorization", "Bearer t0ken"), host, ("origin", "https://evil.example")];
        assert_eq!(ask("PUT", "/v1/batches/x", &foreign), Some(ErrorCode::Forbidden));
        let own = [("authorization", "Bearer t0ken"), host, ("origin", "http://localhost:8765")];
        assert_eq!(ask("PUT", "/v1/batches/x", &own), None);
    }
}
