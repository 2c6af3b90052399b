//! The truth behind a terminal status, from the counts and the files.

use super::batch::Batch;
use super::status::Status;
use serde::{Deserialize, Serialize};

/// How a batch really ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Completed, and nothing is known to have failed.
    Succeeded,
    /// Completed, some requests failed.
    Partial,
    /// Completed, and not one request succeeded.
    AllFailed,
    /// The batch itself could not run.
    Failed,
    /// The window passed, nothing came out.
    Expired,
    /// The window passed, some results are there.
    ExpiredWithOutput,
    /// Cancelled, nothing came out.
    Cancelled,
    /// Cancelled, some results are there.
    CancelledWithOutput,
}

/// How much an event wants a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    #[default]
    Info,
    /// Check when there is time.
    Warning,
    /// Something did not work.
    Error,
}

impl Outcome {
    /// How `batch`, of a provider of this `kind`, ended; `None` while it lives.
    pub fn of(batch: &Batch, kind: &str) -> Option<Self> {
        Some(match batch.status {
            Status::Completed => completed(batch, ERROR_FILE_MEANS_ERRORS.contains(&kind)),
            Status::Failed => Self::Failed,
            Status::Expired if came_out(batch) => Self::ExpiredWithOutput,
            Status::Expired => Self::Expired,
            Status::Cancelled if came_out(batch) => Self::CancelledWithOutput,
            Status::Cancelled => Self::Cancelled,
            Status::Validating | Status::InProgress | Status::Finalizing | Status::Cancelling => {
                return None;
            }
        })
    }

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Partial => "partial",
            Self::AllFailed => "all_failed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::ExpiredWithOutput => "expired_with_output",
            Self::Cancelled => "cancelled",
            Self::CancelledWithOutput => "cancelled_with_output",
        }
    }

    /// How much this outcome wants a person. A cancellation was somebody's wish.
    pub const fn severity(self) -> Severity {
        match self {
            Self::Succeeded | Self::Cancelled | Self::CancelledWithOutput => Severity::Info,
            Self::Partial | Self::ExpiredWithOutput => Severity::Warning,
            Self::AllFailed | Self::Failed | Self::Expired => Severity::Error,
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl Severity {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Severity {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Info, Self::Warning, Self::Error]
            .into_iter()
            .find(|severity| severity.as_str() == word)
            .ok_or(())
    }
}

/// Whether anything succeeded: not if the counts know the fate of every request and none did, whatever file there is
/// (Anthropic's results hold a line for each request that was never run).
fn came_out(batch: &Batch) -> bool {
    let nothing = batch
        .request_counts
        .is_some_and(|counts| counts.completed == 0 && counts.total > 0 && counts.done() >= counts.total);
    !nothing && batch.has_output()
}

/// The kinds that name an error file only where a request failed (`docs/providers/openai.md`). Azure names one always.
const ERROR_FILE_MEANS_ERRORS: [&str; 1] = ["openai"];

/// The counts tell, if there are any, and the error file where it means something; otherwise which of the two files
/// exist.
fn completed(batch: &Batch, error_file_means_errors: bool) -> Outcome {
    let output = batch.output_file_id.is_some();
    let errors = batch.error_file_id.is_some();
    match batch.request_counts.filter(|counts| counts.total > 0 || counts.done() > 0) {
        Some(counts) if counts.completed == 0 && (counts.failed > 0 || !output) => Outcome::AllFailed,
        Some(counts) if counts.failed > 0 => Outcome::Partial,
        // Some were never worked on, because the time ran out.
        Some(counts) if counts.completed > 0 && counts.done() < counts.total => Outcome::Partial,
        Some(_) if errors && error_file_means_errors => Outcome::Partial,
        // Counts that say neither: some servers stop updating them, so a finished file speaks.
        Some(counts) if counts.completed == 0 && errors => Outcome::Partial,
        None if errors && !output => Outcome::AllFailed,
        None if errors => Outcome::Partial,
        Some(_) | None => Outcome::Succeeded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::batch::RequestCounts;

    fn batch(status: Status, counts: Option<(u64, u64, u64)>, output: bool, errors: bool) -> Batch {
        let mut batch = Batch::unseen("batch_1", "/v1/chat/completions", 0);
        batch.status = status;
        batch.request_counts =
            counts.map(|(total, completed, failed)| RequestCounts { total, completed, failed });
        batch.output_file_id = output.then(|| "file-out".to_owned());
        batch.error_file_id = errors.then(|| "file-err".to_owned());
        batch
    }

    #[test]
    fn a_completed_batch_is_judged_by_its_counts_then_by_its_files() {
        let of = |counts, output, errors| {
            Outcome::of(&batch(Status::Completed, counts, output, errors), "azure-openai")
        };
        assert_eq!(of(Some((4, 4, 0)), true, false), Some(Outcome::Succeeded));
        assert_eq!(of(Some((4, 3, 1)), true, true), Some(Outcome::Partial));
        assert_eq!(of(Some((9, 0, 9)), false, true), Some(Outcome::AllFailed));
        // An error file without lines comes with every clean Azure batch.
        assert_eq!(of(Some((4, 4, 0)), true, true), Some(Outcome::Succeeded));
        // Elsewhere it comes only with errors, whatever the counts say.
        let clean = batch(Status::Completed, Some((4, 4, 0)), true, true);
        assert_eq!(Outcome::of(&clean, "openai"), Some(Outcome::Partial));
        // Cut short: 40 records were never worked on.
        assert_eq!(of(Some((100, 60, 0)), true, false), Some(Outcome::Partial));
        assert_eq!(of(Some((9, 0, 0)), false, false), Some(Outcome::AllFailed));
        assert_eq!(of(Some((9, 0, 0)), true, false), Some(Outcome::Succeeded));
        assert_eq!(of(Some((0, 0, 0)), true, false), Some(Outcome::Succeeded));
        assert_eq!(of(None, false, true), Some(Outcome::AllFailed));
        assert_eq!(of(None, true, true), Some(Outcome::Partial));
        assert_eq!(of(None, true, false), Some(Outcome::Succeeded));
    }

    #[test]
    fn partial_output_of_an_expired_or_cancelled_batch_is_told() {
        let of = |status, counts| Outcome::of(&batch(status, counts, false, false), "openai");
        assert_eq!(of(Status::Expired, None), Some(Outcome::Expired));
        assert_eq!(of(Status::Expired, Some((4, 1, 3))), Some(Outcome::ExpiredWithOutput));
        assert_eq!(of(Status::Cancelled, Some((4, 0, 4))), Some(Outcome::Cancelled));
        assert_eq!(of(Status::Cancelled, Some((4, 1, 3))), Some(Outcome::CancelledWithOutput));
        assert_eq!(of(Status::InProgress, Some((4, 4, 0))), None);

        // Anthropic writes a results file even if not one request was run.
        let of = |status, counts| Outcome::of(&batch(status, Some(counts), true, false), "openai");
        assert_eq!(of(Status::Cancelled, (4, 0, 4)), Some(Outcome::Cancelled));
        assert_eq!(of(Status::Expired, (4, 0, 4)), Some(Outcome::Expired));
        assert_eq!(of(Status::Expired, (4, 0, 3)), Some(Outcome::ExpiredWithOutput));
    }
}
