//! Finds the daemon (contract §3), and says what to do where it cannot be reached.

use super::error::Error;
use super::exit::Exit;
use crate::control::client::{Address, Client};
use nix::unistd::{Gid, Group};
use secrecy::SecretString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What clients know of the configuration, which they may not be able to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientView {
    /// `[api] socket`
    pub socket: Option<PathBuf>,
    /// The state directory: the file's, or the default one.
    pub state_dir: Option<PathBuf>,
    /// The names of the providers.
    pub providers: Vec<String>,
}

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
    let view = client_view(config);
    let mut there = Vec::new();
    let mut looked = Vec::new();
    for path in sockets(&view, directory) {
        match std::fs::metadata(&path) {
            Ok(_) => there.push(path),
            Err(error) if error.kind() == ErrorKind::NotFound => looked.push((path, "no such socket")),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                if view.socket.as_ref() == Some(&path) {
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
    Error::new(Exit::Refused, format!("the socket {} may be opened by the group `{group}` only", socket.display()))
        .hint(format!(
            "add yourself to it with `sudo usermod -aG {group} $USER`, then log in again: membership counts from the next login"
        ))
}

/// What the configuration says to a client. Lenient: a file that cannot be read or understood says nothing.
pub fn client_view(config: Option<&Path>) -> ClientView {
    // SEAM: becomes `crate::config::find::client_view(config, &Env::of_process())`.
    let file = config.map(Path::to_owned).or_else(|| {
        let named = variable("BATCHD_CONFIG").map(PathBuf::from);
        let own = directory("XDG_CONFIG_HOME").or_else(|| Some(directory("HOME")?.join(".config")));
        named.or_else(|| Some(own?.join("batchd/config.toml")).filter(|path| path.exists()))
    });
    let table: toml::Table = file
        .or_else(|| Some(PathBuf::from("/etc/batchd/config.toml")))
        .and_then(|path| std::fs::read_to_string(path).ok())
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    let path = |section: &str, key: &str| table.get(section)?.get(key)?.as_str().map(PathBuf::from);
    let default_state = || {
        let home = directory("XDG_STATE_HOME").or_else(|| Some(directory("HOME")?.join(".local/state")));
        directory("STATE_DIRECTORY").or_else(|| Some(home?.join("batchd")))
    };
    ClientView {
        socket: path("api", "socket"),
        state_dir: path("state", "dir").or_else(default_state),
        providers: table
            .get("providers")
            .and_then(|providers| providers.as_table())
            .map(|providers| providers.keys().cloned().collect())
            .unwrap_or_default(),
    }
}

/// The sockets to look for, in order, each once. `directory` reads a variable that names a directory.
fn sockets(view: &ClientView, directory: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let candidates = [
        view.socket.clone(),
        directory("XDG_RUNTIME_DIR").map(|runtime| runtime.join("batchd/batchd.sock")),
        Some(PathBuf::from("/run/batchd/batchd.sock")),
        view.state_dir.as_ref().map(|state| state.join("batchd.sock")),
    ];
    let mut sockets: Vec<PathBuf> = Vec::new();
    for socket in candidates.into_iter().flatten() {
        if !sockets.contains(&socket) {
            sockets.push(socket);
        }
    }
    sockets
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

fn directory(name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_looked_for_in_the_contracts_order() {
        let view = ClientView {
            socket: Some("/etc/b.sock".into()),
            state_dir: Some("/var/lib/batchd".into()),
            providers: Vec::new(),
        };
        let runtime = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| PathBuf::from("/run/user/7"));
        let paths = |view: &ClientView| {
            sockets(view, runtime).iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            paths(&view),
            [
                "/etc/b.sock",
                "/run/user/7/batchd/batchd.sock",
                "/run/batchd/batchd.sock",
                "/var/lib/batchd/batchd.sock"
            ]
        );
        let same = ClientView { socket: Some("/run/batchd/batchd.sock".into()), ..ClientView::default() };
        assert_eq!(paths(&same), ["/run/batchd/batchd.sock", "/run/user/7/batchd/batchd.sock"]);
    }

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
        assert!(error.message.contains(&name) && error.hints[0].contains("log in again"), "{error:?}");
    }
}
