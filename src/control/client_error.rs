//! Why the API's client got no answer, or a refusal.

use super::address::Address;
use super::api::{ErrorBody, ErrorCode, ErrorObject};
use std::path::PathBuf;

/// Why a request brought no answer that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    #[error("no daemon answers at {address}: {reason}")]
    Unreachable { address: Address, reason: String },
    /// The socket may not be opened by this user.
    #[error("the socket {} may not be opened by this user", .0.display())]
    Denied(PathBuf),
    #[error("the daemon at {0} does not answer in time")]
    Silent(Address),
    /// The connection broke within an answer.
    #[error("the connection to the daemon was lost: {0}")]
    Broken(String),
    /// What came is not what this version of batchd understands.
    #[error("the daemon's answer cannot be understood: {0}")]
    Malformed(String),
    /// The client could not be made.
    #[error("the connection cannot be prepared: {0}")]
    Unprepared(String),
    #[error("{}", .0.message)]
    Refused(Box<ErrorObject>),
}

impl ClientError {
    /// Whether the daemon is away, or on its way out or in: what somebody who waits for it sits out.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent(_) | Self::Broken(_) => true,
            Self::Refused(error) => error.code == Some(ErrorCode::Unavailable),
            Self::Denied(_) | Self::Malformed(_) | Self::Unprepared(_) => false,
        }
    }

    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => error.code,
            _ => None,
        }
    }
}

/// The error that an answer holds, or what its status line means if it holds none.
pub(super) fn refusal(status: http::StatusCode, body: &[u8]) -> ErrorObject {
    if let Ok(body) = serde_json::from_slice::<ErrorBody>(body) {
        let mut error = body.error;
        error.code = error.code.or(Some(code_of(status)));
        return error;
    }
    ErrorObject {
        message: format!("the daemon answered {status}"),
        kind: "api_error".to_owned(),
        param: None,
        code: Some(code_of(status)),
        hints: Vec::new(),
        errors: Vec::new(),
    }
}

fn code_of(status: http::StatusCode) -> ErrorCode {
    match status.as_u16() {
        400 => ErrorCode::InvalidRequest,
        401 => ErrorCode::Unauthorized,
        403 => ErrorCode::Forbidden,
        404 => ErrorCode::NotFound,
        421 => ErrorCode::Misdirected,
        500 => ErrorCode::Internal,
        501 => ErrorCode::NotSupported,
        503 => ErrorCode::Unavailable,
        _ => ErrorCode::Other,
    }
}

pub(super) fn io_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

/// The innermost reason: reqwest's own text would repeat the URL.
pub(super) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    match io_error(error) {
        Some(io) => plain(io),
        None => std::iter::successors(Some(error), |error| error.source())
            .last()
            .map_or_else(String::new, ToString::to_string),
    }
}

/// An operating system's reason in a few words.
pub(super) fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such socket".to_owned(),
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::WouldBlock => "too many clients are waiting".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_an_error_object_is_judged_by_its_status() {
        let error = refusal(http::StatusCode::UNAUTHORIZED, b"<html>");
        assert_eq!(error.code, Some(ErrorCode::Unauthorized));
        assert_eq!(error.message, "the daemon answered 401 Unauthorized");
        let body = br#"{"error":{"message":"m","type":"t","param":null,"code":"of_a_later_version"}}"#;
        let error = refusal(http::StatusCode::CONFLICT, body);
        assert_eq!((error.code, error.message.as_str()), (Some(ErrorCode::Other), "m"));
    }
}
