//! A client of the daemon's Unix socket that shares no code with batchd: one request a connection, and an answer counts
//! only if it came to its end.

use crate::patience::now;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// An answer that came to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Asks and waits for the whole answer; `None`: nobody is there, the connection broke, or `limit` passed.
pub fn ask(socket: &Path, method: &str, path: &str, body: &[u8], limit: Duration) -> Option<Reply> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_write_timeout(Some(limit)).ok()?;
    stream.write_all(&request(method, path, body)).ok()?;
    whole(&read(&mut stream, now() + limit)?)
}

/// The bytes of a request after which the connection closes.
pub fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Everything until the other side closes.
fn read(stream: &mut UnixStream, until: Instant) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let rest = until.checked_duration_since(now())?;
        stream.set_read_timeout(Some(rest.max(Duration::from_millis(1)))).ok()?;
        match stream.read(&mut piece) {
            Ok(0) => return Some(all),
            Ok(count) => all.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// The answer in `bytes`, if its end is there by its own account.
fn whole(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?.to_ascii_lowercase();
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let rest = &bytes[end + 4..];
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let body = if field("transfer-encoding").is_some() {
        unchunked(rest)?
    } else {
        let length: usize = field("content-length")?.trim().parse().ok()?;
        rest.get(..length)?.to_vec()
    };
    Some(Reply { status, body })
}

/// What the chunks hold, if the last of them is there.
fn unchunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}
