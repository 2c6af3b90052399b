//! Who may come in, and to do what (`docs/contract.md#access`).

use super::api::ErrorCode;
use super::api_error::ApiError;
use super::query::Query;
use super::tokens::{Proof, Tokens};
use crate::config::PublicUrl;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Uri, header};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::{TcpStream, UnixStream};

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
    /// The address, over TCP.
    pub address: Option<IpAddr>,
}

impl Peer {
    /// Whoever has connected over TCP.
    pub(super) fn of_tcp(stream: &TcpStream) -> Self {
        Self { user: None, address: stream.peer_addr().ok().map(|address| address.ip()) }
    }

    /// Whoever has opened the socket.
    pub(super) fn of_socket(stream: &UnixStream) -> Self {
        let user = stream.peer_cred().ok().map(|cred| {
            let uid = nix::unistd::Uid::from_raw(cred.uid());
            match nix::unistd::User::from_uid(uid) {
                Ok(Some(user)) => user.name,
                _ => uid.to_string(),
            }
        });
        Self { user, address: None }
    }
}

/// What a route takes to be answered over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing, under any name: probes, and what is signed instead.
    Anyone,
    /// A name of this server.
    Open,
    /// It shows what is known here.
    Reads,
    /// The same, unless `fetch=true` has it ask a provider.
    ReadsUnlessFetched,
    /// It asks a provider, with the operator's key.
    Costs,
    /// It gives away the state or the configuration as a whole.
    Copies,
    /// It changes something.
    Changes,
    /// A page of the dashboard: it asks for the token itself, and shows a form until it has it.
    Page,
    /// What a form of such a page does; it checks itself who sends the form.
    Act,
}

impl Access {
    /// Whether it does no more than show what is known here.
    fn only_reads(self, request: &Request) -> bool {
        match self {
            Self::Anyone | Self::Open | Self::Reads | Self::Page | Self::Act => true,
            Self::ReadsUnlessFetched => {
                let query = Query::parse(request.uri().query().unwrap_or_default());
                // What cannot be read is refused later; until then it is what costs more.
                !query.flag("fetch").unwrap_or(true)
            }
            Self::Costs | Self::Copies | Self::Changes => false,
        }
    }
}

/// Whether whoever asks is known: by the socket, or by a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Known,
    Unknown,
}

impl AccessPolicy {
    pub(super) fn trust(&self, request: &Request, tokens: &Tokens) -> Trust {
        match self {
            Self::Tcp(_) if tokens.proof(bearer(request.headers())) == Proof::Nothing => Trust::Unknown,
            _ => Trust::Known,
        }
    }

    /// Whether `request` may pass, to a route that takes `access`; `public` is where people reach the dashboard.
    pub(super) fn admit(
        &self,
        request: &Request,
        access: Access,
        tokens: &Tokens,
        public: Option<&PublicUrl>,
    ) -> Result<(), ApiError> {
        one_host(request)?;
        let asks = Asking { request, public };
        let rules = match self {
            Self::Tcp(rules) => rules,
            Self::Socket if matches!(access, Access::Page | Access::Act) => return asks.forwarded(access),
            Self::Socket => return Ok(()),
        };
        let proof = tokens.proof(bearer(request.headers()));
        // Before the token: a page in a browser that was sent here under a foreign name learns nothing.
        if proof == Proof::Nothing && access != Access::Anyone && !asks.names(rules) {
            return Err(misdirected());
        }
        let open = matches!(access, Access::Anyone | Access::Open | Access::Page | Access::Act);
        if !open && !tokens.is_none() && proof == Proof::Nothing {
            return Err(ApiError::new(ErrorCode::Unauthorized, "the bearer token is missing or wrong")
                .hint("send `Authorization: Bearer TOKEN`; the batchd command takes it from BATCHD_TOKEN"));
        }
        if proof != Proof::MayDoEverything && !access.only_reads(request) {
            let who = if proof == Proof::MayRead { "the `read_token`" } else { "TCP without a token" };
            let what = match access {
                Access::Copies => "copies neither the state nor the configuration",
                Access::Costs | Access::ReadsUnlessFetched => "asks no provider",
                _ => "is read-only",
            };
            return Err(ApiError::new(ErrorCode::Forbidden, format!("{who} {what}"))
                .hint("use the socket, or [api] token"));
        }
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if changes && !asks.is_from(|authority| asks.is_public(authority) || rules.is_ours(authority)) {
            return Err(foreign_origin());
        }
        Ok(())
    }
}

/// Refuses a request that names its host twice: whoever passed it on may have judged it by the other name.
fn one_host(request: &Request) -> Result<(), ApiError> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(ApiError::invalid("the request has more than one Host header"));
    }
    let named = request.uri().authority().map(http::uri::Authority::as_str);
    match (first, named) {
        (Some(host), Some(named)) if !host.as_bytes().eq_ignore_ascii_case(named.as_bytes()) => {
            Err(ApiError::invalid("the request's address and its Host header name different hosts"))
        }
        _ => Ok(()),
    }
}

fn misdirected() -> ApiError {
    ApiError::new(ErrorCode::Misdirected, "the Host of this request is not one of this server")
        .hint("name it in [api] hosts, or use the address that is listened on")
}

/// A request, and the name under which people reach the dashboard.
struct Asking<'a> {
    request: &'a Request,
    public: Option<&'a PublicUrl>,
}

impl Asking<'_> {
    fn host(&self) -> Option<String> {
        match self.request.headers().get(header::HOST) {
            Some(host) => host.to_str().ok().map(str::to_owned),
            None => self.request.uri().authority().map(ToString::to_string),
        }
    }

    fn names(&self, rules: &TcpRules) -> bool {
        self.host().is_some_and(|host| self.is_public(&host) || rules.is_ours(&host))
    }

    fn is_public(&self, authority: &str) -> bool {
        self.public.is_some_and(|public| split(authority).0.eq_ignore_ascii_case(&public.host))
    }

    /// Whether the request says that it comes from a page whose host `is_ours`, or does not come from a page at all.
    fn is_from(&self, is_ours: impl Fn(&str) -> bool) -> bool {
        let Some(origin) = self.request.headers().get(header::ORIGIN) else { return true };
        origin
            .to_str()
            .ok()
            .and_then(|origin| origin.parse::<Uri>().ok())
            .and_then(|origin| origin.authority().map(ToString::to_string))
            .is_some_and(|authority| is_ours(&authority))
    }

    /// Whether the dashboard may be shown on the socket. A browser reaches that through something that forwards to
    /// it, and then a page elsewhere can have its own name point here: no such name is answered.
    fn forwarded(&self, access: Access) -> Result<(), ApiError> {
        let host = self.host().unwrap_or_default();
        let name = split(&host).0;
        let nobody_elses =
            !name.contains('.') || name.parse::<std::net::IpAddr>().is_ok() || name.starts_with('[');
        if !nobody_elses && !name.to_ascii_lowercase().ends_with(".localhost") && !self.is_public(&host) {
            return Err(misdirected());
        }
        let own = |authority: &str| authority.eq_ignore_ascii_case(&host) || self.is_public(authority);
        if access == Access::Act && !self.is_from(own) {
            return Err(foreign_origin());
        }
        Ok(())
    }
}

fn foreign_origin() -> ApiError {
    ApiError::new(ErrorCode::Forbidden, "the Origin of this request is another site")
}

/// `HOST` and `PORT` of `HOST:PORT`.
fn split(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (authority, None),
    }
}

impl TcpRules {
    /// Whether `authority` (`HOST` or `HOST:PORT`) is this server.
    fn is_ours(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        let (name, port) = split(&authority);
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
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
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

    fn ask(
        tokens: &Tokens,
        access: Access,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Option<ErrorCode> {
        code(policy(&["batchd.example.com"]).admit(&request(method, path, headers), access, tokens, None))
    }

    const HOST: (&str, &str) = ("host", "localhost:8765");
    const NONE: Tokens = Tokens { all: None, reading: None };

    fn tokens() -> Tokens {
        Tokens { all: Some("t0ken".into()), reading: Some("r3ad".into()) }
    }

    #[test]
    fn the_host_must_be_ours() {
        let ask = |host: &str| ask(&NONE, Access::Reads, "GET", "/v1/batches", &[("host", host)]);
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
        let probe = request("GET", "/healthz", &[("host", "probe.example")]);
        assert_eq!(code(policy(&[]).admit(&probe, Access::Anyone, &NONE, None)), None);
        let nameless = request("GET", "/v1/batches", &[]);
        assert_eq!(
            code(policy(&[]).admit(&nameless, Access::Reads, &NONE, None)),
            Some(ErrorCode::Misdirected)
        );
    }

    #[test]
    fn a_request_names_one_host() {
        for (path, hosts) in [
            ("/v1/batches", &[HOST, HOST][..]),
            ("/v1/batches", &[HOST, ("host", "evil.example")]),
            ("http://evil.example/v1/batches", &[HOST]),
            ("http://localhost/v1/batches", &[HOST]),
        ] {
            for policy in [policy(&[]), AccessPolicy::Socket] {
                let refused =
                    code(policy.admit(&request("GET", path, hosts), Access::Anyone, &tokens(), None));
                assert_eq!(refused, Some(ErrorCode::InvalidRequest), "{path} {hosts:?}");
            }
        }
        assert_eq!(ask(&NONE, Access::Reads, "GET", "http://LOCALHOST:8765/v1/batches", &[HOST]), None);
        assert_eq!(ask(&NONE, Access::Reads, "GET", "http://localhost:8765/v1/batches", &[]), None);
    }

    #[test]
    fn without_a_token_tcp_only_reads_what_is_known_here() {
        let ask = |access, path: &str| ask(&NONE, access, "GET", path, &[HOST]);
        for access in [Access::Anyone, Access::Open, Access::Reads, Access::ReadsUnlessFetched] {
            assert_eq!(ask(access, "/v1/batches/x"), None, "{access:?}");
        }
        for access in [Access::Costs, Access::Copies, Access::Changes] {
            assert_eq!(ask(access, "/v1/batches/x"), Some(ErrorCode::Forbidden), "{access:?}");
        }
        for fetched in [
            "fetch=true",
            "fetch",
            "fetch=1",
            "fetch[]=true",
            "f%65tch=true",
            "fetch=maybe",
            "fetch=0&fetch=1",
        ] {
            let path = format!("/v1/batches/x?{fetched}");
            assert_eq!(ask(Access::ReadsUnlessFetched, &path), Some(ErrorCode::Forbidden), "{path}");
        }
        assert_eq!(ask(Access::ReadsUnlessFetched, "/v1/batches/x?fetch=false"), None);
        let change = request("PUT", "/v1/batches/x", &[]);
        assert_eq!(code(AccessPolicy::Socket.admit(&change, Access::Changes, &NONE, None)), None);
    }

    #[test]
    fn a_token_opens_everything_and_its_lack_nothing_but_the_probes() {
        let tokens = tokens();
        let ask =
            |access, method: &str, headers: &[(&str, &str)]| ask(&tokens, access, method, "/v1/x", headers);
        assert_eq!(ask(Access::Reads, "GET", &[HOST]), Some(ErrorCode::Unauthorized));
        for wrong in ["Bearer wrong", "Bearer ", "Basic t0ken", "t0ken"] {
            let headers = [HOST, ("authorization", wrong)];
            assert_eq!(ask(Access::Reads, "GET", &headers), Some(ErrorCode::Unauthorized), "{wrong}");
        }
        let proven = [("host", "proxy.example"), ("authorization", "bearer t0ken")];
        assert_eq!(ask(Access::Changes, "PUT", &proven), None);
        assert_eq!(ask(Access::Open, "GET", &[HOST]), None);
        // A service's own webhook is signed instead, and comes under whatever name reaches this machine.
        let foreign = ("host", "tunnel.example");
        assert_eq!(ask(Access::Anyone, "POST", &[foreign]), None);
        let foreign = [("authorization", "Bearer t0ken"), HOST, ("origin", "https://evil.example")];
        assert_eq!(ask(Access::Changes, "PUT", &foreign), Some(ErrorCode::Forbidden));
        let own = [("authorization", "Bearer t0ken"), HOST, ("origin", "http://localhost:8765")];
        assert_eq!(ask(Access::Changes, "PUT", &own), None);
    }

    #[test]
    fn the_token_for_reading_opens_what_changes_and_costs_nothing() {
        let only_reading = Tokens { all: None, ..tokens() };
        for tokens in [tokens(), only_reading] {
            let ask = |access, path: &str, token: &str| {
                ask(&tokens, access, "GET", path, &[HOST, ("authorization", token)])
            };
            assert_eq!(ask(Access::Reads, "/v1/batches", "Bearer r3ad"), None);
            assert_eq!(ask(Access::Reads, "/v1/batches", "Bearer r3a"), Some(ErrorCode::Unauthorized));
            for access in [Access::Costs, Access::Copies, Access::Changes] {
                assert_eq!(ask(access, "/v1/x", "Bearer r3ad"), Some(ErrorCode::Forbidden), "{access:?}");
            }
            let fetch = ask(Access::ReadsUnlessFetched, "/v1/batches/x?fetch=true", "Bearer r3ad");
            assert_eq!(fetch, Some(ErrorCode::Forbidden));
        }
    }
}
