//! A client that reads the event log of one daemon as it grows, and goes on where it was whenever the stream ends.

use crate::patience::{now, pause};
use serde_json::Value;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What one client saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// The events in the order in which they came, each with its number and id.
    pub events: Vec<(u64, String)>,
    /// How often the stream began.
    pub streams: u64,
    pub wrong: Vec<String>,
}

/// Follows the log at `socket` until it is `over`; `last` shows how far it is.
pub fn follow(socket: &Path, last: &AtomicU64, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !over.load(Ordering::SeqCst) {
        if let Ok(stream) = UnixStream::connect(socket) {
            read(stream, &mut seen, last, over);
        }
        pause(Duration::from_millis(100));
    }
    seen
}

/// One stream, from its beginning to its end.
fn read(mut stream: UnixStream, seen: &mut Seen, last: &AtomicU64, over: &AtomicBool) {
    let after = seen.events.last().map_or(0, |(sequence, _)| *sequence);
    // Of HTTP/1.0, so that no chunks have to be put together.
    let asked = format!(
        "GET /v1/events HTTP/1.0\r\nhost: localhost\r\naccept: text/event-stream\r\nlast-event-id: {after}\r\n\r\n"
    );
    let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
    if stream.write_all(asked.as_bytes()).is_err() {
        return;
    }
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    let mut heard = now();
    let mut begun = false;
    while !over.load(Ordering::SeqCst) {
        match stream.read(&mut piece) {
            Ok(0) => return,
            Ok(count) => {
                heard = now();
                bytes.extend_from_slice(&piece[..count]);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                // Something is said every 15 seconds.
                if heard.elapsed() > SILENT {
                    return;
                }
                continue;
            }
            Err(_) => return,
        }
        while let Some(end) = bytes.windows(2).position(|window| window == b"\n\n" || window == b"\r\n") {
            // The head ends with an empty line as messages do.
            let message: Vec<u8> = if begun {
                bytes.drain(..end + 2).collect()
            } else {
                let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { break };
                bytes.drain(..end + 4).collect()
            };
            let message = String::from_utf8_lossy(&message).into_owned();
            if begun {
                seen.take(&message);
                last.store(seen.events.last().map_or(0, |(sequence, _)| *sequence), Ordering::SeqCst);
            } else if message.contains(" 200 ") {
                begun = true;
                seen.streams += 1;
            } else {
                return;
            }
        }
    }
}

impl Seen {
    fn take(&mut self, message: &str) {
        let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if field("event") == Some("reset") {
            self.wrong.push(format!("a stream was begun anew: {message}"));
            return;
        }
        let (Some(id), Some(data)) = (field("id"), field("data")) else { return };
        let told: Value = serde_json::from_str(data).unwrap_or_default();
        match (id.parse(), told["id"].as_str()) {
            (Ok(sequence), Some(event)) if told["sequence"] == sequence => {
                self.events.push((sequence, event.to_owned()));
            }
            _ => self.wrong.push(format!("a stream said: {message}")),
        }
    }
}

/// After so long without a word a client connects anew.
const SILENT: Duration = Duration::from_secs(25);
