//! Where the PostgreSQL server is that holds the state, and how it is reached: `[state] url`, read and judged.

use super::conninfo::{self, BadConnInfo};
use super::environment::Env;
use super::problem::{known, nearest};
use super::settings::StateConfig;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Where a PostgreSQL server is and how it is reached. No form of it that can be shown holds the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// The hosts to try, in this order; at least one.
    pub hosts: Vec<ServerHost>,
    /// `None`: the name of the user that this process runs as.
    pub user: Option<String>,
    password: Option<Password>,
    /// `None`: the one that is named as the user.
    pub database: Option<String>,
    /// The certificates that a server must be vouched for by; `None`: the platform's, and `[http] ca_file`.
    pub roots: Option<PathBuf>,
    /// The certificate and the key, PEM, that this client shows.
    pub certificate: Option<(PathBuf, PathBuf)>,
    pub channel_binding: ChannelBinding,
    /// What the server calls the connections by.
    pub application_name: String,
    /// How long one host may take until it can be asked something.
    pub connect_timeout: Duration,
    /// `None`: a connection that died is found out by use alone.
    pub keepalive: Option<Keepalive>,
    /// How long data may be under way without being acknowledged. Zero: as long as the system lets it.
    pub user_timeout: Duration,
    pub session: Session,
    /// Settings for the server's sessions, as its command line takes them: `-c search_path=batchd`.
    pub options: Option<String>,
}

/// One host of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHost {
    pub place: Place,
    pub port: u16,
    pub tls: Tls,
}

/// Where a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its name is to be resolved.
    Name(String),
    /// It is at this address; its certificate must be for `name`.
    Address { name: String, address: IpAddr },
    /// The directory of its Unix socket.
    Socket(PathBuf),
}

/// What a connection is protected by (`sslmode`), from nothing to everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tls {
    Disable,
    /// By TLS if the server has it; nobody is asked who it is.
    Prefer,
    /// By TLS; nobody is asked who the server is.
    Require,
    /// By TLS; an authority of `sslrootcert` vouches for the server's certificate, whatever its name.
    VerifyCa,
    /// By TLS; an authority vouches for the server's certificate, and it is for the host's name.
    VerifyFull,
}

/// Whether a password is bound to the TLS connection that it is proved over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

/// What a server must be able to do (`target_session_attrs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    Any,
    ReadWrite,
    /// Not one that follows another.
    Primary,
}

/// How a connection is kept alive that nothing is sent over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// After so long the first sign of life is asked for.
    pub idle: Duration,
    pub interval: Duration,
    /// So many may be missing.
    pub count: u32,
}

/// Why an address cannot be used. Nothing of its values is repeated, for one of them is a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadServerAddress {
    #[error(transparent)]
    Form(#[from] BadConnInfo),
    #[error("{0}")]
    UnknownOption(String),
    #[error("`{0}` is given twice")]
    Twice(&'static str),
    #[error("`{option}` must be {expected}")]
    Value { option: &'static str, expected: &'static str },
    #[error(
        "it names no host; write `postgres://USER@HOST/DATABASE`, or `?host=/var/run/postgresql` for a socket"
    )]
    NoHost,
    #[error("there are {hosts} hosts and {given} of `{option}`; there must be one for each host{}", if *.option == "port" { ", or one for all" } else { "" })]
    Counts { option: &'static str, hosts: usize, given: usize },
    #[error(
        "`sslmode=verify-ca` needs `sslrootcert`: without it any server with a public certificate would do"
    )]
    NoRoots,
    #[error("`sslcert` and `sslkey` go together; give both")]
    HalfCertificate,
    #[error("`channel_binding=require` needs TLS, which `sslmode` or a socket leaves out")]
    NothingToBindTo,
}

impl FromStr for ServerAddress {
    type Err = BadServerAddress;

    /// Reads a URL (`postgres://…`) or a list (`host=… dbname=…`) as PostgreSQL's own clients do, but for what they take
    /// from the environment and from files in the home directory.
    fn from_str(text: &str) -> Result<Self, BadServerAddress> {
        let mut given = Given::default();
        for (key, value) in conninfo::options(text)? {
            let option = OPTIONS.iter().find(|option| **option == key).ok_or_else(|| unknown(&key))?;
            if given.0.insert(option, value).is_some() {
                return Err(BadServerAddress::Twice(option));
            }
        }
        given.address()
    }
}

impl ServerAddress {
    /// The password, if one is needed.
    pub fn password(&self) -> Option<&SecretString> {
        self.password.as_ref().map(|password| &password.0)
    }

    /// The schema that tables are made in, if `options` name one: the first of `search_path`.
    pub fn schema(&self) -> Option<String> {
        let words = words(self.options.as_deref()?);
        let settings = words.iter().enumerate().filter_map(|(at, word)| {
            let inline = word.strip_prefix("-c").or_else(|| word.strip_prefix("--"))?;
            if inline.is_empty() { words.get(at + 1).map(String::as_str) } else { Some(inline) }
        });
        let mut paths = settings.filter_map(|setting| {
            let (name, value) = setting.split_once('=')?;
            name.trim().eq_ignore_ascii_case("search_path").then_some(value)
        });
        let first = paths.next_back()?.split(',').next()?.trim().trim_matches('"').to_owned();
        (!first.is_empty()).then_some(first)
    }

    /// The hosts to which the connection can be read or taken over on the way.
    pub fn exposed(&self) -> Vec<String> {
        let exposed = self.hosts.iter().filter(|host| !host.place.is_local() && host.tls < Tls::VerifyCa);
        exposed.map(ToString::to_string).collect()
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.hosts.iter().map(ToString::to_string).collect();
        f.write_str(&hosts.join(", "))?;
        self.database.as_ref().map_or(Ok(()), |database| write!(f, ", database {database}"))
    }
}

impl fmt::Display for ServerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Name(name) | Place::Address { name, .. } if name.contains(':') => {
                write!(f, "[{name}]:{}", self.port)
            }
            Place::Name(name) | Place::Address { name, .. } => write!(f, "{name}:{}", self.port),
            Place::Socket(directory) => write!(f, "{}/.s.PGSQL.{}", directory.display(), self.port),
        }
    }
}

impl Place {
    /// Whether nobody can come between.
    fn is_local(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Address { address, .. } => address.is_loopback(),
            Self::Name(name) => {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                name == "localhost" || name.ends_with(".localhost")
            }
        }
    }
}

/// A password, which no form shows.
#[derive(Clone)]
struct Password(SecretString);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Eq for Password {}

/// The options of an address by their names.
#[derive(Default)]
struct Given(BTreeMap<&'static str, String>);

impl Given {
    fn address(mut self) -> Result<ServerAddress, BadServerAddress> {
        let roots = self.path("sslrootcert")?;
        let tls = self.tls(roots.as_ref())?;
        let hosts = self.hosts(tls, roots.is_some())?;
        let channel_binding =
            self.word("channel_binding", &CHANNEL_BINDINGS, "disable, prefer or require")?;
        let protected = hosts.iter().all(|host| host.tls > Tls::Disable);
        if channel_binding == Some(ChannelBinding::Require) && !protected {
            return Err(BadServerAddress::NothingToBindTo);
        }
        let certificate = match (self.path("sslcert")?, self.path("sslkey")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(BadServerAddress::HalfCertificate),
        };
        let timeout = self.whole("connect_timeout", 1..=3600, "a whole number of seconds, 1 to 3600")?;
        let user_timeout =
            self.whole("tcp_user_timeout", 0..=3_600_000, "a whole number of milliseconds, up to 3600000")?;
        let session = self.word(
            "target_session_attrs",
            &SESSIONS,
            "read-write, primary or any: batchd writes, so no server that is read-only will do",
        )?;
        Ok(ServerAddress {
            hosts,
            user: self.text("user"),
            password: self.text("password").map(|text| Password(text.into())),
            database: self.text("dbname"),
            roots: roots.filter(|roots| roots.as_os_str() != SYSTEM_ROOTS),
            certificate,
            channel_binding: channel_binding.unwrap_or(ChannelBinding::Prefer),
            application_name: self.text("application_name").unwrap_or_else(|| "batchd".to_owned()),
            connect_timeout: timeout.map_or(CONNECT_TIMEOUT, Duration::from_secs),
            keepalive: self.keepalive()?,
            user_timeout: user_timeout.map_or(USER_TIMEOUT, Duration::from_millis),
            session: session.unwrap_or(Session::ReadWrite),
            options: self.text("options"),
        })
    }

    /// An option that is there and not empty: an empty one is as one that is not there.
    fn text(&mut self, option: &'static str) -> Option<String> {
        self.0.remove(option).filter(|value| !value.is_empty())
    }

    fn word<T: Copy>(
        &mut self,
        option: &'static str,
        words: &[(&str, T)],
        expected: &'static str,
    ) -> Result<Option<T>, BadServerAddress> {
        let Some(text) = self.text(option) else { return Ok(None) };
        let meant = words.iter().find(|(word, _)| *word == text).map(|(_, meant)| *meant);
        meant.map(Some).ok_or(BadServerAddress::Value { option, expected })
    }

    fn whole(
        &mut self,
        option: &'static str,
        within: std::ops::RangeInclusive<u64>,
        expected: &'static str,
    ) -> Result<Option<u64>, BadServerAddress> {
        let Some(text) = self.text(option) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| within.contains(number));
        number.map(Some).ok_or(BadServerAddress::Value { option, expected })
    }

    fn path(&mut self, option: &'static str) -> Result<Option<PathBuf>, BadServerAddress> {
        let Some(path) = self.text(option).map(PathBuf::from) else { return Ok(None) };
        if path.is_absolute() || (option == "sslrootcert" && path.as_os_str() == SYSTEM_ROOTS) {
            return Ok(Some(path));
        }
        Err(BadServerAddress::Value { option, expected: "an absolute path" })
    }

    /// `None`: what is usual of each host.
    fn tls(&mut self, roots: Option<&PathBuf>) -> Result<Option<Tls>, BadServerAddress> {
        let given = self.word(
            "sslmode",
            &TLS_MODES,
            "disable, prefer, require, verify-ca or verify-full (usual where the host is another machine)",
        )?;
        match given {
            Some(Tls::VerifyCa) if roots.is_none_or(|roots| roots.as_os_str() == SYSTEM_ROOTS) => {
                Err(BadServerAddress::NoRoots)
            }
            // Who names authorities wants them asked; libpq does the same.
            Some(Tls::Require) if roots.is_some() => {
                let system = roots.is_some_and(|roots| roots.as_os_str() == SYSTEM_ROOTS);
                Ok(Some(if system { Tls::VerifyFull } else { Tls::VerifyCa }))
            }
            given => Ok(given),
        }
    }

    /// `asked`: authorities are named, so they are asked wherever nothing else is said.
    fn hosts(&mut self, tls: Option<Tls>, asked: bool) -> Result<Vec<ServerHost>, BadServerAddress> {
        let list = |text: Option<String>| -> Vec<String> {
            text.map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
        };
        let (names, addresses) = (list(self.text("host")), list(self.text("hostaddr")));
        let ports = list(self.text("port"));
        let hosts = names.len().max(addresses.len());
        if hosts == 0 {
            return Err(BadServerAddress::NoHost);
        }
        let counted = |option, given: usize, fits: bool| {
            if fits { Ok(()) } else { Err(BadServerAddress::Counts { option, hosts, given }) }
        };
        counted("host", names.len(), names.is_empty() || names.len() == hosts)?;
        counted("hostaddr", addresses.len(), addresses.is_empty() || addresses.len() == hosts)?;
        counted("port", ports.len(), ports.len() <= 1 || ports.len() == hosts)?;
        let host = |at: usize| {
            let place = place(names.get(at), addresses.get(at))?;
            let port = ports.get(at).or(ports.first()).filter(|port| !port.is_empty());
            let port = match port.map(|port| port.parse::<u16>()) {
                None => USUAL_PORT,
                Some(Ok(port)) if port > 0 => port,
                Some(_) => {
                    return Err(BadServerAddress::Value { option: "port", expected: "a number, 1 to 65535" });
                }
            };
            let tls = match (&place, tls) {
                (Place::Socket(_), _) => Tls::Disable,
                (_, Some(tls)) => tls,
                (place, None) if place.is_local() && !asked => Tls::Prefer,
                (_, None) => Tls::VerifyFull,
            };
            Ok(ServerHost { place, port, tls })
        };
        (0..hosts).map(host).collect()
    }

    fn keepalive(&mut self) -> Result<Option<Keepalive>, BadServerAddress> {
        let wanted = self.word("keepalives", &[("1", true), ("0", false)], "1 or 0")?;
        let seconds = "a whole number of seconds, 1 to 32767";
        let idle = self.whole("keepalives_idle", 1..=32_767, seconds)?;
        let interval = self.whole("keepalives_interval", 1..=32_767, seconds)?;
        let count = self.whole("keepalives_count", 1..=127, "a whole number, 1 to 127")?;
        Ok(wanted.unwrap_or(true).then(|| Keepalive {
            idle: idle.map_or(KEEPALIVE.idle, Duration::from_secs),
            interval: interval.map_or(KEEPALIVE.interval, Duration::from_secs),
            count: count.and_then(|count| u32::try_from(count).ok()).unwrap_or(KEEPALIVE.count),
        }))
    }
}

/// Where a host is by its name and its address, of which one may be missing or empty.
fn place(name: Option<&String>, address: Option<&String>) -> Result<Place, BadServerAddress> {
    let bad = |option, expected| BadServerAddress::Value { option, expected };
    let given =
        |text: Option<&String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let (name, address) = (given(name), given(address));
    if let Some(address) = address {
        let address: IpAddr = address.parse().map_err(|_| bad("hostaddr", "an IP address"))?;
        return Ok(Place::Address { name: name.unwrap_or_else(|| address.to_string()), address });
    }
    let name = name.ok_or(BadServerAddress::NoHost)?;
    if name.starts_with('/') {
        return Ok(Place::Socket(name.into()));
    }
    if let Ok(address) = name.parse() {
        return Ok(Place::Address { name, address });
    }
    let sound = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.chars().all(sound) {
        Ok(Place::Name(name))
    } else {
        Err(bad("host", "a name, an IP address or the directory of a socket"))
    }
}

/// The words of a command line: spaces part them, `\` takes the next character as it is.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, words.last_mut()) {
            ('\\', Some(word)) => word.extend(chars.next()),
            (c, _) if c.is_whitespace() => words.push(String::new()),
            (c, Some(word)) => word.push(c),
            (_, None) => {}
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// That batchd does not know an option, and those that it knows.
fn unknown(key: &str) -> BadServerAddress {
    // Behind a password that is not encoded anything may seem to be an option.
    let is_one = (1..=40).contains(&key.len()) && key.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
    let named =
        if is_one { format!("the option `{key}` is not known") } else { "an option is not known".to_owned() };
    let near = nearest(key, OPTIONS.iter().copied()).filter(|_| is_one);
    let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let all = known(OPTIONS.iter().copied()).unwrap_or_default();
    BadServerAddress::UnknownOption(format!("{named}{near}; there is {all}"))
}

impl StateConfig {
    /// The server that holds the state; `None`: it is in a file.
    ///
    /// # Errors
    ///
    /// The secret cannot be had, or is no address: a sentence without the address.
    pub fn server(&self, env: &Env) -> Result<Option<ServerAddress>, String> {
        let Some(source) = &self.url else { return Ok(None) };
        let url = source.resolve(env).map_err(|problem| format!("state.url: {problem}"))?;
        let address = url.expose_secret().parse();
        address.map(Some).map_err(|problem| format!("state.url: {}", not_one(&source.describe(), &problem)))
    }

    /// What this daemon is called among those that share the state: `name`, else the name of the machine.
    pub fn member_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
            let sound = |c: char| if is_name(c) { c } else { '-' };
            let host: String = host.unwrap_or_default().chars().map(sound).take(LONGEST_NAME).collect();
            if host.is_empty() { "batchd".to_owned() } else { host }
        })
    }
}

/// That what `place` holds is no address.
pub fn not_one(place: &str, problem: &BadServerAddress) -> String {
    format!("{place} does not hold the address of a PostgreSQL server: {problem}")
}

/// Whether a daemon's name may hold `c`.
pub fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// A daemon's name has at most so many characters.
pub const LONGEST_NAME: usize = 63;

/// What batchd understands, as libpq calls it.
const OPTIONS: [&str; 20] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "channel_binding",
    "application_name",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "target_session_attrs",
    "options",
];

const TLS_MODES: [(&str, Tls); 5] = [
    ("disable", Tls::Disable),
    ("prefer", Tls::Prefer),
    ("require", Tls::Require),
    ("verify-ca", Tls::VerifyCa),
    ("verify-full", Tls::VerifyFull),
];

const CHANNEL_BINDINGS: [(&str, ChannelBinding); 3] = [
    ("disable", ChannelBinding::Disable),
    ("prefer", ChannelBinding::Prefer),
    ("require", ChannelBinding::Require),
];

const SESSIONS: [(&str, Session); 3] =
    [("read-write", Session::ReadWrite), ("primary", Session::Primary), ("any", Session::Any)];

/// The value of `sslrootcert` that means the platform's authorities.
const SYSTEM_ROOTS: &str = "system";

const USUAL_PORT: u16 = 5432;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection is known to be dead after 20 s.
const KEEPALIVE: Keepalive =
    Keepalive { idle: Duration::from_secs(5), interval: Duration::from_secs(5), count: 3 };
const USER_TIMEOUT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests;
