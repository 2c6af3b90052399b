//! What a client command needs of the configuration: where the daemon is, and no secret.

use super::catalog::Catalog;
use super::check;
use super::environment::Env;
use super::find::{self, SOCKET_NAME, directory_of, runtime_socket};
use super::load::read_file;
use super::problem::{Refused, Severity};
use super::raw;
use super::settings::{ApiConfig, SECTIONS};
use super::source::Source;
use super::value::PathBase;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The little that client commands read.
#[derive(Clone, Debug, Default)]
pub struct ClientView {
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// `[api]`; its token is where it comes from, not what it is.
    pub api: ApiConfig,
    /// The state's directory: `[state] dir`, else the usual one.
    pub state_dir: Option<PathBuf>,
    /// The names of the providers in the file.
    pub providers: BTreeSet<String>,
}

/// Reads what a client command needs, and passes over everything else that may be wrong with the file: telling that
/// is the daemon's part. A file that this user may not read is no file.
///
/// # Errors
///
/// A file that was asked for is not there, or its `[api]` is wrong.
pub fn client_view(path: Option<&Path>, env: &Env) -> Result<ClientView, Refused> {
    let usual = ClientView { state_dir: find::state_dir(env), ..ClientView::default() };
    let Some(file) = find::config_file(path, env).map_err(Refused::plain)? else { return Ok(usual) };
    let text = match read_file(&file) {
        Ok(text) => text,
        Err(error) if error.kind == ErrorKind::PermissionDenied => return Ok(usual),
        Err(error) => return Err(Refused::plain(error.problem)),
    };
    let directory = directory_of(&file);
    let base = PathBase { env, directory: &directory };
    let reading = raw::read(&text, base);
    let catalog = Catalog::default();
    let circumstances = check::Circumstances { catalog: &catalog, base };
    let (api, mut problems) = check::check_api(&reading.raw.api, circumstances);
    problems.extend(reading.problems.into_iter().take(reading.api_problems));
    problems.retain(|problem| problem.severity == Severity::Error);
    let view = ClientView {
        api,
        state_dir: reading.raw.state.dir.value().or(usual.state_dir),
        providers: reading.raw.providers.into_iter().map(|named| named.name.into_inner()).collect(),
        file: Some(file),
    };
    match (problems.is_empty(), &reading.syntax) {
        (true, _) => Ok(view),
        // What stands in a broken file may not be what was meant.
        (false, Some(_)) => Ok(ClientView { api: ApiConfig::default(), ..view }),
        (false, None) => {
            let source = Source::new(
                view.file.as_deref().unwrap_or(Path::new("")),
                &text,
                &reading.document,
                SECTIONS,
            );
            Err(Refused::new(problems, source))
        }
    }
}

/// The sockets at which a client may find the daemon, in this order (`docs/contract.md#finding-the-daemon`): `[api] socket`, in
/// `$XDG_RUNTIME_DIR`, in `/run`; at last beside the state, where a daemon without any of these makes it.
pub fn client_sockets(view: &ClientView, env: &Env) -> Vec<PathBuf> {
    let beside = view.state_dir.as_ref().map(|dir| dir.join(SOCKET_NAME));
    let mut sockets: Vec<PathBuf> = Vec::with_capacity(4);
    let candidates =
        [view.api.socket.clone(), runtime_socket(env), Some(PathBuf::from(SYSTEM_SOCKET)), beside];
    for socket in candidates.into_iter().flatten() {
        if !sockets.contains(&socket) {
            sockets.push(socket);
        }
    }
    sockets
}

/// The machine's daemon.
const SYSTEM_SOCKET: &str = "/run/batchd/batchd.sock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket() {
        let env = Env::from([("XDG_RUNTIME_DIR", "/run/user/7"), ("XDG_STATE_HOME", "/x")]);
        let mut view = ClientView { state_dir: find::state_dir(&env), ..ClientView::default() };
        assert_eq!(
            client_sockets(&view, &env),
            ["/run/user/7/batchd/batchd.sock", "/run/batchd/batchd.sock", "/x/batchd/batchd.sock"]
                .map(PathBuf::from)
        );
        view.api.socket = Some("/own.sock".into());
        assert_eq!(client_sockets(&view, &env)[0], PathBuf::from("/own.sock"));
        view.api.socket = Some(SYSTEM_SOCKET.into());
        assert_eq!(client_sockets(&view, &env).len(), 3);
    }
}
