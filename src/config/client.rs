//! What a client command needs of the configuration: where the daemon is, and no secret.

use super::environment::Env;
use super::load::{directory_of, read_file};
use super::problem::{Refused, Severity};
use super::source::Source;
use super::{ApiConfig, Catalog, check, find, raw};
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
    let reading = raw::read(&text);
    let directory = directory_of(&file);
    let catalog = Catalog::default();
    let circumstances = check::Circumstances { catalog: &catalog, env, directory: &directory };
    let (api, mut problems) = check::check_api(&reading.raw.api, circumstances);
    problems.extend(reading.problems.into_iter().take(reading.api_problems));
    problems.retain(|problem| problem.severity == Severity::Error);
    let state_dir = reading.raw.state.dir.given().map(|dir| check::path(dir.get_ref(), circumstances));
    let view = ClientView {
        api,
        state_dir: state_dir.or(usual.state_dir),
        providers: reading.raw.providers.into_iter().map(|named| named.name.into_inner()).collect(),
        file: Some(file),
    };
    match (problems.is_empty(), &reading.syntax) {
        (true, _) => Ok(view),
        // What stands in a broken file may not be what was meant.
        (false, Some(_)) => Ok(ClientView { api: ApiConfig::default(), ..view }),
        (false, None) => {
            let source = Source::new(view.file.as_deref().unwrap_or(Path::new("")), &text, &reading.document);
            Err(Refused::new(problems, source))
        }
    }
}
