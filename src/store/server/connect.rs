//! Connecting to the server that an address names: its hosts in order, each judged before it is used.

use super::refusal::{OLDEST_SERVER, Refusal};
use super::trust;
use crate::config::{ChannelBinding, Place, ServerAddress, ServerHost, Session, Tls};
use crate::http::scrub::Scrubber;
use crate::sync::lock;
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding as ClientBinding, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What moves the bytes of a [`Client`]: nothing comes back from the client unless this is polled, and it ends with it.
pub type Wire = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// A connection that can be used.
pub struct Connected {
    pub client: Client,
    pub wire: Wire,
    /// Which host it is, for people.
    pub host: String,
    /// The server's version, as it says: `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// Whether it takes no writes at the moment; never where the address asks for a server that does.
    pub read_only: bool,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected")
            .field("host", &self.host)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Makes connections by an address.
pub struct Connector {
    address: ServerAddress,
    /// Authorities to trust besides the platform's: `[http] ca_file`.
    ca_file: Option<PathBuf>,
    scrubber: Scrubber,
    /// By how a host is protected; made when first needed, and again after a server was not trusted.
    tls: Mutex<BTreeMap<Tls, MakeRustlsConnect>>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Connector {
    pub fn new(address: ServerAddress, ca_file: Option<PathBuf>) -> Self {
        let scrubber = Scrubber::new(address.password());
        Self { address, ca_file, scrubber, tls: Mutex::default() }
    }

    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// Tries the hosts in order until one can be used; each may take `connect_timeout`, for each of its addresses.
    ///
    /// # Errors
    ///
    /// Of several reasons that of the host which was nearest to be of use. A refused password and the like would be the
    /// same everywhere, so no other host is tried after it.
    pub async fn connect(&self) -> Result<Connected, Refusal> {
        let mut refusals = Vec::new();
        for host in &self.address.hosts {
            match self.host(host).await {
                Ok(connected) => return Ok(connected),
                Err(refusal) => refusals.push(refusal),
            }
            if refusals.last().is_some_and(Refusal::holds_everywhere) {
                break;
            }
        }
        Err(Refusal::of_all(refusals))
    }

    async fn host(&self, host: &ServerHost) -> Result<Connected, Refusal> {
        let mut refusals = Vec::new();
        for at in self.resolved(host).await? {
            let attempt = timeout(self.address.connect_timeout, self.attempt(host, at)).await;
            let refusal = match attempt {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(refusal)) => refusal,
                Err(_) => Refusal::timed_out(&host.to_string(), self.address.connect_timeout),
            };
            // Somebody is there, and another address of the same name is most likely the same server.
            if !matches!(refusal, Refusal::Unreachable(_)) {
                return Err(refusal);
            }
            if !refusals.contains(&refusal) {
                refusals.push(refusal);
            }
        }
        Err(Refusal::of_all(refusals))
    }

    /// The addresses of a host; that of a socket is none.
    async fn resolved(&self, host: &ServerHost) -> Result<Vec<Option<IpAddr>>, Refusal> {
        let name = match &host.place {
            Place::Socket(_) => return Ok(vec![None]),
            Place::Address { address, .. } => return Ok(vec![Some(*address)]),
            Place::Name(name) => name,
        };
        let unknown = || Refusal::Unreachable(format!("{host}: the host name does not resolve"));
        let limit = self.address.connect_timeout;
        let found = timeout(limit, tokio::net::lookup_host((name.as_str(), host.port))).await;
        let found =
            found.map_err(|_| Refusal::timed_out(&host.to_string(), limit))?.map_err(|_| unknown())?;
        let addresses: Vec<Option<IpAddr>> = found.map(|address| Some(address.ip())).collect();
        if addresses.is_empty() { Err(unknown()) } else { Ok(addresses) }
    }

    async fn attempt(&self, host: &ServerHost, at: Option<IpAddr>) -> Result<Connected, Refusal> {
        let shown = host.to_string();
        let refused = |error: &tokio_postgres::Error| Refusal::of(&shown, error, &self.scrubber);
        let connecting = self.client(host, at).connect(self.tls(host.tls)?).await;
        let (client, mut wire) = match connecting {
            Ok(connected) => connected,
            Err(error) => {
                let refusal = refused(&error);
                if matches!(refusal, Refusal::Tls(_)) {
                    // Certificates may have been renewed since they were read.
                    lock(&self.tls).clear();
                }
                return Err(refusal);
            }
        };
        let version = wire.parameter("server_version").unwrap_or_default().to_owned();
        if major(&version).is_none_or(|major| major < OLDEST_SERVER) {
            let version = self.scrubber.excerpt(version.as_bytes(), LONGEST_VERSION);
            return Err(Refusal::TooOld(format!("{shown} is {version}")));
        }
        let (read_only, follows) =
            driven(&mut wire, state(&client)).await.map_err(|error| refused(&error))?;
        let session = self.address.session;
        if follows && session != Session::Any {
            return Err(Refusal::ReadOnly(format!("{shown} is a standby")));
        }
        if read_only && session == Session::ReadWrite {
            return Err(Refusal::ReadOnly(format!("{shown} is set to read-only")));
        }
        Ok(Connected { client, wire, host: shown, version, read_only })
    }

    /// What the client is told of one host.
    fn client(&self, host: &ServerHost, at: Option<IpAddr>) -> Config {
        let address = &self.address;
        let mut config = Config::new();
        match &host.place {
            Place::Socket(directory) => config.host_path(directory),
            Place::Name(name) | Place::Address { name, .. } => config.host(name.as_str()),
        };
        if let Some(at) = at {
            config.hostaddr(at);
        }
        config.port(host.port).application_name(address.application_name.as_str());
        config.user(address.user.clone().unwrap_or_else(own_name));
        if let Some(password) = address.password() {
            config.password(password.expose_secret());
        }
        if let Some(database) = &address.database {
            config.dbname(database.as_str());
        }
        if let Some(options) = &address.options {
            config.options(options.as_str());
        }
        config.ssl_mode(match host.tls {
            Tls::Disable => SslMode::Disable,
            Tls::Prefer => SslMode::Prefer,
            Tls::Require | Tls::VerifyCa | Tls::VerifyFull => SslMode::Require,
        });
        config.channel_binding(match address.channel_binding {
            ChannelBinding::Disable => ClientBinding::Disable,
            ChannelBinding::Prefer => ClientBinding::Prefer,
            ChannelBinding::Require => ClientBinding::Require,
        });
        config.keepalives(address.keepalive.is_some());
        if let Some(keepalive) = address.keepalive {
            config.keepalives_idle(keepalive.idle);
            config.keepalives_interval(keepalive.interval).keepalives_retries(keepalive.count);
        }
        if address.user_timeout > Duration::ZERO {
            config.tcp_user_timeout(address.user_timeout);
        }
        config
    }

    fn tls(&self, tls: Tls) -> Result<MakeRustlsConnect, Refusal> {
        let mut made = lock(&self.tls);
        if let Some(made) = made.get(&tls) {
            return Ok(made.clone());
        }
        let new = MakeRustlsConnect::new(trust::client_config(&self.address, tls, self.ca_file.as_deref())?);
        made.insert(tls, new.clone());
        Ok(new)
    }
}

/// The result of `work` on the client of `wire`, which moves its bytes meanwhile; what the server sends unasked is dropped.
pub async fn driven<T>(
    wire: &mut Wire,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, tokio_postgres::Error> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            message = poll_fn(|context| wire.poll_message(context)) => match message {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                // The work learns of it by itself.
                None => return work.await,
            },
        }
    }
}

/// Whether a server takes no writes, and whether that is because it follows another one.
async fn state(client: &Client) -> Result<(bool, bool), tokio_postgres::Error> {
    let question = "SELECT current_setting('transaction_read_only'), pg_catalog.pg_is_in_recovery()";
    let answer = client.simple_query(question).await?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((row.get(0) == Some("on"), row.get(1) == Some("t"))),
        _ => None,
    });
    Ok(row.unwrap_or_default())
}

/// The major version in `15.18 (Debian …)`.
fn major(version: &str) -> Option<u32> {
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

/// The name of the user that this process runs as, as libpq takes it.
fn own_name() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    user.ok().flatten().map_or_else(|| "batchd".to_owned(), |user| user.name)
}

/// Of what a server says that its version is, in bytes.
const LONGEST_VERSION: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_write_them() {
        for (version, number) in [
            ("15.18 (Debian 15.18-0+deb12u1)", Some(15)),
            ("14.0", Some(14)),
            ("18beta1", Some(18)),
            ("9.6.24", Some(9)),
            ("", None),
            ("1.24.1/bouncer", Some(1)),
            ("CockroachDB", None),
        ] {
            assert_eq!(major(version), number, "{version}");
        }
    }
}
