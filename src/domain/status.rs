//! The eight status words of an OpenAI batch.

use serde::{Deserialize, Serialize};

/// Where a batch stands, in OpenAI's words, whatever the provider calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The input is being checked, or the batch waits to begin.
    Validating,
    /// Requests are being worked on.
    InProgress,
    /// The requests are done and the results are being written.
    Finalizing,
    /// The batch ran to its end; single requests may have failed.
    Completed,
    /// The batch itself could not run.
    Failed,
    /// The completion window passed first; there may be partial results.
    Expired,
    /// A cancellation was asked for and is under way.
    Cancelling,
    /// The batch was cancelled; there may be partial results.
    Cancelled,
}

impl Status {
    /// Every status, in the order of a batch's life.
    pub const ALL: [Self; 8] = [
        Self::Validating,
        Self::InProgress,
        Self::Finalizing,
        Self::Completed,
        Self::Failed,
        Self::Expired,
        Self::Cancelling,
        Self::Cancelled,
    ];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status that exactly `word` names, if any.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether a batch in this status has ended.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired | Self::Cancelled)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::from_word(word).ok_or_else(|| UnknownStatus(word.to_owned()))
    }
}

/// A word that is none of the eight.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a status; one of validating, in_progress, finalizing, completed, failed, expired, cancelling, cancelled"
)]
pub struct UnknownStatus(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_round_trips() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            let json = serde_json::to_value(status).unwrap();
            assert_eq!(json, status.as_str());
        }
        assert!("Completed".parse::<Status>().is_err());
    }
}
