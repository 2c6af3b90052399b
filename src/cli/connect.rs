//! Finds the daemon (`docs/contract.md#finding-the-daemon`), and says what was tried where there is none.

use super::error::{Error, START_HINTS, denied};
use super::exit::Exit;
use crate::config::environment::Env;
use crate::config::{self, ClientView, client_sockets};
use crate::control::address::Address;
use crate::control::client::Client;
use secrecy::SecretString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

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
    let mut tried = Vec::new();
    for path in client_sockets(&view, &env) {
        match std::fs::metadata(&path) {
            Ok(_) => there.push(path),
            Err(error) if error.kind() == ErrorKind::NotFound => tried.push((path, "no such socket")),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                if view.api.socket.as_ref() == Some(&path) {
                    return Err(denied(&path));
                }
                tried.push((path, "no permission to access it"));
            }
            Err(_) => tried.push((path, "cannot be accessed")),
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
            Err(_) => tried.push((path, "nothing listens there")),
        }
    }
    Err(refusing.map_or_else(|| nobody(&tried), |path| denied(&path)))
}

/// What the configuration says to a client.
pub fn client_view(config: Option<&Path>) -> Result<ClientView, Error> {
    Ok(config::client_view(config, &Env::of_process())?)
}

fn nobody(tried: &[(PathBuf, &str)]) -> Error {
    let error = tried.iter().fold(
        Error::new(Exit::Unreachable, "no daemon found: it is not running, or listens elsewhere"),
        |error, (path, what)| error.cause(format!("{}: {what}", path.display())),
    );
    START_HINTS.into_iter().fold(error, Error::hint).hint(
        "or say where it listens: `--host unix:///PATH`, BATCHD_HOST, or `--config FILE` with its `[api] socket`",
    )
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_daemon_the_error_says_what_was_tried_and_what_to_do() {
        let error = nobody(&[("/a.sock".into(), "no such socket")]);
        assert_eq!(error.kind, Exit::Unreachable);
        assert_eq!(error.causes, ["/a.sock: no such socket"]);
        assert!(error.hints[0].contains("systemctl start batchd"));
        assert!(error.hints[0].contains("batchd run"));
    }
}
