//! The failure taxonomy: what can go wrong with a request, and what it means for the next one.

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use std::time::Duration;

/// Why a request did not bring what was wanted. The texts hold no URL and no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("the host name does not resolve{0}")]
    Dns(String),
    #[error("connection refused")]
    ConnectRefused,
    #[error("no connection within {}", crate::domain::duration::human(super::limits::CONNECT_TIMEOUT))]
    ConnectTimeout,
    /// The connection could not be made for another reason.
    #[error("cannot connect{0}")]
    Connect(String),
    /// This process has no descriptor left for a connection: not the fault of the other side.
    #[error(
        "batchd itself has too many files and connections open; raise its limit (LimitNOFILE=, ulimit -n)"
    )]
    NoDescriptors,
    /// The handshake failed, or the certificate is not trusted.
    #[error("TLS: {0}")]
    Tls(String),
    #[error("the connection was closed before the answer was complete")]
    Reset,
    #[error("no complete answer within {}", crate::domain::duration::human(*.0))]
    Timeout(Duration),
    /// The address must not be connected to.
    #[error("{0} is an address that is never connected to")]
    Blocked(std::net::IpAddr),
    #[error("the answer is not valid HTTP")]
    BadResponse,
    /// The answer is longer than anything useful.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
    #[error("the request cannot be formed: {0}")]
    BadRequest(String),
    /// An answer that is not a success.
    #[error("{}{}", status_line(*status), message.as_ref().map(|message| format!(": {message}")).unwrap_or_default())]
    Status {
        status: StatusCode,
        /// The server's own words, shortened.
        message: Option<String>,
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
        /// `x-should-retry`, where a server sends it.
        should_retry: Option<bool>,
        /// It is refused because as much waits already as the account may have waiting.
        quota: Option<Quota>,
    },
    /// There is nothing to sign or to ask with, so nothing was asked.
    #[error("{message}")]
    Credentials {
        /// Why, for people.
        message: String,
        /// Whether it stays so until somebody does something.
        refused: bool,
    },
    /// A success whose body is not what it should be.
    #[error("the answer makes no sense: {0}")]
    Malformed(String),
    /// Nothing was asked: so many requests wait already that this one's turn would not come soon.
    #[error("too many requests wait for this provider, whose `requests_per_minute` and `concurrency` hold; try again in {}", crate::domain::duration::human(*.0))]
    Busy(Duration),
    /// Nothing was asked: the service has no such operation.
    #[error("{0}")]
    Unsupported(String),
}

/// How much an account may have waiting at a service at a time, as far as a refusal says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// How much it may have.
    pub limit: Option<u64>,
    /// How much it has.
    pub usage: Option<u64>,
}

/// What a failure means for the schedule; nothing above reads the variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Trouble on the way or over there: again, backing off.
    Again,
    /// The server is overrun: leave all of it alone for this long.
    Hold(Option<Duration>),
    /// The credentials are refused.
    Refused,
    /// There is no such thing there.
    Missing,
}

impl Failure {
    /// What an answer that is not a success says.
    ///
    /// `message`: the server's words, already taken from the body.
    pub fn from_status(status: StatusCode, headers: &HeaderMap, message: Option<String>) -> Self {
        Self::Status {
            status,
            message,
            retry_after: retry_after(headers),
            should_retry: headers.get("x-should-retry").and_then(|value| match value.as_bytes() {
                b"true" => Some(true),
                b"false" => Some(false),
                _ => None,
            }),
            quota: None,
        }
    }

    /// The quota for which it was refused, if it was for one.
    pub const fn quota(&self) -> Option<&Quota> {
        match self {
            Self::Status { quota, .. } => quota.as_ref(),
            _ => None,
        }
    }

    /// What it means for the next request.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Status { status, retry_after, .. } => match status.as_u16() {
                401 | 403 => Verdict::Refused,
                404 | 410 => Verdict::Missing,
                429 => Verdict::Hold(*retry_after),
                // 529 is Anthropic's "overloaded".
                503 | 529 if retry_after.is_some() => Verdict::Hold(*retry_after),
                _ => Verdict::Again,
            },
            Self::Credentials { refused: true, .. } => Verdict::Refused,
            _ => Verdict::Again,
        }
    }

    /// Whether what was asked for may have been done all the same: the request may have arrived whole, and no answer
    /// says that it was refused.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Dns(_)
            | Self::ConnectRefused
            | Self::ConnectTimeout
            | Self::Connect(_)
            | Self::NoDescriptors
            | Self::Busy(_)
            | Self::Tls(_)
            | Self::Blocked(_)
            | Self::BadRequest(_)
            | Self::Credentials { .. }
            | Self::Unsupported(_) => false,
            Self::Reset | Self::Timeout(_) | Self::BadResponse | Self::TooLarge(_) | Self::Malformed(_) => {
                true
            }
            // A refusal for the request's own sake is sure, and so is a redirect, which is not followed; 408 is a
            // gateway's word for a timeout.
            Self::Status { status, .. } => {
                *status == StatusCode::REQUEST_TIMEOUT
                    || !(status.is_client_error() || status.is_redirection())
            }
        }
    }

    /// Every word that [`Failure::class`] gives.
    pub const CLASSES: [&str; 23] = [
        "dns",
        "connect_refused",
        "connect_timeout",
        "connect",
        "no_descriptors",
        "busy",
        "tls",
        "reset",
        "timeout",
        "blocked_ip",
        "bad_response",
        "too_large",
        "bad_request",
        "credentials",
        "malformed",
        "unsupported",
        "unauthorized",
        "not_found",
        "http_410",
        "http_429",
        "http_3xx",
        "http_4xx",
        "http_5xx",
    ];

    /// One word for metrics and the attempt log (`docs/delivery.md#outcomes`).
    pub fn class(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::Connect(_) => "connect",
            Self::NoDescriptors => "no_descriptors",
            Self::Busy(_) => "busy",
            Self::Tls(_) => "tls",
            Self::Reset => "reset",
            Self::Timeout(_) => "timeout",
            Self::Blocked(_) => "blocked_ip",
            Self::BadResponse => "bad_response",
            Self::TooLarge(_) => "too_large",
            Self::BadRequest(_) => "bad_request",
            Self::Credentials { .. } => "credentials",
            Self::Malformed(_) => "malformed",
            Self::Unsupported(_) => "unsupported",
            Self::Status { status, .. } => match status.as_u16() {
                401 | 403 => "unauthorized",
                404 => "not_found",
                410 => "http_410",
                429 => "http_429",
                300..=399 => "http_3xx",
                400..=499 => "http_4xx",
                _ => "http_5xx",
            },
        }
    }
}

/// `404 Not Found`; a code that no standard names stands alone.
pub fn status_line(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_str()),
        None => status.as_str().to_owned(),
    }
}

/// No server is left alone for longer, whatever it says.
pub const MAX_WAIT: Duration = Duration::from_hours(6);

/// How long the server asks to be left alone: `retry-after-ms`, `retry-after` in seconds or as a date.
///
/// A date is measured against the answer's own `Date`, so that a wrong clock on either side does not matter.
/// The past, a negative number and nonsense are no wish. At most six hours are honoured.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = |value: f64| {
        (value > 0.0).then(|| Duration::try_from_secs_f64(value).unwrap_or(MAX_WAIT).min(MAX_WAIT))
    };
    let text =
        |name: &str| headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).map(str::trim);
    if let Some(wait) = text("retry-after-ms").find_map(|value| seconds(value.parse::<f64>().ok()? / 1000.0))
    {
        return Some(wait);
    }
    text("retry-after").find_map(|value| {
        if let Ok(number) = value.parse::<f64>() {
            return seconds(number.ceil());
        }
        let at = http_date(value)?;
        let from = text("date").find_map(http_date)?;
        let wait = Duration::try_from(at.duration_since(from)).ok()?;
        (!wait.is_zero()).then_some(wait.min(MAX_WAIT))
    })
}

/// When the server says that it answered, by its own clock.
pub fn date(headers: &HeaderMap) -> Option<Timestamp> {
    headers.get("date")?.to_str().ok().and_then(http_date)
}

fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_failure_has_one_of_the_classes() {
        let text = String::new;
        let status = |code: u16| Failure::Status {
            status: StatusCode::from_u16(code).unwrap(),
            message: None,
            retry_after: None,
            should_retry: None,
            quota: None,
        };
        let mut failures = vec![
            Failure::Dns(text()),
            Failure::ConnectRefused,
            Failure::ConnectTimeout,
            Failure::Connect(text()),
            Failure::NoDescriptors,
            Failure::Tls(text()),
            Failure::Reset,
            Failure::Timeout(Duration::ZERO),
            Failure::Blocked(std::net::Ipv4Addr::LOCALHOST.into()),
            Failure::BadResponse,
            Failure::TooLarge(1),
            Failure::BadRequest(text()),
            Failure::Credentials { message: text(), refused: true },
            Failure::Malformed(text()),
            Failure::Busy(Duration::ZERO),
            Failure::Unsupported(text()),
        ];
        failures.extend((300..600).map(status));
        let seen: BTreeSet<&str> = failures.iter().map(Failure::class).collect();
        assert_eq!(seen, BTreeSet::from(Failure::CLASSES));
    }
}
