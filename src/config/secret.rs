//! Where secrets come from, and the only way to their text.

use secrecy::SecretString;
use std::path::PathBuf;

/// A place that holds a secret; the secret itself is read only by `run` and `config check`.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// `{ env = "NAME" }`
    Env(String),
    /// `{ file = "/path" }`
    File(PathBuf),
    /// `{ credential = "NAME" }`: `$CREDENTIALS_DIRECTORY/NAME`, else `keys_NAME` there.
    Credential(String),
    /// A plain string in the file.
    Inline(SecretString),
}
