//! Why there is no connection to the server, and what to do about it.

use super::sqlstate::{Meaning, meaning};
use crate::http::scrub::Scrubber;
use std::error::Error;
use std::io::ErrorKind;
use std::time::Duration;

/// Why a server cannot be used. The texts hold no password and nothing that a terminal obeys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "the PostgreSQL server cannot be reached: {0}; check that it runs, the network, and `[state] url`"
    )]
    Unreachable(String),
    /// It starts, stops, or is full of connections; that passes.
    #[error("the PostgreSQL server takes no connection at the moment: {0}")]
    NotReady(String),
    /// Nobody vouches for the server, or it speaks no TLS.
    #[error(
        "the connection to the PostgreSQL server cannot be protected: {0}; name its authority by `sslrootcert` \
         in `[state] url`, or what is enough by `sslmode`"
    )]
    Tls(String),
    #[error("the PostgreSQL server refuses the role or its password: {0}; correct `[state] url` or the role")]
    Credentials(String),
    #[error("the database is not there: {0}; make it (`CREATE DATABASE`), or name another in `[state] url`")]
    NoDatabase(String),
    #[error(
        "the role lacks a right that batchd needs: {0}; grant it, or name the owner of the database in `[state] url`"
    )]
    NoRights(String),
    #[error(
        "the PostgreSQL server takes no writes: {0}; name the primary in `[state] url`, or all hosts of which one is it"
    )]
    ReadOnly(String),
    #[error("the PostgreSQL server has no room: {0}")]
    Full(String),
    #[error("the PostgreSQL server is too old, batchd needs version {OLDEST_SERVER} or newer: {0}")]
    TooOld(String),
    /// A setting of the address, refused by the server or by a pooler before it.
    #[error("the PostgreSQL server refuses a setting of `[state] url`: {0}")]
    Setting(String),
    /// A file that the address names.
    #[error("`[state] url`: {0}")]
    File(String),
    #[error("the PostgreSQL server answers what batchd does not expect: {0}")]
    Unexpected(String),
}

/// Whose affair a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affair {
    /// The server's, the network's or an administrator's: the state cannot be made or written.
    Server,
    /// The role's.
    Credentials,
    /// The configuration's.
    Configuration,
}

/// The oldest major version that batchd works with.
pub const OLDEST_SERVER: u32 = 14;

impl Refusal {
    /// Whose affair it is; exit codes follow from it (`docs/contract.md#exit-codes`).
    pub const fn affair(&self) -> Affair {
        match self {
            Self::Unreachable(_)
            | Self::NotReady(_)
            | Self::Tls(_)
            | Self::NoDatabase(_)
            | Self::NoRights(_)
            | Self::ReadOnly(_)
            | Self::Full(_)
            | Self::Unexpected(_) => Affair::Server,
            Self::Credentials(_) => Affair::Credentials,
            Self::TooOld(_) | Self::Setting(_) | Self::File(_) => Affair::Configuration,
        }
    }

    /// Whether it may pass within seconds without anybody doing anything.
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::NotReady(_))
    }

    /// Whether another host of the same address would say the same.
    pub(super) const fn holds_everywhere(&self) -> bool {
        matches!(
            self,
            Self::Credentials(_)
                | Self::NoDatabase(_)
                | Self::NoRights(_)
                | Self::TooOld(_)
                | Self::Setting(_)
                | Self::File(_)
        )
    }

    /// That nothing came within `limit`.
    pub(super) fn timed_out(host: &str, limit: Duration) -> Self {
        Self::Unreachable(format!("{host}: no answer within {}", crate::domain::duration::human(limit)))
    }

    /// What an error of the client says of `host`.
    pub(super) fn of(host: &str, error: &tokio_postgres::Error, scrubber: &Scrubber) -> Self {
        if let Some(answer) = error.as_db_error() {
            let text = format!("{host}: {}", scrubber.excerpt(answer.message().as_bytes(), LONGEST_TEXT));
            if let Some(refusal) = Self::of_pooler(answer.code().code(), answer.message()) {
                return refusal(text);
            }
            return match meaning(answer.code().code()) {
                Meaning::Lost | Meaning::TimedOut => Self::Unreachable(text),
                Meaning::NotReady | Meaning::NoConnection | Meaning::Again => Self::NotReady(text),
                Meaning::Full | Meaning::Io => Self::Full(text),
                Meaning::ReadOnly => Self::ReadOnly(text),
                Meaning::Credentials => Self::Credentials(text),
                Meaning::NoRights => Self::NoRights(text),
                Meaning::NoDatabase => Self::NoDatabase(text),
                Meaning::BadSetting => Self::Setting(text),
                Meaning::NoTable | Meaning::BadValue | Meaning::Damaged | Meaning::Defect => {
                    Self::Unexpected(text)
                }
            };
        }
        let causes: Vec<&(dyn Error + 'static)> =
            std::iter::successors(error.source(), |cause| (*cause).source()).collect();
        let because = causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(": ");
        let told = |text: &str| format!("{host}: {}", scrubber.excerpt(text.as_bytes(), LONGEST_TEXT));
        if let Some(tls) = causes.iter().find_map(|cause| tls_error(*cause)) {
            return Self::Tls(told(&tls.to_string()));
        }
        if let Some(io) = causes.iter().find_map(|cause| cause.downcast_ref::<std::io::Error>()) {
            return Self::Unreachable(match io.kind() {
                ErrorKind::ConnectionRefused => told("connection refused"),
                ErrorKind::NotFound => told("there is no such socket"),
                ErrorKind::PermissionDenied => told("this user may not open the socket"),
                ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::BrokenPipe
                | ErrorKind::ConnectionAborted => told("the connection was closed before it was set up"),
                _ => told(&because),
            });
        }
        // The client keeps what kind of error it is to itself; only its own words are left to tell by.
        match error.to_string().as_str() {
            "error performing TLS handshake" => Self::Tls(told(&because)),
            "authentication error" => Self::Credentials(told(&because)),
            "invalid configuration" if because == "password missing" => {
                Self::Credentials(told("it asks for a password, and the address has none"))
            }
            "invalid configuration" => Self::Setting(told(&because)),
            "connection closed" => Self::Unreachable(told("the connection was closed")),
            what if because.is_empty() => Self::Unexpected(told(what)),
            what => Self::Unexpected(told(&format!("{what}: {because}"))),
        }
    }

    /// What a pooler says, which has one code for everything.
    fn of_pooler(code: &str, message: &str) -> Option<fn(String) -> Self> {
        if code != "08P01" {
            return None;
        }
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        if says(&["no such database"]) {
            Some(Self::NoDatabase)
        } else if says(&["authentication failed", "password", "no such user", "auth failed"]) {
            Some(Self::Credentials)
        } else if says(&["unsupported startup parameter", "unsupported parameter"]) {
            Some(Self::Setting)
        } else {
            None
        }
    }

    /// What the refusals of several hosts come to: that of the one which was nearest to be of use, with all their words.
    pub(super) fn of_all(mut refusals: Vec<Self>) -> Self {
        let nearness = |refusal: &Self| match refusal {
            Self::Unreachable(_) => 0,
            Self::Unexpected(_) | Self::Tls(_) => 1,
            Self::NotReady(_) => 2,
            Self::Full(_) | Self::ReadOnly(_) => 3,
            _ => 4,
        };
        let words: Vec<String> = refusals.iter_mut().map(|refusal| refusal.words().clone()).collect();
        let nearest = refusals.into_iter().max_by_key(nearness);
        let mut nearest = nearest.unwrap_or_else(|| Self::Unreachable(String::new()));
        *nearest.words() = words.join("; ");
        nearest
    }

    /// What tells it from others of its kind: the host, and what it said.
    fn words(&mut self) -> &mut String {
        match self {
            Self::Unreachable(words)
            | Self::NotReady(words)
            | Self::Tls(words)
            | Self::Credentials(words)
            | Self::NoDatabase(words)
            | Self::NoRights(words)
            | Self::ReadOnly(words)
            | Self::Full(words)
            | Self::Setting(words)
            | Self::File(words)
            | Self::TooOld(words)
            | Self::Unexpected(words) => words,
        }
    }
}

/// The TLS library's own error, which travels inside one of input and output.
fn tls_error<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let inside = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    cause.downcast_ref().or_else(|| inside?.downcast_ref())
}

/// Of a server's words, in bytes.
const LONGEST_TEXT: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_hosts_the_nearest_one_counts() {
        let text = str::to_owned;
        let all = [
            Refusal::Unreachable(text("a: connection refused")),
            Refusal::ReadOnly(text("b: it is a standby")),
            Refusal::Unreachable(text("c: connection refused")),
        ];
        let refusal = Refusal::of_all(all.to_vec());
        let words = "a: connection refused; b: it is a standby; c: connection refused";
        assert_eq!(refusal, Refusal::ReadOnly(text(words)));
        assert_eq!(Refusal::of_all(all[..1].to_vec()), all[0]);
        assert!(matches!(Refusal::of_all(Vec::new()), Refusal::Unreachable(_)));
    }
}
