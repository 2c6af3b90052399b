//! Where things are unless somebody says otherwise: the file, the state, the socket.

use super::environment::Env;
use super::problem::Problem;
use super::settings::Config;
use crate::domain::prices;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The configuration file: the one asked for, `$BATCHD_CONFIG`, `$XDG_CONFIG_HOME/batchd/config.toml` (else in
/// `~/.config`), `/etc/batchd/config.toml` (`docs/contract.md#configuration`). `None`: there is none, and none is needed.
///
/// # Errors
///
/// A file that was asked for is not there.
pub fn config_file(explicit: Option<&Path>, env: &Env) -> Result<Option<PathBuf>, Problem> {
    if let Some(path) = explicit {
        return asked_for(path, "");
    }
    if let Some(path) = env.get("BATCHD_CONFIG") {
        return asked_for(Path::new(path), " (BATCHD_CONFIG names it)");
    }
    Ok(usual_files(env).into_iter().find(|path| is_there(path)))
}

/// The state's directory unless the file names one: `$STATE_DIRECTORY` (the first, if systemd gives several),
/// `$XDG_STATE_HOME/batchd`, `~/.local/state/batchd`. `None`: the environment names no home.
pub fn state_dir(env: &Env) -> Option<PathBuf> {
    let systemd = env.get("STATE_DIRECTORY").and_then(|list| list.split(':').find(|path| !path.is_empty()));
    if let Some(path) = systemd {
        return Some(PathBuf::from(path));
    }
    let state =
        env.directory("XDG_STATE_HOME").or_else(|| Some(env.directory("HOME")?.join(".local/state")))?;
    Some(state.join("batchd"))
}

/// The socket that the daemon makes if systemd passes none: `[api] socket`, in `$XDG_RUNTIME_DIR`, beside the state.
pub fn daemon_socket(config: &Config, env: &Env) -> PathBuf {
    config
        .api
        .socket
        .clone()
        .or_else(|| runtime_socket(env))
        .unwrap_or_else(|| config.state.dir.join(SOCKET_NAME))
}

/// Where a configuration is written that is not there yet: the user's own, and root's in `/etc`.
pub fn new_file(env: &Env) -> Option<PathBuf> {
    if nix::unistd::getuid().is_root() && env.directory("XDG_CONFIG_HOME").is_none() {
        return Some(PathBuf::from(SYSTEM_FILE));
    }
    usual_files(env).into_iter().next()
}

/// Whether `path` is the machine's configuration, rather than somebody's own.
pub(super) fn is_the_machines(path: &Path) -> bool {
    path == Path::new(SYSTEM_FILE)
}

/// Where the list of prices is: beside the configuration file, else where the user's own would be.
pub fn prices_file(config_file: Option<&Path>, env: &Env) -> Option<PathBuf> {
    let directory = match config_file {
        Some(file) => directory_of(file),
        None => own_directory(env)?,
    };
    Some(directory.join(prices::FILE_NAME))
}

/// What relative paths in `file` are relative to.
pub fn directory_of(file: &Path) -> PathBuf {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    file.parent().unwrap_or(Path::new("/")).to_owned()
}

fn asked_for(path: &Path, by: &str) -> Result<Option<PathBuf>, Problem> {
    if is_there(path) {
        return Ok(Some(path.to_owned()));
    }
    Err(Problem::error(None, format!("there is no configuration file {}{by}", path.display())))
}

/// Whether something is there, even if it may not be read.
fn is_there(path: &Path) -> bool {
    match path.metadata() {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

fn usual_files(env: &Env) -> Vec<PathBuf> {
    let own = own_directory(env).map(|own| own.join("config.toml"));
    own.into_iter().chain([PathBuf::from(SYSTEM_FILE)]).collect()
}

/// Where a user's own configuration is.
fn own_directory(env: &Env) -> Option<PathBuf> {
    let own = env.directory("XDG_CONFIG_HOME").or_else(|| Some(env.directory("HOME")?.join(".config")))?;
    Some(own.join("batchd"))
}

/// The socket of a user's own daemon.
pub(super) fn runtime_socket(env: &Env) -> Option<PathBuf> {
    Some(env.directory("XDG_RUNTIME_DIR")?.join("batchd").join(SOCKET_NAME))
}

/// The machine's configuration.
const SYSTEM_FILE: &str = "/etc/batchd/config.toml";

pub(super) const SOCKET_NAME: &str = "batchd.sock";

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn the_file_in_the_order_of_the_contract() {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let explicit = at("explicit.toml");
        let named = at("named.toml");
        let xdg = at("xdg/batchd/config.toml");
        let home = at("home/.config/batchd/config.toml");
        let xdg_home = ("XDG_CONFIG_HOME", text(&directory.path().join("xdg")));
        let home_dir = ("HOME", text(&directory.path().join("home")));
        let all = Env::from([("BATCHD_CONFIG", text(&named)), xdg_home.clone(), home_dir.clone()]);
        assert_eq!(config_file(Some(&explicit), &all).unwrap(), Some(explicit));
        assert_eq!(config_file(None, &all).unwrap(), Some(named));
        assert_eq!(config_file(None, &Env::from([xdg_home, home_dir.clone()])).unwrap(), Some(xdg));
        assert_eq!(config_file(None, &Env::from([home_dir])).unwrap(), Some(home));

        let missing = directory.path().join("missing.toml");
        assert!(config_file(Some(&missing), &all).unwrap_err().message.contains("missing.toml"));
        let missing = Env::from([("BATCHD_CONFIG", text(&missing))]);
        assert!(config_file(None, &missing).unwrap_err().message.contains("BATCHD_CONFIG"));
    }

    #[test]
    fn the_state() {
        let of = |variables: &[(&str, &str)]| state_dir(&variables.iter().copied().collect());
        let systemd = ("STATE_DIRECTORY", "/var/lib/batchd:/var/lib/other");
        let xdg = ("XDG_STATE_HOME", "/x");
        let home = ("HOME", "/home/me");
        assert_eq!(of(&[systemd, xdg, home]), Some("/var/lib/batchd".into()));
        assert_eq!(of(&[xdg, home]), Some("/x/batchd".into()));
        assert_eq!(of(&[home]), Some("/home/me/.local/state/batchd".into()));
        assert_eq!(of(&[("XDG_STATE_HOME", "relative"), home]), Some("/home/me/.local/state/batchd".into()));
        assert_eq!(of(&[]), None);
    }
}
