//! Finds the daemon (`docs/contract.md#finding-the-daemon`), and says what to do where it cannot be reached.

use super::error::Error;
use super::exit::Exit;
use crate::config::environment::Env;
use crate::config::{self, ClientView, client_sockets};
use crate::control::client::{Address, Client};
use nix::unistd::{Gid, Group};
use secrecy::SecretString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// How to start a daemon.
pub const START_HINTS: [&str; 1] =
    ["start it with `systemctl start batchd`, or with `batchd run` in a terminal"];

/// A way to the daemon: the first place of the contract's order where somebody answers.
///
/// `host`: `--host`. Only sockets that stand side by side are tried before they are used: a connection that is
/// made for a try is lost to a daemon that is just failing to start and answers each with its reason.
pub async fn client(host: Option<&Address>, config: Option<&Path>) -> Result<Client, Error> {
    let named = match host {
        Some(address) => Some(address.clone()),
        None => match variable("BATCHD_HOST") {
            Some(text) => Some(text.parse().map_err(|error| Error::usage(format!("BATCHD_HOST: {error}")))?),
            None => None,
        },
    };
    if let Some(address) = named {
        let token = variable("BATCHD_TOKEN").map(SecretString::from);
        return Ok(Client::new(address, token)?);
    }
    let env = Env::of_process();
    let view = client_view(config)?;
    let mut there = Vec::new();
    let mut looked = Vec::new();
    for path in client_sockets(&view, &env) {
        match std::fs::metadata(&path) {
            Ok(_) => there.push(path),
            Err(error) if error.kind() == ErrorKind::NotFound => looked.push((path, "no such socket")),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                if view.api.socket.as_ref() == Some(&path) {
                    return Err(denied(&path));
                }
                looked.push((path, "this user may not look there"));
            }
            Err(_) => looked.push((path, "it cannot be looked at")),
        }
    }
    if let [path] = there.as_slice() {
        return Ok(Client::new(Address::Unix(path.clone()), None)?);
    }
    let mut refusing = None;
    for path in there {
        match tokio::net::UnixStream::connect(&path).await {
            Ok(_) => return Ok(Client::new(Address::Unix(path), None)?),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                refusing.get_or_insert(path);
            }
            Err(_) => looked.push((path, "nobody listens there")),
        }
    }
    Err(refusing.map_or_else(|| nobody(&looked), |path| denied(&path)))
}

/// What is said where the socket exists and may not be opened.
pub fn denied(socket: &Path) -> Error {
    let group = group_of(socket);
    let group = group.as_deref().unwrap_or("batchd");
    Error::new(
        Exit::Refused,
        format!("the socket {} may be opened by the group `{group}` only", socket.display()),
    )
    .hint(admission(group))
}

/// How somebody comes to be let in by a socket of `group`.
fn admission(group: &str) -> String {
    if group == "root" {
        return "run this with sudo, or as the user that runs the daemon".to_owned();
    }
    format!(
        "add yourself to it with `sudo usermod -aG {group} $USER`, then log in again: membership counts from the next login"
    )
}

/// What the configuration says to a client.
pub fn client_view(config: Option<&Path>) -> Result<ClientView, Error> {
    Ok(config::client_view(config, &Env::of_process())?)
}

fn nobody(looked: &[(PathBuf, &str)]) -> Error {
    let error = looked.iter().fold(
        Error::new(Exit::Unreachable, "the daemon is not running, or not where it was looked for"),
        |error, (path, what)| error.cause(format!("{}: {what}", path.display())),
    );
    START_HINTS.into_iter().fold(error, Error::hint).hint(
        "or say where it is: `--host unix:///PATH`, BATCHD_HOST, or `--config FILE` with its `[api] socket`",
    )
}

fn group_of(socket: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let group = Gid::from_raw(std::fs::metadata(socket).ok()?.gid());
    Some(Group::from_gid(group).ok().flatten().map_or_else(|| group.to_string(), |group| group.name))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_nobody_is_told_where_was_looked_and_what_to_do() {
        let error = nobody(&[("/a.sock".into(), "no such socket")]);
        assert_eq!(error.kind, Exit::Unreachable);
        assert_eq!(error.causes, ["/a.sock: no such socket"]);
        assert!(error.hints[0].contains("systemctl start batchd"));
        assert!(error.hints[0].contains("batchd run"));
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
