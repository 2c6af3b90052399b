//! Why an operation was not done, as every client is told.

use super::api::{ErrorBody, ErrorCode, ErrorObject, InputFault};
use crate::engine::ProviderError;
use crate::http::failure::{Failure, Verdict};
use crate::store::StoreError;
use http::StatusCode;
use std::time::Duration;

/// An operation that was not done: what is wrong, for programs and for people, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// The parameter at fault.
    pub param: Option<String>,
    pub hints: Vec<String>,
    /// What is wrong with a file of requests.
    pub faults: Vec<InputFault>,
    /// When to ask again, where that is known.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            param: None,
            hints: Vec::new(),
            faults: Vec::new(),
            retry_after: None,
        }
    }

    /// The request is not what it should be.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    /// It cannot be done now, but in so long.
    pub fn busy(message: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(ErrorCode::Busy, message) }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    #[must_use]
    pub fn param(mut self, name: impl Into<String>) -> Self {
        self.param = Some(name.into());
        self
    }

    /// Whether the client may ask the same again in the hope of another answer; `None`: its own judgement of the status
    /// is right.
    pub(super) fn should_retry(&self) -> Option<bool> {
        match self.code {
            ErrorCode::CreationInProgress => Some(true),
            ErrorCode::IdempotencyKeyReused
            | ErrorCode::FileInUse
            | ErrorCode::StorageFull
            | ErrorCode::QuotaExceeded => Some(false),
            _ => None,
        }
    }

    /// A check of `id` that failed.
    pub fn from_provider(error: ProviderError, id: &str) -> Self {
        match error {
            ProviderError::NoProvider(name) => {
                Self::new(ErrorCode::UnknownProvider, format!("no provider `{name}` is configured"))
                    .param("provider")
                    .hint("`batchd providers` lists what is configured")
            }
            ProviderError::Store(error) => error.into(),
            retired @ ProviderError::Retired(_) => Self::new(ErrorCode::ProviderFailed, retired.to_string()),
            ProviderError::Provider { provider, failure } => Self::from_failure(&provider, &failure, id),
            ProviderError::BatchRefused { provider, failure } => Self::new(
                ErrorCode::BatchNotFound,
                format!(
                    "provider `{provider}` refuses the batch `{id}`, though it accepts the key: {failure}"
                ),
            )
            .hint("the batch may have been deleted, or belong to another project or account"),
        }
    }

    /// The results of `id`, or a file of them, that could not be fetched from `provider`.
    pub(super) fn from_results(provider: &str, failure: &Failure, id: &str) -> Self {
        match failure.verdict() {
            Verdict::Missing => Self::new(
                ErrorCode::NotFound,
                format!("provider `{provider}` has no results of `{id}` (any more): {failure}"),
            )
            .hint("most providers keep results for about a month; `[results] download = true` saves them when a batch ends"),
            Verdict::Again | Verdict::Hold(_)
                if !matches!(failure, Failure::Unsupported(_) | Failure::Busy(_)) => Self::new(
                ErrorCode::ProviderFailed,
                format!("the results of `{id}` cannot be fetched from provider `{provider}`: {failure}"),
            )
            .hint("try again at any time"),
            _ => Self::from_failure(provider, failure, id),
        }
    }

    /// Something asked of `provider` about `id` that failed.
    pub(super) fn from_failure(provider: &str, failure: &Failure, id: &str) -> Self {
        if let Failure::Busy(wait) = failure {
            return Self::busy(format!("provider `{provider}`: {failure}"), *wait);
        }
        if let Failure::Unsupported(what) = failure {
            return Self::new(ErrorCode::NotSupported, format!("provider `{provider}`: {what}"));
        }
        match failure.verdict() {
            Verdict::Missing => Self::new(
                ErrorCode::BatchNotFound,
                format!("provider `{provider}` knows no batch `{id}`"),
            )
            .hint("check that the id is complete, and that the key belongs to the account or project that created the batch"),
            Verdict::Refused => Self::new(
                ErrorCode::ProviderRefused,
                format!("provider `{provider}` refuses the key: {failure}"),
            )
            .hint(format!("check the key of `{provider}`, then `batchd reload`; `batchd providers check {provider}` tries it")),
            Verdict::Again | Verdict::Hold(_) => Self::new(
                ErrorCode::ProviderFailed,
                format!("provider `{provider}` could not be asked about `{id}`: {failure}"),
            ),
        }
    }

    pub fn status(&self) -> StatusCode {
        match self.code {
            ErrorCode::BatchNotFound | ErrorCode::NotFound | ErrorCode::FileNotFound => StatusCode::NOT_FOUND,
            ErrorCode::FileMissing => StatusCode::GONE,
            ErrorCode::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::AmbiguousId
            | ErrorCode::BeyondEnd
            | ErrorCode::NotEnded
            | ErrorCode::NothingToResubmit
            | ErrorCode::AlreadyResubmitted
            | ErrorCode::AlreadyEnded
            | ErrorCode::FileInUse
            | ErrorCode::IdempotencyKeyReused
            | ErrorCode::CreationInProgress
            | ErrorCode::DeliveryInFlight
            | ErrorCode::BatchFailed
            | ErrorCode::BatchExpired
            | ErrorCode::BatchCancelled => StatusCode::CONFLICT,
            ErrorCode::UnknownProvider
            | ErrorCode::UnknownWebhook
            | ErrorCode::InvalidRequest
            | ErrorCode::InvalidInput => StatusCode::BAD_REQUEST,
            ErrorCode::ProviderRefused | ErrorCode::ProviderFailed | ErrorCode::ResultsIncomplete => {
                StatusCode::BAD_GATEWAY
            }
            ErrorCode::ConfigRefused => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            ErrorCode::NotSupported => StatusCode::NOT_IMPLEMENTED,
            ErrorCode::Busy | ErrorCode::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::StateUnwritable | ErrorCode::StateDamaged | ErrorCode::Unavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ErrorCode::Internal | ErrorCode::Other => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// As it goes over the API.
    pub fn into_object(self) -> ErrorObject {
        let kind = match self.status().as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            409 => "conflict_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            502 | 504 => "provider_error",
            _ => "server_error",
        };
        ErrorObject {
            message: self.message,
            kind: kind.to_owned(),
            param: self.param,
            code: Some(self.code),
            hints: self.hints,
            errors: self.faults,
        }
    }

    /// As the body of an answer.
    pub fn into_body(self) -> ErrorBody {
        ErrorBody { error: self.into_object() }
    }
}

/// When a client is to ask again while the server with the state does not answer.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(5);

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let code = match error {
            StoreError::Full | StoreError::Busy | StoreError::ReadOnly | StoreError::Io(_) => {
                ErrorCode::StateUnwritable
            }
            StoreError::Damaged(_) => ErrorCode::StateDamaged,
            StoreError::Closed
            | StoreError::Unreachable(_)
            | StoreError::GivenUp
            | StoreError::Outdated { .. } => ErrorCode::Unavailable,
            StoreError::Internal(_) => ErrorCode::Internal,
        };
        let mut refusal = Self::new(code, error.to_string());
        if matches!(error, StoreError::Unreachable(_) | StoreError::GivenUp) {
            refusal.retry_after = Some(TRIED_AGAIN_AFTER);
        }
        match error {
            StoreError::Full => {
                refusal.hint("make space on the file system of the state directory, then try again")
            }
            StoreError::Busy => refusal.hint("another program has the database open for writing; close it"),
            StoreError::Closed => refusal.hint("the daemon is stopping; try again once it runs"),
            _ => refusal,
        }
    }
}
