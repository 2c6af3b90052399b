//! Every exit code, and what leads to which (`docs/contract.md#exit-codes`).

use crate::control::api::ErrorCode;
use crate::control::client_error::ClientError;
use crate::store::{Affair, OpenError};

/// How the program ends; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It did not work.
    Failed = 1,
    /// The command line is wrong, or an id is ambiguous.
    Usage = 2,
    /// `wait`, `results`: a batch failed; `wait`: or not one of its requests succeeded.
    BatchFailed = 3,
    /// `wait`: a batch expired; `results`: without any.
    BatchExpired = 4,
    /// `wait`: a batch was cancelled; `results`: without any.
    BatchCancelled = 5,
    /// The state is damaged.
    StateDamaged = 65,
    /// There is no such batch.
    NoSuchBatch = 66,
    /// The daemon is needed and not reachable.
    Unreachable = 69,
    /// A bug in batchd, or state that is newer than this binary.
    Internal = 70,
    /// The state cannot be created or written.
    StateUnwritable = 73,
    /// Another daemon holds the state.
    StateHeld = 75,
    /// Credentials are refused, or this user may not open the socket.
    Refused = 77,
    /// The configuration is wrong.
    Configuration = 78,
    /// `wait` timed out.
    TimedOut = 124,
    /// Interrupted from the keyboard, as shells count it.
    Interrupted = 130,
}

impl Exit {
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl From<ErrorCode> for Exit {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::BatchNotFound => Self::NoSuchBatch,
            ErrorCode::AmbiguousId
            | ErrorCode::UnknownProvider
            | ErrorCode::UnknownWebhook
            | ErrorCode::InvalidRequest => Self::Usage,
            ErrorCode::ProviderRefused | ErrorCode::Unauthorized | ErrorCode::Forbidden => Self::Refused,
            ErrorCode::ConfigRefused => Self::Configuration,
            ErrorCode::StateUnwritable => Self::StateUnwritable,
            ErrorCode::StateDamaged => Self::StateDamaged,
            ErrorCode::Unavailable => Self::Unreachable,
            ErrorCode::Internal => Self::Internal,
            ErrorCode::BatchFailed => Self::BatchFailed,
            ErrorCode::BatchExpired => Self::BatchExpired,
            ErrorCode::BatchCancelled => Self::BatchCancelled,
            ErrorCode::NotFound
            | ErrorCode::FileNotFound
            | ErrorCode::FileMissing
            | ErrorCode::FileInUse
            | ErrorCode::StorageFull
            | ErrorCode::IdempotencyKeyReused
            | ErrorCode::CreationInProgress
            | ErrorCode::InvalidInput
            | ErrorCode::ProviderFailed
            | ErrorCode::ResultsIncomplete
            | ErrorCode::Misdirected
            | ErrorCode::NotSupported
            | ErrorCode::BeyondEnd
            | ErrorCode::NotEnded
            | ErrorCode::QuotaExceeded
            | ErrorCode::NothingToResubmit
            | ErrorCode::AlreadyResubmitted
            | ErrorCode::Busy
            | ErrorCode::AlreadyEnded
            | ErrorCode::DeliveryInFlight
            | ErrorCode::Other => Self::Failed,
        }
    }
}

impl From<&ClientError> for Exit {
    fn from(error: &ClientError) -> Self {
        match error {
            ClientError::Unreachable { .. } | ClientError::Silent(_) | ClientError::Broken(_) => {
                Self::Unreachable
            }
            ClientError::Denied(_) => Self::Refused,
            ClientError::Malformed(_) => Self::Internal,
            ClientError::Unprepared(_) => Self::Failed,
            ClientError::Refused(error) => error.code.unwrap_or(ErrorCode::Other).into(),
        }
    }
}

impl From<&OpenError> for Exit {
    fn from(error: &OpenError) -> Self {
        match error {
            OpenError::Locked { .. } => Self::StateHeld,
            OpenError::Damaged { .. } => Self::StateDamaged,
            OpenError::Newer { .. } | OpenError::NewerServer { .. } => Self::Internal,
            OpenError::Unwritable { .. } => Self::StateUnwritable,
            OpenError::Absent { .. } => Self::Failed,
            OpenError::Server(refusal) => match refusal.affair() {
                Affair::Server => Self::StateUnwritable,
                Affair::Credentials => Self::Refused,
                Affair::Configuration => Self::Configuration,
            },
            OpenError::Foreign { .. } | OpenError::Moved { .. } => Self::Configuration,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_contracts() {
        let codes = [
            (Exit::Ok, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::BatchFailed, 3),
            (Exit::BatchExpired, 4),
            (Exit::BatchCancelled, 5),
            (Exit::StateDamaged, 65),
            (Exit::NoSuchBatch, 66),
            (Exit::Unreachable, 69),
            (Exit::Internal, 70),
            (Exit::StateUnwritable, 73),
            (Exit::StateHeld, 75),
            (Exit::Refused, 77),
            (Exit::Configuration, 78),
            (Exit::TimedOut, 124),
        ];
        for (exit, code) in codes {
            assert_eq!(exit.code(), code);
        }
    }
}
