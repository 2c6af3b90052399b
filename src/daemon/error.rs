//! Why the daemon did not start, or stopped by itself.

use super::sockets::BindError;
use crate::config::Refused;
use crate::store::{OpenError, StoreError};

/// Why the daemon did not start, or stopped unasked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the configuration is refused")]
    Config(Refused),
    /// A secret cannot be had, or a destination makes no sense; one sentence each.
    #[error("{}", .0.join("\n"))]
    Setup(Vec<String>),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The state went bad while the daemon ran.
    #[error(transparent)]
    State(StoreError),
    /// A loop ended that must not.
    #[error("{0}")]
    Loop(String),
    /// The system refuses something that every process may do.
    #[error("cannot start: {0}")]
    System(std::io::Error),
}
