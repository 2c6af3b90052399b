//! A server at the level of bytes: what it does with a connection is the case's own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A request that a peer has read.
#[derive(Clone, Debug)]
pub struct Asked {
    /// With the query.
    pub path: String,
    pub head: String,
    pub body: Vec<u8>,
}

/// A listener whose every request is given to a handler; it ends with the test's process.
#[derive(Clone)]
pub struct Peer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Peer {
    /// Each connection is read for one request, handed over with it, and closed.
    pub fn start(handler: impl Fn(&mut TcpStream, &Asked) + Send + Sync + 'static) -> Self {
        Self::on_connection(move |stream, note| {
            if let Some(asked) = read_request(stream) {
                note(asked.clone());
                handler(stream, &asked);
            }
        })
    }

    /// Each connection is handed over as it is.
    pub fn on_connection(handler: impl Fn(&mut TcpStream, &dyn Fn(Asked)) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let (asked, handler) = (Arc::clone(&peer.asked), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (asked, handler) = (Arc::clone(&asked), Arc::clone(&handler));
                std::thread::spawn(move || {
                    let mut stream = stream;
                    let note = |one| asked.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                    handler(&mut stream, &note);
                    finish(&mut stream);
                });
            }
        });
        peer
    }

    /// Answers every request with these bytes.
    pub fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |stream, _| {
            let _ = stream.write_all(&answer);
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Closes in order: a FIN with unread bytes behind it would become a RST.
fn finish(stream: &mut TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
    let mut bin = [0; 4096];
    while stream.read(&mut bin).is_ok_and(|count| count > 0) {}
}

/// One request by its `content-length`, or by its chunks; `None`: the other side went away before.
pub fn read_request(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let lower = head.to_ascii_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length = length.map_or(0, |length| length.trim().parse().unwrap_or(0));
            let chunked = lower.contains("transfer-encoding: chunked");
            let rest = &bytes[end + 4..];
            if rest.len() >= length && (!chunked || rest.ends_with(b"0\r\n\r\n")) {
                let mut words = head.split_whitespace().map(str::to_owned);
                let path = words.nth(1)?;
                return Some(Asked { path, head, body: rest.to_vec() });
            }
        }
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    }
}

/// An answer with a JSON body, after which the connection closes.
pub fn answer(status: u16, more: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\nconnection: close\r\n{more}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends `piece` over and over, with a pause after each, until the other side is gone.
pub fn repeat(stream: &mut TcpStream, piece: &[u8], pause: Duration) {
    while stream.write_all(piece).is_ok() {
        crate::patience::pause(pause);
    }
}

/// Keeps the connection open and silent until the other side is gone.
pub fn hang(stream: &mut TcpStream) {
    let mut bin = [0; 4096];
    while stream.read(&mut bin).is_ok_and(|count| count > 0) {}
}
