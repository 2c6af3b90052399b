//! What is answered where a kind of provider cannot do what is asked of it.

use crate::http::failure::Failure;

/// [`Failure::Unsupported`]; `what` completes "this kind of provider".
pub(super) fn unsupported<T>(what: &str) -> Result<T, Failure> {
    Err(Failure::Unsupported(format!("this kind of provider {what}")))
}

/// For a kind that batchd cannot submit to.
pub(super) fn no_submit<T>() -> Result<T, Failure> {
    unsupported("creates no batches through its API, or not in a way that is sure enough to rely on")
}

/// For a kind whose results batchd cannot fetch.
pub(super) fn no_results<T>() -> Result<T, Failure> {
    unsupported(
        "has no results that can be fetched through its API, or not in a way that is sure enough to rely on",
    )
}
