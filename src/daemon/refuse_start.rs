//! A daemon that cannot start says why to whoever waits on the socket that systemd passed to it.

use super::error::RunError;
use crate::control::api::ErrorCode;
use crate::control::api_error::ApiError;
use crate::store::{OpenError, StoreError};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Answers everybody who waits on the socket with the reason for not starting.
///
/// Otherwise systemd would start us for them again and again, and give up the socket in the end.
pub(super) async fn answer_why_not(listener: StdUnixListener, error: &RunError) {
    /// Once nobody has come for so long, everybody has been answered. Also what keeps one failing start after the
    /// other below the rate at which systemd gives up a socket (20 in 2 s).
    const IDLE_TIMEOUT: Duration = Duration::from_millis(150);
    /// Who still comes then is answered by the next start.
    const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);
    let (code, message) = match error {
        RunError::Config(refused) => (ErrorCode::ConfigRefused, refused.one_lines().join("\n")),
        RunError::Setup(problems) => (ErrorCode::ConfigRefused, problems.join("\n")),
        RunError::Open(OpenError::Damaged { .. }) | RunError::State(StoreError::Damaged(_)) => {
            (ErrorCode::StateDamaged, error.to_string())
        }
        other => (ErrorCode::Unavailable, other.to_string()),
    };
    let refusal = ApiError::new(code, format!("the daemon cannot start: {message}"))
        .hint("`journalctl -u batchd` has the whole story; the next command tries again");
    let body = serde_json::to_string(&refusal.into_body()).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let listener = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
    let Ok(listener) = listener else { return };
    let answering = async {
        let mut exchanges = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                accepted = tokio::time::timeout(IDLE_TIMEOUT, listener.accept()) => match accepted {
                    Ok(Ok((client, _))) => exchanges.push(turn_away(client, answer.as_bytes())),
                    Ok(Err(_)) | Err(_) => break,
                },
                Some(()) = exchanges.next() => {}
            }
        }
        while exchanges.next().await.is_some() {}
    };
    let _ = tokio::time::timeout(TOTAL_TIMEOUT, answering).await;
}

/// Gives a client its answer, and time to read it.
async fn turn_away(mut client: UnixStream, answer: &[u8]) {
    /// Who says or reads nothing for so long gets no more.
    const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);
    let exchange = async {
        let mut request = vec![0; 16 * 1024];
        if client.read(&mut request).await? == 0 {
            return Ok(());
        }
        client.write_all(answer).await?;
        client.shutdown().await?;
        // The rest of a long request: closing with unread bytes would break the connection under the answer.
        while client.read(&mut request).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    let _ = tokio::time::timeout(CLIENT_TIMEOUT, exchange).await;
}
