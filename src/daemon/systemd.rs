//! What systemd is told (`sd_notify`); without systemd, nothing.

use sd_notify::NotifyState;
use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdUnixDatagram};
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixDatagram;

/// A manager that does not listen is told nothing, rather than holding up the daemon.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Says that batchd has started, or is done with reloading.
pub(super) async fn ready() {
    tell(&[NotifyState::Ready]).await;
}

/// Says that batchd reads its configuration again.
pub(super) async fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]).await,
        Err(_) => tell(&[NotifyState::Reloading]).await,
    }
}

/// Says that batchd is stopping.
pub(super) async fn stopping() {
    tell(&[NotifyState::Stopping]).await;
}

/// Feeds the watchdog.
pub(super) async fn watchdog() {
    tell(&[NotifyState::Watchdog]).await;
}

/// One line for `systemctl status`.
pub(super) async fn status(text: &str) {
    tell(&[NotifyState::Status(text)]).await;
}

/// How often systemd wants a sign of life; `None`: it does not watch.
pub(super) fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

async fn tell(states: &[NotifyState<'_>]) {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
        return;
    };
    let mut message = String::new();
    for state in states {
        let _ = writeln!(message, "{state}");
    }
    if let Err(error) = send(&address, message.as_bytes()).await {
        tracing::warn!(%error, "cannot send the daemon's state to systemd (NOTIFY_SOCKET)");
    }
}

/// Sends one message without ever blocking a thread: `sd_notify`'s own way waits for as long as the manager's queue
/// is full.
async fn send(address: &OsStr, message: &[u8]) -> io::Result<()> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(Path::new(address))?,
    };
    let socket = StdUnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    let socket = UnixDatagram::from_std(socket)?;
    match tokio::time::timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(sent) => sent.map(drop),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it does not listen")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[tokio::test]
    async fn a_message_arrives_by_path_and_by_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("batchd-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        let listeners = [
            (path.clone().into_os_string(), StdUnixDatagram::bind(&path).unwrap()),
            (OsString::from(format!("@{name}")), StdUnixDatagram::bind_addr(&abstract_address).unwrap()),
        ];
        for (address, listener) in listeners {
            send(&address, b"READY=1\n").await.unwrap();
            let mut buffer = [0; 64];
            let length = listener.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1\n");
        }
    }

    #[tokio::test]
    async fn a_manager_that_does_not_listen_holds_up_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let _deaf = StdUnixDatagram::bind(&path).unwrap();
        let full = StdUnixDatagram::unbound().unwrap();
        full.set_nonblocking(true).unwrap();
        while full.send_to(b"x", &path).is_ok() {}
        let error = send(path.as_os_str(), b"WATCHDOG=1\n").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
