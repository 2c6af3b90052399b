//! The one type of error that commands end with.

use super::exit::Exit;
use crate::config::Refused;
use crate::control::api::{ErrorCode, ErrorObject};
use crate::control::client_error::ClientError;
use nix::unistd::{Gid, Group};
use std::path::Path;

/// What went wrong, as it is told to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: Exit,
    pub message: String,
    /// What led to it, one line each.
    pub causes: Vec<String>,
    /// What to do about it, one sentence each.
    pub hints: Vec<String>,
    /// What is wrong with the configuration, each problem in its place.
    pub refused: Option<Box<Refused>>,
}

impl Error {
    /// An error that ends the program with `kind`.
    pub fn new(kind: Exit, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hints: Vec::new(), refused: None }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A file or stream could not be read or written.
    pub fn io(what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        Self::new(Exit::Failed, format!("{what}: {}", system_words(error)))
    }

    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// All of it in single lines, for a log.
    pub fn lines(&self) -> Vec<String> {
        let problems = self.refused.iter().flat_map(|refused| refused.bare_lines());
        let message = self.message.lines().map(str::to_owned);
        problems.chain(message).chain(self.causes.iter().cloned()).chain(self.hints.iter().cloned()).collect()
    }

    /// The same about one of several: names it unless the message does.
    #[must_use]
    pub fn about(mut self, id: &str) -> Self {
        if !names(&self.message, id) {
            self.message = format!("{id}: {}", self.message);
        }
        self
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let mut error = Self::new(Exit::Configuration, "the configuration is refused");
        error.refused = Some(Box::new(refused));
        error
    }
}

impl From<ErrorObject> for Error {
    fn from(object: ErrorObject) -> Self {
        let code = object.code.unwrap_or(ErrorCode::Other);
        let mut error = Self::new(code.into(), object.message);
        error.hints = object.hints;
        if error.hints.is_empty() {
            error.hints.extend(hint_for(code).map(ToOwned::to_owned));
        }
        error
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        let kind = Exit::from(&error);
        let message = error.to_string();
        match error {
            ClientError::Refused(object) => (*object).into(),
            ClientError::Denied(path) => denied(&path),
            ClientError::Unreachable { .. } => {
                START_HINTS.into_iter().fold(Self::new(kind, message), Self::hint)
            }
            ClientError::Silent(_) => Self::new(kind, message)
                .hint("check its log: `journalctl -u batchd`, or the terminal it runs in"),
            ClientError::Malformed(_) => Self::new(kind, message)
                .hint("the daemon may be another version: compare `batchd status` with `batchd --version`"),
            ClientError::Broken(_) | ClientError::Unprepared(_) => Self::new(kind, message),
        }
    }
}

/// The error for a socket that exists and may not be opened.
pub fn denied(socket: &Path) -> Error {
    let group = group_of(socket);
    let group = group.as_deref().unwrap_or("batchd");
    Error::new(Exit::Refused, format!("the socket {} is only for the group `{group}`", socket.display()))
        .hint(admission(group))
}

/// How to get access to a socket of `group`.
fn admission(group: &str) -> String {
    if group == "root" {
        return "run this with sudo, or as the user that runs the daemon".to_owned();
    }
    format!("add yourself with `sudo usermod -aG {group} $USER`, then log in again: groups are read at login")
}

fn group_of(socket: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let group = Gid::from_raw(std::fs::metadata(socket).ok()?.gid());
    Some(Group::from_gid(group).ok().flatten().map_or_else(|| group.to_string(), |group| group.name))
}

pub const START_HINTS: [&str; 1] =
    ["start it with `systemctl start batchd`, or with `batchd run` in a terminal"];

/// Whether `id` stands in `message` as a word of its own.
fn names(message: &str, id: &str) -> bool {
    let apart = |neighbour: Option<char>| {
        neighbour.is_none_or(|letter| !letter.is_alphanumeric() && !matches!(letter, '_' | '-' | '/'))
    };
    message.match_indices(id).any(|(place, _)| {
        apart(message[..place].chars().next_back()) && apart(message[place + id.len()..].chars().next())
    })
}

/// A hint for errors that come without one.
fn hint_for(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::Unauthorized => "set BATCHD_TOKEN to the token of the daemon's `[api] token`",
        ErrorCode::Forbidden => {
            "over TCP without a token the API is read-only: use the socket, or set `[api] token` and BATCHD_TOKEN"
        }
        ErrorCode::Misdirected => {
            "add the name to `[api] hosts`, or use the address that the daemon listens on"
        }
        ErrorCode::ProviderRefused => "check the key with `batchd providers check`",
        ErrorCode::UnknownProvider => "`batchd providers` lists what is configured",
        ErrorCode::UnknownWebhook => "`batchd webhooks` lists what is configured",
        ErrorCode::StateUnwritable => {
            "free space or make the state directory writable; nothing acknowledged is lost"
        }
        ErrorCode::Internal => "this is a bug in batchd; please report it with the daemon's log",
        _ => return None,
    })
}

/// An operating system's error without Rust's `(os error N)`.
fn system_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_named_once() {
        let error = Error::new(Exit::Failed, "no such batch").about("batch_1");
        assert_eq!(error.message, "batch_1: no such batch");
        assert_eq!(error.clone().about("batch_1"), error);
        assert_eq!(Error::new(Exit::Failed, "no such batch").about("a").message, "a: no such batch");
    }

    #[test]
    fn what_the_system_says_is_a_lowercase_fragment() {
        let error = Error::io("cannot open x", &std::io::Error::from_raw_os_error(2));
        assert_eq!(error.message, "cannot open x: no such file or directory");
    }

    #[test]
    fn the_group_of_a_forbidden_socket_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        std::fs::write(&socket, "").unwrap();
        let name = group_of(&socket).unwrap();
        let error = denied(&socket);
        assert_eq!(error.kind, Exit::Refused);
        assert!(error.message.contains(&name), "{error:?}");
        assert_eq!(error.hints, [admission(&name)]);
        assert!(admission("batchd").contains("-aG batchd $USER`, then log in again"));
        assert!(!admission("root").contains("usermod"), "nobody should join that");
    }
}
