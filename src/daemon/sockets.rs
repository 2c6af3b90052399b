//! The ways in: a socket that systemd passed, or one of our own, and TCP where it is asked for.

use crate::config::environment::Env;
use crate::config::{Config, find};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Everything that is listened on.
pub(super) struct Sockets {
    pub(super) socket: (UnixListener, Cleanup),
    pub(super) tcp: Option<(TcpListener, SocketAddr)>,
}

/// Why something cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another daemon answers on {}", path.display())]
    Alive { path: PathBuf },
    #[error("cannot listen on {}: {error}", path.display())]
    Socket { path: PathBuf, error: io::Error },
    #[error("cannot listen on {address}: {}", port_problem(error))]
    Tcp { address: SocketAddr, error: io::Error },
}

/// What is left to remove at the end: the file of a socket that we made ourselves.
pub(super) struct Cleanup {
    made: Option<(PathBuf, u64)>,
}

impl Cleanup {
    pub(super) fn describe(&self) -> String {
        match &self.made {
            Some((path, _)) => path.display().to_string(),
            None => "the socket that systemd passed".to_owned(),
        }
    }

    /// Removes the file, if it is still ours.
    pub(super) fn remove(self) {
        if let Some((path, inode)) = self.made
            && path.symlink_metadata().is_ok_and(|found| found.ino() == inode)
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(%error, socket = %path.display(), "cannot remove the socket");
        }
    }
}

impl Sockets {
    /// Takes over what systemd passed, or makes the socket; then TCP.
    pub(super) async fn bind(
        config: &Config,
        env: &Env,
        passed: Option<&StdUnixListener>,
    ) -> Result<Self, BindError> {
        let socket = match passed {
            Some(listener) => {
                let path = || PathBuf::from("the socket that systemd passed");
                let listener = listener
                    .try_clone()
                    .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
                    .and_then(UnixListener::from_std)
                    .map_err(|error| BindError::Socket { path: path(), error })?;
                (listener, Cleanup { made: None })
            }
            None => own(&find::daemon_socket(config, env)).await?,
        };
        let tcp = match config.api.listen {
            Some(address) => {
                let problem = |error| BindError::Tcp { address, error };
                let listener = TcpListener::bind(address).await.map_err(problem)?;
                let address = listener.local_addr().map_err(problem)?;
                Some((listener, address))
            }
            None => None,
        };
        Ok(Self { socket, tcp })
    }
}

/// The socket that systemd passed (the first, if it passed several), if it did.
pub(super) fn passed_by_systemd() -> Option<StdUnixListener> {
    let mut passed = listenfd::ListenFd::from_env();
    (0..passed.len()).find_map(|index| passed.take_unix_listener(index).ok().flatten())
}

/// Makes the socket at `path`, in place of one that nobody answers on any more.
async fn own(path: &Path) -> Result<(UnixListener, Cleanup), BindError> {
    let problem = |error| BindError::Socket { path: path.to_owned(), error };
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(problem)?;
    }
    match tokio::time::timeout(Duration::from_secs(2), UnixStream::connect(path)).await {
        Ok(Ok(_)) | Err(_) => return Err(BindError::Alive { path: path.to_owned() }),
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {}
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            use std::os::unix::fs::FileTypeExt;
            let found = path.symlink_metadata().map_err(problem)?;
            if !found.file_type().is_socket() {
                return Err(problem(io::Error::new(
                    ErrorKind::AlreadyExists,
                    "there is something that is no socket",
                )));
            }
            std::fs::remove_file(path).map_err(problem)?;
        }
        Ok(Err(error)) => return Err(problem(error)),
    }
    // Made under a name of its own, then moved: nobody can open it before its mode is right.
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(problem)?;
    let made = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o660))
        .and_then(|()| std::fs::rename(&fresh, path))
        .and_then(|()| path.symlink_metadata());
    match made {
        Ok(found) => Ok((listener, Cleanup { made: Some((path.to_owned(), found.ino())) })),
        Err(error) => {
            let _ = std::fs::remove_file(&fresh);
            Err(problem(error))
        }
    }
}

fn port_problem(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => {
            "another program listens there; choose another [api] listen, or stop it".to_owned()
        }
        ErrorKind::PermissionDenied => {
            "this user may not; choose a port above 1023 for [api] listen".to_owned()
        }
        ErrorKind::AddrNotAvailable => "this machine has no such address; see [api] listen".to_owned(),
        _ => error.to_string(),
    }
}
